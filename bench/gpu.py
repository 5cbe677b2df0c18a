r"""Checks and times the kernels on one NVIDIA GPU, in one command of under nine minutes.

``python -m bench.gpu --out DIR`` first checks both backends with kernels as ``simota-triton verify`` does.
Then it times them on the named workloads, beside plain PyTorch. It writes ``correctness.json`` and
``times.json``, which belong into ``bench/results/<gpu>/``.

The cases:

- ``stream`` and ``fused``: a whole call of backend "triton-stream" (gts packed) and of backend "triton" (gts
  padded);
- ``stream list`` and ``stream padded``: the same of "triton-stream" with gts in the other two forms;
- ``stream kernels`` and ``fused kernels``: only the launches of the kernels;
- ``matching``: only the matching in PyTorch, which follows the kernels of "triton";
- ``loop``, ``batched`` and ``batched, compiled``: plain PyTorch, which always computes in float32.

Our cases are timed with class logits as maps, which are read in place, and as one flat tensor.
"triton-stream" is timed in all phases of training, the others in the middle one. Workload ``xview`` is timed
with "triton-stream" alone, because the matrices of the other cases do not fit into memory.

How times are taken: the call is captured as a CUDA graph, on so many copies of the inputs that nothing is
read from a warm L2 cache. A replay is queued while the GPU is still busy, so that its time contains no
launch. ``eager_ms`` is the time of the same call without a graph, with what the host does. A case that cannot
be captured is timed with a full queue, and its row says ``eager``. Before a case is timed, its assignment is
compared with that of backend "torch". ``floor_ms`` is the bytes that must move
(``simota_triton.measure.cases.least_bytes``) over the bandwidth of a large copy.

``--device cpu`` runs the same code with a tiny workload in Triton's interpreter. That tests this file and
measures nothing.

To look for reads out of bounds or of uninitialised memory, and for races, on some scenes::

    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    for tool in memcheck initcheck racecheck; do
        compute-sanitizer --tool $tool \
            python -m bench.gpu --out /tmp/checked --check-only --scenes 100 --workers 1
    done
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import plain
from simota_triton import SimOTAAssigner, SimOTAConfig
from simota_triton.backends import triton_fused, triton_stream
from simota_triton.capture import Recorded
from simota_triton.inputs import pack
from simota_triton.matching import dynamic_k_matching
from simota_triton.measure.cases import least_bytes
from simota_triton.measure.machine import facts
from simota_triton.measure.peak import peak_bytes
from simota_triton.measure.timing import L2_BYTES, GraphTimer
from simota_triton.measure.workloads import WORKLOADS, Batch, Workload, make_batch
from simota_triton.priors import STRIDES
from simota_triton.verification.suite import CHECKS, FAILED, OF_BATCHES, Finding, Target, findings, record

LOOPED = ("coco", "mosaic")
"""Workloads on which case "loop" is timed, which is slow and holds tensors of [n, G, C]."""

EAGER = ("stream list, maps", "loop")
"""Cases that cannot be captured: a list's offsets come from the host, and "loop" reads values there."""


def moved(value: Any, device: str | torch.device) -> Any:
    """The value with all tensors in it, also those in lists, tuples and dictionaries, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    return type(value)(moved(item, device) for item in value) if isinstance(value, (list, tuple)) else value


def correctness(scenes: int, device: str, workers: int) -> tuple[dict[str, Any], bool]:
    """The record of what ``simota-triton verify`` finds about both backends with kernels, without its times;
    and whether nothing failed.
    """
    found: list[Finding] = []
    target = Target("", torch.device(device), scenes=scenes, workers=workers)
    checks = OF_BATCHES[:2] if device == "cpu" else [name for name in CHECKS if name != "times"]
    for backend in ("triton-stream", "triton"):
        for finding in findings(target.of(backend), checks=checks):
            found.append(finding)
            print(
                f"{finding.backend:13}  {finding.check:19}  {finding.status:7}  {finding.detail}", flush=True
            )
    return record(found, target), not any(finding.status == FAILED for finding in found)


class Timer:
    """Times calls on a device, in ms."""

    def __init__(self, device: str, rounds: int) -> None:
        self.cuda, self.rounds = device != "cpu", rounds
        self.graphs = GraphTimer(torch.device(device)) if self.cuda else None

    def wall(self, call: Callable[[], object], number: int = 20) -> list[float]:
        """Times of the host and the device together: calls are queued one after the other, then awaited."""
        if self.cuda:
            call()
        return [self._elapsed(lambda: [call() for _ in range(number)]) / number for _ in range(self.rounds)]

    def device(self, calls: list[Callable[[], object]], eager: bool = False) -> tuple[list[float], str]:
        """Times of a CUDA graph of all ``calls``, divided by their number, and ``"graph"``. Where ``eager``
        is asked for, or the calls cannot be captured: times without a graph, and ``"eager"``.
        """
        if self.graphs is None or eager:
            return self.wall(calls[0], 3 if self.cuda else 1), "eager"
        try:
            run = self.graphs.prepare(lambda: [call() for call in calls])
        except Exception as error:  # a case that cannot be captured must not end the run
            torch.cuda.synchronize()
            print(f"  not captured ({str(error).splitlines()[0][:80]})")
            return self.wall(calls[0], 3), "eager"
        return [run() / len(calls) for _ in range(self.rounds)], "graph"

    def _elapsed(self, call: Callable[[], object]) -> float:
        if not self.cuda:
            start = time.perf_counter()
            call()
            return (time.perf_counter() - start) * 1e3
        torch.cuda.synchronize()
        start_event, end_event = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start_event.record()
        call()
        end_event.record()
        torch.cuda.synchronize()
        return start_event.elapsed_time(end_event)


def copy_bandwidth(device: str, timer: Timer) -> float:
    """Bytes that a large copy reads and writes in a ms."""
    source = torch.empty(1 << (28 if timer.cuda else 22), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / statistics.median(timer.device([lambda: target.copy_(source)])[0])


def maps_of(batch: Batch, workload: Workload) -> list[Tensor]:
    """The class logits as a head's maps, one [B, C, H, W] for each level."""
    sides = [-(-workload.image_size // stride) for stride in STRIDES]
    levels = batch.cls_logits.split([side * side for side in sides], 1)
    return [
        level.transpose(1, 2).reshape(len(level), -1, side, side)
        for level, side in zip(levels, sides, strict=True)
    ]


def cases(batch: Batch, workload: Workload, peers: bool) -> dict[str, Callable[[], Any]]:
    """The cases of a batch by name. All return gt_index but those of kernels alone. With ``peers`` also those
    in plain PyTorch.
    """
    config = SimOTAConfig.rtmdet()
    gts, labels = torch.cat(batch.gt_boxes), torch.cat(batch.gt_labels)
    sizes = torch.tensor([len(boxes) for boxes in batch.gt_boxes])
    packed = {"gt_offsets": torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]).to(gts.device)}
    padded = moved(batch.padded(workload.padded), gts.device) if workload.padded else None
    found: dict[str, Callable[[], Any]] = {}
    for layout, logits in (("maps", maps_of(batch, workload)), ("flat", batch.cls_logits)):
        add_ours(
            found, layout, config, (batch.pred_boxes, logits, batch.priors), (gts, labels, packed), padded
        )
    predictions = batch.pred_boxes, maps_of(batch, workload), batch.priors
    stream = SimOTAAssigner(config, backend="triton-stream", validate=False)
    found["stream list, maps"] = lambda: stream(*predictions, batch.gt_boxes, batch.gt_labels).gt_index
    if padded:
        found["stream padded, maps"] = lambda: stream(*predictions, *padded[:2], gt_mask=padded[2]).gt_index
    if padded and peers:
        batched = torch.compile(plain.vectorised_batch, fullgraph=True)
        found |= {
            "batched": lambda: plain.vectorised_batch(
                batch.pred_boxes, batch.cls_logits, batch.priors, *padded
            ),
            "batched, compiled": lambda: batched(batch.pred_boxes, batch.cls_logits, batch.priors, *padded),
        }
    if workload.name in LOOPED and peers:
        found["loop"] = lambda: plain.by_image(plain.loop_image, batch)
    return found


def add_ours(
    found: dict[str, Callable[[], Any]], layout: str, config: SimOTAConfig, predictions: tuple[Any, ...],
    packed: tuple[Tensor, Tensor, dict[str, Tensor]], padded: tuple[Tensor, Tensor, Tensor] | None,
) -> None:  # fmt: skip
    """Add the cases of both backends for class logits of one layout."""
    stream = SimOTAAssigner(config, backend="triton-stream", validate=False)
    problem = pack(config, *predictions, *packed[:2], **packed[2], validate=False)
    found[f"stream, {layout}"] = lambda: stream(*predictions, *packed[:2], **packed[2]).gt_index
    found[f"stream kernels, {layout}"] = lambda: triton_stream.assign(problem, config)
    if padded is None:
        return
    fused = SimOTAAssigner(config, backend="triton", validate=False)
    boxes, labels, mask = padded
    padded_problem = pack(config, *predictions, boxes, labels, gt_mask=mask, validate=False)
    found[f"fused, {layout}"] = lambda: fused(*predictions, boxes, labels, gt_mask=mask).gt_index
    found[f"fused kernels, {layout}"] = lambda: triton_fused.cost_matrix(padded_problem, config)
    if layout == "maps":
        cost, iou, gt_mask = triton_fused.cost_matrix(padded_problem, config)
        found["matching"] = lambda: (
            dynamic_k_matching(cost, iou, gt_mask=gt_mask, candidate_topk=config.candidate_topk).gt_index
        )


BATCHES = (
    ("untrained", torch.float32),
    ("mid", torch.float32),
    ("mid", torch.float16),
    ("trained", torch.float32),
)
"""Phase of training and dtype of the logits. In the middle phase all cases are timed, in the others only
those of "triton-stream".
"""

TRY_OUT = {
    Workload("coco", 1, 64, 3, 2, 2, 2, 24.0, 0.5, "a try-out"): BATCHES[1:2],
    Workload("xview", 1, 64, 3, 2, None, 2, 24.0, 0.5, "another"): BATCHES[2:3],
}


def measure(
    workload: Workload,
    batches: Sequence[tuple[str, torch.dtype]],
    device: str,
    timer: Timer,
    bandwidth: float,
) -> list[dict[str, Any]]:
    """Measure the batches of one workload; returns a row for each case."""
    rows = []
    for phase, dtype in batches:
        batch = make_batch(workload, phase, dtype=dtype)
        expected = SimOTAAssigner("rtmdet", backend="torch")(
            batch.pred_boxes, batch.cls_logits, batch.priors, batch.gt_boxes, batch.gt_labels
        ).gt_index
        rows += measure_batch(workload, phase, batch, expected, device, timer, bandwidth)
    return rows


def measure_batch(
    workload: Workload,
    phase: str,
    batch: Batch,
    expected: Tensor,
    device: str,
    timer: Timer,
    bandwidth: float,
) -> list[dict[str, Any]]:
    """Measure one batch; returns a row for each case."""
    inputs = {"pred_boxes": batch.pred_boxes, "cls_logits": batch.cls_logits, "priors": batch.priors}
    inputs |= {"gt_boxes": batch.gt_boxes, "gt_labels": batch.gt_labels}
    moved_bytes = least_bytes(Recorded(workload.name, SimOTAConfig.rtmdet(), inputs))
    copies = int(L2_BYTES // moved_bytes) + 1 if timer.cuda else 1
    dtype = str(batch.cls_logits.dtype).removeprefix("torch.")
    sets = []
    for _ in range(copies):
        own = Batch(*(moved(getattr(batch, f.name), device) for f in dataclasses.fields(batch)))
        sets.append(cases(own, workload, peers=phase == "mid" and dtype == "float32"))
    rows = []
    for name, call in sets[0].items():
        if phase != "mid" and not name.startswith("stream"):
            continue
        differing = None if "kernels" in name else int((call().cpu() != expected).sum())
        times, how = timer.device([own[name] for own in sets], name in EAGER)
        row = {
            "workload": workload.name,
            "phase": phase,
            "dtype": dtype,
            "case": name,
            "differing_priors": differing,
            "how": how,
            "median_ms": statistics.median(times),
            "min_ms": min(times),
            "max_ms": max(times),
            "copies": copies,
            "peak_extra_mb": peak_bytes(call, torch.device(device)) / 1e6 if timer.cuda else None,
            "floor_ms": moved_bytes / bandwidth,
        }
        if how == "graph" and "kernels" not in name:
            row["eager_ms"] = statistics.median(timer.wall(call))
        rows.append(row)
        print(
            f"{workload.name:7} {phase:9} {dtype:8} {name:22} {row['median_ms']:10.4f} ms ({how})  "
            f"differing {differing}",
            flush=True,
        )
    return rows


def main() -> int:
    """Check, then measure if all checks have passed; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON files")
    parser.add_argument(
        "--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a tiny run in Triton's interpreter"
    )
    parser.add_argument("--scenes", type=int, default=5000, help="number of random scenes to check")
    parser.add_argument(
        "--workers", type=int, default=min(12, os.cpu_count() or 1), help="processes that check them"
    )
    parser.add_argument("--rounds", type=int, default=20, help="how often each case is timed")
    parser.add_argument("--check-only", action="store_true", help="check and do not measure")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available; --device cpu tries this file out in Triton's interpreter")
    args.out.mkdir(parents=True, exist_ok=True)
    checked, right = correctness(args.scenes, args.device, args.workers)
    (args.out / "correctness.json").write_text(json.dumps(checked, indent=1) + "\n")
    if not right:
        return 1
    if args.check_only:
        return 0
    timer = Timer(args.device, args.rounds)
    bandwidth = copy_bandwidth(args.device, timer)
    plan = dict.fromkeys(WORKLOADS.values(), BATCHES) if timer.cuda else TRY_OUT
    rows = []
    with torch.no_grad():
        for workload, batches in plan.items():
            rows += measure(workload, batches, args.device, timer, bandwidth)
            report = {
                "machine": facts(torch.device(args.device)),
                "copy_gb_per_s": bandwidth / 1e6,
                "rows": rows,
            }
            (args.out / "times.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
