"""The originals agree with us: a sample of what ``python -m tests.peers`` compares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from . import originals
from .aligned import compare_aligned
from .loading import Missing
from .peer import Peer, Selections
from .registry import ALIGNED_PEERS, PEERS, comparison_of


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On tensors this small a second thread costs time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings(
    "ignore::FutureWarning"
)  # the originals use calls that torch has since deprecated
@pytest.mark.parametrize(
    "peer",
    [*PEERS, *ALIGNED_PEERS],
    ids=lambda peer: f"{peer.package}-{peer.name}".replace(" ", "-"),
)
def test_same_assignment(peer: Peer) -> None:
    try:
        assign = peer.load()
    except Missing as reason:
        pytest.skip(str(reason))
    tally = comparison_of(peer)(peer, assign, range(1000, 1020), ["reference", "torch"])
    assert tally.unexplained == []
    assert tally.positives > 1000
    assert tally.differing == tally.documented + tally.excused


@pytest.mark.parametrize(
    "wrong",
    [
        {"topk": 9},
        {"conflict": "all"},
        {"conflict": "matched"},
        {"overlap": "iou"},
        {"min_side_below": 0.0},
        {"beta": 5.0},
        {"alpha": 1.0},
        {"norm_eps": 1e-3},
        {"margin": 2.0},
        {"topk2": 5},
    ],
    ids=str,
)
def test_an_aligned_rule_that_is_off_is_not_excused(wrong: dict[str, Any]) -> None:
    """The intervals of what float32 leaves open are narrow enough to tell each field."""
    peer = next(peer for peer in ALIGNED_PEERS if peer.preset == "tal")
    try:
        assign = peer.load()
    except Missing as reason:
        pytest.skip(str(reason))
    off = replace(peer, drop_in=None, variants=(({}, wrong),))
    assert compare_aligned(off, assign, range(13), ["reference"]).unexplained


def test_a_peer_that_listens_to_nothing_is_timed_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m tests.peers.originals``, at its smallest."""
    peer = next(peer for peer in PEERS if peer.name == "rtmdet DynamicSoftLabelAssigner")
    monkeypatch.setattr(Selections, "deaf", True)
    try:
        row = originals.measure(peer, "one gt", "mid", 1)
    except Missing as reason:
        pytest.skip(str(reason))
    assert (row["batch"], row["gts"], row["differing_priors"]) == (1, 1, 0)
    assert min(row["theirs_ms"], row["ours_ms"]) > 0
    assert "1 gts in all" in originals.table([row])
