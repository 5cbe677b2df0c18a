"""The counts behind the model of the streaming kernels are those of the kernels."""

from collections import Counter
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from bench.model.events import Image, count_events
from simota_triton import reference
from simota_triton.config import SimOTAConfig
from simota_triton.inputs import pack
from simota_triton.kernels.host import INTERPRETED
from simota_triton.kernels.stream import launch
from simota_triton.kernels.stream.grid import find_grid
from simota_triton.measure.workloads import WORKLOADS, make_batch
from simota_triton.tuning.stream_config import StreamConfig

CALLED = {
    "prepare": ("meets", "region_depth"),
    "top_iou": ("load_four", "fraction", "without_one"),
    "select": ("load_four",),
    "search": ("load_four", "cost_of_pairs"),
    "resolve": ("load_four", "cost_of_pairs"),
}
"""Functions in a module of the kernels that are called once an event."""


def scene(kernels, phase):
    """A problem of one image, its configuration, and its emulation."""
    config = SimOTAConfig.rtmdet()
    workload = replace(
        WORKLOADS["coco"].with_batch(1), image_size=320, num_classes=5, num_gts=16, median=60.0
    )
    batch = make_batch(workload, phase, seed=1)
    problem = pack(config, batch.pred_boxes, batch.cls_logits, batch.priors, batch.gt_boxes, batch.gt_labels)
    grid = find_grid((), kernels.tile, (len(batch.priors),))
    image = Image(
        batch.pred_boxes[0],
        batch.cls_logits[0],
        batch.priors,
        batch.gt_boxes[0],
        batch.gt_labels[0],
        grid,
        config,
        kernels,
    )
    return problem, config, image


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of device functions, by kernel and name, in Triton's interpreter."""
    counter = Counter()

    def watch(kernel, name):
        names = vars(import_module(f"simota_triton.kernels.stream.{kernel}"))
        function = names[name]

        class Watched:
            def __call__(self, *args, **kwargs):
                counter[kernel, name] += 1
                return function(*args, **kwargs)

            def __getattr__(self, attribute):
                return getattr(function, attribute)

        monkeypatch.setitem(names, name, Watched())

    for kernel, names in CALLED.items():
        for name in names:
            watch(kernel, name)
    return counter


@pytest.mark.skipif(not INTERPRETED, reason="counts calls in Triton's interpreter")
@pytest.mark.parametrize(("phase", "splits"), [("untrained", 1), ("mid", 2)])
def test_counts_are_those_of_the_kernels(calls, phase, splits):
    kernels = StreamConfig(tile=64, rows=16, bounds=32, iou_bounds=32, splits=splits, gts=32, resolvers=1)
    problem, config, image = scene(kernels, phase)
    events = count_events(image)
    matching = launch.run(problem, config, kernels)
    assert calls == Counter({
        ("prepare", "meets"): int(events.chunks.sum()),
        ("prepare", "region_depth"): int(events.near.sum()),
        ("top_iou", "load_four"): int(events.top_iou.tiles.sum()),
        ("top_iou", "fraction"): int(events.top_iou.passed.sum()),
        ("top_iou", "without_one"): int(events.top_iou.insertions.sum()),
        ("select", "load_four"): len(problem.gts.boxes),  # claimed boxes
        ("search", "load_four"): 2 * int(events.select.tiles.sum()),  # boxes and points
        ("search", "cost_of_pairs"): int(events.select.passed.sum()),
        ("resolve", "load_four"): 2 * len(events.contested),
        ("resolve", "cost_of_pairs"): int(events.contested.sum()),
    })  # fmt: skip
    assert len(events.contested) > 0
    assert torch.equal(matching.dynamic_k, events.dynamic_k)
    assert torch.equal(matching.gt_index, reference.assign(problem, config).gt_index)
