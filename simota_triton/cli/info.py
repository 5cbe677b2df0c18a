"""``simota-triton info``: shows versions, devices and settings, which backend computes on which device and
why, and where its launch parameters come from.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from .. import backends, env
from ..backends import verdicts
from ..backends.auto import c_compiler
from ..tuning.families import FAMILIES
from ..tuning.store import Gpu, StoreError, packaged_file, read, user_file, user_folder
from ..version import __version__

Row = tuple[str, str]


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "info",
        help="versions, devices, settings, and the backend chosen for each device",
        description="Print versions, devices, the package's environment variables, and for each device and "
        'rule the backend that backend="auto" takes there, and why. Paste it into bug reports.',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print all sections as a table of plain text."""
    sections = (
        ("versions", versions()),
        ("devices", devices()),
        ("backend by device", chosen()),
        ("launch parameters", configurations()),
        ("folders and tools", tools()),
        ("environment", environment()),
    )
    width = max(len(name) for _, rows in sections for name, _ in rows)
    for title, rows in sections:
        print(title)
        for name, value in rows:
            print(f"  {name:<{width}}  {value}")
    return 0


def versions() -> list[Row]:
    """The versions of the package and of what it needs."""
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
    except Exception as error:  # a broken build may fail in any way
        return f"installed, but its import fails: {error}"


def devices() -> list[Row]:
    """The CPU's threads, and every GPU. CUDA is not initialised where there is none."""
    rows = [("cpu", f"{torch.get_num_threads()} threads of {os.cpu_count()} processors")]
    if not torch.cuda.is_available():
        return [*rows, ("cuda", "not available")]
    for index in _gpus():
        gpu = torch.cuda.get_device_properties(index)
        memory = f"{gpu.total_memory / 2**30:.1f} GiB"
        rows.append((f"cuda:{index}", f"{gpu.name}, capability {gpu.major}.{gpu.minor}, {memory}"))
    return rows


def _gpus() -> range:
    return range(torch.cuda.device_count() if torch.cuda.is_available() else 0)


VARIETIES = {
    "simota": "SimOTA",
    "task_aligned": "task-aligned",
    "task_aligned_rotated": "task-aligned, rotated boxes",
}
"""Variety of a rule -> its name for people."""


def chosen() -> list[Row]:
    """The backend that "auto" takes on each device for each rule, and why."""
    rows: list[Row] = []
    for name in ["cpu", *(f"cuda:{index}" for index in _gpus())]:
        device = torch.device(name)
        found = [f"{rule}: {_chosen(device, variety)}" for variety, rule in VARIETIES.items()]
        rows += zip([name, *[""] * len(found)], found, strict=False)
    return rows


def _chosen(device: torch.device, variety: str) -> str:
    try:
        backend, reason = backends.choose("auto", device, may_check=False, rule=variety)
    except ValueError as error:
        return f"none: {error}"
    refusal = backends.triton_refusal(device) if backend.startswith("triton") else None
    return f"{backend} ({reason})" + (f", which cannot run here: {refusal}" if refusal else "")


def configurations() -> list[Row]:
    """For each GPU and each backend with kernels, where its launch parameters come from."""
    rows = []
    for index in _gpus():
        gpu = Gpu.of(torch.device("cuda", index))
        for backend in FAMILIES:
            found = []
            for path, any_name in ((user_file(gpu), False), (packaged_file(gpu), True)):
                try:
                    buckets = read(path, gpu, any_name).get(backend, {})
                    found += [f"{len(buckets)} buckets of {path}"] if buckets else []
                except StoreError as error:
                    found.append(str(error))
            found.append("else the heuristic" if found else "the heuristic")
            rows.append((f"cuda:{index} {backend}", "; ".join(found)))
    return rows or [("no GPU", "heuristic")]


def tools() -> list[Row]:
    """Folders and files that are read and written, the C compiler that Triton needs, and versions that are
    known not to work together.
    """
    kept = verdicts.file()
    binaries = os.environ.get("TRITON_CACHE_DIR") or Path(os.path.expanduser("~"), ".triton", "cache")
    no_compiler = "none: Triton builds its launcher with one; install gcc or clang, or set CC"
    return [
        ("tuned configurations", _folder(user_folder())),
        ("verdicts on GPUs", f"{kept}" + ("" if kept.exists() else " (not there yet)")),
        ("Triton's binaries", _folder(Path(binaries))),
        ("C compiler", c_compiler() or no_compiler),
        ("versions together", "; ".join(misfits()) or "nothing known to be wrong"),
    ]


def _folder(path: Path) -> str:
    if not path.exists():
        return f"{path} (not there yet)"
    return f"{path}" + ("" if os.access(path, os.W_OK) else " (cannot be written)")


def misfits() -> list[str]:
    """Versions that are known not to work together, each with what to do."""
    found = []
    triton = _installed("triton")
    if triton is not None:
        if _numbers(triton) < (3, 3):
            found.append(
                f"Triton {triton} is older than 3.3, the oldest that the kernels are tested with: "
                "upgrade torch"
            )
        partner = _partner()
        if partner is not None and partner != triton.split("+")[0]:
            found.append(
                f"torch {torch.__version__} was released with Triton {partner}, {triton} is installed: "
                f"pip install triton=={partner}"
            )
        numpy = _installed("numpy")
        if numpy is not None and _numbers(triton) <= (3, 6) and _numbers(numpy) >= (2, 4):
            found.append(
                f"Triton {triton}'s interpreter does not work with numpy {numpy}: pip install 'numpy<2.4'"
            )
    if torch.version.cuda is not None and not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        found.append(
            f"torch is built for CUDA {torch.version.cuda}, there is a driver, and no GPU is usable: "
            "see nvidia-smi"
        )
    return found


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _partner() -> str | None:
    """The version of Triton that torch requires; None where it requires none, as its CPU builds."""
    try:
        requirements = importlib.metadata.requires("torch") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next(
        (found[1] for line in requirements if (found := re.match(r"triton\s*==\s*([\d.]+)", line))), None
    )


def environment() -> list[Row]:
    """The package's environment variables with their values."""
    return [(name, repr(os.environ[name]) if name in os.environ else "not set") for name in env.VARIABLES]
