"""The device maths of the task-aligned rule, term by term, against ``task_aligned/terms.py`` and float64: as
the interpreter (or the GPU) runs it, and with a GPU's approximate units emulated at the edge of what their
manual allows.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from simota_triton import TaskAlignedConfig
from simota_triton.boxes import IOU_ERROR
from simota_triton.kernels import host
from simota_triton.kernels.aligned_maths import (
    angle_of,
    arctangent,
    in_region,
    least_overlap,
    metric_of_pairs,
    overlap_area,
    overlap_of_pairs,
    region_box,
    share_of,
    shared_and_joined,
)
from simota_triton.kernels.rule import AlignedRule
from simota_triton.task_aligned import terms
from tests.support.kernels import DEVICE, ApproximateUnits

N = 4096
PRESETS = [name for name in TaskAlignedConfig.presets() if "obb" not in name]


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
def _load_box(ptr, i):
    return tl.load(ptr + i * 4), tl.load(ptr + i * 4 + 1), tl.load(ptr + i * 4 + 2), tl.load(ptr + i * 4 + 3)


@triton.jit
def _of_two(
    a_ptr, b_ptr, out_ptr, WHICH: tl.constexpr, RULE: tl.constexpr, FAST: tl.constexpr, N: tl.constexpr
):
    i = tl.arange(0, N)
    a, b = tl.load(a_ptr + i), tl.load(b_ptr + i)
    if WHICH == "arctangent":
        out = arctangent(a, b, FAST)
    elif WHICH == "metric":
        out = metric_of_pairs(a, b, RULE, FAST)
    elif WHICH == "share":
        out = share_of(a, b, RULE, FAST)
    else:
        out = least_overlap(a, RULE, FAST)
    tl.store(out_ptr + i, out)


@triton.jit
def _overlap(boxes_ptr, gts_ptr, out_ptr, RULE: tl.constexpr, FAST: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    x1, y1, x2, y2 = _load_box(boxes_ptr, i)
    a1, b1, a2, b2 = _load_box(gts_ptr, i)
    inter, union = shared_and_joined(
        x1,
        y1,
        x2,
        y2,
        overlap_area(x1, y1, x2, y2, RULE),
        a1,
        b1,
        a2,
        b2,
        overlap_area(a1, b1, a2, b2, RULE),
        RULE,
    )
    angle = angle_of(a1, b1, a2, b2, RULE, FAST)
    overlap = overlap_of_pairs(x1, y1, x2, y2, a1, b1, a2, b2, angle, inter, union, RULE, FAST)
    tl.store(out_ptr + i, tl.where(inter > 0.0, overlap, 0.0))


@triton.jit
def _inside(priors_ptr, gts_ptr, out_ptr, RULE: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    x, y, stride_x, stride_y = _load_box(priors_ptr, i)
    a1, b1, a2, b2 = _load_box(gts_ptr, i)
    x1, y1, x2, y2 = region_box(a1, b1, a2, b2, RULE)
    tl.store(out_ptr + i, in_region(x, y, stride_x, stride_y, x1, y1, x2, y2, RULE).to(tl.float32))


def run(kernel, *tensors, config=None, **keywords):
    """The kernel on float32 tensors of N rows."""
    out = torch.empty(N, device=DEVICE)
    rule = AlignedRule.of(config or TaskAlignedConfig.tal())
    with np.errstate(all="ignore"):
        kernel[(1,)](
            *(t.float().to(DEVICE).contiguous() for t in tensors),
            out,
            RULE=rule,
            N=N,
            **keywords,
            **host.OPTIONS,
        )
    return out.cpu()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=generator(seed))


def test_arctangent_is_within_two_ulp(fast):
    worst = 0.0
    for seed, (low, high) in enumerate(((-1, 1), (-20, 20), (-60, 0), (0, 60), (-1e-4, 1e-4))):
        ratio = torch.exp2(low + (high - low) * uniform(N, seed=seed))
        b = 1e-7 + 1e3 * uniform(N, seed=seed + 10)
        a = ratio * b
        found = run(_of_two, a, b, WHICH="arctangent", FAST=fast)
        exact = torch.atan(a.double() / b.double())
        ulp = torch.exp2(exact.log2().floor() - 23)
        worst = max(worst, float(((found - exact) / ulp).abs().max()))
    assert 0.5 < worst <= 2.0
    zero, some = torch.zeros(N), torch.full((N,), 3.0)
    assert (run(_of_two, zero, some, WHICH="arctangent", FAST=fast) == 0).all()
    assert (run(_of_two, some, some, WHICH="arctangent", FAST=fast) == np.float32(np.pi / 4)).all()


def boxes(seed, low, high, degenerate=0):
    """Pairs of boxes with sides of 2^low to 2^high that overlap more or less."""
    size = torch.exp2(low + (high - low) * uniform(N, 2, seed=seed))
    corner = 500 * uniform(N, 2, seed=seed + 1)
    gts = torch.cat([corner, corner + size], 1)
    noise = (uniform(N, 4, seed=seed + 2) - 0.5) * size.repeat(1, 2) * uniform(N, 1, seed=seed + 3)
    pred = gts + noise
    pred[::7] = gts[::7]
    if degenerate:
        pred[::3, 2] = pred[::3, 0]
        pred[1::3] = pred[1::3].flip(1)
        gts[::5, 3] = gts[::5, 1]
    return pred, gts


@pytest.mark.parametrize("preset", ["tal", "yolov6", "tood"])
def test_overlap(preset, fast):
    config = TaskAlignedConfig.from_preset(preset)
    for seed, (low, high, degenerate) in enumerate(((2, 9, 0), (-3, 10, 0), (0, 6, 1))):
        pred, gts = boxes(10 * seed, low, high, degenerate)
        found = run(_overlap, pred, gts, config=config, FAST=fast)
        exact = terms.pair_overlap(pred.double(), gts.double(), config)
        assert (found - exact).abs().max() <= IOU_ERROR
        assert (found[exact == 0] <= IOU_ERROR).all()
        if preset == "tood":
            assert (found[::7] == 1).all() or degenerate
    if preset != "tal" and not fast:
        assert torch.equal(found, terms.pair_overlap(pred, gts, config))


def test_overlap_of_boxes_that_are_not_of_this_world(fast):
    """As large as areas allow, and the box that stands for none."""
    pred = torch.tensor([[-1e38, -0.1, 1e38, 0.1], [1e38, 1e38, -1e38, -1e38], [0.0, 0.0, 1e-20, 1e-20]])
    gts = torch.tensor([[-1e38, -0.1, 1e38, 0.1], [0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 1e-20, 1e-20]])
    pred, gts = (value.repeat(N // 3 + 1, 1)[:N] for value in (pred, gts))
    config = TaskAlignedConfig.tal()
    found = run(_overlap, pred, gts, config=config, FAST=fast)
    expected = terms.pair_overlap(pred, gts, config)
    assert torch.allclose(found, expected, atol=IOU_ERROR)


EXPONENTS = [(0.5, 6.0), (1.0, 6.0), (0.0, 1.0), (1.0, 0.5), (0.3, 2.5), (3.0, 17.0), (64.0, 0.01)]


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
@pytest.mark.parametrize("score", ["sigmoid", "prob"])
def test_metric(alpha, beta, score, fast):
    config = TaskAlignedConfig(alpha=alpha, beta=beta, score=score)
    logits = 30 * (uniform(N) - 0.6)
    scores = logits if score == "sigmoid" else logits.sigmoid()
    overlap = uniform(N, seed=1) ** 2
    overlap[::50], overlap[1::50] = 0.0, 1.0
    found = run(_of_two, scores, overlap, config=config, WHICH="metric", FAST=fast)
    exact = terms.class_scores(scores, config).double().pow(alpha) * overlap.double().pow(beta)
    cheap = {alpha, beta} <= {0.0, 0.5, 1.0, 6.0}
    logarithms = overlap.double().clamp(min=1e-9).log2().abs() * beta + logits.sigmoid().log2().abs() * alpha
    bound = 1e-6 if cheap else 2.0**-22 * (4 + 2 * alpha + beta + logarithms)
    bound = bound + alpha * 4 * 2.0**-22  # of the sigmoid itself
    counts = exact > 2.0**-125
    assert (((found - exact).abs() / exact) <= bound)[counts].all()
    assert (found[exact < 2.0**-127] == 0).all()
    assert ((found == 0) | (found >= 2.0**-126)).all()


def test_scores_of_very_negative_logits(fast):
    """Nothing below the normal numbers is left, whose root would be above."""
    config = TaskAlignedConfig.tal()
    logits = -80 - 20 * uniform(N)
    found = run(_of_two, logits, torch.ones(N), config=config, WHICH="metric", FAST=fast)
    assert (found[logits < -87.4] == 0).all()
    assert (found[logits > -87.3] > 0).all()


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
def test_no_pair_is_below_the_least_overlap_of_its_metric(alpha, beta, fast):
    config = TaskAlignedConfig(alpha=alpha, beta=beta)
    overlap = torch.exp2(-8 * uniform(N, seed=3) ** 3)
    for logit in (60.0, 2.0):
        scores = torch.full((N,), logit)
        metric = run(_of_two, scores, overlap, config=config, WHICH="metric", FAST=fast)
        least = run(_of_two, metric, metric, config=config, WHICH="least", FAST=fast)
        assert (least < overlap)[metric > 0].all()
        if logit == 60.0 and beta >= 0.5:  # a score of 1: little is given away
            assert (least > overlap * 0.999)[metric > 0].all()
    none = run(_of_two, torch.zeros(N), torch.zeros(N), config=config, WHICH="least", FAST=fast)
    assert (none >= 0).all()
    assert (none <= 2.0 ** (-126 / beta)).all()


@pytest.mark.parametrize("norm_eps", [0.0, 1e-9, 1e-3])
def test_share(norm_eps, fast):
    config = TaskAlignedConfig.tal(norm_eps=norm_eps)
    largest = torch.exp2(-60 * uniform(N))
    metric = (largest * uniform(N, seed=1)).minimum(largest)
    metric[::9], metric[1::9] = 0.0, largest[1::9]
    found = run(_of_two, metric, largest, config=config, WHICH="share", FAST=fast)
    exact = metric.double() / (largest.double() + norm_eps)
    assert torch.allclose(found.double(), exact, rtol=3e-7, atol=1e-38)
    if not norm_eps:
        assert (found[1::9] == 1).all()


REGIONS = {
    **{name: TaskAlignedConfig.from_preset(name) for name in PRESETS},
    "a reach of 2": TaskAlignedConfig.tal(max_reach=2.0, margin=0.3),
}


@pytest.mark.parametrize("name", REGIONS)
def test_region_is_that_of_the_definition(name):
    """Coordinates on a coarse grid, so that many points lie on an edge, or as far as the reach or margin."""
    config = REGIONS[name]
    random = generator(4)
    priors = torch.randint(0, 200, (N, 2), generator=random) / 4
    strides = torch.tensor([1.0, 8.0, 3.0])[torch.randint(0, 3, (N, 1), generator=random)].expand(-1, 2)
    corner = priors - torch.randint(0, 200, (N, 2), generator=random) / 8
    gts = torch.cat([corner, corner + torch.randint(0, 300, (N, 2), generator=random) / 8], 1)
    gts[::3] += config.margin
    priors = torch.cat([priors, strides], 1)
    expected = terms.in_region(priors, terms.region_boxes(gts, config), config)
    assert 0.02 < expected.float().mean() < 0.9
    assert torch.equal(run(_inside, priors, gts, config=config) > 0, expected)
