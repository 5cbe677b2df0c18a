"""Small fixed problems whose answers are known: what a backend is asked before it is trusted on a GPU.

Predictions are numbers of Python's own generator, which are the same on every machine, and answers are those
of the float64 definition on the CPU. No rounding can change one: no two costs, metrics or overlaps that
decide, and no IoU sum and an integer, are near each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..boxes import IOU_ERROR
from ..config import RULES, Config
from ..inputs import pack
from ..matching import Matching
from ..priors import grid_priors

SIMOTA = ("rtmdet", "rtmdet_mmyolo", "mmdet_simota")
"""The class term over all classes with a centre prior; over the gt's own class, with IoUs of all priors; of
class times objectness, with a penalty."""

PRESETS = (*SIMOTA, "tal")
"""The task-aligned rule too, with CIoU."""

NUM_CLASSES = 3
GT_BOXES = (
    ((8.0, 10.0, 70.0, 66.0), (14.0, 18.0, 74.0, 80.0), (40.0, 30.0, 62.0, 58.0)),
    ((20.0, 4.0, 92.0, 50.0),),
)
"""Those of the first image overlap, so that they want the same priors; the second has fewer, which is
padded.
"""

Inputs = dict[str, Any]
Run = Callable[[Config, Inputs], Matching]
"""Computes a problem."""


def config_of(preset: str) -> Config:
    """The configuration of a preset of any rule."""
    (kind,) = (kind for kind in RULES.values() if preset in kind.presets())
    return kind.from_preset(preset)


def presets_of(backend: str) -> list[str]:
    """Those of ``PRESETS`` that a backend computes."""
    return [name for name in PRESETS if config_of(name).variety in backends.BACKENDS[backend].load]


def problem(config: Config, device: torch.device) -> Inputs:
    """The arguments of an assigner: two images of 96 pixels with padded gts, and two priors that cannot be
    read.
    """
    rng = random.Random(0)
    priors = grid_priors(96, offset=0.5)
    batch, num_priors, width = len(GT_BOXES), len(priors), max(map(len, GT_BOXES))
    boxes = [[_box(rng, gts) for _ in range(num_priors)] for gts in GT_BOXES]
    pred_boxes = torch.tensor(boxes, dtype=torch.float32, device="cpu")
    cls_logits = _numbers(rng, batch, num_priors, NUM_CLASSES)
    obj_logits = _numbers(rng, batch, num_priors, 1)
    pred_boxes[0, 26] = torch.nan
    cls_logits[0, 39] = torch.nan
    pad = [(torch.nan,) * 4]
    inputs = {
        "pred_boxes": pred_boxes,
        "cls_logits": cls_logits,
        "priors": priors,
        "gt_boxes": torch.tensor(
            [[*gts, *pad * (width - len(gts))] for gts in GT_BOXES], dtype=torch.float32, device="cpu"
        ),
        "gt_labels": torch.tensor(
            [[g if g < len(gts) else -1 for g in range(width)] for gts in GT_BOXES],
            dtype=torch.int64,
            device="cpu",
        ),
        "gt_mask": torch.tensor(
            [[g < len(gts) for g in range(width)] for gts in GT_BOXES], dtype=torch.bool, device="cpu"
        ),
    }
    if config.score == "joint":
        inputs["obj_logits"] = obj_logits
    return {name: value.to(device) for name, value in inputs.items()}


def _box(rng: random.Random, gts: tuple[tuple[float, ...], ...]) -> list[float]:
    """A prediction near one of the gts, or anywhere."""
    if rng.random() < 0.6:
        return [corner + 24.0 * (rng.random() - 0.5) for corner in gts[int(rng.random() * len(gts))]]
    x, y, width, height = (80.0 * rng.random() for _ in range(4))
    return [x, y, x + width, y + height]


def _numbers(rng: random.Random, *shape: int) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.tensor(
        [8.0 * rng.random() - 5.0 for _ in range(count)], dtype=torch.float32, device="cpu"
    ).view(shape)


def runner(backend: str) -> Run:
    """What a backend makes of a problem."""

    def run(config: Config, inputs: Inputs) -> Matching:
        packed = pack(config, **inputs, validate=False)
        return backends.assign(backend, packed, config)

    return run


def difference(run: Run, device: torch.device, presets: Iterable[str] = PRESETS) -> str | None:
    """The first difference from a known answer; None where all are right.

    IoUs may differ by ``boxes.IOU_ERROR``, the most that their float32 roundings add up to, scores by ten
    times that, since they are products of powers; all else is compared exactly.

    Args:
        run: What computes the problems.
        device: Where.
        presets: Of which configurations.

    Raises:
        Exception: What ``run`` raises.

    Example:
        >>> difference(runner("torch"), torch.device("cpu")) is None
        True
    """
    for preset in presets:
        config = config_of(preset)
        found = run(config, problem(config, device))
        inputs = problem(config, torch.device("cpu"))
        packed = pack(config, **inputs, validate=False)
        definition = backends.BACKENDS["reference"].load[config.variety]()
        expected = definition.assign(packed, config, dtype=torch.float64)
        taken = expected.gt_index >= 0
        right = torch.where(taken, inputs["gt_labels"].gather(1, expected.gt_index.clamp(min=0)), NUM_CLASSES)
        for name, here, there in (
            ("gt_index", found.gt_index, expected.gt_index),
            ("dynamic_k", found.dynamic_k, expected.dynamic_k),
            ("claims", found.claims, expected.claims),
            ("labels", right if found.labels is None else found.labels, right),
        ):
            wrong = (here.cpu() != there).nonzero()
            if len(wrong):
                place = tuple(wrong[0].tolist())
                index = ", ".join(map(str, place))
                return f"{preset}: {name}[{index}] is {int(here[place])}, not {int(there[place])}"
        values = [("matched_iou", found.matched_iou, expected.matched_iou, IOU_ERROR)]
        if expected.scores is not None:
            assert found.scores is not None
            values.append(("score", found.scores, expected.scores, 10 * IOU_ERROR))
        for name, here, there, allowed in values:
            error = (here.cpu().double() - there).abs()
            if not bool((error <= allowed).all()):
                most = float(error.nan_to_num(1.0).max())
                return f"{preset}: a {name} is off by {most:.3g}, more than {allowed:g}"
    return None
