"""The device maths, term by term, against ``terms.py`` and ``boxes.py``: as the interpreter (or the GPU) runs
it, and with a GPU's approximate units emulated at the edge of what their manual allows.
"""

import itertools

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from simota_triton import terms
from simota_triton.boxes import box_giou, box_iou
from simota_triton.config import CLS_COSTS, REGIONS, SCORES, UNION_RULES, SimOTAConfig
from simota_triton.kernels import host
from simota_triton.kernels.constants import ABSENT
from simota_triton.kernels.maths import (
    add_background_cost,
    box_area,
    center_prior,
    class_cost,
    fraction,
    giou_gap,
    intersection_and_union,
    minus_log_of_rest,
    pair_cost,
    reciprocal,
    region_depth,
    root,
    sigmoid,
    softplus_and_sigmoid,
)
from simota_triton.kernels.rule import Rule
from tests.support.kernels import DEVICE, ApproximateUnits

ULP = 2.0**-23
N = 4096


@pytest.fixture(params=["as it runs", "approximate units"])
def fast(request, monkeypatch):
    """FAST: once as the kernels run here, once with emulated units."""
    if request.param == "as it runs":
        return host.FAST
    if not host.INTERPRETED:
        pytest.skip("a GPU has its own units")
    ApproximateUnits(monkeypatch)
    return True


@triton.jit
def _binary(
    a_ptr, b_ptr, out_ptr, WHICH: tl.constexpr, RULE: tl.constexpr, FAST: tl.constexpr, N: tl.constexpr
):
    i = tl.arange(0, N)
    a, b = tl.load(a_ptr + i), tl.load(b_ptr + i)
    if WHICH == "fraction":
        out = fraction(a, b, FAST)
    elif WHICH == "root":
        out = root(a * b, FAST)
    elif WHICH == "sigmoid":
        out = sigmoid(a, FAST)
    elif WHICH == "softplus":
        out, _ = softplus_and_sigmoid(a, FAST)
    elif WHICH == "fast sigmoid":
        _, out = softplus_and_sigmoid(a, FAST)
    elif WHICH == "minus_log_of_rest":
        out = minus_log_of_rest(a, FAST)
    elif WHICH == "background_cost":
        out = add_background_cost(tl.zeros([N], tl.float32), a, b, RULE, FAST)
    tl.store(out_ptr + i, out)


@triton.jit
def _region(
    x_ptr, y_ptr, reach_ptr, out_ptr, gx1, gy1, gx2, gy2, cx, cy, REGION: tl.constexpr, N: tl.constexpr
):
    i = tl.arange(0, N)
    x, y, reach = tl.load(x_ptr + i), tl.load(y_ptr + i), tl.load(reach_ptr + i)
    tl.store(out_ptr + i, region_depth(x, y, reach, reach, gx1, gy1, gx2, gy2, cx, cy, REGION))


@triton.jit
def _iou(boxes_ptr, others_ptr, iou_ptr, giou_ptr, RULE: tl.constexpr, FAST: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    x1, y1, x2, y2 = (
        tl.load(boxes_ptr + i * 4),
        tl.load(boxes_ptr + i * 4 + 1),
        tl.load(boxes_ptr + i * 4 + 2),
        tl.load(boxes_ptr + i * 4 + 3),
    )
    a1, b1, a2, b2 = (
        tl.load(others_ptr + i * 4),
        tl.load(others_ptr + i * 4 + 1),
        tl.load(others_ptr + i * 4 + 2),
        tl.load(others_ptr + i * 4 + 3),
    )
    inter, union = intersection_and_union(
        x1, y1, x2, y2, box_area(x1, y1, x2, y2), a1, b1, a2, b2, box_area(a1, b1, a2, b2), RULE
    )
    iou = fraction(inter, union, FAST)
    tl.store(iou_ptr + i, iou)
    tl.store(giou_ptr + i, iou - giou_gap(x1, y1, x2, y2, a1, b1, a2, b2, union, RULE, FAST))


@triton.jit
def _class(
    x_ptr,
    objectness_ptr,
    iou_ptr,
    background_ptr,
    out_ptr,
    RULE: tl.constexpr,
    FAST: tl.constexpr,
    N: tl.constexpr,
):
    i = tl.arange(0, N)
    x, objectness = tl.load(x_ptr + i), tl.load(objectness_ptr + i)
    tl.store(
        out_ptr + i, class_cost(x, objectness, tl.load(iou_ptr + i), tl.load(background_ptr + i), RULE, FAST)
    )


@triton.jit
def _pair(
    cls_ptr,
    iou_ptr,
    center_ptr,
    outside_ptr,
    out_ptr,
    RULE: tl.constexpr,
    FAST: tl.constexpr,
    N: tl.constexpr,
):
    i = tl.arange(0, N)
    outside = tl.load(outside_ptr + i) > 0.0
    cost = pair_cost(
        tl.load(cls_ptr + i), tl.load(iou_ptr + i), 0.25, tl.load(center_ptr + i), outside, RULE, FAST
    )
    tl.store(out_ptr + i, cost)


@triton.jit
def _center(dx_ptr, dy_ptr, stride_ptr, out_ptr, RULE: tl.constexpr, FAST: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    per_stride = RULE.value.log2_center_base * reciprocal(tl.load(stride_ptr + i), FAST)
    tl.store(out_ptr + i, center_prior(tl.load(dx_ptr + i), tl.load(dy_ptr + i), per_stride, RULE, FAST))


def run(kernel, *tensors, outputs=1, **keywords):
    """The kernel on float32 tensors of N rows."""
    out = [torch.empty(N, device=DEVICE) for _ in range(outputs)]
    with np.errstate(all="ignore"):
        kernel[(1,)](
            *(t.float().to(DEVICE).contiguous() for t in tensors), *out, N=N, **keywords, **host.OPTIONS
        )
    return out[0].cpu() if outputs == 1 else tuple(t.cpu() for t in out)


def binary(which, a, b=None, fast=False, config=None):
    rule = Rule.of(config or SimOTAConfig.rtmdet())
    return run(_binary, a, a if b is None else b, WHICH=which, RULE=rule, FAST=fast)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(low, high, seed=0):
    return low + (high - low) * torch.rand(N, generator=generator(seed))


def rounded_to_grid(values, exact, ulps=0.5):
    """Whether float32 values are within some ulp of exact ones."""
    spacing = torch.from_numpy(np.spacing(exact.float().abs().numpy())).double()
    return ((values.double() - exact).abs() <= ulps * spacing).all()


def test_the_quotient_is_off_by_half_an_ulp_and_next_to_nothing(fast):
    b = torch.exp(uniform(-30, 30))
    a = b * uniform(0, 1, 1)
    assert rounded_to_grid(binary("fraction", a, b, fast), a.double() / b.double(), ulps=0.5 + 1e-6)


def test_the_quotient_of_equal_areas_is_exactly_one(fast):
    a = torch.exp(uniform(-60, 60))
    assert (binary("fraction", a, a, fast) == 1).all()


def test_the_quotient_is_zero_where_there_is_no_area(fast):
    a = torch.tensor([0.0, -1.0, 0.0, 5.0, -torch.inf, 0.0, -3.0, 1.0]).repeat(N // 8)
    b = torch.tensor([0.0, 4.0, 7.0, torch.inf, torch.inf, 1e-30, 1e30, torch.inf]).repeat(N // 8)
    assert (binary("fraction", a, b, fast) == 0).all()


def test_the_root_is_off_by_half_an_ulp_and_next_to_nothing_down_to_subnormal_products(fast):
    a, b = torch.exp(uniform(-50, 0)), torch.exp(uniform(-50, 0, 1))
    product = a * b
    assert (product < 1.2e-38).sum() > 100
    assert rounded_to_grid(binary("root", a, b, fast), product.double().sqrt(), ulps=0.5 + 1e-4)
    assert (binary("root", torch.zeros(N), b, fast) == 0).all()
    assert (binary("root", torch.ones(N), torch.ones(N), fast) == 1).all()


def test_the_sigmoid_is_as_good_as_pytorchs_where_logarithms_of_the_rest_magnify_it(fast):
    x = uniform(-87, 30)
    p = binary("sigmoid", x, fast=fast)
    high = x > 4
    off = ((1 - p.double()) - (1 - x.sigmoid().double())).abs()
    assert (off[high] <= 2 * ULP / 2).all()  # 2 ulp of p, as the judge grants
    assert (off[high] > 0).float().mean() < 0.01
    assert ((p.double() / x.double().sigmoid() - 1).abs() < 1e-5).all()
    ends = torch.tensor([-torch.inf, -200.0, 20.0, torch.inf]).repeat(N // 4)
    assert torch.equal(binary("sigmoid", ends, fast=fast), torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(N // 4))


def test_minus_log_of_rest_keeps_small_probabilities(fast):
    p = torch.cat([torch.exp(uniform(-80, 0))[: N // 2], uniform(0, 1)[: N // 2]])
    exact = -torch.log1p(-p.double())
    assert ((binary("minus_log_of_rest", p, fast=fast).double() / exact - 1).abs() < 1e-6).all()
    ends = binary("minus_log_of_rest", torch.tensor([0.0, 1.0]).repeat(N // 2), fast=fast)
    assert torch.equal(ends, torch.tensor([0.0, torch.inf]).repeat(N // 2))


def test_softplus_and_sigmoid(fast):
    x = torch.cat([uniform(-20, 20)[: N // 2], uniform(-2000, 2000)[: N // 2]])
    softplus = binary("softplus", x, fast=fast).double()
    assert ((softplus - torch.nn.functional.softplus(x.double())).abs() <= 5e-7 * x.abs().clamp(min=1)).all()
    assert ((binary("fast sigmoid", x, fast=fast).double() - x.double().sigmoid()).abs() < 4e-7).all()


@pytest.mark.parametrize("region", REGIONS)
def test_regions_are_those_of_the_definition_on_their_very_edges(region):
    gt, center = torch.tensor([10.1, 20.2, 40.3, 50.4]), torch.tensor([24.7, 36.1])
    stride = torch.tensor([4.0, 8.0, 16.0])[torch.randint(3, (N,), generator=generator())]
    edges_x = torch.stack(
        [gt[0].expand(N), gt[2].expand(N), center[0] - 1.5 * stride, center[0] + 1.5 * stride, uniform(0, 60)]
    )
    edges_y = torch.stack(
        [
            gt[1].expand(N),
            gt[3].expand(N),
            center[1] - 1.5 * stride,
            center[1] + 1.5 * stride,
            uniform(0, 60, 1),
        ]
    )
    pick = torch.randint(5, (2, 1, N), generator=generator())
    nudge = torch.randint(-1, 2, (2, N), generator=generator())
    x, y = edges_x.gather(0, pick[0])[0], edges_y.gather(0, pick[1])[0]
    x, y = x * (1 + nudge[0] * 6e-8), y * (1 + nudge[1] * 6e-8)
    priors = torch.stack([x, y, stride, stride], 1)
    expected = terms.in_region(priors, gt[None], center[None], region, 1.5)
    sides = dict(zip(("gx1", "gy1", "gx2", "gy2", "cx", "cy"), (*gt.tolist(), *center.tolist()), strict=True))
    depth = run(_region, x, y, 1.5 * stride, REGION=region, **sides)
    assert torch.equal(depth > 0, expected)
    assert expected.any()
    assert region == "all" or not expected.all()


def test_no_point_lies_in_a_gt_that_is_not_there():
    gone = {"gx1": float("inf"), "gy1": 0.0, "gx2": 0.0, "gy2": 0.0, "cx": float("inf"), "cy": 0.0}
    for region in REGIONS:
        assert (
            run(_region, uniform(-1e6, 1e6), uniform(-1e6, 1e6, 1), uniform(0, 1e6, 2), REGION=region, **gone)
            <= 0
        ).all()


def random_boxes(seed):
    g = generator(seed)
    corner, size = torch.rand(N, 2, generator=g) * 100, torch.randn(N, 2, generator=g) * 20 + 15
    return torch.cat([corner, corner + size], 1)  # some inverted


@pytest.mark.parametrize("union_rule", UNION_RULES)
def test_iou_and_giou_are_those_of_the_definition(union_rule, fast):
    boxes, others = random_boxes(0), random_boxes(1)
    others[: N // 4] = boxes[: N // 4]
    config = SimOTAConfig.picodet(union_rule=union_rule, union_eps=1e-3)
    for cost, out in (("log", 0), ("giou", 1)):
        rule = Rule.of(config.replace(iou_cost=cost))
        found = run(_iou, boxes, others, outputs=2, RULE=rule, FAST=fast)
        iou = box_iou(boxes, others, rule=union_rule, eps=1e-3)
        assert ((found[0] - iou).abs() <= ULP).all()
        assert union_rule == "add" or (found[0][: N // 4][iou[: N // 4] > 0] == 1).all()
        if out:
            assert ((found[1] - box_giou(boxes, others, rule=union_rule, eps=1e-3)).abs() < 4 * ULP).all()


def score_inputs(config):
    x = uniform(-12, 12, 3)
    if config.score == "prob":
        x = x.sigmoid()
    return x, uniform(0, 1, 4)


CLASS_RULES = [
    SimOTAConfig(score=score, cls_cost=cost, prob_clamp=clamp, cls_classes=classes)
    for score, cost, clamp, classes in itertools.product(SCORES, CLS_COSTS, (0.0, 1e-3), ("all", "gt"))
    if score != "logit" or (cost != "vfl" and clamp == 0)
]


@pytest.mark.parametrize(
    "config", CLASS_RULES, ids=lambda c: f"{c.score}-{c.cls_cost}-{c.prob_clamp}-{c.cls_classes}"
)
def test_class_costs_are_those_of_the_definition(config, fast):
    x, objectness = score_inputs(config)
    iou = torch.where(uniform(0, 1, 5) < 0.2, 0.0, uniform(0, 1, 6))
    scores = x.double() if config.score == "logit" else x
    if config.score == "sigmoid":
        scores = x.sigmoid()
    elif config.score == "joint":
        scores = (x.sigmoid() * objectness).sqrt()
    scores = scores.double()
    background = terms.background_cost(scores, config)
    found = binary("background_cost", x, objectness, fast, config)
    # 2 ulp of p, as far as they reach where log(1 - p) magnifies them
    reach = (
        terms.background_cost((scores + 2.5e-7).clamp(max=1), config) - background
        if config.score != "logit"
        else 0.0
    )
    assert ((found - background).abs() <= 1e-6 * (1 + background) + reach).all()

    expected = terms.class_cost(scores, iou.double(), config)
    total = background + uniform(0, 3, 7).double()
    if config.cls_classes == "all":
        expected = (total - background + expected).clamp(min=0)
    found = run(_class, x, objectness, iou, total, RULE=Rule.of(config), FAST=fast)
    assert ((found - expected).abs() <= 2e-6 * (1 + total + expected + x.abs()) + 2 * reach).all()


@pytest.mark.parametrize("score", ["sigmoid", "joint", "prob"])
def test_logarithms_of_probabilities_are_clamped_at_minus_100(score, fast):
    config = SimOTAConfig(score=score, cls_cost="bce", cls_classes="gt")
    x = (torch.tensor([0.0, 1.0]) if score == "prob" else torch.tensor([-200.0, 200.0])).repeat(N // 2)
    ones = torch.ones(N)
    assert torch.equal(
        binary("background_cost", x, ones, fast, config), torch.tensor([0.0, 100.0]).repeat(N // 2)
    )
    assert torch.equal(
        run(_class, x, ones, ones, ones, RULE=Rule.of(config), FAST=fast).abs(),
        torch.tensor([100.0, 0.0]).repeat(N // 2),
    )


@pytest.mark.parametrize("preset", ["rtmdet", "damo", "yolox", "picodet"])
def test_a_logit_that_is_absent_costs_nothing(preset, fast):
    config, objectness = SimOTAConfig.from_preset(preset), uniform(0, 1)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        absent = torch.full((N,), ABSENT.value).to(dtype).float()
        assert (binary("background_cost", absent, objectness, fast, config) == 0).all()


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "damo", "picodet"])
def test_the_class_term_never_falls_below_zero(preset):
    config = SimOTAConfig.from_preset(preset)
    x, iou, objectness = uniform(1, 9, 3), uniform(0.6, 1, 6), torch.ones(N)
    # no background: less than its part
    found = run(_class, x, objectness, iou, torch.zeros(N), RULE=Rule.of(config), FAST=host.FAST)
    assert (found >= 0).all()
    assert (found == 0).sum() > N / 4


def test_the_centre_prior_overflows_to_infinity_and_nothing_else(fast):
    config = SimOTAConfig.rtmdet()
    dx, dy = uniform(-600, 600), uniform(-600, 600, 1)
    stride = torch.tensor([8.0, 16.0, 32.0, 40.0]).repeat(N // 4)
    found = run(_center, dx, dy, stride, RULE=Rule.of(config), FAST=fast).double()
    distance = (dx.double() ** 2 + dy.double() ** 2).sqrt() / stride
    exact = 10 ** (distance - 3)
    finite = exact < 3e38
    assert (found[~finite] >= 3e38).all()
    assert (~finite).sum() > 10
    assert ((found[finite] / exact[finite] - 1).abs() < 4 * ULP * (1 + 2.4 * distance[finite])).all()


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "yolox_main", "damo", "picodet"])
def test_costs_are_added_in_the_definitions_order(preset, fast):
    config = SimOTAConfig.from_preset(preset, center_weight=1.0)
    cls, iou, center = uniform(0, 9), uniform(0, 1, 1), torch.exp(uniform(-7, 92, 2))
    outside = uniform(0, 1, 3) < 0.5
    found = run(_pair, cls, iou, center, outside.float(), RULE=Rule.of(config), FAST=fast)
    iou_term = (
        -torch.log(iou.double() + config.log_eps) if config.iou_cost == "log" else 1 - (iou.double() - 0.25)
    )
    pays = outside if config.eligible != "all" else torch.zeros_like(outside)
    expected = terms.pair_cost(cls.double(), iou_term, center.double(), pays, config)
    grid = torch.where(pays, torch.tensor(np.spacing(np.float32(config.penalty)).item()), 0.0)
    assert ((found - expected).abs() <= grid + 1e-6 * expected.abs() + 2e-6).all()
    assert (found[center > 4e38] == torch.tensor(terms.COST_LIMIT)).all()
    # penalised costs lie on the grid of float32 at the penalty, and mostly on the same point of it
    near = pays & (expected < config.penalty + 100)
    assert near.sum() > 100 or config.eligible == "all"
    assert (found[near].double() % grid[near] == 0).all()
    assert (found[near].double() == expected[near]).double().mean() > 0.99 or config.eligible == "all"
