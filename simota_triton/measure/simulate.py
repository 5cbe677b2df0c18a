"""Simulated outputs of a detector, for the demo, the benchmarks and the tests. They are seeded, and no more
than a guess at what a head predicts.

There are three phases of training:

- ``"untrained"``: boxes around each prior, of about the size of its stride; all scores are near 0.01;
- ``"mid"``: priors inside a gt predict its box with errors of about 20 %, and tend to its class;
- ``"trained"``: the same with errors of about 5 %, and confident.

A prior inside several gts predicts the smallest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..terms import in_region

PHASES = ("untrained", "mid", "trained")

_BOX_NOISE = {"mid": 0.2, "trained": 0.05}
_OWN_LOGIT = {"mid": (-1.0, 1.5), "trained": (1.5, 1.0)}
_OTHER_LOGIT = {"untrained": (-4.6, 0.3), "mid": (-5.0, 1.0), "trained": (-7.0, 1.0)}


class Predictions(NamedTuple):
    """What a head predicts, all of it float32.

    Attributes:
        pred_boxes: [B, P, 4] xyxy.
        cls_logits: [B, P, C].
        obj_logits: [B, P, 1].
    """

    pred_boxes: Tensor
    cls_logits: Tensor
    obj_logits: Tensor


def random_gts(
    count: int,
    image_size: int,
    num_classes: int,
    generator: torch.Generator,
    median: float = 64.0,
    spread: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Random gts with log-normal sides, which lie inside a square image.

    Args:
        count: Number of gts.
        image_size: Side of the image in pixels.
        num_classes: C.
        generator: Source of randomness.
        median: Median of the sides in pixels.
        spread: Standard deviation of the sides' logarithm.

    Returns:
        Boxes [count, 4] xyxy and labels [count] int64.
    """
    source: dict[str, Any] = {"generator": generator, "device": generator.device}
    side = median * torch.exp(spread * torch.randn(count, 1, dtype=torch.float32, **source))
    aspect = torch.exp(0.3 * torch.randn(count, 1, dtype=torch.float32, **source))
    size = torch.cat([side * aspect, side / aspect], 1).clamp(2.0, float(image_size))
    corner = torch.rand(count, 2, dtype=torch.float32, **source) * (image_size - size)
    return torch.cat([corner, corner + size], 1), torch.randint(
        num_classes, (count,), dtype=torch.int64, **source
    )


def simulate_predictions(
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    priors: Tensor,
    num_classes: int,
    phase: str,
    generator: torch.Generator,
) -> Predictions:
    """Predictions of a head for a batch of images.

    Args:
        gt_boxes: [G_i, 4] xyxy of each image.
        gt_labels: [G_i] of each image.
        priors: [P, 4] x, y, stride, stride.
        num_classes: C.
        phase: Phase of training, one of ``PHASES``.
        generator: Source of randomness.

    Raises:
        ValueError: ``phase`` is unknown.
    """
    if phase not in PHASES:
        raise ValueError(f"phase: expected one of {', '.join(map(repr, PHASES))}, got {phase!r}")
    batch, num_priors = len(gt_boxes), priors.shape[0]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float32, generator=generator, device=generator.device)

    mean, deviation = _OTHER_LOGIT[phase]
    cls_logits = mean + deviation * normal(batch, num_priors, num_classes)
    obj_logits = mean + deviation * normal(batch, num_priors, 1)
    stride = priors[:, 2:]
    center = priors[:, :2] + 0.5 * stride * normal(batch, num_priors, 2)
    half = 0.5 * stride * torch.exp(1.0 + 0.5 * normal(batch, num_priors, 2))
    pred_boxes = torch.cat([center - half, center + half], 2)
    if phase == "untrained":
        return Predictions(pred_boxes, cls_logits, obj_logits)
    for b, (boxes, labels) in enumerate(zip(gt_boxes, gt_labels, strict=True)):
        if not len(boxes):
            continue
        inside = in_region(priors[None], boxes[:, None], boxes[:, None, :2], "box", 1.0)  # [G, P]
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        smallest, gt = torch.where(inside, area[:, None], torch.inf).min(0)
        prior = smallest.isfinite().nonzero().squeeze(1)
        gt = gt[prior]
        size = (boxes[gt, 2:] - boxes[gt, :2]).repeat(1, 2)
        pred_boxes[b, prior] = boxes[gt] + _BOX_NOISE[phase] * size * normal(len(prior), 4)
        mean, deviation = _OWN_LOGIT[phase]
        cls_logits[b, prior, labels[gt]] = mean + deviation * normal(len(prior))
        obj_logits[b, prior, 0] = mean + deviation * normal(len(prior))
    return Predictions(pred_boxes, cls_logits, obj_logits)
