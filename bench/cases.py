"""The cases that are measured on the CPU: our backends, and the same rule in plain PyTorch. Each is a
function that returns gt_index [B, P].
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from bench import plain
from simota_triton import SimOTAAssigner
from simota_triton.measure.workloads import Batch, Workload

Case = Callable[[], Tensor]

CPU_BATCH = {"coco": 8, "mosaic": 8, "o365": 2}
"""Workload -> number of images on a CPU."""

PEERS = {
    "plain, by image": "one image after the other, only its candidates, without a loop over gts",
    "plain, batched": "the padded batch at once, without shapes that depend on data",
    "compiled, by image": "'plain, by image' with its arithmetic compiled by torch.compile (dynamic shapes)",
    "compiled, batched": "'plain, batched' compiled by torch.compile (fullgraph)",
    "loop": "one image after the other, [n, G, C] class costs and a loop over gts, as mmdet does it",
}
"""The cases in plain PyTorch -> how they compute."""


def ours(batch: Batch, backend: str) -> Case:
    """A call of one of our backends, for RTMDet's rule."""
    assigner = SimOTAAssigner("rtmdet", backend=backend)
    return lambda: (
        assigner(batch.pred_boxes, batch.cls_logits, batch.priors, batch.gt_boxes, batch.gt_labels).gt_index
    )


def peer(name: str, batch: Batch, workload: Workload) -> Case:
    """A call of one of ``PEERS``."""
    if name == "loop":
        return lambda: plain.by_image(plain.loop_image, batch)
    if name == "plain, by image":
        return lambda: plain.by_image(plain.vectorised_image, batch)
    if name == "compiled, by image":
        image = functools.partial(
            plain.vectorised_image, solve=torch.compile(plain.solve, dynamic=True, fullgraph=True)
        )
        return lambda: plain.by_image(image, batch)
    assert workload.padded is not None
    padded = batch.padded(workload.padded)
    function = plain.vectorised_batch
    if name == "compiled, batched":
        function = torch.compile(function, fullgraph=True)
    return lambda: function(batch.pred_boxes, batch.cls_logits, batch.priors, *padded)
