"""The torch backend's two ways and their parts, and that how it cuts the work changes no answer."""

from __future__ import annotations

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig, grid_priors, terms
from simota_triton import priors as known_priors
from simota_triton.backends import gts as gt_rows
from simota_triton.backends.gts import Gts
from simota_triton.backends.torch_pruned import compact, pairs, pruned
from simota_triton.backends.torch_pruned.block_maxima import FOLD, LONG, FoldedRows
from simota_triton.backends.torch_pruned.candidates import near_priors
from simota_triton.backends.torch_pruned.grid import SLACK, Levels
from simota_triton.backends.torch_pruned.priors import Priors
from simota_triton.boxes import box_center
from simota_triton.inputs import pack
from simota_triton.measure.simulate import random_gts, simulate_predictions

ANY_SIZE = 1 << 60


@pytest.fixture(autouse=True)
def no_call_is_small(monkeypatch):
    """The pruning path takes small calls too, unless a test says otherwise."""
    monkeypatch.setattr(compact, "MOST_PAIRS", 0)


def batch(preset, seed=0, counts=(7, 0, 19), order=None):
    """Inputs of an assigner: images of 256 pixels, priors in an order of their own where one is given."""
    generator = torch.Generator().manual_seed(seed)
    config = SimOTAConfig.from_preset(preset)
    priors = grid_priors(256, offset=0.5)
    boxes, labels = zip(*(random_gts(count, 256, 6, generator, 30.0) for count in counts), strict=True)
    predictions = simulate_predictions(boxes, labels, priors, 6, "mid", generator)
    order = torch.arange(len(priors)) if order is None else order
    inputs = [
        predictions.pred_boxes[:, order],
        predictions.cls_logits[:, order],
        priors[order],
        list(boxes),
        list(labels),
    ]
    return config, inputs, {"obj_logits": predictions.obj_logits[:, order]} if config.score == "joint" else {}


def answers(config, inputs, options, backend="torch"):
    result = SimOTAAssigner(config, backend=backend)(*inputs, **options)
    return result.gt_index, result.dynamic_k, result.claims, result.matched_iou


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
@pytest.mark.parametrize("shuffled", [False, True])
def test_it_answers_as_the_definition(preset, shuffled):
    order = torch.randperm(1344, generator=torch.Generator().manual_seed(1)) if shuffled else None
    case = batch(preset, order=order)
    assert same(answers(*case), answers(*case, backend="reference"))


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "nanodet", "super_gradients_fast"])
@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(gt_rows, "BLOCK_PAIRS", 1500), (pruned, "GROUP_PAIRS", 5000), (pairs, "BLOCK_SCORES", 50)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sizes_of_blocks_and_groups_change_nothing(preset, module, name, value, monkeypatch):
    case = batch(preset)
    expected = answers(*case)
    monkeypatch.setattr(module, name, value)
    assert same(answers(*case), expected)


@pytest.mark.parametrize("near_cost", [0.5, 1.1, 3.0, 40.0])
def test_what_counts_as_near_changes_nothing(near_cost, monkeypatch):
    case = batch("rtmdet")
    expected = answers(*case)
    monkeypatch.setattr(pairs, "NEAR_COST", near_cost)
    assert same(answers(*case), expected)


@pytest.mark.parametrize("smallest", [0.0, 0.5, 20.0])
@pytest.mark.parametrize(("rule", "eps"), [("none", 0.0), ("add", 100.0), ("max", 100.0), ("max", 500.0)])
def test_unions_are_guarded_as_the_definition_guards_them(rule, eps, smallest):
    config, inputs, options = batch("rtmdet")
    for boxes in inputs[3]:
        boxes[:, 2:] = boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]).clamp(min=20.0)
    inputs[3][0][3, 2:] = inputs[3][0][3, :2] + smallest
    inputs[0][0, :, 2:] = inputs[0][0, :, :2]  # predictions without area
    case = config.replace(union_rule=rule, union_eps=eps), inputs, options
    assert same(answers(*case), answers(*case, backend="reference"))


def test_logits_that_only_an_iou_leads_to_are_looked_at_in_every_group(monkeypatch):
    monkeypatch.setattr(pruned, "GROUP_PAIRS", 5000)
    config, inputs, options = batch("rtmdet")
    boxes, priors = inputs[3][2], inputs[2]
    candidate = terms.in_region(priors, boxes[:, None], boxes[:, None, :2], "box", 1.0).any(0)
    distance = terms.center_distance(priors, box_center(boxes[18])).where(candidate, -1.0)
    far = distance.topk(3).indices  # too far to be selected, and predicting the gt exactly
    inputs[0][2, far] = boxes[18]
    whole = answers(config, inputs, options)
    for prior in far:
        logits = inputs[1].clone()
        logits[2, prior, 0] = torch.nan
        case = config, [inputs[0], logits, *inputs[2:]], options
        assert same(answers(*case), answers(*case, backend="reference"))
        assert answers(*case)[1][-1] < whole[1][-1]


@pytest.mark.parametrize("level", [32.0, 33.0, 35.0])
def test_far_priors_that_are_cheaper_than_near_ones_are_found(level):
    """The k-th cost of near priors lies just above what the centre term alone costs outside of them."""
    config, priors = SimOTAConfig.rtmdet(), grid_priors(256, (8,), 0.5)
    # one prior at 4.495 strides of its centre, outside the window
    gts = torch.tensor([[71.96, 36.0, 231.96, 196.0]])
    distance = terms.center_distance(priors, box_center(gts))
    far = (distance > 4.49) & (distance < 4.5)
    assert bool(far.any())
    logits = torch.full((1, len(priors), 2), -60.0)
    logits[..., 0] = 60.0
    logits[0, ~far, 1] = level  # which costs as much
    case = config, [gts.expand(1, len(priors), 4), logits, priors, [gts], [torch.tensor([0])]], {}
    expected = answers(*case, backend="reference")
    assert bool((expected[0][0][far] == 0).all())
    assert same(answers(*case), expected)


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_contested_priors_may_have_a_logit_that_is_not_finite(preset, value):
    config, (_, _, priors, _, _), _ = batch(preset)
    gts = torch.tensor([[16.0, 16.0, 112.0, 112.0]]).repeat(2, 1)
    inputs = [
        gts[:1].expand(1, len(priors), 4),
        torch.zeros(1, len(priors), 3),
        priors,
        [gts],
        [torch.tensor([0, 1])],
    ]
    options = {"obj_logits": torch.zeros(1, len(priors), 1)} if config.score == "joint" else {}
    contested = (answers(config, inputs, options)[2][0] > 1).nonzero().flatten().tolist()
    assert contested
    for prior in (contested[0], contested[-1]):
        for label in range(3):
            logits = inputs[1].clone()
            logits[0, prior, label] = value
            case = config, [inputs[0], logits, *inputs[2:]], options
            assert same(answers(*case), answers(*case, backend="reference"))


def test_costs_below_zero_are_found_without_a_list_of_near_priors():
    config, inputs, options = batch("nanodet")
    config = config.replace(log_eps=0.5, cls_weight=0.0)
    inputs[0][:, :, :] = torch.tensor([0.0, 0.0, 64.0, 64.0])
    inputs[3] = [torch.tensor([[0.0, 0.0, 64.0, 64.0]])] * 3
    inputs[4] = [torch.tensor([1])] * 3
    expected = answers(config, inputs, options, "reference")
    assert int((expected[0] >= 0).sum()) == 3 * 13
    assert same(answers(config, inputs, options), expected)


def test_regular_priors_are_levels_and_others_are_not():
    priors = grid_priors((96, 160), offset=0.5)
    levels = Levels.of(priors)
    assert [
        (level.columns.stop - level.columns.start, level.rows.stop - level.rows.start)
        for level in levels.levels
    ] == [
        (20, 12),
        (10, 6),
        (5, 3),
    ]
    assert levels.columns.shape == (35, 2)
    assert levels.rows[-1].tolist() == [80.0, 32.0]
    moved, wide, nan = priors.clone(), priors.clone(), priors.clone()
    moved[17, 0] += 0.01
    wide[:, 3] *= 2
    nan[3, 1] = torch.nan
    for other in (
        moved,
        wide,
        nan,
        priors.flip(0),
        priors[:-1],
        priors[:0],
        priors * torch.tensor([1.0, 1.0, 0.0, 0.0]),
    ):
        assert Levels.of(other) is None


@pytest.mark.parametrize(("low", "regular"), [(0.0, True), (1e6, False)])
def test_cells_that_rounding_moves_off_their_index_are_no_levels(low, regular):
    x, y = torch.meshgrid(torch.arange(20) * 10.7 + low, torch.arange(12) * 10.7, indexing="xy")
    priors = torch.stack([x, y, *torch.full((2, 12, 20), 10.7)], 2).view(-1, 4)
    assert (Levels.of(priors) is not None) == regular


def test_what_is_kept_of_priors_is_of_them_as_they_are_now(monkeypatch):
    monkeypatch.setattr(known_priors, "MAX_KNOWN", 2)
    values = grid_priors(96, offset=0.5)
    first = Priors.of(values)
    assert Priors.of(values.clone()) is first
    assert torch.equal(first.columns[:, : len(values)], values.t())
    assert bool((first.columns[:, len(values) :] == 1).all())
    values[:, :2] += 3.0  # in place
    moved = Priors.of(values)
    assert moved.levels.columns[0, 0] == first.levels.columns[0, 0] + 3.0
    assert torch.equal(moved.columns[:, : len(values)], values.t())
    values[5, 0] = torch.nan
    for _ in range(2):
        broken = Priors.of(values)
        assert not broken.usable
        assert broken.levels is None
        assert broken.columns[:, 5].tolist() == [1.0] * 4
    for size in (128, 160, 192, 96):
        assert len(Priors.of(grid_priors(size)).levels.levels) == 3
    assert len(known_priors._KNOWN) <= 2


@pytest.mark.parametrize("radius", [0.4, 2.5, 3.9])
@pytest.mark.parametrize("regular", [False, True])
def test_a_window_holds_every_prior_within_its_radius(radius, regular):
    config, inputs, options = batch("rtmdet", counts=(40, 3, 1))
    inputs[3][2] = torch.tensor([[5e8, -5e8, 5e8 + 64, -5e8 + 64]])  # far outside
    problem = pack(config, *inputs, **options)
    gts = Gts.of(problem)
    near, distance = near_priors(
        problem, gts, Levels.of(problem.priors) if regular else None, slice(0, 44), radius
    )
    assert near.shape == distance.shape
    offset = (problem.priors[:, :2] - gts.centers[:, None]).abs()
    within = (offset <= radius * problem.priors[:, 2:]).all(2)
    for row in range(44):
        listed = near[row][near[row] < len(problem.priors)]
        assert bool((listed >= 0).all())
        assert listed.unique().numel() == listed.numel()
        assert set(within[row].nonzero().squeeze(1).tolist()) <= set(listed.tolist())
        exact = terms.center_distance(problem.priors[listed], gts.centers[row])
        assert torch.allclose(distance[row][near[row] < len(problem.priors)], exact, rtol=0, atol=SLACK / 2)
    assert near.shape[1] < 400


def test_folded_rows_find_what_plain_ones_do():
    values = torch.rand(5, LONG * FOLD, generator=torch.Generator().manual_seed(0)).square().round(decimals=3)
    values[4, 3:] = -torch.inf
    folded = FoldedRows(values)
    assert folded.maxima is not None
    assert folded.maxima.maxima is not None
    top, where = folded.largest(13)
    assert torch.equal(top.sort(1).values, values.topk(13).values.sort(1).values)
    assert torch.equal(values.gather(1, where), top)
    threshold = torch.tensor([[0.9], [0.99], [9.0], [-1e9], [0.0]])
    row, place = folded.at_least(threshold)
    found = set(zip(row.tolist(), place.tolist(), strict=True))
    assert len(found) == len(row)
    assert found == {tuple(pair) for pair in (values >= threshold).nonzero().tolist()}


@pytest.mark.parametrize("width", [1, 3, 7, 8, 20, 50])
def test_low_costs_are_chosen_once(width):
    cost = torch.full((4, 20), torch.inf)
    cost[1] = torch.arange(20.0)
    cost[2, 17:] = torch.tensor([3.0, 2.0, 1.0])
    cost[3, 0] = 1.0
    before = cost.clone()
    where = pruned._spread_lowest(cost, width)
    assert where.shape == (4, min(width, 20))
    assert bool(((where >= 0) & (where < 20)).all())
    assert all(row.unique().numel() == row.numel() for row in where)
    assert bool((cost.gather(1, where).amin(1) == cost.amin(1)).all())
    assert torch.equal(cost, before)


@pytest.fixture
def small_calls(monkeypatch):
    """All calls are small; what :func:`compact.match` gave for each of them."""
    given, match = [], compact.match
    monkeypatch.setattr(compact, "MOST_PAIRS", ANY_SIZE)
    monkeypatch.setattr(compact, "match", lambda *arguments: given.append(match(*arguments)) or given[-1])
    return given


def masked(inputs, options):
    """With every third prior of the first image, and none of the last, taking part."""
    mask = torch.ones(inputs[0].shape[:2], dtype=torch.bool)
    mask[0, 1::3] = mask[0, 2::3] = mask[-1] = False
    return {**options, "candidate_mask": mask}


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
@pytest.mark.parametrize("change", [lambda inputs, options: options, masked])
def test_a_small_call_answers_as_the_definition(preset, change, small_calls, monkeypatch):
    start, inputs, options = batch(preset)
    options = change(inputs, options)
    for conflict, few_scores in (("all", 0), ("matched", ANY_SIZE), ("max_iou", 0)):
        monkeypatch.setattr(compact, "FEW_SCORES", few_scores)
        config = start.replace(conflict=conflict)
        assert same(answers(config, inputs, options), answers(config, inputs, options, "reference"))
    assert len(small_calls) == (0 if start.candidate == "all" or start.k_pool == "all" else 3)
    assert None not in small_calls


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "nanodet", "super_gradients_fast"])
def test_equal_costs_in_a_small_call_go_to_the_lowest_prior(preset, small_calls):
    config, inputs, options = batch(preset)
    # one prediction everywhere: costs differ by distance alone, if by anything
    inputs[0] = inputs[0][:, :1].expand_as(inputs[0])
    inputs[1] = torch.zeros_like(inputs[1])
    assert same(answers(config, inputs, options), answers(config, inputs, options, "reference"))
    assert len(small_calls) == 1
    assert None not in small_calls


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "libre_rtmdet"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", ["pred_boxes", "cls_logits"])
def test_a_small_call_whose_candidates_are_not_finite_goes_the_other_way(preset, value, which, small_calls):
    config, inputs, options = batch(preset)
    won = answers(config, inputs, options)[0][0].max(0).indices
    inputs[which == "cls_logits"] = spoiled = inputs[which == "cls_logits"].clone()
    spoiled[0, won, 1] = value
    assert same(answers(config, inputs, options), answers(config, inputs, options, "reference"))
    assert small_calls[0] is not None
    assert small_calls[1] is None


def test_gts_without_a_candidate_and_images_without_any_are_small_calls_too(small_calls):
    config, inputs, options = batch("rtmdet", counts=(2, 1))
    inputs[3] = [
        torch.tensor([[0.0, 0.0, 64.0, 64.0], [300.0, 300.0, 310.0, 310.0]]),
        torch.tensor([[-20.0, -20.0, -8.0, -8.0]]),
    ]
    assert same(answers(config, inputs, options), answers(config, inputs, options, "reference"))
    assert None not in small_calls


def test_what_is_small_depends_on_gts_images_and_priors(monkeypatch):
    monkeypatch.undo()
    config = SimOTAConfig.rtmdet()

    def small(counts):
        _, inputs, _ = batch("rtmdet", counts=counts)
        problem = pack(config, *inputs)
        return compact.applies(problem, config, Gts.of(problem))

    scale = 8400 / len(grid_priors(256))
    assert small([round(15 * scale)])
    assert not small([round(21 * scale)])
    assert small([round(scale)] * 4)
    assert not small([round(5 * scale)] * 8)
