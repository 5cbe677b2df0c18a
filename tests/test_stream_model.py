"""The counts behind the model of the streaming kernels are those of the kernels."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from bench.stream_events import NONE, Image, contested, count_events, select, top_iou
from bench.workloads import WORKLOADS, make_batch
from simota_triton.config import SimOTAConfig
from simota_triton.inputs import pack
from simota_triton.kernels.launch import INTERPRETED
from simota_triton.kernels.stream import launch
from simota_triton.kernels.stream import prepare as _  # noqa: F401  (modules of that name are reached through sys.modules)
from simota_triton.tuning.stream_config import StreamConfig


def scene(kernels, phase="mid", gts=24):
    """A problem of one image and its emulation."""
    config = SimOTAConfig.rtmdet()
    workload = replace(WORKLOADS["coco"].with_batch(1), image_size=160, num_classes=5, num_gts=gts, median=30.0)
    batch = make_batch(workload, phase, seed=1)
    maps = [part.transpose(1, 2).reshape(1, 5, side, side) for part, side in zip(batch.cls_logits.split((400, 100, 25), 1), (20, 10, 5))]
    problem = pack(config, batch.pred_boxes, maps, batch.priors, batch.gt_boxes, batch.gt_labels)
    grid = launch.Grid.of(problem, kernels.tile, (400, 100, 25))
    image = Image(batch.pred_boxes[0], batch.cls_logits[0], batch.priors, batch.gt_boxes[0], batch.gt_labels[0], grid, config, kernels)
    return problem, config, image
