"""Fonts for the texts of pictures: matplotlib's default, and installed ones for characters that it lacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import report

PLACEHOLDERS = "Last Resort"
"""A font that comes with matplotlib and shows every character as a square."""


@contextmanager
def fonts_for(text: str) -> Iterator[None]:
    """In the block of this context manager pictures can show the characters of ``text``. If no installed font
    has some of them, one line names these.
    """
    import matplotlib

    others, lacking = _others(text)
    if lacking:
        shown = ", ".join(lacking[:8]) + (", ..." if len(lacking) > 8 else "")
        report(
            f"no installed font has {shown}: pictures show squares there; install one that does, of the Noto "
            "family for example"
        )
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"font.family": [*matplotlib.rcParams["font.family"], *others]}),
    ):
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def _others(text: str) -> tuple[list[str], list[str]]:
    """Some fonts with the characters that matplotlib's default lacks, and the characters that none has."""
    from matplotlib import font_manager

    own = font_manager.get_font(font_manager.findfont(font_manager.FontProperties())).get_charmap()
    missing = {character for character in text if character.isprintable() and ord(character) not in own}
    if not missing:
        return [], []
    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}
    for path in font_manager.findSystemFonts():  # matplotlib's own list lacks fonts that were installed later
        if path not in known:
            _try(manager.addfont, path)
    has: dict[str, set[str]] = {}
    for font in manager.ttflist:
        face = None if PLACEHOLDERS in font.name else _try(font_manager.get_font, font.fname)
        if face is not None and face.scalable:
            characters = face.get_charmap()
            has.setdefault(font.name, set()).update(c for c in missing if ord(c) in characters)
    names: list[str] = []
    while missing and has[best := max(has, key=lambda name: len(has[name] & missing))] & missing:
        names.append(best)
        missing -= has[best]
    return names, sorted(missing)


def _try(function: Callable[[str], Any], path: str) -> Any:
    """``function(path)``, or None where matplotlib cannot read the font."""
    try:
        return function(path)
    except (OSError, RuntimeError, ValueError):
        return None
