"""One module per way to compute an assignment. Each has ``assign(problem, config) -> Matching``."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

import torch

from .. import env
from ..config import SimOTAConfig
from ..inputs import Problem
from ..matching import Matching

BACKENDS = {
    "reference": "simota_triton.reference",
    "torch": "simota_triton.backends.torch_pruned",
}
"""Backend name -> module. ``reference`` is the dense definition, ``torch`` the fast path of plain PyTorch."""

CHOICES = ("auto", *BACKENDS)


class Backend(Protocol):
    """What a backend module offers."""

    def assign(self, problem: Problem, config: SimOTAConfig) -> Matching: ...


def check_name(name: str, source: str = "backend") -> str:
    """``name`` if it is a backend's name or "auto".

    Raises:
        ValueError: It is not; the message names ``source``.
    """
    if name not in CHOICES:
        raise ValueError(f"{source}: expected one of {', '.join(map(repr, CHOICES))}, got {name!r}")
    return name


def choose(name: str, device: torch.device) -> tuple[str, str]:
    """The backend that computes for ``device``, and why: an explicit name, else SIMOTA_TRITON_BACKEND, else by device."""
    if name != "auto":
        return name, "asked for"
    name = check_name(env.backend(), "SIMOTA_TRITON_BACKEND")
    if name != "auto":
        return name, "SIMOTA_TRITON_BACKEND"
    return "torch", f"plain PyTorch on {device.type}"


def load(name: str) -> Backend:
    """The backend's module."""
    return cast(Backend, importlib.import_module(BACKENDS[name]))
