"""pytest-benchmark cases on the CPU: ours and its peers on the named workloads, mid phase, grouped by workload.

``pytest bench --benchmark-only``; equality with the reference is asserted before anything is timed.
"""

from __future__ import annotations

import pytest
import torch

from bench.cases import PEERS, ours, peer
from bench.peak import peak_bytes
from bench.workloads import CPU_BATCH, WORKLOADS, Batch, Workload, make_batch


@pytest.fixture(scope="module", params=CPU_BATCH)
def scene(request: pytest.FixtureRequest) -> tuple[Workload, Batch, torch.Tensor]:
    """A workload, its batch and the reference's assignment."""
    workload = WORKLOADS[request.param].with_batch(CPU_BATCH[request.param])
    batch = make_batch(workload, "mid")
    return workload, batch, ours(batch, "reference")()


@pytest.mark.parametrize("name", ["torch", *PEERS])
def test_assign(benchmark, scene, name):
    workload, batch, expected = scene
    benchmark.group = workload.name
    case = ours(batch, name) if name == "torch" else peer(name, batch, workload)
    with torch.no_grad():
        assert torch.equal(case(), expected)
        benchmark.extra_info["peak_mb"] = round(peak_bytes(case) / 1e6, 1)
        benchmark.pedantic(case, rounds=1 if name == "loop" else 9, warmup_rounds=0 if name == "loop" else 2)
