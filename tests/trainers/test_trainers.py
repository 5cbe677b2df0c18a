"""Losses with our patch are the originals': a sample of what ``python -m tests.trainers`` compares, and what
else a trainer may meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.peers.loading import Missing
from tests.peers.scenes import Scene, make_scene

from .parity import LossTally, compare, compare_on, run
from .registry import TRAINERS
from .trainer import Trainer, hearing

pytestmark = pytest.mark.filterwarnings("ignore")  # the originals use calls that torch has since deprecated


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On tensors this small a second thread costs time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    params=TRAINERS, ids=lambda trainer: f"{trainer.package}-{trainer.name}".replace(" ", "-"), scope="module"
)
def trainer(request: pytest.FixtureRequest) -> Trainer:
    try:
        request.param.load()
    except Missing as reason:
        pytest.skip(str(reason))
    return request.param


def scene_of(trainer: Trainer, counts: tuple[int, ...]) -> Scene:
    """128 px images with as many gts as ``counts`` says."""
    scene = make_scene(3, trainer.strides, trainer.offset, inverted=False)
    assert (scene.size, len(scene.gt_boxes)) == ((128, 128), 3)
    generator = torch.Generator().manual_seed(0)
    boxes, labels, masks = [], [], []
    for count in counts:
        corner, side = (
            100 * torch.rand(count, 2, generator=generator),
            4 + 60 * torch.rand(count, 2, generator=generator),
        )
        boxes.append(torch.cat([corner, corner + side], 1))
        labels.append(torch.randint(scene.num_classes, (count,), generator=generator))
        masks.append(rectangles(boxes[-1], scene.size))
    scene = replace(scene, gt_boxes=boxes, gt_labels=labels, masks=masks)
    return scene.on_grid() if trainer.on_grid else scene


def rectangles(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """[G, H, W] bool, the pixels of each box."""
    y, x = torch.arange(size[0])[None, :, None], torch.arange(size[1])[None, None]
    left, top, right, bottom = (boxes[:, i, None, None] for i in range(4))
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def test_same_losses_gradients_and_assignment(trainer: Trainer) -> None:
    tally = compare(trainer, range(14))
    assert tally.unexplained == []
    assert tally.positives > 500
    assert tally.same_loss > 7


@pytest.mark.parametrize(
    "counts", [(0, 0, 0), (0, 3, 0), (1000, 0, 2)], ids=["no-gts", "empty-images", "1000-gts"]
)
def test_trains_through(trainer: Trainer, counts: tuple[int, ...]) -> None:
    """Images without gts, which is also what crowds leave, and an image with 1,000."""
    scene, tally = scene_of(trainer, counts), LossTally()
    compare_on(trainer, scene, {}, tally)
    assert tally.unexplained == []
    made = trainer.make(scene.num_classes)
    with trainer.patch(), hearing() as calls:
        values = run(trainer, made, scene)
    assert all(value.isfinite().all() for value in values.values())
    assert int((calls[0].matching.gt_index >= 0).sum()) >= bool(sum(counts))


@pytest.mark.parametrize("counts", [(0, 0, 0), (3, 0, 2)], ids=["no-gts", "no-candidates"])
def test_a_batch_without_a_positive_trains_through(trainer: Trainer, counts: tuple[int, ...]) -> None:
    """What losses are divided by is then 1, not 0; gts that hold no prior leave none either."""
    scene = scene_of(trainer, counts)
    scene = replace(scene, gt_boxes=[boxes + 2.0**14 for boxes in scene.gt_boxes])
    with trainer.patch(), hearing() as calls:
        values = run(trainer, trainer.make(scene.num_classes), scene)
    assert not (calls[0].matching.gt_index >= 0).any()
    assert all(value.isfinite().all() for value in values.values())


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What Lightning's ``bf16-true``, ``16-true`` and ``64-true`` do."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CIRCUMSTANCES = {
    **{
        f"default-{str(dtype)[6:]}": partial(default_dtype, dtype)
        for dtype in (torch.bfloat16, torch.float16, torch.float64)
    },
    **{
        f"autocast-{str(dtype)[6:]}": partial(torch.autocast, "cpu", dtype)
        for dtype in (torch.bfloat16, torch.float16)
    },
}
"""Name -> what a trainer may have set around the loss."""


@pytest.mark.parametrize("name", CIRCUMSTANCES)
def test_default_dtype_and_autocast_change_no_assignment(trainer: Trainer, name: str) -> None:
    scene = scene_of(trainer, (9, 0, 6))
    made = trainer.make(scene.num_classes)
    answers = []
    for circumstance in (nullcontext, CIRCUMSTANCES[name]):
        predictions = trainer.predictions(scene)
        with circumstance(), trainer.patch(), hearing() as calls:
            total = trainer.loss(made, predictions, scene.gt_boxes, scene.gt_labels)["total"]
        total.backward()
        leaves = [
            leaf.grad
            for leaf in tree_leaves(predictions)
            if isinstance(leaf, Tensor) and leaf.grad is not None
        ]
        assert leaves
        assert all(gradient.isfinite().all() for gradient in leaves)
        answers.append((total.detach().float(), calls[0].matching))
    (expected, theirs), (loss, ours) = answers
    assert (ours.gt_index >= 0).sum() > 10
    for field in ("gt_index", "dynamic_k", "matched_iou"):
        assert torch.equal(getattr(ours, field), getattr(theirs, field)), field
    torch.testing.assert_close(loss, expected, rtol=1e-6 if name.startswith("default") else 3e-2, atol=0.0)


def test_twice_and_back(trainer: Trainer) -> None:
    scene = scene_of(trainer, (2, 0, 3))
    made = trainer.make(scene.num_classes)
    with trainer.patch() as patch:
        replaced = list(patch._replaced)
    originals = [getattr(owner, name) for owner, name in replaced]
    trainer.patch()
    trainer.patch()
    assert not any(
        getattr(owner, name) is original for (owner, name), original in zip(replaced, originals, strict=True)
    )
    with hearing() as calls:
        run(trainer, made, scene)
    assert len(calls) == 1, "one call for the batch"
    patch.undo()
    patch.undo()
    assert all(
        getattr(owner, name) is original for (owner, name), original in zip(replaced, originals, strict=True)
    )
