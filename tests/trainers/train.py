"""Trains detectors with the original assigner and with ours.

    python -m tests.trainers.train --detector libreyolo_rtmdet --mode shadow swap

Training starts from random weights with a fixed seed, on a folder in COCO's format (SIMOTA_TRITON_COCO).
There are three modes:

- ``original``: the package trains as it is, and its assigner is timed.
- ``swap``: the package trains with our patch. RTMDet's losses must equal the original's in all printed
  digits. YOLOX learns IoUs that its own code computes from centre and size, so there the losses differ by
  rounding after some steps.
- ``shadow``: the package trains as it is, and ours assigns the same predictions beside it. Every prior on
  which the two differ is judged: it must be a near-tie. With ``--capture`` predictions and gts are written
  before training, after 50 steps and at the end.

Each run writes ``<detector>_<mode>.json``: losses, and the time of each step and of its assignment. On a CPU
these are CPU times of the process; on a GPU they include waiting for it. In mode ``shadow`` the times of both
assigners are of the same steps, and a step takes longer than training alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from simota_triton import AssignResult, SimOTAAssigner, terms
from simota_triton.measure.machine import facts
from tests.peers.compare import Tally, candidates, compare_matchings
from tests.support.captured import save

from .detectors import DETECTORS, Detector, make, read_photos
from .trainer import Ear, Heard, clock, hearing

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "train"
PHASES = {0: "untrained", 50: "early"}
"""Step before which mode ``shadow`` captures a batch -> its name. Another, ``"late"``, follows at the end."""


class Stopwatch:
    """Takes the place of an ``Ear``, and only takes the time of what it calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.images = count()

    def call(self, image: int, function: Any, *args: Any, **kwargs: Any) -> Any:
        start = clock()
        result = function(*args, **kwargs)
        self.seconds += clock() - start
        return result

    def write(self, *args: Any) -> None:
        """Nothing."""


@contextmanager
def watching(watch: Stopwatch) -> Iterator[None]:
    """In the block of this context manager the stopwatch takes the time of our assigner's calls."""
    call = SimOTAAssigner.__call__

    def timed(self: SimOTAAssigner, *args: Any, **kwargs: Any) -> AssignResult:
        result: AssignResult = watch.call(0, call, self, *args, **kwargs)
        return result

    with patch.object(SimOTAAssigner, "__call__", timed):
        yield


def train(name: str, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train a detector in a mode; returns the report."""
    # both YOLOX are the same network, which would begin alike from the same seed
    seed = options.seed + list(DETECTORS).index(name)
    torch.manual_seed(seed)
    detector = make(name, options.device)
    trainer, network, made = detector
    photos = read_photos(options.coco, options.size).batches(options.batch, seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.lr)
    network.train()
    tally, errors = Tally(), [0.0]
    losses, step_ms, assign_ms, ours_ms, positives = [], [], [], [], []
    with trainer.patch() if mode == "swap" else nullcontext():
        for step in range(options.steps + 1):
            images, *gts = next(photos)
            start = clock()
            predictions = detector.predict(images.to(options.device))
            watch = Stopwatch()
            if mode == "shadow":
                heard, ours = beside(detector, predictions, gts)
                ours_ms.append(ours * 1e3)
                if options.capture and (step in PHASES or step == options.steps):
                    save(
                        heard.problem,
                        options.capture / f"{name}_{PHASES.get(step, 'late')}.npz",
                        images=options.captured,
                    )
                watch = Ear(heard)
            if mode == "swap":
                with watching(watch):
                    result = trainer.loss(made, predictions, *gts)
            else:
                trainer.listen(made, watch)
                result = trainer.loss(made, predictions, *gts)
                trainer.deafen(made)
            if mode == "shadow":
                positives.append(int((heard.matching.gt_index >= 0).sum()))
                errors.append(compare(detector, predictions, gts, heard, watch, f"step {step}", tally))
            losses.append(f"{float(result['total'].detach()):.5f}")
            if step == options.steps:
                break
            optimizer.zero_grad()
            result["total"].backward()
            optimizer.step()
            step_ms.append((clock() - start) * 1e3)
            assign_ms.append(watch.seconds * 1e3)
            if step % options.every == 0:
                print(
                    f"{name} {mode} step {step:4} loss {losses[-1]} assignment {assign_ms[-1]:8.1f} ms",
                    flush=True,
                )
    report: dict[str, Any] = {
        "detector": name,
        "package": trainer.package,
        "mode": mode,
        "steps": options.steps,
        "size": options.size,
        "batch": options.batch,
        "seed": seed,
        "lr": options.lr,
        "machine": describe(options.device),
        "assigner": "simota_triton" if mode == "swap" else trainer.package,
        "median_step_ms": statistics.median(step_ms),
        "median_assignment_ms": statistics.median(assign_ms),
        "loss": losses,
        "assignment_ms": [round(value, 2) for value in assign_ms],
    }
    if mode == "shadow":
        report |= {
            "median_assignment_ms_ours": statistics.median(ours_ms),
            "assignments": len(losses) * options.batch,
            "positives": sum(positives),
            "differing": tally.differing,
            "ties": tally.excused,
            "unexplained": tally.unexplained,
            "largest_iou_difference": max(errors),
            "assignment_ms_ours": [round(value, 2) for value in ours_ms],
        }
    return report


def beside(detector: Detector, predictions: dict[str, Any], gts: list[list[Tensor]]) -> tuple[Heard, float]:
    """Our assignment of the predictions, as the patched loss calls for it, and how many seconds it took."""
    watch = Stopwatch()
    with torch.no_grad(), watching(watch), detector.trainer.patch(), hearing() as calls:
        detector.trainer.loss(detector.made, predictions, *gts)
    (heard,) = calls
    return heard, watch.seconds


def compare(
    detector: Detector,
    predictions: dict[str, Any],
    gts: list[list[Tensor]],
    heard: Heard,
    ear: Ear,
    where: str,
    tally: Tally,
) -> float:
    """Judge the priors on which the two differ; returns the largest difference of IoUs on the others."""
    owners, ours = ear.owners, heard.matching
    same = (owners.gt_index == ours.gt_index) & (ours.gt_index >= 0)
    error = float((owners.iou - ours.matched_iou)[same].abs().max()) if same.any() else 0.0
    if torch.equal(owners.gt_index, ours.gt_index):
        return error
    ear = Ear(heard, candidates(heard.problem, heard.config))
    detector.trainer.listen(detector.made, ear)
    with torch.no_grad():
        detector.trainer.loss(detector.made, predictions, *gts)
    detector.trainer.deafen(detector.made)
    # only the assignment is judged: the head computes IoUs with a rounding of its own
    ear.owners.iou.copy_(iou_of(heard, ear.owners.gt_index))
    compare_matchings(heard.config, heard.problem, ear.owners, ours, where, tally)
    return error


def iou_of(heard: Heard, gt_index: Tensor) -> Tensor:
    """IoU of each prior's box with the gt of ``gt_index``, [B, P], 0 for background."""
    problem = heard.problem
    row, _ = problem.gts.padded_rows()
    if not row.numel():
        return torch.zeros(gt_index.shape)
    boxes = problem.gts.boxes[row][:, :, None].double()
    iou = terms.pair_iou(problem.pred_boxes[:, None].double(), boxes, heard.config)  # [B, G, P]
    return torch.where(gt_index >= 0, iou.gather(1, gt_index.clamp(min=0)[:, None])[:, 0], 0.0).float()


def describe(device: str) -> dict[str, Any]:
    """What the numbers of a report depend on."""
    gpu = {"gpu": torch.cuda.get_device_name()} if device.startswith("cuda") else {}
    return (
        facts(torch.device("cpu"))
        | gpu
        | {"times": "wall, synchronised" if torch.cuda.is_available() else "CPU time of the process"}
    )


def verdict(out: Path, name: str) -> str | None:
    """A line that compares the losses of mode ``swap`` with the original's; None if one is missing."""
    files = [out / f"{name}_{mode}.json" for mode in ("swap", "shadow", "original")]
    swap, *others = (json.loads(file.read_text()) if file.exists() else None for file in files)
    original = next((other for other in others if other), None)
    if swap is None or original is None:
        return None
    pairs = list(zip(swap["loss"], original["loss"], strict=False))
    parted = next((step for step, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    same = (
        f"equal over {len(pairs)} steps"
        if parted is None
        else f"parts at step {parted}: {pairs[parted][0]}, {pairs[parted][1]}"
    )
    return (
        f"{name}: losses with ours and the original's: {same}; "
        f"assignment {swap['median_assignment_ms']:.1f} ms a step, "
        f"the original's {original['median_assignment_ms']:.1f} ms"
    )


def main() -> None:
    """Train, print, and write the reports."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trainers.train", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--detector", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument(
        "--mode", nargs="+", choices=("original", "swap", "shadow"), default=["shadow", "swap"]
    )
    parser.add_argument(
        "--coco",
        type=Path,
        default=os.environ.get("SIMOTA_TRITON_COCO"),
        help="folder; default: SIMOTA_TRITON_COCO",
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=20, help="steps between printed lines")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--capture", type=Path, help="folder for captured batches")
    parser.add_argument("--captured", type=int, default=1, help="images of a captured batch")
    options = parser.parse_args()
    if options.coco is None:
        parser.error("--coco: give a folder with instances.json and images/, or set SIMOTA_TRITON_COCO")
    warnings.simplefilter("ignore", FutureWarning)  # the originals use calls that torch has since deprecated
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.detector:
        for mode in options.mode:
            report = train(name, mode, options)
            (options.out / f"{name}_{mode}.json").write_text(json.dumps(report, indent=1) + "\n")
            if mode == "shadow":
                failed += report["unexplained"]
                counts = ", ".join(
                    f"{key} {report[key]}" for key in ("assignments", "positives", "differing", "ties")
                )
                print(
                    f"{name} shadow: {counts}, unexplained {len(report['unexplained'])}",
                    *report["unexplained"][:5],
                    sep="\n  ",
                )
        print(verdict(options.out, name) or "", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} unexplained differences")


if __name__ == "__main__":
    main()
