"""Losses of the task-aligned family with ours are the originals': a sample of what ``python -m
tests.trainers`` compares, and what else a trainer may meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from tests.peers.loading import Missing
from tests.peers.scenes import make_scene

from .aligned import AlignedTrainer, LossTally, compare_aligned, compare_on, run
from .registry import ALIGNED_TRAINERS

pytestmark = pytest.mark.filterwarnings("ignore")  # the originals use calls that torch has since deprecated


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On tensors this small a second thread costs time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    params=ALIGNED_TRAINERS,
    ids=lambda trainer: f"{trainer.package}-{trainer.name}".replace(" ", "-"),
    scope="module",
)
def trainer(request: pytest.FixtureRequest) -> AlignedTrainer:
    try:
        request.param.load()
    except Missing as reason:
        pytest.skip(str(reason))
    return request.param


def test_same_losses_gradients_and_assignment(trainer: AlignedTrainer) -> None:
    tally = compare_aligned(trainer, range(14))
    assert tally.unexplained == []
    assert tally.positives > 500
    assert tally.same_loss > 6


def test_trains_through_images_without_gts(trainer: AlignedTrainer) -> None:
    scene = make_scene(3, trainer.strides, trainer.offset, inverted=False)
    nothing = [own[:0] for own in scene.gt_boxes], [own[:0] for own in scene.gt_labels]
    for kept in (0, 1):  # images that keep their gts
        boxes, labels = (
            [*own[:kept], *none[kept:]]
            for own, none in zip((scene.gt_boxes, scene.gt_labels), nothing, strict=True)
        )
        masks = [own[: len(left)] for own, left in zip(scene.masks, boxes, strict=True)]
        bare, tally = replace(scene, gt_boxes=boxes, gt_labels=labels, masks=masks), LossTally()
        made = trainer.make(scene.num_classes)
        with trainer.assigning(made, ours=True):
            values = run(trainer, made, bare)
        assert all(value.isfinite().all() for value in values.values())
        if kept:
            compare_on(trainer, bare, {}, tally)
            assert tally.unexplained == []


def test_a_prediction_that_is_not_finite_spoils_one_prior(trainer: AlignedTrainer) -> None:
    """Most originals make every target of the image NaN; ours keeps that prior out."""
    scene = make_scene(3, trainer.strides, trainer.offset, inverted=False)
    inside = (scene.priors[:, None, :2] > scene.gt_boxes[0][:, :2]).all(2)
    inside &= (scene.priors[:, None, :2] < scene.gt_boxes[0][:, 2:]).all(2)
    prior = int(inside.any(1).nonzero()[0])
    logits = scene.cls_logits.clone()
    logits[0, prior] = torch.nan
    spoilt = replace(scene, cls_logits=logits)
    made = trainer.make(scene.num_classes)
    # a loss may refuse NaN itself, once it has assigned
    with torch.no_grad(), trainer.assigning(made, ours=True) as ours, suppress(RuntimeError):
        trainer.loss(made, trainer.predictions(spoilt), spoilt)
    assert all(targets.scores.isfinite().all() for targets in ours if targets.scores is not None)
    assert not ours[0].fg_mask[0, prior]
