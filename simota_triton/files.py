"""Files that several processes may write: replaced in one step, and one process at a time."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replace a file by its new content in one step, so that whoever reads it finds the one or the other.

    Raises:
        OSError: It cannot be written; the file is as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's own would shut out the others of a shared folder
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it does. Windows has no such
    locks.

    Raises:
        BlockingIOError: Another process holds it and ``wait`` is False.
        OSError: The file cannot be made.
    """
    with open(path, "a") as file:
        try:
            import fcntl
        except ModuleNotFoundError:
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
