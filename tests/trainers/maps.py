"""Predictions of a scene in the form that heads put out: maps, cells, distances."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.peers.scenes import Scene


def level_shapes(priors: Tensor) -> list[tuple[int, int]]:
    """Height and width of each level of [P, 4] priors."""
    shapes = []
    for stride in priors[:, 2].unique().tolist():
        own = priors[priors[:, 2] == stride]
        width = own[:, 0].unique().numel()
        shapes.append((len(own) // width, width))
    return shapes


def to_maps(values: Tensor, priors: Tensor) -> list[Tensor]:
    """[B, P, K] -> a leaf [B, K, H, W] for each level."""
    shapes = level_shapes(priors)
    levels = values.split([height * width for height, width in shapes], 1)
    return [
        level.transpose(1, 2).reshape(len(values), -1, *shape).contiguous().requires_grad_()
        for level, shape in zip(levels, shapes, strict=True)
    ]


def distances(scene: Scene) -> Tensor:
    """[B, P, 4] from a prior to the left, top, right and bottom side of its predicted box."""
    points = scene.priors[:, :2]
    return torch.cat([points - scene.pred_boxes[..., :2], scene.pred_boxes[..., 2:] - points], -1)


def distributions(values: Tensor, buckets: int) -> Tensor:
    """Logits whose softmax has the mean ``values``, within the buckets: [B, P, 4] -> [B, P, 4 * buckets]."""
    values = values.clamp(0, buckets - 1)
    upper = values.floor().clamp(max=buckets - 2) + 1
    share = values - (upper - 1)  # of the upper of the two buckets around the value
    bucket = torch.arange(buckets)
    weight = torch.where(bucket == upper[..., None], share[..., None], 0.0)
    weight = weight + torch.where(bucket == upper[..., None] - 1, 1 - share[..., None], 0.0)
    return (weight + 1e-9).log().flatten(2)
