"""Checks of single arguments and the texts of their errors: what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INT_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

Ragged = Tensor | Sequence[Tensor]


def list_counts(name: str, values: Sequence[Tensor], batch: int, width: int) -> list[int]:
    """Rows of each of B tensors [*, width]; one without elements has none, whatever its shape."""
    if len(values) != batch:
        fail(name, f"a list of B = {batch} tensors [*, {width}]", f"{len(values)} tensors", no_gts(width))
    for i, value in enumerate(values):
        tensor(f"{name}[{i}]", value, no_gts(width))
        if value.numel() and (value.ndim != 2 or value.shape[1] != width):
            fail(f"{name}[{i}]", f"[*, {width}]", shape_of(value), box_remedy(value, width))
    return [value.shape[0] if value.numel() else 0 for value in values]


def concatenate(
    name: str, values: Ragged, counts: list[int], tail: tuple[int, ...], device: torch.device
) -> Tensor:
    """A list of B tensors, [counts[b], *tail] each, as one; nothing is asked of a tensor without elements
    where none are due.
    """
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name}: expected a list of tensors, as gt_boxes, got {type(values).__name__}")
    if len(values) != len(counts):
        fail(name, f"a list of B = {len(counts)} tensors", f"{len(values)} tensors", "")
    parts: list[Tensor] = []
    for i, (value, count) in enumerate(zip(values, counts, strict=True)):
        tensor(f"{name}[{i}]", value, no_gts(*tail))
        if not count and not value.numel():
            continue
        if value.shape != (count, *tail):
            fail(
                f"{name}[{i}]",
                f"{[count, *tail]}",
                shape_of(value),
                label_remedy(name, value, count) if not tail else "",
            )
        same_device(f"{name}[{i}]", value, device)
        if parts and value.dtype != parts[0].dtype:
            fail(
                f"{name}[{i}]",
                f"the dtype of the first, {parts[0].dtype}",
                str(value.dtype),
                "cast the list to one dtype",
            )
        parts.append(value)
    if not parts:
        return torch.zeros((0, *tail), dtype=torch.float32 if tail else torch.int64, device=device)
    return torch.cat(parts)


def same_form(name: str, value: Any, shape: tuple[int, ...], letters: str) -> Tensor:
    """``value`` if it has the shape that follows from gt_boxes; any value without elements where none are
    due.
    """
    tensor(name, value)
    result: Tensor = value
    if 0 in shape and not result.numel():
        return result.reshape(shape)
    if tuple(result.shape) != shape:
        remedy = (
            "squeeze the last dimension" if result.ndim == len(shape) + 1 and result.shape[-1] == 1 else ""
        )
        if name == "gt_labels":
            remedy = label_remedy(name, result, shape[-1])
        fail(name, f"{letters} = {list(shape)}, the form of gt_boxes", shape_of(result), remedy)
    return result


def box_remedy(value: Tensor, columns: int) -> str:
    """What to do about boxes of another shape than [*, columns]."""
    if columns == 5:
        return "this configuration's boxes are rotated: (cx, cy, w, h, angle in radians)"
    if value.shape[-1:] == (5,):
        return (
            "pass the xyxy boxes that enclose rotated ones, or assign these by TaskAlignedAssigner('tal_obb')"
        )
    return ""


def label_remedy(name: str, value: Tensor, count: int) -> str:
    """What to do about labels that have a dimension more than gts."""
    if value.ndim < 2 or value.shape[-2] != count:
        return ""
    if value.shape[-1] == 1:
        return "squeeze the last dimension"
    return f"of one-hot labels pass {name}.argmax(-1); give a gt of several classes once for each of them"


def no_gts(*tail: int) -> str:
    """What stands for an image without gts in a list of tensors [*, *tail]."""
    return f"pass an empty {[0, *tail]} tensor for an image without any"


def tensor(name: str, value: object, instead_of_none: str = "") -> None:
    """Refuse what is no tensor."""
    if not isinstance(value, Tensor):
        remedy = f"; {instead_of_none}" if value is None and instead_of_none else as_tensor(name, value)
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}{remedy}")


def as_tensor(name: str, value: object) -> str:
    """How a value that is no tensor becomes one, as the end of a message."""
    if isinstance(getattr(value, "tensor", None), Tensor):  # a box type of mmdet or detectron2
        return f"; use {name}.tensor"
    if isinstance(value, (list, tuple)):
        return (
            f"; use torch.{'stack' if any(isinstance(part, Tensor) for part in value) else 'tensor'}({name})"
        )
    return f"; use torch.from_numpy({name})" if type(value).__module__ == "numpy" else ""


def floating(name: str, value: Tensor) -> None:
    """Refuse dtypes that are not floating."""
    if value.dtype not in FLOAT_DTYPES:
        fail(
            name,
            "a floating dtype (float16, bfloat16, float32, float64)",
            str(value.dtype),
            f"use {name.split('[')[0]}.float()",
        )


def same_device(name: str, value: Tensor, device: torch.device) -> None:
    """Refuse a tensor on another device than pred_boxes."""
    if value.device != device:
        fail(
            name,
            f"device {device}, as pred_boxes",
            str(value.device),
            f"use {name.split('[')[0]}.to(pred_boxes.device)",
        )


def shape_of(value: Tensor) -> str:
    """A shape as errors print it."""
    return str(list(value.shape))


def shapes_of(value: Ragged) -> str:
    """The shape of a tensor, or of each level's map."""
    return shape_of(value) if isinstance(value, Tensor) else str([list(level.shape) for level in value])


def fail(name: str, expected: str, got: str, remedy: str) -> NoReturn:
    """Raise the ValueError of a wrong argument: its name, what was expected, what came, and the remedy."""
    raise ValueError(f"{name}: expected {expected}, got {got}" + (f"; {remedy}" if remedy else ""))
