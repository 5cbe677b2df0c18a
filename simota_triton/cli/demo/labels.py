"""Places the labels of boxes: inside the frame, close to their box, and where they hide little.

Each label takes, of some places around its box, the one of least cost. The unit of cost is a distance of one
label height between the label and its box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

OVERLAP_COST = 40.0
"""Cost of a label that lies wholly on another one."""

POINT_COST = 0.7
"""Cost of covering one dot."""

BOX_COST = 4.0
"""Cost of covering a whole box, its own or another one, which happens to tiny gts."""


def place_labels(boxes: Array, sizes: Array, frame: Sequence[float], points: Array) -> Array:
    """Choose the places of labels, one after the other, those of the smallest boxes first.

    Args:
        boxes: [G, 4] xyxy, y down.
        sizes: [G, 2] width and height of each label.
        frame: x0, y0, x1, y1, which no label leaves.
        points: [N, 2] dots, which labels should not cover.

    Returns:
        [G, 2], the upper left corners.
    """
    placed = np.zeros((0, 4))
    corners = np.zeros((len(boxes), 2))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for gt in np.argsort(area, kind="stable"):
        size = sizes[gt]
        spots = np.clip(
            _spots(boxes[gt], size), frame[:2], np.maximum(np.asarray(frame[2:]) - size, frame[:2])
        )
        labels = np.concatenate([spots, spots + size], 1)
        shared = _overlap(labels[:, None], placed[None]).sum(1) / size.prod()
        hidden = (_overlap(labels[:, None], boxes[None]) / np.maximum(area, 1.0)).sum(1)
        covered = ((points[None] > labels[:, None, :2]) & (points[None] < labels[:, None, 2:])).all(2).sum(1)
        order = np.arange(len(spots)) / len(spots)  # of spots of equal cost the earlier one is taken
        cost = (
            OVERLAP_COST * shared
            + BOX_COST * hidden
            + POINT_COST * covered
            + gap(labels, boxes[gt]) / size[1]
            + order
        )
        best = int(cost.argmin())
        corners[gt] = spots[best]
        placed = np.concatenate([placed, labels[best : best + 1]])
    return corners


def text_width(text: str, size: float) -> float:
    """Width of a line of text in the default font, in points."""
    from matplotlib.textpath import TextPath

    outline = TextPath((0, 0), text.replace("$", "S"), size=size)  # a dollar sign would start a formula
    return float(outline.vertices[:, 0].max(initial=0.0))


def gap(labels: Array, box: Array) -> Array:
    """Distance between each of some rectangles [..., 4] and a box [4]: [...], 0 where they touch."""
    apart = np.maximum(np.maximum(box[:2] - labels[..., 2:], labels[..., :2] - box[2:]), 0)
    distance: Array = np.hypot(apart[..., 0], apart[..., 1])
    return distance


def _spots(box: Array, size: Array) -> Array:
    """The upper left corners to try, those that look best first: along the edges of the box, then further and
    further away from it.
    """
    (x0, y0, x1, y1), (width, height) = box, size
    along_x = np.linspace(x0, max(x1 - width, x0), 5)
    along_y = np.linspace(y0, max(y1 - height, y0), 5)
    spots = [(x, y) for y in (y0 - height, y0, y1, y1 - height) for x in (*along_x, x1 - width)]
    spots += [(x, y) for x in (x1, x0 - width, x0, x1 - width) for y in along_y]
    for step in (0.6, 1.2, 2.0, 3.0, 4.5, 6.5):
        away = step * height
        spots += [
            (x, y) for y in (y0 - height - away, y1 + away) for x in (x0 - width - away, *along_x, x1 + away)
        ]
        spots += [(x, y) for x in (x1 + away, x0 - width - away) for y in along_y]
    return np.array(spots)


def _overlap(first: Array, second: Array) -> Array:
    """Area that two rectangles share, [..., 4] and [..., 4] -> [...]."""
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    area: Array = np.maximum(high - low, 0).prod(-1)
    return area
