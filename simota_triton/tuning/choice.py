"""Which launch parameters a call takes where it is given none: those in the user's file, else those in the
package's file, else the heuristic's.

Files are read when a GPU computes for the first time. After that a call costs one look-up in a dictionary,
until :func:`forget` makes the next call look for files that have changed.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .families import FAMILIES
from .kernel_config import Shape, bucket
from .store import Gpu, StoreError, Tuned, packaged_file, read, user_file

LOGGER = logging.getLogger("simota_triton")


class Choice(NamedTuple):
    """Launch parameters, and in words where they come from."""

    kernels: Any
    source: str


def configuration(backend: str, device: torch.device, shape: Shape) -> Any:
    """The launch parameters of a backend on a device for a shape."""
    return _on_device(backend, device, shape)


@functools.lru_cache(maxsize=8192)
def _on_device(backend: str, device: torch.device, shape: Shape) -> Any:
    if device.type != "cuda":
        return FAMILIES[backend].interpreter
    return choose(backend, Gpu.of(device), shape).kernels


def choose(backend: str, gpu: Gpu, shape: Shape) -> Choice:
    """As :func:`configuration`, with the source, for a GPU that need not be in this machine."""
    name = bucket(shape)
    for path, any_name in ((user_file(gpu), False), (packaged_file(gpu), True)):
        found = tuned(path, gpu, any_name).get(backend, {}).get(name)
        if found is not None:
            return Choice(found, f"{path}, bucket {name}")
    return Choice(FAMILIES[backend].heuristic(gpu.capability, shape), "heuristic")


def tuned(path: Path, gpu: Gpu, any_name: bool = False) -> Tuned:
    """The launch parameters in a file; none if it is missing. A file that cannot be used counts as missing,
    after one warning.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read_once(path, changed, gpu, any_name)


@functools.cache
def _read_once(path: Path, changed: int, gpu: Gpu, any_name: bool) -> Tuned:
    try:
        return read(path, gpu, any_name)
    except StoreError as error:
        LOGGER.warning("simota_triton: %s. Until then configurations come from the heuristic.", error)
        return {}


def forget() -> None:
    """Read SIMOTA_TRITON_CONFIG_DIR, and files that have changed, at the next call."""
    _on_device.cache_clear()
