"""Measured launch parameters on disk: one JSON file for each GPU.

A file is written whole or not at all, and every value is checked when it is read:

    {"schema": 1, "gpu": "NVIDIA H100 80GB HBM3", "capability": [9, 0],
     "kernels": {"triton": {"b32-p16384-g64": {"config": {...}, "median_ms": ..., "default_ms": ...,
     "measured": {...}}}}}

``kernels`` holds, for each backend, an entry for each bucket of shapes; an entry's ``measured`` holds the
workload, the versions of Triton, torch and this package, and the date.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import env
from ..files import locked, write_whole
from .families import FAMILIES

SCHEMA = 1
PACKAGED = Path(__file__).parent / "measured"
"""Folder of the files that come with the package, one for each compute capability: ``sm_90.json``."""

Tuned = dict[str, dict[str, Any]]
"""Backend -> bucket -> launch parameters."""


class Gpu(NamedTuple):
    """The GPU that a file is measured on."""

    name: str
    capability: tuple[int, int]

    @classmethod
    def of(cls, device: torch.device) -> Gpu:
        found = torch.cuda.get_device_properties(device)
        return cls(found.name, (found.major, found.minor))

    @property
    def slug(self) -> str:
        """The name in the form of a file's name.

        Example:
            >>> Gpu("NVIDIA H100 80GB HBM3", (9, 0)).slug
            'nvidia-h100-80gb-hbm3'
        """
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


class StoreError(Exception):
    """A file that cannot be used. The message names the file and the remedy."""


def user_folder() -> Path:
    """The folder SIMOTA_TRITON_CONFIG_DIR, else ``simota_triton`` in the user's cache folder."""
    chosen = env.config_dir()
    if chosen:
        return Path(os.path.expanduser(chosen))  # leaves "~" as it is if no home is known
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "simota_triton"


def user_file(gpu: Gpu, folder: Path | None = None) -> Path:
    """The file of a GPU in ``folder``, by default the user's."""
    return (user_folder() if folder is None else folder) / f"{gpu.slug}.json"


def packaged_file(gpu: Gpu) -> Path:
    """The file in the package for GPUs of this compute capability."""
    return PACKAGED / "sm_{}{}.json".format(*gpu.capability)


def read(path: Path, gpu: Gpu, any_name: bool = False) -> Tuned:
    """The launch parameters in a file; none if there is no file.

    Args:
        path: The file.
        gpu: The GPU that it must be for.
        any_name: The compute capability must agree, the GPU's name need not.

    Raises:
        StoreError: The file cannot be read, has a newer schema, is for another GPU, or holds values that are
            out of range.
    """
    try:
        data = _load(path)
        if data is None:
            return {}
        found = Gpu(data["gpu"], tuple(data["capability"]))
        if found.capability != gpu.capability or not (any_name or found.name == gpu.name):
            raise ValueError(
                f"it was measured on {found.name} ({found.capability}), this is {gpu.name} ({gpu.capability})"
            )
        return {
            backend: {name: FAMILIES[backend].read(entry["config"]) for name, entry in entries.items()}
            for backend, entries in data["kernels"].items()
            if backend in FAMILIES
        }
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror}); make it readable or set SIMOTA_TRITON_CONFIG_DIR"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise StoreError(
            f"{path} is not used: {why}; delete it, or write it again with simota-triton tune"
        ) from error


def _load(path: Path) -> dict[str, Any] | None:
    """The file's content, its outline checked; None if there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    data = json.loads(text)
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise ValueError("it is no file of measured configurations")
    if data["schema"] > SCHEMA:
        raise ValueError(f"its schema {data['schema']} is newer than this package's, {SCHEMA}")
    for name, kind in (("gpu", str), ("capability", list), ("kernels", dict)):
        if not isinstance(data[name], kind):
            raise ValueError(f"{name}: expected a {kind.__name__}, got {data[name]!r}")
    return data


def save(path: Path, gpu: Gpu, backend: str, entries: dict[str, dict[str, Any]]) -> Path | None:
    """Add buckets to a file, in place of those of the same name. Everything else in it stays.

    Processes that write at the same time take turns. A file that cannot be understood is moved to another
    name first.

    Returns:
        The new name of such a file, or None.

    Raises:
        OSError: The file cannot be written; it stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        kept = None
        try:
            read(path, gpu)
            data = _load(path)
        except StoreError:
            data, kept = None, path.with_name(f"{path.name}.unread")
            os.replace(path, kept)
        data = data or {"schema": SCHEMA, "gpu": gpu.name, "capability": list(gpu.capability), "kernels": {}}
        data["kernels"].setdefault(backend, {}).update(entries)
        write_whole(path, json.dumps(data, indent=1) + "\n")
    return kept
