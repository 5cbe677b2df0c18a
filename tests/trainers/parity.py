"""Run a loss with and without our patch on one scene, and judge every prior that is assigned differently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.peers.compare import Tally, candidates, compare_matchings
from tests.peers.scenes import Scene, make_scene

from .trainer import Ear, Trainer, hearing


@dataclass
class LossTally(Tally):
    """What a comparison found, losses included.

    Attributes:
        same_loss: Scenes with equal assignments; their losses and gradients were equal too, or are among the
            unexplained.
        repaired: Images without a candidate prior, on which the original fails.
    """

    same_loss: int = 0
    repaired: int = 0


def compare(trainer: Trainer, seeds: Iterable[int]) -> LossTally:
    """Compare on the scenes of ``seeds``."""
    tally = LossTally()
    for seed in seeds:
        scene = make_scene(seed, trainer.strides, trainer.offset, inverted=trainer.inverted)
        compare_on(
            trainer,
            scene.on_grid() if trainer.on_grid else scene,
            trainer.variants[seed // 7 % len(trainer.variants)],
            tally,
        )
    return tally


def compare_on(trainer: Trainer, scene: Scene, arguments: dict[str, Any], tally: LossTally) -> None:
    """Compare on one scene."""
    made = trainer.make(scene.num_classes, **arguments)
    with trainer.patch(), hearing() as calls:
        ours = run(trainer, made, scene)
    (heard,) = calls
    ear = Ear(heard, candidates(heard.problem, heard.config))
    trainer.listen(made, ear)
    theirs = run(trainer, made, scene)
    tally.scenes += 1
    tally.positives += int((ear.owners.gt_index >= 0).sum())
    tally.repaired += ear.repaired
    compare_matchings(heard.config, heard.problem, ear.owners, heard.matching, f"scene {scene.seed}", tally)
    if not torch.equal(ear.owners.gt_index, heard.matching.gt_index):
        return
    tally.same_loss += 1
    error = trainer.relative_error
    for name, value in theirs.items():
        scale = value[value.isfinite()].abs().max() if value.isfinite().any() else 0.0
        if not torch.allclose(ours[name], value, rtol=error, atol=float(scale) * error, equal_nan=True):
            worst = float((ours[name] - value).abs().nan_to_num().max())
            tally.unexplained.append(
                f"scene {scene.seed}, {name}: differs by {worst:.3g} of {float(scale):.3g} without and with "
                "the patch"
            )


def run(trainer: Trainer, made: Any, scene: Scene) -> dict[str, Tensor]:
    """Terms of the loss, and the gradients of the total."""
    predictions = trainer.predictions(scene)
    terms = trainer.loss(made, predictions, scene.gt_boxes, scene.gt_labels)
    terms["total"].backward()
    leaves = [leaf for leaf in tree_leaves(predictions) if isinstance(leaf, Tensor)]
    gradients = {f"gradient {i}": leaf.grad for i, leaf in enumerate(leaves) if leaf.grad is not None}
    return {name: value.detach().float() for name, value in terms.items()} | gradients
