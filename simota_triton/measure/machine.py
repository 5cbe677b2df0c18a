"""The machine that measurements are made on, and which measurements may be compared."""

from __future__ import annotations

import datetime
import platform
import re
from pathlib import Path
from typing import Any

import torch

from ..version import __version__, driver_version, first_line, triton_version

CHECKOUT = Path(__file__).parents[2]
"""The folder of the package: a git checkout, or the folder that it is installed in."""


def facts(device: torch.device | None = None) -> dict[str, Any]:
    """What a measurement depends on: processor, threads, versions, date, and the commit if the package is a
    git checkout; on a GPU also its name and driver.

    Args:
        device: Where the measurement is made. None: on the GPU if there is one.
    """
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "simota_triton": __version__,
        "torch": torch.__version__,
        "triton": triton_version(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    if (CHECKOUT / ".git").exists():
        found["commit"] = first_line("git", "-C", str(CHECKOUT), "rev-parse", "HEAD")
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "cuda": torch.version.cuda,
            "driver": driver_version(),
        }
    return found


def machine_class(machine: dict[str, Any]) -> str:
    """The class of a machine: its GPU, or else its processor and number of threads. Times may be compared
    within a class.

    Args:
        machine: As :func:`facts` describes it.

    Example:
        >>> machine_class({"cpu": "AMD EPYC 9R14", "threads": 2})
        'amd-epyc-9r14-2-threads'
        >>> machine_class({"cpu": "AMD EPYC 9R14", "threads": 2, "gpu": "NVIDIA H100 80GB HBM3"})
        'nvidia-h100-80gb-hbm3'
    """
    name = (
        machine.get("gpu") or f"{machine['cpu']} {machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    )
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cpu_name() -> str:
    """The processor's model from /proc/cpuinfo, else what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return model or platform.processor() or platform.machine()
