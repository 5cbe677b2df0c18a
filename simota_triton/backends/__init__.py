"""One module per way to compute an assignment. Each has ``assign(problem, config) -> Matching``."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from .. import env, reference
from ..config import SimOTAConfig, suggestion
from ..inputs import Problem
from ..matching import Matching

BACKENDS = {
    "reference": "simota_triton.reference",
    "torch": "simota_triton.backends.torch_pruned",
    "triton": "simota_triton.backends.triton_fused",
    "triton-stream": "simota_triton.backends.triton_stream",
}
"""Backend name -> module. ``reference`` is the dense definition, ``torch`` the fast path of plain PyTorch,
``triton`` a fused cost pass for NVIDIA GPUs with the matching in PyTorch behind it, ``triton-stream`` kernels
that form no matrix."""

KERNELS = {
    "triton": "simota_triton.kernels.fused.launch",
    "triton-stream": "simota_triton.kernels.stream.launch",
}
"""Backend name -> module with its kernels, whose import takes a quarter of a second with Triton's; see also
``kernels.ready``.
"""

CHOICES = ("auto", *BACKENDS)

TIDYING = ("triton-stream",)
"""Backends that mask out unusable gts and form box centres themselves, see ``inputs.pack``."""

MATRICES = {"triton-stream": "triton"}
"""Backend that forms no cost matrix -> the backend whose costs have the same bits."""

MIN_CAPABILITY = (8, 0)
"""Oldest compute capability the kernels are compiled and tested for."""


class Backend(Protocol):
    """What a backend module offers."""

    def assign(self, problem: Problem, config: SimOTAConfig) -> Matching: ...


def check_name(name: str, source: str = "backend") -> str:
    """``name`` if it is a backend's name or "auto".

    Raises:
        ValueError: It is not; the message names ``source``.
    """
    if name not in CHOICES:
        raise ValueError(
            f"{source}: expected one of {', '.join(map(repr, CHOICES))}, got {name!r}{suggestion(name, CHOICES)}"
        )
    return name


def choose(name: str, device: torch.device, may_check: bool = True) -> tuple[str, str]:
    """The backend that computes for ``device``, and why: an explicit name, else SIMOTA_TRITON_BACKEND, else
    by device.

    Args:
        name: A backend's name or "auto".
        device: Where the tensors are.
        may_check: Whether "auto" may compute small problems there to see if the kernels are right; see
            :mod:`.auto`.
    """
    if name != "auto":
        return name, "asked for"
    name = check_name(env.backend(), "SIMOTA_TRITON_BACKEND")
    if name != "auto":
        return name, "SIMOTA_TRITON_BACKEND"
    if device.type != "cuda":
        return "torch", f"plain PyTorch on {device.type}"
    from . import auto

    return auto.choose(device, may_check)


def choose_for_pairs(name: str, device: torch.device, may_check: bool = True) -> str:
    """The backend that computes for ``device`` a call with an extra cost of pairs, which takes one that forms
    a matrix of them.

    Raises:
        ValueError: One that forms none was asked for.
    """
    chosen, why = choose(name, device, may_check)
    if chosen not in MATRICES:
        return chosen
    if name == "auto" and why != "SIMOTA_TRITON_BACKEND":
        return MATRICES[chosen]
    raise ValueError(
        f"extra_cost, pair_mask: backend {chosen!r} forms no (gt, prior) matrix that they could be added to; use backend="
        f"{MATRICES[chosen]!r}, which takes memory for one, or backend='torch'"
    )


def computes(name: str, inputs: Iterable[str]) -> bool:
    """Whether a backend takes calls with arguments of these names: an extra cost of pairs takes one that
    forms a matrix of them.
    """
    return name not in MATRICES or not {"extra_cost", "pair_mask"} & set(inputs)


def triton_refusal(device: torch.device) -> str | None:
    """Why the Triton kernels cannot run on a device; None where nothing is known to be in their way."""
    refusal = triton_import_error()
    if refusal is not None:
        return refusal
    if device.type != "cuda":
        from ..kernels.host import INTERPRETED

        if INTERPRETED:
            return None
        return "its tensors are not on a GPU (Triton's interpreter takes them, slowly: set TRITON_INTERPRET=1 before Triton is imported)"
    return gpu_refusal(device)


def triton_import_error() -> str | None:
    """Why Triton cannot be imported; None where it can."""
    try:
        import triton  # noqa: F401
    except ModuleNotFoundError:
        return "Triton is not installed"
    except Exception as error:  # a broken build may fail in any way
        return f"Triton's import fails ({error})"
    return None


def gpu_refusal(device: torch.device) -> str | None:
    """Why the kernels are not for a GPU; None for those that they are made for."""
    if torch.version.hip is not None:
        return "the kernels are for NVIDIA GPUs"
    gpu = torch.cuda.get_device_properties(device)
    if (gpu.major, gpu.minor) < MIN_CAPABILITY:
        return f"compute capability {gpu.major}.{gpu.minor} is below {MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]}"
    return None


def import_kernels(name: str) -> None:
    """Import what a backend that may be asked for computes with, and make it ready, so that no first call has
    to; nothing where Triton is missing or does not fit, of which a call then tells.
    """
    if name == "auto" and torch.cuda.is_available():
        name = "triton-stream"
    if name in KERNELS:
        with contextlib.suppress(Exception):
            kernels = importlib.import_module(KERNELS[name])
            importlib.import_module("simota_triton.kernels.ready").make_ready(kernels)


def load(name: str) -> Backend:
    """The backend's module."""
    return cast(Backend, importlib.import_module(BACKENDS[name]))


def assign(
    name: str, problem: Problem, config: SimOTAConfig, kernels: Any = None
) -> tuple[Matching, Tensor | None]:
    """The backend's assignment, with launch parameters where they are given, and its labels where it forms
    them.
    """
    module: Any = load(name)
    options = () if kernels is None else (kernels,)
    if hasattr(module, "assign_with_labels"):
        found: tuple[Matching, Tensor | None] = module.assign_with_labels(problem, config, *options)
        return found
    return module.assign(problem, config, *options), None


def cost_matrix(
    name: str, problem: Problem, config: SimOTAConfig, kernels: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``cost_matrix`` of the backend's module, with launch parameters where they are given. Where the backend
    forms no matrix, that of one which compares the same costs (``MATRICES``), else the reference's; launch
    parameters then have no part in it.
    """
    if name in MATRICES:
        name, kernels = MATRICES[name], None
    module: Any = load(name)
    if not hasattr(module, "cost_matrix"):
        return reference.cost_matrix(problem, config)
    found: tuple[Tensor, Tensor, Tensor] = module.cost_matrix(
        problem, config, *(() if kernels is None else (kernels,))
    )
    return found
