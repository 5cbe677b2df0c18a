"""Gts of a call, checked and packed once, whichever of the three forms they come in: a list with the gts of
each image, padded [B, G, 4], or packed [N, 4] with offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from .boxes import ROTATED
from .checks import (
    INT_DTYPES,
    Ragged,
    as_tensor,
    box_remedy,
    concatenate,
    fail,
    floating,
    list_counts,
    same_device,
    same_form,
    shape_of,
    tensor,
)
from .problem import GroundTruth

SAFE = 9e18
"""Corners up to here span an area that float32 holds."""


def ground_truth(
    gt_boxes: Ragged,
    gt_labels: Ragged,
    gt_mask: Tensor | None,
    gt_offsets: Tensor | None,
    gt_centers: Ragged | None,
    batch: int,
    device: torch.device,
    validate: bool,
    columns: int = 4,
) -> GroundTruth:
    """Gts of any form, in the dtypes that backends read; shapes, dtypes and devices are checked, and of
    values the offsets where ``validate`` says so. The arguments are those of
    :class:`simota_triton.SimOTAAssigner`, and the numbers of a box.

    Raises:
        TypeError: An argument is no tensor (or list of tensors).
        ValueError: Shape, dtype or device of an argument, or the offsets.
    """
    if isinstance(gt_boxes, Tensor) and not gt_boxes.numel():  # none at all, whatever the shape
        if gt_offsets is not None:
            gt_boxes = gt_boxes.reshape(0, columns)
        elif gt_boxes.ndim != 3 or gt_boxes.shape[::2] != (batch, columns):
            gt_boxes = gt_boxes.reshape(batch, 0, columns)
    if isinstance(gt_boxes, (list, tuple)):
        given = "gt_mask" if gt_mask is not None else "gt_offsets" if gt_offsets is not None else None
        if given is not None:
            fail(given, "None with a list of gts", "a value", "leave it out")
        gts = _listed(gt_boxes, gt_labels, gt_centers, batch, device, columns)
    elif not isinstance(gt_boxes, Tensor):
        expected = f"expected a tensor or a list of tensors, got {type(gt_boxes).__name__}"
        raise TypeError(f"gt_boxes: {expected}" + as_tensor("gt_boxes", gt_boxes))
    elif gt_boxes.ndim == 3:
        if gt_offsets is not None:
            remedy = f"leave it out, or pass packed gt_boxes [N, {columns}]"
            fail("gt_offsets", f"None with padded gt_boxes [B, G, {columns}]", "a value", remedy)
        gts = _padded(gt_boxes, gt_labels, gt_mask, gt_centers, batch, device, columns)
    elif gt_boxes.ndim == 2 and gt_boxes.shape[1] == columns:
        if gt_mask is not None:
            fail("gt_mask", f"None with packed gt_boxes [N, {columns}]", "a value", "leave it out")
        gts = _packed(gt_boxes, gt_labels, gt_offsets, gt_centers, batch, device, validate)
    else:
        expected = f"[B, G, {columns}], a list of [G, {columns}], or packed [N, {columns}] with gt_offsets"
        fail("gt_boxes", expected, shape_of(gt_boxes), box_remedy(gt_boxes, columns))
    return _in_our_dtypes(gts, device)


def _listed(
    gt_boxes: Sequence[Tensor],
    gt_labels: Ragged,
    gt_centers: Ragged | None,
    batch: int,
    device: torch.device,
    columns: int,
) -> GroundTruth:
    counts, centers = list_counts("gt_boxes", gt_boxes, batch, columns), None
    if gt_centers is not None:
        centers = concatenate("gt_centers", gt_centers, counts, (2,), device)
    return GroundTruth(
        boxes=concatenate("gt_boxes", gt_boxes, counts, (columns,), device),
        labels=concatenate("gt_labels", gt_labels, counts, (), device),
        given_centers=centers,
        offsets=_copied([0, *accumulate(counts)], device),
        mask=None,
        padded_shape=None,
        max_count=max(counts, default=0),
    )


def _padded(
    gt_boxes: Tensor,
    gt_labels: Ragged,
    gt_mask: Tensor | None,
    gt_centers: Ragged | None,
    batch: int,
    device: torch.device,
    columns: int,
) -> GroundTruth:
    if gt_boxes.shape[0] != batch or gt_boxes.shape[2] != columns:
        expected = f"[B, G, {columns}] with B = {batch}"
        fail("gt_boxes", expected, shape_of(gt_boxes), box_remedy(gt_boxes, columns))
    shape, width = (batch, gt_boxes.shape[1]), gt_boxes.shape[1]
    labels = same_form("gt_labels", gt_labels, shape, "[B, G]").reshape(-1)
    centers, mask = None, None
    if gt_centers is not None:
        centers = same_form("gt_centers", gt_centers, (*shape, 2), "[B, G, 2]").reshape(-1, 2)
    if gt_mask is not None:
        mask = same_form("gt_mask", gt_mask, shape, "[B, G]").reshape(-1)
        if mask.numel():
            if mask.dtype != torch.bool:
                fail("gt_mask", "torch.bool, True for real gts", str(mask.dtype), "use gt_mask.bool()")
            same_device("gt_mask", mask, device)
        mask = mask.to(device, torch.bool)
    return GroundTruth(
        boxes=gt_boxes.reshape(-1, columns),
        labels=labels,
        given_centers=centers,
        offsets=torch.arange(batch + 1, dtype=torch.int64, device=device) * width,
        mask=mask,
        padded_shape=shape,
        max_count=width,
    )


def _packed(
    gt_boxes: Tensor,
    gt_labels: Ragged,
    gt_offsets: Tensor | None,
    gt_centers: Ragged | None,
    batch: int,
    device: torch.device,
    validate: bool,
) -> GroundTruth:
    if gt_offsets is None:
        columns = gt_boxes.shape[1]
        remedy = f"pass the offsets, padded gt_boxes [B, G, {columns}], or a list of [G, {columns}]"
        fail("gt_offsets", f"[B + 1] with packed gt_boxes [N, {columns}]", "None", remedy)
    rows = gt_boxes.shape[0]
    offsets, max_count, all_owned = _offsets(gt_offsets, rows, batch, device, validate)
    return GroundTruth(
        boxes=gt_boxes,
        labels=same_form("gt_labels", gt_labels, (rows,), "[N]"),
        given_centers=None
        if gt_centers is None
        else same_form("gt_centers", gt_centers, (rows, 2), "[N, 2]"),
        offsets=offsets,
        mask=None,
        padded_shape=None,
        max_count=max_count,
        all_owned=all_owned,
    )


def _in_our_dtypes(gts: GroundTruth, device: torch.device) -> GroundTruth:
    """Gts on the device and in the dtypes of :class:`GroundTruth`; where there are any, dtypes and devices
    are checked.
    """
    centers = gts.given_centers
    if gts.boxes.numel():
        floating("gt_boxes", gts.boxes)
        same_device("gt_boxes", gts.boxes, device)
        if gts.labels.dtype not in INT_DTYPES:
            fail("gt_labels", "an integer dtype", str(gts.labels.dtype), "use gt_labels.long()")
        same_device("gt_labels", gts.labels, device)
        if centers is not None:
            floating("gt_centers", centers)
            same_device("gt_centers", centers, device)
    return replace(
        gts,
        boxes=gts.boxes.to(device, torch.float32),
        labels=gts.labels.to(device, torch.int64),
        given_centers=None if centers is None else centers.to(device, torch.float32),
    )


def _offsets(
    value: Tensor, rows: int, batch: int, device: torch.device, validate: bool
) -> tuple[Tensor, int | None, bool]:
    """Offsets on the device, the most rows of an image if known, and whether every row is known to be an
    image's.
    """
    tensor("gt_offsets", value)
    if value.shape != (batch + 1,):
        fail("gt_offsets", f"[B + 1] = [{batch + 1}]", shape_of(value), "")
    if value.dtype not in (torch.int64, torch.int32):
        fail("gt_offsets", "int64 or int32", str(value.dtype), "use gt_offsets.long()")
    if value.device != device and value.device.type != "cpu":
        expected = f"device {device}" + ("" if device.type == "cpu" else " or cpu")
        fail("gt_offsets", expected, str(value.device), "use gt_offsets.to(pred_boxes.device)")
    on_host = value.device.type == "cpu"
    if validate or (on_host and not torch.compiler.is_compiling()):
        host = value.tolist()
        if any(a > b for a, b in pairwise([0, *host, rows])):
            remedy = "image b owns rows gt_offsets[b] to gt_offsets[b + 1]"
            fail(
                "gt_offsets",
                f"row numbers from 0 to N = {rows}, never decreasing",
                f"{host if batch < 16 else host[:16]}",
                remedy,
            )
        offsets = _copied(host, device) if on_host else value.long()
        most = max((b - a for a, b in pairwise(host)), default=0)
        return offsets, most, host[0] == 0 and host[-1] == rows
    return value.to(device, torch.int64).clamp(0, rows).cummax(0).values, None, False


def _copied(values: list[int], device: torch.device) -> Tensor:
    """Integers on a device, int64: to a GPU from pinned memory, so that nobody waits. A CUDA graph would read
    that memory again when it is replayed, long after others have written to it.
    """
    host = torch.tensor(values, dtype=torch.int64, device="cpu")
    if device.type != "cuda" or torch.compiler.is_compiling():
        return host.to(device)
    if torch.cuda.is_current_stream_capturing():
        expected = "padded gts, or packed ones with gt_offsets on the device, while a CUDA graph is captured"
        remedy = "a replay would read memory of the host that is in other use by then"
        fail("gt_boxes", expected, "offsets on the host", remedy)
    return host.pin_memory().to(device, non_blocking=True)


def checked(gts: GroundTruth, num_classes: int) -> GroundTruth:
    """The gts with padding masked out; refuses the first that cannot take part."""
    gts = replace(gts.real(), is_sanitised=True)
    boxes, centers, labels = gts.boxes, gts.centers, gts.labels
    _check_format_of_gts(boxes, gts.mask, gts.padded_shape)
    if boxes.shape[1] == ROTATED:
        no_side_below_0 = ~(boxes[:, 2:4] < 0).any(1)  # a NaN is refused with what is not finite
        remedy = "rotated boxes are (cx, cy, w, h, angle in radians)"
        _check_gts("gt_boxes", boxes, no_side_below_0, "sides w and h of 0 or more", remedy, gts.offsets)
    if (
        _between(boxes, -SAFE, SAFE)
        and _between(centers, -SAFE, SAFE)
        and _between(labels, 0, num_classes - 1)
    ):
        return gts
    good_box, good_center, good_label = gts.can_take_part(num_classes)
    remedy = "drop that gt or mask it out"
    _check_gts("gt_boxes", boxes, good_box, "finite boxes of finite area", remedy, gts.offsets)
    _check_gts("gt_centers", centers, good_center, "finite values", remedy, gts.offsets)
    expected = f"labels in [0, {num_classes}), the classes of cls_logits"
    remedy = "classes count from 0; drop padding or mask it out"
    _check_gts("gt_labels", labels, good_label, expected, remedy, gts.offsets)
    return gts


def _check_format_of_gts(boxes: Tensor, mask: Tensor | None, padded_shape: tuple[int, int] | None) -> None:
    """Refuse padding that no mask tells from gts, and boxes of which most, two or more, are inverted: corner
    and size taken for corners. A box without area is legal, as a mosaic leaves some behind, and a single
    inverted one is somebody's slip.
    """
    if padded_shape is not None and mask is None:
        blank = (boxes == 0).all(1)
        if bool(blank.any()):
            image, gt = divmod(int(blank.nonzero()[0]), padded_shape[1])
            columns = boxes.shape[1]
            remedy = f"pass the mask, with True for that gt if it is real, or pass a list of [G, {columns}]"
            fail(
                "gt_mask",
                "[B, G] bool, False for padding",
                f"None and a box of zeros, gt {gt} of image {image}",
                remedy,
            )
    if boxes.shape[1] == ROTATED:
        return
    inverted = int((boxes[:, 2:] < boxes[:, :2]).any(1).sum())
    if inverted < 2:
        return
    count = boxes.shape[0] if mask is None else int(mask.sum())
    if 2 * inverted > count:
        remedy = (
            "convert corner and size with convert_boxes(gt_boxes, 'xywh'), "
            "centre and size with convert_boxes(gt_boxes, 'cxcywh')"
        )
        fail(
            "gt_boxes",
            "xyxy with x1 <= x2 and y1 <= y2",
            f"the opposite in {inverted} of {count} boxes",
            remedy,
        )


def _between(values: Tensor, low: float, high: float) -> bool:
    """Whether all values lie in a range, a NaN does not: all that there is to know of good gts, in a third of
    the operators.
    """
    if not values.numel():
        return True
    lowest, highest = values.aminmax()
    return low <= float(lowest) and float(highest) <= high


def _check_gts(name: str, values: Tensor, good: Tensor, expected: str, remedy: str, offsets: Tensor) -> None:
    """Refuse the first gt whose value is not good, by its place in its image."""
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        image = int((offsets[1:] <= row).sum())
        fail(
            name,
            expected,
            f"{values[row].tolist()} for gt {row - int(offsets[image])} of image {image}",
            remedy,
        )
