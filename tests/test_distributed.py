"""Two processes under torchrun, each assigning its own images, train as one process with all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.distributed_worker import COUNTS, step


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.multigpu)])
def test_two_processes_train_as_one(tmp_path: Path, device: str) -> None:
    check(tmp_path, device, ["own"])


def check(folder: Path, device: str, losses: list[str]) -> None:
    """Each process's assignment is its part of the whole batch's; the mean of their losses and every gradient
    are the batch's.
    """
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.support.distributed_worker",
    ]
    done = subprocess.run(
        [*command, str(folder), device, *losses],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    for loss in losses:
        alone = step(loss, device)
        shards = [rank[loss] for rank in ranks]
        assert torch.equal(torch.cat([shard["gt_index"] for shard in shards]), alone["gt_index"]), loss
        positives = (alone["gt_index"] >= 0).sum(1)
        assert (positives > 0).tolist() == [count > 0 for count in COUNTS]
        assert sum(shard["loss"] for shard in shards) / 2 == pytest.approx(alone["loss"], rel=1e-5), loss
        for shard in shards:
            torch.testing.assert_close(shard["gradient"], alone["gradient"], rtol=1e-4, atol=1e-6)
