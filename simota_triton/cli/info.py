"""``simota-triton info``: versions, devices, settings, and which backend computes where, and why."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
from typing import Any

import torch

from .. import __version__, backends, env

Row = tuple[str, str]


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "info",
        help="versions, devices, settings, and the backend chosen for each device",
        description="Print versions, devices, the package's environment variables, and for each device the backend that "
        'backend="auto" takes there and why. Paste it into bug reports.',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the sections as aligned plain text."""
    sections = (("versions", versions()), ("devices", devices()), ("backend by device", chosen()), ("environment", environment()))
    width = max(len(name) for _, rows in sections for name, _ in rows)
    for title, rows in sections:
        print(title)
        for name, value in rows:
            print(f"  {name:<{width}}  {value}")
    return 0


def versions() -> list[Row]:
    """The package and what it stands on."""
    cuda = f", built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
    return [
        ("simota-triton", __version__),
        ("python", f"{platform.python_version()} ({platform.system()} {platform.machine()})"),
        ("torch", f"{torch.__version__}{cuda}"),
        ("triton", _triton_version()),
    ]


def _triton_version() -> str:
    if importlib.util.find_spec("triton") is None:
        return "not installed"
    try:
        return str(importlib.import_module("triton").__version__)
    except Exception as error:  # a broken build may fail in any way, and that is what this line is there to say
        return f"installed, but its import fails: {error}"


def devices() -> list[Row]:
    """The CPU's threads and every CUDA GPU; CUDA is left alone where there is none."""
    rows = [("cpu", f"{torch.get_num_threads()} threads of {os.cpu_count()} processors")]
    if not torch.cuda.is_available():
        return [*rows, ("cuda", "not available")]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        rows.append((f"cuda:{index}", f"{gpu.name}, capability {gpu.major}.{gpu.minor}, {gpu.total_memory / 2**30:.1f} GiB"))
    return rows


def chosen() -> list[Row]:
    """The backend that "auto" takes on each device, and why."""
    rows = []
    for name in ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]:
        try:
            device = torch.device(name)
            backend, reason = backends.choose("auto", device)
            refusal = backends.triton_refusal(device) if backend.startswith("triton") else None
            rows.append((name, f"{backend} ({reason})" + (f", which cannot run here: {refusal}" if refusal else "")))
        except ValueError as error:
            rows.append((name, f"none: {error}"))
    return rows


def environment() -> list[Row]:
    """Each of the package's variables with its value."""
    return [(name, repr(os.environ[name]) if name in os.environ else "not set") for name in env.VARIABLES]
