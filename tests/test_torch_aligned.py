"""The torch backend for the task-aligned rule: the same answers as the definition, whatever the form of the
inputs, and however the work is cut.
"""

from __future__ import annotations

import pytest
import torch

from simota_triton import TaskAlignedAssigner, TaskAlignedConfig, grid_priors
from simota_triton.measure.simulate import random_gts, simulate_predictions

PRESETS = TaskAlignedConfig.presets()
UPRIGHT = [name for name in PRESETS if TaskAlignedConfig.from_preset(name).boxes == "xyxy"]
KINDS = ["tal", "tal_o2o", "yolov6", "tood", "yolo9_mit"]
"""Presets that between them take every branch."""


def batch(seed=0, counts=(7, 0, 19), side=30.0, phase="mid", image_size=256):
    """Inputs of an assigner: images with some gts each, priors with strides."""
    generator = torch.Generator().manual_seed(seed)
    priors = grid_priors(image_size, offset=0.5)
    boxes, labels = zip(*(random_gts(count, image_size, 6, generator, side) for count in counts), strict=True)
    found = simulate_predictions(boxes, labels, priors, 6, phase, generator)
    return [found.pred_boxes, found.cls_logits, priors, list(boxes), list(labels)]


def answers(config, inputs, backend="torch", **options):
    result = TaskAlignedAssigner(config, backend=backend)(*inputs, **options)
    return result.gt_index, result.labels, result.claims, result.dynamic_k, result.matched_iou, result.scores


def same(left, right):
    return all(
        torch.allclose(a, b, rtol=1e-6, atol=0) if a.is_floating_point() else torch.equal(a, b)
        for a, b in zip(left, right, strict=True)
    )


def as_defined(config, inputs, **options):
    """The answers of the backend, once they are found to be those of the definition."""
    found, expected = (answers(config, inputs, backend, **options) for backend in ("torch", "reference"))
    assert same(found, expected)
    return found


@pytest.mark.parametrize("preset", UPRIGHT)
@pytest.mark.parametrize("phase", ["untrained", "mid", "trained"])
def test_it_answers_as_the_definition(preset, phase):
    config = TaskAlignedConfig.from_preset(preset)
    for seed, side in ((0, 30.0), (1, 12.0)):
        inputs = batch(seed, side=side, phase=phase)
        found = as_defined(config, inputs)
        assert int((found[0] >= 0).sum()) > 20 or phase == "untrained"
