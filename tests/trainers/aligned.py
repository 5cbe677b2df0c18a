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
from tests.peers.aligned import Targets, Verdict
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
def listening(owner: Any, name: str, targets: Callable[[Any], Targets]) -> Iterator[list[Targets]]:
    """Collects the ``targets`` of what ``owner.name`` returns."""
    heard: list[Targets] = []
    call = getattr(owner, name)

    def listen(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        # losses go on in place
        heard.append(Targets(*(value if value is None else value.clone() for value in targets(result))))
        return result

    with mock.patch.object(owner, name, listen):
        yield heard


@contextmanager
def hearing() -> Iterator[list[tuple[TaskAlignedConfig, Problem]]]:
    """Collects what our assigner is asked, as lists of gts."""
    calls: list[tuple[TaskAlignedConfig, Problem]] = []
    call = TaskAlignedAssigner.__call__

    def listen(self: TaskAlignedAssigner, *args: Any, **kwargs: Any) -> AssignResult:
        problem = pack(self.config, *args, **kwargs)
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
    same = True
    for (config, problem), mine, original in zip(calls, ours, theirs, strict=True):
        gts = problem.gts.boxes, problem.gts.labels
        counts = problem.gts.offsets.diff().tolist()
        asked: Any = SimpleNamespace(**dict(zip(
            ("gt_boxes", "gt_labels"), (values.split(counts) for values in gts), strict=True
        )))  # fmt: skip
        first, second = original.owners(asked), mine.owners(asked)
        zero = original.fg_mask & (original.scores == 0) if original.scores is not None else first > first
        differing = first != second
        tally.positives += int(original.fg_mask.sum())
        tally.differing += int(differing.sum())
        tally.documented += int((differing & zero).sum())
        tally.excused += int((differing & ~zero).sum())
        same &= not bool((differing & ~zero).any() or (trainer.reads_zeros and differing.any()))
        if differing.any():
            verdict = Verdict(problem, config, asked)
            tally.unexplained += verdict.of(first, f"{where}, original", ~zero)
            tally.unexplained += verdict.of(second, f"{where}, ours", torch.ones_like(zero))
    if not same:
        return
    tally.same_loss += 1
    error = trainer.relative_error
    for name, value in expected.items():
        scale = value[value.isfinite()].abs().max() if value.isfinite().any() else 0.0
        if not torch.allclose(values[name], value, rtol=error, atol=float(scale) * error, equal_nan=True):
            worst = float((values[name] - value).abs().nan_to_num().max())
            tally.unexplained.append(f"{where}, {name}: differs by {worst:.3g} of {float(scale):.3g}")


def run(trainer: AlignedTrainer, made: Any, scene: Scene) -> dict[str, Tensor]:
    """Terms of the loss, and the gradients of the total."""
    predictions = trainer.predictions(scene)
    terms = trainer.loss(made, predictions, scene)
    terms["total"].backward()
    leaves = [leaf for leaf in tree_leaves(predictions) if isinstance(leaf, Tensor)]
    gradients = {f"gradient {i}": leaf.grad for i, leaf in enumerate(leaves) if leaf.grad is not None}
    return {name: value.detach().float() for name, value in terms.items()} | gradients
