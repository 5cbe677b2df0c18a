"""Load single modules of large packages unchanged, without running the packages' ``__init__`` files.

An assigner is one file that needs torch and little else, while importing its package would need CUDA ops,
loggers and half of PyPI. So the packages around it become shells (they have a path and nothing in it),
modules that the file imports but the assigner never executes become blanks, and ``sys.modules`` is put back
afterwards.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


class Missing(Exception):
    """A package is not here, or not in the version that the tests were written for."""


class Blank(ModuleType):
    """A module in which every name is an empty class."""

    __path__: list[str] = []  # noqa: RUF012 - what makes a module a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (), {"__init__": lambda self, *args, **kwargs: None})
        setattr(self, name, value)
        return value


class Blanks:
    """Finds modules, and all in them, as blanks: what is not installed, and what nothing here runs.

    Args:
        names: The modules.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        found = any(name == own or name.startswith(f"{own}.") for own in self.names)
        return ModuleSpec(name, self, is_package=True) if found else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Blank(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """A blank has nothing to run."""


def load_without_ops(*names: str) -> list[ModuleType]:
    """Modules of packages that build on mmcv, imported whole. mmcv-lite has no compiled ops: mmdet imports
    them by name, in modules that no assigner and no loss here runs.

    Raises:
        Missing: Something that they need cannot be imported.
    """
    if importlib.util.find_spec("mmcv") is not None and importlib.util.find_spec("mmcv._ext") is None:
        sys.meta_path.insert(0, Blanks("mmcv.ops", "mmcv._ext"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [load(name) for name in names]


def site(distribution: str, version: str) -> Path:
    """The folder that holds an installed distribution's packages.

    Raises:
        Missing: It is not installed, or in another version.
    """
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise Missing(f"{distribution} is not installed") from None
    if found.version != version:
        raise Missing(f"{distribution} {version} is needed, {found.version} is installed")
    return Path(str(found.locate_file("")))


def unpacked(name: str) -> Path:
    """A source distribution unpacked by ``install.sh`` beside the environment's packages (or under
    SIMOTA_TRITON_PEERS).

    Raises:
        Missing: It is not there.
    """
    folder = Path(os.environ.get("SIMOTA_TRITON_PEERS", Path(sys.prefix) / "peers")) / name
    if not folder.is_dir():
        raise Missing(f"{name} is not unpacked in {folder.parent}")
    return folder


@contextmanager
def isolated(
    root: Path, shells: Mapping[str, Mapping[str, object]], blanks: tuple[str, ...] = ()
) -> Iterator[None]:
    """Import inside packages of ``root`` without their ``__init__`` files; ``sys.modules`` is restored at the
    end.

    Args:
        root: Folder that holds the packages.
        shells: Package -> names it offers. A value that is a module's dotted name is that module's attribute
            of the same name, imported when first asked for.
        blanks: Modules to replace by blanks.
    """
    tops = {name.split(".")[0] for name in shells} | {name.split(".")[0] for name in blanks}

    def ours() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in tops]

    saved = {name: sys.modules.pop(name) for name in ours()}
    try:
        for name in blanks:
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                sys.modules.setdefault(".".join(parts[:depth]), Blank(".".join(parts[:depth])))
        for name, names in shells.items():
            module = ModuleType(name)
            module.__path__ = [str(root.joinpath(*name.split(".")))]
            module.__dict__.update(names)
            sys.modules[name] = module
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old packages warn at import; that is not what is tested
            yield
    finally:
        for name in ours():
            del sys.modules[name]
        sys.modules.update(saved)


def load(name: str) -> ModuleType:
    """The module called ``name``; inside :func:`isolated`.

    Raises:
        Missing: Something that the file needs cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{name} cannot be imported: {error}") from error


def export(package: str, *modules: str) -> None:
    """Copy the public names of a shell's submodules into it, as its ``__init__`` would."""
    for module in modules:
        names = vars(load(f"{package}.{module}"))
        sys.modules[package].__dict__.update(
            {key: value for key, value in names.items() if not key.startswith("__")}
        )
