"""What an assignment gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .inputs import GroundTruth


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
    """

    gt_index: Tensor
    labels: Tensor
    matched_iou: Tensor
    gt_boxes: Tensor
    fg_mask: Tensor
    ignore_mask: Tensor
    claims: Tensor
    dynamic_k: Tensor


@dataclass(frozen=True)
class AssignSummary:
    """An assignment in a few numbers, printed as one line.

    Attributes:
        num_gts: Real gts.
        num_pos: Priors that learn a gt.
        num_conflicts: Priors that several gts selected.
        num_empty: Gts that no prior learns.
        num_ignored: Priors whose loss can be left out.
        dynamic_k: {k: number of gts}, ascending.
    """

    num_gts: int
    num_pos: int
    num_conflicts: int
    num_empty: int
    num_ignored: int
    dynamic_k: dict[int, int]

    def __str__(self) -> str:
        histogram = " ".join(f"{k}:{count}" for k, count in self.dynamic_k.items()) or "-"
        return (
            f"{_count(self.num_gts, 'gt')}, {_count(self.num_pos, 'positive')}, {_count(self.num_conflicts, 'conflict')}, "
            f"{_count(self.num_empty, 'gt')} without a prior, {_count(self.num_ignored, 'prior')} ignored, dynamic k {histogram}"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True)
class AssignResult:
    """Which prior learns which gt, for a batch.

    Attributes:
        gt_index: [B, P] int64, index of the gt within its image (its row in padded gts), -1 for background.
        labels: [B, P] int64, class of that gt, ``num_classes`` for background.
        matched_iou: [B, P] float32, IoU of prediction and gt, 0 for background.
        ignore_mask: [B, P] bool, background priors whose point lies in an ignore box: their loss can be left out.
        claims: [B, P] int32, how many gts selected the prior; more than one is a conflict.
        dynamic_k: [B, G] int64 for padded gts, [N] otherwise; how many priors each gt asked for, 0 for padding.
        num_classes: C.
        gts: The packed ground truth.
    """

    gt_index: Tensor
    labels: Tensor
    matched_iou: Tensor
    ignore_mask: Tensor
    claims: Tensor
    dynamic_k: Tensor
    num_classes: int
    gts: GroundTruth = field(repr=False)

    @property
    def fg_mask(self) -> Tensor:
        """[B, P] bool, True where a prior learns a gt."""
        return self.gt_index >= 0

    @property
    def num_pos(self) -> Tensor:
        """[B] int64, positives of each image; ``num_pos.sum()`` is what losses are divided by."""
        return self.fg_mask.sum(1)

    @property
    def gt_boxes(self) -> Tensor:
        """[B, P, 4] float32 xyxy, the box each prior learns, 0 for background."""
        if self.gts.boxes.shape[0] == 0:
            return torch.zeros((*self.gt_index.shape, 4), device=self.gt_index.device)
        return torch.where(self.fg_mask[..., None], self.gts.boxes[self._rows()], 0.0)

    def _rows(self) -> Tensor:
        """[B, P] row of the matched gt among all gts; any valid row for background."""
        return torch.where(self.fg_mask, self.gts.offsets[:-1, None] + self.gt_index, 0)

    def matching_matrix(self) -> Tensor:
        """[B, P, G] bool, True where prior p learns gt g; what the blog text returns. Meant for looking, not for training."""
        width = self.gts.slots()[0].shape[1]
        return self.gt_index[..., None] == torch.arange(width, device=self.gt_index.device)

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
            k = self.dynamic_k[int(self.gts.offsets[image % batch]) : int(self.gts.offsets[image % batch + 1])]
        return ImageAssignment(
            gt_index=self.gt_index[image],
            labels=self.labels[image],
            matched_iou=self.matched_iou[image],
            gt_boxes=self.gt_boxes[image],
            fg_mask=self.fg_mask[image],
            ignore_mask=self.ignore_mask[image],
            claims=self.claims[image],
            dynamic_k=k,
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
        )
