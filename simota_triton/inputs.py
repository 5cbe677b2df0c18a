"""Inputs: checked and packed once, whatever their form, into one :class:`Problem` that every backend
reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import ROTATED
from .checks import (
    FLOAT_DTYPES,
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
from .config import Config
from .ground_truth import checked, ground_truth
from .priors import KnownPriors
from .problem import GroundTruth, Problem, Scores


def pack(
    config: Config,
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
    columns = ROTATED if config.boxes == "rotated" else 4
    tensor("pred_boxes", pred_boxes)
    if pred_boxes.ndim != 3 or pred_boxes.shape[2] != columns:
        remedy = box_remedy(pred_boxes, columns)
        if pred_boxes.ndim == 2:
            remedy = "add the batch dimension with pred_boxes[None]"
        fail("pred_boxes", f"[B, P, {columns}]", shape_of(pred_boxes), remedy)
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
        expected = "[B, P, 1], because the configuration's score is 'joint' (sqrt of class and objectness)"
        remedy = "pass the objectness logits, or use score='sigmoid' for a head without objectness"
        fail("obj_logits", expected, "None", remedy)

    packed_priors = _priors(priors, num_priors, device, validate, config.asks_for_strides)
    gts = ground_truth(gt_boxes, gt_labels, gt_mask, gt_offsets, gt_centers, batch, device, validate, columns)
    if validate:
        gts = checked(gts, cls.shape[2])
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
            name,
            value,
            list_counts("gt_boxes", gt_boxes, len(gt_boxes), gts.boxes.shape[1]),
            (num_priors,),
            device,
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
            expected = f"levels with P = {num_priors} cells in total, one prior a cell"
            remedy = "flatten heads with several priors a cell to [B, P, C]"
            fail(name, expected, f"{cells} cells in {len(value)} levels", remedy)
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
        if not level.numel():
            continue
        # aminmax takes half the time of both, but copies what is not contiguous; NaN is neither
        low, high = level.aminmax() if level.is_contiguous() else (level.amin(), level.amax())
        if bool(low >= 0) and bool(high <= 1):
            continue  # nearly always; the mask takes ten times as long
        wrong = level.isfinite() & ((level < 0) | (level > 1))
        if bool(wrong.any()):
            expected = "probabilities in [0, 1], because the configuration's score is 'prob'"
            fail("cls_logits", expected, f"{float(level[wrong][0])}", "use score='sigmoid' for logits")


def _priors(
    priors: Tensor, num_priors: int, device: torch.device, validate: bool, asks_for_strides: bool
) -> Tensor:
    tensor("priors", priors)
    columns = (3, 4) if asks_for_strides else (2, 3, 4)
    if priors.ndim != 2 or priors.shape[1] not in columns:
        remedy = ""
        if priors.ndim == 3:
            remedy = "all images share their priors: pass priors[0]"
        elif priors.shape[-1:] == (2,):
            remedy = "append the stride of each: torch.cat([priors, strides[:, None]], 1)"
        points = "" if asks_for_strides else ", or [P, 2] x, y"
        expected = f"[P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride{points})"
        fail("priors", expected, shape_of(priors), remedy)
    if priors.shape[0] != num_priors:
        fail("priors", f"P = {num_priors} rows, as in pred_boxes", shape_of(priors), "")
    floating("priors", priors)
    same_device("priors", priors, device)
    priors = priors.float()
    if priors.shape[1] == 2:
        priors = F.pad(priors, (0, 2), value=1.0)
    elif priors.shape[1] == 3:
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
