"""One seed, one call of an assigner: a scene, the configuration it runs under and the form in which it is
handed over.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..assigners import assigner_of
from ..capture import Recorded
from ..config import Config
from ..inputs import pack
from ..result import AssignResult
from .judge import Verdict, judge
from .scenes import FORMS, LAYOUTS, Scene, make_scene
from .variants import PRESETS, SCENES, config_of

SPOILT = 0.15
"""Share of the calls that are spoilt, see :meth:`Scene.spoil`."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
        seed: What made it.
        scene: Its inputs.
        config: The assigner's configuration.
        form: How gts are handed over, one of ``FORMS``.
        layout: How logits are handed over, one of ``LAYOUTS``.
        spoilt: Whether priors that gts claim were given values that are not finite.
    """

    seed: int
    scene: Scene
    config: Config
    form: str
    layout: str
    spoilt: bool = False

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.scene.family}, {self.config}, {self.form}, {self.layout}"
            + ", spoilt" * self.spoilt
        )

    def batch(self) -> Recorded:
        """The call as a batch that can be written to a file."""
        positional, named = self.scene.inputs(self.config.score, self.form, self.layout)
        names = ("pred_boxes", "cls_logits", "priors", "gt_boxes", "gt_labels")
        inputs: dict[str, Any] = dict(zip(names, positional, strict=True)) | {
            k: v for k, v in named.items() if v is not None
        }
        return Recorded(str(self), self.config, inputs)


def case_of(seed: int, rule: str = "simota") -> Case:
    """The call of this seed: every family meets every preset, then in another form and layout."""
    families = SCENES[rule]
    form, layout = mixed(seed // len(families) // len(PRESETS[rule]), FORMS, LAYOUTS)
    config, rng = config_of(seed, rule), random.Random(seed)
    spoilt = rng.random() < SPOILT
    scene = make_scene(seed, families[seed % len(families)])
    if config.boxes == "rotated":
        scene.turn()
    if config.rule == "task_aligned":
        scene.gt_centers = None
        if not config.asks_for_strides and rng.random() < 0.5:
            scene.priors = scene.priors[:, :2]
    if spoilt:
        scene.spoil(scene.call(assigner_of(config, backend="reference")).claims)
    return Case(seed, scene, config, form, layout, spoilt)


def varied_seeds(start: int = 0, rule: str = "simota") -> Iterator[int]:
    """Seeds of calls that differ in family and preset from each to the next, so that few of them see much."""
    families = SCENES[rule]
    for turn in count(start):
        yield turn * len(families) + families.index(mixed(turn, PRESETS[rule], families)[1])


def mixed(index: int, first: Sequence[A], second: Sequence[B]) -> tuple[A, B]:
    """The pair of this index, of all pairs in an order in which both parts change from each to the next.

    Example:
        >>> [mixed(i, "abcd", "xy") for i in range(5)]
        [('a', 'x'), ('b', 'y'), ('c', 'x'), ('d', 'y'), ('a', 'y')]
    """
    shift = index // math.lcm(len(first), len(second))
    return first[index % len(first)], second[(index + shift) % len(second)]


class Outcome(NamedTuple):
    """What the judge says of a batch, or what stopped it.

    Attributes:
        positives: Positives of the float64 definition.
        excused: Priors with another answer, proven a near-tie.
        unexplained: One line for each thing that is wrong; empty for a right answer.
    """

    positives: int
    excused: int
    unexplained: list[str]


def judged(
    batch: Recorded,
    backend: str,
    device: torch.device,
    *,
    twin: str | None = None,
    kernels: Any = None,
    validate: bool | None = False,
) -> Outcome:
    """The answer of a backend, judged in float64 on the CPU.

    Args:
        batch: The call.
        backend: Who answers.
        device: Where.
        twin: A backend that must give the same bits; None: none.
        kernels: Launch parameters; None: those that the backend picks.
        validate: As of the assigner, for it and for the judge.
    """
    try:
        result = answer(batch, backend, device, kernels, validate)
        different = [] if twin is None else differing(result, answer(batch, twin, device, None, validate))
        verdict: Verdict = judge(result, pack(batch.config, **batch.inputs, validate=validate), batch.config)
    except Exception as error:  # what one needs to know is the batch
        return Outcome(0, 0, [f"{type(error).__name__}: {error}"])
    return Outcome(
        verdict.positives,
        verdict.excused,
        [*verdict.unexplained, *(f"{name}: not the bits of {twin!r}" for name in different)],
    )


def answer(
    batch: Recorded, backend: str, device: torch.device, kernels: Any = None, validate: bool | None = False
) -> AssignResult:
    """The result of a backend, with its tensors on the CPU."""
    return on_host(
        assigner_of(batch.config, backend=backend, kernels=kernels, validate=validate)(**batch.on(device))
    )


def on_host(result: AssignResult) -> AssignResult:
    """A result with its tensors on the CPU."""
    moved: dict[str, Any] = {name: value.cpu() for name, value in tensors_of(result).items()}
    return replace(result, **moved)


def tensors_of(result: AssignResult) -> dict[str, Tensor]:
    """The tensors of a result by name."""
    found = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def differing(first: AssignResult, second: AssignResult) -> list[str]:
    """The names of the tensors in which two results differ by a bit."""
    others = tensors_of(second)
    return [name for name, value in tensors_of(first).items() if not torch.equal(value, others[name])]
