"""Patching a foreign package: exact, reversible, and loud where the package is not what it should be. No
package is needed here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from types import ModuleType

import pytest

from simota_triton.integrations.patching import Package, Patch, Replacement

PACKAGE = Package(
    "foreign", {"foreign": ("1.6",), "foreign-fork": ("2", "3.1")}, "pip install foreign==1.6.0"
)
INTEGRATIONS = ("yolox", "libreyolo", "super_gradients", "nanodet", "ultralytics")


class Base:
    @staticmethod
    def helper(x):
        return "theirs"

    def loss(self, x, *, scale=1):
        return "theirs"


class Head(Base):
    def assign(self, x):
        return "theirs"


def ours(self, x, *, scale=1):
    return "ours"


def test_replaces_and_puts_back():
    before = dict(vars(Base))
    patch = Patch(PACKAGE).apply(
        [Replacement(Base, "loss", ours, "yolox"), Replacement(Base, "helper", lambda x: "ours", "yolox")]
    )
    assert (Base().loss(0), Base.helper(0)) == ("ours", "ours")
    patch.undo()
    assert dict(vars(Base)) == before


def test_an_inherited_function_is_inherited_again():
    with Patch(PACKAGE).apply([Replacement(Head, "loss", ours, "yolox")]):
        assert (Head().loss(0), Base().loss(0)) == ("ours", "theirs")
    assert "loss" not in vars(Head)
    assert Head().loss(0) == "theirs"


def test_twice_is_harmless():
    patch = Patch(PACKAGE)
    original = Base.loss
    patch.apply([Replacement(Base, "loss", ours, "yolox")])
    patch.apply([Replacement(Base, "loss", ours, "yolox")])
    patch.apply([Replacement(Base, "loss", lambda self, x, scale: "newer", "yolox")])
    assert Base().loss(0, scale=2) == "newer"
    patch.undo()
    patch.undo()
    assert Base.loss is original


def test_undone_after_an_error_in_the_with_block():
    with pytest.raises(ZeroDivisionError), Patch(PACKAGE).apply([Replacement(Base, "loss", ours, "yolox")]):
        _ = 1 / 0
    assert Base().loss(0) == "theirs"


def test_a_missing_attribute_is_named_and_nothing_is_replaced():
    replacements = [Replacement(Base, "loss", ours, "yolox"), Replacement(Base, "gone", ours, "yolox")]
    with pytest.raises(
        AttributeError,
        match=r"Base\.gone: .*works with foreign 1\.6 or foreign-fork 2, 3\.1: pip install foreign==1\.6\.0",
    ):
        Patch(PACKAGE).apply(replacements)
    assert Base().loss(0) == "theirs"


def test_other_parameters_are_named_and_nothing_is_replaced():
    replacements = [
        Replacement(Base, "loss", ours, "yolox"),
        Replacement(Head, "assign", lambda self, x, y: "ours", "yolox"),
    ]
    with pytest.raises(
        TypeError,
        match=r"Head\.assign: expected parameters \(self, x, y\), got \(self, x\); works with foreign 1\.6",
    ):
        Patch(PACKAGE).apply(replacements)
    assert Base().loss(0) == "theirs"


def test_someone_elses_patch_on_top_is_not_dropped(monkeypatch):
    patch = Patch(PACKAGE).apply([Replacement(Base, "loss", ours, "yolox")])
    with monkeypatch.context() as other:
        other.setattr(Base, "loss", lambda self, x: "theirs on top")
        with pytest.raises(RuntimeError, match=r"Base\.loss: was replaced by other code"):
            patch.undo()
        assert Base().loss(0) == "theirs on top"
    patch.undo()
    assert Base().loss(0) == "theirs"


def test_it_says_once_what_it_replaced_and_counts_its_calls(caplog):
    patch = Patch(PACKAGE)
    assert (repr(patch), patch.applied, dict(patch.calls)) == ("foreign: not patched", False, {})
    text = "foreign: Base.loss -> simota_triton (preset yolox), Head.assign -> simota_triton (preset rtmdet)"
    replacements = [
        Replacement(Base, "loss", ours, "yolox"),
        Replacement(Head, "assign", lambda self, x: "ours", "rtmdet"),
    ]
    with caplog.at_level("INFO", logger="simota_triton"), patch.apply(replacements):
        assert [record.getMessage() for record in caplog.records] == [text] == [repr(patch)]
        Base().loss(0)
        Head().loss(0, scale=2)
        Head().assign(0)
        assert patch.applied
        assert patch.calls == {"Base.loss": 2, "Head.assign": 1}
    Base().loss(0)
    assert not patch.applied
    assert patch.calls == {"Base.loss": 2, "Head.assign": 1}


def test_it_is_not_in_place_once_someone_replaced_it(monkeypatch):
    with Patch(PACKAGE).apply([Replacement(Base, "loss", ours, "yolox")]) as patch:
        with monkeypatch.context() as other:
            other.setattr(Base, "loss", lambda self, x: "theirs on top")
            assert not patch.applied
        assert patch.applied


def test_a_class_that_overrides_what_is_no_longer_called_is_refused_with_the_remedy():
    class Own(Base):
        def helper(self, x):
            """What a user's head overrides to change the rule."""

    class Other(Base):
        def unrelated(self):
            """Of no concern."""

    replacement = Replacement(Base, "loss", ours, "yolox", ("gone", "helper"))
    with Patch(PACKAGE).apply([replacement]) as patch:
        with pytest.raises(
            TypeError,
            match=r"Own\.helper: expected Base's own, because the patched Base\.loss .*override; train this "
            r"class",
        ):
            Own().loss(0)
        assert Other().loss(0) == "ours"
        assert patch.calls == {"Base.loss": 1}
    assert Own().loss(0) == "theirs"


def test_a_class_that_is_kept_gets_the_original_and_is_named(caplog):
    class Kept(Base):
        def helper(self, x):
            """What would be refused."""

    class Derived(Kept):
        """Kept too."""

    replacement = Replacement(Base, "loss", ours, "yolox", ("helper",), (Kept,))
    with Patch(PACKAGE).apply([replacement]) as patch:
        assert repr(patch) == "foreign: Base.loss -> simota_triton (preset yolox; Kept as before)"
        assert [made.loss(0) for made in (Base(), Kept(), Derived())] == ["ours", "theirs", "theirs"]
        patch.apply([replacement])
        assert [made.loss(0) for made in (Base(), Kept(), Derived())] == ["ours", "theirs", "theirs"]
        assert patch.calls == {"Base.loss": 2}, "calls of the original are not counted"


@pytest.mark.parametrize(
    ("version", "works"),
    [
        ("1.6.0", True),
        ("1.6.9", True),
        ("1.6.5+cpu", True),
        ("1.6.10", False),
        ("1.5.99", False),
        ("1.7.0", False),
    ],
)
def test_a_range_of_versions_holds_both_its_ends(monkeypatch, version, works):
    package = Package("foreign", {"foreign": ("1.6.0 to 1.6.9",)}, "pip install foreign==1.6.9")
    install(monkeypatch, foreign=version)
    monkeypatch.setitem(sys.modules, "foreign", ModuleType("foreign"))
    if works:
        package.check()
    else:
        with pytest.raises(ImportError, match=r"works with foreign 1\.6\.0 to 1\.6\.9: pip install"):
            package.check()


def install(monkeypatch, **versions):
    def version(distribution):
        if distribution not in versions:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return versions[distribution]

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    "versions",
    [{"foreign": "1.6.0"}, {"foreign": "1.6"}, {"foreign-fork": "2.9+cpu"}, {"foreign-fork": "3.1.4"}],
)
def test_versions_that_work(monkeypatch, versions):
    install(monkeypatch, **versions)
    module = ModuleType("foreign.heads")
    monkeypatch.setitem(sys.modules, "foreign.heads", module)
    assert PACKAGE.load("foreign.heads") is module


@pytest.mark.parametrize("versions", [{"foreign": "1.60.0"}, {"foreign": "1.5.9"}, {"foreign-fork": "3.0"}])
def test_versions_that_do_not_work_are_named(monkeypatch, versions):
    install(monkeypatch, **versions)
    ((distribution, version),) = versions.items()
    with pytest.raises(
        ImportError,
        match=f"{distribution} {version} is installed; works with foreign 1.6 or .*: pip install "
        "foreign==1.6.0",
    ):
        PACKAGE.load("foreign.heads")


def test_sources_without_an_installation_go_by_their_own_version(monkeypatch):
    install(monkeypatch)
    module = ModuleType("foreign")
    monkeypatch.setitem(sys.modules, "foreign", module)
    PACKAGE.check()  # no version stated: the layout decides
    module.__version__ = "1.6.2"
    PACKAGE.check()
    module.__version__ = "0.9"
    with pytest.raises(ImportError, match=r"foreign 0\.9 is installed"):
        PACKAGE.check()


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_a_package_that_is_missing(monkeypatch, name):
    integration = importlib.import_module(f"simota_triton.integrations.{name}")
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name}: not installed; works with .* \d.*: pip install .*[=@]"):
        integration.patch()
    integration.unpatch()  # nothing to undo


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_a_version_that_does_not_work(monkeypatch, name):
    integration = importlib.import_module(f"simota_triton.integrations.{name}")
    install(monkeypatch, **dict.fromkeys(integration.PACKAGE.versions, "0.0.1"))
    with pytest.raises(ImportError, match=r"0\.0\.1 is installed; works with .*: pip install"):
        integration.patch()


def test_a_module_that_is_missing(monkeypatch):
    install(monkeypatch, foreign="1.6.0")
    monkeypatch.setitem(sys.modules, "foreign.heads", None)
    with pytest.raises(ImportError, match=r"foreign\.heads: cannot be imported .*works with foreign 1\.6"):
        PACKAGE.load("foreign.heads")
