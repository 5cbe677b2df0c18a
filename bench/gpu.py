"""Correctness and benchmarks on one NVIDIA GPU, in one command of under nine minutes.

``python -m bench.gpu --out DIR`` first holds backend "triton" against the float64 definition on random scenes, then times
it on the named workloads beside its peers and writes ``correctness.json`` and ``times.json``. Commit those under
``bench/results/<gpu>/``.

Cases: ``kernels`` (the two passes alone), ``matching`` (the torch stage alone), ``eager`` (a whole call, host included),
``graph`` (a whole call replayed as a CUDA graph), and the peers ``loop``, ``batched`` and ``batched, compiled``. Device
times are replays of one CUDA graph that holds the call on several copies of the inputs, so that nothing is read from a warm
L2 cache; where a case cannot be captured, the queue is kept full and the time is said to be ``eager``. Every case's
assignment is compared with ours before it is timed. ``floor_ms`` is the bytes that must move (boxes, logits and outputs)
over the measured bandwidth of a large copy.

``--device cpu`` runs the same code at a tiny size in Triton's interpreter: a test of this file, not a measurement.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from bench import plain
from bench.workloads import WORKLOADS, Batch, Workload, make_batch
from simota_triton import SimOTAAssigner, SimOTAConfig
from simota_triton.backends import triton_fused
from simota_triton.inputs import pack
from simota_triton.matching import dynamic_k_matching
from tests import fuzz
from tests.judge import judge
from tests.scenes import FORMS, LAYOUTS, make_scene

NAMES = ("coco", "mosaic", "o365", "dota")
"""Workloads whose matrices fit; the loop, which is slow and needs [n, G, C], is timed on ``coco`` and ``mosaic``."""
LOOPED = ("coco", "mosaic")
L2_BYTES = 128e6
"""More than any GPU's L2 cache: inputs are copied until they exceed it."""


def moved(value: Any, device: str) -> Any:
    """Tensors inside lists, tuples and dictionaries on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    return type(value)(moved(item, device) for item in value) if isinstance(value, (list, tuple)) else value


def correctness(scenes: int, device: str) -> dict[str, Any]:
    """The fuzz of ``tests.fuzz`` with the inputs on a device, backend "triton"."""
    total: Counter[str] = Counter()
    complaints: list[str] = []
    for seed in range(scenes):
        scene, config = make_scene(seed), fuzz.config_of(seed)
        form, layout = FORMS[seed % len(FORMS)], LAYOUTS[seed // len(FORMS) % len(LAYOUTS)]
        args, kwargs = scene.inputs(config.score, form, layout)
        result = SimOTAAssigner(config, backend="triton", validate=True)(*moved(args, device), **moved(kwargs, device))
        fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
        on_host = dataclasses.replace(result, **{k: v.cpu() for k, v in fields.items() if isinstance(v, Tensor)})
        verdict = judge(on_host, scene.problem(config, form, layout), config)
        total.update(scenes=1, positives=verdict.positives, excused=verdict.excused, unexplained=len(verdict.unexplained))
        complaints += [f"seed {seed}: {line}" for line in verdict.unexplained]
    return dict(total) | {"complaints": complaints[:20]}


class Timer:
    """Times calls on a device, ms."""

    def __init__(self, device: str, rounds: int) -> None:
        self.cuda, self.rounds = device != "cpu", rounds

    def wall(self, call: Callable[[], object], number: int = 20) -> list[float]:
        """Host and device together: calls queued one after the other, then waited for."""
        call()
        return [self._elapsed(lambda: [call() for _ in range(number)]) / number for _ in range(self.rounds)]

    def device(self, calls: list[Callable[[], object]]) -> tuple[list[float], str]:
        """One replayed graph over all ``calls``, per call; ``eager`` where it cannot be captured."""
        if not self.cuda:
            return self.wall(calls[0], 1), "eager"
        stream = torch.cuda.Stream()
        try:
            with torch.cuda.stream(stream):
                for call in calls:
                    call()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for call in calls:
                    call()
        except RuntimeError as error:  # the peers' loops read values on the host
            torch.cuda.synchronize()
            print(f"  not captured ({str(error).splitlines()[0][:80]})")
            return self.wall(calls[0], 3), "eager"
        graph.replay()
        return [self._elapsed(graph.replay) / len(calls) for _ in range(self.rounds)], "graph"

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
    """Bytes a ms that a large copy reads and writes."""
    source = torch.empty(1 << (28 if timer.cuda else 22), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / statistics.median(timer.wall(lambda: target.copy_(source), 4))


def peak_extra(call: Callable[[], object], device: str) -> float | None:
    """MB that a call allocates at once beyond what is there."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def cases(batch: Batch, padded: tuple[Tensor, Tensor, Tensor], workload: Workload) -> dict[str, Callable[[], Any]]:
    """Everything that is timed on one set of inputs; all but ``kernels`` give a gt_index."""
    config = SimOTAConfig.rtmdet()
    assigner = SimOTAAssigner(config, backend="triton", validate=False)
    inputs = (batch.pred_boxes, batch.cls_logits, batch.priors, padded[0], padded[1])
    problem = pack(config, *inputs, gt_mask=padded[2], validate=False)
    cost, iou, gt_mask = triton_fused.cost_matrix(problem, config)
    batched = torch.compile(plain.vectorised_batch, fullgraph=True)
    logits = batch.cls_logits.float()  # the peers compute in the logits' dtype; ours in float32 always
    found: dict[str, Callable[[], Any]] = {
        "kernels": lambda: triton_fused.cost_matrix(problem, config),
        "matching": lambda: dynamic_k_matching(cost, iou, gt_mask=gt_mask, candidate_topk=config.candidate_topk).gt_index,
        "whole": lambda: assigner(*inputs, gt_mask=padded[2]).gt_index,
        "batched": lambda: plain.vectorised_batch(batch.pred_boxes, logits, batch.priors, *padded),
        "batched, compiled": lambda: batched(batch.pred_boxes, logits, batch.priors, *padded),
    }
    if workload.name in LOOPED:
        found["loop"] = lambda: plain.by_image(plain.loop_image, dataclasses.replace(batch, cls_logits=logits))
    return found


def measure(workload: Workload, dtype: torch.dtype, device: str, timer: Timer, bandwidth: float) -> list[dict[str, Any]]:
    """Rows of one workload and logits dtype."""
    batch = make_batch(workload, "mid", dtype=dtype)
    assert workload.padded is not None
    padded = batch.padded(workload.padded)
    moved_bytes = sum(t.numel() * t.element_size() for t in (batch.pred_boxes, batch.cls_logits))
    moved_bytes += 8 * len(batch.gt_boxes) * workload.padded * len(batch.priors)
    copies = int(L2_BYTES // moved_bytes) + 1 if timer.cuda else 1
    sets = [
        cases(Batch(*moved([getattr(batch, f.name) for f in dataclasses.fields(batch)], device)), moved(padded, device), workload)
        for _ in range(copies)
    ]
    expected = SimOTAAssigner("rtmdet", backend="torch")(
        batch.pred_boxes, batch.cls_logits, batch.priors, batch.gt_boxes, batch.gt_labels
    ).gt_index
    rows = []
    for name, call in sets[0].items():
        differing = None if name == "kernels" else int((call().cpu() != expected).sum())
        times, how = timer.device([own[name] for own in sets])
        row = {
            "workload": workload.name, "dtype": str(dtype), "case": name, "differing_priors": differing, "how": how,
            "median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times), "copies": copies,
            "peak_extra_mb": peak_extra(call, device), "floor_ms": moved_bytes / bandwidth,
        }  # fmt: skip
        if name == "whole":
            row["eager_ms"] = statistics.median(timer.wall(call, 20 if timer.cuda else 1))
        rows.append(row)
        print(f"{workload.name:7} {str(dtype)[6:]:8} {name:18} {row['median_ms']:10.4f} ms ({how})  differing {differing}", flush=True)
    return rows


def facts(device: str) -> dict[str, Any]:
    """What the numbers depend on."""
    found = {"torch": torch.__version__, "triton": triton.__version__, "python": platform.python_version(), "device": device}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    if device != "cpu":
        gpu = torch.cuda.get_device_properties(0)
        driver = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
        found |= {"gpu": gpu.name, "capability": f"{gpu.major}.{gpu.minor}", "cuda": torch.version.cuda, "driver": driver.stdout.strip()}
    return found | {"commit": commit}


def main() -> int:
    """Correctness first; times only where it holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON files")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a tiny run in Triton's interpreter")
    parser.add_argument("--scenes", type=int, default=2000, help="random scenes that are checked first")
    parser.add_argument("--rounds", type=int, default=30, help="timings of each case")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available; --device cpu tries this file out in Triton's interpreter")
    args.out.mkdir(parents=True, exist_ok=True)
    checked = correctness(args.scenes, args.device)
    (args.out / "correctness.json").write_text(json.dumps({"machine": facts(args.device)} | checked, indent=1) + "\n")
    print(
        f"{checked['scenes']} scenes, {checked['positives']} positives, {checked['excused']} excused, {checked['unexplained']} unexplained"
    )
    if checked["unexplained"]:
        return 1
    timer = Timer(args.device, args.rounds)
    bandwidth = copy_bandwidth(args.device, timer)
    tiny = Workload("coco", 1, 64, 3, 3, 4, 4, 24.0, 0.5, "a try-out")
    workloads = [WORKLOADS[name] for name in NAMES] if args.device == "cuda" else [tiny]
    rows = []
    with torch.no_grad():
        for workload in workloads:
            for dtype in (torch.float32, torch.float16):
                rows += measure(workload, dtype, args.device, timer, bandwidth)
                report = {"machine": facts(args.device), "copy_gb_per_s": bandwidth / 1e6, "rows": rows}
                (args.out / "times.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
