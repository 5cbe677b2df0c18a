"""What a trainer of the task-aligned family is: an original loss, run as its own trainer runs it, with the
original's assigner and with ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from simota_triton import AssignResult, TaskAlignedAssigner, TaskAlignedConfig
from simota_triton.inputs import pack
from simota_triton.problem import Problem
from tests.peers.aligned import Targets, Verdict, scores_differ
from tests.peers.scenes import Scene, make_scene

from .parity import LossTally


class AlignedTrainer(ABC):
    """An original loss.

    Attributes:
        name: Class, as in the package.
        package: Distribution and version.
        reads_zeros: Positives of score 0 count in the loss, as in means over positives.
        offset: Where in its cell a prior lies.
        variants: Arguments of the loss, taken in turn.
        relative_error: Of losses and gradients where both assignments are the same: targets differ by a
            rounding, and sums are taken in another order.
    """

    name: str
    package: str
    reads_zeros = False
    strides: tuple[int, ...] = (8, 16, 32)
    offset = 0.5
    variants: tuple[dict[str, Any], ...] = ({},)
    relative_error = 2e-5

    @abstractmethod
    def load(self) -> None:
        """Load the package's modules; raises ``Missing``."""

    @abstractmethod
    def make(self, num_classes: int, **arguments: Any) -> Any:
        """The loss, or the head that computes it."""

    @abstractmethod
    def predictions(self, scene: Scene) -> Any:
        """What the network would hand the loss so that it sees the scene's predictions."""

    @abstractmethod
    def loss(self, made: Any, predictions: Any, scene: Scene) -> dict[str, Tensor]:
        """The terms of the loss, the total as ``"total"``."""

    @abstractmethod
    def assigning(self, made: Any, *, ours: bool) -> AbstractContextManager[list[Targets]]:
        """In the block the loss assigns by the original, or by ours; collects what each call assigned."""


@contextmanager
def listening(
    owner: Any, name: str, targets: Callable[[Any, tuple[Any, ...]], Targets]
) -> Iterator[list[Targets]]:
    """Collects ``targets(result, args)`` of what ``owner.name`` returns."""
    heard: list[Targets] = []
    call = getattr(owner, name)

    def listen(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        heard.append(Targets(*(value.clone() for value in targets(result, args))))  # losses go on in place
        return result

    with mock.patch.object(owner, name, listen):
        yield heard


@contextmanager
def hearing() -> Iterator[list[tuple[TaskAlignedConfig, Problem]]]:
    """Collects what our assigner is asked, as lists of gts."""
    calls: list[tuple[TaskAlignedConfig, Problem]] = []
    call = TaskAlignedAssigner.__call__

    def listen(self: TaskAlignedAssigner, *args: Any, **kwargs: Any) -> AssignResult:
        problem = pack(
            self.config, *(own.clone() if isinstance(own, Tensor) else own for own in args), **kwargs
        )
        row, valid = problem.gts.padded_rows()
        rows = [row[b, valid[b]] for b in range(len(row))]
        boxes, labels = ([values[own] for own in rows] for values in (problem.gts.boxes, problem.gts.labels))
        logits = problem.cls_logits.dense()
        calls.append((
            self.config, pack(self.config, problem.pred_boxes, logits, problem.priors, boxes, labels)
        ))  # fmt: skip
        return call(self, *args, **kwargs)

    with mock.patch.object(TaskAlignedAssigner, "__call__", listen):
        yield calls


def compare_aligned(trainer: AlignedTrainer, seeds: Iterable[int]) -> LossTally:
    """Compare on the scenes of ``seeds``."""
    tally = LossTally()
    for seed in seeds:
        scene = make_scene(seed, trainer.strides, trainer.offset, inverted=False)
        compare_on(trainer, scene, trainer.variants[seed // 7 % len(trainer.variants)], tally)
    return tally


def compare_on(trainer: AlignedTrainer, scene: Scene, arguments: dict[str, Any], tally: LossTally) -> None:
    """Compare on one scene: judge every prior of both answers, and hold losses against each other where the
    same is learnt.
    """
    made = trainer.make(scene.num_classes, **arguments)
    with hearing() as calls, trainer.assigning(made, ours=True) as ours:
        values = run(trainer, made, scene)
    with trainer.assigning(made, ours=False) as theirs:
        expected = run(trainer, made, scene)
    where = f"scene {scene.seed}"
    tally.scenes += 1
    differing, zeros, apart = judge_calls(calls, theirs, ours, where, tally)
    if differing > zeros or (differing and trainer.reads_zeros):
        return
    tally.same_loss += 1
    error = trainer.relative_error + 4 * apart
    for name, value in expected.items():
        scale = value[value.isfinite()].abs().max() if value.isfinite().any() else 0.0
        found = values.get(name, torch.zeros_like(value))  # without a positive some losses leave a branch out
        if not torch.allclose(found, value, rtol=error, atol=float(scale) * error, equal_nan=True):
            worst = float((found - value).abs().nan_to_num().max())
            tally.unexplained.append(f"{where}, {name}: differs by {worst:.3g} of {float(scale):.3g}")


def judge_calls(
    calls: list[tuple[TaskAlignedConfig, Problem]],
    theirs: list[Targets],
    ours: list[Targets],
    where: str,
    tally: LossTally,
) -> tuple[int, int, float]:
    """Judge every prior of both answers to some calls.

    Returns:
        How many priors differ, how many of them the original scores at 0, and how far the targets of the
        others are apart, relative to a call's largest: 1e-6, but where float32 leaves CIoU of specks open.
    """
    apart = 0.0
    counted = torch.zeros(2, dtype=torch.int64)
    for (config, problem), original, mine in zip(calls, theirs, ours, strict=True):
        counts = problem.gts.offsets.diff().tolist()
        asked: Any = SimpleNamespace(
            gt_boxes=problem.gts.boxes.split(counts), gt_labels=problem.gts.labels.split(counts)
        )
        first, second = original.owners(asked), mine.owners(asked)
        zero = original.fg_mask & (original.scores == 0)
        differing = first != second
        counted += torch.stack([differing.sum(), (differing & zero).sum()])
        tally.positives += int(original.fg_mask.sum())
        if original.scores.numel():
            distance = torch.where(differing, 0.0, original.scores - mine.scores).abs()
            apart = max(apart, float(distance.max() / original.scores.max().clamp(min=1e-30)))
        if differing.any() or apart > 1e-6:
            verdict = Verdict(problem, config, asked)
            tally.unexplained += verdict.of(first, f"{where}, original", ~zero)
            tally.unexplained += verdict.of(second, f"{where}, ours", torch.ones_like(zero))
            tally.unexplained += scores_differ(asked, original, mine, zero, verdict.doubt, where)
    differing, zeros = counted.tolist()
    tally.differing += differing
    tally.documented += zeros
    tally.excused += differing - zeros
    return differing, zeros, apart


def run(trainer: AlignedTrainer, made: Any, scene: Scene) -> dict[str, Tensor]:
    """Terms of the loss, and the gradients of the total."""
    predictions = trainer.predictions(scene)
    terms = trainer.loss(made, predictions, scene)
    terms["total"].backward()
    leaves = [leaf for leaf in tree_leaves(predictions) if isinstance(leaf, Tensor)]
    gradients = {f"gradient {i}": leaf.grad for i, leaf in enumerate(leaves) if leaf.grad is not None}
    return {name: value.detach().float() for name, value in terms.items()} | gradients
