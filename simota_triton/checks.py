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
    """Rows of each of B tensors [*, width]."""
    if len(values) != batch:
        fail(
            name,
            f"a list of B = {batch} tensors [*, {width}]",
            f"{len(values)} tensors",
            "pass an empty [0, 4] tensor for an image without any",
        )
    for i, value in enumerate(values):
        tensor(f"{name}[{i}]", value)
        if value.ndim != 2 or value.shape[1] != width:
            fail(f"{name}[{i}]", f"[*, {width}]", shape_of(value), "")
    return [value.shape[0] for value in values]


def concatenate(name: str, values: Ragged, counts: list[int], tail: tuple[int, ...], device: torch.device) -> Tensor:
    """A list of B tensors, [counts[b], *tail] each, as one."""
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name}: expected a list of tensors, as gt_boxes, got {type(values).__name__}")
    if len(values) != len(counts):
        fail(name, f"a list of B = {len(counts)} tensors", f"{len(values)} tensors", "")
    for i, (value, count) in enumerate(zip(values, counts, strict=True)):
        tensor(f"{name}[{i}]", value)
        if value.shape != (count, *tail):
            fail(f"{name}[{i}]", f"{[count, *tail]}", shape_of(value), "")
        same_device(f"{name}[{i}]", value, device)
        if value.dtype != values[0].dtype:
            fail(f"{name}[{i}]", f"the dtype of the first, {values[0].dtype}", str(value.dtype), "cast the list to one dtype")
    if not values:
        return torch.zeros((0, *tail), dtype=torch.float32 if tail else torch.int64, device=device)
    return torch.cat(list(values))


def same_form(name: str, value: Any, shape: tuple[int, ...], letters: str) -> Tensor:
    """``value`` if it has the shape that follows from gt_boxes."""
    tensor(name, value)
    if tuple(value.shape) != shape:
        fail(
            name,
            f"{letters} = {list(shape)}, the form of gt_boxes",
            shape_of(value),
            "squeeze the last dimension" if value.ndim == len(shape) + 1 else "",
        )
    result: Tensor = value
    return result


def tensor(name: str, value: object) -> None:
    """Refuse what is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")


def floating(name: str, value: Tensor) -> None:
    """Refuse dtypes that are not floating."""
    if value.dtype not in FLOAT_DTYPES:
        fail(name, "a floating dtype (float16, bfloat16, float32, float64)", str(value.dtype), f"use {name.split('[')[0]}.float()")


def same_device(name: str, value: Tensor, device: torch.device) -> None:
    """Refuse a tensor on another device than pred_boxes."""
    if value.device != device:
        fail(name, f"device {device}, as pred_boxes", str(value.device), f"use {name.split('[')[0]}.to(pred_boxes.device)")


def shape_of(value: Tensor) -> str:
    """A shape as errors print it."""
    return str(list(value.shape))


def shapes_of(value: Ragged) -> str:
    """The shape of a tensor, or of each level's map."""
    return shape_of(value) if isinstance(value, Tensor) else str([list(level.shape) for level in value])


def fail(name: str, expected: str, got: str, remedy: str) -> NoReturn:
    """Raise the ValueError of a wrong argument: its name, what was expected, what came, and the remedy."""
    raise ValueError(f"{name}: expected {expected}, got {got}" + (f"; {remedy}" if remedy else ""))
