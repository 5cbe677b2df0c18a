"""The picture of an assignment: the photo, the gts, and the priors that each gt got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...priors import STRIDES
from .labels import gap, place_labels, text_width
from .legend import FAINT_INK, INK, ROW, dot_size, legend_rows, place_rows
from .outcome import Outcome, totals
from .scene import Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#EFA31A", "#60C0F4", "#F4E95A", "#D87FB0", "#009E73", "#D9550F", "#4A78F0", "#FFFFFF")
"""The colours of gts, which also people with a colour vision deficiency can tell apart: those of Okabe and
Ito without black, the dark ones lightened to be seen on a dimmed photo.
"""

BRIGHTNESS = 88.0
"""Mean brightness that photos are dimmed to, of 255."""

LONG_SIDE = 8.4  # inches, longer side of the image
MARGIN = 0.28  # inches, around the image
NARROWEST = 6.0  # inches, width that the texts need
EDGE = 1.4  # pixels, dark frame around the image
DPI = 150
MOST_LABELS = 120  # more of them would hide the gts
NIGHT = "#232a32"  # the background

Array = NDArray[np.float64]


def draw(scene: Scene, outcome: Outcome) -> Figure:
    """Draw one scene as one preset assigned it, without touching pyplot's global state.

    Artists can be found by their gid: ``dots-STRIDE``, ``rings``, ``ties``, ``gt-INDEX``, ``label-INDEX``,
    ``crowd-INDEX``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = _view(scene, outcome)
    inch = LONG_SIDE / max(view[2] - view[0], view[3] - view[1])  # of a pixel
    width, height = inch * (view[2] - view[0]), inch * (view[3] - view[1])
    figure = Figure(dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    page = max(width, NARROWEST) + 2 * MARGIN
    legend = legend_rows(scene, outcome, 72 * inch, 72 * (page - 2 * MARGIN))
    top, bottom = 0.98, ROW * len(legend) + 0.24
    figure.set_size_inches(page, top + height + bottom)
    whole = top + height + bottom
    axes = figure.add_axes(((page - width) / 2 / page, bottom / whole, width / page, height / whole))
    axes.set(xlim=(view[0], view[2]), ylim=(view[3], view[1]), facecolor=NIGHT, xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)

    colors = gt_colors(scene.gt_boxes.double().numpy())
    _draw_photo(axes, scene)
    _draw_boxes(axes, scene, outcome, colors)
    _draw_dots(axes, scene, outcome, colors)
    _draw_labels(axes, scene, outcome, colors, 72 * inch)
    _draw_title(figure, scene, outcome)
    place_rows(figure, legend, (page - width) / 2)
    return figure


def gt_colors(boxes: Array) -> list[str]:
    """A colour for each gt, so that gts of the same colour are far apart: from the largest gt to the
    smallest, each takes the colour whose nearest gt is furthest away.
    """
    nearest = np.full((len(PALETTE), len(boxes)), np.inf)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    chosen = [""] * len(boxes)
    for gt in np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable"):
        color = int(nearest[:, gt].argmax())
        chosen[gt] = PALETTE[color]
        # the distance of centres decides among boxes that touch
        distance = gap(boxes, boxes[gt]) + 0.01 * np.hypot(*(center - center[gt]).T)
        nearest[color] = np.minimum(nearest[color], distance)
    return chosen


def _view(scene: Scene, outcome: Outcome) -> tuple[float, float, float, float]:
    """The region that is shown, x0, y0, x1, y1: the photo, and outside of it positive priors, and gts up to
    an eighth of the square beyond its edges.
    """
    size = scene.image_size
    content = torch.tensor([[0.0, 0.0, *scene.content]], dtype=torch.float32, device="cpu")
    priors = outcome.priors[outcome.image.fg_mask]
    reach = priors[:, 2:] / 4
    gts = scene.gt_boxes.clamp(-size / 8, size * 9 / 8)
    dots = torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], 1)
    boxes = torch.cat([content, gts, dots])
    x0, y0 = (boxes[:, :2].amin(0) - EDGE).tolist()
    x1, y1 = (boxes[:, 2:].amax(0) + EDGE).tolist()
    return x0, y0, x1, y1


def _draw_photo(axes: Axes, scene: Scene) -> None:
    from matplotlib.patches import Rectangle

    width, height = scene.content
    if scene.photo is None:
        axes.add_patch(Rectangle((0, 0), width, height, facecolor="#3a4550", edgecolor="none", zorder=0))
        return
    photo = np.asarray(scene.photo, dtype=np.float32)
    strength = np.clip(BRIGHTNESS / max(float(photo.mean()), 1.0), 0.55, 0.95)
    dimmed = (strength * (0.65 * photo + 0.35 * photo.mean(2, keepdims=True))).astype(np.uint8)
    axes.imshow(dimmed, extent=(0, width, height, 0), aspect="auto", interpolation="bilinear", zorder=0)


def _draw_boxes(axes: Axes, scene: Scene, outcome: Outcome, colors: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    for index, (x0, y0, x1, y1) in enumerate(scene.ignore_boxes.tolist()):
        region = Rectangle(
            (x0, y0),
            x1 - x0,
            y1 - y0,
            fill=False,
            hatch="////",
            edgecolor="#ffffff80",
            linewidth=1.0,
            zorder=1,
        )
        region.set_gid(f"crowd-{index}")
        axes.add_patch(region)
    for gt, (x0, y0, x1, y1) in enumerate(scene.gt_boxes.tolist()):
        style = (0, (2.6, 1.6)) if outcome.empty[gt] else "solid"
        outline = Rectangle(
            (x0, y0),
            x1 - x0,
            y1 - y0,
            fill=False,
            edgecolor=colors[gt],
            linewidth=1.7,
            linestyle=style,
            zorder=2,
        )
        outline.set_path_effects([Stroke(linewidth=3.0, foreground="#000000", alpha=0.45), Normal()])
        outline.set_gid(f"gt-{gt}")
        axes.add_patch(outline)


def _draw_dots(axes: Axes, scene: Scene, outcome: Outcome, colors: Sequence[str]) -> None:
    from matplotlib.collections import LineCollection

    fg, claims = outcome.image.fg_mask, outcome.image.claims
    stray = outcome.is_stray
    points, boxes = outcome.priors[stray, :2], outcome.image.gt_boxes[stray]
    segments = torch.stack([points, points.clamp(boxes[:, :2], boxes[:, 2:])], 1).numpy()
    ties = [colors[gt] for gt in outcome.image.gt_index[stray].tolist()]
    for line_width, line_color, gid in ((2.6, INK, "tie-shadows"), (1.2, ties, "ties")):
        lines = LineCollection(list(segments), colors=line_color, linewidths=line_width, zorder=2.5)
        lines.set_gid(gid)
        axes.add_collection(lines, autolim=False)
    for stride in reversed(STRIDES):  # where priors of several levels share a point, the finest is on top
        here = fg & (outcome.priors[:, 2] == stride)
        faces = [colors[gt] for gt in outcome.image.gt_index[here].tolist()]
        _circles(
            axes,
            outcome.priors[here, :2].numpy(),
            dot_size(stride, scene.image_size),
            f"dots-{stride}",
            faces,
            INK,
            0.7,
            3,
        )
    contested = claims > 1
    ring = 0.7 * dot_size(STRIDES[0], scene.image_size)
    sizes = np.array(
        [dot_size(int(stride), scene.image_size) + ring for stride in outcome.priors[contested, 2].tolist()]
    )
    for width, color, gid in ((3.0, INK, "ring-shadows"), (1.5, "white", "rings")):
        _circles(axes, outcome.priors[contested, :2].numpy(), sizes, gid, "none", color, width, 4)


def _circles(
    axes: Axes, points: Array, size: Any, gid: str, face: Any, edge: str, width: float, zorder: int
) -> None:
    from matplotlib.collections import EllipseCollection

    sizes = np.broadcast_to(size, len(points))
    circles = EllipseCollection(
        sizes, sizes, np.zeros(len(points)), units="xy", offsets=points, offset_transform=axes.transData,
        facecolors=face, edgecolors=edge, linewidths=width, zorder=zorder,
    )  # fmt: skip
    circles.set_gid(gid)
    axes.add_collection(circles, autolim=False)


def _draw_labels(axes: Axes, scene: Scene, outcome: Outcome, colors: Sequence[str], point: float) -> None:
    """Draw the labels of gts and crowd regions, with number and class. A pixel has ``point`` points."""
    from matplotlib.patches import BoxStyle

    number = len(scene.gt_boxes) + len(scene.ignore_boxes)
    if not 0 < number <= MOST_LABELS:
        return
    font = 8.0 if number <= 16 else 6.8 if number <= 32 else 5.8
    pad = 0.28 * font
    texts = [
        f"{gt} {_short(scene.classes[label])}" + (", no prior" if outcome.empty[gt] else "")
        for gt, label in enumerate(scene.gt_labels.tolist())
    ] + [f"{_short(scene.classes[label])} crowd" for label in scene.ignore_labels.tolist()]
    sizes = np.array([[text_width(text, font) + 2 * pad + 1, font + 2 * pad] for text in texts]) / point
    boxes = np.concatenate([scene.gt_boxes.double().numpy(), scene.ignore_boxes.double().numpy()])
    (x0, x1), (y1, y0) = axes.get_xlim(), axes.get_ylim()
    inset = 2 / point
    frame = (x0 + inset, y0 + inset, x1 - inset, y1 - inset)
    shown = np.clip(boxes, (frame[0], frame[1]) * 2, (frame[2], frame[3]) * 2)
    points = outcome.priors[outcome.image.fg_mask, :2].double().numpy()
    for index, (corner, text) in enumerate(
        zip(place_labels(shown, sizes, frame, points), texts, strict=True)
    ):
        is_gt = index < len(colors)
        color = colors[index] if is_gt else "#c9d1d9"
        empty = is_gt and bool(outcome.empty[index])
        middle = corner + sizes[index] / 2
        if gap(np.concatenate([corner, corner + sizes[index]]), shown[index]) > inset:
            end = np.clip(middle, shown[index, :2], shown[index, 2:])
            axes.plot(*zip(middle, end, strict=True), color=color, linewidth=0.9, zorder=4.5)
        pill = {
            "facecolor": NIGHT if empty else color,
            "edgecolor": color if empty else "none",
            "linewidth": 1.0,
        }
        label = axes.text(
            float(middle[0]),
            float(middle[1]),
            text,
            fontsize=font,
            color="white" if empty else INK,
            ha="center",
            va="center_baseline",
            zorder=5,
            parse_math=False,
            bbox={"boxstyle": BoxStyle("Round", pad=0.28, rounding_size=0.25), **pill},
        )
        label.set_gid(f"label-{index}")


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 3] + "..."


def _draw_title(figure: Figure, scene: Scene, outcome: Outcome) -> None:
    height = figure.get_size_inches()[1]
    left = figure.axes[0].get_position().x0
    lines: tuple[tuple[float, str, dict[str, Any]], ...] = (
        (
            0.42,
            outcome.preset,
            {"fontsize": 17, "fontweight": "bold", "fontfamily": "sans-serif", "color": INK},
        ),
        (
            0.64,
            f"{scene.name}, simulated predictions ({outcome.phase})",
            {"fontsize": 9.5, "color": FAINT_INK},
        ),
        (0.84, totals([outcome.summary]) + _asked(outcome), {"fontsize": 9.5, "color": INK}),
    )
    for down, text, style in lines:
        figure.text(left, 1 - down / height, text, va="baseline", parse_math=False, **style)


def _asked(outcome: Outcome) -> str:
    """What the task-aligned rule decided beside the owners, as the end of a title."""
    if not outcome.is_aligned or not outcome.summary.num_pos:
        return ""
    asked = int(outcome.image.dynamic_k[0])
    mean = float(outcome.image.scores.sum()) / outcome.summary.num_pos
    return f"; top {asked} of each gt, mean score {mean:.2f}"
