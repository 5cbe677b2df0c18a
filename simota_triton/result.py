"""What an assignment gives back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import fail, floating, shape_of, tensor
from .config import SimOTAConfig, TaskAlignedConfig
from .matching import Matching
from .problem import GroundTruth, map_tensors


class ImageAssignment(NamedTuple):
    """One image of an :class:`AssignResult`, see there for the fields.

    Attributes:
        gt_index: [P] int64.
        labels: [P] int64.
        matched_iou: [P] float32.
        gt_boxes: [P, 4] float32.
        fg_mask: [P] bool.
        ignore_mask: [P] bool.
        claims: [P] int32.
        dynamic_k: [G] int64.
        scores: [P] float32.
    """

    gt_index: Tensor
    labels: Tensor
    matched_iou: Tensor
    gt_boxes: Tensor
    fg_mask: Tensor
    ignore_mask: Tensor
    claims: Tensor
    dynamic_k: Tensor
    scores: Tensor


@dataclass(frozen=True)
class AssignSummary:
    """An assignment in a few numbers, printed as one line.

    Attributes:
        num_gts: Gts that take part.
        num_pos: Priors that learn a gt.
        num_conflicts: Priors that several gts selected.
        num_empty: Gts that take part and that no prior learns.
        num_ignored: Priors whose loss can be left out.
        dynamic_k: {k: number of gts}, ascending.
        num_refused: Gts that take no part, see :attr:`AssignResult.refused`.
    """

    num_gts: int
    num_pos: int
    num_conflicts: int
    num_empty: int
    num_ignored: int
    dynamic_k: dict[int, int]
    num_refused: int = 0

    def __str__(self) -> str:
        histogram = " ".join(f"{k}:{count}" for k, count in self.dynamic_k.items()) or "-"
        all_gts = _count(self.num_gts + self.num_refused, "gt")
        refused = f"{self.num_refused} of {all_gts} refused: label outside [0, C) or not finite; "
        return (refused if self.num_refused else "") + (
            f"{_count(self.num_gts, 'gt')}, {_count(self.num_pos, 'positive')}, "
            f"{_count(self.num_conflicts, 'conflict')}, {_count(self.num_empty, 'gt')} without a prior, "
            f"{_count(self.num_ignored, 'prior')} ignored, dynamic k {histogram}"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, eq=False, repr=False)
class AssignResult:
    """Which prior learns which gt, for a batch.

    ``torch.save`` writes it, and ``torch.load`` reads it with its defaults where ``simota_triton`` is
    imported. Two results are equal (``==``) where all of their tensors are, which waits for a GPU; printing
    one does not.

    Attributes:
        gt_index: [B, P] int64, index of the gt within its image (its row in padded gts), -1 for background.
        labels: [B, P] int64, class of that gt, ``num_classes`` for background.
        matched_iou: [B, P] float32, IoU of prediction and gt, 0 for background; of the task-aligned rule
            the overlap of its configuration, which may be CIoU or ProbIoU.
        ignore_mask: [B, P] bool, background priors whose cell's centre lies strictly inside an ignore box:
            their loss can be left out.
        claims: [B, P] int32, how many gts selected the prior; more than one is a conflict. 0 is background,
            or a prior that ``min_positives`` alone gave to its gt.
        dynamic_k: [B, G] int64 for padded gts, [N] otherwise; how many priors each gt asked for by its IoUs,
            0 for padding. ``min_positives`` does not change it.
        num_classes: C.
        gts: The packed ground truth.
        scores: [B, P] float32, what the score of class ``labels`` should be, 0 for background: the normalised
            metric of the task-aligned rule; of SimOTA ``matched_iou``, the target of its soft losses.

    Example:
        >>> import io
        >>> from simota_triton import assign
        >>> priors, boxes = torch.tensor([[8.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]])
        >>> result = assign(boxes[None], torch.zeros(1, 1, 3), priors, [boxes], [torch.tensor([2])])
        >>> result
        AssignResult(B=1, P=1, C=3, cpu: 1 gt, 1 positive, 0 conflicts, 0 gts without a prior, 0 priors
        ignored, dynamic k 1:1)
        >>> file = io.BytesIO()
        >>> torch.save(result.cpu(), file)
        >>> torch.load(io.BytesIO(file.getvalue())) == result
        True
    """

    gt_index: Tensor
    labels: Tensor
    matched_iou: Tensor
    ignore_mask: Tensor
    claims: Tensor
    dynamic_k: Tensor
    num_classes: int
    gts: GroundTruth
    scores: Tensor

    @property
    def fg_mask(self) -> Tensor:
        """[B, P] bool, True where a prior learns a gt."""
        return self.gt_index >= 0

    @property
    def num_pos(self) -> Tensor:
        """[B] int64, positives of each image, 0 where there are none. Losses are divided by
        ``num_pos.sum().clamp(min=1)``; in several processes, by the sum over all of them, clamped to 1 once
        it is formed.

        Example:
            >>> from simota_triton import assign
            >>> priors, nothing = torch.tensor([[8.0, 8.0, 8.0]]), torch.zeros(1, 1, 4)
            >>> gts = [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)]
            >>> result = assign(nothing, torch.zeros(1, 1, 3), priors, *gts)
            >>> result.num_pos, result.num_pos.sum().clamp(min=1)
            (tensor([0]), tensor(1))
        """
        return self.fg_mask.sum(1)

    @property
    def refused(self) -> Tensor:
        """Gts that take no part, bool in the form of ``dynamic_k``, False for padding: the box, its area or
        its centre is not finite, or the label lies outside [0, C). With ``validate`` they raise an error
        instead.
        """
        real = self.gts.owned() if self.gts.mask is None else self.gts.mask
        return (self.dynamic_k == 0) & real.view(self.dynamic_k.shape)

    @property
    def num_refused(self) -> Tensor:
        """[B] int64, gts of each image that take no part, see :attr:`refused`. It is formed on the device,
        without waiting for it.

        Example:
            >>> from simota_triton import SimOTAAssigner
            >>> priors, boxes = torch.tensor([[8.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]])
            >>> assigner = SimOTAAssigner("rtmdet", validate=False)  # as on CUDA
            >>> result = assigner(boxes[None], torch.zeros(1, 1, 3), priors, [boxes], [torch.tensor([3])])
            >>> result.num_refused
            tensor([1])
            >>> print(result.summary())
            1 of 1 gt refused: label outside [0, C) or not finite; 0 gts, 0 positives, 0 conflicts,
            0 gts without a prior, 0 priors ignored, dynamic k -
        """
        refused = self.refused.long()
        if refused.ndim == 2:
            return refused.sum(1)
        # rows of a prefix sum, because rows that no image owns may lie around the offsets
        total = F.pad(refused.cumsum(0), (1, 0))
        return total.index_select(0, self.gts.offsets).diff()

    @property
    def gt_boxes(self) -> Tensor:
        """[B, P, 4] float32, the box each prior learns, in the format of the gts; 0 for background."""
        if self.gts.boxes.shape[0] == 0:
            return torch.zeros(
                (*self.gt_index.shape, self.gts.boxes.shape[1]),
                dtype=torch.float32,
                device=self.gt_index.device,
            )
        return torch.where(self.fg_mask[..., None], self.gts.boxes[self._rows()], 0.0)

    def _rows(self) -> Tensor:
        """[B, P] row of the matched gt among all gts; any valid row for background."""
        return torch.where(self.fg_mask, self.gts.offsets[:-1, None] + self.gt_index, 0)

    def matching_matrix(self) -> Tensor:
        """[B, P, G] bool, True where prior p learns gt g; what the blog text returns. Meant for looking, not
        for training.
        """
        width = self.gts.padded_rows()[0].shape[1]
        return self.gt_index[..., None] == torch.arange(width, dtype=torch.int64, device=self.gt_index.device)

    def target_scores(self, out: Tensor | None = None) -> Tensor:
        """[B, P, C] float32, what every class should be scored at: ``scores`` at class ``labels``, else 0.
        Meant for losses that want it dense; it takes as much memory as the logits.

        Args:
            out: [B, P, C] of a floating dtype to write into, whatever it holds.

        Raises:
            TypeError: ``out`` is no tensor.
            ValueError: ``out`` has another shape or device, or no floating dtype.

        Example:
            >>> from simota_triton import TaskAlignedAssigner
            >>> priors, boxes = torch.tensor([[8.0, 8.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]])
            >>> gts = [boxes], [torch.tensor([2])]
            >>> result = TaskAlignedAssigner("tal")(boxes[None], torch.zeros(1, 1, 3), priors, *gts)
            >>> result.target_scores()
            tensor([[[0., 0., 1.]]])
        """
        shape = (*self.gt_index.shape, self.num_classes)
        if out is None:
            out = torch.zeros(shape, dtype=torch.float32, device=self.gt_index.device)
        else:
            tensor("out", out)
            floating("out", out)
            if out.shape != shape:
                fail("out", f"[B, P, C] = {list(shape)}", shape_of(out), "")
            if out.device != self.gt_index.device:
                fail("out", f"device {self.gt_index.device}", str(out.device), "use result.to(out.device)")
            out.zero_()
        label = self.labels.clamp(max=self.num_classes - 1)  # of background too, whose score is 0
        return out.scatter_(2, label[..., None], self.scores[..., None].to(out.dtype))

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> AssignResult:
        """The result on another device. Its dtypes stay as they are.

        Raises:
            TypeError: ``device`` is none.
        """
        if not isinstance(device, (torch.device, str, int)):
            raise TypeError(
                f"device: expected a device, as torch.device('cuda') or 'cpu', got {device!r}; "
                "a result's dtypes are fixed"
            )
        moved: AssignResult = map_tensors(lambda value: value.to(device, non_blocking=non_blocking), self)
        return moved

    def cpu(self) -> AssignResult:
        """The result on the CPU; waits for a GPU."""
        return self.to("cpu")

    def __eq__(self, other: object) -> bool:
        return _equal(self, other) if isinstance(other, AssignResult) else NotImplemented

    def __repr__(self) -> str:
        (batch, num_priors), device = self.gt_index.shape, self.gt_index.device
        counts = f": {self.summary()}" if device.type == "cpu" else ""
        return f"AssignResult(B={batch}, P={num_priors}, C={self.num_classes}, {device}{counts})"

    def to_image(self, image: int) -> ImageAssignment:
        """The assignment of one image.

        Raises:
            IndexError: ``image`` is not in [-B, B).
        """
        batch = self.gt_index.shape[0]
        if not -batch <= image < batch:
            raise IndexError(f"image: expected -{batch} <= image < {batch}, got {image}")
        if self.dynamic_k.ndim == 2:
            k = self.dynamic_k[image]
        else:
            k = self.dynamic_k[
                int(self.gts.offsets[image % batch]) : int(self.gts.offsets[image % batch + 1])
            ]
        return ImageAssignment(
            gt_index=self.gt_index[image],
            labels=self.labels[image],
            matched_iou=self.matched_iou[image],
            gt_boxes=self.gt_boxes[image],
            fg_mask=self.fg_mask[image],
            ignore_mask=self.ignore_mask[image],
            claims=self.claims[image],
            dynamic_k=k,
            scores=self.scores[image],
        )

    def summary(self) -> AssignSummary:
        """The batch in a few numbers. Reads them back to the host: a stall on a GPU."""
        fg = self.fg_mask
        real = self.dynamic_k[self.dynamic_k > 0]
        ks, counts = real.unique(return_counts=True)
        return AssignSummary(
            num_gts=real.numel(),
            num_pos=int(fg.sum()),
            num_conflicts=int((self.claims > 1).sum()),
            num_empty=real.numel() - self._rows()[fg].unique().numel(),
            num_ignored=int(self.ignore_mask.sum()),
            dynamic_k=dict(zip(ks.tolist(), counts.tolist(), strict=True)),
            num_refused=int(self.num_refused.sum()),
        )


def _equal(value: Any, other: Any) -> bool:
    """Whether two values of the fields of a dataclass are the same; a NaN, as in a gt that was refused, is
    itself.
    """
    if isinstance(value, Tensor):
        return (
            isinstance(other, Tensor)
            and (value.shape, value.dtype, value.device) == (other.shape, other.dtype, other.device)
            and bool(((value == other) | ((value != value) & (other != other))).all())
        )
    if not dataclasses.is_dataclass(value):
        return bool(value == other)
    return type(value) is type(other) and all(
        _equal(getattr(value, entry.name), getattr(other, entry.name)) for entry in dataclasses.fields(value)
    )


torch.serialization.add_safe_globals(
    [AssignResult, AssignSummary, ImageAssignment, GroundTruth, Matching, SimOTAConfig, TaskAlignedConfig]
)
"""What ``torch.load`` builds by default."""
