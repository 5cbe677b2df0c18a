"""pytest-benchmark set up: what the numbers depend on, and results kept by machine class, so that only like
is compared.

    pytest bench --benchmark-only                                 # measure
    pytest bench --benchmark-only --benchmark-compare             # and compare with the last one kept of this machine class
    pytest bench --benchmark-only --benchmark-save=NAME           # and keep it under bench/results/benchmarks/<machine class>/

On a CPU the cases get one thread, and its CPU time is what counts: that can be compared even where others use
the machine. On a GPU they are measured there, on the GPU's clock.
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
"""Backends that are measured there."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep results by machine class, unless a folder is asked for. Runs before pytest-benchmark's own."""
    torch.set_num_threads(1)
    if getattr(config.option, "benchmark_storage", "").endswith(".benchmarks"):
        config.option.benchmark_storage = f"file://{RESULTS / machine_class(facts())}"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    """Add what ours depends on."""
    machine_info.pop("node", None)
    machine_info["simota_triton"] = facts()


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict) -> None:
    """Branch and author's time are nobody's business."""
    for name in ("branch", "author_time", "project"):
        commit_info.pop(name, None)


class GpuClock:
    """Seconds on the GPU's clock: what lies between two readings waits for the GPU on both sides."""

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
"""What cases are timed with."""


def on_device(value: Any) -> Any:
    """Tensors, alone or in lists, where they are measured."""
    if isinstance(value, list):
        return [on_device(item) for item in value]
    return value.to(DEVICE)
