"""The tables of times on a CPU: our torch backend beside the same rule in plain PyTorch.

    python -m bench.cpu            # the named workloads
    python -m bench.cpu --small    # calls with few images and few gts

It computes with 2 threads. Before anything is timed, every case must give the same assignment as the
reference. Then in each round all cases are timed once, in random order, and medians over the rounds are
printed as a Markdown table and written to ``bench/results/cpu/<phase>.json`` or ``small.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.cases import CPU_BATCH, PEERS, Case, ours, peer
from simota_triton.measure.machine import facts
from simota_triton.measure.peak import peak_bytes
from simota_triton.measure.workloads import WORKLOADS, Workload, make_batch

RESULTS = Path(__file__).parent / "results" / "cpu"
SLOW = ("loop",)


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


def measure(phase: str, rounds: int, workloads: list[Workload], peers: Iterable[str]) -> list[dict[str, Any]]:
    """Measure the workloads. A row for each case holds median and quartiles in ms, and peak memory in MB."""
    rows = []
    for workload in workloads:
        workload_name = workload.name
        batch = make_batch(workload, phase)
        cases: dict[str, Case] = {OURS: ours(batch, "torch")}
        cases |= {name: peer(name, batch, workload) for name in peers}
        expected = ours(batch, "reference")()
        times: dict[str, list[float]] = {name: [] for name in cases}
        differing = {name: int((case() != expected).sum()) for name, case in cases.items()}
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
        return f"{own:.2f} ms, {min(times.values()) / own:.2f}x"

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
    parser.add_argument("--workloads", nargs="+", default=list(CPU_BATCH), help="of: " + ", ".join(CPU_BATCH))
    parser.add_argument(
        "--small", action="store_true", help="calls of few images and gts in place of the named workloads"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        if args.small:
            rows = measure(args.phase, args.rounds, small_workloads(), SMALL_PEERS)
        else:
            named = [WORKLOADS[name].with_batch(CPU_BATCH[name]) for name in args.workloads]
            rows = measure(args.phase, args.rounds, named, PEERS)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{'small' if args.small else args.phase}.json"
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
