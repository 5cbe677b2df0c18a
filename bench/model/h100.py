"""A MODEL of the streaming backend's time on an H100, from counted events and counted instructions. Nothing
here was measured on a GPU, and it goes once the kernels have been timed on one.

    python -m bench.model.h100            # print the table, write bench/results/static/stream_model.json
    python -m bench.model.h100 coco dota  # some workloads

The number of events (tiles visited, insertions, conflicts ...) comes from ``bench.model.events``, and the
instructions of an event come from the machine code, as ``bench.static_report`` counts them. The time of a
kernel is the launch gap and the longest of

- issue: the instructions of all warps, over those that all multiprocessors issue in a time;
- memory: bytes from HBM, and bytes from L2, each over its bandwidth. Nothing is assumed to be found in L1 but
  the summaries of tiles (3 to 12 KB an image), which a multiprocessor reads once for each image;
- occupancy: the latencies of all programs, over the number of programs that run at the same time;
- the longest program: the latency of each load that waits for another, and the instructions between them.

The model is of RTMDet's rule with all classes and logits as maps. Of backend "triton" only the bytes and
instructions of its two passes are modelled. Its matching in PyTorch is left out, which flatters it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench.model.events import Events, Image, count_events
from bench.static_report import CASES, RESULTS, measure
from simota_triton import grid_priors
from simota_triton.config import SimOTAConfig
from simota_triton.inputs import pack
from simota_triton.kernels.stream.grid import find_grid
from simota_triton.measure.simulate import PHASES, random_gts, simulate_predictions
from simota_triton.measure.workloads import WORKLOADS, Workload, gt_counts
from simota_triton.priors import STRIDES
from simota_triton.tuning.kernel_config import Shape
from simota_triton.tuning.stream_config import StreamConfig, stream_heuristic

H100: dict[str, float] = {
    "processors": 132,  # NVIDIA H100 SXM data sheet
    "clock_ghz": 1.755,  # NVIDIA H100 SXM, boost clock under load
    "issued_per_clock": 4,  # warp schedulers a processor, NVIDIA Hopper tuning guide
    "issue_efficiency": 0.6,  # assumed
    "hbm_gb_per_us": 2.4e-3,  # assumed: 80 % of the 3.0 TB/s that large copies reach
    "l2_gb_per_us": 5.5e-3,  # assumed
    "resident_warps": 24,  # a processor's 65,536 registers at 80 a thread
    "load_cycles": 270,  # latency of a hit in L2; about 260 in published microbenchmarks of Hopper
    "dependent_cycles": 4.5,  # assumed: an instruction that waits for the one before
    "l1_cycles": 40,  # a hit in L1, about 35 in published microbenchmarks of Hopper
    "reduction_cycles": 30,  # assumed: REDUX and the move from a uniform register
    "side_by_side": 2.0,  # assumed: two priors a lane, and a list beside a tile, are independent chains
    "gap_us": 1.5,  # assumed: between dependent kernels of a CUDA graph, drain and launch
}
"""What the model assumes. Numbers from data sheets name their source."""

GOAL_US = {"coco": 50, "mosaic": 65, "o365": 135, "xview": 1000, "dota": 65}
"""Workload -> the time that backend "triton-stream" is designed to stay within."""

SAMPLED = 32
"""At most so many images of a batch are counted: the one with the most gts, and others of which each stands
for images with about as many gts.
"""


@dataclass(frozen=True)
class Kernel:
    """The modelled time of one kernel in us: each bound of it."""

    issue: float
    hbm: float
    l2: float
    occupancy: float
    longest: float

    @property
    def time(self) -> float:
        return max(self.issue, self.hbm, self.l2, self.occupancy, self.longest) + H100["gap_us"]

    @property
    def dominant(self) -> str:
        return max(
            ("issue", "hbm", "l2", "occupancy", "longest"), key=lambda name: float(getattr(self, name))
        )


def kernel(instructions: float, hbm: float, l2: float, latencies: float, longest: float) -> Kernel:
    """The model of a kernel, from the instructions of all warps, bytes from HBM and from L2, the latencies of
    all programs in cycles, and that of the longest program.
    """
    clock = H100["clock_ghz"] * 1e3  # cycles a us
    return Kernel(
        issue=instructions
        / (H100["processors"] * H100["issued_per_clock"] * H100["issue_efficiency"] * clock),
        hbm=hbm / (H100["hbm_gb_per_us"] * 1e9),
        l2=l2 / (H100["l2_gb_per_us"] * 1e9),
        occupancy=latencies / (H100["processors"] * H100["resident_warps"] * clock),
        longest=longest / clock,
    )


def images(workload: Workload, phase: str, kernels: StreamConfig) -> list[tuple[int, Events]]:
    """Images of a batch with their events, each with the number of images that it stands for."""
    generator = torch.Generator().manual_seed(0)
    counts = sorted(gt_counts(workload, generator), reverse=True)
    size = -(-(len(counts) - 1) // (SAMPLED - 1))
    groups = [counts[:1]] + [counts[i : i + size] for i in range(1, len(counts), size)]
    priors = grid_priors(workload.image_size)
    sides = [workload.image_size // stride for stride in STRIDES]
    config, found = SimOTAConfig.rtmdet(), []
    for group in groups:
        count = round(sum(group) / len(group))
        boxes, labels = random_gts(
            count, workload.image_size, workload.num_classes, generator, workload.median, workload.spread
        )
        pred = simulate_predictions([boxes], [labels], priors, workload.num_classes, phase, generator)
        maps = [torch.zeros(1, 1, side, side) for side in sides]
        problem = pack(config, pred.pred_boxes, maps, priors, [boxes], [torch.zeros_like(labels)])
        grid = find_grid(problem.cells or (), kernels.tile, tuple(side * side for side in sides))
        image = Image(pred.pred_boxes[0], pred.cls_logits[0], priors, boxes, labels, grid, config, kernels)
        found.append((len(group), count_events(image)))
    return found


def model(
    workload: Workload,
    counted: Sequence[tuple[int, Events]],
    static: dict[str, Any],
    kernels: StreamConfig,
    logit_size: int,
) -> dict[str, Kernel]:
    """Kernel -> its modelled time."""
    cost = {
        name: {
            part: value["all"]
            for part, value in static[f"{name}, rtmdet, maps, float32"].items()
            if isinstance(value, dict)
        }
        for name in ("prepare", "sums_and_ious", "select", "resolve")
    }
    batch, tiles = workload.batch, len(counted[0][1].near)
    slots = tiles * kernels.tile
    priors = len(grid_priors(workload.image_size))

    def total(value: Any) -> float:
        return sum(weight * float(value(events)) for weight, events in counted)

    def cycles(instructions: Any, loads: Any, reductions: Any = 0) -> Any:
        """Latency of code that runs alone, with loads and reductions that wait for each other."""
        steps = H100["dependent_cycles"] / H100["side_by_side"]
        return instructions * steps + loads * H100["load_cycles"] + reductions * H100["reduction_cycles"]

    # prepare: a program is a tile of an image; an image's gts are read for every tile
    c = cost["prepare"]
    issue = batch * tiles * c["once"] + total(
        lambda e: (
            e.chunks.sum() * c["per_block"]
            + e.near.sum() * c["per_near"]
            + e.gt_blocks * c["per_table_block"]
        )
    )

    def latency(e: Events) -> Any:
        # the next is sought while this is read
        near = cycles(c["per_near"], 0) + max(H100["l1_cycles"], H100["reduction_cycles"])
        return cycles(c["once"], 2, 10) + e.chunks * cycles(c["per_block"], 1, 2) + e.near * near

    gt_bytes = 16 + 8 + 1
    hbm = (
        batch * priors * (16 + 8 + 4 + 8 + 4)
        + total(lambda e: e.tiles) * kernels.tile * 16
        + batch * slots * 4
        + 60 * batch * tiles
        + workload.num_gts * (gt_bytes + 40)
    )
    l2 = total(lambda e: e.chunks.sum()) * kernels.gts * gt_bytes + batch * slots * 36
    longest = max(float(latency(e).max()) for _, e in counted)
    found = {"prepare": kernel(issue, hbm, l2, total(lambda e: latency(e).sum()), longest)}

    def searching(
        name: str, c: dict[str, float], splits: int, bounds: int
    ) -> tuple[float, float, float, float]:
        """Of the visits of ``sums_and_ious`` or ``select``: instructions, bytes from L2, latencies in cycles
        of all programs and of the longest.
        """
        passes = -(-tiles // (bounds * splits))
        closer = c["per_passed"] - c["per_visit"]

        def instructions(e: Events) -> Any:
            v = getattr(e, name)
            return (
                c["once"]
                + passes * c["per_bounds"]
                + v.tiles * c["per_visit"]
                + v.passed * closer
                + v.insertions * c["per_insertion"]
            )

        def chain(e: Events) -> Any:
            v = getattr(e, name)
            visit, once = cycles(c["per_visit"], 0), 3
            if name == "select":
                # logits are read as soon as priors are known, beside everything else; gt, lost, then slots,
                # boxes and claims
                visit, once = max(visit, H100["load_cycles"]), 5
            return (
                cycles(c["once"] + passes * c["per_bounds"], once + passes, passes)
                + v.tiles * visit + cycles(0, v.tiles, v.tiles)
                + cycles(v.passed * closer, 0, 2 * v.passed)
                + cycles(v.insertions * c["per_insertion"], 0, 2 * v.insertions)
            )  # fmt: skip

        def read(e: Events) -> Any:
            """Bytes: the boxes (and points) of each visit, and the summaries of all tiles."""
            v = getattr(e, name)
            a_slot, a_tile = (16, 36) if name == "top_iou" else (36, 24)
            return (
                v.tiles.sum() * a_slot * kernels.tile
                + min(v.tiles.numel() / splits, H100["processors"]) * tiles * a_tile
            )

        longest = max(float(chain(e).max()) for _, e in counted if getattr(e, name).tiles.numel())
        return total(lambda e: instructions(e).sum()), total(read), total(lambda e: chain(e).sum()), longest

    # sums_and_ious: a program is a gt, or a gt's split, or rows of priors; those without a candidate leave
    # after one load
    c = cost["sums_and_ious"]
    issue, l2, latencies, longest = searching("top_iou", c, kernels.splits, kernels.iou_bounds)
    programs, active = batch * slots / kernels.rows, total(lambda e: e.rows)
    padded = -(-workload.num_classes // 16) * 16
    alone = cycles(c["once_for_sums"], 3, 0) + padded / 16 * cycles(c["per_logit"] * kernels.rows / 2, 1, 0)
    summing = active * (c["once_for_sums"] + c["per_logit"] * padded * kernels.rows / 32)
    leaving = programs - active
    found["sums_and_ious"] = kernel(
        issue + summing + leaving * 60,
        total(lambda e: e.logit_bytes[logit_size]),
        l2 + batch * slots * 8,
        latencies + active * alone + leaving * cycles(60, 1),
        max(longest, alone),
    )
    # select: a program is a gt; logits of a tile are 10 sectors (its rows of 8, some of them across two),
    # outputs a sector each
    issue, l2, latencies, longest = searching("select", cost["select"], 1, kernels.bounds)
    scattered = total(lambda e: 32 * (10 * e.select.tiles.sum() + 6 * e.dynamic_k.sum()))
    found["select"] = kernel(issue, scattered, l2 + scattered, latencies, longest)
    # resolve: a program is a contested prior, or several in turn
    c = cost["resolve"]
    closer = c["per_block_passed"] - c["per_block"]
    contested = total(lambda e: len(e.contested))
    issue = total(
        lambda e: (
            len(e.contested) * (c["per_conflict"] + e.gt_blocks * c["per_block"]) + e.contested.sum() * closer
        )
    )

    def resolving(e: Events) -> Any:
        blocks = e.gt_blocks
        return (
            cycles(c["per_conflict"], 2)
            + cycles(blocks * c["per_block"], blocks, blocks)
            + cycles(e.contested * closer, e.contested)
        )

    turns = max(1.0, contested / kernels.resolvers)
    chains = total(lambda e: resolving(e).sum())
    longest = max((float(resolving(e).max()) for _, e in counted if len(e.contested)), default=0.0)
    longest = max(longest, turns * chains / max(contested, 1)) + cycles(c["once"], 1)
    found["resolve"] = kernel(
        issue + kernels.resolvers * c["once"], contested * 32 * 12,
        total(lambda e: len(e.contested) * len(e.top_iou.tiles) * 32.0), chains, longest,
    )  # fmt: skip
    return found


def fused_model(workload: Workload, static: dict[str, Any], size: int) -> float | None:
    """The modelled time in us of the two passes of backend "triton", which write cost and IoU of every pair
    of the padded batch. None where the matrices do not fit into memory.
    """
    if workload.padded is None:
        return None
    priors = len(grid_priors(workload.image_size))
    pairs = workload.batch * workload.padded * priors
    real = workload.num_gts * priors
    per_pair, per_logit = (
        static[f"{name}, rtmdet, maps, float32"][part]["all"]
        for name, part in (("cost_pass", "per_pair"), ("prior_pass", "per_logit"))
    )
    logits = workload.batch * priors * workload.num_classes
    first = kernel(per_logit * logits / 32, logits * size, 0, 0, 0)
    second = kernel(per_pair * real / 32 + 10 * (pairs - real) / 32, 8 * pairs, 0, 0, 0)
    return first.time + second.time


def report(names: Sequence[str], overrides: dict[str, int] | None = None) -> list[dict[str, Any]]:
    """Model workloads; returns the rows of the table.

    Args:
        names: Workloads. The kernels are compiled with the launch parameters that the heuristic chooses for
            each.
        overrides: Fields of StreamConfig that are changed.
    """
    rows = []
    for name in names:
        workload = WORKLOADS[name]
        chosen = stream_heuristic(
            (9, 0), Shape(workload.batch, len(grid_priors(workload.image_size)), workload.num_gts)
        )
        kernels = replace(chosen, **(overrides or {}))
        static = measure(90, CASES[0], kernels)
        for phase in PHASES:
            counted = images(workload, phase, kernels)
            for logit_size, dtype in ((4, "float32"), (2, "float16")):
                found = model(workload, counted, static, kernels, logit_size)
                row = {
                    "workload": name,
                    "phase": phase,
                    "dtype": dtype,
                    "config": vars(kernels),
                    "modelled_us": sum(k.time for k in found.values()),
                    "goal_us": GOAL_US[name],
                    "fused_passes_modelled_us": fused_model(workload, static, logit_size),
                    "kernels": {
                        k: {"us": v.time, "dominant": v.dominant, **vars(v)} for k, v in found.items()
                    },
                    "events_per_gt": events_per_gt(counted),
                }
                rows.append(row)
    return rows


def events_per_gt(counted: Sequence[tuple[int, Events]]) -> dict[str, float]:
    """Event -> how often it happens for a gt, on average."""
    gts = sum(weight * len(e.dynamic_k) for weight, e in counted)

    def mean(value: Callable[[Events], Any]) -> float:
        return round(sum(weight * float(value(e)) for weight, e in counted) / gts, 2)

    visits = {
        f"{name} {what}": mean(lambda e, name=name, what=what: getattr(getattr(e, name), what).sum())
        for name in ("top_iou", "select")
        for what in ("tiles", "passed", "insertions")
    }
    return visits | {
        "dynamic_k": mean(lambda e: e.dynamic_k.sum()),
        "contested": mean(lambda e: len(e.contested)),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table as text. Every number in it is modelled."""
    lines = [
        "MODELLED us on an H100, not measured: total (goal) | prepare, sums_and_ious, select, resolve, each "
        "with what it waits for"
    ]
    for row in rows:
        parts = " ".join(f"{k['us']:6.1f} {k['dominant']:9}" for k in row["kernels"].values())
        fused = (
            "no room" if row["fused_passes_modelled_us"] is None else f"{row['fused_passes_modelled_us']:.0f}"
        )
        over = "" if row["modelled_us"] <= row["goal_us"] else "  OVER"
        lines.append(
            f"{row['workload']:7}{row['phase']:10}{row['dtype']:8}"
            f"{row['modelled_us']:7.1f} ({row['goal_us']:4}) | {parts}| fused passes {fused}{over}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 1 where a workload is modelled above its goal."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.model.h100",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="FIELD=VALUE",
        help="fields of StreamConfig to try; nothing is written then",
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    overrides = {field: int(value) for field, value in (setting.split("=") for setting in options.set)}
    rows = report(options.workloads or list(WORKLOADS), overrides)
    print(table(rows))
    if not options.workloads and not overrides:
        out = {"what": "a model, not a measurement", "constants": H100, "rows": rows}
        (RESULTS / "stream_model.json").write_text(json.dumps(out, indent=1, default=float) + "\n")
    return int(any(row["modelled_us"] > row["goal_us"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
