"""The assigner of SimOTA, and its matching stage alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import backends
from ..checks import Ragged
from ..config import SimOTAConfig
from ..inputs import pack
from ..matching import Matching, match
from ..result import AssignResult
from .base import Assigner, without_autocast


class CostMatrix(NamedTuple):
    """What the matching of a batch works on.

    Attributes:
        cost: [B, G, P] float32, +inf where the gt may not take the prior.
        iou: [B, G, P] float32, -1 where the pair does not count for ``dynamic_k``.
    """

    cost: Tensor
    iou: Tensor


torch.serialization.add_safe_globals([CostMatrix])  # what ``torch.load`` builds by default


class SimOTAAssigner(Assigner[SimOTAConfig]):
    """SimOTA label assignment of a batch, in one call.

    Args:
        config: A preset's name (``SimOTAConfig.presets()`` lists them) or a :class:`SimOTAConfig`.
        backend: ``"auto"``, ``"reference"`` (the dense definition), ``"torch"``, ``"triton"`` or
            ``"triton-stream"`` (NVIDIA GPUs). ``"auto"`` asks the environment variable SIMOTA_TRITON_BACKEND,
            then the device: ``"triton-stream"`` on NVIDIA GPUs of compute capability 8.0 and above, where a
            check at the first call finds that its kernels run and give known answers (``"triton"`` for calls
            with ``extra_cost`` or ``pair_mask``), else ``"torch"``. A backend that is asked for by name is
            never replaced.
        validate: Look at the values of gts, priors and offsets too. None: everywhere but on CUDA, where it
            costs a sync. Without it, a gt or prior that would have been refused takes no part.
        kernels: Launch parameters of the Triton kernels, for all shapes: a
            :class:`~simota_triton.tuning.KernelConfig`, which is for backend ``"triton"``, or a
            :class:`~simota_triton.tuning.StreamConfig`, for ``"triton-stream"``. None: those measured by
            ``simota-triton tune``, else a heuristic. They never change an answer.
        unknown: Nothing: a field of the configuration that is given here is refused, with where it belongs.

    An assigner can be called inside ``torch.compile(fullgraph=True)``: it is then one operator, and values
    are not looked at. A number of gts that changes from step to step does not compile again if gts are padded
    and that dimension is marked with ``torch._dynamo.mark_dynamic(gt_boxes, 1)`` (likewise ``gt_labels`` and
    ``gt_mask``); unmarked, it compiles once more.

    Raises:
        TypeError, ValueError: An argument is not what it should be.

    Example:
        >>> import torch
        >>> assigner = SimOTAAssigner("rtmdet")
        >>> priors = torch.tensor([[8.0, 8.0, 8.0, 8.0], [16.0, 8.0, 8.0, 8.0], [40.0, 40.0, 8.0, 8.0]])
        >>> boxes = torch.tensor([[[1.0, 1.0, 15.0, 14.0], [3.0, 0.0, 18.0, 17.0], [32.0, 32.0, 48.0, 48.0]]])
        >>> gts = [torch.tensor([[0.0, 0.0, 16.0, 16.0]])], [torch.tensor([1])]
        >>> result = assigner(boxes, torch.zeros(1, 3, 2), priors, *gts)
        >>> result.gt_index.tolist(), result.labels.tolist()
        ([[0, -1, -1]], [[1, 2, 2]])
    """

    config_class = SimOTAConfig
    example = ("rtmdet", "candidate_topk")

    def __init__(
        self,
        config: str | SimOTAConfig = "rtmdet",
        *,
        backend: str = "auto",
        validate: bool | None = None,
        kernels: Any = None,
        **unknown: Any,
    ) -> None:
        super().__init__(config, backend=backend, validate=validate, kernels=kernels, **unknown)

    @torch.no_grad()
    def __call__(
        self,
        pred_boxes: Tensor,
        cls_logits: Ragged,
        priors: Tensor,
        gt_boxes: Ragged,
        gt_labels: Ragged,
        *,
        gt_mask: Tensor | None = None,
        gt_offsets: Tensor | None = None,
        obj_logits: Ragged | None = None,
        gt_centers: Ragged | None = None,
        ignore_boxes: Ragged | None = None,
        candidate_mask: Tensor | None = None,
        extra_cost: Ragged | None = None,
        pair_mask: Ragged | None = None,
        level_shapes: Sequence[tuple[int, int]] | None = None,
    ) -> AssignResult:
        """Assign a batch.

        Gts come in one of three forms: padded (``gt_boxes`` [B, G, 4], ``gt_labels`` [B, G] and ``gt_mask``),
        a list of B tensors ([G_i, 4] and [G_i]), or packed ([N, 4] and [N] with ``gt_offsets``). All three
        give the same answer. Values are computed in float32, under autocast too; float64 inputs are rounded
        to float32 first.

        The host waits for a GPU in one case alone, unless ``validate`` asks it to: backend ``"triton"`` reads
        back how many gts an image has at most where offsets of packed gts are on the device. All else can be
        captured in a CUDA graph, but for a list of gts and offsets on the host, whose sizes are the host's:
        those are refused while a graph is captured.

        Args:
            pred_boxes: [B, P, 4] decoded predictions, xyxy in the priors' units (pixels).
                Any floating dtype.
            cls_logits: [B, P, C] of any strides, or the head's maps, a list of [B, C, H, W], whose cells in
                row-major order, level after level, are the priors. Maps are read in place.
            priors: [P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride): the points the originals use,
                which are cell corners for RTMDet, NanoDet and DAMO-YOLO and cell centres for YOLOX and
                PicoDet.
            gt_boxes: xyxy, floating dtype. A box without area is legal: it takes part, and its IoUs are 0.
            gt_labels: Integer classes in [0, C).
            gt_mask: [B, G] bool, True for real gts, for padded gts. None: all are real.
            gt_offsets: [B + 1] int, for packed gts: image b owns rows offsets[b] to offsets[b + 1]. Rows that
                no image owns take no part.
            obj_logits: [B, P, 1], [B, P] or a list of [B, 1, H, W]; needed exactly where ``config.score`` is
                ``"joint"``.
            gt_centers: x, y in the form of ``gt_boxes`` with 2 in place of 4: used as the gt's centre by the
                centre prior and the centre region, in place of the box centre (see
                :func:`simota_triton.mask_centers`).
            ignore_boxes: [B, I, 4] or a list of [I_i, 4]: crowd regions. A prior that no gt gets and whose
                cell's centre lies strictly inside one is flagged in ``result.ignore_mask``;
                ``config.prior_offset`` says where that centre is. Assignment itself does not change.
            candidate_mask: [B, P] or [P] bool: priors that take part at all (mmdet's inside flags).
            extra_cost: A cost of your own for each pair, in the form of the gts: [B, G, P], a list of [G_i,
                P], or [N, P]. It is added last, after the penalty, in float32, and may be negative. A pair
                whose extra cost is not finite takes no part. The call then takes memory for matrices of all
                pairs; backend ``"triton-stream"`` has none and refuses.
            pair_mask: bool, in the form of ``extra_cost``: False where that gt may not take that prior, which
                then does not count for its ``dynamic_k`` either. Which priors are candidates of the image
                does not change.
            level_shapes: (rows, columns) of the grid that the priors of each level form. Known from maps, and
                guessed where the image is square; it helps backend "triton-stream" to look at neighbours
                together, and changes no answer.

        Returns:
            An :class:`AssignResult`.

        Raises:
            TypeError: An argument is no tensor.
            ValueError: Shape, dtype, device or value of an argument; the message says what was expected and
                what came.

        Example:
            >>> from simota_triton import grid_priors
            >>> priors, gt = grid_priors(32, (8,)), torch.tensor([[0.0, 0.0, 32.0, 32.0]])
            >>> inputs = gt.expand(1, 16, 4), torch.zeros(1, 16, 1), priors, [gt], [torch.tensor([0])]
            >>> assigner = SimOTAAssigner("nanodet")
            >>> assigner(*inputs).fg_mask.nonzero()[:, 1].tolist()  # all nine that lie inside
            [5, 6, 7, 9, 10, 11, 13, 14, 15]
            >>> right = [priors[None, :, 0] > 8]
            >>> assigner(*inputs, pair_mask=right).fg_mask.nonzero()[:, 1].tolist()
            [6, 7, 10, 11, 14, 15]
        """
        inputs: dict[str, Any] = {
            "pred_boxes": pred_boxes, "cls_logits": cls_logits, "priors": priors,
            "gt_boxes": gt_boxes, "gt_labels": gt_labels, "gt_mask": gt_mask, "gt_offsets": gt_offsets,
            "obj_logits": obj_logits, "gt_centers": gt_centers, "ignore_boxes": ignore_boxes,
            "candidate_mask": candidate_mask, "extra_cost": extra_cost, "pair_mask": pair_mask,
            "level_shapes": level_shapes,
        }  # fmt: skip
        return self._assign(inputs)

    @torch.no_grad()
    def cost_matrix(self, *args: Any, **kwargs: Any) -> CostMatrix:
        """Cost and IoU of every (gt, prior) pair, for looking at. Costs come from the kernels of backend
        ``"triton"`` where the backend is that one (with the assigner's launch parameters) or
        ``"triton-stream"`` (whose costs have the same bits), else from the dense definition. Takes what a
        call takes, and raises what it raises.
        Packed gts give the matrices of padded ones: G is the most gts of an image.

        Example:
            >>> priors = torch.tensor([[8.0, 8.0, 8.0, 8.0], [40.0, 40.0, 8.0, 8.0]])
            >>> boxes = torch.tensor([[[1.0, 1.0, 15.0, 14.0], [32.0, 32.0, 48.0, 48.0]]])
            >>> gts = [torch.tensor([[0.0, 0.0, 16.0, 16.0]])], [torch.tensor([1])]
            >>> SimOTAAssigner("rtmdet").cost_matrix(boxes, torch.zeros(1, 2, 2), priors, *gts).cost
            tensor([[[1.2286,    inf]]])
        """
        problem = pack(self.config, *args, validate=self.validate, **kwargs)
        device = problem.priors.device
        name, _ = backends.choose(self.backend, device, rule=self.config.variety)
        with without_autocast(device):
            return CostMatrix(*backends.cost_matrix(name, problem, self.config, self.kernels)[:2])

    @torch.no_grad()
    def match(self, cost: Tensor, iou: Tensor, gt_mask: Tensor | None = None) -> Matching:
        """The matching stage alone, with the parameters of the assigner's configuration: what a call does
        with its :meth:`cost_matrix`, or with one that was changed. Arguments as :func:`dynamic_k_matching`.

        Args:
            cost: [B, G, P], +inf where the gt may not take the prior.
            iou: [B, G, P], negative where the pair does not count for ``dynamic_k``.
            gt_mask: [B, G] bool, False for padded gts, whose ``dynamic_k`` is then 0; their rows must hold
                +inf.

        Raises:
            TypeError, ValueError: As :func:`dynamic_k_matching`.

        Example:
            >>> priors = torch.tensor([[8.0, 8.0, 8.0, 8.0], [40.0, 40.0, 8.0, 8.0]])
            >>> boxes = torch.tensor([[[1.0, 1.0, 15.0, 14.0], [32.0, 32.0, 48.0, 48.0]]])
            >>> gts = [torch.tensor([[0.0, 0.0, 16.0, 16.0]])], [torch.tensor([1])]
            >>> inputs = boxes, torch.zeros(1, 2, 2), priors, *gts
            >>> assigner = SimOTAAssigner("rtmdet")
            >>> assigner.match(*assigner.cost_matrix(*inputs)).gt_index
            tensor([[ 0, -1]])
        """
        return match(cost, iou, self.config, gt_mask)


def assign(
    pred_boxes: Tensor,
    cls_logits: Ragged,
    priors: Tensor,
    gt_boxes: Ragged,
    gt_labels: Ragged,
    *,
    config: str | SimOTAConfig = "rtmdet",
    backend: str = "auto",
    gt_mask: Tensor | None = None,
    gt_offsets: Tensor | None = None,
    obj_logits: Ragged | None = None,
    gt_centers: Ragged | None = None,
    ignore_boxes: Ragged | None = None,
    candidate_mask: Tensor | None = None,
    extra_cost: Ragged | None = None,
    pair_mask: Ragged | None = None,
    level_shapes: Sequence[tuple[int, int]] | None = None,
) -> AssignResult:
    """Assign a batch, once: builds the assigner that ``config`` and ``backend`` ask for and calls it.

    Arguments, what is returned and what is raised are those of :class:`SimOTAAssigner` and of its call. A
    training loop builds the assigner once.

    Example:
        >>> priors, boxes = torch.tensor([[8.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]])
        >>> gts = [boxes], [torch.tensor([2])]
        >>> assign(boxes[None], torch.zeros(1, 1, 3), priors, *gts, config="nanodet").labels
        tensor([[2]])
    """
    return SimOTAAssigner(config, backend=backend)(
        pred_boxes,
        cls_logits,
        priors,
        gt_boxes,
        gt_labels,
        gt_mask=gt_mask,
        gt_offsets=gt_offsets,
        obj_logits=obj_logits,
        gt_centers=gt_centers,
        ignore_boxes=ignore_boxes,
        candidate_mask=candidate_mask,
        extra_cost=extra_cost,
        pair_mask=pair_mask,
        level_shapes=level_shapes,
    )
