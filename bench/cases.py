"""What is measured on the CPU: our backends and their peers, as callables that return gt_index [B, P]."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from bench import plain
from bench.workloads import Batch, Workload
from simota_triton import SimOTAAssigner

Case = Callable[[], Tensor]

PEERS = {
    "plain, by image": "vectorised PyTorch, candidates compacted, decomposed class term, one image after the other",
    "plain, batched": "the same without data-dependent shapes on the padded batch",
    "compiled, by image": "torch.compile of the arithmetic of 'plain, by image' (dynamic shapes)",
    "compiled, batched": "torch.compile of 'plain, batched' (fullgraph)",
    "loop": "one image after the other, [n, G, C] class costs and a loop over gts, as mmdet writes it",
}


def ours(batch: Batch, backend: str) -> Case:
    """One of our backends, RTMDet's rule."""
    assigner = SimOTAAssigner("rtmdet", backend=backend)
    return lambda: (
        assigner(batch.pred_boxes, batch.cls_logits, batch.priors, batch.gt_boxes, batch.gt_labels).gt_index
    )


def peer(name: str, batch: Batch, workload: Workload) -> Case:
    """One of ``PEERS``."""
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
