"""Sets up pytest-benchmark: results are kept by the class of the machine, so that only those of like machines
are compared, and with them what they depend on.

    pytest bench --benchmark-only                           # measure pytest bench --benchmark-only
    --benchmark-compare       # compare with the last result of this class pytest bench --benchmark-only
    --benchmark-save=NAME     # keep the result, in bench/results/benchmarks/<class>/

On a CPU the cases get one thread, and its CPU time is measured: it can be compared even if others use the
machine. If there is a GPU, the cases are measured there, by the GPU's clock.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from simota_triton.measure.machine import facts, machine_class

RESULTS = Path(__file__).parent / "results" / "benchmarks"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OURS = ("torch",) if DEVICE.type == "cpu" else ("triton", "triton-stream", "torch")
"""Backends that are measured on this device."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep results by the class of the machine, unless a folder is asked for. It runs before
    pytest-benchmark's own hook.
    """
    torch.set_num_threads(1)
    if getattr(config.option, "benchmark_storage", "").endswith(".benchmarks"):
        config.option.benchmark_storage = f"file://{RESULTS / machine_class(facts())}"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    """Add what our results depend on."""
    machine_info.pop("node", None)
    machine_info["simota_triton"] = facts()


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict) -> None:
    """Leave out the branch, the author's time and the project's name, which results do not depend on."""
    for name in ("branch", "author_time", "project"):
        commit_info.pop(name, None)


class GpuClock:
    """A clock in seconds, by the GPU's time. Each reading waits until the GPU has finished."""

    def __init__(self) -> None:
        self.start = self._event()

    def __call__(self) -> float:
        return self.start.elapsed_time(self._event()) / 1e3

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        event.synchronize()
        return event


TIMER = time.process_time if DEVICE.type == "cpu" else GpuClock()
"""The clock that cases are timed with."""


def on_device(value: Any) -> Any:
    """A tensor, or a list of tensors, on the device that is measured."""
    if isinstance(value, list):
        return [on_device(item) for item in value]
    return value.to(DEVICE)
