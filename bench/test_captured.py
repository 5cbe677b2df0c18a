"""Benchmarks of our backends on captured batches of real predictions.

    pytest bench/test_captured.py --benchmark-only

Each backend must give the reference's assignment before it is timed.
"""

from __future__ import annotations

import pytest
import torch

from bench.conftest import OURS, TIMER, on_device
from simota_triton import SimOTAAssigner
from tests.support.captured import FOLDER, captured, preset_of


@pytest.mark.benchmark(timer=TIMER)
@pytest.mark.parametrize("backend", ["reference", *OURS])
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_assign_captured(benchmark, path, backend):
    inputs, preset = {name: on_device(value) for name, value in captured(path).items()}, preset_of(path)
    benchmark.group = path.stem
    expected = SimOTAAssigner(preset, backend="reference")(**inputs).gt_index
    assigner = SimOTAAssigner(preset, backend=backend)
    assert torch.equal(assigner(**inputs).gt_index, expected)
    benchmark.pedantic(lambda: assigner(**inputs), rounds=9, warmup_rounds=2)
