"""Fonts for the texts of pictures: matplotlib's own, and installed ones for the characters that it lacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import report

PLACEHOLDERS = "Last Resort"
"""A font of matplotlib's that has every character, as a square."""


@contextmanager
def fonts_for(text: str) -> Iterator[None]:
    """In its block pictures have the characters of ``text``; those that no installed font has are told in one
    line.
    """
    import matplotlib

    others, lacking = _others(text)
    if lacking:
        shown = ", ".join(lacking[:8]) + (", ..." if len(lacking) > 8 else "")
        report(
            f"no installed font has {shown}: pictures show squares there; install one that does, of the Noto family for example"
        )
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"font.family": [*matplotlib.rcParams["font.family"], *others]}),
    ):
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def _others(text: str) -> tuple[list[str], list[str]]:
    """Fonts that have what matplotlib's own lacks, as few as may be, and the characters that none has."""
    from matplotlib import font_manager

    own = font_manager.get_font(font_manager.findfont(font_manager.FontProperties())).get_charmap()
    missing = {character for character in text if character.isprintable() and ord(character) not in own}
    if not missing:
        return [], []
    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}
    for path in (
        font_manager.findSystemFonts()
    ):  # matplotlib keeps a list, in which a font that was installed since is not
        if path not in known:
            _try(manager.addfont, path)
    has: dict[str, set[str]] = {}
    for font in manager.ttflist:
        if (
            PLACEHOLDERS not in font.name
            and (face := _try(font_manager.get_font, font.fname)) is not None
            and face.scalable
        ):
            characters = face.get_charmap()
            has.setdefault(font.name, set()).update(c for c in missing if ord(c) in characters)
    names: list[str] = []
    while missing and has[best := max(has, key=lambda name: len(has[name] & missing))] & missing:
        names.append(best)
        missing -= has[best]
    return names, sorted(missing)


def _try(function: Callable[[str], Any], path: str) -> Any:
    try:
        return function(path)
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # what matplotlib raises for files that are no fonts of a kind it reads
        return None
