"""Replace attributes of a foreign package and put them back: the one mechanism of every integration that patches.

An integration names its package and which versions work (:class:`Package`), and holds one :class:`Patch`. What does not
look as expected is an error that names the attribute, never a patch that silently does nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

_MISSING = object()


@dataclass(frozen=True)
class Package:
    """A foreign package, which of its versions work, and how to install one.

    Attributes:
        name: What is imported.
        versions: Distribution -> versions that work; "1.6" stands for every 1.6.x.
        install: Command that installs one that works.

    Example:
        >>> Package("torch", {"torch": ("2",)}, "pip install torch").load("torch.nn").__name__
        'torch.nn'
    """

    name: str
    versions: Mapping[str, tuple[str, ...]]
    install: str

    def __str__(self) -> str:
        return " or ".join(f"{distribution} {', '.join(versions)}" for distribution, versions in self.versions.items())

    def check(self) -> None:
        """Refuse a package that is missing or of another version. One that runs from its sources and states no version is
        not refused: :class:`Patch` looks at its layout.

        Raises:
            ImportError: It names the versions that work and how to install one.
        """
        found = dict(self._installed())
        if any(_matches(version, self.versions[distribution]) for distribution, version in found.items()):
            return
        if not found:
            try:
                module = importlib.import_module(self.name)
            except ImportError as error:
                raise ImportError(f"{self.name}: not installed; works with {self}: {self.install}") from error
            version = getattr(module, "__version__", None)
            if not isinstance(version, str) or any(_matches(version, versions) for versions in self.versions.values()):
                return
            found = {self.name: version}
        installed = ", ".join(f"{distribution} {version}" for distribution, version in found.items())
        raise ImportError(f"{self.name}: {installed} is installed; works with {self}: {self.install}")

    def load(self, module: str) -> ModuleType:
        """A module of the package, after :meth:`check`.

        Raises:
            ImportError: The package is missing, of another version, or has no such module.
        """
        self.check()
        try:
            return importlib.import_module(module)
        except ImportError as error:
            raise ImportError(f"{module}: cannot be imported ({error}); works with {self}: {self.install}") from error

    def attribute(self, owner: object, name: str) -> Any:
        """``owner.name``.

        Raises:
            AttributeError: There is none; it names the versions that have it.
        """
        value = getattr(owner, name, _MISSING)
        if value is _MISSING:
            raise AttributeError(f"{_path(owner, name)}: expected, but there is none; works with {self}: {self.install}")
        return value

    def expect(self, owner: object, name: str, parameters: Iterable[str]) -> None:
        """Refuse a function that is missing or takes other parameters.

        Raises:
            AttributeError: There is none.
            TypeError: It takes other parameters.
        """
        found, expected = list(inspect.signature(self.attribute(owner, name)).parameters), list(parameters)
        if found != expected:
            raise TypeError(
                f"{_path(owner, name)}: expected parameters ({', '.join(expected)}), got ({', '.join(found)}); "
                f"works with {self}: {self.install}"
            )

    def _installed(self) -> Iterable[tuple[str, str]]:
        for distribution in self.versions:
            try:
                yield distribution, importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue


class Replacement(NamedTuple):
    """``owner.name`` becomes ``function``, which takes the same parameters by the same names.

    Attributes:
        owner: A class or a module.
        name: A function of it.
        function: What takes its place.
    """

    owner: type | ModuleType
    name: str
    function: Callable[..., Any]


class Patch:
    """What one integration has replaced. Applying twice or undoing twice is harmless; ``with`` undoes at its end.

    Example:
        >>> class Head:
        ...     def loss(self, x): return "theirs"
        >>> patch = Patch(Package("torch", {"torch": ("2",)}, "pip install torch"))
        >>> with patch.apply([Replacement(Head, "loss", lambda self, x: "ours")]):
        ...     Head().loss(0)
        'ours'
        >>> Head().loss(0)
        'theirs'
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self._replaced: dict[tuple[type | ModuleType, str], tuple[Any, Callable[..., Any]]] = {}

    def apply(self, replacements: Iterable[Replacement]) -> Patch:
        """Replace all, or none if one of them does not fit. What is already replaced is replaced anew.

        Raises:
            AttributeError: An owner has no such attribute.
            TypeError: The attribute takes other parameters than what would take its place.
        """
        replacements = list(replacements)
        for owner, name, function in replacements:
            self.package.expect(owner, name, inspect.signature(function).parameters)
        for owner, name, function in replacements:
            original = vars(owner).get(name, _MISSING)
            if (owner, name) in self._replaced:
                original = self._replaced[owner, name][0]
            setattr(owner, name, function)
            self._replaced[owner, name] = original, function
        return self

    def undo(self) -> None:
        """Put everything back.

        Raises:
            RuntimeError: Someone else replaced the attribute after us; undoing would drop theirs.
        """
        for (owner, name), (_, function) in self._replaced.items():
            if vars(owner).get(name) is not function:
                raise RuntimeError(f"{_path(owner, name)}: was replaced by other code after this patch; undo that first")
        while self._replaced:
            (owner, name), (original, _) = self._replaced.popitem()
            if original is _MISSING:  # it was inherited
                delattr(owner, name)
            else:
                setattr(owner, name, original)

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()


def _matches(version: str, versions: Iterable[str]) -> bool:
    return any(version == known or version.startswith((f"{known}.", f"{known}+")) for known in versions)


def _path(owner: object, name: str) -> str:
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}.{name}"
    return f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
