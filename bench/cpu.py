"""The tables of times on a CPU: our torch backend beside the same rule in plain PyTorch.

    python -m bench.cpu            # the named workloads
    python -m bench.cpu --small    # calls with few images and few gts
    python -m bench.cpu --rule task_aligned [--small]    # beside the assigner of Ultralytics' own package

It computes with 2 threads. Before anything is timed, every case must give the same assignment as the
reference. Then in each round all cases are timed once, in random order, and medians over the rounds are
printed as a Markdown table and written to ``bench/results/cpu/<phase>.json`` or ``small.json``, of the
task-aligned rule to ``task_aligned_<phase>.json`` or ``task_aligned_small.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import aligned
from bench.cases import CPU_BATCH, PEERS, ours, peer
from simota_triton.config import RULES
from simota_triton.measure.machine import facts
from simota_triton.measure.peak import peak_bytes
from simota_triton.measure.workloads import WORKLOADS, Workload, make_batch

RESULTS = Path(__file__).parent / "results" / "cpu"
SLOW = ("loop",)

Calls = Callable[[Workload, str], tuple[dict[str, Callable[[], Any]], Tensor]]
"""Makes the cases of a workload and a phase, and the gt_index [B, P] that each must give."""

OURS = "simota_triton (torch)"
SMALL_BATCHES, SMALL_GTS = (1, 2, 8), (1, 4, 8, 15, 30, 62)
SMALL_PEERS = ("plain, by image", "plain, batched")


def small_workloads() -> list[Workload]:
    """Workloads like COCO's with a few images, each with the same small number of gts."""
    return [
        replace(
            WORKLOADS["coco"], name=f"{batch} x {gts}", batch=batch, num_gts=batch * gts, padded=gts, most=gts
        )
        for batch in SMALL_BATCHES
        for gts in SMALL_GTS
    ]


def simota(peers: Iterable[str]) -> Calls:
    """The cases of RTMDet's rule with some of the ``PEERS``."""

    def calls(workload: Workload, phase: str) -> tuple[dict[str, Callable[[], Any]], Tensor]:
        batch = make_batch(workload, phase)
        cases = {OURS: ours(batch, "torch")} | {name: peer(name, batch, workload) for name in peers}
        return cases, ours(batch, "reference")()

    return calls


def measure(phase: str, rounds: int, workloads: list[Workload], calls: Calls) -> list[dict[str, Any]]:
    """Measure the workloads. A row for each case holds median and quartiles in ms, and peak memory in MB."""
    rows = []
    for workload in workloads:
        workload_name = workload.name
        cases, expected = calls(workload, phase)
        times: dict[str, list[float]] = {name: [] for name in cases}
        differing = {name: int((assigned(case()) != expected).sum()) for name, case in cases.items()}
        if any(differing.values()):
            raise SystemExit(f"{workload_name}: assignments differ from the reference: {differing}")
        for i in range(rounds):
            # in another order each time, because a case finds in the caches what the one before it left there
            for name in random.Random(i).sample(list(cases), len(cases)):
                if name in SLOW and i >= 2:
                    continue
                start = time.perf_counter()
                cases[name]()
                times[name].append((time.perf_counter() - start) * 1e3)
        for name, case in cases.items():
            low, median, high = statistics.quantiles(times[name], n=4)
            row = {
                "workload": workload_name,
                "batch": workload.batch,
                "gts": workload.num_gts,
                "case": name,
                "median_ms": median,
            }
            rows.append(
                row
                | {"quartiles_ms": [low, high], "rounds": len(times[name]), "peak_mb": peak_bytes(case) / 1e6}
            )
            print(
                f"{workload_name:8} {name:24} {median:9.2f} ms  [{low:.2f}, {high:.2f}]  "
                f"{rows[-1]['peak_mb']:8.1f} MB",
                flush=True,
            )
    return rows


def assigned(found: Any) -> Tensor:
    """The gt of each prior [B, P] of what a case returns."""
    return found if isinstance(found, Tensor) else aligned.gt_index(found)


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: a line for each case, with its time and peak memory for each workload."""
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    batches = {row["workload"]: row["batch"] for row in rows}
    lines = [
        "| | " + " | ".join(f"{w} (B = {batches[w]})" for w in workloads) + " |",
        "|---|" + "---:|" * len(workloads),
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        cells = [next(r for r in rows if r["case"] == case and r["workload"] == w) for w in workloads]
        lines.append(
            f"| {case} | "
            + " | ".join(f"{c['median_ms']:.1f} ms, {c['peak_mb']:.0f} MB" for c in cells)
            + " |"
        )
    return "\n".join(lines)


def small_table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table with a line for each number of images: the time of ours, and how many times as long
    the fastest other case takes.
    """

    def cell(batch: int, gts: int) -> str:
        times = {r["case"]: r["median_ms"] for r in rows if r["workload"] == f"{batch} x {gts}"}
        own = times.pop(OURS)
        times.pop(aligned.DENSE, None)
        return f"{own:.2f} ms" + (f", {min(times.values()) / own:.2f}x" if times else "")

    lines = [
        "| | " + " | ".join(f"G = {gts}" for gts in SMALL_GTS) + " |",
        "|---|" + "---:|" * len(SMALL_GTS),
    ]
    lines += [
        f"| B = {batch} | " + " | ".join(cell(batch, gts) for gts in SMALL_GTS) + " |"
        for batch in SMALL_BATCHES
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phase", default="mid", help="untrained, mid (default) or trained")
    parser.add_argument("--rounds", type=int, default=21, help="interleaved rounds of each case")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rule", choices=tuple(RULES), default="simota", help="default: simota")
    parser.add_argument(
        "--workloads", nargs="+", help=f"of: {', '.join(CPU_BATCH)}; xview of the task-aligned rule"
    )
    parser.add_argument(
        "--small", action="store_true", help="calls of few images and gts in place of the named workloads"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    known = {name: WORKLOADS[name].with_batch(batch) for name, batch in CPU_BATCH.items()}
    calls, prefix = simota(SMALL_PEERS if args.small else PEERS), ""
    if args.rule == "task_aligned":
        known["xview"] = aligned.XVIEW
        calls, prefix = aligned.calls, "task_aligned_"
    workloads = small_workloads() if args.small else [known[name] for name in args.workloads or known]
    with torch.no_grad():
        rows = measure(args.phase, args.rounds, workloads, calls)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{prefix}{'small' if args.small else args.phase}.json"
    path.write_text(
        json.dumps(
            {
                "machine": facts(torch.device("cpu")) | {"load": round(os.getloadavg()[0], 1)},
                "phase": args.phase,
                "rows": rows,
            },
            indent=1,
        )
        + "\n"
    )
    print(f"\n{(small_table if args.small else table)(rows)}\n\nwritten: {path}")


if __name__ == "__main__":
    main()
