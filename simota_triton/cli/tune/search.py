"""The search for the fastest launch parameters: candidates are pruned by their machine code, checked against
the default's bits, and timed beside the default.

A few candidates at a time are timed in turns with the default, and each is judged by the ratio of its time to
the default's in the same turns. A clock that drifts, or an interruption between two groups, changes both
alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch

from ...config import SimOTAConfig
from ...measure.timing import Timer
from ...problem import Problem
from .families import Tunable
from .journal import Journal
from .model import Static

TOGETHER = 8
"""How many candidates are timed in turns with each other and the default."""

FINALISTS = 4
"""How many candidates are timed again at the end, in three times the rounds, together with the combination of
the best of every stage.
"""

NOISE = 1.02
"""A candidate must be faster than the default by this factor to replace it."""


class Task(NamedTuple):
    """One batch to tune for."""

    name: str
    problem: Problem
    config: SimOTAConfig


@dataclass
class Progress:
    """How far a sweep is.

    Attributes:
        total: Number of candidates to run.
        done: How many of them are measured or thrown out.
        best: The fastest so far.
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
        winner: The fastest candidate; the default itself where none is faster by more than ``NOISE``.
        default_ms: The default's median time.
        median_ms: The winner's median time.
        measured: Number of candidates that were timed.
        pruned: Candidate that was not run -> why.
        differing: Candidate that gave other bits than the default, or failed -> which of the two, and how.
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
    """The candidates that are worth running, the default first, and why each of the others is not.

    Args:
        family: The kernels.
        candidates: Launch parameters, the default first. It is always kept.
        reports: Their static reports, in the same order.
        keep: How many candidates of each stage are kept: the best by the static model.
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
    """Check and time the candidates.

    Args:
        task: The batch, on the device that computes.
        family: The kernels.
        candidates: Launch parameters, the default first.
        timer: Times single runs.
        journal: Records of this run so far; open.
        rounds: How many times each candidate is timed.
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
    """``rounds`` times of each candidate, in ms, taken in turns: one run of each, then again."""

    def launching(kernels: Any) -> Callable[[], object]:
        return lambda: family.launch(task.problem, task.config, kernels)

    runs = {candidate: timer.prepare(launching(candidate)) for candidate in candidates}
    times: dict[Any, list[float]] = {candidate: [] for candidate in candidates}
    for _ in range(rounds):
        for candidate, run in runs.items():
            times[candidate].append(run())
    return times


def _failure(family: Tunable, task: Task, candidate: Any, expected: Sequence[torch.Tensor]) -> str | None:
    """Why a candidate is thrown out: it fails, or gives other bits than the default; else None."""
    try:
        found = family.launch(task.problem, task.config, candidate)
        same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    except Exception as error:  # the base of Triton's errors, such as the one about too few resources
        return f"failed: {error}"
    return None if same else "gave other bits than the default"


def _combine(family: Tunable, default: Any, ratios: dict[Any, float]) -> Any:
    """The default with each stage's fields taken from the best candidate that changes this stage alone."""
    combined = default
    for axes in family.stages:
        others = [name for other in family.stages if other is not axes for name in other]
        own = [c for c in ratios if all(getattr(c, name) == getattr(default, name) for name in others)]
        best = min(own, key=lambda candidate: ratios[candidate], default=default)
        if best in ratios and ratios[best] < 1:
            combined = replace(combined, **{name: getattr(best, name) for name in axes})
    return combined
