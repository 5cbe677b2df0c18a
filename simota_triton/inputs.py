"""Inputs: checked and packed once, whatever their form, into one :class:`Problem` that every backend
reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from .checks import (
    FLOAT_DTYPES,
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
    shapes_of,
    tensor,
)
from .config import SimOTAConfig
from .priors import KnownPriors
from .problem import GroundTruth, Problem, Scores

SAFE = 9e18
"""Corners up to here span an area that float32 holds."""


def pack(
    config: SimOTAConfig,
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
    validate: bool | None = None,
) -> Problem:
    """Check every input and pack it. Shapes, dtypes and devices are always checked; values where ``validate``
    says so.

    The arguments are those of :class:`simota_triton.SimOTAAssigner`.

    Raises:
        TypeError: An argument is no tensor (or list of tensors).
        ValueError: Shape, dtype, device or value of an argument; the message names it, what was expected,
            what came.
    """
    tensor("pred_boxes", pred_boxes)
    if pred_boxes.ndim != 3 or pred_boxes.shape[2] != 4:
        fail(
            "pred_boxes",
            "[B, P, 4]",
            shape_of(pred_boxes),
            "add the batch dimension with pred_boxes[None]" if pred_boxes.ndim == 2 else "",
        )
    floating("pred_boxes", pred_boxes)
    if pred_boxes.device.type == "meta":
        fail(
            "pred_boxes",
            "a tensor with values",
            "device meta",
            "an assignment follows from values: move the model to a CPU or GPU first",
        )
    device, batch, num_priors = pred_boxes.device, pred_boxes.shape[0], pred_boxes.shape[1]
    if validate is None:
        validate = device.type != "cuda"
    elif not isinstance(validate, bool):
        raise TypeError(f"validate: expected True, False or None, got {validate!r}")

    cls = _scores("cls_logits", cls_logits, batch, num_priors, device)
    if cls.shape[2] < 1:
        fail("cls_logits", "[B, P, C] with at least one class", shapes_of(cls_logits), "")
    if validate and config.score == "prob":
        _check_probabilities(cls)
    obj = None
    if obj_logits is not None:
        if config.score != "joint":
            fail(
                "obj_logits",
                f"None, because the configuration's score is {config.score!r}",
                "a value",
                "use score='joint' or leave it out",
            )
        obj = _scores("obj_logits", obj_logits, batch, num_priors, device, channels=1)
    elif config.score == "joint":
        fail("obj_logits", "[B, P, 1], because the configuration's score is 'joint' (sqrt of class and objectness)", "None",
              "pass the objectness logits, or use score='sigmoid' for a head without objectness")  # fmt: skip

    packed_priors = _priors(priors, num_priors, device, validate)
    gts = _ground_truth(gt_boxes, gt_labels, gt_mask, gt_offsets, gt_centers, batch, device, validate)
    if validate:
        gts = _checked(gts, cls.shape[2])
    return Problem(
        pred_boxes=pred_boxes,
        cls_logits=cls,
        obj_logits=obj,
        priors=packed_priors,
        gts=gts,
        candidate_mask=_candidate_mask(candidate_mask, batch, num_priors, device),
        ignore_boxes=_ignore_boxes(ignore_boxes, batch, device, validate),
        cells=_cells(level_shapes, cls_logits, num_priors),
        extra_cost=_extra_cost(extra_cost, pair_mask, gt_boxes, gts, num_priors, device),
    )


def _extra_cost(
    extra_cost: Ragged | None,
    pair_mask: Ragged | None,
    gt_boxes: Ragged,
    gts: GroundTruth,
    num_priors: int,
    device: torch.device,
) -> Tensor | None:
    """Extra cost and mask of pairs as one: +inf where a gt may not take a prior."""
    extra = None
    if extra_cost is not None:
        extra = _pairs("extra_cost", extra_cost, gt_boxes, gts, num_priors, device)
        if extra.numel() and extra.dtype not in FLOAT_DTYPES:
            fail(
                "extra_cost",
                "a floating dtype",
                str(extra.dtype),
                "use extra_cost.float(), or pair_mask for a mask",
            )
        extra = extra.float()
    if pair_mask is not None:
        mask = _pairs("pair_mask", pair_mask, gt_boxes, gts, num_priors, device)
        if mask.numel() and mask.dtype != torch.bool:
            fail(
                "pair_mask",
                "torch.bool, True where the gt may take the prior",
                str(mask.dtype),
                "use pair_mask.bool()",
            )
        if extra is None:
            extra = torch.zeros(mask.shape, dtype=torch.float32, device=device)
        extra = extra.masked_fill(mask.logical_not(), torch.inf)
    return extra


def _pairs(
    name: str, value: Ragged, gt_boxes: Ragged, gts: GroundTruth, num_priors: int, device: torch.device
) -> Tensor:
    """A value of every (gt, prior) pair, in the form of the gts, as [N, P]."""
    if isinstance(gt_boxes, (list, tuple)):
        return concatenate(
            name, value, list_counts("gt_boxes", gt_boxes, len(gt_boxes), 4), (num_priors,), device
        )
    shape, letters = (*gts.boxes.shape[:1], num_priors), "[N, P]"
    if gts.padded_shape is not None:
        shape, letters = (*gts.padded_shape, num_priors), "[B, G, P]"
    value = same_form(name, value, shape, letters)
    if value.numel():
        same_device(name, value, device)
    return (
        value.to(device).reshape(-1, num_priors)
        if num_priors
        else value.new_zeros((gts.boxes.shape[0], 0), device=device)
    )


def _scores(
    name: str, value: Ragged, batch: int, num_priors: int, device: torch.device, channels: int | None = None
) -> Scores:
    last = "C" if channels is None else str(channels)
    if isinstance(value, Tensor):
        if channels == 1 and value.ndim == 2:
            value = value[..., None]
        if (
            value.ndim != 3
            or value.shape[:2] != (batch, num_priors)
            or (channels and value.shape[2] != channels)
        ):
            fail(
                name,
                f"[B, P, {last}] = [{batch}, {num_priors}, {last}]",
                shape_of(value),
                "or a list of [B, C, H, W] maps, one a level",
            )
        levels = [value]
    elif isinstance(value, (list, tuple)):
        for i, level in enumerate(value):
            tensor(f"{name}[{i}]", level)
            if (
                level.ndim != 4
                or level.shape[0] != batch
                or level.shape[1] != (channels or value[0].shape[1])
            ):
                fail(
                    f"{name}[{i}]",
                    f"[B, {last}, H, W] with B = {batch} and the same channels on every level",
                    shape_of(level),
                    "",
                )
            if level.dtype != value[0].dtype:
                fail(
                    f"{name}[{i}]",
                    f"the dtype of level 0, {value[0].dtype}",
                    str(level.dtype),
                    "cast the levels to one dtype",
                )
        cells = sum(level.shape[2] * level.shape[3] for level in value)
        if not value or cells != num_priors:
            fail(name, f"levels with P = {num_priors} cells in total, one prior a cell", f"{cells} cells in {len(value)} levels",
                  "flatten heads with several priors a cell to [B, P, C]")  # fmt: skip
        levels = [level.flatten(2).transpose(1, 2) for level in value]
    else:
        expected = f"expected a tensor [B, P, {last}] or a list of [B, {last}, H, W] maps"
        raise TypeError(f"{name}: {expected}, got {type(value).__name__}" + as_tensor(name, value))
    for level in levels:
        floating(name, level)
        same_device(name, level, device)
    return Scores(tuple(levels))


def _cells(
    level_shapes: Sequence[tuple[int, int]] | None, cls_logits: Ragged, num_priors: int
) -> tuple[tuple[int, int], ...] | None:
    if level_shapes is None:
        return (
            None
            if isinstance(cls_logits, Tensor)
            else tuple((level.shape[2], level.shape[3]) for level in cls_logits)
        )
    expected = "(rows, columns) of each level, integers"
    if not isinstance(level_shapes, (list, tuple)):
        raise TypeError(f"level_shapes: expected a list of {expected}, got {type(level_shapes).__name__}")
    for i, shape in enumerate(level_shapes):
        pair = isinstance(shape, (list, tuple)) and len(shape) == 2
        if not pair or any(
            isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in shape
        ):
            fail(f"level_shapes[{i}]", expected, f"{shape}", "pass a list of pairs, as [(80, 80), (40, 40)]")
    cells = sum(rows * columns for rows, columns in level_shapes)
    if cells != num_priors:
        fail(
            "level_shapes",
            f"P = {num_priors} priors in total",
            f"{cells}",
            "count every prior of a cell as a column",
        )
    return tuple((rows, columns) for rows, columns in level_shapes)


def _check_probabilities(scores: Scores) -> None:
    """Refuse finite scores outside [0, 1]; what is not finite keeps its prior out, as everywhere."""
    for level in scores.levels:
        wrong = level.isfinite() & ((level < 0) | (level > 1))
        if bool(wrong.any()):
            expected = "probabilities in [0, 1], because the configuration's score is 'prob'"
            fail("cls_logits", expected, f"{float(level[wrong][0])}", "use score='sigmoid' for logits")


def _priors(priors: Tensor, num_priors: int, device: torch.device, validate: bool) -> Tensor:
    tensor("priors", priors)
    if priors.ndim != 2 or priors.shape[1] not in (3, 4):
        remedy = ""
        if priors.ndim == 3:
            remedy = "all images share their priors: pass priors[0]"
        elif priors.shape[-1:] == (2,):
            remedy = "append the stride of each: torch.cat([priors, strides[:, None]], 1)"
        fail("priors", "[P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride)", shape_of(priors), remedy)
    if priors.shape[0] != num_priors:
        fail("priors", f"P = {num_priors} rows, as in pred_boxes", shape_of(priors), "")
    floating("priors", priors)
    same_device("priors", priors, device)
    priors = priors.float()
    if priors.shape[1] == 3:
        priors = torch.cat([priors, priors[:, 2:]], dim=1)
    if not validate:
        return priors
    known = KnownPriors.of(priors)
    known.fact(_check_priors)
    return known.values


def _check_priors(priors: Tensor) -> None:
    """Refuse the first prior that is not finite or has no stride."""
    strides = "strides > 0 in columns 2 and 3"
    for expected, fine, remedy in (
        ("finite values", priors.isfinite(), ""),
        (strides, priors[:, 2:] > 0, NOT_ANCHORS),
    ):
        if not bool(fine.all()):
            row = int((~fine.all(1)).nonzero()[0])
            fail("priors", expected, f"{priors[row].tolist()} in row {row}", remedy)
    # xyxy anchors: each reaches beyond its own corner, which of a grid's priors only the first of each level
    # does
    place = priors[:, :2] / priors[:, 2:]
    moved = (place - place[:1]).abs().amax(1) > 1e-3
    if bool((place < 1).all()) and bool(moved.any()):
        row = int(moved.nonzero()[0])
        expected = "strides in columns 2 and 3, the distances between priors"
        fail(
            "priors",
            expected,
            f"values above columns 0 and 1 in all rows, as {priors[row].tolist()} in row {row}",
            NOT_ANCHORS,
        )


NOT_ANCHORS = (
    "priors are points and strides, not boxes: simota_triton.grid_priors(image_size, strides, offset) "
    "forms them"
)
"""What to do where xyxy anchors were passed as priors."""


def _ground_truth(
    gt_boxes: Ragged, gt_labels: Ragged, gt_mask: Tensor | None, gt_offsets: Tensor | None, gt_centers: Ragged | None,
    batch: int, device: torch.device, validate: bool,
) -> GroundTruth:  # fmt: skip
    """Gts of any form, in the dtypes that backends read; shapes, dtypes and devices are checked."""
    mask: Tensor | None = None  # [N]
    padded_shape: tuple[int, int] | None = None
    all_owned = True
    if isinstance(gt_boxes, Tensor) and not gt_boxes.numel():  # none at all, whatever the shape
        if gt_offsets is not None:
            gt_boxes = gt_boxes.reshape(0, 4)
        elif gt_boxes.ndim != 3 or gt_boxes.shape[::2] != (batch, 4):
            gt_boxes = gt_boxes.reshape(batch, 0, 4)
    if isinstance(gt_boxes, (list, tuple)):
        if gt_mask is not None or gt_offsets is not None:
            fail(
                "gt_mask" if gt_mask is not None else "gt_offsets",
                "None with a list of gts",
                "a value",
                "leave it out",
            )
        counts = list_counts("gt_boxes", gt_boxes, batch, 4)
        boxes = concatenate("gt_boxes", gt_boxes, counts, (4,), device)
        labels = concatenate("gt_labels", gt_labels, counts, (), device)
        centers = None if gt_centers is None else concatenate("gt_centers", gt_centers, counts, (2,), device)
        offsets = _copied([0, *accumulate(counts)], device)
        max_count: int | None = max(counts, default=0)
    elif isinstance(gt_boxes, Tensor) and gt_boxes.ndim == 3:
        if gt_offsets is not None:
            fail(
                "gt_offsets",
                "None with padded gt_boxes [B, G, 4]",
                "a value",
                "leave it out, or pass packed gt_boxes [N, 4]",
            )
        if gt_boxes.shape[0] != batch or gt_boxes.shape[2] != 4:
            fail(
                "gt_boxes",
                f"[B, G, 4] with B = {batch}",
                shape_of(gt_boxes),
                box_remedy("gt_boxes", gt_boxes),
            )
        padded_shape = (batch, gt_boxes.shape[1])
        max_count = gt_boxes.shape[1]
        boxes = gt_boxes.reshape(-1, 4)
        labels = same_form("gt_labels", gt_labels, padded_shape, "[B, G]").reshape(-1)
        centers = (
            None
            if gt_centers is None
            else same_form("gt_centers", gt_centers, (*padded_shape, 2), "[B, G, 2]").reshape(-1, 2)
        )
        offsets = torch.arange(batch + 1, dtype=torch.int64, device=device) * max_count
        if gt_mask is not None:
            mask = same_form("gt_mask", gt_mask, padded_shape, "[B, G]").reshape(-1)
            if mask.numel():
                if mask.dtype != torch.bool:
                    fail("gt_mask", "torch.bool, True for real gts", str(mask.dtype), "use gt_mask.bool()")
                same_device("gt_mask", mask, device)
            mask = mask.to(device, torch.bool)
    elif isinstance(gt_boxes, Tensor) and gt_boxes.ndim == 2 and gt_boxes.shape[1] == 4:
        if gt_mask is not None:
            fail("gt_mask", "None with packed gt_boxes [N, 4]", "a value", "leave it out")
        if gt_offsets is None:
            fail(
                "gt_offsets",
                "[B + 1] with packed gt_boxes [N, 4]",
                "None",
                "pass the offsets, padded gt_boxes [B, G, 4], or a list of [G, 4]",
            )
        boxes = gt_boxes
        labels = same_form("gt_labels", gt_labels, (boxes.shape[0],), "[N]")
        centers = (
            None if gt_centers is None else same_form("gt_centers", gt_centers, (boxes.shape[0], 2), "[N, 2]")
        )
        offsets, max_count, all_owned = _offsets(gt_offsets, boxes.shape[0], batch, device, validate)
    elif isinstance(gt_boxes, Tensor):
        expected = "[B, G, 4], a list of [G, 4], or packed [N, 4] with gt_offsets"
        fail("gt_boxes", expected, shape_of(gt_boxes), box_remedy("gt_boxes", gt_boxes))
    else:
        raise TypeError(
            f"gt_boxes: expected a tensor or a list of tensors, got {type(gt_boxes).__name__}"
            + as_tensor("gt_boxes", gt_boxes)
        )

    if boxes.numel():
        floating("gt_boxes", boxes)
        same_device("gt_boxes", boxes, device)
        if labels.dtype not in INT_DTYPES:
            fail("gt_labels", "an integer dtype", str(labels.dtype), "use gt_labels.long()")
        same_device("gt_labels", labels, device)
        if centers is not None:
            floating("gt_centers", centers)
            same_device("gt_centers", centers, device)

    return GroundTruth(
        boxes=boxes.to(device, torch.float32),
        labels=labels.to(device, torch.int64),
        given_centers=None if centers is None else centers.to(device, torch.float32),
        offsets=offsets,
        mask=mask,
        padded_shape=padded_shape,
        max_count=max_count,
        all_owned=all_owned,
    )


def _checked(gts: GroundTruth, num_classes: int) -> GroundTruth:
    """The gts with padding masked out; refuses the first that cannot take part."""
    gts = replace(gts.real(), is_sanitised=True)
    boxes, centers, labels = gts.boxes, gts.centers, gts.labels
    _check_format_of_gts(boxes, gts.mask, gts.padded_shape)
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
            remedy = "pass the mask, with True for that gt if it is real, or pass a list of [G, 4]"
            fail(
                "gt_mask",
                "[B, G] bool, False for padding",
                f"None and a box of zeros, gt {gt} of image {image}",
                remedy,
            )
    inverted = int((boxes[:, 2:] < boxes[:, :2]).any(1).sum())
    if inverted < 2:
        return
    count = boxes.shape[0] if mask is None else int(mask.sum())
    if 2 * inverted > count:
        remedy = "convert corner and size with convert_boxes(gt_boxes, 'xywh'), centre and size with convert_boxes(gt_boxes, 'cxcywh')"
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


def _copied(values: list[int], device: torch.device) -> Tensor:
    """Integers on a device, int64: to a GPU from pinned memory, so that nobody waits. A CUDA graph would read
    that memory again when it is replayed, long after others have written to it.
    """
    host = torch.tensor(values, dtype=torch.int64, device="cpu")
    if device.type != "cuda" or torch.compiler.is_compiling():
        return host.to(device)
    if torch.cuda.is_current_stream_capturing():
        fail("gt_boxes", "padded gts, or packed ones with gt_offsets on the device, while a CUDA graph is captured", "offsets on the host",
              "a replay would read memory of the host that is in other use by then")  # fmt: skip
    return host.pin_memory().to(device, non_blocking=True)


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


def _candidate_mask(value: Tensor | None, batch: int, num_priors: int, device: torch.device) -> Tensor | None:
    if value is None:
        return None
    tensor("candidate_mask", value)
    if value.shape not in ((num_priors,), (batch, num_priors)):
        fail("candidate_mask", f"[B, P] = [{batch}, {num_priors}] or [P]", shape_of(value), "")
    if value.dtype != torch.bool:
        fail(
            "candidate_mask",
            "torch.bool, True for priors that may be assigned",
            str(value.dtype),
            "use candidate_mask.bool()",
        )
    same_device("candidate_mask", value, device)
    return value.expand(batch, num_priors)


def _ignore_boxes(value: Ragged | None, batch: int, device: torch.device, validate: bool) -> Tensor | None:
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        counts = list_counts("ignore_boxes", value, batch, 4)
        flat = concatenate("ignore_boxes", value, counts, (4,), device)
        floating("ignore_boxes", flat)
        parts = flat.float().split(counts)
        boxes = (
            torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
            if batch
            else flat.new_zeros(0, 0, 4)
        )
    elif isinstance(value, Tensor):
        if not value.numel():
            value = value.reshape(batch, 0, 4)
        if value.ndim != 3 or value.shape[0] != batch or value.shape[2] != 4:
            fail(
                "ignore_boxes",
                f"[B, I, 4] with B = {batch}, or a list of [I, 4]",
                shape_of(value),
                "pad with zero boxes",
            )
        if value.numel():
            floating("ignore_boxes", value)
            same_device("ignore_boxes", value, device)
        boxes = value.to(device, torch.float32)
    else:
        raise TypeError(
            f"ignore_boxes: expected a tensor or a list of tensors, got {type(value).__name__}"
            + as_tensor("ignore_boxes", value)
        )
    if validate and not bool(boxes.isfinite().all()):
        fail("ignore_boxes", "finite values", "NaN or Inf", "pad with zero boxes")
    return boxes
