"""The task-aligned assigner, and its matching stage alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks import Ragged
from ..config import TaskAlignedConfig
from ..inputs import pack
from ..matching import Matching
from ..result import AssignResult
from ..task_aligned.matching import match
from ..task_aligned.reference import metric_matrix
from .base import Assigner, without_autocast


class MetricMatrix(NamedTuple):
    """What the matching of a batch works on.

    Attributes:
        metric: [B, G, P] float32, 0 where the gt may not take the prior.
        overlap: [B, G, P] float32, -1 where the gt may not take the prior.
        inside: [B, G, P] bool, whether the prior lies in the gt's region.
    """

    metric: Tensor
    overlap: Tensor
    inside: Tensor


torch.serialization.add_safe_globals([MetricMatrix])  # what ``torch.load`` builds by default


class TaskAlignedAssigner(Assigner[TaskAlignedConfig]):
    """Task-aligned assignment (TAL) of a batch, in one call: the rule of YOLOv8 to YOLO26, YOLOv6, YOLOv9,
    PP-YOLOE, YOLO-NAS and TOOD.

    Args:
        config: A preset's name (``TaskAlignedConfig.presets()`` lists them) or a :class:`TaskAlignedConfig`.
        backend: As :class:`SimOTAAssigner`.
        validate: As :class:`SimOTAAssigner`.
        kernels: As :class:`SimOTAAssigner`.
        unknown: Nothing: a field of the configuration that is given here is refused, with where it belongs.

    Raises:
        TypeError, ValueError: An argument is not what it should be.

    Example:
        >>> import torch
        >>> assigner = TaskAlignedAssigner("tal")
        >>> priors = torch.tensor([[4.0, 4.0], [12.0, 4.0], [40.0, 40.0]])
        >>> boxes = torch.tensor([[[0.0, 0.0, 16.0, 14.0], [2.0, 0.0, 16.0, 16.0], [32.0, 32.0, 48.0, 48.0]]])
        >>> gts = [torch.tensor([[0.0, 0.0, 16.0, 16.0]])], [torch.tensor([1])]
        >>> result = assigner(boxes, torch.zeros(1, 3, 2), priors, *gts)
        >>> result.gt_index.tolist(), result.scores
        ([[0, 0, -1]], tensor([[0.8730, 0.8730, 0.0000]]))
    """

    config_class = TaskAlignedConfig
    example = ("tal", "topk")

    def __init__(
        self,
        config: str | TaskAlignedConfig = "tal",
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
        ignore_boxes: Ragged | None = None,
        candidate_mask: Tensor | None = None,
        pair_mask: Ragged | None = None,
        level_shapes: Sequence[tuple[int, int]] | None = None,
        **unknown: Any,
    ) -> AssignResult:
        """Assign a batch.

        Gts come in the three forms of :class:`SimOTAAssigner`, and what is said there of devices, dtypes and
        CUDA graphs holds here. With a configuration of rotated boxes, these have 5 numbers in place of 4:
        (cx, cy, w, h, angle in radians).

        Args:
            pred_boxes: [B, P, 4] decoded predictions, xyxy in the priors' units (pixels).
            cls_logits: [B, P, C] of any strides, or the head's maps, a list of [B, C, H, W]; probabilities
                where ``config.score`` is ``"prob"``.
            priors: [P, 2] x, y: the points of the priors, which are cell centres in all originals. Strides
                may follow, as [P, 3] or [P, 4]; only ``config.max_reach`` asks for them.
            gt_boxes: xyxy, floating dtype. A box without area is legal, and never has a positive, unless it
                is rotated: its ProbIoU may be above 0.
            gt_labels: Integer classes in [0, C).
            gt_mask: [B, G] bool, True for real gts, for padded gts. None: all are real.
            gt_offsets: [B + 1] int, for packed gts.
            ignore_boxes: [B, I, 4] or a list of [I_i, 4] xyxy, crowd regions. A prior that no gt gets and
                whose cell's centre lies strictly inside one is flagged in ``result.ignore_mask``.
            candidate_mask: [B, P] or [P] bool: priors that take part at all.
            pair_mask: bool, [B, G, P], a list of [G_i, P], or [N, P], in the form of the gts: False where
                that gt may not take that prior.
            level_shapes: (rows, columns) of the grid that the priors of each level form; it changes no
                answer.
            unknown: Nothing: an argument that this rule has no use for is refused, with what to do instead.

        Returns:
            An :class:`AssignResult`; its ``scores`` are the targets of classification.

        Raises:
            TypeError: An argument is no tensor, or there is none of that name.
            ValueError: Shape, dtype, device or value of an argument; the message says what was expected and
                what came.

        Example:
            >>> from simota_triton import grid_priors
            >>> priors, gt = grid_priors(32, (8,), offset=0.5), torch.tensor([[0.0, 0.0, 16.0, 16.0]])
            >>> inputs = gt.expand(1, 16, 4), torch.zeros(1, 16, 1), priors, [gt], [torch.tensor([0])]
            >>> TaskAlignedAssigner("yolov6")(*inputs).fg_mask.nonzero()[:, 1].tolist()
            [0, 1, 4, 5]
        """
        _refuse(unknown)
        inputs: dict[str, Any] = {
            "pred_boxes": pred_boxes, "cls_logits": cls_logits, "priors": priors,
            "gt_boxes": gt_boxes, "gt_labels": gt_labels, "gt_mask": gt_mask, "gt_offsets": gt_offsets,
            "ignore_boxes": ignore_boxes, "candidate_mask": candidate_mask, "pair_mask": pair_mask,
            "level_shapes": level_shapes,
        }  # fmt: skip
        return self._assign(inputs)

    @torch.no_grad()
    def metric_matrix(self, *args: Any, **kwargs: Any) -> MetricMatrix:
        """Metric, overlap and region of every (gt, prior) pair by the dense definition, for looking at. Takes
        what a call takes, and raises what it raises. Packed gts give the matrices of padded ones.

        Example:
            >>> priors = torch.tensor([[4.0, 4.0], [40.0, 40.0]])
            >>> boxes = torch.tensor([[[0.0, 0.0, 16.0, 14.0], [32.0, 32.0, 48.0, 48.0]]])
            >>> gts = [torch.tensor([[0.0, 0.0, 16.0, 16.0]])], [torch.tensor([1])]
            >>> TaskAlignedAssigner("tal").metric_matrix(boxes, torch.zeros(1, 2, 2), priors, *gts).metric
            tensor([[[0.3131, 0.0000]]])
        """
        _refuse(INSTEAD.keys() & kwargs)
        problem = pack(self.config, *args, validate=self.validate, **kwargs)
        with without_autocast(problem.priors.device):
            return MetricMatrix(*metric_matrix(problem, self.config)[:3])

    @torch.no_grad()
    def match(
        self, metric: Tensor, overlap: Tensor, inside: Tensor | None = None, gt_mask: Tensor | None = None
    ) -> Matching:
        """The matching stage alone, with the parameters of the assigner's configuration: what a call does
        with its :meth:`metric_matrix`, or with one that was changed. Arguments as :func:`topk_matching`.
        """
        return match(metric, overlap, inside, self.config, gt_mask)


INSTEAD = {
    "obj_logits": "the metric has no objectness: multiply class probabilities by it, and set score='prob'",
    "extra_cost": "the metric is no cost: use pair_mask to keep a gt from priors, or metric_matrix and match",
    "gt_centers": "the region is the gt's box: leave it out",
}
"""Arguments of :class:`SimOTAAssigner` that this rule has no use for, with what to do."""


def _refuse(names: Iterable[str]) -> None:
    """Refuse arguments that the assigner has not."""
    for name in names:
        remedy = INSTEAD.get(name)
        raise TypeError(
            f"{name}: no argument of a call of TaskAlignedAssigner" + (f"; {remedy}" if remedy else "")
        )
