"""All peers, and why some detectors' assigners are not among them."""

from __future__ import annotations

from collections.abc import Callable

from . import (
    libreyolo,
    lightly_train,
    openmmlab,
    paddledet,
    super_gradients,
    ultralytics,
    yolo_repositories,
    yolox_heads,
)
from .aligned import AlignedPeer, compare_aligned
from .compare import Tally, compare
from .peer import Peer

PEERS: tuple[Peer, ...] = (
    *openmmlab.PEERS,
    *yolox_heads.PEERS,
    *super_gradients.PEERS,
    *libreyolo.PEERS,
    *lightly_train.PEERS,
    *paddledet.PEERS,
)

ALIGNED_PEERS: tuple[AlignedPeer, ...] = (
    *ultralytics.PEERS,
    *openmmlab.ALIGNED_PEERS,
    *super_gradients.ALIGNED_PEERS,
    *libreyolo.ALIGNED_PEERS,
    *paddledet.ALIGNED_PEERS,
    *yolo_repositories.ALIGNED_PEERS,
)
"""Those of the task-aligned family."""


def comparison_of(peer: Peer) -> Callable[..., Tally]:
    """How a peer is compared with us."""
    return compare_aligned if isinstance(peer, AlignedPeer) else compare


LEFT_OUT = {
    "NanoDet-Plus (preset nanodet)": "no release on PyPI",
    "DAMO-YOLO (preset damo)": "no release on PyPI",
}
"""Detectors whose original cannot be installed, and why."""
