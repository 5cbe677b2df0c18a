"""libreyolo's losses with our patch, in two processes that assign their own images; the second has no gts at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.loading import Missing, site
from tests.test_distributed import check


@pytest.mark.filterwarnings("ignore")  # the originals use calls that torch has since deprecated
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.multigpu)])
def test_patched_losses_train_as_one(tmp_path: Path, device: str) -> None:
    try:
        site("libreyolo", "1.6.0")
    except Missing as reason:
        pytest.skip(str(reason))
    check(tmp_path, device, ["RTMDet", "PicoDet"])
