"""``min_positives``: hand-made scenes, a second writing of the rule, every backend against the definition."""

from __future__ import annotations

import random

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig, dynamic_k_matching, grid_priors, op, reference
from simota_triton.inputs import pack
from simota_triton.kernels.fused import launch
from simota_triton.matching import Matching, rescue
from simota_triton.measure.simulate import random_gts, simulate_predictions
from simota_triton.problem import map_tensors
from simota_triton.tuning.stream_config import StreamConfig
from tests.support import kernels as kernels_support
from tests.support.kernels import DEVICE, fused, random_inputs, random_launch, streamed

INF = float("inf")
DTYPES = (torch.float32, torch.float64)


def rescued(cost, gt_index, min_positives, dtype=torch.float32):
    """Gt of each prior of one image."""
    return rescue(torch.tensor([cost], dtype=dtype), torch.tensor([gt_index]), min_positives)[0].tolist()


def literal(cost, gt_index, min_positives):
    """The rule written once more, on lists."""
    owner = list(gt_index)
    for gt, row in enumerate(cost):
        while owner.count(gt) < min_positives:
            free = [
                p
                for p in range(len(owner))
                if row[p] < INF and (owner[p] < 0 or owner.count(owner[p]) > min_positives)
            ]
            if not free:
                break
            owner[min(free, key=lambda p: (row[p], p))] = gt
    return owner


# the rule on matrices


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gt_that_lost_everything_takes_its_cheapest_prior(dtype):
    cost = [[1.0, 2.0, 3.0, 9.0], [4.0, 5.0, 6.0, 7.0]]
    assert rescued(cost, [0, 0, 0, -1], 1, dtype) == [1, 0, 0, -1]
    # gt 0 has two left, so that nothing of it can be spared
    assert rescued(cost, [0, 0, 0, -1], 2, dtype) == [
        1,
        0,
        0,
        1,
    ]
    assert rescued(cost, [0, 0, 0, -1], 3, dtype) == [0, 0, 0, 1]
    assert rescued(cost, [0, 0, 0, -1], 0, dtype) == [0, 0, 0, -1]


def test_nobody_falls_short_for_the_sake_of_another():
    cost = [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    assert rescued(cost, [0, 0], 1) == [1, 0]  # and gt 2 finds nothing
    assert rescued([[1.0], [0.5]], [0], 1) == [0]


def test_what_a_gt_may_not_take_is_left_alone():
    assert rescued([[1.0, 2.0, 3.0], [INF, INF, INF]], [0, 0, 0], 1) == [0, 0, 0]
    assert rescued([[1.0, 2.0, 3.0], [INF, INF, 8.0]], [0, 0, 0], 1) == [0, 0, 1]
    assert rescued([[1.0, 2.0, 3.0], [INF, INF, 8.0]], [0, 0, 0], 3) == [0, 0, 0]


def test_gts_take_turns_in_the_order_of_their_index():
    """Gts 1 and 2 both want prior 0; then gt 0 has as many as it must keep."""
    cost = [[1.0, 1.0, 1.0, 1.0], [0.0, 5.0, 6.0, INF], [0.0, 5.0, 6.0, INF]]
    assert rescued(cost, [0, 0, 0, -1], 1) == [1, 2, 0, -1]
    assert rescued(cost, [0, 0, -1, -1], 1) == [1, 0, 2, -1]


def test_a_chain_takes_from_whoever_has_more_at_that_moment():
    """Gt 2 takes from gt 1, and gt 3 would too, but now finds gt 1 with as many as it must keep, and takes
    from gt 0.
    """
    cost = [[9.0] * 6, [9.0] * 6, [5.0, 5.0, 5.0, 0.0, 1.0, INF], [3.0, 4.0, 5.0, 0.0, 1.0, INF]]
    assert rescued(cost, [0, 0, 0, 1, 1, -1], 1) == [3, 0, 0, 2, 1, -1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_costs_go_to_the_lowest_prior(dtype):
    cost = [[9.0] * 4, [INF, 0.0, -0.0, 0.0]]
    assert rescued(cost, [0, 0, 0, 0], 1, dtype) == [0, 1, 0, 0]
    assert rescued(cost, [0, 0, 0, 0], 2, dtype) == [0, 1, 1, 0]


def test_images_do_not_mix():
    cost = torch.tensor([[[1.0, 2.0], [1.0, 2.0]], [[INF, INF], [3.0, 2.0]], [[1.0, 2.0], [INF, INF]]])
    assert rescue(cost, torch.tensor([[0, 0], [-1, -1], [-1, 0]]), 1).tolist() == [[1, 0], [-1, 1], [-1, 0]]


def test_a_second_writing_gives_the_same():
    rng = random.Random(0)
    moved = 0
    for _ in range(400):
        num_gts, num_priors, least = rng.randint(1, 6), rng.randint(1, 12), rng.randint(1, 4)
        cost = [
            [rng.choice([INF, float(rng.randint(0, 4)), rng.random()]) for _ in range(num_priors)]
            for _ in range(num_gts)
        ]
        takes = [[-1, *(g for g in range(num_gts) if cost[g][p] < INF)] for p in range(num_priors)]
        few = rng.sample(range(num_gts), rng.randint(1, num_gts))
        before = [rng.choice([g for g in own if g < 0 or g in few]) for own in takes]
        after = rescued(cost, before, least)
        assert after == literal(cost, before, least)
        moved += after != before
    assert moved > 200


def test_the_matching_tells_what_the_ious_asked_for():
    cost = torch.tensor([[[1.0, 2.0, 9.0, 9.0], [1.5, 3.0, 4.0, 9.0]]])
    iou = torch.tensor([[[0.9, 0.8, 0.4, 0.0], [0.6, 0.3, 0.1, 0.0]]])
    plain = dynamic_k_matching(cost, iou)
    found = dynamic_k_matching(cost, iou, min_positives=2)
    assert plain.gt_index.tolist() == [[0, 0, -1, -1]]
    assert found.gt_index.tolist() == [[0, 0, 1, 1]]
    assert torch.equal(found.matched_iou, torch.tensor([[0.9, 0.8, 0.1, 0.0]]))
    assert torch.equal(found.dynamic_k, plain.dynamic_k)
    assert torch.equal(found.claims, plain.claims)
    with pytest.raises(ValueError, match="min_positives: expected 0 or more, got -1"):
        dynamic_k_matching(cost, iou, min_positives=-1)


def test_no_host_sync():
    cost, index = torch.empty(2, 3, 50, device="meta"), torch.empty(2, 50, dtype=torch.int64, device="meta")
    assert rescue(cost, index, 2).shape == (2, 50)  # meta tensors cannot be read


# assigners


def scene(preset, counts=(9, 0, 14), seed=0, **options):
    """A configuration and inputs in which some gts lose all of their priors: each image holds twins (but for
    their class) and small gts within large ones."""
    generator = torch.Generator().manual_seed(seed)
    config = SimOTAConfig.from_preset(preset, **options)
    priors = grid_priors(128, offset=0.5)
    boxes, labels = [], []
    for count in counts:
        own, classes = random_gts(count, 128, 4, generator, 30.0)
        if count:
            center = (own[:3, :2] + own[:3, 2:]) / 2
            own = torch.cat([own, own[:2], torch.cat([center - 3.0, center + 3.0], 1)])
            classes = torch.cat([classes, (classes[:2] + 1) % 4, classes[:3]])
        boxes.append(own)
        labels.append(classes)
    pred = simulate_predictions(boxes, labels, priors, 4, "mid", generator)
    obj = {"obj_logits": pred.obj_logits} if config.score == "joint" else {}
    return config, (pred.pred_boxes, pred.cls_logits, priors, boxes, labels), obj


def positives(result):
    """Positives of each gt, image after image, [N]."""
    rows = result._rows()[result.fg_mask]
    return torch.bincount(rows, minlength=result.gts.boxes.shape[0])


FIELDS = ("gt_index", "labels", "matched_iou", "claims", "dynamic_k")


def assert_same(found, expected):
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
@pytest.mark.parametrize("least", [1, 3])
def test_the_torch_backend_answers_as_the_definition(preset, least):
    config, inputs, obj = scene(preset)
    before = SimOTAAssigner(config, backend="reference")(*inputs, **obj)
    config = config.replace(min_positives=least)
    expected = SimOTAAssigner(config, backend="reference")(*inputs, **obj)
    assert_same(SimOTAAssigner(config, backend="torch")(*inputs, **obj), expected)
    few, kept = positives(before), positives(expected)
    assert (few < least).sum() > 2  # there is something to do
    assert (kept >= few.clamp(max=least)).all()  # nobody falls short for another's sake
    assert kept.sum() > few.sum() or (expected.gt_index != before.gt_index).any()
    assert torch.equal(expected.claims, before.claims)
    assert torch.equal(expected.dynamic_k, before.dynamic_k)
    assert (expected.fg_mask == (expected.labels < 4)).all()


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_padding_packing_and_the_batch_change_nothing(backend):
    config, (pred, cls, priors, boxes, labels), _ = scene("rtmdet", min_positives=2)
    assigner = SimOTAAssigner(config, backend=backend)
    expected = assigner(pred, cls, priors, boxes, labels)
    offsets = torch.tensor([0, *(len(own) for own in boxes)]).cumsum(0)
    packed = assigner(pred, cls, priors, torch.cat(boxes), torch.cat(labels), gt_offsets=offsets)
    assert_same(packed, expected)
    width = max(map(len, boxes)) + 3
    padded, classes = torch.full((3, width, 4), torch.nan), torch.full((3, width), -1)
    mask = torch.zeros(3, width, dtype=torch.bool)
    for b, own in enumerate(boxes):
        slots = slice(2, 2 + len(own))  # padding before and behind
        padded[b, slots], classes[b, slots], mask[b, slots] = own, labels[b], True
    found = assigner(pred, cls, priors, padded, classes, gt_mask=mask)
    assert torch.equal(found.gt_index, torch.where(expected.gt_index >= 0, expected.gt_index + 2, -1))
    assert torch.equal(found.labels, expected.labels)
    for b in range(3):
        one = slice(b, b + 1)
        alone = assigner(pred[one], cls[one], priors, boxes[one], labels[one])
        assert torch.equal(alone.gt_index, expected.gt_index[one])


@pytest.mark.parametrize("backend", ["reference", "torch", "triton", "triton-stream"])
def test_a_small_gt_inside_a_large_one(backend):
    """Both predict the large box alone, so that the small one loses its only claim; its own prior then
    follows its new owner.
    """
    priors = torch.tensor(
        [[x, y, 8.0, 8.0] for y in (4.0, 12.0, 20.0, 28.0) for x in (4.0, 12.0, 20.0, 28.0)]
    )
    gts = torch.tensor([[0.0, 0.0, 32.0, 32.0], [9.0, 9.0, 15.0, 15.0]])
    pred = gts[:1].repeat(16, 1)[None]
    cls = torch.full((1, 16, 2), -4.0)
    cls[..., 0] = 4.0
    inputs = pred, cls, priors, [gts], [torch.tensor([0, 1])]
    before = SimOTAAssigner("rtmdet", backend=backend)(*inputs)
    assert positives(before).tolist() == [13, 0]
    assert before.summary().num_empty == 1
    after = SimOTAAssigner(SimOTAConfig.rtmdet(min_positives=1), backend=backend)(*inputs)
    assert positives(after).tolist() == [12, 1]
    prior = int((after.gt_index[0] == 1).nonzero())
    assert priors[prior].tolist() == [12.0, 12.0, 8.0, 8.0]
    assert int(after.labels[0, prior]) == 1
    assert float(after.matched_iou[0, prior]) == pytest.approx(36 / 1024)
    assert after.gt_boxes[0, prior].tolist() == gts[1].tolist()
    assert after.summary().num_empty == 0


def test_a_rescued_prior_that_was_background_has_no_claim():
    config, inputs, _ = scene("rtmdet", min_positives=3)
    result = SimOTAAssigner(config)(*inputs)
    assert (result.fg_mask & (result.claims == 0)).any()
    assert result.num_pos.sum() == result.fg_mask.sum()


def test_a_logit_that_only_a_rescue_leads_to_is_looked_at():
    """Where it is not finite, the prior takes no part; the first, careless attempt of the torch backend has
    to notice.
    """
    config, (pred, cls, priors, boxes, labels), _ = scene("rtmdet", min_positives=3)
    plain = SimOTAAssigner(config.replace(min_positives=0))(pred, cls, priors, boxes, labels)
    found = SimOTAAssigner(config)(pred, cls, priors, boxes, labels)
    gained = ((found.gt_index != plain.gt_index) & (found.claims == 0)).nonzero()
    assert len(gained) > 4
    for (image, prior), value in zip(
        gained.tolist(), (torch.nan, -torch.nan, torch.inf, -torch.inf), strict=False
    ):
        spoiled = cls.clone()
        spoiled[image, prior, 3] = value
        answers = [
            SimOTAAssigner(config, backend=name)(pred, spoiled, priors, boxes, labels)
            for name in ("torch", "reference")
        ]
        assert_same(*answers)
        assert answers[0].gt_index[image, prior] == -1


# kernels

TILES = StreamConfig(tile=32, rows=32, bounds=32, iou_bounds=32, gts=32, resolvers=1)


def crowded(config, num_priors=110, counts=(3, 0, 2), seed=0, **options):
    """A problem in which some gts lose all of their priors: twins but for their class, and small gts within
    others.
    """
    pred, cls, obj, priors, boxes, labels = random_inputs(num_priors, list(counts), 4, seed)
    for b, own in enumerate(boxes):
        if len(own):
            center = (own[:2, :2] + own[:2, 2:]) / 2
            boxes[b] = torch.cat([own, own[:2], torch.cat([center - 2.0, center + 2.0], 1)])
            labels[b] = torch.cat([labels[b], (labels[b][:2] + 1) % 4, labels[b][:2]])
    return pack(
        config,
        pred,
        cls,
        priors,
        boxes,
        labels,
        obj_logits=obj if config.score == "joint" else None,
        **options,
    )


@pytest.mark.interpreter
def test_the_pass_over_matrices_is_the_rule():
    generator = torch.Generator().manual_seed(0)
    for batch, num_gts, num_priors, least in ((4, 5, 9, 2), (2, 6, 2300, 3), (3, 4, 1024, 1), (1, 3, 7, 32)):
        cost = torch.randint(
            40, (batch, num_gts, num_priors), generator=generator
        ).float()  # ties within and across blocks
        cost[torch.rand(cost.shape, generator=generator) < 0.3] = INF
        if num_gts > 4:
            cost[:, 3, -1] = -1.0  # the cheapest lies in the last block
            cost[:, 2, -4:-1] = 39.0
        iou = torch.rand(cost.shape, generator=generator)
        few = cost[:, :2].min(1)  # the first two gts have all that is taken
        taken = (torch.rand(batch, num_priors, generator=generator) < 0.5) & (few.values < INF)
        before = torch.where(taken, few.indices, -1)
        if num_gts > 4:
            before[:, -4:-1] = 2  # as does all that gt 2 has
        matching = Matching(
            before.clone(), torch.zeros(batch, num_priors), torch.ones(batch, num_gts), (before >= 0).int()
        )
        matching = map_tensors(lambda value: value.to(DEVICE), matching)
        launch.run_rescue_pass(
            matching, cost.to(DEVICE), iou.to(DEVICE), SimOTAConfig.rtmdet(min_positives=least)
        )
        matching = map_tensors(lambda value: value.cpu(), matching)
        expected = [literal(c, b, least) for c, b in zip(cost.tolist(), before.tolist(), strict=True)]
        assert matching.gt_index.tolist() == expected
        moved = matching.gt_index != before
        assert moved.any()
        matched = iou.gather(1, matching.gt_index.clamp(min=0)[:, None])[:, 0]
        assert torch.equal(matching.matched_iou, torch.where(moved, matched, 0.0))
        assert torch.equal(matching.claims, (before >= 0).int())


@pytest.mark.parametrize("least", [1, 3])
@pytest.mark.parametrize(
    "preset", ["rtmdet", "yolox", "seed", "rtmdet_mmyolo", "super_gradients_fast", "picodet"]
)
@pytest.mark.interpreter
def test_the_kernels_answer_as_the_definition(preset, least):
    config = SimOTAConfig.from_preset(preset, min_positives=least)
    problem = crowded(config)
    expected, found = reference.assign(problem, config), fused(problem, config)
    before = reference.assign(problem, config.replace(min_positives=0))
    assert (expected.gt_index != before.gt_index).sum() > 2
    for name in ("gt_index", "dynamic_k", "claims"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert torch.allclose(found.matched_iou, expected.matched_iou, atol=1e-6)
    kernels_support.assert_same(streamed(problem, config, TILES), found)


@pytest.mark.interpreter
@pytest.mark.parametrize("seed", range(6))
def test_launch_parameters_forms_and_tilings_change_no_bit(seed):
    config = SimOTAConfig.from_preset(
        ("rtmdet", "yolox_main", "nanodet")[seed % 3], min_positives=1 + seed % 4
    )
    problem = crowded(config, 90 + 40 * seed, (2, 3), seed)
    kernels_support.assert_same(streamed(problem, config, random_launch(seed)), fused(problem, config))


@pytest.mark.interpreter
def test_among_equal_costs_the_kernels_take_the_lowest_prior():
    """Every pair of a gt costs the same: its priors come in their order, whatever tile is visited first."""
    config = SimOTAConfig.nanodet(min_positives=2, candidate="all")
    # two rounds of 32 tiles
    priors = grid_priors(272, (8,))[torch.randperm(1156, generator=torch.Generator().manual_seed(0))]
    pred = torch.tensor([10.0, 10.0, 60.0, 60.0]).expand(1, 1156, 4)
    gts = torch.tensor([[10.0, 10.0, 60.0, 60.0], [10.0, 10.0, 59.0, 60.0], [12.0, 10.0, 60.0, 60.0]])
    mask = torch.arange(1156) >= 8  # so that the lowest do not lie in the first round
    problem = pack(
        config, pred, torch.zeros(1, 1156, 2), priors, [gts], [torch.tensor([0, 1, 0])], candidate_mask=mask
    )
    found = fused(problem, config)
    assert found.gt_index[0].tolist() == [-1] * 8 + [1, 1, 2, 2] + [0] * 9 + [-1] * 1135
    kernels_support.assert_same(streamed(problem, config, TILES), found)


@pytest.mark.interpreter
def test_the_kernels_leave_padding_and_empty_images_alone():
    config = SimOTAConfig.rtmdet(min_positives=2)
    problem = crowded(config, counts=(3, 0, 2))
    expected = streamed(problem, config, TILES)
    gts = problem.gts
    width = 9
    boxes, labels = torch.full((3, width, 4), torch.nan), torch.full((3, width), 1 << 40)
    mask = torch.zeros(3, width, dtype=torch.bool)
    for b in range(3):
        rows = slice(int(gts.offsets[b]), int(gts.offsets[b + 1]))
        slots = slice(1, 1 + rows.stop - rows.start)
        boxes[b, slots], labels[b, slots], mask[b, slots] = gts.boxes[rows], gts.labels[rows], True
    args = (problem.pred_boxes, problem.cls_logits.dense(), problem.priors)
    padded = pack(config, *args, boxes, labels, gt_mask=mask, validate=False)
    for found in (streamed(padded, config, TILES), fused(padded, config)):
        assert torch.equal(found.gt_index, torch.where(expected.gt_index >= 0, expected.gt_index + 1, -1))
        assert torch.equal(found.matched_iou, expected.matched_iou)
        assert torch.equal(found.labels, expected.labels)
    packed = pack(config, *args, gts.boxes, gts.labels, gt_offsets=gts.offsets)
    kernels_support.assert_same(streamed(packed, config, TILES), expected)


def test_the_operator_of_a_compiled_call_takes_it():
    config = SimOTAConfig.rtmdet(min_positives=2)
    problem = crowded(config)
    found = op.assign(problem, op.config_key(config), "torch")
    assert torch.equal(found.gt_index, reference.assign(problem, config).gt_index)
