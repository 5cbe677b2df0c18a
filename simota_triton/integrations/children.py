"""Patches that reach every Python process started from here, by two environment variables that it inherits.

SIMOTA_TRITON_PATCH names the packages. PYTHONPATH begins with the folder ``startup``, whose ``sitecustomize``
every Python runs at its start; it patches each package once the package is imported. Ranks that a launcher
spawns or starts as subprocesses are reached like any other process. A process that ignores its environment
(``python -I`` or ``-E``) is not reached.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from .. import env

STARTUP = str(Path(__file__).parent / "startup")
"""The folder that holds ``sitecustomize``, and nothing else."""

PACKAGES = ("yolox", "libreyolo", "super_gradients", "nanodet", "ultralytics")
"""What can be patched so: a package, and the module here that has its ``patch()``."""


def reach(names: Iterable[str], environ: MutableMapping[str, str] = os.environ) -> None:
    """Change an environment so that processes which inherit it patch the packages ``names`` and no others.

    Example:
        >>> environ = {"PYTHONPATH": "/own"}
        >>> reach(["yolox"], environ)
        >>> environ["SIMOTA_TRITON_PATCH"], environ["PYTHONPATH"].split(os.pathsep)[1:]
        ('yolox', ['/own'])
        >>> reach([], environ)
        >>> environ
        {'PYTHONPATH': '/own'}
    """
    names = list(names)
    own = environ.get("PYTHONPATH", "")
    path = [folder for folder in own.split(os.pathsep) if folder != STARTUP] if own else []
    path = [STARTUP, *path] if names else path
    for variable, values, separator in (
        ("SIMOTA_TRITON_PATCH", names, ","),
        ("PYTHONPATH", path, os.pathsep),
    ):
        if values:
            environ[variable] = separator.join(values)
        else:
            environ.pop(variable, None)


def reached() -> list[str]:
    """The packages that processes started from here patch."""
    return [name for name in env.patch().split(",") if name]
