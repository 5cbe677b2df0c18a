"""How far a long command is: a bar that redraws itself on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

EVERY = 10.0
"""Seconds between plain lines."""


class Bar:
    """Progress on stderr with the time left; a context manager.

    Args:
        title: What is done.
        total: Steps in all.
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
        if self.begun is None:  # what is done by now may be an earlier run's work, or took a start-up
            self.begun = now, done
        if now - self.told >= EVERY or done >= self.total:
            self.told = now
            since, here = now - self.begun[0], done - self.begun[1]
            left = (
                f", about {_duration(since / here * (self.total - done))} left"
                if here and done < self.total
                else ""
            )
            print(
                f"{self.title}: {done}/{self.total}{left}{'; ' + note if note else ''}",
                file=sys.stderr,
                flush=True,
            )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
