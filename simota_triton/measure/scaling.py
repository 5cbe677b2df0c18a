"""Curves of how time and memory grow with one size of a batch while the others stay the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..capture import Recorded
from ..config import SimOTAConfig
from ..priors import grid_priors
from .cases import BY_IMAGE, COMPILED, PLAIN, cases, clock, copy_bandwidth, least_bytes, measure
from .simulate import random_gts, simulate_predictions

MOST_PAIRS = 6e7
"""The most pairs (gt, prior) that a case may hold at once, which take a few GB. A point that would hold more
is left out.
"""

PLAIN_CASES = (PLAIN, BY_IMAGE, COMPILED)
"""The cases in plain PyTorch, of which the picture shows the fastest at each point."""

BEST = "plain PyTorch, the fastest"


@dataclass(frozen=True)
class Axis:
    """The size that grows.

    Attributes:
        label: Its name in the picture.
        values: The sizes that are measured.
        field: The argument of :func:`make_batch` that it is.
    """

    label: str
    values: tuple[int, ...]
    field: str


AXES = {
    "gts": Axis("gts an image, G", (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000), "gts"),
    "priors": Axis("priors, P", (1029, 2100, 4725, 8400, 21_504, 54_621, 86_016, 214_221), "priors"),
    "classes": Axis("classes, C", (1, 3, 10, 30, 80, 365, 1203), "classes"),
    "batch": Axis("images, B", (1, 2, 4, 8, 16, 32, 64, 128, 256), "batch"),
}
HELD = {"batch": 2, "priors": 8400, "classes": 80, "gts": 20}
"""The sizes that stay the same while another one grows."""


def make_batch(batch: int, priors: int, classes: int, gts: int) -> Recorded:
    """A seeded batch for RTMDet's rule, in the middle of training: square images with about ``priors``
    priors, each with ``gts`` gts.
    """
    side = max(1, round((priors / 21) ** 0.5))  # cells of the coarsest level: 21 = 16 + 4 + 1 priors each
    generator = torch.Generator().manual_seed(0)
    points = grid_priors(32 * side)
    median = max(8.0, 32 * side / 8 / max(1.0, gts / 30) ** 0.5)
    drawn = [random_gts(gts, 32 * side, classes, generator, median) for _ in range(batch)]
    boxes, labels = [boxes for boxes, _ in drawn], [labels for _, labels in drawn]
    pred = simulate_predictions(boxes, labels, points, classes, "mid", generator)
    inputs = {
        "pred_boxes": pred.pred_boxes, "cls_logits": pred.cls_logits, "priors": points,
        "gt_boxes": torch.stack(boxes), "gt_labels": torch.stack(labels),
    }  # fmt: skip
    return Recorded("scaling", SimOTAConfig.rtmdet(), inputs)


def curve(
    axis: str,
    device: torch.device,
    names: Sequence[str],
    seconds: float,
    values: Sequence[int] | None = None,
    on_point: Callable[[dict[str, Any]], None] = lambda row: None,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Measure a curve: one row for each point and case.

    A case is not measured at larger points once a call of it has taken longer than ``seconds``.

    Args:
        axis: The size that grows, one of ``AXES``.
        device: Where the cases compute.
        names: Backends.
        seconds: How long a case may take at a point.
        values: The points; None: the axis's own.
        on_point: Called with each row.
        compiled: Whether ``COMPILED`` is among the cases.
    """
    bandwidth, now = copy_bandwidth(device), clock(device)
    rows, too_slow = [], set()
    for value in values or AXES[axis].values:
        sizes = HELD | {AXES[axis].field: value}
        batch = make_batch(**sizes)
        images, priors, _ = batch.inputs["pred_boxes"].shape
        pairs = images * priors * sizes["gts"]
        named = {
            name: case
            for name, case in cases(batch, device, list(names), compiled).items()
            if name not in too_slow and _held(name, pairs, images) <= MOST_PAIRS
        }
        for name, case in named.items():
            if name == COMPILED:
                case()  # compiles
            start = now()
            case()
            if now() - start > seconds:
                too_slow.add(name)
        for row in measure(named, device, rounds=9, seconds=seconds / 2):
            rows.append(
                {
                    "value": priors if axis == "priors" else value,
                    "floor_ms": least_bytes(batch) / bandwidth,
                    **row,
                }
            )
            on_point(rows[-1])
    return rows


def _held(name: str, pairs: int, images: int) -> int:
    """How many of a batch's pairs a case holds at once."""
    if name in (BY_IMAGE, COMPILED):
        return pairs // images
    return pairs if name in ("reference", PLAIN, "triton") else 0


def with_best_peer(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with those of plain PyTorch replaced by the fastest of them at each point."""
    peers: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if (
            row["case"] in PLAIN_CASES
            and row["median_ms"] < peers.get(row["value"], {"median_ms": float("inf")})["median_ms"]
        ):
            peers[row["value"]] = row
    return [row for row in rows if row["case"] not in PLAIN_CASES] + [
        row | {"case": BEST} for row in peers.values()
    ]


NAMES = {
    "torch": 'ours, "torch"',
    "triton": 'ours, "triton"',
    "triton-stream": 'ours, "triton-stream"',
    "reference": "ours, dense",
}
COLOURS = {
    "torch": "#0b5fa5",
    "triton": "#2a9d4b",
    "triton-stream": "#7b3fa0",
    "reference": "#8a8a8a",
    BEST: "#d1662a",
}


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw a curve: time and peak memory on logarithmic axes, with a line for each case and one for the
    fastest case in plain PyTorch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axis, rows, machine = AXES[record["axis"]], with_best_peer(record["rows"]), record["machine"]
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    letters = {"batch": "B", "priors": "P", "classes": "C", "gts": "G"}
    held = ", ".join(f"{letter} = {HELD[size]:,}" for size, letter in letters.items() if size != axis.field)
    threads = "one thread, its CPU time" if machine["threads"] == 1 else f"{machine['threads']} threads"
    where = machine.get("gpu") or f"{machine['cpu']}, {threads}"
    title = f"RTMDet's assignment against {axis.label} ({held}; float32)"
    conditions = f"{where}; PyTorch {machine['torch']}; medians, bands are quartiles; {machine['date']}"
    figure.suptitle(f"{title}\n{conditions}", fontsize=10, x=0.01, ha="left")
    names = {"median_ms": "time of a call, ms", "peak_mb": "peak memory of a call, MB"}
    for plot, (field, name) in zip(figure.subplots(1, 2), names.items(), strict=True):
        for case in dict.fromkeys(row["case"] for row in rows):
            own = [row for row in rows if row["case"] == case]
            x, y = [row["value"] for row in own], [row[field] for row in own]
            plot.plot(x, y, "-o", ms=4, lw=2, color=COLOURS.get(case), label=NAMES.get(case, case))
            if field == "median_ms":
                low, high = zip(*(row["quartiles_ms"] for row in own), strict=True)
                plot.fill_between(x, low, high, color=COLOURS.get(case), alpha=0.15, lw=0)
        if field == "median_ms":
            floor = sorted({(row["value"], row["floor_ms"]) for row in rows})
            plot.plot(
                *zip(*floor, strict=True),
                ":",
                color="black",
                lw=1.2,
                label="floor: a copy of the bytes that must move",
            )
        plot.set(xscale="log", yscale="log", xlabel=axis.label, title=name)
        plot.title.set(fontsize=11)
        plot.grid(alpha=0.25, which="major")
        plot.spines[["top", "right"]].set_visible(False)
        for ticks in (plot.xaxis, plot.yaxis):
            ticks.set_major_formatter(lambda value, _: f"{value:,.10g}")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=9,
    )
    figure.savefig(path, dpi=140)
