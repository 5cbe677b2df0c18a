"""What PyTorch does where the host waits for a GPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch

MODES = ("default", "warn", "error")


@contextlib.contextmanager
def debug_mode(mode: str) -> Iterator[None]:
    """A block under ``torch.cuda.set_sync_debug_mode(mode)``; left alone where that is the mode already.

    PyTorch warns at the first change of the mode in a process that it is a prototype: nobody who calls an
    assigner has asked for that, and where warnings are errors it would be one.
    """
    before = torch.cuda.get_sync_debug_mode()
    if before == MODES.index(mode):
        yield
        return
    _set(mode)
    try:
        yield
    finally:
        _set(before)


def _set(mode: str | int) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype", UserWarning)
        torch.cuda.set_sync_debug_mode(mode)
