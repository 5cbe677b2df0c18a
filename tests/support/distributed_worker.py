"""One process of ``test_distributed.py``, started by torchrun: a step on its shard of the images, saved for
the test to look at.

Predictions are the images' features times a weight, element by element, so that they do not depend on who
computes them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from simota_triton import SimOTAAssigner, grid_priors
from simota_triton.measure.simulate import random_gts
from tests.trainers.maps import to_maps
from tests.trainers.trainer import hearing

SIZE, NUM_CLASSES = 64, 5
COUNTS = (4, 7, 0, 0)
"""Gts of each image: with two processes, the second has none at all."""


class Network(nn.Module):
    """[B, P, K] features -> predictions of the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, channels))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.weight


def own_loss(
    output: Tensor, gt_boxes: list[Tensor], gt_labels: list[Tensor], priors: Tensor
) -> tuple[Tensor, Any]:
    """Soft-label BCE and L1, over the positives of all processes."""
    distance, logits = output.split((4, NUM_CLASSES), 2)
    sides = F.softplus(distance) * priors[:, 2:3]
    boxes = torch.cat([priors[:, :2] - sides[..., :2], priors[:, :2] + sides[..., 2:]], 2)
    result = SimOTAAssigner("rtmdet")(boxes.detach(), logits.detach(), priors, gt_boxes, gt_labels)
    num_pos = result.num_pos.sum()
    if dist.is_initialized():
        dist.all_reduce(num_pos)
    # the mean of gradients is then global
    divisor = num_pos.clamp(min=1) / (dist.get_world_size() if dist.is_initialized() else 1)
    target = F.one_hot(result.labels, NUM_CLASSES + 1)[..., :NUM_CLASSES] * result.matched_iou[..., None]
    box_error = ((boxes - result.gt_boxes).abs().sum(2) * result.fg_mask).sum()
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="sum") + box_error) / divisor, result


def patched_loss(
    name: str, output: Tensor, gt_boxes: list[Tensor], gt_labels: list[Tensor], priors: Tensor
) -> tuple[Tensor, Any]:
    """libreyolo's own loss with our patch; it divides by the positives of all processes itself."""
    from tests.trainers.libreyolo import PicoDet, RTMDet

    trainer = {"RTMDet": RTMDet, "PicoDet": PicoDet}[name]()
    trainer.strides = (8, 16, 32)
    trainer.load()
    box, logits = output[..., :-NUM_CLASSES], output[..., -NUM_CLASSES:]
    box = F.softplus(box) * priors[:, 2:3] if name == "RTMDet" else box
    with trainer.patch(), hearing() as calls:
        maps = {"cls": views(logits, priors), "box": views(box, priors)}
        loss = trainer.loss(trainer.make(NUM_CLASSES), maps, gt_boxes, gt_labels)["total"]
    return loss, calls[0].matching


def views(values: Tensor, priors: Tensor) -> list[Tensor]:
    """[B, P, K] as maps that keep the graph."""
    shapes = [level.shape[2:] for level in to_maps(values.detach(), priors)]
    levels = values.split([height * width for height, width in shapes], 1)
    return [
        level.transpose(1, 2).reshape(len(values), -1, *shape)
        for level, shape in zip(levels, shapes, strict=True)
    ]


def step(loss: str, device: str, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """One step on a process's share of the images."""
    generator = torch.Generator().manual_seed(0)
    gts = [random_gts(count, SIZE, NUM_CLASSES, generator, 24.0) for count in COUNTS]
    priors = grid_priors(SIZE, offset=0.5 if loss == "PicoDet" else 0.0).to(device)
    channels = (32 if loss == "PicoDet" else 4) + NUM_CLASSES
    features = torch.randn(len(COUNTS), len(priors), channels, generator=generator)
    own = slice(rank * len(COUNTS) // world, (rank + 1) * len(COUNTS) // world)
    network: nn.Module = Network(channels).to(device)
    if dist.is_initialized():
        network = DistributedDataParallel(network)
    output = network(features[own].to(device))
    boxes, labels = ([gt[i].to(device) for gt in gts[own]] for i in (0, 1))
    compute = own_loss if loss == "own" else lambda *inputs: patched_loss(loss, *inputs)
    value, result = compute(output, boxes, labels, priors)
    value.backward()
    (parameter,) = network.parameters()
    return {"loss": value.item(), "gt_index": result.gt_index.cpu(), "gradient": parameter.grad.cpu()}


def main() -> None:
    """Write ``<rank>.pt`` into a folder; the arguments are the folder, the device, and losses."""
    folder, device, *losses = sys.argv[1:]
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    results = {loss: step(loss, device, rank, world) for loss in losses}
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
