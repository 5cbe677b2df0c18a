"""Errors of commands: one line on stderr."""

from __future__ import annotations

import importlib
import sys

INSTALL = 'pip install "simota-triton[cli]"'


class CommandError(Exception):
    """A request that cannot be met. Its message is printed as one line."""


def report(message: object) -> None:
    """Print a message on stderr, as one line."""
    print("simota-triton:", " ".join(str(message).split()), file=sys.stderr)


def require(**packages: str) -> None:
    """Import optional packages, given as ``import_name="name in the package index"``.

    Raises:
        CommandError: Some are not installed; the message names them and says how to install them.
    """
    missing = []
    for module, package in packages.items():
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(package)
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise CommandError(f"{', '.join(missing)} {verb} not installed; run {INSTALL}")
