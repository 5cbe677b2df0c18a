"""What is known of pairs before their cost is formed, on random pairs: a pair that costs at most c is never
excluded by what follows from c, and nothing in a tile costs less than the tile's floor. Costs come from the
kernels' function and, in float64, from ``terms.py``. Where the other terms vanish a bound is as tight as its
slack, so one that is 1 % too strong is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from simota_triton import terms
from simota_triton.boxes import box_area
from simota_triton.config import REGIONS, SimOTAConfig
from simota_triton.kernels import host
from simota_triton.kernels.constants import NEARER, NOWHERE, SMALL, SUMMARY
from simota_triton.kernels.maths import box_area as device_area
from simota_triton.kernels.maths import (
    center_rate,
    cost_of_pairs,
    intersection_and_union,
    key_of,
    region_depth,
    value_of,
)
from simota_triton.kernels.rule import Rule
from simota_triton.kernels.stream.bounds import (
    least_cost,
    may_cost,
    meets,
    pair_limits,
    tile_distance,
    tile_iou,
    tile_iou_cost,
    tile_points,
    tile_position_cost,
)
from simota_triton.kernels.stream.order import index_of, keys_of_tiles, least_bound, nearer, without
from simota_triton.kernels.stream.tiles import summary_at
from simota_triton.matching import sortable
from tests.support.kernels import DEVICE, PRESETS, ApproximateUnits

A_TILE = 4
"""Priors of a tile here: consecutive pairs, which share their gt."""

N = 4096

VARIANTS = {
    "log_eps 1": SimOTAConfig.rtmdet(log_eps=1.0),
    "log_eps 1e-10": SimOTAConfig.yolox(log_eps=1e-10),
    "no class term": SimOTAConfig.rtmdet(cls_weight=0.0),
    "no IoU term": SimOTAConfig.rtmdet(iou_weight=0.0),
    "nothing but the centre": SimOTAConfig.rtmdet(cls_weight=0.0, iou_weight=0.0),
    "nothing at all": SimOTAConfig.nanodet(cls_weight=0.0, iou_weight=0.0),
    "GIoU alone": SimOTAConfig.picodet(cls_weight=0.0),
    "a centre prior that is flat": SimOTAConfig.rtmdet(center_base=1.0),
    "a centre prior without offset": SimOTAConfig.rtmdet(
        center_base=2.0, center_offset=-1.0, center_weight=0.3
    ),
    "a penalty among small costs": SimOTAConfig.mmdet_simota(penalty=20.0),
    "a penalty and a centre prior": SimOTAConfig.rtmdet(penalty=12345.678, eligible="box_and_center"),
    "a penalty of 1e8 and heavy terms": SimOTAConfig.damo(iou_weight=1e6, center_weight=1e3),
    "penalties by the box": SimOTAConfig.yolox(eligible="box"),
    "heavy IoU": SimOTAConfig.yolox(iou_weight=7.5e4),
}
CONFIGS = {preset: SimOTAConfig.from_preset(preset) for preset in PRESETS} | VARIANTS

configurations = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@pytest.fixture(params=["as it runs", "approximate units"])
def fast(request, monkeypatch):
    """FAST: once as the kernels run here, once with emulated units."""
    if request.param == "as it runs":
        return host.FAST
    if not host.INTERPRETED:
        pytest.skip("a GPU has its own units")
    ApproximateUnits(monkeypatch)
    return True


@dataclass
class Pairs:
    """N pairs of a gt and a prior."""

    priors: Tensor  # [N, 4]
    pred: Tensor  # [N, 4]
    gts: Tensor  # [N, 4]
    centers: Tensor  # [N, 2]
    logits: Tensor  # [N]
    objectness: Tensor  # [N] logit
    others: Tensor  # [N], background costs of the other classes

    @classmethod
    def random(cls, seed: int) -> Pairs:
        """Predictions from perfect to absurd, priors from the gt's centre to far away, class terms from
        nothing to large.
        """
        generator = torch.Generator().manual_seed(seed)

        def pick(*choices: float) -> Tensor:
            return torch.tensor(choices)[
                torch.randint(len(choices), (N // A_TILE, 1), generator=generator)
            ].repeat_interleave(A_TILE, 0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        def share(of: float) -> Tensor:
            return torch.rand(N, 1, generator=generator) < of

        scale = pick(1.0, 1.0, 1.0, 1e-3, 1e4)
        strides = torch.cat([pick(4.0, 8.0, 7.3, 32.0), pick(4.0, 8.0, 11.9, 32.0)], 1) * scale
        per_gt = torch.rand(N // A_TILE, 2, generator=generator).repeat_interleave(A_TILE, 0)
        centers = per_gt * 300 * scale + pick(0.0, 0.0, 0.0, 1e6)
        side = (
            torch.exp(normal(N // A_TILE, 2)).repeat_interleave(A_TILE, 0)
            * 24
            * scale
            * pick(1.0, 1.0, 0.1, 8.0)
        )
        gts = torch.cat([centers - side / 2, centers + side / 2], 1)
        gts = torch.where(pick(*range(40)) == 0, gts[:, [2, 1, 2, 3]], gts)  # no width
        gts = torch.where(pick(*range(40)) == 0, gts[:, [2, 3, 0, 1]], gts)  # inverted
        near = pick(0.0, 0.3, 2.0, 6.0) * normal(N, 2)
        points = (gts[:, :2] + gts[:, 2:]) / 2 + near * strides
        size = (gts[:, 2:] - gts[:, :2]).repeat(1, 2)
        pred = gts + pick(0.0, 0.001, 0.05, 0.3, 3.0) * size * normal(N, 4)
        half = strides * torch.exp(normal(N, 2))
        pred = torch.where(share(0.2), torch.cat([points - half, points + half], 1), pred)
        pred = torch.where(share(0.02), pred[:, [2, 3, 0, 1]], pred)
        pred = torch.where(share(0.02), pred[:, [0, 1, 0, 1]], pred)
        sure = share(0.6)[:, 0]
        return cls(
            priors=torch.cat([points, strides], 1),
            pred=pred,
            gts=gts,
            centers=torch.where(share(0.2), centers + 3.0, (gts[:, :2] + gts[:, 2:]) / 2)[
                ::A_TILE
            ].repeat_interleave(A_TILE, 0),
            logits=torch.where(sure, 60.0, 3 * normal(N)),
            objectness=torch.where(sure, 60.0, 3 * normal(N)),
            others=torch.where(sure, 0.0, torch.exp(normal(N))),
        )

    def scores(self, config: SimOTAConfig) -> Tensor:
        logits = self.logits.sigmoid() if config.score == "prob" else self.logits
        return terms.class_scores(logits, self.objectness, config)

    def outside(self, config: SimOTAConfig) -> Tensor:
        return ~terms.in_region(self.priors, self.gts, self.centers, config.eligible, config.center_radius)

    def iou(self, config: SimOTAConfig) -> Tensor:
        """In float64; 0 where there is no union."""
        return terms.pair_iou(self.pred.double(), self.gts.double(), config).nan_to_num(0.0)

    def distance(self) -> Tensor:
        """In strides, float64."""
        return (self.priors[:, :2].double() - self.centers.double()).square().sum(1).sqrt() / self.priors[
            :, 2
        ]

    def exact_cost(self, config: SimOTAConfig) -> Tensor:
        """In float64."""
        iou, scores = self.iou(config), self.scores(config).double()
        cls = terms.class_cost(scores, iou, config)
        if config.cls_classes == "all":
            cls = (cls + self.others.double()).clamp(min=0)
        iou_term = terms.iou_cost(self.pred.double(), self.gts.double(), iou, config)
        center = (
            terms.center_cost(self.priors.double(), self.centers.double(), config)
            if config.center_weight
            else None
        )
        return terms.pair_cost(
            cls, iou_term, center, self.outside(config) if config.penalty else None, config
        )

    def planes(self, config: SimOTAConfig) -> Tensor:
        """[17, N] as the kernels here read it."""
        background = terms.background_cost(self.scores(config), config) + self.others
        parts = (
            self.pred.T,
            self.priors.T,
            self.gts.T,
            self.centers.T,
            self.logits,
            self.objectness.sigmoid(),
            background,
        )
        return torch.cat([part.reshape(-1, N).float() for part in parts]).contiguous().to(DEVICE)


@triton.jit
def _pairs(out_ptr, in_ptr, limit_ptr, RULE: tl.constexpr, FAST: tl.constexpr, N: tl.constexpr):
    """Costs, and whether each pair may cost as much as it does, and as much as a limit that is given."""
    i = tl.arange(0, N)
    at = in_ptr + i
    x1, y1, x2, y2 = tl.load(at), tl.load(at + N), tl.load(at + 2 * N), tl.load(at + 3 * N)
    x, y, stride_x, stride_y = (
        tl.load(at + 4 * N),
        tl.load(at + 5 * N),
        tl.load(at + 6 * N),
        tl.load(at + 7 * N),
    )
    gx1, gy1, gx2, gy2 = tl.load(at + 8 * N), tl.load(at + 9 * N), tl.load(at + 10 * N), tl.load(at + 11 * N)
    cx, cy = tl.load(at + 12 * N), tl.load(at + 13 * N)
    logit, objectness, background = tl.load(at + 14 * N), tl.load(at + 15 * N), tl.load(at + 16 * N)
    ELIGIBLE: tl.constexpr = RULE.value.eligible
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    outside = region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, ELIGIBLE) <= 0.0
    area, gt_area = device_area(x1, y1, x2, y2), device_area(gx1, gy1, gx2, gy2)
    inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
    cost, iou = cost_of_pairs(
        x1, y1, x2, y2, x, y, center_rate(stride_x, RULE, FAST), gx1, gy1, gx2, gy2, cx, cy,
        inter, union, outside, logit, objectness, background, RULE, FAST,
    )  # fmt: skip
    tl.store(out_ptr + i, cost)
    tl.store(out_ptr + N + i, iou)
    least, least_if_paid, reach = pair_limits(cost, RULE, FAST)
    may = may_cost(inter, union, x, y, stride_x, cx, cy, outside, least, least_if_paid, reach, RULE)
    tl.store(out_ptr + 2 * N + i, may.to(tl.float32))
    least, least_if_paid, reach = pair_limits(tl.load(limit_ptr + i), RULE, FAST)
    may = may_cost(inter, union, x, y, stride_x, cx, cy, outside, least, least_if_paid, reach, RULE)
    tl.store(out_ptr + 3 * N + i, may.to(tl.float32))


def look_at(
    pairs: Pairs, config: SimOTAConfig, fast: bool, limit: Tensor | float = torch.inf
) -> tuple[Tensor, ...]:
    """cost, IoU, may (cost what it costs), may (cost ``limit``): [N] each."""
    out = torch.empty(4, N, device=DEVICE)
    limit = torch.as_tensor(limit, dtype=torch.float32).expand(N).contiguous().to(DEVICE)
    with np.errstate(all="ignore"):
        _pairs[(1,)](out, pairs.planes(config), limit, RULE=Rule.of(config), FAST=fast, N=N, **host.OPTIONS)
    cost, iou, own, given = out.cpu()
    return cost, iou, own > 0, given > 0


@configurations
def test_a_pair_is_never_excluded_by_what_it_costs(config, fast):
    pairs = Pairs.random(0)
    exact = pairs.exact_cost(config)
    known = exact < 1e37  # beyond, the definition clamps the centre prior before it is weighted
    above = exact.float().nextafter(torch.tensor(torch.inf))
    cost, _, own, may = look_at(pairs, config, fast, torch.where(known, above, torch.inf))
    readable = ~cost.isnan()
    assert readable.float().mean() > 0.9
    assert known.float().mean() > 0.6
    assert own[readable].all(), pairs.planes(config)[:, readable & ~own][:, 0]
    assert may[readable].all(), pairs.planes(config)[:, readable & ~may][:, 0]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_larger_limit_excludes_no_more(preset):
    config, pairs = SimOTAConfig.from_preset(preset), Pairs.random(2)
    cost, *_ = look_at(pairs, config, host.FAST)
    may = torch.zeros(N, dtype=torch.bool)
    for limit in (*cost[~cost.isnan()].quantile(torch.tensor([0.1, 0.5, 0.9])).tolist(), torch.inf):
        before, may = may, look_at(pairs, config, host.FAST, limit)[3]
        assert not (before & ~may).any()
        assert may[cost <= limit].all()
    assert may[~cost.isnan()].all()  # a limit of +inf excludes nothing


@pytest.mark.parametrize("preset", PRESETS)
def test_limits_exclude_most_of_what_costs_more(preset):
    """A bound that is too weak gives right answers slowly; half of the dearer half is what every preset's own
    bound reaches.
    """
    config, pairs = SimOTAConfig.from_preset(preset), Pairs.random(3)
    pairs.logits[:], pairs.objectness[:], pairs.others[:] = 60.0, 60.0, 0.0
    cost, *_ = look_at(pairs, config, host.FAST)
    limit = float(cost.nanquantile(0.3))
    may = look_at(pairs, config, host.FAST, limit)[3]
    dearer = cost > limit
    assert (dearer & ~may).sum() > 0.5 * dearer.sum()


@triton.jit
def _tiles(
    out_ptr,
    tiles_ptr,
    gts_ptr,
    RULE: tl.constexpr,
    CANDIDATE: tl.constexpr,
    ELIGIBLE: tl.constexpr,
    FAST: tl.constexpr,
    T: tl.constexpr,
):
    i = tl.arange(0, T)
    at = gts_ptr + i
    gx1, gy1, gx2, gy2 = tl.load(at), tl.load(at + T), tl.load(at + 2 * T), tl.load(at + 3 * T)
    cx, cy = tl.load(at + 4 * T), tl.load(at + 5 * T)
    summary = tiles_ptr + summary_at(i)
    iou, _twice_x, _twice_y = tile_iou(summary, gx1, gy1, gx2, gy2, device_area(gx1, gy1, gx2, gy2), FAST)
    left, top, right, bottom, stride = tile_points(summary)
    distance = tile_distance(left, top, right, bottom, stride, cx, cy, FAST)
    eligible = meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, ELIGIBLE)
    candidate = meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, CANDIDATE)
    tl.store(out_ptr + i, iou)
    tl.store(out_ptr + T + i, distance)
    tl.store(out_ptr + 2 * T + i, eligible.to(tl.float32))
    tl.store(out_ptr + 3 * T + i, candidate.to(tl.float32))
    floor = (
        tile_position_cost(distance, eligible, RULE, FAST) + tile_iou_cost(iou, RULE, FAST) + least_cost(RULE)
    )
    tl.store(out_ptr + 4 * T + i, floor)


def look_at_tiles(pairs: Pairs, config: SimOTAConfig, fast: bool) -> tuple[Tensor, ...]:
    """Bounds of the pairs' tiles: IoU, squared distance, eligible, candidate and floor, [N] each."""
    num_tiles = N // A_TILE
    boxes, priors = pairs.pred.view(num_tiles, A_TILE, 4), pairs.priors.view(num_tiles, A_TILE, 4)
    area = box_area(boxes)
    small = (area <= area.amax(1, True) * SMALL.value)[..., None]
    summary = torch.stack(
        [
            *boxes[..., :2].amin(1).T,
            *boxes[..., 2:].amax(1).T,
            area.amax(1),
            *torch.where(small, boxes, NOWHERE.value)[..., :2].amin(1).T,
            *torch.where(small, boxes, -NOWHERE.value)[..., 2:].amax(1).T,
            *priors[..., :2].amin(1).T,
            *priors[..., :2].amax(1).T,
            priors[..., 2:].amax((1, 2)),
            torch.ones(num_tiles),
        ]
    )
    summary = summary.view(SUMMARY.value, -1, 32).transpose(0, 1).contiguous()
    gts = torch.cat([pairs.gts, pairs.centers], 1)[::A_TILE].T.contiguous()
    out = torch.empty(5, num_tiles, device=DEVICE)
    with np.errstate(all="ignore"):
        _tiles[(1,)](
            out,
            summary.to(DEVICE),
            gts.to(DEVICE),
            RULE=Rule.of(config),
            CANDIDATE=config.candidate,
            ELIGIBLE=config.eligible,
            FAST=fast,
            T=num_tiles,
            **host.OPTIONS,
        )
    iou, distance, eligible, candidate, floor = out.cpu().repeat_interleave(A_TILE, 1)
    return iou, distance, eligible > 0, candidate > 0, floor


@configurations
def test_nothing_in_a_tile_costs_less_than_its_floor(config, fast):
    pairs = Pairs.random(4)
    cost, *_ = look_at(pairs, config, fast)
    floor = look_at_tiles(pairs, config, fast)[4]
    assert (floor <= cost)[~cost.isnan()].all()
    exact = pairs.exact_cost(config)
    assert (floor <= exact)[~exact.isnan()].all()
    assert not floor.isnan().any()


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "picodet"])
def test_what_is_known_of_a_tile_holds_for_each_of_its_priors(preset, fast):
    config = SimOTAConfig.from_preset(preset)
    pairs = Pairs.random(6)
    single = look_at(pairs, config, fast)[1]
    iou, distance, *_ = look_at_tiles(pairs, config, fast)
    assert (iou >= single).all()
    assert (iou >= pairs.iou(config)).all()
    assert (iou <= 1).all()
    assert (distance.double() <= pairs.distance().square()).all()
    assert (distance.double() >= 0).all()
    points = pairs.priors[:, :2].view(-1, A_TILE, 2)
    points[:] = points[:, :1].clone()  # four priors at one point: then the bound is their distance
    square = (pairs.priors[:, 2] == pairs.priors[:, 3]) & (pairs.distance() > 0.1)
    distance = look_at_tiles(pairs, config, fast)[1].double()
    exact = pairs.distance().square()
    assert (distance <= exact).all()
    assert (distance > 0.999 * exact)[square].all()


def test_a_large_box_does_not_hide_how_small_the_others_are():
    """A tile of three boxes 20 pixels wide and one of 400 that covers all gts: a gt of the small boxes' size
    may match them only where it meets them, and the large one only as well as their areas let it.
    """
    pairs = Pairs.random(9)
    pairs.pred[:] = torch.tensor([100.0, 100.0, 120.0, 120.0])
    pairs.pred[3::A_TILE] = torch.tensor([0.0, 0.0, 400.0, 400.0])
    pairs.gts[:], pairs.gts[: N // 2] = (
        torch.tensor([300.0, 300.0, 320.0, 320.0]),
        torch.tensor([90.0, 90.0, 110.0, 110.0]),
    )
    iou = look_at_tiles(pairs, SimOTAConfig.rtmdet(), host.FAST)[0]
    assert torch.allclose(iou[N // 2 :], torch.tensor(400.0 / (400.0 + 160000.0 / 8 - 400.0)), rtol=1e-4)
    assert torch.allclose(iou[: N // 2], torch.tensor(100.0 / 400.0), rtol=1e-4)


@pytest.mark.parametrize("region", REGIONS)
def test_a_tile_meets_a_region_if_one_of_its_priors_lies_in_it(region):
    pairs = Pairs.random(8)
    config = SimOTAConfig.yolox(candidate=region, eligible=region, center_radius=1.5)
    inside = terms.in_region(pairs.priors, pairs.gts, pairs.centers, region, config.center_radius)
    _, _, eligible, candidate, _ = look_at_tiles(pairs, config, host.FAST)
    assert torch.equal(eligible, candidate)
    assert candidate[inside].all()
    assert inside.float().mean() > 0.05
    assert region == "all" or not candidate.all()


@triton.jit
def _keys(key_ptr, back_ptr, cost_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    key = key_of(tl.load(cost_ptr + i))
    tl.store(key_ptr + i, key)
    tl.store(back_ptr + i, value_of(key))


def test_keys_are_ordered_as_costs_and_lead_back_to_them():
    cost = torch.cat(
        [torch.tensor([0.0, -0.0, 1e-45, -1e-45, torch.inf, 3e38, -3e38]), torch.randn(57) * 1e3]
    ).to(DEVICE)
    key, back = torch.empty(64, dtype=torch.int32, device=DEVICE), torch.empty(64, device=DEVICE)
    _keys[(1,)](key, back, cost, N=64)
    assert torch.equal(key.long(), sortable(cost))
    assert torch.equal(back, cost)


@triton.jit
def _visits(out_ptr, least_ptr, rank_ptr, distance_ptr, alive_ptr, BOUNDS: tl.constexpr):
    i = tl.arange(0, BOUNDS)
    rank = tl.load(rank_ptr + i) + nearer(tl.load(distance_ptr + i), 1.0)
    waiting = keys_of_tiles(rank, tl.load(alive_ptr + i) > 0, BOUNDS)
    count = 0
    next_visit = tl.min(waiting)
    while least_bound(next_visit, BOUNDS) <= float("inf"):
        tl.store(out_ptr + count, index_of(next_visit, BOUNDS))
        tl.store(least_ptr + count, least_bound(next_visit, BOUNDS))
        waiting = without(waiting, next_visit)
        next_visit = tl.min(waiting)
        count += 1


@pytest.mark.parametrize("bounds", [32, 256])
def test_every_tile_that_is_alive_is_visited_once_the_most_promising_first(bounds):
    generator = torch.Generator().manual_seed(bounds)
    rank, distance = torch.rand(2, bounds, generator=generator).pow(4) * torch.tensor([[1e4], [2e3]])
    rank[10:20], distance[10:20] = 0.0, torch.arange(10) * 50.0  # the nearest of the same bound first
    rank[:3], distance[:3] = 0.0, 0.0
    rank[5:8], distance[5:8] = 7.0, 3.0  # ties, which go to the lower tile
    alive = torch.rand(bounds, generator=generator) < 0.7
    out, least = (
        torch.full((bounds,), -1, dtype=torch.int32, device=DEVICE),
        torch.zeros(bounds, device=DEVICE),
    )
    _visits[(1,)](out, least, rank.to(DEVICE), distance.to(DEVICE), alive.int().to(DEVICE), BOUNDS=bounds)
    count = int(alive.sum())
    visited, least = out[:count].long().cpu(), least[:count].cpu()
    assert (out[count:] == -1).all()
    assert torch.equal(visited.sort().values, alive.nonzero()[:, 0])
    assert (rank[visited].diff() >= -1e-4 * rank[visited][:-1] - NEARER.value).all()
    assert [t for t in visited.tolist() if t in (5, 6, 7)] == [t for t in (5, 6, 7) if alive[t]]
    assert [t for t in visited.tolist() if 10 <= t < 20] == [t for t in range(10, 20) if alive[t]]
    # what a visit says of itself and of all that come after it
    later = torch.stack([rank[visited[i:]].min() for i in range(count)])
    assert (least <= later).all()
    assert (least >= later - 1e-4 * later - 2 * NEARER.value).all()
