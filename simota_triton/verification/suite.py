"""All that is checked of a backend on a machine: answers, and what is promised besides."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import islice
from typing import Any

import torch

from .. import backends
from ..assigners import assigner_of
from ..backends import auto, known, triton_fused, verdicts
from ..capture import Recorded
from ..config import SimOTAConfig
from ..measure.machine import facts
from ..measure.peak import peak_bytes
from ..measure.workloads import TINY, WORKLOADS, Workload, recorded
from ..problem import Problem
from ..tuning.choice import configuration
from ..tuning.families import FAMILIES
from ..tuning.kernel_config import Shape
from ..tuning.store import Gpu
from ..waits import debug_mode
from .cases import case_of, differing, judged, on_host, varied_seeds
from .scan import check_seed, scan
from .variants import PRESETS

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
RUNS = 20
"""Times that one input is computed to see if bits change."""

Tell = Callable[[str], None]


class NotRun(Exception):
    """Nothing to check on a machine, or with a backend, like this; the message says why."""


class Wrong(Exception):
    """A check failed: what is wrong, and the batch that shows it where one does."""

    def __init__(self, what: str, batch: Recorded | None = None) -> None:
        super().__init__(what)
        self.batch = batch


@dataclass(frozen=True)
class Target:
    """What is verified and how thoroughly.

    Attributes:
        backend: The backend.
        device: Where it computes.
        seed: Where random scenes begin.
        seconds: Time for random scenes.
        scenes: Number of random scenes; None: as many as there is time for.
        workers: Processes for them.
        long: All presets at full size, all workloads.
        batches: Judged instead of random scenes, if there are any.
        tell: Told how far a check is.
    """

    backend: str
    device: torch.device
    seed: int = 0
    seconds: float = 60.0
    scenes: int | None = None
    workers: int = 1
    long: bool = False
    batches: Sequence[Recorded] = ()
    tell: Tell = field(default=lambda note: None)

    def of(self, backend: str) -> Target:
        """The same of another backend."""
        return replace(self, backend=backend)

    @property
    def kernels(self) -> bool:
        """Whether it computes with Triton."""
        return self.backend in FAMILIES

    @property
    def interpreted(self) -> bool:
        """Whether it computes in Triton's interpreter."""
        return self.kernels and self.device.type != "cuda"

    def need_gpu(self) -> None:
        """Leave a check that only a GPU shows anything in.

        Raises:
            NotRun: There is none.
        """
        if self.device.type != "cuda":
            raise NotRun("it needs a GPU")

    def need_cached_memory(self) -> None:
        """Leave a check that PyTorch's caching allocator has a part in.

        Raises:
            NotRun: It is switched off, as tools that look for faults of memory ask for.
        """
        if "PYTORCH_NO_CUDA_MEMORY_CACHING" in os.environ:
            raise NotRun(
                "PYTORCH_NO_CUDA_MEMORY_CACHING is set: PyTorch then neither counts memory nor captures "
                "what takes some"
            )

    def need_kernels(self, why: str) -> None:
        """Leave a check that is about the kernels.

        Raises:
            NotRun: This backend has none.
        """
        if not self.kernels:
            raise NotRun(f"backend {self.backend!r} {why}")


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        backend: Of which backend.
        check: The check.
        status: ``PASSED``, ``FAILED`` or ``NOT_RUN``.
        detail: Numbers, what is wrong, or why it was not run.
        seconds: How long it took.
        batch: The batch that shows what is wrong, where one does.
        rows: Measurements.
    """

    backend: str
    check: str
    status: str
    detail: str
    seconds: float
    batch: Recorded | None = None
    rows: Sequence[dict[str, Any]] = ()


Check = Callable[[Target], "str | tuple[str, list[dict[str, Any]]]"]


def findings(
    target: Target, tell: Tell = lambda note: None, checks: Sequence[str] | None = None
) -> Iterator[Finding]:
    """Run all checks, one after the other, whatever they find.

    Args:
        target: What is verified.
        tell: Told which check is how far.
        checks: Those of ``CHECKS`` that are run; None: all, or those of batches where the target has some.
    """
    for name in names_of(target) if checks is None else checks:
        tell(f"{target.backend}, {name}")
        start = time.monotonic()
        rows: list[dict[str, Any]] = []
        batch = None
        try:
            own = [
                batch
                for batch in target.batches
                if backends.computes(target.backend, batch.config.variety, batch.inputs)
            ]
            if target.batches and not own:
                raise NotRun("it computes none of the batches: their rule, or their costs of pairs")
            found = CHECKS[name](
                replace(target, batches=own, tell=partial(_tell, tell, f"{target.backend}, {name}"))
            )
            status, (detail, rows) = PASSED, (found, []) if isinstance(found, str) else found
        except NotRun as reason:
            status, detail = NOT_RUN, str(reason)
        except Wrong as error:
            status, detail, batch = FAILED, str(error), error.batch
        # a GPU, a driver and a compiler may fail in any way; the next check may still tell something
        except Exception as error:
            status, detail = FAILED, f"{type(error).__name__}: {error}"
        yield Finding(target.backend, name, status, detail, time.monotonic() - start, batch, rows)


def _tell(tell: Tell, what: str, note: str) -> None:
    tell(f"{what}: {note}")


def record(found: Sequence[Finding], target: Target) -> dict[str, Any]:
    """Findings as they are written to a file, with what they depend on."""
    settings = {"seed": target.seed, "seconds": target.seconds, "scenes": target.scenes, "long": target.long}
    return {
        "machine": facts(target.device) | {"device": str(target.device)},
        "settings": settings | {"batches": [batch.name for batch in target.batches]},
        "passed": not any(finding.status == FAILED for finding in found),
        "findings": [
            {f.name: getattr(finding, f.name) for f in fields(finding) if f.name != "batch"}
            for finding in found
        ],
    }


def known_answers(target: Target) -> str:
    """The problems that "auto" asks of a GPU; the verdict is kept for it."""
    try:
        presets = known.presets_of(target.backend)
        difference = known.difference(known.runner(target.backend), target.device, presets)
    except Exception as error:  # see auto: whatever stops a compiler, a driver or a launcher
        raise Wrong(auto.failure(error) if target.kernels else f"{type(error).__name__}: {error}") from error
    if target.device.type == "cuda" and target.backend == auto.KERNELS:
        with contextlib.suppress(OSError):  # a folder that cannot be written says nothing of the kernels
            verdicts.keep(verdicts.subject(target.device), verdicts.Verdict(difference))
    if difference is not None:
        raise Wrong(difference)
    return f"{len(presets)} problems"


def answers(target: Target) -> str:
    """Seeded scenes, or the batches that were given, against the float64 definition."""
    if target.batches:
        outcomes = (judged(batch, target.backend, target.device) for batch in target.batches)
        return _judged(target, zip(target.batches, outcomes, strict=True), "batches")
    return _scanned(target)


def aligned_answers(target: Target) -> str:
    """Seeded scenes of the task-aligned rule against the float64 definition."""
    if not _computes(target, "tal"):
        raise NotRun(f"backend {target.backend!r} does not compute the rule")
    return _scanned(target, 3, "task_aligned")


def _computes(target: Target, preset: str) -> bool:
    return known.config_of(preset).variety in backends.BACKENDS[target.backend].load


def same_bits_as_fused(target: Target) -> str:
    """Scenes on which both kernel backends must agree to the bit."""
    if target.backend != "triton-stream":
        raise NotRun("it is about backend 'triton-stream'")
    if target.batches:
        batches = [
            batch
            for batch in target.batches
            if backends.computes("triton", batch.config.variety, batch.inputs)
        ]
        if not batches:
            raise NotRun("backend 'triton' computes none of the batches")
        outcomes = (judged(batch, target.backend, target.device, twin="triton") for batch in batches)
        return _judged(target, zip(batches, outcomes, strict=True), "batches")
    return _scanned(target, 4, twin="triton")


def _scanned(target: Target, part: int = 1, rule: str = "simota", twin: str | None = None) -> str:
    """Judge seeded scenes of a rule: one in ``part`` of those that were asked for, or of the time."""
    check = partial(check_seed, backend=target.backend, device=str(target.device), twin=twin, rule=rule)
    scenes = None if target.scenes is None else -(-target.scenes // part)
    seconds = target.seconds / part if scenes is None else float("inf")
    seeds = islice(varied_seeds(target.seed, rule), scenes)
    return _judged(target, scan(check, seeds, target.workers, seconds), "scenes", rule)


def _judged(target: Target, outcomes: Iterator[tuple[Any, Any]], what: str, rule: str = "simota") -> str:
    """Count outcomes; the first that is wrong ends it, with its batch. Seeds are of scenes of a rule."""
    number = positives = excused = 0
    for source, outcome in outcomes:
        number += 1
        target.tell(f"{number} {what}")
        if outcome.unexplained:
            batch = source if isinstance(source, Recorded) else case_of(source, rule).batch()
            raise Wrong(f"{batch.name}: {outcome.unexplained[0]}", batch)
        positives, excused = positives + outcome.positives, excused + outcome.excused
    return f"{number} {what}, {positives} positives, {excused} near-ties, 0 unexplained"


FULL_SIZE = Workload("full size", 2, 640, 80, 80, 60, 60, 48.0, 0.8, "as large as a judge can take")


def full_size(target: Target) -> str:
    """Images of 640 pixels with 80 classes in the phases of a training."""
    if target.interpreted:
        raise NotRun("Triton's interpreter is too slow for it")
    every = [name for rule in ("simota", "task_aligned") for name in PRESETS[rule]]
    presets = [name for name in (every if target.long else known.PRESETS) if _computes(target, name)]
    calls = [(preset, phase) for preset in presets for phase in ("untrained", "mid", "trained")]
    batches = (recorded(FULL_SIZE, preset, phase, target.seed) for preset, phase in calls)
    return _judged(
        target, ((batch, judged(batch, target.backend, target.device)) for batch in batches), "batches"
    )


SMALL = Workload("small", 3, 320, 20, 12, 8, 8, 48.0, 0.7, "checks of behaviour")


def _small(target: Target, seed: int = 0, preset: str = "rtmdet") -> Recorded:
    """What the checks of behaviour compute."""
    return recorded(TINY if target.interpreted else SMALL, preset, seed=target.seed + seed)


def _forms(target: Target) -> dict[str, dict[str, Any]]:
    """The small batch with its gts handed over in each way in which nothing needs to wait."""
    padded = _small(target).on(target.device)
    gts = {name: padded.pop(name) for name in ("gt_boxes", "gt_labels", "gt_mask")}
    counts = gts["gt_mask"].sum(1).tolist()
    boxes, labels = (
        [row[:n] for row, n in zip(gts[name], counts, strict=True)] for name in ("gt_boxes", "gt_labels")
    )
    offsets = torch.tensor([0, *counts], dtype=torch.int64, device="cpu").cumsum(0).to(target.device)
    forms = {"padded": gts, "list": {"gt_boxes": boxes, "gt_labels": labels}}
    if target.backend == "triton-stream":  # the fused backend reads the offsets back
        forms["packed"] = {
            "gt_boxes": torch.cat(boxes),
            "gt_labels": torch.cat(labels),
            "gt_offsets": offsets,
        }
    return {name: padded | form for name, form in forms.items()}


def nothing_waits(target: Target) -> str:
    """Calls under ``torch.cuda.set_sync_debug_mode("error")``."""
    target.need_gpu()
    target.need_kernels("reads values on the host")
    forms = _forms(target)
    presets = [name for name in ("rtmdet", "tal") if _computes(target, name)]
    for preset in presets:
        assigner = assigner_of(known.config_of(preset), backend=target.backend)
        for name, inputs in forms.items():
            assigner(**inputs)
            try:
                with debug_mode("error"):
                    assigner(**inputs)
            except RuntimeError as error:
                raise Wrong(f"{preset}, gts {name}: {error}") from error
    return f"{len(presets)} presets, gts {', '.join(forms)}"


def graph_replays(target: Target) -> str:
    """A captured call, replayed on changed inputs, gives what a call of its own gives."""
    target.need_gpu()
    target.need_kernels("cannot be captured")
    target.need_cached_memory()
    presets = [name for name in ("rtmdet", "super_gradients_fast", "tal") if _computes(target, name)]
    for preset in presets:
        assigner = assigner_of(known.config_of(preset), backend=target.backend)
        static = _small(target, preset=preset).on(target.device)
        with torch.cuda.device(target.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                assigner(**static)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                captured = assigner(**static)
            for seed in (1, 2, 3):
                batch = _small(target, seed, preset)
                fresh = batch.on(target.device)
                for name, value in static.items():
                    value.copy_(fresh[name])
                graph.replay()
                different = differing(captured, assigner(**fresh))
                if different:
                    raise Wrong(f"{preset}: {different[0]} differs from an eager call's", batch)
    return f"{len(presets)} presets, 3 replays each"


def same_bits_each_time(target: Target) -> str:
    """One input, ``RUNS`` times."""
    batch = target.batches[0] if target.batches else _small(target)
    assigner, inputs = assigner_of(batch.config, backend=target.backend), batch.on(target.device)
    first = assigner(**inputs)
    for run in range(1, RUNS):
        target.tell(f"run {run} of {RUNS}")
        different = differing(first, assigner(**inputs))
        if different:
            raise Wrong(f"run {run}: {different[0]} has other bits than the first time", batch)
    return f"{RUNS} runs"


def second_gpu(target: Target) -> str:
    """Tensors on a GPU that is not the current one."""
    target.need_gpu()
    here = torch.device("cuda", torch.cuda.current_device())
    others = (
        torch.device("cuda", index) for index in range(torch.cuda.device_count()) if index != here.index
    )
    there = next((other for other in others if Gpu.of(other) == Gpu.of(here)), None)
    if there is None:
        raise NotRun(
            "it needs a second GPU like the first: approximate units of another model may round otherwise"
        )
    batch = _small(target)
    results = [
        on_host(assigner_of(batch.config, backend=target.backend)(**batch.on(device)))
        for device in (here, there)
    ]
    if torch.cuda.current_device() != here.index:
        raise Wrong(f"the current device was {here} and is now {torch.cuda.current_device()}")
    different = differing(*results)
    if different:
        raise Wrong(f"{different[0]} on {there} differs from {here}", batch)
    return f"{there} while {here} is current"


def memory(target: Target) -> str:
    """What a call allocates at most, beside what the backend promises."""
    target.need_gpu()
    target.need_kernels("promises no bound")
    target.need_cached_memory()
    batch, config = recorded(WORKLOADS["coco"], "rtmdet", seed=target.seed), SimOTAConfig.rtmdet()
    problem = batch.problem(target.device)
    backends.assign(target.backend, problem, config)
    peak = peak_bytes(lambda: backends.assign(target.backend, problem, config), target.device)
    promised = _outputs(problem) + (_stream_scratch if target.backend == "triton-stream" else _matrices)(
        problem, config
    )
    if peak > promised:
        raise Wrong(f"{peak / 1e6:.2f} MB for the coco workload, {promised / 1e6:.2f} MB are promised", batch)
    return f"{peak / 1e6:.2f} MB of {promised / 1e6:.2f} MB promised for the coco workload"


def _outputs(problem: Problem) -> int:
    """Bytes of a matching and its labels."""
    batch, num_priors, _ = problem.shape
    return batch * num_priors * (8 + 8 + 4 + 4) + 8 * problem.gts.boxes.shape[0]


def _stream_scratch(problem: Problem, config: SimOTAConfig) -> int:
    from ..kernels.stream.grid import find_grid
    from ..kernels.stream.scratch import scratch_bytes, scratch_parts

    batch, num_priors, _ = problem.shape
    num_gts = problem.gts.boxes.shape[0]
    shape = Shape(batch, num_priors, num_gts)
    kernels = configuration("triton-stream", problem.priors.device, shape)
    levels = tuple(level.shape[1] for level in problem.cls_logits.levels)
    grid = find_grid(problem.cells or (), kernels.tile, levels)
    return scratch_bytes(scratch_parts(batch, num_priors, num_gts, config, grid, kernels))


def _matrices(problem: Problem, config: SimOTAConfig) -> int:
    batch, num_priors, _ = problem.shape
    return triton_fused.BYTES_A_PAIR * batch * num_priors * problem.gts.padded_rows()[0].shape[1]


def times(target: Target) -> tuple[str, list[dict[str, Any]]]:
    """Named workloads beside plain PyTorch, as ``simota-triton bench`` times them."""
    from ..measure.cases import PLAIN, cases, measure

    if target.interpreted:
        raise NotRun("Triton's interpreter has no speed worth measuring")
    names = [name for name, workload in WORKLOADS.items() if workload.padded] if target.long else ["coco"]
    if target.device.type != "cuda" and not target.long:
        names = []
    workloads = [WORKLOADS[name] for name in names] or [WORKLOADS["coco"].with_batch(4)]
    rows: list[dict[str, Any]] = []
    told = []
    with torch.no_grad():
        for workload in workloads:
            target.tell(workload.name)
            batch = recorded(workload, "rtmdet", seed=target.seed)
            expected = assigner_of(batch.config, backend="torch")(**batch.on(target.device)).gt_index
            named = cases(batch, target.device, [target.backend])
            found = measure(named, target.device, rounds=15, seconds=5.0, expected=expected)
            rows += [
                {"workload": workload.name, "batch": workload.batch, "backend": target.backend, **row}
                for row in found
            ]
            ms = {row["case"]: row["median_ms"] for row in found}
            told.append(
                f"{workload.name}, B = {workload.batch}: {ms[target.backend]:.3g} ms, "
                f"plain PyTorch {ms[PLAIN]:.3g} ms ({ms[PLAIN] / ms[target.backend]:.1f}x)"
            )
    return "; ".join(told), rows


CHECKS: dict[str, Check] = {
    "known answers": known_answers,
    "answers": answers,
    "answers, task-aligned": aligned_answers,
    "bits of 'triton'": same_bits_as_fused,
    "full size": full_size,
    "nothing waits": nothing_waits,
    "graph replays": graph_replays,
    "same bits each time": same_bits_each_time,
    "second GPU": second_gpu,
    "memory": memory,
    "times": times,
}
"""What is checked, in this order."""

OF_BATCHES = ("answers", "bits of 'triton'", "same bits each time")
"""What can be checked of batches from elsewhere."""


def names_of(target: Target) -> Sequence[str]:
    """The checks that a target is for."""
    return OF_BATCHES if target.batches else tuple(CHECKS)
