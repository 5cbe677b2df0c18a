"""Each term of the cost against numbers worked out by hand and against torch.nn.functional."""

import math

import pytest
import torch
import torch.nn.functional as F

from simota_triton import SimOTAConfig, terms

BOX = torch.tensor([[16.0, 16.0, 48.0, 32.0]])
CENTER = torch.tensor([[32.0, 24.0]])


def inside(x, y, region, radius=2.5, stride=(8.0, 8.0), center=CENTER):
    return bool(terms.in_region(torch.tensor([[x, y, *stride]]), BOX, center, region, radius))


@pytest.mark.parametrize(
    ("x", "y", "within"),
    [
        (17, 17, True),
        (47.9, 31.9, True),
        (16, 24, False),
        (48, 24, False),
        (32, 16, False),
        (32, 32, False),
        (15, 24, False),
        (32, 40, False),
    ],
)
def test_the_box_is_open(x, y, within):
    assert inside(x, y, "box") == within


@pytest.mark.parametrize(
    ("x", "y", "within"),
    [
        (32, 24, True),
        (51.9, 24, True),
        (52, 24, False),
        (12, 24, False),
        (12.1, 24, True),
        (32, 43.9, True),
        (32, 44, False),
        (32, 4, False),
    ],
)
def test_the_centre_square_is_open_and_reaches_radius_strides(x, y, within):
    assert inside(x, y, "center") == within


def test_the_centre_square_follows_both_strides_and_the_given_centre():
    assert inside(45, 24, "center", radius=1.0, stride=(16.0, 4.0))
    assert not inside(32, 29, "center", radius=1.0, stride=(16.0, 4.0))
    moved = torch.tensor([[100.0, 100.0]])
    assert inside(100, 100, "center", center=moved)
    assert not inside(32, 24, "center", center=moved)
    assert inside(32, 24, "box", center=moved)


@pytest.mark.parametrize(
    ("x", "y", "box", "center"),
    [(32, 24, 1, 1), (17, 17, 1, 1), (50, 24, 0, 1), (17, 24, 1, 0), (60, 60, 0, 0)],
)
def test_regions_combine_box_and_centre(x, y, box, center):
    radius = 1.0 if (box, center) == (1, 0) else 2.5
    assert inside(x, y, "box", radius) == box
    assert inside(x, y, "center", radius) == center
    assert inside(x, y, "box_or_center", radius) == (box or center)
    assert inside(x, y, "box_and_center", radius) == (box and center)
    assert inside(x, y, "all", radius)


def test_an_inverted_or_flat_box_holds_nothing():
    prior = torch.tensor([[32.0, 24.0, 8.0, 8.0]])
    for box in ([48.0, 16.0, 16.0, 32.0], [32.0, 16.0, 32.0, 32.0], [32.0, 24.0, 32.0, 24.0]):
        assert not bool(terms.in_region(prior, torch.tensor([box]), CENTER, "box", 2.5))
        assert bool(terms.in_region(prior, torch.tensor([box]), CENTER, "center", 2.5))


def test_regions_broadcast():
    priors, boxes = torch.rand(1, 1, 9, 4) * 40, torch.rand(2, 3, 1, 4) * 40
    for region in ("box", "center", "box_or_center", "box_and_center", "all"):
        assert terms.in_region(priors, boxes, boxes[..., :2], region, 1.0).shape == (2, 3, 9)


# class term

P = torch.tensor([0.0, 1e-9, 0.01, 0.3, 0.5, 0.77, 0.999, 1.0], dtype=torch.float64)[:, None]
T = torch.tensor([0.0, 1e-6, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)[None]
GRID = (P.float().double().expand(8, 6), T.expand(8, 6))
Z = torch.tensor([-50.0, -9.0, -1.0, 0.0, 0.5, 4.0, 20.0, 50.0], dtype=torch.float64)[:, None].expand(8, 6)


def config(**fields):
    return SimOTAConfig(score=fields.pop("score", "sigmoid"), **fields)


def test_bce_of_probabilities_is_torchs_with_target_one_or_zero():
    p, t = GRID
    expected = F.binary_cross_entropy(p, torch.ones_like(t), reduction="none")
    torch.testing.assert_close(terms.class_cost(p, t, config()), expected, rtol=1e-12, atol=0)
    expected = F.binary_cross_entropy(p, torch.zeros_like(t), reduction="none")
    torch.testing.assert_close(terms.background_cost(p, config()), expected, rtol=1e-12, atol=0)
    assert float(terms.class_cost(p[0, 0], t[0, 0], config())) == 100  # log(0) is clamped at -100
    assert float(terms.background_cost(p[7, 0], config())) == 100


def test_soft_bce_of_probabilities_is_torchs_times_the_squared_difference():
    p, t = GRID
    expected = F.binary_cross_entropy(p, t.contiguous(), reduction="none") * (t - p).abs() ** 2
    torch.testing.assert_close(
        terms.class_cost(p, t, config(cls_cost="soft_bce")), expected, rtol=1e-12, atol=0
    )
    expected = F.binary_cross_entropy(p, torch.zeros_like(t), reduction="none") * p**2
    torch.testing.assert_close(
        terms.background_cost(p, config(cls_cost="soft_bce")), expected, rtol=1e-12, atol=0
    )


def test_soft_bce_of_logits_is_torchs_times_the_squared_difference():
    expected = F.binary_cross_entropy_with_logits(Z, GRID[1], reduction="none") * (GRID[1] - Z.sigmoid()) ** 2
    soft = config(score="logit", cls_cost="soft_bce")
    torch.testing.assert_close(terms.class_cost(Z, GRID[1], soft), expected, rtol=1e-12, atol=1e-20)
    torch.testing.assert_close(
        terms.background_cost(Z, soft), F.softplus(Z) * Z.sigmoid() ** 2, rtol=1e-12, atol=0
    )


def test_plain_bce_of_logits():
    plain = config(score="logit")
    expected = F.binary_cross_entropy_with_logits(Z, torch.ones_like(Z), reduction="none")
    torch.testing.assert_close(terms.class_cost(Z, GRID[1], plain), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(terms.background_cost(Z, plain), F.softplus(Z), rtol=1e-12, atol=0)


def test_varifocal_weighs_positives_by_their_target_and_the_rest_by_p_squared():
    p, t = GRID
    weight = torch.where(t > 0, t, 0.75 * p**2)
    expected = F.binary_cross_entropy(p, t.contiguous(), reduction="none") * weight
    torch.testing.assert_close(terms.class_cost(p, t, config(cls_cost="vfl")), expected, rtol=1e-12, atol=0)
    expected = F.binary_cross_entropy(p, torch.zeros_like(t), reduction="none") * 0.75 * p**2
    torch.testing.assert_close(terms.background_cost(p, config(cls_cost="vfl")), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("cls_cost", ["bce", "soft_bce", "vfl"])
def test_prob_clamp_acts_inside_the_logarithms_only(cls_cost):
    clamped = config(prob_clamp=1e-3, cls_cost=cls_cost)
    p, t = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0.25, 0.25], dtype=torch.float64)
    inner = torch.tensor([1e-3, 1 - 1e-3]).double()
    target = torch.ones_like(t) if cls_cost == "bce" else t
    weight = {"bce": torch.ones_like(t), "soft_bce": (t - p) ** 2, "vfl": t}[cls_cost]
    expected = F.binary_cross_entropy(inner, target, reduction="none") * weight
    torch.testing.assert_close(terms.class_cost(p, t, clamped), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    "fields", [{}, {"cls_cost": "soft_bce"}, {"cls_cost": "vfl"}, {"score": "logit", "cls_cost": "soft_bce"}]
)
def test_a_pair_swaps_its_class_from_background_to_target(fields):
    rule, iou, label = config(**fields), torch.tensor(0.6).double(), 2
    scores = torch.tensor([0.1, 0.9, 0.4, 0.7]).double()
    background = terms.background_cost(scores, rule)
    whole = background.clone()
    whole[label] = terms.class_cost(scores[label], iou, rule)
    torch.testing.assert_close(
        terms.swap_class(background.sum(), background[label], whole[label]), whole.sum()
    )


def test_rounding_leaves_no_negative_class_term():
    assert float(terms.swap_class(torch.tensor(1.0), torch.tensor(1.0 + 2**-23), torch.tensor(0.0))) == 0.0


def test_scores():
    z, obj = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[1.0]]])
    sigmoid = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    assert terms.class_scores(z, None, config(score="logit")).tolist() == [[[0.0, 2.0]]]
    assert terms.class_scores(z, None, config(score="prob")).tolist() == [[[0.0, 2.0]]]
    assert terms.class_scores(z, None, config(score="sigmoid")).tolist() == [
        [pytest.approx([0.5, sigmoid(2)])]
    ]
    joint = [math.sqrt(0.5 * sigmoid(1)), math.sqrt(sigmoid(2) * sigmoid(1))]
    assert terms.class_scores(z, obj, config(score="joint")).tolist() == [[pytest.approx(joint)]]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        for score in ("logit", "prob", "sigmoid", "joint"):
            assert terms.class_scores(z.to(dtype), obj.to(dtype), config(score=score)).dtype == torch.float32


# IoU and centre terms


def test_iou_costs():
    box, other = torch.tensor([0.0, 0.0, 2.0, 2.0]).double(), torch.tensor([1.0, 1.0, 3.0, 3.0]).double()
    rule = config(log_eps=0.25, union_rule="none")
    iou = terms.pair_iou(box, other, rule)
    assert float(iou) == pytest.approx(1 / 7)
    assert float(terms.iou_cost(box, other, iou, rule)) == pytest.approx(-math.log(1 / 7 + 0.25))
    assert float(terms.iou_cost(box, other, iou, rule.replace(iou_cost="giou"))) == pytest.approx(
        1 - (1 / 7 - 2 / 9)
    )
    assert float(terms.pair_iou(box, other, config(union_rule="add", union_eps=1.0))) == pytest.approx(1 / 8)
    assert float(terms.pair_iou(box, other, config(union_rule="max", union_eps=10.0))) == pytest.approx(
        1 / 10
    )
    assert float(
        terms.iou_cost(box, box, torch.ones(()).double(), rule.replace(log_eps=1e-7))
    ) == pytest.approx(-1e-7, rel=1e-3)


def test_the_centre_prior_is_a_power_of_the_distance_in_strides_of_x():
    # 80 pixels, 5 strides
    prior, center = (
        torch.tensor([32.0, 32.0, 16.0, 4.0]).double(),
        torch.tensor([80.0, -32.0]).double(),
    )
    assert float(terms.center_cost(prior, center, config(center_weight=1.0))) == pytest.approx(100)
    other = config(center_weight=7.0, center_base=2.0, center_offset=1.0)
    assert float(terms.center_cost(prior, center, other)) == pytest.approx(16)  # without its weight
    assert float(terms.center_cost(prior, prior[:2], config(center_weight=1.0))) == pytest.approx(1e-3)


@pytest.mark.parametrize("weight", [1e-6, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_whose_centre_prior_overflows_cost_the_same_whatever_its_weight(weight, dtype):
    rule = config(center_weight=weight)
    near, *far = (torch.tensor([8.0 * strides, 0.0], dtype=dtype) for strides in (41.0, 41.6, 50.0, 1e6))
    prior, nothing = torch.tensor([0.0, 0.0, 8.0, 8.0], dtype=dtype), torch.zeros((), dtype=dtype)
    costs = [
        float(terms.pair_cost(nothing, nothing, terms.center_cost(prior, center, rule), None, rule))
        for center in far
    ]
    assert costs == [pytest.approx(terms.COST_LIMIT)] * 3
    assert float(terms.center_cost(prior, near, rule)) == pytest.approx(1e38, rel=1e-4)


# the sum


def test_the_sum_and_its_weights():
    total = terms.pair_cost(
        *(torch.tensor(v).double() for v in (2.0, 3.0, 5.0)),
        None,
        config(cls_weight=0.5, iou_weight=7.0, center_weight=11.0),
    )
    assert float(total) == 0.5 * 2 + 7 * 3 + 11 * 5
    assert float(terms.pair_cost(torch.tensor(2.0), torch.tensor(3.0), None, None, config())) == 11.0


def test_the_order_of_the_sum_shows_in_float32():
    one = torch.tensor(1.0)
    ulp = 2.0**-23
    # (1 + ulp/2) rounds down to 1, then + ulp/2 again: 1; the other order would give 1 + ulp
    assert (
        float(terms.pair_cost(one, one, one, None, config(iou_weight=ulp / 2, center_weight=ulp / 2))) == 1.0
    )
    # (0 + ulp/2) + 1 rounds to 1 as well, ulp/2 + ulp/2 first would not
    assert (
        float(
            terms.pair_cost(
                0 * one,
                one * ulp / 2,
                one,
                torch.tensor(True),
                config(iou_weight=1.0, center_weight=ulp / 2, penalty=1.0),
            )
        )
        == 1 + ulp
    )


@pytest.mark.parametrize(("penalty", "grid"), [(1e5, 1 / 128), (1e6, 1 / 16), (1e8, 8.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_penalised_costs_lie_on_the_grid_of_float32(penalty, grid, dtype):
    cost = torch.linspace(0, 60, 1001, dtype=dtype)
    paid = terms.pair_cost(cost, 0 * cost, None, torch.tensor(True), config(penalty=penalty))
    assert paid.dtype == dtype
    assert bool((paid.double() % grid == 0).all())
    torch.testing.assert_close(paid.double(), cost.double() + penalty, rtol=0, atol=grid / 2)
    free = terms.pair_cost(cost, 0 * cost, None, torch.tensor(False), config(penalty=penalty))
    assert torch.equal(free, cost)


def test_costs_are_clamped_below_infinity():
    huge = torch.tensor([1e38, 3.2e38, float("inf")])
    for outside in (None, torch.tensor(True)):
        total = terms.pair_cost(huge, 0 * huge.clamp(max=1), None, outside, config())
        assert total.tolist() == pytest.approx([1e38, 3e38, 3e38])
        assert bool((total < torch.inf).all())
