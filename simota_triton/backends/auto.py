"""What "auto" takes on a GPU: the streaming kernels where they are made for it, run and give the known
answers, else plain PyTorch.

Decided at the first call, once a process and device, by a verdict that is kept on disk (:mod:`.verdicts`) or,
where there is none, by a check: a few small problems with known answers (:mod:`.known`). It takes some
milliseconds, and the time that Triton compiles for where its cache is empty. Kernels that cannot be compiled
or loaded, or that answer wrongly, are one warning and plain PyTorch on that device; only wrong and right
answers are kept, because the rest can be mended from outside. Calls with costs of pairs then take "triton",
whose cost function is the same.

There is no check while a CUDA graph is captured, nor in a step of ``torch.compile``, whose memory may belong
to a graph: such a call takes the decision or the verdict there is, else the streaming kernels unchecked, and
leaves the decision open. A check that runs out of memory leaves it open too. A backend that is asked for by
name is never replaced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..waits import debug_mode
from . import gpu_refusal, triton_import_error, verdicts
from .verdicts import Verdict

LOGGER = logging.getLogger("simota_triton")

KERNELS = "triton-stream"
FALLBACK = "torch"


class Choice(NamedTuple):
    """A backend and why it is taken."""

    backend: str
    reason: str


Check = Callable[[torch.device], "str | None"]
"""Computes the known problems on a device: the first difference, None where all is right."""

_decided: dict[torch.device, Choice] = {}
_unchecked: dict[torch.device, Choice] = {}
_lock = threading.Lock()


def choose(device: torch.device, may_check: bool = True) -> Choice:
    """The choice for a GPU.

    Args:
        device: The GPU.
        may_check: Compute the known problems if nothing is decided and no verdict is kept.
    """
    found = _decided.get(device) or (None if may_check else _unchecked.get(device))
    if found is not None:
        return found
    with _lock:
        return _decided.get(device) or _choose(
            device, may_check and not torch.cuda.is_current_stream_capturing()
        )


def _choose(device: torch.device, may_check: bool) -> Choice:
    refusal = gpu_refusal(device)
    if refusal is not None:
        return _decided.setdefault(device, Choice(FALLBACK, f"plain PyTorch: {refusal}"))
    cause = triton_import_error()
    if cause is not None:
        return _fall_back(device, cause)
    about = verdicts.subject(device)
    verdict = verdicts.find(about)
    if verdict is None and not may_check:
        return _unchecked.setdefault(
            device, Choice(KERNELS, "Triton on an NVIDIA GPU; not checked there yet")
        )
    try:
        verdict = verdict or check_once(device, about)
    except Exception as error:  # a compiler, a driver and a launcher may fail in any way
        if "out of memory" in str(error).lower():
            return Choice(
                KERNELS, f"Triton on an NVIDIA GPU; the check ran out of memory ({_first_line(error)})"
            )
        return _fall_back(device, failure(error))
    if verdict.difference is not None:
        return _fall_back(device, f"the kernels give a wrong answer there ({verdict.difference})")
    return _decided.setdefault(
        device, Choice(KERNELS, "Triton on an NVIDIA GPU; it gave the known answers there")
    )


def _fall_back(device: torch.device, cause: str) -> Choice:
    LOGGER.warning(
        'simota_triton: backend "auto" computes in plain PyTorch on %s, because %s. '
        "Assignments are the same, slower. `simota-triton verify` shows what works there.",
        device,
        cause,
    )
    return _decided.setdefault(device, Choice(FALLBACK, f"plain PyTorch: {cause}"))


def check_once(device: torch.device, about: dict[str, object]) -> Verdict:
    """The verdict of a check, by one process of all that ask at once; kept where a file can be.

    Raises:
        Exception: The kernels cannot run there; nothing is kept.
    """
    with verdicts.turn():
        verdict = verdicts.find(about)
        if verdict is None:
            verdict = Verdict(check(device))
            with contextlib.suppress(OSError):
                verdicts.keep(about, verdict)
    return verdict


def check(device: torch.device) -> str | None:
    """The first difference of the kernels from a known answer on a device; None where all are right.

    Raises:
        Exception: They cannot run there.
    """
    from . import known

    with torch.no_grad(), torch.autocast(device.type, enabled=False), _may_wait(device):
        return known.difference(known.runner(KERNELS), device)


def _may_wait(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The check reads its answers on the host, whatever the caller has asked PyTorch to say about that."""
    return debug_mode("default") if device.type == "cuda" else contextlib.nullcontext()


def failure(error: Exception) -> str:
    """Why kernels could not run, in a line."""
    what = f"the kernels cannot run there ({type(error).__name__}: {_first_line(error)})"
    if c_compiler() is None:
        remedy = "install gcc or clang, or set CC"
        return f"there is no C compiler, which Triton builds its launcher with: {remedy}; {what}"
    return what


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")[:200]


def c_compiler() -> str | None:
    """The C compiler that Triton finds: CC, else gcc, else clang."""
    chosen = os.environ.get("CC")
    return shutil.which(chosen) if chosen else shutil.which("gcc") or shutil.which("clang")


def forget() -> None:
    """Decide again, of every device."""
    _decided.clear()
    _unchecked.clear()
