"""The streaming backend of the task-aligned rule from end to end: the answers are the definition's, and the
same bits whatever the launch parameters, the batch, the form of the inputs and the tiling of the priors.
"""

from __future__ import annotations

import pytest
import torch

from simota_triton import TaskAlignedAssigner, TaskAlignedConfig
from simota_triton.inputs import pack
from simota_triton.kernels.host import INTERPRETED
from simota_triton.measure.simulate import simulate_predictions
from simota_triton.task_aligned import reference
from simota_triton.tuning.stream_config import StreamConfig
from simota_triton.verification.scenes import FORMS, LAYOUTS, make_scene
from tests.support.interpreter import SMALL
from tests.support.kernels import (
    DEVICE,
    Answer,
    ApproximateUnits,
    assert_same,
    random_inputs,
    random_launch,
    random_problem,
    streamed,
)

PRESETS = [name for name in TaskAlignedConfig.presets() if "obb" not in name]
SMALL_TILES = StreamConfig(tile=32, rows=32, bounds=32, iou_bounds=32, gts=32, resolvers=1)

VARIANTS = {
    "topk2 of 3": TaskAlignedConfig.yolov6(topk2=3),
    "topk2 of all": TaskAlignedConfig.tal(topk=4, topk2=4),
    "other exponents": TaskAlignedConfig.tal(alpha=1.5, beta=2.5),
    "no score": TaskAlignedConfig.tal(alpha=0.0, beta=1.0),
    "a gt outside of its region against those inside": TaskAlignedConfig.yolo9_mit(
        conflict="inside", max_reach=2.0
    ),
    "the same against all": TaskAlignedConfig.yolo9_mit(conflict="all", max_reach=2.0),
    "at least one of all priors": TaskAlignedConfig.tood(at_least_one=True, topk=1, margin=3.0),
    "the whole list": TaskAlignedConfig.ppyoloe(topk=32),
    "an IoU without a guard": TaskAlignedConfig.yolov6(union_rule="none"),
    "claimants alone": TaskAlignedConfig.tal(conflict="matched"),
}
"""What no preset asks for."""


def check(found: Answer, problem, config) -> Answer:
    """An answer is the definition's: indices to the bit, values to rounding."""
    expected = reference.assign(problem, config)
    for name in ("gt_index", "claims", "dynamic_k"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), (name, config)
    assert (found.matched_iou - expected.matched_iou).abs().max() <= 1e-6
    torch.testing.assert_close(found.scores, expected.scores, rtol=2e-5, atol=1e-12)
    row = (problem.gts.offsets[:-1, None] + expected.gt_index).clamp(max=len(problem.gts.labels) - 1)
    labels = torch.where(expected.gt_index >= 0, problem.gts.labels[row], problem.shape[2])
    assert torch.equal(found.labels, labels)
    return found


def crowd(config, counts, seed, num_priors=200):
    """Images whose gts lie about one place, so that they want the same priors."""
    generator = torch.Generator().manual_seed(seed)
    boxes, labels = [], []
    for count in counts:
        corner = 20 + torch.rand(count, 2, generator=generator) * 16
        size = 24 + torch.rand(count, 2, generator=generator) * 30
        boxes.append(torch.cat([corner, corner + size], 1))
        labels.append(torch.randint(3, (count,), generator=generator))
    priors = torch.cat(
        [torch.rand(num_priors, 2, generator=generator) * 90, torch.full((num_priors, 2), 4.0)], 1
    )
    pred, cls, _ = simulate_predictions(boxes, labels, priors, 3, "mid", generator)
    return pack(config, pred, cls, priors, boxes, labels)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset(preset):
    config, contested = TaskAlignedConfig.from_preset(preset), 0
    for seed in range(2):
        problem = crowd(config, [6, 0, 3], seed)
        found = check(streamed(problem, config, random_launch(seed)), problem, config)
        assert int((found.gt_index >= 0).sum()) > 3
        contested += int((found.claims > 1).sum())
    assert contested > 3 or config.topk == 1


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_that_no_preset_is(name):
    config, positives = VARIANTS[name], 0
    for seed in (10, 11):
        problem = crowd(config, [5, 2], seed)
        positives += int((check(streamed(problem, config), problem, config).gt_index >= 0).sum())
    assert positives > 10


@pytest.mark.skipif(not INTERPRETED, reason="a GPU has its own approximate units")
def test_with_the_approximate_units_of_a_gpu(monkeypatch):
    units = ApproximateUnits(monkeypatch)
    for seed, preset in enumerate(("tal", "tal_o2o", "tood", "yolo9_mit")):
        config = TaskAlignedConfig.from_preset(preset)
        problem = random_problem(config, 120, [3, 1], 4, seed)
        check(streamed(problem, config, SMALL_TILES), problem, config)
    assert units.calls > 1000


@pytest.mark.parametrize("preset", ["tal_o2o", "yolov6", "tood", "yolo9_mit"])
def test_launch_parameters_change_no_bit(preset):
    config = TaskAlignedConfig.from_preset(preset)
    problem = crowd(config, [5, 0, 3], 4, 300)
    expected = streamed(problem, config)
    for kernels in (
        SMALL_TILES,
        StreamConfig(tile=32, rows=8, bounds=32, gts=32, resolvers=5),
        StreamConfig(tile=64, rows=64, bounds=32, gts=256, resolvers=3),
        StreamConfig(tile=256, rows=16, bounds=64, resolvers=2),
    ):
        assert_same(streamed(problem, config, kernels), expected, kernels)


@pytest.mark.parametrize("preset", ["tal", "tal_o2o"])
def test_an_image_does_not_depend_on_its_batch(preset):
    config = TaskAlignedConfig.from_preset(preset)
    pred, cls, _, priors, boxes, labels = random_inputs(120, [2, 0, 3, 1], 5)
    together = streamed(pack(config, pred, cls, priors, boxes, labels), config, SMALL_TILES)
    for images in ([3, 2, 1, 0], [2], [1]):
        own = [boxes[b] for b in images], [labels[b] for b in images]
        found = streamed(pack(config, pred[images], cls[images], priors, *own), config, SMALL_TILES)
        for name in ("gt_index", "matched_iou", "claims", "labels", "scores"):
            assert torch.equal(getattr(found, name), getattr(together, name)[images]), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_forms_and_layouts(form, layout):
    scene = make_scene(SMALL[0])
    for preset in ("tal", "ppyoloe"):
        config = TaskAlignedConfig.from_preset(preset)
        problem = scene.problem(config, form, layout)
        check(streamed(problem, config), problem, config)


def test_priors_without_strides():
    config = TaskAlignedConfig.tal()
    pred, cls, _, priors, boxes, labels = random_inputs(100, [3, 1], 4)
    expected = streamed(pack(config, pred, cls, priors, boxes, labels), config)
    assert_same(streamed(pack(config, pred, cls, priors[:, :2], boxes, labels), config), expected)


def test_mass_ties_go_to_the_lowest_prior_and_the_lowest_gt():
    """Equal predictions on a grid, and every gt twice."""
    priors = torch.tensor([[x + 0.5, y + 0.5, 1.0, 1.0] for y in range(12) for x in range(12)])
    gts = torch.tensor([[1.0, 1.0, 9.0, 9.0]] * 2 + [[3.0, 3.0, 11.0, 11.0]] * 2)
    pred = torch.tensor([1.0, 1.0, 9.0, 9.0]).expand(1, 144, 4).clone()
    pred[:, 72:] = torch.tensor([3.0, 3.0, 11.0, 11.0])
    for preset in ("tal_v8", "tal_o2o", "yolov6", "tood", "yolo9_mit"):
        config = TaskAlignedConfig.from_preset(preset)
        problem = pack(config, pred, torch.zeros(1, 144, 2), priors, [gts], [torch.tensor([0, 0, 1, 1])])
        found = check(streamed(problem, config, SMALL_TILES), problem, config)
        assert set(found.gt_index.unique().tolist()) <= {-1, 0, 2}


def test_what_is_not_finite_takes_no_part():
    for preset in ("tal", "tood", "yolo9_mit", "yolov9"):
        config = TaskAlignedConfig.from_preset(preset)
        pred, cls, _, priors, boxes, labels = random_inputs(150, [4, 2], 3, 5)
        pred[0, ::7, 2] = torch.nan
        pred[1, ::5] = torch.tensor([-1e30, -1e30, 1e30, 1e30])
        cls[0, ::4, 1] = torch.inf
        cls[1, ::3, 0] = torch.nan
        cls[1, 1::3] = -88.0
        mask = torch.ones(2, 150, dtype=torch.bool)
        mask[:, 90:110] = False
        boxes[0][1] = torch.nan
        labels[0][2] = 7
        problem = pack(config, pred, cls, priors, boxes, labels, candidate_mask=mask, validate=False)
        found = check(streamed(problem, config, SMALL_TILES), problem, config)
        assert int((found.gt_index >= 0).sum()) > 3
        assert not torch.isin(found.gt_index[0], torch.tensor([1, 2])).any()


def test_nothing_to_assign():
    config = TaskAlignedConfig.tal()
    for num_priors, counts in ((0, [2, 1]), (5, [0, 0]), (0, [0]), (0, [])):
        problem = random_problem(config, num_priors, counts, 3)
        found, expected = streamed(problem, config), reference.assign(problem, config)
        for name in ("gt_index", "matched_iou", "dynamic_k", "claims", "scores"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("num_priors", [1, 31, 33, 97])
def test_any_number_of_priors(num_priors):
    config = TaskAlignedConfig.tal(topk2=2)
    problem = random_problem(config, num_priors, [2, 0, 1], 3)
    check(streamed(problem, config, SMALL_TILES), problem, config)


def test_more_gts_than_any_grid():
    """70 gts in an image of one tile, most of which want the same priors."""
    for conflict in ("inside", "all", "matched"):
        config = TaskAlignedConfig.tal_v8(conflict=conflict, topk=3)
        problem = crowd(config, [70], 3)
        found = check(
            streamed(problem, config, StreamConfig(tile=1024, gts=32, resolvers=1)), problem, config
        )
        assert int((found.claims > 3).sum()) > 3


def test_rotated_boxes_and_masks_of_pairs_are_refused():
    with pytest.raises(ValueError, match="backend: expected one of 'auto', 'reference', 'torch'"):
        TaskAlignedAssigner("tal_obb", backend="triton-stream")
    assigner = TaskAlignedAssigner("tal", backend="triton-stream")
    pred, cls, _, priors, boxes, labels = random_inputs(40, [1], 3)
    inputs = [value.to(DEVICE) for value in (pred, cls, priors)]
    pairs = [torch.ones(1, 40, dtype=torch.bool, device=DEVICE)]
    gts = [[value.to(DEVICE) for value in values] for values in (boxes, labels)]
    with pytest.raises(ValueError, match="use backend='torch'"):
        assigner(*inputs, *gts, pair_mask=pairs)
    assert assigner(*inputs, *gts).gt_index.shape == (1, 40)


@pytest.mark.parametrize("poison", [0, 127, 255])
def test_every_run_gives_the_same_bits_whatever_the_memory_held(monkeypatch, poison):
    config = TaskAlignedConfig.yolo9_mit(topk2=2)
    problem = random_problem(config, 80, [3, 1], 4)
    expected, empty = streamed(problem, config, SMALL_TILES), torch.empty

    def poisoned(*args, **kwargs):
        value = empty(*args, **kwargs)
        value.view(torch.uint8).fill_(poison)
        return value

    monkeypatch.setattr(torch, "empty", poisoned)
    assert_same(streamed(problem, config, SMALL_TILES), expected)
