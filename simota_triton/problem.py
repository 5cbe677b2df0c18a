"""One batch as the backends read it: predictions, priors and gts, whatever the form in which they came."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import box_area, box_center


@dataclass(frozen=True)
class Scores:
    """Class or objectness logits as the head left them: one [B, P, C] view, or a [B, P_l, C] view of each
    level's map.
    """

    levels: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        batch, _, channels = self.levels[0].shape
        return batch, sum(level.shape[1] for level in self.levels), channels

    def dense(self) -> Tensor:
        """[B, P, C]; a copy where there are several levels."""
        return self.levels[0] if len(self.levels) == 1 else torch.cat(self.levels, dim=1)

    def rows(self, image: Tensor, prior: Tensor) -> Tensor:
        """All classes of some priors: [n], [n] -> [n, C], in the logits' dtype."""
        return self.at_places(image * self.shape[1] + prior)

    def at_places(self, place: Tensor) -> Tensor:
        """All classes of the priors at some places of the batch, image * P + prior, [n] -> [n, C]."""
        _, num_priors, channels = self.shape
        if not self._is_flat:
            return self._gather(place // num_priors, place % num_priors, slice(None))
        return self.levels[0].view(-1, channels).index_select(0, place)

    def at(self, image: Tensor, prior: Tensor, label: Tensor) -> Tensor:
        """One class of some priors: indices that broadcast against each other -> [...], in the logits'
        dtype.
        """
        if not self._is_flat:
            image, prior, label = torch.broadcast_tensors(image, prior, label)
            return self._gather(image.flatten(), prior.flatten(), label.flatten()).view(image.shape)
        _, num_priors, channels = self.shape
        place = (image * num_priors + prior) * channels + label
        return self.levels[0].view(-1).index_select(0, place.flatten()).view(place.shape)

    @property
    def _is_flat(self) -> bool:
        """Whether a flat index reaches everything, which is read five times as fast as three."""
        return len(self.levels) == 1 and self.levels[0].is_contiguous()

    def _gather(self, image: Tensor, prior: Tensor, label: Any) -> Tensor:
        if len(self.levels) == 1:
            return self.levels[0][image, prior, label]
        channels = () if isinstance(label, Tensor) else (self.levels[0].shape[2],)
        out = self.levels[0].new_empty(prior.shape + channels)
        start = 0
        for level in self.levels:
            here = ((prior >= start) & (prior < start + level.shape[1])).nonzero().squeeze(1)
            own = label[here] if isinstance(label, Tensor) else label
            out[here] = level[image[here], prior[here] - start, own]
            start += level.shape[1]
        return out


@dataclass(frozen=True)
class GroundTruth:
    """The gts of a batch, concatenated: N rows, image b owns rows offsets[b] to offsets[b + 1].

    Attributes:
        boxes: [N, 4] xyxy float32.
        labels: [N] int64.
        given_centers: [N, 2] float32, None where the centres of the boxes count.
        offsets: [B + 1] int64.
        mask: [N] bool, False for rows that are no gts; None where there are none of them.
        padded_shape: (B, G) where the gts came padded: then N = B * G.
        max_count: Largest number of rows of an image, None where only the device knows it.
        all_owned: Whether it is known that every row is an image's: offsets may begin behind the first row
            and end before the last one.
        is_sanitised: Whether :meth:`sanitised` has nothing to do.
    """

    boxes: Tensor
    labels: Tensor
    given_centers: Tensor | None
    offsets: Tensor
    mask: Tensor | None
    padded_shape: tuple[int, int] | None
    max_count: int | None
    all_owned: bool = True
    is_sanitised: bool = False

    @property
    def centers(self) -> Tensor:
        """[N, 2] float32, the given centres, else those of the boxes."""
        return box_center(self.boxes) if self.given_centers is None else self.given_centers

    def real(self) -> GroundTruth:
        """Rows that are no gts, padding and those that no image owns, masked out and 0; box centres
        formed.
        """
        mask = self.mask if self.all_owned else self.owned()
        if mask is None:
            return replace(self, given_centers=self.centers)
        return self._kept(mask, mask)

    def can_take_part(self, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Whether boxes and their areas are finite, centres are, and labels lie in [0, C): [N] bool each."""
        box = self.boxes.isfinite().all(1) & box_area(self.boxes).isfinite()
        return box, self.centers.isfinite().all(1), (self.labels >= 0) & (self.labels < num_classes)

    def sanitised(self, num_classes: int) -> GroundTruth:
        """All rows that cannot take part masked out and 0, and box centres formed."""
        if self.is_sanitised:
            return self
        gts = self.real()
        box, center, label = gts.can_take_part(num_classes)
        keep = box & center & label
        return gts._kept(keep, keep if gts.mask is None else gts.mask & keep, is_sanitised=True)

    def _kept(self, keep: Tensor, mask: Tensor, is_sanitised: bool = False) -> GroundTruth:
        """All rows but those to ``keep`` are 0; box centres formed."""
        return replace(
            self,
            boxes=torch.where(keep[:, None], self.boxes, 0.0),
            labels=torch.where(keep, self.labels, 0),
            given_centers=torch.where(keep[:, None], self.centers, 0.0),
            mask=mask,
            is_sanitised=is_sanitised,
        )

    def padded_rows(self) -> tuple[Tensor, Tensor]:
        """Rows of the padded layout: row [B, G] int64 (clamped into range) and valid [B, G] bool (False for
        padding).
        """
        device = self.boxes.device
        if self.padded_shape is not None:
            row = torch.arange(self.boxes.shape[0], dtype=torch.int64, device=device).view(self.padded_shape)
            valid = torch.ones_like(row, dtype=torch.bool) if self.mask is None else self.mask.view(row.shape)
            return row, valid
        count = self.offsets.diff()
        width = self.max_count
        if width is None:
            width = int(count.max()) if count.numel() else 0
        slot = torch.arange(width, dtype=torch.int64, device=device)
        row = self.offsets[:-1, None] + slot
        valid = slot < count[:, None]
        row = torch.where(valid, row, 0)
        return row, valid if self.mask is None else valid & self.mask[row]

    def image(self) -> Tensor:
        """Image of each row, [N] int64; any image for rows that none owns."""
        rows = torch.arange(self.boxes.shape[0], dtype=torch.int64, device=self.boxes.device)
        return torch.bucketize(rows, self.offsets[1:], right=True).clamp(
            max=max(self.offsets.shape[0] - 2, 0)
        )

    def owned(self) -> Tensor:
        """Whether an image owns the row, [N] bool: offsets may begin behind the first row and end before the
        last one.
        """
        rows = torch.arange(self.boxes.shape[0], dtype=torch.int64, device=self.boxes.device)
        return (rows >= self.offsets[0]) & (rows < self.offsets[-1])

    def unpad(self, per_slot: Tensor) -> Tensor:
        """A [B, G] value back in the form of the input: [B, G] for padded gts, [N] otherwise, 0 for rows that
        no image owns.
        """
        if self.padded_shape is not None:
            return per_slot
        batch, width = per_slot.shape
        image = self.image()
        slot = torch.arange(image.shape[0], dtype=torch.int64, device=image.device) - self.offsets[image]
        place = torch.where(self.owned(), image * width + slot, batch * width)
        return F.pad(per_slot.flatten(), (0, 1))[place]


@dataclass(frozen=True)
class Problem:
    """One batch, checked.

    Attributes:
        pred_boxes: [B, P, 4] xyxy, as given (dtype and strides).
        cls_logits: Class logits, [B, P, C].
        obj_logits: Objectness logits, [B, P, 1], or None.
        priors: [P, 4] float32 x, y, stride_x, stride_y.
        gts: The ground truth.
        candidate_mask: [B, P] bool, False for priors that take no part, or None.
        ignore_boxes: [B, I, 4] float32 xyxy or None.
        cells: Rows and columns of the grid that the priors of each level form, row by row; None where
            unknown.
        extra_cost: [N, P] float32 in the rows of the gts, added to the cost of each pair, which takes no part
            where it is not finite; None: 0.
    """

    pred_boxes: Tensor
    cls_logits: Scores
    obj_logits: Scores | None
    priors: Tensor
    gts: GroundTruth
    candidate_mask: Tensor | None
    ignore_boxes: Tensor | None
    cells: tuple[tuple[int, int], ...] | None = None
    extra_cost: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """B, P, C."""
        return self.cls_logits.shape

    def usable_priors(self) -> Tensor:
        """Whether a prior takes part, [B, P] bool: it is finite with strides above 0, the mask allows it, and
        its box, the box's area and its objectness are finite.
        """
        boxes, priors = self.pred_boxes.float(), self.priors
        usable = (
            boxes.isfinite().all(2)
            & box_area(boxes).isfinite()
            & priors.isfinite().all(1)
            & (priors[:, 2:] > 0).all(1)
        )
        if self.candidate_mask is not None:
            usable = usable & self.candidate_mask
        if self.obj_logits is not None:
            usable = usable & self.obj_logits.dense()[..., 0].float().isfinite()
        return usable

    def sanitised(self) -> Problem:
        """With gts that cannot take part masked out, see :meth:`GroundTruth.sanitised`."""
        gts = self.gts.sanitised(self.shape[2])
        return self if gts is self.gts else replace(self, gts=gts)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A value with a function applied to its tensors: a tensor, a tuple, list or dict of values, or a
    dataclass that holds some.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [map_tensors(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return replace(value, **map_tensors(function, fields))
    return value
