"""The named workloads: seeded batches with the sizes of the data sets that they are named after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..capture import Recorded
from ..config import RULES
from ..priors import grid_priors
from .simulate import random_gts, simulate_predictions


@dataclass(frozen=True)
class Workload:
    """The sizes of the batch of one training step.

    Attributes:
        name: Its key in ``WORKLOADS``.
        batch: B.
        image_size: Side of the images in pixels.
        num_classes: C.
        num_gts: Number of gts in the whole batch.
        padded: G when gts are padded; None where the images differ too much for padding.
        most: The largest number of gts in an image.
        median: Median of the gts' sides in pixels.
        spread: Standard deviation of the sides' logarithm.
        after: Where the sizes come from.
    """

    name: str
    batch: int
    image_size: int
    num_classes: int
    num_gts: int
    padded: int | None
    most: int
    median: float
    spread: float
    after: str

    def with_batch(self, batch: int) -> Workload:
        """The workload with another number of images, each with as many gts on average."""
        return replace(self, batch=batch, num_gts=self.num_gts * batch // self.batch)


WORKLOADS = {
    w.name: w
    for w in (
        Workload(
            "coco", 32, 640, 80, 480, 40, 40, 80.0, 1.0, "RTMDet and YOLOX on COCO, about 15 gts an image"
        ),
        Workload("mosaic", 32, 640, 80, 1984, 100, 100, 48.0, 0.9, "mosaic augmentation, 62 gts an image"),
        Workload("o365", 16, 640, 365, 3312, 300, 300, 48.0, 1.0, "Objects365, crowded (ultralytics#25240)"),
        Workload("xview", 128, 640, 60, 75357, None, 4967, 12.0, 0.7, "xView, ragged (ultralytics#25990)"),
        Workload("dota", 4, 1024, 15, 4000, 1000, 1000, 24.0, 0.8, "DOTA, RTMDet-R's density (mmrotate#745)"),
    )
}

TINY = Workload("tiny", 1, 64, 3, 3, 4, 4, 24.0, 0.5, "a try-out")
"""A workload that Triton's interpreter computes in seconds."""


@dataclass(frozen=True)
class Batch:
    """Inputs of an assigner: predictions, priors, and the gts as lists."""

    pred_boxes: Tensor
    cls_logits: Tensor
    obj_logits: Tensor
    priors: Tensor
    gt_boxes: list[Tensor]
    gt_labels: list[Tensor]

    def padded(self, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """The gts padded to G = ``width``: gt_boxes [B, G, 4], gt_labels [B, G] and gt_mask [B, G]."""
        batch = len(self.gt_boxes)
        device = self.priors.device
        boxes = torch.zeros((batch, width, 4), dtype=torch.float32, device=device)
        labels = torch.zeros((batch, width), dtype=torch.int64, device=device)
        mask = torch.zeros((batch, width), dtype=torch.bool, device=device)
        for b, (own_boxes, own_labels) in enumerate(zip(self.gt_boxes, self.gt_labels, strict=True)):
            own = slice(len(own_boxes))
            boxes[b, own], labels[b, own], mask[b, own] = own_boxes, own_labels, True
        return boxes, labels, mask


def gt_counts(workload: Workload, generator: torch.Generator) -> list[int]:
    """The number of gts of each image: ``num_gts`` in total, unevenly divided, at most ``most`` an image. In
    a workload that is not padded the first image has by far the most.
    """
    source: dict[str, Any] = {"dtype": torch.float32, "generator": generator, "device": generator.device}
    weights = torch.exp(0.6 * torch.randn(workload.batch, **source))
    if workload.padded is None:
        weights = torch.exp(1.2 * torch.randn(workload.batch, **source))
        weights[0] = weights.max() * 2
    counts = torch.zeros(workload.batch, dtype=torch.int64, device=generator.device)
    while (missing := workload.num_gts - int(counts.sum())) > 0:
        open_images = counts < workload.most
        share = weights * open_images
        step = (share / share.sum() * missing).ceil().long()
        counts += torch.minimum(step, workload.most - counts)
        excess = int(counts.sum()) - workload.num_gts
        for b in counts.argsort(descending=True).tolist():
            cut = min(max(excess, 0), int(counts[b]) // 2)
            counts[b] -= cut
            excess -= cut
    return counts.tolist()


def make_batch(
    workload: Workload, phase: str, seed: int = 0, dtype: torch.dtype = torch.float32, offset: float = 0.0
) -> Batch:
    """A seeded batch of the workload in a phase of training, with logits of ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    priors = grid_priors(workload.image_size, offset=offset)
    gts = [
        random_gts(
            count, workload.image_size, workload.num_classes, generator, workload.median, workload.spread
        )
        for count in gt_counts(workload, generator)
    ]
    boxes, labels = [g[0] for g in gts], [g[1] for g in gts]
    pred = simulate_predictions(boxes, labels, priors, workload.num_classes, phase, generator)
    return Batch(pred.pred_boxes, pred.cls_logits.to(dtype), pred.obj_logits.to(dtype), priors, boxes, labels)


def recorded(
    workload: Workload, preset: str, phase: str = "mid", seed: int = 0, dtype: torch.dtype = torch.float32
) -> Recorded:
    """A seeded batch of the workload with padded gts, as the arguments of a call of the preset's assigner."""
    config = next(rule for rule in RULES.values() if preset in rule.presets()).from_preset(preset)
    offset = config.prior_offset if config.rule == "task_aligned" else 0.0
    batch = make_batch(workload, phase, seed, dtype, offset)
    assert workload.padded is not None
    boxes, labels, mask = batch.padded(workload.padded)
    cls_logits = batch.cls_logits.sigmoid() if config.score == "prob" else batch.cls_logits
    inputs = {
        "pred_boxes": batch.pred_boxes,
        "cls_logits": cls_logits,
        "priors": batch.priors,
        "gt_boxes": boxes,
        "gt_labels": labels,
    }
    inputs |= {"gt_mask": mask} | ({"obj_logits": batch.obj_logits} if config.score == "joint" else {})
    name = f"{workload.name}, B = {workload.batch}, {str(dtype).removeprefix('torch.')}, {preset}"
    return Recorded(name if phase == "mid" else f"{name}, {phase}", config, inputs)
