"""Losses with our patch in two processes: equal to one process, and patched in the ranks of each package's
own launcher.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.peers.loading import Missing, site, unpacked
from tests.test_distributed import check

ROOT = Path(__file__).parents[2]


def run(*command: str, folder: Path, sources: tuple[str, ...] = ()) -> list[dict]:
    """What the ranks report of a command, whose packages are looked for in ``sources`` first."""
    path = [str(ROOT), *sources, str(Path(__file__).parent / "site")]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("how", ["patch", "run"])
@pytest.mark.parametrize("package", ["yolox 0.3.0", "pixeltable-yolox 0.4.3", "libreyolo 1.6.0"])
def test_ranks_of_the_packages_own_launcher_are_patched(tmp_path: Path, package: str, how: str) -> None:
    """By ``patch()`` in the process that launches, which no rank runs, and by ``simota-triton run``, which
    asks for no code.
    """
    sources: tuple[str, ...] = ()
    try:
        if package == "yolox 0.3.0":
            sources = (str(unpacked("yolox-0.3.0")),)
        else:
            site(*package.split())
    except Missing as reason:
        pytest.skip(str(reason))
    name = "libreyolo" if package.startswith("libre") else "yolox"
    command = [sys.executable, "-m", "tests.trainers.launched", name, str(tmp_path)]
    if how == "patch":
        command.append("patch")
    if how == "run":
        command = [sys.executable, "-m", "simota_triton", "run", "--patch", name, "--", *command]
    for rank in run(*command, folder=tmp_path, sources=sources):
        assert rank["world"] == 2
        assert rank["patched"]
        assert list(rank["calls"].values()) == [1]
        ours, theirs = rank["losses"]
        assert ours == pytest.approx(theirs, rel=2e-5)


@pytest.mark.filterwarnings("ignore")  # the originals use calls that torch has since deprecated
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.multigpu)])
def test_patched_losses_train_as_one(tmp_path: Path, device: str) -> None:
    try:
        site("libreyolo", "1.6.0")
    except Missing as reason:
        pytest.skip(str(reason))
    check(tmp_path, device, ["RTMDet", "PicoDet"])
