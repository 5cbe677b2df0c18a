"""Which launch parameters a call takes: those it was given, else the user's file, the package's file, the
heuristic.

Files are read when a GPU computes for the first time, and those that changed since after :func:`forget`: a
call costs one look-up in a dictionary.
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
    """Launch parameters and where they come from."""

    kernels: Any
    source: str


def configuration(backend: str, device: torch.device, shape: Shape) -> Any:
    """The launch parameters of a backend on a device for a shape, where the call names none."""
    return _on_device(backend, device, shape)


@functools.lru_cache(maxsize=8192)
def _on_device(backend: str, device: torch.device, shape: Shape) -> Any:
    if device.type != "cuda":
        return FAMILIES[backend].interpreter
    return choose(backend, Gpu.of(device), shape).kernels


def choose(backend: str, gpu: Gpu, shape: Shape) -> Choice:
    """As :func:`configuration`, for a GPU that need not be here, with the source."""
    name = bucket(shape)
    for path, any_name in ((user_file(gpu), False), (packaged_file(gpu), True)):
        found = tuned(path, gpu, any_name).get(backend, {}).get(name)
        if found is not None:
            return Choice(found, f"{path}, bucket {name}")
    return Choice(FAMILIES[backend].heuristic(gpu.capability, shape), "heuristic")


def tuned(path: Path, gpu: Gpu, any_name: bool = False) -> Tuned:
    """What a file holds; nothing where it is missing, and nothing after one warning where it cannot be
    used.
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
    """Look at files that changed, and at SIMOTA_TRITON_CONFIG_DIR, again."""
    _on_device.cache_clear()
