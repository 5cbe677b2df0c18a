"""Scenes that attack what the streaming kernels leave out: where what matters is far away, tied, elsewhere or
at the edge of float32. Each answer is that of backend "triton" to the bit, with tiles small enough that most
could be skipped.
"""

from __future__ import annotations

import pytest
import torch

from simota_triton import SimOTAConfig, grid_priors
from simota_triton.inputs import pack
from simota_triton.measure.simulate import simulate_predictions
from simota_triton.tuning.stream_config import StreamConfig
from simota_triton.verification.judge import judge
from tests.support.kernels import assert_same, fused, streamed

KERNELS = StreamConfig(tile=32, rows=32, bounds=32, iou_bounds=32, splits=2, gts=32, resolvers=1)
SIZE, CLASSES = 96, 3
PRIORS = grid_priors(SIZE)  # 12 * 12, 6 * 6 and 3 * 3: nine tiles

FAMILIES = ("rtmdet", "yolox", "picodet")
"""A cost by the centre, by a penalty, by GIoU."""

families = pytest.mark.parametrize("preset", FAMILIES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def check(
    config, boxes, labels=None, priors=PRIORS, pred=None, cls=None, obj=None, kernels=KERNELS, **options
):
    """One image, its predictions simulated but for what is given; returns the matching."""
    if isinstance(config, str):
        config = SimOTAConfig.from_preset(config)
    boxes = torch.as_tensor(boxes, dtype=torch.float32).view(-1, 4)
    labels = torch.arange(len(boxes)) % CLASSES if labels is None else torch.as_tensor(labels)
    simulated = simulate_predictions([boxes], [labels], priors, CLASSES, "mid", generator(1))
    pred, cls, obj = (
        old if new is None else new[None] for old, new in zip(simulated, (pred, cls, obj), strict=True)
    )
    obj = obj if config.score == "joint" else None
    problem = pack(config, pred, cls, priors, [boxes], [labels], obj_logits=obj, **options)
    found = streamed(problem, config, kernels)
    assert_same(found, fused(problem, config), config)
    verdict = judge(found, problem, config)
    assert not verdict.unexplained, verdict.unexplained[:3]
    return found


@families
def test_the_cheapest_are_far_away(preset):
    """Good predictions at the far end of the image alone; what is near predicts other places."""
    gt = torch.tensor([4.0, 4.0, 24.0, 24.0])
    far = (PRIORS[:, :2] > 60).all(1)
    pred = torch.where(
        far[:, None],
        gt + 0.5 * torch.randn(len(PRIORS), 4, generator=generator()),
        torch.tensor([60.0, 60.0, 70.0, 72.0]),
    )
    config = SimOTAConfig.from_preset(preset, candidate="all", center_radius=20.0, center_base=1.01)
    found = check(config, gt, pred=pred)
    assert (found.gt_index[0, far] == 0).sum() > 1
    near = check(preset, gt, pred=pred)  # each preset's own region: few candidates or none overlap the gt
    assert (near.gt_index[0, ~far] == 0).sum() > 0


def test_every_prior_is_so_far_that_its_cost_is_clamped():
    """Past 41 strides the centre prior is: all costs tie, and the lowest priors win."""
    for preset in ("seed", "rtmdet"):
        config = SimOTAConfig.from_preset(preset, candidate="all")
        found = check(config, [[900.0, 5000.0, 940.0, 5040.0], [905.0, 5000.0, 940.0, 5040.0]])
        assert (found.claims[0] > 0).nonzero()[:, 0].tolist() == [0]
        # clamped on some levels only
        mixed = check(config, [[400.0, 400.0, 440.0, 440.0], [10.0, 10.0, 40.0, 30.0]])
        assert mixed.claims.sum() >= 2


@families
def test_all_costs_tie(preset):
    """Identical predictions and logits: a gt's costs differ by the centre prior and the penalty at most, then
    the lower prior wins.
    """
    for center_weight in (0.0, 1.0):
        config = SimOTAConfig.from_preset(preset, candidate="all", center_weight=center_weight)
        pred = torch.tensor([30.0, 30.0, 60.0, 66.0]).expand(len(PRIORS), 4)
        cls, obj = torch.zeros(len(PRIORS), CLASSES), torch.zeros(len(PRIORS), 1)
        found = check(
            config, [[30.0, 30.0, 62.0, 62.0], [28.0, 30.0, 60.0, 70.0]], [0, 0], pred=pred, cls=cls, obj=obj
        )
        assert found.claims.max() == 2


@families
def test_ties_at_the_kth_cheapest_go_to_the_lowest_prior_of_any_tile(preset):
    """Shuffled priors with few distinct predictions: equal costs lie in every tile, in any order."""
    order = torch.randperm(len(PRIORS), generator=generator())
    kinds = torch.tensor([[20.0, 20.0, 60.0, 60.0], [22.0, 20.0, 60.0, 60.0], [20.0, 30.0, 70.0, 60.0]])
    pred = kinds[torch.randint(3, (len(PRIORS),), generator=generator())]
    config = SimOTAConfig.from_preset(preset, candidate="all", center_weight=0.0)
    logits = {"cls": torch.zeros(len(PRIORS), CLASSES), "obj": torch.zeros(len(PRIORS), 1)}
    found = check(
        config,
        [[20.0, 20.0, 60.0, 62.0], [21.0, 21.0, 64.0, 60.0]],
        priors=PRIORS[order],
        pred=pred,
        **logits,
    )
    assert found.dynamic_k.min() > 4


@families
def test_predictions_sit_on_other_gts(preset):
    boxes = torch.tensor([[4.0, 4.0, 30.0, 28.0], [50.0, 52.0, 90.0, 90.0], [60.0, 6.0, 88.0, 30.0]])
    pred = boxes.roll(1, 0)[(PRIORS[:, 0] // 30).long().clamp(max=2)] + torch.randn(
        len(PRIORS), 4, generator=generator()
    )
    assert check(preset, boxes, pred=pred).claims.sum() > 3


def test_a_gt_that_sees_its_own_pairs_alone_does_not_take_better_ones():
    """Priors of the other gt, on the same tiles, predict the first one exactly, its own ones roughly."""
    boxes = torch.tensor([[4.0, 4.0, 36.0, 36.0], [20.0, 20.0, 60.0, 60.0]])
    own = ((PRIORS[:, :2] > 4) & (PRIORS[:, :2] < 36)).all(1)
    pred = torch.where(own[:, None], boxes[0] + 5.0, boxes[0])
    found = check(
        SimOTAConfig.nanodet(own_pairs_only=True), boxes, pred=pred, cls=torch.zeros(len(PRIORS), CLASSES)
    )
    assert own[found.gt_index[0] == 0].all()
    assert (found.gt_index == 0).sum() > 2


@families
def test_one_huge_gt_among_small_ones(preset):
    boxes = torch.tensor([[-5.0, -3.0, 110.0, 99.0], [10.0, 10.0, 22.0, 20.0], [70.0, 60.0, 80.0, 78.0]])
    found = check(preset, boxes)
    assert set(found.gt_index.unique().tolist()) == {-1, 0, 1, 2}


def test_many_duplicates():
    """Every claim is contested by all: the lowest gt wins where labels are equal, else the cheaper class."""
    config = SimOTAConfig.rtmdet(candidate_topk=2)
    boxes, priors = torch.tensor([[16.0, 16.0, 48.0, 48.0]]).expand(70, 4), grid_priors(64, (16,))
    found = check(config, boxes, torch.arange(70) // 35, priors=priors)
    assert found.claims.max() >= 35
    assert set(found.gt_index.unique().tolist()) <= {-1, 0, 35}


def test_conflicts_are_decided_among_gts_of_several_rounds():
    """Three gts claim a prior at their centres whose logits tell nothing apart: the cheapest, by a twelfth of
    its cost, comes in the second round, when the first has lowered what a pair may cost.
    """
    heights = torch.full((36,), 1.0)
    heights[[0, 1, 35]] = torch.tensor([50.0, 44.0, 41.0])
    boxes = torch.stack(
        [torch.full((36,), 28.0), 48 - heights / 2, torch.full((36,), 68.0), 48 + heights / 2], 1
    )
    boxes[2:35] = torch.tensor([2.0, 2.0, 6.0, 6.0])
    prior = int(((PRIORS[:, :2] == 48) & (PRIORS[:, 2:] == 8)).all(1).nonzero())
    pred = torch.tensor([80.0, 80.0, 82.0, 82.0]).repeat(len(PRIORS), 1)
    pred[prior] = torch.tensor([28.0, 28.0, 68.0, 48.0])
    cls = torch.tensor([0.0, -20.0, -20.0]).repeat(len(PRIORS), 1)
    found = check("rtmdet", boxes, [0] * 36, pred=pred, cls=cls)
    assert found.claims[0, prior] == 3
    assert found.gt_index[0, prior] == 35


def test_strides_that_are_no_powers_of_two_and_differ_in_x_and_y():
    y, x = torch.meshgrid(torch.arange(9) * 11.3, torch.arange(14) * 7.1, indexing="ij")
    priors = torch.stack([x, y, torch.full_like(x, 7.1), torch.full_like(x, 11.3)], -1).reshape(-1, 4)
    for preset in FAMILIES:
        check(
            preset,
            [[10.0, 12.0, 61.0, 50.0], [33.0, 40.0, 88.0, 90.0]],
            priors=priors,
            level_shapes=[(9, 14)],
        )


@families
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1e6), (1e4, 0.0), (1e-3, 0.0)], ids=str)
def test_coordinates_of_any_size(preset, scale, shift):
    priors = PRIORS * scale
    priors[:, :2] += shift
    boxes = torch.tensor([[10.0, 12.0, 61.0, 50.0], [33.0, 40.0, 88.0, 90.0]]) * scale + shift
    assert check(preset, boxes, priors=priors).claims.sum() > 4


@pytest.mark.parametrize("preset", ["yolox", "yolox_main", "damo", "picodet", "super_gradients_fast"])
def test_tiny_gts_whose_pairs_all_pay_the_penalty(preset):
    """Costs are then ranked on float32's grid at the penalty's size, where many tie that differ else."""
    boxes = torch.tensor([[18.5, 19.0, 20.5, 22.0], [61.0, 41.5, 62.5, 43.0], [17.0, 18.0, 21.5, 21.5]])
    pred = boxes[torch.randint(3, (len(PRIORS),), generator=generator())] + 0.3 * torch.randn(
        len(PRIORS), 4, generator=generator(2)
    )
    for radius in (0.05, 1.5):
        config = SimOTAConfig.from_preset(preset, center_radius=radius, candidate="all", own_pairs_only=False)
        found = check(config, boxes, pred=pred)
        assert found.dynamic_k.min() > 1


def test_a_penalty_that_some_pairs_pay_and_others_do_not():
    """With a penalty as large as costs are, a good pair that pays is cheaper than a bad one that does not."""
    pred = torch.tensor([20.0, 20.0, 60.0, 60.0]) + 8 * torch.randn(len(PRIORS), 4, generator=generator())
    for penalty in (0.5, 3.0, 20.0):
        config = SimOTAConfig.mmdet_simota(penalty=penalty, center_radius=1.0, candidate="all")
        check(config, [[20.0, 20.0, 60.0, 60.0], [50.0, 50.0, 70.0, 90.0]], pred=pred)


@families
def test_gts_without_area_and_inverted_gts(preset):
    found = check(
        preset,
        [
            [20.0, 20.0, 20.0, 50.0],
            [40.0, 40.0, 40.0, 40.0],
            [70.0, 70.0, 50.0, 50.0],
            [60.0, 8.0, 90.0, 40.0],
        ],
    )
    assert (found.dynamic_k[:3] == 1).all()


@pytest.mark.parametrize(
    "config",
    [
        SimOTAConfig.rtmdet(center_base=1.0),
        SimOTAConfig.rtmdet(center_weight=0.0, cls_weight=0.0),
        SimOTAConfig.rtmdet(iou_weight=0.0),
        SimOTAConfig.seed(iou_weight=0.0, cls_weight=0.0, center_base=1.5),
        SimOTAConfig.yolox(log_eps=1e-10),
        SimOTAConfig.yolox(log_eps=1.0, penalty=2.0),
        SimOTAConfig.nanodet(k_scale=2.4, candidate_topk=13),
        SimOTAConfig.rtmdet(k_scale=0.1),
        SimOTAConfig.picodet(candidate_topk=32, candidate="all", penalty=0.0),
        SimOTAConfig.yolox(candidate_topk=32, k_pool="all", conflict="max_iou"),
        SimOTAConfig.rtmdet_mmyolo(candidate_topk=1, conflict="matched"),
        SimOTAConfig.rtmdet(own_pairs_only=True),
    ],
    ids=str,
)
def test_configurations_at_the_edge(config):
    found = check(config, [[10.0, 12.0, 61.0, 50.0], [33.0, 40.0, 88.0, 90.0], [12.0, 14.0, 60.0, 48.0]])
    assert found.claims.sum() >= 3


@pytest.mark.parametrize("pool", ["candidates", "all"])
@pytest.mark.parametrize("preset", ["rtmdet", "yolox"])
def test_no_level_of_the_logits_loses_priors(preset, pool):
    """Where softplus is nothing but rounding (below -13), where it vanishes, where sigmoids are 1."""
    config = SimOTAConfig.from_preset(preset, k_pool=pool)
    gt = torch.tensor([[8.0, 8.0, 80.0, 80.0], [20.0, 20.0, 60.0, 70.0]])
    pred = gt[torch.arange(len(PRIORS)) % 2] + torch.randn(len(PRIORS), 4, generator=generator())
    spread = torch.rand(len(PRIORS), 80, generator=generator(2)) - 0.5
    mixed = torch.tensor([-60.0, -46.5, -20.0, -16.0, 16.0, 60.0])[
        torch.randint(6, (len(PRIORS), 1), generator=generator(3))
    ]
    for level in (torch.tensor([[-16.0]]), mixed):
        found = check(config, gt, pred=pred, cls=level + spread)
        assert (found.gt_index[0] >= 0).sum() > 10


@pytest.mark.parametrize("preset", ["rtmdet", "rtmdet_mmyolo", "yolox", "picodet_lightly"])
def test_what_is_not_finite(preset):
    """NaN and Inf in a tenth of all values: a tile may hold nothing that counts, or one prior that does."""
    boxes = torch.tensor([[10.0, 12.0, 61.0, 50.0], [33.0, 40.0, 88.0, 90.0]])
    pred, cls, obj = (
        v[0]
        for v in simulate_predictions([boxes], [torch.tensor([0, 1])], PRIORS, CLASSES, "mid", generator())
    )
    for values, share in ((pred, 0.02), (cls, 0.04), (obj, 0.1)):
        for bad in (torch.nan, torch.inf, -torch.inf):
            values[torch.rand(values.shape, generator=generator(int(100 * share))) < share] = bad
    pred[5:40] = torch.nan
    pred[50] = torch.tensor([-1e30, -1e30, 1e30, 1e30])
    assert check(preset, boxes, pred=pred, cls=cls, obj=obj).claims.sum() > 2


def test_more_tiles_than_are_kept_in_registers():
    """A gt's cheapest and its largest IoUs lie in two rounds of bounds."""
    priors = grid_priors((96, 264), (4,))  # 24 * 66: 54 tiles of 8 * 4
    pred = torch.cat([priors[:, :2] - 20, priors[:, :2] + 20], 1) + torch.randn(
        len(priors), 4, generator=generator()
    )
    boxes = torch.tensor([[3.0, 30.0, 60.0, 90.0], [190.0, 40.0, 250.0, 90.0]])
    for preset in ("rtmdet", "picodet"):
        check(
            preset,
            boxes,
            priors=priors,
            pred=pred,
            level_shapes=[(24, 66)],
            kernels=StreamConfig(tile=32, rows=32, bounds=32, iou_bounds=32, resolvers=1),
        )
