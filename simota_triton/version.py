"""The version of this package, and of what its kernels are compiled with and run on."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

__version__ = "0.1.0"  # the build backend reads it here, without importing anything


def triton_version() -> str | None:
    """Triton's version; None where it cannot be imported."""
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def driver_version() -> str:
    """The NVIDIA driver's version, as Linux tells it, else nvidia-smi; empty where neither does."""
    with contextlib.suppress(OSError):
        told = re.search(r"Kernel Module[\w ]*? +(\d[\d.]+)", Path("/proc/driver/nvidia/version").read_text())
        if told:
            return told[1]
    return first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def first_line(*command: str) -> str:
    """The first line that a command prints; empty where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""
