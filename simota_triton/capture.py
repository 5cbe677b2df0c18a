"""A few batches of the user's own training, kept in a file for ``simota-triton tune`` and ``simota-triton
bench``.

Set SIMOTA_TRITON_CAPTURE to a file, or use :func:`capture` around the steps that are worth keeping. One batch
a process is kept of each configuration and bucket of shapes, up to a limit, by that of rank 0 (environment
variable RANK); copying it waits for the GPU. Calls inside ``torch.compile`` are not captured.

The file is a line that says what it is, then records, each the 8 bytes of its length and a ``torch.save`` of
the call's arguments.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from . import env
from .config import Config, config_key, config_of
from .files import locked
from .inputs import pack
from .problem import Problem, map_tensors
from .tuning.kernel_config import Shape, bucket

MAGIC = b"simota_triton batches 1\n"
LIMIT = 8
"""Batches of a file: enough for the image sizes of multi-scale training, a few hundred MB."""

LOGGER = logging.getLogger("simota_triton")

_active: Recorder | None = None


@dataclass(frozen=True)
class Recorded:
    """One call of an assigner.

    Attributes:
        name: What it is called in tables.
        config: The assigner's configuration.
        inputs: Its arguments by name, on the CPU.
    """

    name: str
    config: Config
    inputs: dict[str, Any]

    def on(self, device: torch.device) -> dict[str, Any]:
        """The arguments on a device."""
        moved: dict[str, Any] = map_tensors(lambda tensor: _moved(tensor, device), self.inputs)
        return moved

    def problem(self, device: torch.device) -> Problem:
        """The batch on a device, packed; values are not looked at again."""
        return pack(self.config, **self.on(device), validate=False)


@contextlib.contextmanager
def capture(file: str | Path, limit: int = LIMIT) -> Iterator[None]:
    """Within the block, assigners add their batches to a file: one of each configuration and bucket of
    shapes.

    Args:
        file: The file; batches it has already stay and count.
        limit: Most batches in the file.

    Raises:
        ValueError: The file is something else.

    Example:
        >>> import tempfile
        >>> from simota_triton import SimOTAAssigner
        >>> priors = torch.tensor([[8.0, 8.0, 8.0], [40.0, 40.0, 8.0]])
        >>> gts = [torch.rand(1, 4)], [torch.tensor([0])]
        >>> inputs = torch.rand(1, 2, 4), torch.zeros(1, 2, 3), priors, *gts
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "mine.batches")
        ...     with capture(file):
        ...         for _ in range(3):
        ...             result = SimOTAAssigner("rtmdet")(*inputs)
        ...     [batch.name for batch in read_batches(file)[0]]
        ['mine.batches b1-p2-g1, rtmdet']
    """
    global _active
    before, _active = _active, Recorder(Path(file), limit)
    try:
        yield
    finally:
        _active = before


def active() -> Recorder | None:
    """Where batches go now: the innermost :func:`capture`, else SIMOTA_TRITON_CAPTURE, else nowhere."""
    if _active is not None:
        return _active
    path = env.capture()
    return _of_environment(path) if path else None


@functools.cache
def _of_environment(path: str) -> Recorder | None:
    if os.environ.get("RANK", "0") not in ("", "0"):
        return None
    try:
        return Recorder(Path(path), LIMIT)
    except ValueError as error:
        LOGGER.warning("SIMOTA_TRITON_CAPTURE: %s. Nothing is captured.", error)
        return None


def is_captured(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured there, which cannot hold a copy to the host."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


class Recorder:
    """Adds batches to a file.

    Args:
        path: The file.
        limit: Most batches in it.

    Raises:
        ValueError: The file is something else.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        self.seen: set[tuple[Config, str]] = set()
        self.room = True
        with contextlib.suppress(OSError), open(path, "rb") as file:
            list(_records(file, path))

    def keep(self, config: Config, problem: Problem, inputs: dict[str, Any]) -> None:
        """Add a call's batch, unless one of its configuration and bucket is there. A file that cannot be
        written is one warning.
        """
        batch, num_priors, _ = problem.shape
        gts = problem.gts.max_count
        shapes = bucket(
            Shape(batch, num_priors, problem.gts.boxes.shape[0] // max(batch, 1) if gts is None else gts)
        )
        if not self.room or (config, shapes) in self.seen or 0 in (batch, num_priors):
            return
        self.seen.add((config, shapes))
        name = f"{shapes}, {config.preset or config.rule}"
        given = {name: value for name, value in inputs.items() if value is not None}
        kept = map_tensors(lambda tensor: tensor.detach().cpu().clone(), given)
        try:
            self.append(Recorded(name, config, kept))
        except (OSError, ValueError) as error:
            self.room = False
            LOGGER.warning(
                "simota_triton: %s cannot be written (%s); no more batches are captured", self.path, error
            )

    def append(self, batch: Recorded) -> None:
        """Write a batch after the last whole one, by one process at a time, if there is room.

        Raises:
            OSError: The file cannot be written; it is as it was.
        """
        blob = io.BytesIO()
        torch.save(
            {
                "name": batch.name,
                "config": config_key(batch.config),
                "inputs": batch.inputs,
            },
            blob,
        )
        record = blob.getvalue()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(f".{self.path.name}.lock")), open(self.path, "a+b") as file:
            file.seek(0)
            ends = [end for _, end in _records(file, self.path)]
            end = ends[-1] if ends else 0
            self.room = len(ends) < self.limit
            if not self.room:
                return
            file.truncate(end)
            try:
                file.write((b"" if end else MAGIC) + len(record).to_bytes(8, "little") + record)
                file.flush()
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise


def read_batches(path: Path) -> tuple[list[Recorded], str | None]:
    """The batches of a file, and what is wrong with its end, if anything: what was written whole before it is
    there.

    Raises:
        ValueError: The file is no file of batches.
        OSError: It cannot be read.
    """
    found = []
    with open(path, "rb") as file:
        ends = []
        for start, end in _records(file, path):
            ends.append(end)
            file.seek(start)
            try:
                data = torch.load(io.BytesIO(file.read(end - start)), weights_only=True)
                config = config_of(data["config"])
                found.append(Recorded(f"{path.name} {data['name']}", config, data["inputs"]))
            except Exception as error:  # torch.load raises whatever it stumbles over
                why = str(error).splitlines()[0]
                raise ValueError(
                    f"{path}: batch {len(found)} cannot be read ({why}); capture it again"
                ) from error
            file.seek(end)
        cut = path.stat().st_size > (ends[-1] if ends else len(MAGIC))
    return (
        found,
        f"{path} ends in the middle of batch {len(found)}; the {len(found)} before it are used"
        if cut
        else None,
    )


def _records(file: BinaryIO, path: Path) -> Iterator[tuple[int, int]]:
    """Start and end of each whole record of a file that stands at its beginning."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        return
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError(f"{path} is no file of captured batches; choose another one")
    end = len(MAGIC)
    while True:
        file.seek(end)
        length = file.read(8)
        start = end + 8
        end = start + int.from_bytes(length, "little")
        if len(length) < 8 or end > size:
            return
        yield start, end


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, with its strides, gaps between rows included."""
    if tensor.is_contiguous() or tensor.device == device:
        return tensor.to(device)
    whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())
    return whole.to(device).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
