"""The sweep: candidates pruned by their machine code, held to the default's bits, and timed beside it.

Every candidate is timed in turns with the default, a few candidates at a time, and counts by its ratio to the
default in the same turns: clocks that drift, or a run that was interrupted and resumed, shift both alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch

from ...config import SimOTAConfig
from ...inputs import Problem
from ...measure.timing import Timer
from .families import Tunable
from .journal import Journal
from .model import Static

TOGETHER = 8
"""Candidates that are timed in turns with each other and the default."""

FINALISTS = 4
"""Candidates that are timed again at the end, together with the best of every stage combined, in three times
the rounds.
"""

NOISE = 1.02
"""Speed-up below which the default stays."""


class Task(NamedTuple):
    """One batch to tune for."""

    name: str
    problem: Problem
    config: SimOTAConfig


@dataclass
class Progress:
    """How far a sweep is.

    Attributes:
        total: Candidates to run.
        done: Of them, how many are measured or thrown out.
        best: The best so far.
        speed_up: Its speed-up over the default.
    """

    total: int
    done: int
    best: Any
    speed_up: float


@dataclass
class Outcome:
    """What a sweep found.

    Attributes:
        default: The heuristic's launch parameters.
        winner: The fastest that gives the default's bits; the default where nothing is faster by more than
            noise.
        default_ms: Median.
        median_ms: The winner's.
        measured: Candidates that were timed.
        pruned: Candidates that were not run, with the reason.
        differing: Candidates that gave other bits than the default or failed, with what they did.
    """

    default: Any
    winner: Any
    default_ms: float
    median_ms: float
    measured: int
    pruned: dict[Any, str] = field(default_factory=dict)
    differing: dict[Any, str] = field(default_factory=dict)

    @property
    def speed_up(self) -> float:
        """Of the winner over the default."""
        return self.default_ms / self.median_ms


def prune(
    family: Tunable,
    candidates: Sequence[Any],
    reports: Iterable[Static],
    keep: int,
    on_report: Callable[[], None],
) -> tuple[list[Any], dict[Any, str]]:
    """Candidates worth running, the default first, and why the others are not.

    Args:
        family: The kernels.
        candidates: Launch parameters, the default first. It is always kept.
        reports: Their static reports.
        keep: How many candidates of each stage to keep: the best by the static model.
        on_report: Called after each report.
    """
    default = candidates[0]
    ranked: list[list[tuple[float, int, Any]]] = [[] for _ in family.stages]
    pruned: dict[Any, str] = {}
    known: dict[Any, Any] = {}
    for index, (candidate, report) in enumerate(zip(candidates, reports, strict=True)):
        on_report()
        if report.refusal is not None:
            if candidate != default:
                pruned[candidate] = report.refusal
            continue
        same = known.setdefault((report.code, report.cycles), candidate)
        if same != candidate:
            pruned[candidate] = f"the same machine code as {same}"
        elif candidate != default:
            ranked[family.stage_of(candidate, default)].append((report.cycles or 0.0, index, candidate))
    kept = [default]
    for stage in ranked:
        stage.sort()
        kept += [candidate for _, _, candidate in stage[:keep]]
        pruned |= {
            candidate: f"not among the {keep} best of the static model" for _, _, candidate in stage[keep:]
        }
    return kept, pruned


def sweep(
    task: Task, family: Tunable, candidates: Sequence[Any], timer: Timer, journal: Journal, rounds: int,
    on_progress: Callable[[Progress], None],
) -> Outcome:  # fmt: skip
    """Verify and time the candidates.

    Args:
        task: The batch, where it is to be computed.
        family: The kernels.
        candidates: Launch parameters, the default first.
        timer: Times single runs.
        journal: Records of this run so far; open.
        rounds: Turns.
        on_progress: Called whenever candidates are done.
    """
    default = candidates[0]
    expected = [value.clone() for value in family.launch(task.problem, task.config, default)]
    ratios: dict[Any, float] = {}
    differing: dict[Any, str] = {}
    progress = Progress(len(candidates) - 1, 0, default, 1.0)

    def take(record: dict[str, Any]) -> None:
        candidate = family.config(**record["config"])
        if "failed" in record:
            differing[candidate] = record["failed"]
        else:
            ratios[candidate] = record["ratio"]
        progress.done = len(ratios.keys() - {default}) + len(differing)
        if ratios:
            progress.best = min(ratios, key=lambda candidate: ratios[candidate])
            progress.speed_up = max(1.0, 1 / ratios[progress.best])
            if progress.speed_up == 1.0:
                progress.best = default

    for known in journal.records:
        take(known)
    on_progress(progress)
    missing = [
        candidate for candidate in candidates[1:] if candidate not in ratios and candidate not in differing
    ]
    for start in range(0, len(missing), TOGETHER):
        chunk = missing[start : start + TOGETHER]
        failures = {candidate: _failure(family, task, candidate, expected) for candidate in chunk}
        sound = [candidate for candidate in chunk if failures[candidate] is None]
        times = interleaved(family, task, [default, *sound], timer, rounds)
        for candidate in chunk:
            record: dict[str, Any] = {"config": asdict(candidate)}
            if failures[candidate] is not None:
                record["failed"] = failures[candidate]
            else:
                record["ratio"] = statistics.median(times[candidate]) / statistics.median(times[default])
            journal.add(record)
            take(record)
        on_progress(progress)

    finalists = sorted(ratios, key=lambda candidate: ratios[candidate])[:FINALISTS]
    combined = _combine(family, default, ratios)
    if (
        combined not in finalists
        and combined != default
        and _failure(family, task, combined, expected) is None
    ):
        finalists.append(combined)
    times = interleaved(family, task, [default, *finalists], timer, 3 * rounds)
    medians = {candidate: statistics.median(values) for candidate, values in times.items()}
    winner = min(medians, key=lambda candidate: medians[candidate])
    if medians[default] < NOISE * medians[winner]:
        winner = default
    return Outcome(default, winner, medians[default], medians[winner], len(ratios), {}, differing)


def interleaved(
    family: Tunable, task: Task, candidates: Sequence[Any], timer: Timer, rounds: int
) -> dict[Any, list[float]]:
    """Times of each candidate in ms, in turns: one run of each, then again."""

    def launching(kernels: Any) -> Callable[[], object]:
        return lambda: family.launch(task.problem, task.config, kernels)

    runs = {candidate: timer.prepare(launching(candidate)) for candidate in candidates}
    times: dict[Any, list[float]] = {candidate: [] for candidate in candidates}
    for _ in range(rounds):
        for candidate, run in runs.items():
            times[candidate].append(run())
    return times


def _failure(family: Tunable, task: Task, candidate: Any, expected: Sequence[torch.Tensor]) -> str | None:
    """What a candidate does that the default does not, or None."""
    try:
        found = family.launch(task.problem, task.config, candidate)
        same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    except Exception as error:  # Triton's errors, as that of too few resources, have no other base
        return f"failed: {error}"
    return None if same else "gave other bits than the default"


def _combine(family: Tunable, default: Any, ratios: dict[Any, float]) -> Any:
    """The default with the fields of the best candidate of each stage."""
    combined = default
    for axes in family.stages:
        others = [name for other in family.stages if other is not axes for name in other]
        own = [c for c in ratios if all(getattr(c, name) == getattr(default, name) for name in others)]
        best = min(own, key=lambda candidate: ratios[candidate], default=default)
        if best in ratios and ratios[best] < 1:
            combined = replace(combined, **{name: getattr(best, name) for name in axes})
    return combined
