"""The torch backend for the task-aligned rule: the same answers as the definition, whatever the form of the
inputs, and however the work is cut.
"""

from __future__ import annotations

import sys

import pytest
import torch

from simota_triton import TaskAlignedAssigner, TaskAlignedConfig, grid_priors
from simota_triton.backends import gts as gt_rows
from simota_triton.backends import torch_aligned
from simota_triton.backends.torch_aligned import pairs
from simota_triton.backends.torch_aligned.grids import MAX_GRIDS, Grids
from simota_triton.inputs import pack
from simota_triton.measure.peak import peak_bytes
from simota_triton.measure.simulate import random_gts, simulate_predictions
from simota_triton.task_aligned import reference
from simota_triton.task_aligned import terms as aligned_terms

MATCH = sys.modules[f"{torch_aligned.__name__}.match"]
UPRIGHT = [
    name for name in TaskAlignedConfig.presets() if TaskAlignedConfig.from_preset(name).boxes == "xyxy"
]
KINDS = ["tal", "tal_o2o", "yolov6", "tood", "yolo9_mit"]
"""Presets that between them take every branch."""


def batch(seed=0, counts=(7, 0, 19), side=30.0, phase="mid", order=None):
    """Inputs of an assigner: images of 256 pixels, priors in an order of their own where one is given."""
    generator = torch.Generator().manual_seed(seed)
    priors = grid_priors(256, offset=0.5)
    boxes, labels = zip(*(random_gts(count, 256, 6, generator, side) for count in counts), strict=True)
    found = simulate_predictions(boxes, labels, priors, 6, phase, generator)
    order = torch.arange(len(priors)) if order is None else order
    return [found.pred_boxes[:, order], found.cls_logits[:, order], priors[order], list(boxes), list(labels)]


def answers(config, inputs, backend="torch", **options):
    result = TaskAlignedAssigner(config, backend=backend)(*inputs, **options)
    return result.gt_index, result.labels, result.claims, result.dynamic_k, result.matched_iou, result.scores


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def as_defined(config, inputs, **options):
    """The answers of the backend, once they are found to be those of the definition.

    To the bit, but for exponents that are not whole, whose powers torch rounds in two ways.
    """
    found, expected = (answers(config, inputs, backend, **options) for backend in ("torch", "reference"))
    assert same(found[:4], expected[:4])
    for values, others in zip(found[4:], expected[4:], strict=True):
        assert torch.allclose(values, others, rtol=1e-6, atol=0)
    return found


def padded(inputs, width=21):
    """Inputs with padded gts, and their mask."""
    boxes, labels = torch.zeros(3, width, 4), torch.zeros(3, width, dtype=torch.long)
    mask = torch.zeros(3, width, dtype=torch.bool)
    for image, (own_boxes, own_labels) in enumerate(zip(*inputs[3:], strict=True)):
        own = slice(len(own_boxes))
        boxes[image, own], labels[image, own], mask[image, own] = own_boxes, own_labels, True
    return [*inputs[:3], boxes, labels], {"gt_mask": mask}


@pytest.mark.parametrize("preset", UPRIGHT)
@pytest.mark.parametrize("phase", ["untrained", "mid", "trained"])
def test_it_answers_as_the_definition(preset, phase):
    config = TaskAlignedConfig.from_preset(preset)
    for seed, side in ((0, 30.0), (1, 12.0)):
        inputs = batch(seed, side=side, phase=phase)
        found = as_defined(config, inputs)
        exact = reference.assign(pack(config, *inputs), config, dtype=torch.float64)
        assert torch.equal(found[0], exact.gt_index)
        assert torch.allclose(found[5], exact.scores, rtol=1e-3, atol=1e-7)
        assert phase == "untrained" or int((found[0] >= 0).sum()) > 20


@pytest.mark.parametrize("preset", KINDS)
@pytest.mark.parametrize("conflict", ["inside", "all", "matched"])
@pytest.mark.parametrize("pool", ["inside", "all"])
def test_every_conflict_and_pool(preset, conflict, pool):
    config = TaskAlignedConfig.from_preset(
        preset, conflict=conflict, pool=pool, topk2=3 if pool == "all" else None
    )
    inputs = batch(2, counts=(25, 1, 0))
    inputs[3][0][12:24] = inputs[3][0][:12] + 3.0  # which want the same priors
    assert int((as_defined(config, inputs)[2] > 1).sum()) > 5


@pytest.mark.parametrize(
    "change",
    [
        {"inclusive": True},
        {"margin": 4.0},
        {"margin": 4.0, "inclusive": True},
        {"max_reach": 2.0},
        {"min_side_below": 12.0, "min_side_to": 40.0},
        {"topk": 32},
        {"topk": 1},
        {"alpha": 0.0, "beta": 1.0},
        {"alpha": 2.0, "beta": 0.25},
        {"at_least_one": True, "margin": 15.0},
        {"score": "prob"},
    ],
    ids=str,
)
def test_every_field(change):
    inputs = batch(3)
    inputs[3] = [boxes.mul(0.5).round().mul(2) for boxes in inputs[3]]  # edges on points of priors
    if "score" in change:
        inputs[1] = inputs[1].sigmoid()
    found = as_defined(TaskAlignedConfig.tal(**change), inputs)
    assert int((found[0] >= 0).sum()) > 0


@pytest.mark.parametrize("preset", KINDS)
def test_how_the_work_is_cut_changes_nothing(preset, monkeypatch):
    inputs = batch(4, counts=(20, 3, 9), side=60.0)
    expected = answers(preset, inputs)
    for module, name, value in (
        (gt_rows, "BLOCK_PAIRS", 3000),
        (pairs, "GROUP_PAIRS", 500),
        (MATCH, "FEW", 0),
        (MATCH, "FEW_OF_GT", 0),
    ):
        monkeypatch.setattr(module, name, value)
        assert same(answers(preset, inputs), expected)


def test_a_group_has_about_as_many_pairs_as_it_may(monkeypatch):
    monkeypatch.setattr(pairs, "GROUP_PAIRS", 300)
    config = TaskAlignedConfig.tal()
    problem = pack(config, *batch(4, counts=(20, 3, 9)))
    gts = gt_rows.Gts.of(problem)
    terms = pairs.PairTerms(problem, config, gts)
    groups = terms.groups()
    assert [group.start for group in groups] == [0, *(group.stop for group in groups[:-1])]
    assert groups[-1].stop == 32
    counts = [terms.in_region(group)[0].shape[0] for group in groups]
    single = max(terms.in_region(slice(row, row + 1))[0].shape[0] for row in range(32))
    assert len(counts) > 3
    assert max(counts) < 300 + single


@pytest.mark.parametrize("preset", KINDS)
def test_all_forms_of_gts_and_logits(preset):
    inputs = batch(5)
    expected = as_defined(preset, inputs)
    maps, start = [], 0
    for side in (32, 16, 8):
        maps.append(inputs[1][:, start : start + side * side].transpose(1, 2).reshape(3, 6, side, side))
        start += side * side
    assert same(answers(preset, [inputs[0], maps, *inputs[2:]]), expected)
    strided = [
        inputs[0].transpose(0, 1).contiguous().transpose(0, 1),
        inputs[1].mT.contiguous().mT,
        *inputs[2:],
    ]
    assert same(answers(preset, strided), expected)
    offsets = torch.tensor([0, 7, 7, 26])
    packed = [*inputs[:3], torch.cat(inputs[3]), torch.cat(inputs[4])]
    assert same(answers(preset, packed, gt_offsets=offsets), expected)
    wide, mask = padded(inputs)
    found = as_defined(preset, wide, **mask)
    assert same(found[:3] + found[4:], expected[:3] + expected[4:])
    assert torch.equal(found[3].flatten()[mask["gt_mask"].flatten()], expected[3])
    half = [inputs[0].half(), inputs[1].bfloat16(), *inputs[2:]]
    as_defined(preset, half)


@pytest.mark.parametrize("preset", KINDS)
def test_an_image_of_a_batch_is_assigned_as_by_itself(preset):
    inputs = batch(6)
    together = answers(preset, inputs)
    for image in range(3):
        own = slice(image, image + 1)
        alone = answers(preset, [inputs[0][own], inputs[1][own], inputs[2], inputs[3][own], inputs[4][own]])
        for index in (0, 1, 2, 4, 5):
            assert torch.equal(alone[index][0], together[index][image])


@pytest.mark.parametrize("preset", ["tal", "tal_o2o", "yolov6", "tood"])
def test_priors_need_no_strides_and_no_order(preset):
    inputs = batch(7)
    expected = as_defined(preset, inputs)
    points = [*inputs[:2], inputs[2][:, :2], *inputs[3:]]
    assert same(answers(preset, points), expected)
    order = torch.randperm(1344, generator=torch.Generator().manual_seed(1))
    assert Grids.of(inputs[2][order]) is None
    as_defined(preset, batch(7, order=order))
    found = as_defined(preset, [inputs[0][:, order], inputs[1][:, order], inputs[2][order], *inputs[3:]])
    assert torch.equal(found[0], expected[0][:, order])  # there are no ties here


def test_grids_are_found_in_the_points_alone():
    priors = grid_priors((96, 160), offset=0.5)
    grids = Grids.of(priors[:, :2])
    assert grids.first.tolist() == [0, 240, 300]
    assert grids.width.tolist() == [20, 10, 5]
    assert grids.lines.shape == (6, 20)
    assert grids.lines[1].isfinite().sum() == 10
    assert grids.lines[5, :4].tolist() == [16.0, 48.0, 80.0, torch.inf]
    # of columns and rows of any distance, of corners, of one row or column, of one prior
    uneven = torch.cartesian_prod(torch.tensor([0.0, 1.0, 7.0]), torch.tensor([-3.0, 2.0])).flip(1)
    assert Grids.of(uneven).width.tolist() == [2]
    assert Grids.of(grid_priors((8, 64), (8, 16, 32))[:, :2]).first.tolist() == [0, 8, 12]
    assert Grids.of(grid_priors((64, 8), (8, 16))[:, :2]).first.tolist() == [0, 8]
    assert Grids.of(priors[:1]).width.tolist() == [1]
    moved = priors.clone()
    moved[45, 0] += 0.01
    assert Grids.of(moved).first.tolist() == [0, 40, 60, 240, 300]
    assert Grids.of(priors.flip(0)) is None
    assert MAX_GRIDS == 16


@pytest.mark.parametrize("inclusive", [False, True])
def test_ranges_decide_as_the_region_does(inclusive):
    config = TaskAlignedConfig.tal(inclusive=inclusive, min_side_below=0.0, min_side_to=0.0)
    priors = grid_priors(64, (8, 16), offset=0.5)
    edges = torch.tensor(
        [-5.0, 4.0, 8.0, 12.0, torch.nextafter(torch.tensor(12.0), torch.tensor(0.0)), 60.0, 99.0]
    )
    boxes = torch.cartesian_prod(edges, edges, edges, edges)  # also inverted and empty ones
    expected = torch_aligned.terms.in_region(priors, boxes[:, None], config).nonzero()
    grids = Grids.of(priors)
    row, prior = grids.pairs(boxes, inclusive, torch.zeros(len(boxes), dtype=torch.long))
    assert torch.equal(torch.stack([row, prior], 1), expected)
    counts = torch.bincount(row, minlength=len(boxes))
    assert bool((grids.counts(boxes) >= counts).all())


@pytest.mark.parametrize("preset", KINDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("which", ["pred_boxes", "cls_logits"])
def test_a_prediction_that_is_not_finite_spoils_one_prior(preset, value, which):
    inputs = batch(8)
    clean = answers(preset, inputs)
    for prior in clean[5].flatten().topk(3).indices.tolist():
        for column in range(4):
            spoiled = [tensor.clone() for tensor in inputs[:2]]
            if which == "pred_boxes":
                spoiled[0].view(-1, 4)[prior, column] = value
            else:
                spoiled[1].view(-1, 6)[prior] = value
            found = as_defined(preset, [*spoiled, *inputs[2:]])
            assert bool(found[5].isfinite().all())
    far = clean[0].view(-1) != found[0].view(-1)
    assert int(far.sum()) < 8


@pytest.mark.parametrize("preset", KINDS)
def test_masks_of_priors_and_of_pairs(preset):
    inputs = batch(9)
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 1344, generator=generator) < 0.6
    found = as_defined(preset, inputs, candidate_mask=mask)
    assert not bool((found[0] >= 0)[~mask].any())
    allowed = [torch.rand(len(boxes), 1344, generator=generator) < 0.6 for boxes in inputs[3]]
    found = as_defined(preset, inputs, pair_mask=allowed, candidate_mask=mask[0])
    assert int((found[0] >= 0).sum()) > 0


@pytest.mark.parametrize("preset", KINDS)
def test_gts_outside_or_without_area_and_images_without_gts(preset):
    inputs = batch(10)
    odd = [
        [-90.0, -90.0, -20.0, -20.0], [300.0, 10.0, 400.0, 60.0], [-40.0, -40.0, 30.0, 30.0],
        [50.0, 50.0, 50.0, 90.0], [60.0, 60.0, 60.0, 60.0], [100.0, 100.0, 101.0, 101.0],
        [-1e6, -1e6, 1e6, 1e6], [0.0, 0.0, 0.0, 0.0],
    ]  # fmt: skip
    inputs[3][1], inputs[4][1] = torch.tensor(odd), torch.arange(8) % 6
    found = as_defined(preset, inputs)
    assert bool((found[0][1] >= 0).any())
    nothing = [torch.zeros(0, 4)] * 3, [torch.zeros(0, dtype=torch.long)] * 3
    found = as_defined(preset, [*inputs[:3], *nothing])
    assert bool((found[0] == -1).all())
    assert bool((found[1] == 6).all())


@pytest.mark.parametrize("preset", KINDS)
@pytest.mark.parametrize("number", [0, 1, 5])
def test_fewer_priors_than_topk(preset, number):
    inputs = batch(11)
    few = [inputs[0][:, :number], inputs[1][:, :number], inputs[2][:number], *inputs[3:]]
    few[3] = [torch.tensor([[0.0, 0.0, 64.0, 64.0]])] * 3
    few[4] = [torch.tensor([2])] * 3
    few[0] = few[3][0].expand(3, number, 4)
    found = as_defined(preset, few)
    assert bool((found[0] >= 0).any()) == (number > 0)


def test_gts_that_cannot_take_part_are_left_out():
    inputs, mask = padded(batch(12))
    inputs[3][0, 1] = torch.nan
    inputs[4][2, 0] = 6
    found, expected = (
        TaskAlignedAssigner("tal", backend=backend, validate=False)(*inputs, **mask)
        for backend in ("torch", "reference")
    )
    assert torch.equal(found.gt_index, expected.gt_index)
    assert found.num_refused.tolist() == [1, 0, 1]


def test_equal_metrics_go_to_the_lowest_prior_and_equal_overlaps_to_the_lowest_gt(monkeypatch):
    priors = grid_priors(64, (8,), offset=0.5)
    gts = torch.tensor([[0.0, 0.0, 64.0, 32.0], [0.0, 0.0, 64.0, 32.0], [0.0, 32.0, 64.0, 64.0]])
    boxes = torch.cat([gts[:1].expand(32, 4), gts[2:].expand(32, 4)])[None]
    inputs = [boxes, torch.zeros(1, 64, 1), priors, [gts], [torch.zeros(3, dtype=torch.long)]]
    for few in (MATCH.FEW, 0):
        monkeypatch.setattr(MATCH, "FEW", few)
        monkeypatch.setattr(MATCH, "FEW_OF_GT", few)
        gt_index, _, claims, _, overlap, _ = as_defined("tal", inputs)
        expected = [0] * 10 + [-1] * 22 + [2] * 10 + [-1] * 22
        assert gt_index[0].tolist() == expected
        assert claims[0].tolist() == [2] * 10 + [0] * 22 + [1] * 10 + [0] * 22
        assert torch.allclose(overlap[0][gt_index[0] >= 0], torch.ones(20))
    assert answers("tal_o2o", inputs)[0][0].nonzero().flatten().tolist() != []
    assert (answers("tal_o2o", inputs)[0][0] >= 0).nonzero().flatten().tolist() == [0, 32]


@pytest.mark.parametrize("conflict", ["inside", "all"])
@pytest.mark.parametrize("value", [-5.0, torch.nan, torch.inf])
def test_a_gt_of_the_largest_overlap_wins_what_it_did_not_select_if_its_logit_is_finite(conflict, value):
    priors = grid_priors(64, (8,), offset=0.5)
    gts = torch.tensor([[0.0, 0.0, 40.0, 40.0], [3.0, 3.0, 43.0, 43.0], [1.0, 1.0, 41.0, 41.0]])
    boxes, logits = torch.zeros(1, 64, 4), torch.full((1, 64, 3), -5.0)
    boxes[0, 9], logits[0, 9, :2], logits[0, 9, 2] = gts[2], 5.0, value  # the best of gts 0 and 1
    boxes[0, 18], logits[0, 18, 2] = gts[2] + 1.0, 5.0  # the best of gt 2
    config = TaskAlignedConfig.tal(conflict=conflict, topk=1)
    gt_index, _, claims, *_ = as_defined(config, [boxes, logits, priors, [gts], [torch.arange(3)]])
    assert claims[0, [9, 18]].tolist() == [2, 1]
    assert gt_index[0, [9, 18]].tolist() == [2 if value == -5.0 else 0, 2]


def test_no_memory_for_all_pairs():
    counts = (500,)
    inputs = batch(13, counts=counts, side=10.0)
    matrix = 500 * 1344 * 4
    assigner = TaskAlignedAssigner("tal", backend="torch")
    assigner(*inputs)
    assert peak_bytes(lambda: assigner(*inputs)) < matrix


def rotated(seed, counts=(7, 0, 19)):
    """Inputs with rotated boxes: of each image half of the predictions are near a gt of it."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(number):
        return torch.cat(
            [
                torch.rand(number, 2, generator=generator) * 256,
                torch.exp(torch.randn(number, 2, generator=generator) * 0.6 + 3.2),
                torch.randn(number, 1, generator=generator) * 2,
            ],
            1,
        )

    priors, gts = grid_priors(256, offset=0.5), [boxes(count) for count in counts]
    found = torch.stack([boxes(len(priors)) for _ in counts])
    found[..., :2] = priors[:, :2] + torch.randn(len(counts), len(priors), 2, generator=generator) * 4
    for image, own in enumerate(gts):
        if len(own):
            near = own[torch.randint(len(own), (len(priors) // 2,), generator=generator)]
            found[image, ::2] = near + torch.randn(near.shape, generator=generator) * 0.02 * near[:, 2:3]
    labels = [torch.randint(6, (count,), generator=generator) for count in counts]
    return [found, torch.randn(len(counts), len(priors), 6, generator=generator), priors, gts, labels]


@pytest.mark.parametrize("conflict", ["inside", "all", "matched"])
@pytest.mark.parametrize("preset", ["tal_obb", "tal_obb_v8"])
def test_rotated_boxes(preset, conflict, monkeypatch):
    config = TaskAlignedConfig.from_preset(preset, conflict=conflict)
    inputs = rotated(0)
    expected = as_defined(config, inputs)
    assert int((expected[2] > 1).sum()) > 5
    as_defined(config.replace(at_least_one=True, topk2=2), rotated(1))
    mask = torch.rand(3, 1344, generator=torch.Generator().manual_seed(0)) < 0.6
    as_defined(config, inputs, candidate_mask=mask)
    order = torch.randperm(1344, generator=torch.Generator().manual_seed(1))
    as_defined(config, [inputs[0][:, order], inputs[1][:, order], inputs[2][order], *inputs[3:]])
    for value in (torch.nan, torch.inf, 1e20):
        spoiled = inputs[0].clone()
        spoiled.view(-1)[::101] = value
        as_defined(config, [spoiled, *inputs[1:]])
    for module, name, value in ((pairs, "GROUP_PAIRS", 500), (MATCH, "FEW", 0), (MATCH, "FEW_OF_GT", 0)):
        monkeypatch.setattr(module, name, value)
        assert same(answers(config, inputs), expected)


def test_equal_pairs_have_equal_metrics_wherever_they_lie_in_a_tensor():
    config = TaskAlignedConfig.tal()
    for number in (1, 7, 100, 40001):
        scores = aligned_terms.class_scores(torch.full((number,), -1.2345), config)
        metric = aligned_terms.metric(scores, torch.full((number,), 0.73217), config)
        assert metric.unique().tolist() == [
            aligned_terms.metric(scores[:1], torch.tensor([0.73217]), config).item()
        ]


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 7.0, 64.0, 2.5])
def test_powers(exponent):
    base = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(aligned_terms.power(base, exponent), base**exponent, rtol=1e-13, atol=0)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_probability_above_1_is_1(backend):
    """Where values are not looked at; the torch backend leaves out pairs by metric <= overlap ** beta."""
    rng = torch.Generator().manual_seed(0)
    priors = grid_priors(64, offset=0.5)
    gts = torch.tensor([[4.0, 4.0, 40.0, 44.0], [20.0, 16.0, 60.0, 60.0]])
    near = gts[torch.randint(0, 2, (1, len(priors)), generator=rng)]
    pred = near + torch.randn(1, len(priors), 4, generator=rng) * 4
    scores = torch.rand(1, len(priors), 3, generator=rng) * 3
    config = TaskAlignedConfig.tal(score="prob", topk=3)
    assigner = TaskAlignedAssigner(config, backend=backend, validate=False)
    labels = [torch.tensor([0, 2])]
    found, expected = (
        assigner(pred, values, priors, [gts], labels) for values in (scores, scores.clamp(max=1.0))
    )
    assert found == expected
    assert found.num_pos.item() > 3
