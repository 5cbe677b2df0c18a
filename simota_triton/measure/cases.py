"""The cases that are timed on a batch: each backend that runs on the device, and plain PyTorch."""

from __future__ import annotations

import functools
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..assigners import assigner_of
from ..backends import BACKENDS, computes, triton_refusal
from ..capture import Recorded
from ..config import Config, SimOTAConfig, TaskAlignedConfig
from ..inputs import pack
from ..problem import Problem
from ..task_aligned import terms as aligned_terms
from ..terms import in_region
from .peak import peak_bytes
from .plain import Solver, solve, vectorised_batch, vectorised_image

Case = Callable[[], Tensor]
"""A whole call, which returns gt_index [B, P]."""

PLAIN, BY_IMAGE, COMPILED = (
    "plain PyTorch, batched",
    "plain PyTorch, by image",
    "plain PyTorch, by image, compiled",
)
"""The cases in plain PyTorch, of RTMDet's rule alone: on the padded batch at once, or on the candidates of
one image after the other.
"""

Clock = Callable[[], float]


def backends_on(device: torch.device) -> list[str]:
    """The backends that are worth timing on a device, which leaves out Triton's interpreter."""
    kernels = (
        [name for name in BACKENDS if name.startswith("triton")]
        if device.type == "cuda" and triton_refusal(device) is None
        else []
    )
    return [*kernels, "torch", "reference"]


@functools.cache
def compiled_solve() -> Solver:
    """``plain.solve`` compiled by torch.compile, once for all sizes."""
    return torch.compile(solve, dynamic=True, fullgraph=True)


def cases(batch: Recorded, device: torch.device, names: list[str], compiled: bool = False) -> dict[str, Case]:
    """The cases of a batch, by name.

    Args:
        batch: The batch. Plain PyTorch can compute it where its rule is RTMDet's and it has no unusual
            inputs.
        device: Where it is computed.
        names: Backends; those that cannot compute the batch are left out.
        compiled: Whether ``COMPILED`` is among the cases; it takes a while to compile.
    """
    inputs = batch.on(device)
    found: dict[str, Case] = {
        name: _ours(batch.config, name, inputs)
        for name in names
        if computes(name, batch.config.variety, inputs)
    }
    plain = {"pred_boxes", "cls_logits", "priors", "gt_boxes", "gt_labels", "gt_mask"}
    if (
        batch.config == SimOTAConfig.rtmdet()
        and set(inputs) <= plain | {"gt_offsets"}
        and isinstance(inputs["cls_logits"], Tensor)
    ):
        problem = pack(batch.config, **inputs, validate=False)
        row, valid = problem.gts.padded_rows()
        boxes, labels = problem.gts.boxes[row], problem.gts.labels[row]
        logits, pred = inputs["cls_logits"].float(), inputs["pred_boxes"].float()
        found[PLAIN] = lambda: vectorised_batch(pred, logits, problem.priors, boxes, labels, valid)
        images = [
            (pred[b], logits[b], problem.priors, boxes[b, own], labels[b, own]) for b, own in enumerate(valid)
        ]
        found[BY_IMAGE] = lambda: torch.stack([vectorised_image(*image) for image in images])
        if compiled:
            found[COMPILED] = lambda: torch.stack(
                [vectorised_image(*image, solve=compiled_solve()) for image in images]
            )
    return found


def _ours(config: Config, name: str, inputs: dict[str, Any]) -> Case:
    assigner = assigner_of(config, backend=name)
    return lambda: assigner(**inputs).gt_index


def clock(device: torch.device) -> Clock:
    """A clock in seconds, whose reading waits until the device has finished.

    On a CPU with one thread it counts the CPU time of this process, which is the same on a busy machine as on
    an idle one.
    """
    if device.type != "cuda":
        return time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def measure(
    named: Mapping[str, Case],
    device: torch.device,
    rounds: int,
    seconds: float = 20.0,
    expected: Tensor | None = None,
) -> list[dict[str, Any]]:
    """Measure cases in turns: one run of each, then again.

    Args:
        named: The cases by name.
        device: Where they compute.
        rounds: How many times each case is timed, at most.
        seconds: How long the timings of one case may take in all; a slow case is timed less often, at least
            once.
        expected: gt_index [B, P] that the cases are compared with; None: they are not.

    Returns:
        A row for each case: median and quartiles in ms, peak memory in MB, and the number of priors that
        differ from ``expected``.
    """
    now = clock(device)
    rows: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {name: [] for name in named}
    for name, case in named.items():
        rows[name] = {"case": name, "peak_mb": peak_bytes(case, device) / 1e6}
        if expected is not None:
            rows[name]["differing_priors"] = int((case() != expected).sum())
    gc.collect()
    for _ in range(rounds):
        for name, case in named.items():
            if times[name] and sum(times[name]) + times[name][-1] > 1e3 * seconds:
                continue
            start = now()
            case()
            times[name].append((now() - start) * 1e3)
    for name, own in times.items():
        low, _, high = statistics.quantiles(own, n=4, method="inclusive") if len(own) > 1 else own * 3
        rows[name] |= {"median_ms": statistics.median(own), "quartiles_ms": [low, high], "rounds": len(own)}
    return list(rows.values())


def copy_bandwidth(device: torch.device) -> float:
    """Bytes that a large copy reads and writes in a ms."""
    source = torch.empty(1 << (28 if device.type == "cuda" else 26), dtype=torch.uint8, device=device)
    target, now, times = torch.empty_like(source), clock(device), []
    for _ in range(9):
        start = now()
        target.copy_(source)
        times.append((now() - start) * 1e3)
    return 2 * source.numel() / statistics.median(times)


def least_bytes(batch: Recorded) -> int:
    """The bytes that any assigner must move.

    It reads the priors, the gts, and of each prior that is a candidate its box and its logits: those of all
    classes, or at least one where the rule looks only at the gt's own class. It writes gt_index, label, IoU
    and claims of every prior, and its score where the rule has one.
    """
    problem, config = pack(batch.config, **batch.inputs, validate=False), batch.config
    gts = candidates = 0
    for row, valid in zip(*problem.gts.padded_rows(), strict=True):  # image by image: [G]
        region = _region(problem, row[valid], config)  # [G, P]
        gts += len(region)
        candidates += int(region.any(0).sum())
    images, priors, classes = problem.shape
    all_classes = isinstance(config, SimOTAConfig) and config.cls_classes == "all"
    read = 16 + problem.cls_logits.levels[0].element_size() * (classes if all_classes else 1)
    if problem.obj_logits is not None:
        read += problem.obj_logits.levels[0].element_size()
    written = 8 + 8 + 4 + 4 + (4 if isinstance(config, TaskAlignedConfig) else 0)
    return 16 * priors + (16 + 8) * gts + read * candidates + written * images * priors


def _region(problem: Problem, row: Tensor, config: Config) -> Tensor:
    """Whether priors are candidates of gts, [G, P]."""
    boxes = problem.gts.boxes[row, None]
    if isinstance(config, TaskAlignedConfig):
        return aligned_terms.in_region(problem.priors, aligned_terms.region_boxes(boxes, config), config)
    assert isinstance(config, SimOTAConfig)
    centers = problem.gts.centers[row, None]
    return in_region(problem.priors, boxes, centers, config.candidate, config.center_radius)
