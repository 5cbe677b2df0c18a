"""Trains ultralytics' own networks by their own losses, with the original's assigner and with ours.

    python -m tests.trainers.train_ultralytics --network yolov8n yolo26n

Training starts from random weights with a fixed seed, on a folder in COCO's form (SIMOTA_TRITON_COCO), three
times:

- ``shadow`` trains with the original's assigner, while ours assigns the same predictions beside it and every
  prior on which the two differ is judged,
- ``swap`` trains with ``patch()``,
- ``nudged`` trains with the original's assigner, each of whose target scores is moved by 2^-23 of itself up
  or down: how far rounding alone leads a training apart.

Counts and losses go into ``ultralytics_<network>.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from simota_triton.integrations import ultralytics as integration
from tests.peers.loading import load, site
from tests.peers.peer import to_cxcywh
from tests.peers.ultralytics import NEWEST, importable

from .aligned import hearing, judge_calls
from .detectors import NUM_CLASSES, read_photos
from .parity import LossTally
from .train import RESULTS, describe
from .ultralytics import GAINS, listening_to


def train(network: str, mode: str, options: argparse.Namespace) -> tuple[list[float], LossTally]:
    """Train a network in a mode; returns the loss of each step, and what was judged."""
    torch.manual_seed(options.seed)
    tasks, tal = (load(f"ultralytics.{name}") for name in ("nn.tasks", "utils.tal"))
    model = tasks.DetectionModel(f"{network}.yaml", nc=NUM_CLASSES, verbose=False)
    model.args = SimpleNamespace(**GAINS)
    criterion = model.init_criterion()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    photos = read_photos(options.coco, options.size).batches(options.batch, options.seed)
    model.train()
    losses, tally = [], LossTally()
    for step in range(options.steps + 1):
        images, boxes, labels = next(photos)
        predictions, batch = model(images), gts_of(boxes, labels, options.size)
        if mode == "swap":
            with integration.patch():
                loss = criterion(predictions, batch)[0].sum()
        elif mode == "nudged":
            with nudging(tal, step):
                loss = criterion(predictions, batch)[0].sum()
        else:
            with torch.no_grad(), integration.patch(), hearing() as calls, listening_to(tal) as ours:
                criterion(predictions, batch)
            with listening_to(tal) as theirs:
                loss = criterion(predictions, batch)[0].sum()
            judge_calls(calls, theirs, ours, f"step {step}", tally)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)  # as ultralytics' trainer does
        optimizer.step()
        if step % options.every == 0:
            print(f"{network} {mode} step {step:4} loss {losses[-1]:.5f}", flush=True)
    return losses, tally


@contextmanager
def nudging(tal: ModuleType, seed: int) -> Iterator[None]:
    """In the block the target scores of the original are moved by a rounding."""
    forward = tal.TaskAlignedAssigner.forward
    generator = torch.Generator().manual_seed(seed)

    def nudged(*args: Any) -> tuple[Tensor, ...]:
        labels, boxes, scores, *others = forward(*args)
        sign = torch.randint(0, 2, scores.shape[:2], generator=generator)[..., None] * 2 - 1
        return labels, boxes, scores * (1 + 2.0**-23 * sign), *others

    with mock.patch.object(tal.TaskAlignedAssigner, "forward", nudged):
        yield


def gts_of(boxes: list[Tensor], labels: list[Tensor], size: int) -> dict[str, Tensor]:
    """Gts as ultralytics' data loader hands them out, in parts of a square image."""
    counts = torch.tensor([len(own) for own in boxes])
    return {
        "batch_idx": torch.arange(len(counts)).repeat_interleave(counts).float(),
        "cls": torch.cat(labels)[:, None].float(),
        "bboxes": to_cxcywh(torch.cat(boxes)) / size,
    }


def report(network: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train in all modes."""
    theirs, tally = train(network, "shadow", options)
    ours, nudged = (train(network, mode, options)[0] for mode in ("swap", "nudged"))
    return {
        "network": network,
        "package": f"ultralytics {NEWEST}",
        "steps": options.steps,
        "size": options.size,
        "batch": options.batch,
        "seed": options.seed,
        "lr": options.lr,
        "machine": describe("cpu"),
        "positives": tally.positives,
        "differing": tally.differing,
        "of metric 0": tally.documented,
        "ties": tally.excused,
        "unexplained": tally.unexplained,
        "original": summary(theirs, theirs),
        "ours": summary(ours, theirs),
        "nudged": summary(nudged, theirs),
        "loss, original": [round(value, 5) for value in theirs],
        "loss, ours": [round(value, 5) for value in ours],
    }


def summary(losses: list[float], original: list[float]) -> dict[str, Any]:
    """Losses beside the original's."""
    apart = [abs(own - other) / other for own, other in zip(losses, original, strict=True)]
    return {
        "first step apart by 1e-4": next((step for step, value in enumerate(apart) if value > 1e-4), None),
        "mean distance": sum(apart) / len(apart),
        "mean loss of the last 50": sum(losses[-50:]) / len(losses[-50:]),
    }


def main() -> None:
    """Train, print, and write the reports."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trainers.train_ultralytics", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--network", nargs="+", default=["yolov8n", "yolo26n"])
    coco = os.environ.get("SIMOTA_TRITON_COCO")
    add("--coco", type=Path, default=coco, help="folder; default: SIMOTA_TRITON_COCO")
    add("--steps", type=int, default=300)
    add("--size", type=int, default=160)
    add("--batch", type=int, default=8)
    add("--seed", type=int, default=0)
    add("--lr", type=float, default=1e-3)
    add("--every", type=int, default=20, help="steps between printed lines")
    add("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.coco is None:
        parser.error("--coco: give a folder with instances.json and images/, or set SIMOTA_TRITON_COCO")
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    site("ultralytics", NEWEST)
    with importable():
        load("ultralytics.nn.tasks")
    failed = []
    for network in options.network:
        found = report(network, options)
        (options.out / f"ultralytics_{network}.json").write_text(json.dumps(found, indent=1) + "\n")
        failed += found["unexplained"]
        print({key: value for key, value in found.items() if not key.startswith(("loss", "machine"))})
    if failed:
        raise SystemExit(f"{len(failed)} unexplained differences")


if __name__ == "__main__":
    main()
