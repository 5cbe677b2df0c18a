"""A file of what a tuning run has measured so far, so that an interrupted run can continue."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...files import locked


class Journal:
    """The records of one run, in a file of JSON lines whose first line, the header, identifies the run.

    A last line that was cut off is dropped. If the header is another run's (other versions, another batch),
    its records are dropped too.

    Args:
        path: The file, or None to keep nothing.
        header: What identifies the run.
    """

    def __init__(self, path: Path | None, header: dict[str, Any]) -> None:
        self.path, self.header = path, header
        self.records: list[dict[str, Any]] = []
        self.trouble: str | None = None
        """Why records no longer reach the file, or None."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[Journal]:
        """The journal with the records of the interrupted run, locked against other processes.

        Raises:
            BlockingIOError: Another process has locked it.
            OSError: The folder cannot be written.
        """
        if self.path is None:
            yield self
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(f"{self.path.name}.lock"), wait=False):
            self._read(self.path)
            yield self

    def _read(self, path: Path) -> None:
        lines = []
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    break
        if lines and lines[0] == self.header:
            self.records = lines[1:]
        text = "".join(json.dumps(line) + "\n" for line in (self.header, *self.records))
        self._write(text, "w")

    def add(self, record: dict[str, Any]) -> None:
        """Add a record. If it cannot be written, ``trouble`` says so and the run goes on."""
        self.records.append(record)
        self._write(json.dumps(record) + "\n", "a")

    def _write(self, text: str, mode: str) -> None:
        if self.path is None or self.trouble is not None:
            return
        try:
            with open(self.path, mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            self.trouble = (
                f"{self.path} cannot be written ({error.strerror}); the run goes on, but cannot be resumed"
            )

    def remove(self) -> None:
        """Delete the file, once the run is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
