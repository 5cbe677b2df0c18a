"""The progress of a long command: a bar on a terminal; elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

EVERY = 10.0
"""Seconds between two lines."""


class Bar:
    """A context manager that shows on stderr how many steps are done, and an estimate of the time left.

    Args:
        title: What the command does.
        total: Number of steps.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.done = 0
        self.begun: tuple[float, int] | None = None
        self.told = time.monotonic()
        self._rich: Any = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import (
                    BarColumn,
                    MofNCompleteColumn,
                    Progress,
                    TextColumn,
                    TimeRemainingColumn,
                )
            except ImportError:
                return self
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._rich = Progress(*columns, console=Console(stderr=True))
            self._task = self._rich.add_task(self.title, total=self.total, note="")
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def update(self, done: int, note: str = "") -> None:
        """Show how many steps are done, and a remark."""
        self.done = done
        if self._rich is not None:
            self._rich.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if (
            self.begun is None
        ):  # the first steps tell no speed: an earlier run did them, or they took a start-up
            self.begun = now, done
        if now - self.told >= EVERY or done >= self.total:
            self.told = now
            since, here = now - self.begun[0], done - self.begun[1]
            left = ""
            if here and done < self.total:
                left = f", about {_duration(since / here * (self.total - done))} left"
            remark = f"; {note}" if note else ""
            print(f"{self.title}: {done}/{self.total}{left}{remark}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
