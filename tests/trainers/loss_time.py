"""How much of a loss is assignment, in libreyolo's RTMDet with and without ours.

    python -m tests.trainers.loss_time

The batch has 8 images of 640 px with 30 gts each, 80 classes, and simulated predictions of each phase of
training. The whole ``RTMDetLoss`` is called, with one thread. In it the time of ``assigner.forward`` is
taken, which is the original's in one call and ours in the next; the medians are compared. Before that both
must give the same loss. Times are CPU times of the process. The original spends much of its time in the
operating system, which gives it fresh memory for [P, G, C] tensors again and again, so the time outside of
the system is reported too.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from bench.cpu import RESULTS
from simota_triton.measure.machine import facts
from simota_triton.measure.simulate import PHASES
from simota_triton.measure.workloads import Workload, make_batch

from .libreyolo import RTMDet
from .maps import to_maps

WORKLOAD = Workload(
    "30 gts an image", 8, 640, 80, 240, 30, 30, 80.0, 1.0, "a COCO-like image with twice COCO's gts"
)


class Timed:
    """A loss whose assigner is timed.

    Args:
        loss: The loss.
        inputs: Its arguments.
        patch: A context in which the loss is called.
    """

    def __init__(self, loss: Any, inputs: tuple[Any, ...], patch: AbstractContextManager[Any]) -> None:
        self.loss, self.inputs, self.patch = loss, inputs, patch
        self.assignment: list[float] = []
        self.assignment_user: list[float] = []
        self.whole: list[float] = []

    def __call__(self) -> dict[str, Tensor]:
        assigner = self.loss.assigner

        def forward(*args: Any) -> Any:
            start, user = time.process_time(), user_time()
            result = type(assigner).forward(assigner, *args)
            self.assignment_user.append((user_time() - user) * 1e3)
            self.assignment.append((time.process_time() - start) * 1e3)
            return result

        assigner.forward = forward
        with self.patch:
            start = time.process_time()
            result: dict[str, Tensor] = self.loss(*self.inputs)
            self.whole.append((time.process_time() - start) * 1e3)
        del assigner.forward
        return result


def user_time() -> float:
    """Seconds that this process has computed, outside of the operating system."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


class Patched:
    """The integration's patch, as a context that can be entered again and again."""

    def __init__(self, trainer: RTMDet) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        self.held = self.trainer.patch()

    def __exit__(self, *error: object) -> None:
        self.held.undo()


def measure(phase: str, rounds: int) -> dict[str, Any]:
    """Medians in ms of the original's and of our assignment, and of the losses around them."""
    batch = make_batch(WORKLOAD, phase)
    points = batch.priors[:, :2]
    sides = torch.cat([points - batch.pred_boxes[..., :2], batch.pred_boxes[..., 2:] - points], -1)
    inputs = (
        to_maps(batch.cls_logits, batch.priors),
        to_maps(sides, batch.priors),
        batch.gt_boxes,
        batch.gt_labels,
    )
    trainer = RTMDet()
    trainer.load()
    loss = trainer.make(WORKLOAD.num_classes)
    cases = {
        "libreyolo 1.6.0": Timed(loss, inputs, nullcontext()),
        "simota_triton": Timed(loss, inputs, Patched(trainer)),
    }
    theirs, ours = (case() for case in cases.values())
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=0.0)
    for case in cases.values():
        for times in (case.assignment, case.assignment_user, case.whole):
            times.clear()
    for _ in range(rounds):
        for case in cases.values():
            case()
    row: dict[str, Any] = {"phase": phase, "rounds": rounds, "loss": float(theirs["total_loss"].detach())}
    for name, case in cases.items():
        row[name] = {
            "assignment_ms": statistics.median(case.assignment),
            "assignment_quartiles_ms": statistics.quantiles(case.assignment, n=4)[::2],
            "assignment_user_ms": statistics.median(case.assignment_user),
            "loss_ms": statistics.median(case.whole),
        }
    for key in ("assignment_ms", "assignment_user_ms"):
        row[key.replace("_ms", "_ratio")] = row["libreyolo 1.6.0"][key] / row["simota_triton"][key]
    return row


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trainers.loss_time", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for phase in PHASES:
        row = measure(phase, options.rounds)
        rows.append(row)
        times = ", ".join(
            f"{name} {row[name]['assignment_ms']:.1f} of {row[name]['loss_ms']:.1f} ms"
            for name in list(row)[3:5]
        )
        print(
            f"{phase:10} assignment {times}, {row['assignment_ratio']:.0f} times less "
            f"({row['assignment_user_ratio']:.0f} in user time)",
            flush=True,
        )
    how = " ".join(__doc__.split("\n\n", 2)[2].split())
    report = {
        "how": how,
        "machine": facts(torch.device("cpu")),
        "batch": WORKLOAD.batch,
        "gts": WORKLOAD.num_gts,
        "size": WORKLOAD.image_size,
        "rows": rows,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "libreyolo_rtmdet_loss.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
