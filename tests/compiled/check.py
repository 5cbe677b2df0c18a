"""Both backends, as compiled, on one of the project's seeded scenes: held to the torch backend, to each other
and to their own findings.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from simota_triton.backends import computes
from simota_triton.config import Config, SimOTAConfig
from simota_triton.kernels.races import Race
from simota_triton.tuning.families import FAMILIES
from simota_triton.verification.judge import judge
from simota_triton.verification.scenes import JUNK_BOXES, Scene, make_scene

from .backends import (
    BACKENDS,
    answer,
    beyond_rounding,
    differences,
    gpu,
    labels_of,
    meant,
    packed,
    unexpected,
)
from .emulator import Findings, Settings, add
from .ptx import Line

INTERLEAVINGS = (
    Settings(
        order="random", lanes="converge", quantum=1, inflight=16, approximation="exact", garbage="random"
    ),
    Settings(
        order="random", lanes="diverge", quantum=40, inflight=8, approximation="extreme", garbage="random"
    ),
    Settings(
        order="backward", lanes="scatter", quantum=1, inflight=64, approximation="exact", garbage="ones"
    ),
    Settings(order="random", lanes="scatter", quantum=3, inflight=32, approximation="hash", garbage="random"),
    Settings(
        order="forward", lanes="converge", quantum=1, inflight=200, approximation="extreme", garbage="zeros"
    ),
)
"""Of any three in a row, one has exact units and one has wrong ones."""

NEGATIVE = (-30.0, -104.0, -1e4, -3e38)
"""What very negative logits are lowered by; the sigmoid of the last three is 0."""

JUNK = (*JUNK_BOXES[:3], (-3e38, -3e38, 3e38, 3e38), (5.0, 5.0, 5.0, 5.0), (20.0, 20.0, 4.0, 4.0))


@dataclass(frozen=True)
class Case:
    """One scene under one configuration and in one form, on one GPU.

    Attributes:
        seed: Of the scene, and of the order of programs.
        config: The configuration.
        form: How gts are handed over, see ``scenes.FORMS``.
        layout: How logits are, see ``scenes.LAYOUTS``; "far": with strides beyond 32 bits.
        capability: Compute capability, as 90.
        turns: How many of ``INTERLEAVINGS``, from the seed's on.
        junk: Whether some gts are unusable; they have to take no part.
        negative: Whether logits are very negative.
        vary: Whether launch parameters are random ones.
        kernels: Backend -> launch parameters, other than those for the GPU.
    """

    seed: int
    config: Config
    form: str = "list"
    layout: str = "flat"
    capability: int = 90
    turns: int = 3
    junk: bool = False
    negative: bool = False
    vary: bool = False
    kernels: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        said = [f"{self.config}", self.form, self.layout, f"sm_{self.capability}"]
        said += [name for name in ("junk", "negative", "vary") if getattr(self, name)]
        return f"seed {self.seed}, {', '.join(said)}{''.join(f', {kernels}' for _, kernels in self.kernels)}"


@dataclass
class Outcome:
    """What came of cases.

    Attributes:
        counts: Cases ("cases"), assignments ("runs"), those equal to the torch backend ("equal") and those
            that the judge of near-ties excuses ("excused"), instructions of warps ("instructions").
        complaints: What must not be.
        races: How often each meant race occurred.
        lines: How often instructions of each line of a kernel ran, those that did not included.
    """

    counts: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    races: Counter[Race] = field(default_factory=Counter)
    lines: Counter[tuple[str, Line]] = field(default_factory=Counter)

    def add(self, more: Outcome) -> None:
        """Adds up."""
        self.counts.update(more.counts)
        self.complaints += more.complaints
        self.races.update(more.races)
        self.lines.update(more.lines)


def check(case: Case) -> Outcome:
    """Runs a case. Nothing is raised: what fails is a complaint that names the case."""
    outcome = Outcome(Counter(cases=1))
    torch.set_num_threads(1)
    try:
        _check(case, outcome)
    except Exception as error:  # the case is what one needs to know
        outcome.complaints.append(f"{type(error).__name__}: {error}")
    outcome.complaints = [f"{case}: {complaint}" for complaint in outcome.complaints]
    return outcome


def _check(case: Case, outcome: Outcome) -> None:
    config, rng = case.config, random.Random(f"{case.seed} {case.config}")
    args, kwargs = _inputs(case, rng)
    problem = packed(config, args, kwargs)
    chosen = (
        {backend: random_launch(backend, rng) for backend in BACKENDS} if case.vary else dict(case.kernels)
    )
    expected = answer("torch", problem, config)
    names = [backend for backend in BACKENDS if computes(backend, config.variety, ())]
    first: dict[str, Any] = {}
    findings: Findings = {}
    for turn in range(case.turns):
        settings = replace(INTERLEAVINGS[(case.seed + turn) % len(INTERLEAVINGS)], seed=10 * case.seed + turn)
        for backend in names:
            with gpu(case.capability, settings) as emulator:
                found = answer(backend, problem, config, chosen.get(backend))
            for finding in emulator.findings.values():
                add(findings, finding)
            outcome.counts.update(runs=1, instructions=emulator.counts["steps"])
            outcome.lines.update(emulator.lines())
            # approximate units decide near-ties; nothing else may change an answer
            other, same = first.setdefault(settings.approximation, (backend, found))
            unequal = differences(found, same)
            if unequal:
                outcome.complaints.append(f"{backend} differs from {other} under {settings}: {unequal}")
            # torch's CIoU is rounded in another order
            compared = differences if isinstance(config, SimOTAConfig) else beyond_rounding
            wrong = compared(found, expected)
            outcome.counts["equal"] += not wrong
            if wrong:
                verdict = judge(found, problem, config)
                lines = verdict.unexplained[:3] or ["labels: not those of gt_index"] * bool(
                    (found.labels != labels_of(problem, found.gt_index)).any()
                )
                outcome.counts["excused"] += not lines
                outcome.complaints += [f"{backend} under {settings}: {line}" for line in lines]
    outcome.complaints += map(str, unexpected(findings.values()))
    for finding in findings.values():
        race = meant(finding)
        if race is not None:
            outcome.races[race] += finding.count


def _inputs(case: Case, rng: random.Random) -> tuple[Any, dict[str, Any]]:
    scene = make_scene(case.seed)
    if case.junk:
        _spoil(scene, rng)
    if case.negative:
        for logits in (scene.cls_logits, scene.obj_logits):
            logits += rng.choice(NEGATIVE[: 2 if logits.dtype == torch.float16 else 4])
    args, kwargs = scene.inputs(case.config.score, case.form, "flat" if case.layout == "far" else case.layout)
    if case.layout == "far":
        args = (args[0], _far_apart(args[1]), *args[2:])
    return args, kwargs


def _spoil(scene: Scene, rng: random.Random) -> None:
    """Makes some gts unusable."""
    for boxes, labels in zip(scene.gt_boxes, scene.gt_labels, strict=True):
        for g in range(len(boxes)):
            kind = rng.randrange(6)
            if kind == 0:
                boxes[g] = torch.tensor(rng.choice(JUNK))
            elif kind == 1:
                labels[g] = rng.choice(
                    [-1, scene.num_classes, scene.num_classes + 1, 1 << 32, 1 << 40, -(1 << 62)]
                )


def _far_apart(logits: torch.Tensor) -> torch.Tensor:
    """The same logits with classes so far apart that the last one lies beyond 2^31 elements; the memory
    between is never touched.
    """
    batch, num_priors, channels = logits.shape
    stride = (1 << 31) // max(channels - 1, 1) + 64
    memory = torch.empty(stride * max(channels - 1, 1) + batch * num_priors, dtype=logits.dtype)
    view = memory.as_strided((batch, num_priors, channels), (num_priors, 1, stride))
    view.copy_(logits)
    return view


def random_launch(backend: str, rng: random.Random) -> Any:
    """Launch parameters from the space that is tuned."""
    family = FAMILIES[backend]
    while True:
        axes = {name: rng.choice(values) for stage in family.stages for name, values in stage.items()}
        try:
            return family.config(**axes)
        except ValueError:  # fields that do not go together
            continue
