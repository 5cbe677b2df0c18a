"""pytest-benchmark cases on real predictions: our backends on the captured batches, grouped by detector and
phase.

``pytest bench/test_captured.py --benchmark-only``; equality with the reference is asserted before anything is
timed.
"""

from __future__ import annotations

import pytest
import torch

from bench.conftest import OURS, TIMER, on_device
from simota_triton import SimOTAAssigner
from tests.captured import FOLDER, captured, preset_of


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
