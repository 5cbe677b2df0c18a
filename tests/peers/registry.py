"""All peers, and why some detectors' assigners are not among them."""

from __future__ import annotations

from . import libreyolo, lightly_train, openmmlab, paddledet, super_gradients, yolox_heads
from .peer import Peer

PEERS: tuple[Peer, ...] = (
    *openmmlab.PEERS,
    *yolox_heads.PEERS,
    *super_gradients.PEERS,
    *libreyolo.PEERS,
    *lightly_train.PEERS,
    *paddledet.PEERS,
)

LEFT_OUT = {
    "NanoDet-Plus (preset nanodet)": "no release on PyPI",
    "DAMO-YOLO (preset damo)": "no release on PyPI",
}
"""Detectors whose original cannot be installed, and why."""
