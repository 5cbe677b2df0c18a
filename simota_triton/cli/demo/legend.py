"""The legend of a picture: rows below it that explain its marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...priors import STRIDES
from .labels import text_width
from .outcome import Outcome, count
from .scene import Scene

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

DOT_SIZE = {8: 4.8, 16: 8.0, 32: 12.5}
"""Stride of a prior -> diameter of its dot in pixels, less than the distance to the next dot."""

INK, FAINT_INK, SAMPLE = "#1b1f24", "#66707a", "#9aa5b1"
ROW = 0.27  # inches, height of a row
FONT = 8.5  # points
MARK = 14  # points, width of a mark
TEXT_GAP, ITEM_GAP = 5, 14  # points, behind a mark and behind its text


def dot_size(stride: int, image_size: int) -> float:
    """Diameter of a dot in pixels. The picture enlarges a small image, so the dots in it are smaller."""
    return DOT_SIZE[stride] * min(1.0, image_size / 640)


def legend_rows(scene: Scene, outcome: Outcome, point: float, width: float) -> list[Any]:
    """The marks that appear in the picture, each with its text, in rows.

    Args:
        scene: The image.
        outcome: Its assignment.
        point: Points of a pixel, so that dots are as large as in the picture.
        width: Points that a row may take.

    Returns:
        The rows, for :func:`place_rows`.
    """
    from matplotlib.offsetbox import DrawingArea, HPacker, TextArea

    rows: list[list[Any]] = [[]]
    used = 0.0
    for marks, text in _items(scene, outcome, point):
        area = DrawingArea(MARK, 9, 0, 0)
        for mark in marks:
            area.add_artist(mark)
        label = TextArea(text, textprops={"fontsize": FONT, "color": INK})
        length = MARK + TEXT_GAP + text_width(text, FONT) + ITEM_GAP
        if used + length > width and rows[-1]:
            rows.append([])
            used = 0.0
        rows[-1].append(HPacker(children=[area, label], align="center", pad=0, sep=TEXT_GAP))
        used += length
    return [HPacker(children=row, align="center", pad=0, sep=ITEM_GAP) for row in rows]


def place_rows(figure: Figure, rows: Sequence[Any], left: float) -> None:
    """Put the rows at the bottom of the figure, ``left`` inches from its left edge."""
    from matplotlib.offsetbox import AnnotationBbox

    width, height = figure.get_size_inches()
    for index, row in enumerate(reversed(rows)):
        place = (left / width, (0.3 + ROW * index) / height)
        figure.add_artist(
            AnnotationBbox(
                row, place, xycoords="figure fraction", box_alignment=(0, 0.5), frameon=False, pad=0
            )
        )


def _items(scene: Scene, outcome: Outcome, point: float) -> list[tuple[list[Artist], str]]:
    """Each mark of the picture, as the artists that draw it, with its text."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Rectangle

    def circle(radius: float, face: str, edge: str, width: float) -> Artist:
        return Circle((7, 5), radius, facecolor=face, edgecolor=edge, linewidth=width)

    def frame(**style: Any) -> Artist:
        return Rectangle((0, 0.7), MARK, 8.5, fill=False, **style)

    items: list[tuple[list[Artist], str]] = []
    for stride, number in zip(STRIDES, outcome.priors_got.sum(0).tolist(), strict=True):
        dot = circle(point * dot_size(stride, scene.image_size) / 2, SAMPLE, INK, 0.7)
        items.append(([dot], f"stride {stride}: {count(number, 'prior')}"))
    if outcome.summary.num_conflicts:
        marks = [circle(3, SAMPLE, INK, 0.7), circle(5, "none", INK, 3), circle(5, "none", "white", 1.5)]
        items.append((marks, "wanted by several gts"))
    if bool(outcome.is_stray.any()):
        tie = Line2D((5, MARK), (5, 9), color=INK, linewidth=1.2)
        items.append(([tie, circle(3, SAMPLE, INK, 0.7)], "outside its gt, tied to it"))
    if outcome.summary.num_empty:
        items.append(([frame(edgecolor=INK, linewidth=1.4, linestyle=(0, (3, 2)))], "gt without a prior"))
    if len(scene.ignore_boxes):
        crowd = frame(edgecolor=FAINT_INK, hatch="//////", linewidth=0.8)
        items.append(([crowd], f"crowd: {count(outcome.summary.num_ignored, 'prior')} ignored"))
    return items
