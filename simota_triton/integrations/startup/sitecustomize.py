"""What every Python process that ``simota-triton run`` or ``patch()`` reaches does at its start.

It waits for the packages that SIMOTA_TRITON_PATCH names, and patches each at the end of its first import.
Then it runs the ``sitecustomize`` that it hides. It imports nothing but the standard library, so that other
processes pay nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class PatchAfterImport:
    """A finder that lets the others find, and patches the packages it waits for once they are loaded."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = {name for name in names if name}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec that the other finders have for a package that is waited for."""
        if name not in self.names:
            return None
        self.names.remove(name)  # so that the others are asked, this one is not
        try:
            spec = find_spec(name)
        finally:
            self.names.add(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            importlib.import_module("simota_triton.integrations." + name).patch()
            self.names.discard(name)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, PatchAfterImport(os.environ.get("SIMOTA_TRITON_PATCH", "").split(",")))

here = os.path.dirname(os.path.abspath(__file__))
hidden = PathFinder.find_spec(
    "sitecustomize", [folder for folder in sys.path if os.path.abspath(folder) != here]
)
if hidden is not None and hidden.loader is not None:
    sys.modules["sitecustomize"] = module_from_spec(hidden)
    hidden.loader.exec_module(sys.modules["sitecustomize"])
