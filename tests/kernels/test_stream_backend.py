"""The streaming backend from end to end: its assignments are those of backend "triton" to the bit, whatever
the launch parameters, the batch, the form of the inputs and the tiling of the priors.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig, grid_priors
from simota_triton.backends import triton_stream
from simota_triton.inputs import pack
from simota_triton.kernels.host import INTERPRETED
from simota_triton.measure.simulate import random_gts, simulate_predictions
from simota_triton.tuning.stream_config import StreamConfig
from simota_triton.verification.judge import judge
from simota_triton.verification.scenes import FAMILIES, FORMS, LAYOUTS, make_scene
from simota_triton.verification.variants import config_of
from tests.support.interpreter import SMALL
from tests.support.kernels import (
    DEVICE,
    PRESETS,
    ApproximateUnits,
    assert_same,
    fused,
    on_device,
    random_inputs,
    random_launch,
    random_problem,
    streamed,
)

TILES = StreamConfig(tile=64, rows=64, bounds=32, iou_bounds=32, splits=2, gts=32, resolvers=1)
SMALL_TILES = StreamConfig(tile=32, rows=32, bounds=32, iou_bounds=32, gts=32, resolvers=1)


def scene_problem(seed):
    """One of ``tests.programs.fuzz``'s scenes and configurations, in a form and layout of its own."""
    config, scene = config_of(seed), make_scene(seed)
    return scene.problem(config, FORMS[seed % len(FORMS)], LAYOUTS[seed % len(LAYOUTS)]), config


def grid_problem(config, counts=(4, 2), seed=0, sizes=(96, 96), strides=(8, 16, 32), phase="mid", **options):
    """Images of ``sizes`` (height, width) on level grids; as maps where the shapes of the levels are not in
    ``options``.
    """
    generator = torch.Generator().manual_seed(seed)
    priors = grid_priors(sizes, strides)
    gts = [random_gts(count, min(sizes), 5, generator, median=32.0) for count in counts]
    boxes, labels = [b for b, _ in gts], [label for _, label in gts]
    pred, cls, obj = simulate_predictions(boxes, labels, priors, 5, phase, generator)
    obj = obj if config.score == "joint" else None
    return pack(config, pred, cls, priors, boxes, labels, obj_logits=obj, **options)


# 25 shares no factor with the number of families: all of them come, under every preset
SEEDS = range(8, 8 + 25 * 28, 25)


def test_scenes_of_every_family_under_every_launch():
    assert len({make_scene(seed).family for seed in SEEDS}) == len(FAMILIES)
    assert len({config_of(seed).preset for seed in SEEDS}) == len(PRESETS)
    positives = contested = 0
    for seed in SEEDS:
        problem, config = scene_problem(seed)
        expected, kernels = fused(problem, config), random_launch(seed)
        assert_same(streamed(problem, config, kernels), expected, (seed, config, kernels))
        positives += int((expected.claims > 0).sum())
        contested += int((expected.claims > 1).sum())
    assert positives > 20 * len(SEEDS)
    assert contested > 2 * len(SEEDS)


@pytest.mark.slow
def test_a_thousand_scenes_under_every_launch():
    for seed in range(1000):
        problem, config = scene_problem(seed)
        assert_same(
            streamed(problem, config, random_launch(seed)),
            fused(problem, config),
            (seed, config, random_launch(seed)),
        )


@pytest.mark.skipif(not INTERPRETED, reason="a GPU has its own approximate units")
def test_with_the_approximate_units_of_a_gpu(monkeypatch):
    units = ApproximateUnits(monkeypatch)
    for seed, preset in enumerate(("rtmdet", "yolox", "seed", "picodet_lightly")):
        config = SimOTAConfig.from_preset(preset)
        problem = random_problem(config, 120, [2, 1], 4, seed)
        found = streamed(problem, config, SMALL_TILES)
        assert_same(found, fused(problem, config), config)
        assert not judge(found, problem, config).unexplained
    assert units.calls > 1000


@pytest.mark.parametrize("preset", ["yolox", "seed"])
def test_launch_parameters_change_no_bit(preset):
    config = SimOTAConfig.from_preset(preset)
    problem = grid_problem(config, (2, 0, 1), sizes=(56, 120), level_shapes=[(7, 15), (4, 8), (2, 4)])
    expected = fused(problem, config)
    for kernels in (
        StreamConfig(tile=32, rows=8, bounds=32, iou_bounds=32, splits=8, gts=32, resolvers=5),
        StreamConfig(tile=64, rows=64, bounds=32, iou_bounds=32, splits=4, gts=256, resolvers=1),
        StreamConfig(tile=256, rows=16, bounds=64, splits=2, resolvers=2),
    ):
        assert_same(streamed(problem, config, kernels), expected, kernels)


@pytest.mark.parametrize("preset", ["rtmdet", "mmdet_simota"])
def test_an_image_does_not_depend_on_its_batch(preset):
    config = SimOTAConfig.from_preset(preset)
    pred, cls, obj, priors, boxes, labels = random_inputs(80, [2, 0, 3, 1], 5)
    obj = obj if config.score == "joint" else None
    together = streamed(pack(config, pred, cls, priors, boxes, labels, obj_logits=obj), config, SMALL_TILES)
    start = [0, 2, 2, 5, 6]
    for images in ([3, 2, 1, 0], [2], [1]):
        own_obj = None if obj is None else obj[images]
        own = [boxes[b] for b in images], [labels[b] for b in images]
        found = streamed(
            pack(config, pred[images], cls[images], priors, *own, obj_logits=own_obj), config, SMALL_TILES
        )
        for name in ("gt_index", "matched_iou", "claims", "labels"):
            assert torch.equal(getattr(found, name), getattr(together, name)[images])
        assert torch.equal(
            found.dynamic_k, torch.cat([together.dynamic_k[start[b] : start[b + 1]] for b in images])
        )


def test_the_shapes_of_levels_change_no_bit():
    """Told right, wrong or not at all: they only say which priors are looked at together."""
    config = SimOTAConfig.rtmdet()
    expected = fused(grid_problem(config, (2, 1)), config)
    for shapes in (
        None,  # guessed
        [(12, 12), (6, 6), (3, 3)],
        [(9, 16), (4, 9), (1, 9)],  # other shapes of the same sizes
        [(3, 63)],
        [(5, 5), (1, 1), (0, 7), (163, 1)],
        [(1, 1), (8, 8), (2, 31), (31, 2)],
    ):
        assert_same(
            streamed(grid_problem(config, (2, 1), level_shapes=shapes), config, TILES), expected, shapes
        )


@pytest.mark.parametrize("strides", [(8,), (8, 16), (8, 16, 32, 64), (4, 8, 16, 32, 64)], ids=len)
def test_one_to_five_levels(strides):
    sizes, config = (40, 56), SimOTAConfig.rtmdet()
    cells = [(-(-sizes[0] // s), -(-sizes[1] // s)) for s in strides]
    problem = grid_problem(config, (2, 1), sizes=sizes, strides=strides, level_shapes=cells)
    levels = problem.cls_logits.levels[0].split([rows * columns for rows, columns in cells], 1)
    maps = replace(problem, cls_logits=replace(problem.cls_logits, levels=levels))
    expected = fused(problem, config)
    for case in (problem, maps):
        assert_same(streamed(case, config, TILES), expected)


def test_several_priors_a_cell():
    """As anchors have: three priors at each point, which the shapes of the levels count as columns."""
    config = SimOTAConfig.nanodet()
    pred, cls, _, _, boxes, labels = random_inputs(64, [2, 1], 4, size=64)
    priors = grid_priors(64, (8,)).repeat_interleave(3, 0)
    pred, cls = pred.repeat_interleave(3, 1), cls.repeat_interleave(3, 1)
    pred[:, 1::3] += 1.5
    expected = fused(pack(config, pred, cls, priors, boxes, labels), config)
    for shapes in (None, [(8, 24)]):
        assert_same(
            streamed(
                pack(config, pred, cls, priors, boxes, labels, level_shapes=shapes), config, SMALL_TILES
            ),
            expected,
        )


@pytest.mark.parametrize("num_priors", [1, 31, 33, 97])
def test_any_number_of_priors(num_priors):
    config = SimOTAConfig.yolox_main()
    problem = random_problem(config, num_priors, [2, 0, 1], 3)
    assert_same(streamed(problem, config, SMALL_TILES), fused(problem, config))


def test_shuffled_priors_are_assigned_alike():
    config = SimOTAConfig.rtmdet()
    generator = torch.Generator().manual_seed(0)
    pred, cls, _, _, boxes, labels = random_inputs(189, [2, 1], 5)
    priors = grid_priors(96)
    order = torch.randperm(189, generator=generator)
    first = streamed(pack(config, pred, cls, priors, boxes, labels), config, TILES)
    second = streamed(
        pack(config, pred[:, order], cls[:, order], priors[order], boxes, labels), config, TILES
    )
    assert torch.equal(second.gt_index, first.gt_index[:, order])
    assert torch.equal(second.matched_iou, first.matched_iou[:, order])


def test_more_gts_than_any_grid():
    """100 small gts in an image of one tile: its program fills the table in several rounds, as that of
    ``resolve`` looks through it.
    """
    config = SimOTAConfig.yolox(candidate_topk=2)
    generator = torch.Generator().manual_seed(3)
    priors = grid_priors(64, (8,))
    corner = torch.rand(100, 2, generator=generator) * 60
    boxes = [
        torch.cat([corner, corner + 1 + 3 * torch.rand(100, 2, generator=generator)], 1),
        torch.tensor([[1.0, 2.0, 30.0, 40.0]]),
    ]
    labels = [torch.randint(3, (100,), generator=generator), torch.tensor([1])]
    pred, cls, obj = simulate_predictions(boxes, labels, priors, 3, "mid", generator)
    problem = pack(config, pred, cls, priors, boxes, labels, obj_logits=obj)
    expected = fused(problem, config)
    assert int((expected.claims > 3).sum()) > 3
    assert_same(streamed(problem, config, StreamConfig(tile=1024, rows=1024, gts=32, resolvers=1)), expected)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_gts_through_the_assigner(form):
    scene = make_scene(SMALL[0])
    for preset, layout in (("rtmdet", "maps"), ("yolox", "strided")):
        one, other = (
            scene.call(SimOTAAssigner(preset, backend=name), form, layout)
            for name in ("triton-stream", "triton")
        )
        for name in ("gt_index", "labels", "matched_iou", "claims", "dynamic_k", "ignore_mask"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_gts_that_cannot_be_used_take_no_part():
    config = SimOTAConfig.rtmdet()
    pred, cls, _, priors, (boxes,), (labels,) = random_inputs(100, [4], 4)
    kept = [0, 1, 3]
    expected = streamed(pack(config, pred, cls, priors, [boxes[kept]], [labels[kept]]), config)
    assert (expected.gt_index >= 0).sum() > 10
    for spoil in (
        lambda _, labels: labels.__setitem__(2, -1),
        lambda _, labels: labels.__setitem__(2, 4),
        lambda _, labels: labels.__setitem__(2, 1 << 40),
        lambda boxes, _: boxes.__setitem__((2, 1), torch.nan),
        lambda boxes, _: boxes.__setitem__((2, 2), torch.inf),
        lambda boxes, _: boxes.__setitem__(2, torch.tensor([-1e30, -1e30, 1e30, 1e30])),
    ):
        bad_boxes, bad_labels = boxes.clone(), labels.clone()
        spoil(bad_boxes, bad_labels)
        problem = pack(config, pred, cls, priors, [bad_boxes], [bad_labels], validate=False)
        for given in (problem, problem.sanitised()):
            found = streamed(given, config)
            assert torch.equal(found.gt_index, torch.tensor([*kept, -1])[expected.gt_index])
            assert torch.equal(found.labels, expected.labels)
            k = expected.dynamic_k.tolist()
            assert found.dynamic_k.tolist() == [*k[:2], 0, *k[2:]]


def test_offsets_that_only_the_device_knows():
    config = SimOTAConfig.rtmdet()
    problem = random_problem(config, 60, [2, 0, 1], 4)
    unknown = replace(problem, gts=replace(problem.gts, max_count=None))
    assert_same(streamed(unknown, config), streamed(problem, config))


def test_gts_that_belong_to_no_image_ask_for_nothing():
    config = SimOTAConfig.rtmdet()
    problem = random_problem(config, 60, [2, 1, 3], 4)
    for offsets, owned in (([1, 2, 2, 4], [1, 2, 3]), ([0, 0, 0, 0], []), ([5, 5, 6, 6], [5])):
        broken = replace(problem, gts=replace(problem.gts, offsets=torch.tensor(offsets), max_count=None))
        found = streamed(broken, config)
        assert (found.dynamic_k > 0).nonzero()[:, 0].tolist() == owned
        gts = problem.gts
        kept = replace(
            gts,
            boxes=gts.boxes[owned],
            labels=gts.labels[owned],
            given_centers=gts.centers[owned],
            offsets=torch.tensor(offsets) - offsets[0],
            max_count=None,
        )
        expected = streamed(replace(problem, gts=kept), config)
        assert torch.equal(found.gt_index, expected.gt_index)
        assert torch.equal(found.labels, expected.labels)


def test_nothing_to_assign():
    config = SimOTAConfig.rtmdet()
    for num_priors, counts in ((0, [2, 1]), (5, [0, 0]), (0, [0]), (0, [])):
        problem = random_problem(config, num_priors, counts, 3)
        assert_same(streamed(problem, config), fused(problem, config))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    problem = random_problem(SimOTAConfig.yolox(), 60, [2, 1], 4)
    pred, priors, gts = problem.pred_boxes, problem.priors, problem.gts
    cls, obj = problem.cls_logits.dense().to(dtype), problem.obj_logits.dense().to(dtype)
    inputs = [value.to(DEVICE) for value in (pred, cls, priors, gts.boxes, gts.labels)]
    options = {"gt_offsets": gts.offsets.to(DEVICE), "obj_logits": obj.to(DEVICE)}
    assigner = SimOTAAssigner("yolox", backend="triton-stream")
    expected = assigner(*inputs, **options)
    with torch.autocast(DEVICE.type, dtype):
        found = assigner(*inputs, **options)
    for name in ("gt_index", "labels", "matched_iou", "dynamic_k"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_every_run_gives_the_same_bits_whatever_the_memory_held(monkeypatch):
    config = SimOTAConfig.super_gradients_fast()
    problem = random_problem(config, 60, [2, 1], 4)
    expected = streamed(problem, config, SMALL_TILES)
    empty = torch.empty
    for poison in (0, 255):
        monkeypatch.setattr(
            torch,
            "empty",
            lambda *args, value=poison, **kwargs: (
                empty(*args, **kwargs)
                .view(torch.uint8)
                .fill_(value)
                .view(kwargs.get("dtype") or torch.float32)
            ),
        )
        assert_same(streamed(problem, config, SMALL_TILES), expected)


def test_a_moved_problem_is_what_the_backend_sees():
    problem, config = random_problem(SimOTAConfig.rtmdet(), 40, [2], 3), SimOTAConfig.rtmdet()
    assert triton_stream.assign(on_device(problem), config).gt_index.device.type == DEVICE.type
