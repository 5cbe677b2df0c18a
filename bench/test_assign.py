"""pytest-benchmark cases: ours and its peers on the named workloads, mid phase, grouped by workload.

``pytest bench --benchmark-only``; equality with the reference is asserted before anything is timed.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bench.cases import PEERS, ours, peer
from bench.conftest import DEVICE, OURS, TIMER, on_device
from bench.workloads import CPU_BATCH, WORKLOADS, Batch, Workload, make_batch
from simota_triton.measure.peak import peak_bytes

LOOPED = ("coco",)
"""Workloads on which the loop, which is slow and needs [n, G, C], is timed."""

# Inductor's own import of a deprecated function
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(scope="module", params=CPU_BATCH)
def scene(request: pytest.FixtureRequest) -> tuple[Workload, Batch, torch.Tensor]:
    """A workload, its batch where it is measured, and the reference's assignment."""
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
