"""Benchmarks of our backends and of plain PyTorch on the named workloads: ``pytest bench --benchmark-only``.

Each case must give the reference's assignment before it is timed.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bench.cases import CPU_BATCH, PEERS, ours, peer
from bench.conftest import DEVICE, OURS, TIMER, on_device
from simota_triton.measure.peak import peak_bytes
from simota_triton.measure.workloads import WORKLOADS, Batch, Workload, make_batch

LOOPED = ("coco",)
"""Workloads on which case "loop" is timed, which is slow and holds tensors of [n, G, C]."""

# Inductor itself imports a deprecated function
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(scope="module", params=CPU_BATCH)
def scene(request: pytest.FixtureRequest) -> tuple[Workload, Batch, torch.Tensor]:
    """A workload, its batch on the device that is measured, and the reference's assignment."""
    workload = WORKLOADS[request.param]
    if DEVICE.type == "cpu":
        workload = workload.with_batch(CPU_BATCH[request.param])
    batch = make_batch(workload, "mid")
    expected = ours(batch, "reference")().to(DEVICE)
    moved = {field.name: on_device(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    return workload, Batch(**moved), expected


@pytest.mark.benchmark(timer=TIMER)
@pytest.mark.parametrize("name", [*OURS, *PEERS])
def test_assign(benchmark, scene, name):
    workload, batch, expected = scene
    if name == "loop" and workload.name not in LOOPED:
        pytest.skip("slow")
    benchmark.group = f"{workload.name}, B = {workload.batch}"
    case = ours(batch, name) if name in OURS else peer(name, batch, workload)
    with torch.no_grad():
        assert torch.equal(case(), expected)
        benchmark.extra_info["peak_mb"] = round(peak_bytes(case, DEVICE) / 1e6, 1)
        benchmark.pedantic(case, rounds=1 if name == "loop" else 7, warmup_rounds=0 if name == "loop" else 1)
