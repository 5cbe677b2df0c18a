"""Before anything of the package is imported: Triton's interpreter where there is no GPU, poisoned memory."""

from __future__ import annotations

import os

import pytest
import torch

from tests.support import interpreter

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # processes beside each other, a core each

HAS_CUDA = torch.cuda.is_available()
if not HAS_CUDA:
    # read when a kernel is decorated, so before the first import of one
    os.environ.setdefault("TRITON_INTERPRET", "1")
    # fills what torch.empty returns with NaN, and refuses what is not deterministic
    torch.use_deterministic_algorithms(True)
    interpreter.prepare()


def streams_in_an_interpreter_without_bits(item):
    """Triton 3.3 compiles the streaming kernels, and its interpreter does not know their types."""
    backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")
    if HAS_CUDA or (backend != "triton-stream" and not item.path.name.startswith("test_stream_")):
        return False
    try:
        from triton.runtime.interpreter import InterpreterBuilder
    except ImportError:
        return False
    return not hasattr(InterpreterBuilder, "get_int1_ty")


def runs_kernels(item):
    """Whether a test runs or compiles kernels, as its folder or its parameters tell."""
    parameters = item.callspec.id if hasattr(item, "callspec") else ""
    return item.path.parent.name == "kernels" or "triton" in parameters


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config, items):
    if "slow" not in config.option.markexpr:  # addopts could not say so: a -m of one's own takes its place
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    gpus = torch.cuda.device_count()
    for item in items:
        if runs_kernels(item):
            item.add_marker("interpreter")
        for marker, needed in (("gpu", 1), ("multigpu", 2)):
            if item.get_closest_marker(marker) and gpus < needed:
                item.add_marker(
                    pytest.mark.skip(reason=f"needs {needed} NVIDIA GPU{'s' * (needed > 1)}, found {gpus}")
                )
        if streams_in_an_interpreter_without_bits(item):
            item.add_marker(
                pytest.mark.skip(
                    reason="this Triton's interpreter has no one-bit integers, which the streaming kernels "
                    "use"
                )
            )
        if (
            not any(map(item.get_closest_marker, ("gpu", "multigpu")))
            and getattr(item, "callspec", None)
            and str(item.callspec.params.get("backend")).startswith("triton")
            and not os.environ.get("TRITON_INTERPRET")
        ):
            item.add_marker(pytest.mark.skip(reason="its tensors are on the CPU: set TRITON_INTERPRET=1"))


@pytest.fixture(autouse=True)
def _no_backend_from_outside(monkeypatch):
    monkeypatch.delenv("SIMOTA_TRITON_BACKEND", raising=False)
