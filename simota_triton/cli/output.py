"""The file that a command writes at its end. Its place is tried before anything is measured, and if it cannot
be written after all, the record is put elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..files import write_whole
from .errors import CommandError

ROOM = 1 << 16
"""Bytes that are written for a try: more than a record takes."""


def check_writable(paths: Iterable[Path]) -> None:
    """Check that files can be written.

    Raises:
        CommandError: One is a folder or a device, or its folder is missing, cannot be written or has no room.
    """
    for path in paths:
        if not path.parent.is_dir():
            raise CommandError(f"--out: there is no folder {path.parent}")
        if path.exists() and not path.is_file():
            raise CommandError(f"--out: {path} is no file; name a file in it, or another one")
        try:
            with tempfile.TemporaryFile(dir=path.parent) as file:
                file.write(bytes(ROOM))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CommandError(
                f"--out: {path.parent} cannot be written ({error.strerror}); choose a file elsewhere"
            ) from error


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON. If that fails, write it into the folder for temporary files, and if that fails
    too, to stdout.

    Raises:
        CommandError: The record could not be written to ``path``; the message says where it is instead.
    """
    text = json.dumps(record, indent=1) + "\n"
    try:
        write_whole(path, text)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written ({error.strerror}); the record is {_kept(path.stem, text)}"
        ) from error


def _kept(stem: str, text: str) -> str:
    """Put the text elsewhere, and say where."""
    with contextlib.suppress(OSError):
        elsewhere = Path(tempfile.mkdtemp(prefix=f"{stem}-"), f"{stem}.json")
        write_whole(elsewhere, text)
        return f"in {elsewhere}"
    sys.stdout.write(text)
    return "printed above"
