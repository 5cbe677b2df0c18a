"""Times of the original assigners in their own packages beside ours, on a CPU.

    sh tests/peers/install.sh ~/peers                           # installs the packages
    PYTHONPATH=. ~/peers/bin/python -m tests.peers.originals    # measures

Each package's assigner is called as its own trainer calls it. In each round the original and ours are timed,
in random order, with 2 threads. Medians are printed as a Markdown table and written to
``bench/results/cpu/originals.json``, also where ours is slower. Priors on which the two differ are counted;
they are ties, or deviations that the documentation names. The loops of the YOLOX family convert boxes to
centre and size before they assign: that is part of their time, as it is in their trainers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simota_triton import SimOTAAssigner
from simota_triton.measure.machine import facts
from simota_triton.measure.workloads import WORKLOADS, Workload, make_batch

from .loading import Missing
from .peer import Peer, Selections
from .registry import PEERS
from .scenes import Scene

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "cpu" / "originals.json"

IMAGES = {
    "one gt": ("coco", 1, 1),
    "one image": ("coco", 1, 8),
    "coco": ("coco", 8, None),
    "mosaic": ("mosaic", 8, None),
    "o365": ("o365", 2, None),
}
"""Name -> workload, number of images, and number of gts in the whole batch; None: the workload's own number.
"""

CASES = ("theirs", "ours")

SECONDS = 60.0
"""How long all timings of one case may take; a slow case is timed in fewer rounds, at least in one."""


def workload_of(name: str) -> Workload:
    """The workload of a name in ``IMAGES``."""
    base, batch, gts = IMAGES[name]
    workload = WORKLOADS[base].with_batch(batch)
    return workload if gts is None else Workload(**{**vars(workload), "num_gts": gts})


def scene_of(workload: Workload, peer: Peer, phase: str) -> Scene:
    """A batch of the workload, in the form that the originals' wrappers take."""
    batch = make_batch(workload, phase, offset=peer.offset)
    inside = torch.ones(batch.pred_boxes.shape[:2], dtype=torch.bool)
    size = (workload.image_size, workload.image_size)
    logits = batch.cls_logits, batch.obj_logits
    scene = Scene(
        0,
        "workload",
        phase,
        size,
        batch.priors,
        batch.pred_boxes,
        *logits,
        batch.gt_boxes,
        batch.gt_labels,
        [],
        inside,
    )
    return scene.on_grid() if peer.on_grid else scene


def both(peer: Peer, scene: Scene) -> dict[str, Callable[[], Tensor]]:
    """Whole calls of the original and of ours, which return gt_index [B, P]."""
    assign, assigner = peer.load(), SimOTAAssigner(peer.preset, backend="torch")
    obj_logits = scene.obj_logits if assigner.config.score == "joint" else None
    cls_logits = scene.cls_logits.sigmoid() if assigner.config.score == "prob" else scene.cls_logits
    ours = (scene.pred_boxes, cls_logits, scene.priors, scene.gt_boxes, scene.gt_labels)
    return {
        "theirs": lambda: assign(scene, scene.inside).gt_index,
        "ours": lambda: assigner(*ours, obj_logits=obj_logits).gt_index,
    }


def measure(peer: Peer, name: str, phase: str, rounds: int) -> dict[str, Any]:
    """Medians and quartiles of both in ms, and the number of priors on which they differ; of ours alone where
    the original finds no memory.
    """
    workload = workload_of(name)
    cases = both(peer, scene_of(workload, peer, phase))
    ours, differing = cases["ours"](), None
    try:
        theirs = cases["theirs"]()
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower():
            raise
        del cases["theirs"]
    else:
        differing = None if "mmyolo" in peer.package else int((theirs != ours).sum())
    times: dict[str, list[float]] = {case: [] for case in cases}
    for i in range(rounds):
        # in another order each time, because a case finds in the caches what the one before it left there
        for case in random.Random(i).sample(list(cases), len(cases)):
            if times[case] and sum(times[case]) + times[case][-1] > 1e3 * SECONDS:
                continue
            start = time.perf_counter()
            cases[case]()
            times[case].append((time.perf_counter() - start) * 1e3)
    row: dict[str, Any] = {
        "package": peer.package,
        "original": peer.name,
        "workload": name,
        "batch": workload.batch,
        "gts": workload.num_gts,
    }
    row["differing_priors"] = differing
    for case, own in times.items():
        low, _, high = statistics.quantiles(own, n=4, method="inclusive") if len(own) > 1 else own * 3
        row |= {
            f"{case}_ms": statistics.median(own),
            f"{case}_quartiles_ms": [low, high],
            f"{case}_rounds": len(own),
        }
    return row


def limit_memory() -> None:
    """Let an allocation fail that the machine has no memory for, where Linux would kill the process."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = (1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    resource.setrlimit(resource.RLIMIT_AS, (available, available))


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table with a line for each original: its time, ours, and the ratio of the two."""
    names = list(dict.fromkeys(row["workload"] for row in rows))
    heads = [
        f"{name} (B = {workload_of(name).batch}, {workload_of(name).num_gts} gts in all)" for name in names
    ]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(names)]
    for package, original in dict.fromkeys((row["package"], row["original"]) for row in rows):
        cells = []
        for name in names:
            row = next(
                r for r in rows if (r["package"], r["original"], r["workload"]) == (package, original, name)
            )
            theirs, ours = row.get("theirs_ms"), row["ours_ms"]
            if theirs is None:
                cells.append(f"out of memory, ours {ours:.1f} ms")
                continue
            cells.append(f"{theirs:.1f} ms, ours {ours:.1f} ms: {theirs / ours:.1f}x")
        lines.append(f"| {package}, {original} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phase", default="mid", help="untrained, mid (default) or trained")
    parser.add_argument("--rounds", type=int, default=11, help="rounds of each case; a slow one gets fewer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--workloads",
        nargs="+",
        default=list(IMAGES),
        choices=list(IMAGES),
        metavar="NAME",
        help=f"of {', '.join(IMAGES)}",
    )
    parser.add_argument("--only", default="", help="originals whose package and name contain this")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the originals use calls that torch has since deprecated
    torch.set_num_threads(args.threads)
    limit_memory()
    Selections.deaf = True
    rows = []
    for peer in PEERS:
        if (
            args.only not in f"{peer.package} {peer.name}"
            or len(peer.strides) != 3
            or "mask" in peer.name
            or "Horizontal" in peer.name
        ):
            continue
        for name in args.workloads:
            try:
                with torch.no_grad():
                    row = measure(peer, name, args.phase, args.rounds)
            except Missing as reason:
                print(f"{peer.package}, {peer.name}: skipped, {reason}")
                break
            rows.append(row)
            times = "  ".join(f"{case} {row.get(f'{case}_ms', math.nan):9.2f} ms" for case in CASES)
            print(
                f"{peer.package:24} {peer.name:42} {name:10} {times}  "
                f"differing priors: {row['differing_priors']}",
                flush=True,
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    machine = facts(torch.device("cpu")) | {"load": round(os.getloadavg()[0], 1)}
    args.out.write_text(json.dumps({"machine": machine, "phase": args.phase, "rows": rows}, indent=1) + "\n")
    print(f"\n{table(rows)}\n\nwritten: {args.out}")


if __name__ == "__main__":
    main()
