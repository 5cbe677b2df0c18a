"""Whether the kernels gave the known answers on a GPU: kept on disk beside the tuning files, so that it is
asked once.

    {"schema": 1, "verdicts": [{"gpu": "NVIDIA H100 80GB HBM3", "capability": [9, 0],
        "driver": "570.86.15", "torch": "2.13.0", "triton": "3.7.1", "simota_triton": "1.0",
        "kernels": "0f3a...", "difference": null}]}

``difference`` is null for right answers, else the first wrong one. A verdict holds for exactly what it was
found with.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..files import locked, write_whole
from ..tuning.store import Gpu, user_folder
from ..version import __version__, driver_version, triton_version

SCHEMA = 1
PACKAGE = Path(__file__).parents[1]
SOURCES = ("kernels", "backends", "tuning")
"""Folders whose files decide what is compiled and launched."""

PATIENCE = 120.0
"""Seconds that a process waits for another one's check; then it makes its own."""


class Verdict(NamedTuple):
    """What a check found: the first difference from a known answer, None where all were right."""

    difference: str | None


def subject(device: torch.device) -> dict[str, Any]:
    """What a verdict is about: the GPU and everything that the kernels' binaries depend on."""
    gpu = Gpu.of(device)
    return {
        "gpu": gpu.name,
        "capability": list(gpu.capability),
        "driver": driver_version(),
        "torch": str(torch.__version__),
        "triton": triton_version(),
        "simota_triton": __version__,
        "kernels": _hash_of_sources(),
    }


@functools.cache
def _hash_of_sources() -> str:
    found = hashlib.sha256()
    for path in sorted(path for folder in SOURCES for path in (PACKAGE / folder).rglob("*.py")):
        found.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def file() -> Path:
    """Where verdicts are kept."""
    return user_folder() / "verdicts.json"


def find(about: dict[str, Any]) -> Verdict | None:
    """The verdict about a subject; None where there is none that can be read."""
    for entry in _entries():
        if {name: entry.get(name) for name in about} == about:
            return Verdict(entry["difference"])
    return None


def keep(about: dict[str, Any], verdict: Verdict) -> None:
    """Keep a verdict, in place of one about the same subject.

    Raises:
        OSError: The file cannot be written.
    """
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        others = [entry for entry in _entries() if {name: entry.get(name) for name in about} != about]
        data = {"schema": SCHEMA, "verdicts": [*others, about | {"difference": verdict.difference}]}
        write_whole(path, json.dumps(data, indent=1) + "\n")


def _entries() -> list[dict[str, Any]]:
    """What the file holds; nothing where it is missing, damaged or of another schema: all of it can be found
    out again.
    """
    try:
        data = json.loads(file().read_text(encoding="utf-8"))
        entries = data["verdicts"] if data["schema"] == SCHEMA else []
        return [
            entry for entry in entries if entry["difference"] is None or isinstance(entry["difference"], str)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


@contextlib.contextmanager
def turn(patience: float = PATIENCE) -> Iterator[None]:
    """Let one process check while others wait, so that these find its verdict.

    A process that ends, however it does, lets go of its turn. Nobody waits longer than ``patience`` seconds,
    nor where no lock can be made.
    """
    with contextlib.ExitStack() as stack:
        deadline = time.monotonic() + patience
        while True:
            try:
                path = file()
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(path.with_name(f".{path.name}.check"), wait=False))
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
            except OSError:
                pass
            break
        yield
