"""The ways to compute an assignment, and which of them computes for a device. Each is a module with
``assign(problem, config, kernels=None) -> Matching``, which masks out itself what cannot take part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .. import env
from ..config import Config, SimOTAConfig, suggestion
from ..matching import Matching
from ..problem import Problem


@dataclass(frozen=True)
class Backend:
    """One way to compute an assignment.

    Attributes:
        load: Imports its module, for each variety of a rule (``Config.variety``) that it computes.
        load_kernels: Imports the modules that launch its kernels, which takes a quarter of a second with
            Triton's import; None for plain PyTorch.
        costs: The backend whose ``cost_matrix`` gives the costs that this one compares, to the bit or, for
            ``"reference"``, to rounding.
        forms_matrix: Whether it forms a (gt, prior) matrix, to which costs of pairs can be added.
    """

    load: Mapping[str, Callable[[], Any]]
    load_kernels: Callable[[], tuple[ModuleType, ...]] | None = None
    costs: str = "reference"
    forms_matrix: bool = True


def _reference() -> Any:
    from .. import reference

    return reference


def _aligned_reference() -> Any:
    from ..task_aligned import reference

    return reference


def _torch_aligned() -> Any:
    from . import torch_aligned

    return torch_aligned


def _torch_pruned() -> Any:
    from . import torch_pruned

    return torch_pruned


def _triton_fused() -> Any:
    from . import triton_fused

    return triton_fused


def _triton_stream() -> Any:
    from . import triton_stream

    return triton_stream


def _fused_kernels() -> tuple[ModuleType, ...]:
    from ..kernels.fused import launch

    return (launch,)


def _stream_kernels() -> tuple[ModuleType, ...]:
    from ..kernels.stream import common, launch
    from ..kernels.stream.aligned import launch as aligned

    return common, launch, aligned


BACKENDS = {
    "reference": Backend(
        {
            "simota": _reference,
            "task_aligned": _aligned_reference,
            "task_aligned_rotated": _aligned_reference,
        }
    ),
    "torch": Backend(
        {"simota": _torch_pruned, "task_aligned": _torch_aligned, "task_aligned_rotated": _torch_aligned}
    ),
    "triton": Backend({"simota": _triton_fused}, _fused_kernels, costs="triton"),
    "triton-stream": Backend(
        {"simota": _triton_stream, "task_aligned": _triton_stream},
        _stream_kernels,
        costs="triton",
        forms_matrix=False,
    ),
}
"""By name. ``reference`` is the dense definition, ``torch`` the fast path of plain PyTorch, ``triton`` a
fused cost pass for NVIDIA GPUs with the matching in PyTorch behind it, ``triton-stream`` kernels that form no
matrix.
"""

CHOICES = ("auto", *BACKENDS)

MIN_CAPABILITY = (8, 0)
"""Oldest compute capability the kernels are compiled and tested for."""


def check_name(name: str, source: str = "backend") -> str:
    """``name`` if it is a backend's name or "auto".

    Raises:
        ValueError: It is not; the message names ``source``.
    """
    if name not in CHOICES:
        raise ValueError(
            f"{source}: expected one of {', '.join(map(repr, CHOICES))}, got {name!r}"
            f"{suggestion(name, CHOICES)}"
        )
    return name


def check_rule(name: str, rule: str, source: str = "backend") -> str:
    """``name`` if that backend, or "auto", computes the rule.

    Raises:
        ValueError: It does not.
    """
    if name == "auto" or rule in BACKENDS[name].load:
        return name
    known = ("auto", *(other for other, backend in BACKENDS.items() if rule in backend.load))
    raise ValueError(
        f"{source}: expected one of {', '.join(map(repr, known))}, which compute the rule {rule!r}, "
        f"got {name!r}"
    )


def choose(name: str, device: torch.device, may_check: bool = True, rule: str = "simota") -> tuple[str, str]:
    """The backend that computes a rule for ``device``, and why: an explicit name, else
    SIMOTA_TRITON_BACKEND, else by device.

    Args:
        name: A backend's name or "auto".
        device: Where the tensors are.
        may_check: Whether "auto" may compute small problems there to see if the kernels are right; see
            :mod:`.auto`.
        rule: The variety of a configuration.

    Raises:
        ValueError: The backend of the environment variable is none, or not for this rule.
    """
    if name != "auto":
        return name, "asked for"
    name = check_name(env.backend(), "SIMOTA_TRITON_BACKEND")
    if name != "auto":
        return check_rule(name, rule, "SIMOTA_TRITON_BACKEND"), "SIMOTA_TRITON_BACKEND"
    if device.type != "cuda":
        return "torch", f"plain PyTorch on {device.type}"
    from . import auto

    if rule not in BACKENDS[auto.KERNELS].load:
        return auto.FALLBACK, f"plain PyTorch: there are no kernels for the rule {rule!r}"
    return auto.choose(device, may_check)


def choose_for_call(
    name: str, device: torch.device, pairs: bool, rule: str = "simota", may_check: bool = True
) -> str:
    """The backend that computes a call for ``device``, with ``pairs`` one that has an extra cost of pairs,
    which takes a matrix of them to add it to.

    Raises:
        ValueError: One that forms none was asked for.
    """
    chosen, why = choose(name, device, may_check, rule)
    if not pairs or BACKENDS[chosen].forms_matrix:
        return chosen
    costs = BACKENDS[chosen].costs
    dense = rule in BACKENDS[costs].load
    if name == "auto" and why != "SIMOTA_TRITON_BACKEND":
        return costs if dense else "torch"
    remedy = (
        f"backend={costs!r}, which takes memory for one, or backend='torch'" if dense else "backend='torch'"
    )
    raise ValueError(
        f"extra_cost, pair_mask: backend {chosen!r} forms no (gt, prior) matrix that they could be added to; "
        f"use {remedy}"
    )


def computes(name: str, rule: str, inputs: Iterable[str]) -> bool:
    """Whether a backend takes calls of a rule with arguments of these names: an extra cost of pairs takes
    one that forms a matrix of them.
    """
    backend = BACKENDS[name]
    return rule in backend.load and (backend.forms_matrix or not {"extra_cost", "pair_mask"} & set(inputs))


def triton_refusal(device: torch.device) -> str | None:
    """Why the Triton kernels cannot run on a device; None where nothing is known to be in their way."""
    refusal = triton_import_error()
    if refusal is not None:
        return refusal
    if device.type != "cuda":
        from ..kernels.host import INTERPRETED

        if INTERPRETED:
            return None
        return (
            "its tensors are not on a GPU (Triton's interpreter takes them, slowly: "
            "set TRITON_INTERPRET=1 before Triton is imported)"
        )
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
    load_kernels = BACKENDS[name].load_kernels if name in BACKENDS else None
    if load_kernels is not None:
        with contextlib.suppress(Exception):
            from ..kernels.ready import make_ready

            for module in load_kernels():
                make_ready(module)


def assign(name: str, problem: Problem, config: Config, kernels: Any = None) -> Matching:
    """The backend's assignment, with launch parameters where they are given."""
    matching: Matching = BACKENDS[name].load[config.variety]().assign(problem, config, kernels)
    return matching


def cost_matrix(
    name: str, problem: Problem, config: SimOTAConfig, kernels: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Cost and IoU of every pair and the mask of real gts, [B, G, P] twice and [B, G], from the backend whose
    costs this one compares; launch parameters count where it is that backend itself.
    """
    costs = BACKENDS[name].costs
    options = {} if kernels is None or costs != name else {"kernels": kernels}
    found: tuple[Tensor, Tensor, Tensor] = (
        BACKENDS[costs].load[config.variety]().cost_matrix(problem, config, **options)
    )
    return found
