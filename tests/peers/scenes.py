"""Seeded scenes: small batches of images that every peer and we assign."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from simota_triton import grid_priors
from simota_triton.measure.simulate import PHASES, random_gts, simulate_predictions

SIZES = ((32, 32), (64, 64), (96, 160), (128, 128), (192, 128), (256, 256), (320, 416), (640, 640))
"""Image sizes (height, width). The smallest has fewer priors than any detector's ``candidate_topk``."""

CLASSES = (80, 3, 1, 20)

KINDS = (
    "plain",
    "crowded",
    "tiny",
    "off_image",
    "duplicates",
    "nested",
    "outside",
    "empty",
    "lucky",
    "saturated",
    "inverted",
    "specks",
    "aligned",
)
"""What the gts are like, or the predictions. "lucky": predictions lie close to gts everywhere, so that gts
ask for many priors. "saturated": sigmoids reach 0 and 1. "inverted": corners are swapped, as RTMDet's
distances can be negative. "aligned": gts end on priors.
"specks": predictions, and some gts, are down to 1/4096 px: IoUs and unions as small as the guards against
zero."""

GRID = 1024
"""Boxes of peers that hold them as centre and size lie on 1/1024 px: both forms then hold exactly the same
box.
"""


@dataclass(frozen=True)
class Scene:
    """A batch of images.

    Attributes:
        seed: What made it.
        kind: One of ``KINDS``.
        phase: One of ``measure.simulate.PHASES``.
        size: Height and width of the images.
        priors: [P, 4] x, y, stride_x, stride_y.
        pred_boxes: [B, P, 4] xyxy.
        cls_logits: [B, P, C].
        obj_logits: [B, P, 1].
        gt_boxes: B tensors [G, 4] xyxy.
        gt_labels: B tensors [G].
        masks: B tensors [G, H, W] bool: a lopsided part of each box, one pixel at least.
        inside: [B, P] bool, priors inside the unpadded image.
    """

    seed: int
    kind: str
    phase: str
    size: tuple[int, int]
    priors: Tensor
    pred_boxes: Tensor
    cls_logits: Tensor
    obj_logits: Tensor
    gt_boxes: list[Tensor]
    gt_labels: list[Tensor]
    masks: list[Tensor]
    inside: Tensor

    @property
    def num_classes(self) -> int:
        return self.cls_logits.shape[2]

    def on_grid(self) -> Scene:
        """The same scene with its boxes rounded to ``1 / GRID`` pixels."""

        def snap(boxes: Tensor) -> Tensor:
            corner, other = ((boxes[..., i : i + 2] * GRID).round() / GRID for i in (0, 2))
            return torch.cat([corner, torch.maximum(other, corner + 1 / GRID)], -1)

        return replace(
            self, pred_boxes=snap(self.pred_boxes), gt_boxes=[snap(boxes) for boxes in self.gt_boxes]
        )


def make_scene(seed: int, strides: tuple[int, ...], offset: float, *, inverted: bool) -> Scene:
    """Scene number ``seed`` on the priors of a detector: kinds, sizes, phases and class counts take turns."""
    generator = torch.Generator().manual_seed(seed)
    kind = KINDS[seed % len(KINDS)]
    size = SIZES[(seed + seed // len(KINDS)) % len(SIZES)]
    phase = PHASES[seed // 2 % len(PHASES)]
    num_classes = CLASSES[seed // 3 % len(CLASSES)]
    priors = grid_priors(size, strides, offset)
    gts = [_gts(kind, size, num_classes, priors, generator) for _ in range(3 if max(size) <= 256 else 1)]
    boxes, labels = [boxes for boxes, _ in gts], [labels for _, labels in gts]
    pred = simulate_predictions(boxes, labels, priors, num_classes, phase, generator)
    pred_boxes = pred.pred_boxes
    if kind == "lucky":
        for b, own in enumerate(boxes):
            near = own[torch.randint(len(own), (len(priors),), generator=generator)]
            pred_boxes[b] = near + torch.randn(near.shape, generator=generator)
    if kind == "specks":
        pred_boxes = _specks(priors[:, :2].expand(len(boxes), -1, 2), -13, -5, generator)
    if kind == "inverted" and inverted:
        swapped = torch.rand(pred_boxes.shape[:2], generator=generator) < 0.3
        pred_boxes[swapped] = pred_boxes[swapped][:, [2, 1, 0, 3]]
    scale = {"saturated": 12.0, "specks": 3.0}.get(kind, 1.0)
    inside = torch.ones(pred_boxes.shape[:2], dtype=torch.bool)
    inside[0] = (priors[:, 0] < 0.8 * size[1]) & (priors[:, 1] < 0.9 * size[0])
    masks = [_masks(own, size, generator) for own in boxes]
    logits = pred.cls_logits * scale, pred.obj_logits * scale
    return Scene(seed, kind, phase, size, priors, pred_boxes, *logits, boxes, labels, masks, inside)


def _specks(points: Tensor, finest: float, coarsest: float, generator: torch.Generator) -> Tensor:
    """Boxes around points, [..., 2] -> [..., 4], with half sides from 2^finest to 2^coarsest px."""
    exponent = finest + (coarsest - finest) * torch.rand(*points.shape[:-1], 4, generator=generator)
    half = torch.exp2(exponent)
    return torch.cat([points - half[..., :2], points + half[..., 2:]], -1)


def _gts(
    kind: str, size: tuple[int, int], num_classes: int, priors: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    side = min(size)
    extent = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)

    def some(low: int, high: int, median: float) -> tuple[Tensor, Tensor]:
        count = int(torch.randint(low, high + 1, (), generator=generator))
        boxes, labels = random_gts(count, side, num_classes, generator, min(median, side / 2))
        return boxes * (extent / side), labels

    if kind == "empty" and torch.rand((), generator=generator) < 0.5:
        return torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    if kind == "crowded":
        return some(40, 120, 24.0)
    if kind == "tiny":
        boxes, labels = some(5, 30, 16.0)
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = 0.5 + 5 * torch.rand(len(boxes), 2, generator=generator)
        return torch.cat([center - half, center + half], 1), labels
    if kind == "specks":
        _, labels = some(5, 30, 16.0)
        near = priors[torch.randint(len(priors), labels.shape, generator=generator)]
        finest = -13 if torch.rand((), generator=generator) < 0.5 else 0
        return _specks(near[:, :2], finest, finest + 3, generator), labels
    if kind == "off_image":
        boxes, labels = some(3, 20, 64.0)
        return boxes + 0.6 * extent[:2].repeat(2) * torch.randn(len(boxes), 1, generator=generator), labels
    if kind == "outside":
        boxes, labels = some(1, 4, 32.0)
        return boxes + 3 * extent[0], labels
    if kind == "duplicates":
        boxes, labels = some(2, 8, 64.0)
        other = torch.randint(num_classes, labels.shape, generator=generator)
        return boxes.repeat(3, 1), torch.cat([labels, labels, other])
    if kind == "nested":
        boxes, labels = some(3, 10, 96.0)
        center = ((boxes[:, :2] + boxes[:, 2:]) / 2).repeat(1, 2)
        return torch.cat([boxes, center + 0.4 * (boxes - center)]), labels.repeat(2)
    boxes, labels = some(1, 25, 64.0)
    return (boxes / 4).round() * 4 if kind == "aligned" else boxes, labels


def _masks(boxes: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    height, width = size
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None]
    left, top, right, bottom = (boxes[:, i, None, None] for i in range(4))
    slope = torch.rand(len(boxes), 1, 1, generator=generator)
    masks = (x >= left) & (x < right) & (y >= top) & (y < bottom) & ((x - left) * slope <= (y - top))
    empty = ~masks.flatten(1).any(1)
    column = ((boxes[:, 0] + boxes[:, 2]) / 2).long().clamp(0, width - 1)
    row = ((boxes[:, 1] + boxes[:, 3]) / 2).long().clamp(0, height - 1)
    masks[empty, row[empty], column[empty]] = True
    return masks
