"""What a command says when it cannot go on: one line on stderr."""

from __future__ import annotations

import importlib
import sys

INSTALL = 'pip install "simota-triton[cli]"'


class CommandError(Exception):
    """A request that cannot be met, told to the user in one line."""


def report(message: object) -> None:
    """One line on stderr, whatever the message holds."""
    print("simota-triton:", " ".join(str(message).split()), file=sys.stderr)


def require(**packages: str) -> None:
    """Import optional packages, given as import name = name in the registry.

    Raises:
        CommandError: Some are not installed; the line names them and how to install them.
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
