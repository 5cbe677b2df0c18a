"""Replace attributes of a foreign package and put them back: the one mechanism of every integration that
patches.

An integration names its package and which versions work (:class:`Package`), and holds one :class:`Patch`.
What does not look as expected is an error that names the attribute, never a patch that silently does nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch

from .children import reach, reached

LOGGER = logging.getLogger("simota_triton")

_MISSING = object()


@dataclass(frozen=True)
class Package:
    """A foreign package, which of its versions work, and how to install one.

    Attributes:
        name: What is imported.
        versions: Distribution -> versions that work; "1.6" stands for every 1.6.x, "1.6.0 to 1.6.9" for what
            lies between the two, with both.
        install: Command that installs one that works.

    Example:
        >>> Package("torch", {"torch": ("2",)}, "pip install torch").load("torch.nn").__name__
        'torch.nn'
    """

    name: str
    versions: Mapping[str, tuple[str, ...]]
    install: str

    def __str__(self) -> str:
        return " or ".join(
            f"{distribution} {', '.join(versions)}" for distribution, versions in self.versions.items()
        )

    def check(self) -> None:
        """Refuse a package that is missing or of another version. One that runs from its sources and states
        no version is not refused: :class:`Patch` looks at its layout.

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
            if not isinstance(version, str) or any(
                _matches(version, versions) for versions in self.versions.values()
            ):
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
            raise ImportError(
                f"{module}: cannot be imported ({error}); works with {self}: {self.install}"
            ) from error

    def attribute(self, owner: object, name: str) -> Any:
        """``owner.name``.

        Raises:
            AttributeError: There is none; it names the versions that have it.
        """
        value = getattr(owner, name, _MISSING)
        if value is _MISSING:
            raise AttributeError(
                f"{_path(owner, name)}: expected, but there is none; works with {self}: {self.install}"
            )
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
                f"{_path(owner, name)}: expected parameters ({', '.join(expected)}), "
                f"got ({', '.join(found)}); works with {self}: {self.install}"
            )

    def refuse_overrides(self, found: type, base: type, methods: Iterable[str], path: str) -> None:
        """Refuse a class that overrides what a patched function does not call: its own methods would silently
        not run.

        Args:
            found: A subclass of ``base``.
            base: The package's class.
            methods: Methods that are not called.
            path: The patched function, for the message.

        Raises:
            TypeError: It names the method and what to do.
        """
        for method in methods:
            if getattr(found, method, None) is not getattr(base, method, None):
                raise TypeError(
                    f"{found.__name__}.{method}: expected {base.__name__}'s own, because the patched {path} "
                    "assigns without it, got an override; train this class without "
                    f"simota_triton.integrations.{self.name}.patch() and simota-triton run, "
                    f"or call an assigner of simota_triton where it calls {method}"
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
        preset: Name of the preset that it assigns by.
        bypassed: Methods that only the replaced function calls. Objects whose class overrides one are refused
            when they call ``function``, see :meth:`Package.refuse_overrides`. Names that the owner does not
            have are passed over.
        kept: Subclasses of the owner, which defines the function itself, whose objects keep the original.
    """

    owner: type | ModuleType
    name: str
    function: Callable[..., Any]
    preset: str
    bypassed: tuple[str, ...] = ()
    kept: tuple[type, ...] = ()

    def __str__(self) -> str:
        kept = f"; {', '.join(kind.__name__ for kind in self.kept)} as before" if self.kept else ""
        return f"{_short(self.owner)}.{self.name} -> simota_triton (preset {self.preset}{kept})"


class Patch:
    """What one integration has replaced. Applying twice or undoing twice is harmless; ``with`` undoes at its
    end. Its text says what is replaced by what.

    Attributes:
        package: The package.
        calls: How often each replaced function was called in this process since it was first replaced, by its
            name, as in ``{"YOLOXHead.get_losses": 300}``. Calls within ``torch.compile`` are not counted.

    Example:
        >>> class Head:
        ...     def loss(self, x): return "theirs"
        >>> patch = Patch(Package("torch", {"torch": ("2",)}, "pip install torch"))
        >>> with patch.apply([Replacement(Head, "loss", lambda self, x: "ours", "yolox")]):
        ...     print(Head().loss(0), patch, patch.applied)
        ours torch: Head.loss -> simota_triton (preset yolox) True
        >>> Head().loss(0), patch.calls["Head.loss"], patch
        ('theirs', 1, torch: not patched)
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self.calls: Counter[str] = Counter()
        self._replaced: dict[tuple[type | ModuleType, str], tuple[Any, Callable[..., Any], Replacement]] = {}
        self._reaches = False

    @property
    def applied(self) -> bool:
        """Whether all that was replaced is in place; False after someone else replaced it again, too."""
        return bool(self._replaced) and all(
            vars(owner).get(name) is call for (owner, name), (_, call, _) in self._replaced.items()
        )

    def __repr__(self) -> str:
        parts = ", ".join(str(replacement) for _, _, replacement in self._replaced.values())
        return f"{self.package.name}: {parts or 'not patched'}"

    def apply(self, replacements: Iterable[Replacement], *, in_children: bool = False) -> Patch:
        """Replace all, or none if one of them does not fit, and log one line. What is already replaced is
        replaced anew.

        Args:
            replacements: What to replace.
            in_children: Whether Python processes that this one starts from now on patch the package too, see
                :mod:`.children`.

        Raises:
            AttributeError: An owner has no such attribute.
            TypeError: The attribute takes other parameters than what would take its place.
        """
        replacements = list(replacements)
        for replacement in replacements:
            self.package.expect(
                replacement.owner, replacement.name, inspect.signature(replacement.function).parameters
            )
        for replacement in replacements:
            owner, name = replacement.owner, replacement.name
            original = vars(owner).get(name, _MISSING)
            if (owner, name) in self._replaced:
                original = self._replaced[owner, name][0]
            call = self._counting(replacement, original)
            setattr(owner, name, call)
            self._replaced[owner, name] = original, call, replacement
        if in_children and self.package.name not in reached():
            reach([*reached(), self.package.name])
        self._reaches |= in_children
        LOGGER.info("%r", self)
        return self

    def _counting(self, replacement: Replacement, original: Any) -> Callable[..., Any]:
        """The function, which counts its calls and refuses objects whose class overrides what it bypasses.
        Objects of the classes kept get the original, uncounted.
        """
        owner, name, function = replacement.owner, replacement.name, replacement.function
        path = f"{_short(owner)}.{name}"

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if replacement.kept and isinstance(args[0], replacement.kept):
                return original(*args, **kwargs)
            if isinstance(owner, type):
                self.package.refuse_overrides(type(args[0]), owner, replacement.bypassed, path)
            if not torch.compiler.is_compiling():
                self.calls[path] += 1
            return function(*args, **kwargs)

        return call

    def undo(self) -> None:
        """Put everything back.

        Raises:
            RuntimeError: Someone else replaced the attribute after us; undoing would drop theirs.
        """
        for (owner, name), (_, call, _) in self._replaced.items():
            if vars(owner).get(name) is not call:
                raise RuntimeError(
                    f"{_path(owner, name)}: was replaced by other code after this patch; undo that first"
                )
        if self._reaches:
            reach([name for name in reached() if name != self.package.name])
            self._reaches = False
        while self._replaced:
            (owner, name), (original, _, _) = self._replaced.popitem()
            if original is _MISSING:  # it was inherited
                delattr(owner, name)
            else:
                setattr(owner, name, original)

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()


def _matches(version: str, versions: Iterable[str]) -> bool:
    for known in versions:
        if " to " in known:
            oldest, newest = map(_numbers, known.split(" to "))
            if oldest <= _numbers(version) <= newest:
                return True
        elif version == known or version.startswith((f"{known}.", f"{known}+")):
            return True
    return False


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version)[0]))


def _short(owner: type | ModuleType) -> str:
    return owner.__name__.rsplit(".", 1)[-1]


def _path(owner: object, name: str) -> str:
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}.{name}"
    return f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
