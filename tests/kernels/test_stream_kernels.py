"""Each streaming kernel against its torch twin: what it leaves in the outputs and in scratch memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from simota_triton import terms
from simota_triton.boxes import box_area
from simota_triton.config import SimOTAConfig
from simota_triton.inputs import pack
from simota_triton.kernels.constants import NOWHERE, POINT, SMALL, SUMMARY, UNCLAIMED
from simota_triton.kernels.fused import launch
from simota_triton.kernels.stream import launch as stream
from simota_triton.kernels.stream.grid import Grid
from simota_triton.kernels.stream.scratch import Scratch
from simota_triton.problem import Problem
from simota_triton.tuning.kernel_config import INTERPRETER
from simota_triton.tuning.stream_config import StreamConfig
from tests.support.kernels import (
    PRESETS,
    Answer,
    assert_same,
    fused,
    on_device,
    random_inputs,
    random_problem,
)

KERNELS = ("prepare", "sums_and_ious", "select", "resolve")
TILES = StreamConfig(tile=128, rows=32, bounds=32, iou_bounds=32, gts=32, resolvers=1)


class Nothing:
    """A kernel that does nothing."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **kwargs: None


class State(NamedTuple):
    """Outputs and scratch memory after some of the kernels, on the CPU, by prior and by tile."""

    out: Answer
    scratch: Scratch
    grid: Grid
    batch: int

    @property
    def slot(self) -> Tensor:
        """[P], slot of each prior."""
        return self.scratch.slot_of[: self.out.gt_index.shape[1]].long()

    @property
    def points(self) -> Tensor:
        """[POINT, S]."""
        return (
            self.scratch.points.view(self.grid.num_tiles, POINT.value, -1)
            .transpose(0, 1)
            .reshape(POINT.value, -1)
        )

    def slots(self, i: int) -> Tensor:
        """[B, S], values of all slots."""
        tile = self.points.shape[1] // self.grid.num_tiles
        return self.scratch.slots.view(self.batch, self.grid.num_tiles, -1, tile)[:, :, i].reshape(
            self.batch, -1
        )

    def prior(self, i: int) -> Tensor:
        """[B, P], values of priors."""
        return self.slots(i)[:, self.slot]

    @property
    def summaries(self) -> Tensor:
        """[SUMMARY, B, T]."""
        blocks = self.scratch.tiles.view(self.batch, -1, SUMMARY.value, 32)
        return blocks.permute(2, 0, 1, 3).reshape(SUMMARY.value, self.batch, -1)[..., : self.grid.num_tiles]

    @property
    def table(self) -> tuple[Tensor, Tensor]:
        """Gts: boxes, centres and area, [N, 7]; label, image and index within it, [N, 3] int32."""
        rows = self.scratch.gts.view(torch.float32)[: 10 * self.out.dynamic_k.numel()].view(-1, 10)
        return rows[:, :7], rows[:, 7:].contiguous().view(torch.int32)


def run_until(last: str, problem: Problem, config: SimOTAConfig, kernels: StreamConfig = TILES) -> State:
    """The kernels up to ``last``, on memory that held junk."""
    kept: dict[str, Any] = {}
    empty = torch.empty

    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        value = empty(*args, **kwargs)
        value.view(torch.uint8).fill_(0x5A)
        return value

    def keep(name: str, function: Any) -> Any:
        return lambda *args: kept.setdefault(name, function(*args))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", poisoned)
        patch.setattr(
            torch, "empty_like", lambda value: poisoned(value.shape, dtype=value.dtype, device=value.device)
        )
        patch.setattr(stream, "allocate", keep("scratch", stream.allocate))
        patch.setattr(stream, "_plan", keep("plan", stream._plan))
        for name in KERNELS[KERNELS.index(last) + 1 :]:
            patch.setattr(stream, name, Nothing())
        out = Answer.of(stream.run(on_device(problem), config, kernels))
    scratch = Scratch(*(None if part is None else part.cpu() for part in kept["scratch"]))
    return State(out, scratch, kept["plan"].grid, problem.shape[0])


def expected_candidates(problem: Problem, config: SimOTAConfig) -> tuple[Tensor, Tensor]:
    """[B, P] each: candidates, and priors that count for dynamic k, before class logits are looked at."""
    row, gt_mask = problem.gts.padded_rows()
    usable = problem.usable_priors()
    boxes, centers = problem.gts.boxes[row][:, :, None], problem.gts.centers[row][:, :, None]
    inside = terms.in_region(
        problem.priors[None, None], boxes, centers, config.candidate, config.center_radius
    )
    candidate = usable & (inside & gt_mask[:, :, None]).any(1)
    return candidate, usable if config.k_pool == "all" else candidate


def check_prepare(problem: Problem, config: SimOTAConfig, kernels: StreamConfig = TILES) -> State:
    """Everything that ``prepare`` writes."""
    state = run_until("prepare", problem, config, kernels)
    batch, num_priors, channels = problem.shape
    candidate, counts = expected_candidates(problem, config)

    # every prior has a slot of its own, on its own tile, and other slots hold none
    assert state.slot.unique().numel() == num_priors
    assert torch.equal(state.slot // kernels.tile, expected_tile(state.grid, kernels.tile, num_priors))
    assert torch.equal(state.prior(4), torch.where(candidate, 0.0, torch.where(counts, -1.0, torch.inf)))
    tile = state.slot // kernels.tile
    away = torch.tensor([1.0, 1.0, -1.0, -1.0]) * NOWHERE.value
    boxes = torch.where(counts[..., None], problem.pred_boxes.float(), away)
    written = (
        torch.zeros(batch, state.grid.num_tiles).index_add_(1, tile, counts.float()) > 0
    )  # [B, T], the others are not read
    assert torch.equal(
        torch.stack([state.prior(i) for i in range(4)], -1)[written[:, tile]], boxes[written[:, tile]]
    )
    empty = torch.ones(state.slots(4).shape[1], dtype=torch.bool)
    empty[state.slot] = False
    assert (state.slots(4)[:, empty] == torch.inf).all()
    empty = empty & written.repeat_interleave(kernels.tile, 1)
    assert all((state.slots(i)[empty] == away[i]).all() for i in range(4))
    assert torch.equal(state.points[:4, state.slot].T, problem.priors)
    assert state.points[4].contiguous().view(torch.int32)[state.slot].tolist() == list(range(num_priors))
    if config.score == "joint":
        objectness = problem.obj_logits.dense()[..., 0].float().sigmoid()
        assert torch.allclose(state.prior(5)[counts], objectness[counts], rtol=1e-6)

    # what is known of tiles
    summary = state.summaries
    area, priors = torch.where(counts, box_area(problem.pred_boxes.float()), 0.0), problem.priors
    usable = problem.usable_priors()

    def reduced(values: Tensor, which: Tensor, none: float, reduction: str) -> Tensor:
        values = torch.where(which, values, none)
        return torch.full((batch, summary.shape[2]), none).scatter_reduce(
            1, tile.expand(batch, -1), values, reduction
        )

    largest = reduced(area, counts, 0.0, "amax")
    small = counts & (area <= largest[:, tile] * SMALL.value)
    columns = [
        *(
            reduced(boxes[..., i], which, away[i].item(), "amin" if i < 2 else "amax")
            for which in (counts, small)
            for i in range(4)
        ),
        *(reduced(priors[:, i], usable, torch.inf, "amin") for i in (0, 1)),
        *(reduced(priors[:, i], usable, -torch.inf, "amax") for i in (0, 1)),
        reduced(priors[:, 2:].amax(1), usable, 0.0, "amax"),
        reduced(candidate.float(), counts, 0.0, "amax"),
    ]
    for i, column in enumerate([*columns[:4], largest, *columns[4:]]):
        assert torch.equal(summary[i], column), f"column {i} of the tiles' summaries"

    # outputs as they are without any gt
    out = state.out
    assert (out.gt_index == -1).all()
    assert (out.matched_iou == 0).all()
    assert (out.labels == channels).all()
    assert (out.claims == 0).all()
    assert int(state.scratch.num_conflicts[0]) == 0
    assert (state.scratch.cheapest_claims is not None) == (config.conflict == "matched")
    if state.scratch.cheapest_claims is not None:
        assert (state.scratch.cheapest_claims[: batch * num_priors] == UNCLAIMED.value).all()
    return state


def expected_tile(grid: Grid, tile: int, num_priors: int) -> Tensor:
    """[P], tile of each prior: blocks of cells, row by row, level after level."""
    height, first, parts = tile // grid.tile_width, 0, []
    for start, end, width in zip(grid.starts[:-1], grid.starts[1:], grid.widths, strict=True):
        cell = torch.arange(end - start)
        rows = -(-(end - start) // width)
        across, down = -(-width // grid.tile_width), -(-rows // height)
        parts.append(first + cell // width // height * across + cell % width // grid.tile_width)
        first += across * down
    assert grid.starts[-1] == num_priors
    assert grid.num_tiles == first
    return torch.cat(parts)


@pytest.mark.parametrize("preset", PRESETS)
def test_prepare(preset):
    config = SimOTAConfig.from_preset(preset)
    problem = random_problem(config, 150, [3, 0, 2], 4)
    state = check_prepare(problem, config)
    gts = problem.gts
    numbers, integers = state.table
    assert torch.equal(numbers, torch.cat([gts.boxes, gts.centers, box_area(gts.boxes)[:, None]], 1))
    assert integers.tolist() == [
        [label, b, g]
        for label, (b, g) in zip(gts.labels.tolist(), [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)], strict=True)
    ]


@pytest.mark.parametrize("region", ["box_or_center", "box_and_center", "box", "center", "all"])
@pytest.mark.parametrize("pool", ["candidates", "all"])
def test_prepare_for_every_candidate_region(region, pool):
    config = SimOTAConfig.rtmdet(candidate=region, k_pool=pool, center_radius=1.5)
    # more gts than are looked at side by side
    pred, cls, _, priors, boxes, labels = random_inputs(97, [40, 1], 4)
    priors[:, 3] *= 1.5
    centers = [box[:, :2] + 5.0 for box in boxes]
    mask = torch.rand(2, 97, generator=torch.Generator().manual_seed(0)) < 0.7
    check_prepare(
        pack(config, pred, cls, priors, boxes, labels, gt_centers=centers, candidate_mask=mask), config
    )
    check_prepare(pack(config, pred, cls, priors, boxes, labels, candidate_mask=mask[0]), config)


@pytest.mark.parametrize("cells", [[(7, 15), (3, 10)], [(1, 1), (12, 9), (2, 13)], [(27, 5)]], ids=str)
@pytest.mark.parametrize("tile", [32, 64, 1024])
def test_tiles_are_blocks_of_cells(cells, tile):
    config = SimOTAConfig.yolox()
    pred, cls, obj, *rest = random_inputs(135, [2, 1], 4)
    for dtype in (torch.float16, torch.float32):
        problem = pack(
            config, pred.to(dtype), cls.to(dtype), *rest, obj_logits=obj.to(dtype), level_shapes=cells
        )
        state = check_prepare(problem, config, replace(TILES, tile=tile, rows=32))
    assert state.grid.widths == tuple(columns for _, columns in cells)
    assert state.grid.starts == tuple(
        sum(rows * columns for rows, columns in cells[:i]) for i in range(len(cells) + 1)
    )


def test_boxes_are_read_where_they_are():
    config = SimOTAConfig.nanodet()
    pred, cls, _, *rest = random_inputs(60, [2, 1], 4)
    wide = torch.full((2, 60, 9), torch.nan)
    wide[..., 2:6] = pred
    for boxes in (pred.double(), pred.permute(2, 0, 1).contiguous().permute(1, 2, 0), wide[..., 2:6]):
        check_prepare(pack(config, boxes, cls, *rest), config)


def test_priors_that_cannot_be_read_do_not_count():
    config = SimOTAConfig.rtmdet_mmyolo()
    for preset in ("rtmdet_mmyolo", "yolox"):
        config = SimOTAConfig.from_preset(preset)
        pred, cls, obj, priors, *gts = random_inputs(80, [3, 1], 4)
        pred[0, 3, 1], pred[1, 5, 2], pred[0, 9], priors[11, 0], priors[12, 2], priors[13, 3] = (
            torch.nan, torch.inf, torch.tensor([-1e30, -1e30, 1e30, 1e30]), torch.nan, 0.0, -1.0,
        )  # fmt: skip
        obj[0, 20], obj[1, 21] = torch.nan, -torch.inf
        more = {"obj_logits": obj} if config.score == "joint" else {}
        problem = pack(config, pred, cls, priors, *gts, validate=False, **more)
        state = run_until("prepare", problem, config)
        candidate, counts = expected_candidates(problem, config)
        assert torch.equal(state.prior(4), torch.where(candidate, 0.0, torch.where(counts, -1.0, torch.inf)))
        assert not counts[:, 11:14].any()
        assert not state.summaries.isnan().any()


def test_the_table_of_gts_that_came_as_they_are():
    config = SimOTAConfig.rtmdet()
    pred, cls, _, priors, *_ = random_inputs(40, [1, 1], 4)
    good = torch.tensor([[1.0, 2.0, 30.0, 40.0]])
    nan, inf = torch.nan, torch.inf
    boxes = torch.cat(
        [good, torch.tensor([[nan, 0, 1, 1], [0, 0, inf, 1], [-1e30, -1e30, 1e30, 1e30]]), good.expand(4, 4)]
    )[None].repeat(2, 1, 1)
    labels = torch.tensor([3, 0, 0, 0, 4, -1, 1 << 40, 2]).expand(2, 8)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[1, 0] = False
    problem = pack(config, pred, cls, priors, boxes, labels, gt_mask=mask, validate=False)
    assert problem.gts.given_centers is None
    numbers, integers = run_until("prepare", problem, config).table
    usable = torch.tensor([[True] + [False] * 6 + [True], [False] * 7 + [True]]).flatten()
    assert torch.equal(integers[:, 0] >= 0, usable)
    assert integers[usable, 0].tolist() == [3, 2, 2]
    assert torch.equal(
        numbers[usable], torch.tensor([[1.0, 2.0, 30.0, 40.0, 15.5, 21.0, 29.0 * 38.0]]).expand(3, 7)
    )
    assert torch.equal(numbers[~usable], torch.tensor([[inf, 0.0, 0.0, 0.0, inf, 0.0, 0.0]]).expand(13, 7))
    assert integers[:, 1:].tolist() == [[b, g] for b in range(2) for g in range(8)]


@pytest.mark.parametrize("offsets", [[1, 1, 2, 4], [0, 0, 0, 0], [6, 6, 6, 6], [0, 2, 5, 5]], ids=str)
def test_rows_of_the_table_that_belong_to_no_image_take_no_part(offsets):
    config = SimOTAConfig.rtmdet()
    problem = random_problem(config, 60, [2, 1, 3], 4)
    offsets = torch.tensor(offsets)
    problem = replace(problem, gts=replace(problem.gts, offsets=offsets, max_count=None))
    _, integers = run_until("prepare", problem, config).table
    row = torch.arange(6)
    assert torch.equal(integers[:, 0] >= 0, (row >= offsets[0]) & (row < offsets[-1]))


@pytest.mark.parametrize("preset", PRESETS)
def test_class_sums(preset):
    """The rows of ``prior_pass`` to the bit, in every layout; a logit that is not finite loses its prior."""
    config = SimOTAConfig.from_preset(preset)
    pred, cls, obj, *rest = random_inputs(135, [3, 0, 2], 19)
    cls[0, ::5, 18], cls[2, ::7, 0], cls[2, 1::7, 5] = torch.nan, torch.inf, -torch.inf
    cells = [(7, 15), (3, 10)]
    maps = [
        level.transpose(1, 2).reshape(3, 19, *cell).contiguous()
        for level, cell in zip(cls.split([105, 30], 1), cells, strict=True)
    ]
    for logits in (cls.half(), maps) if preset in ("rtmdet", "yolox") else (maps,):
        problem = pack(config, pred, logits, *rest, obj_logits=obj if config.score == "joint" else None)
        state = run_until("sums_and_ious", problem, config)
        moved = on_device(problem)
        rows = launch.run_prior_pass(moved, INTERPRETER, launch.Shared.of(moved, config))
        assert torch.equal(state.prior(4), rows.background.cpu())
        if config.cls_classes == "all":
            lost = ~problem.cls_logits.dense().isfinite().all(2)
            assert (state.prior(4)[lost] == torch.inf).all()
            lost &= expected_candidates(problem, config)[1]
            assert lost.sum() > 3
            assert (state.prior(0)[lost] == NOWHERE.value).all()
            assert (state.prior(3)[lost] == -NOWHERE.value).all()


TOP_CASES = [
    (preset, splits, bounds)
    for preset, splits, bounds in zip(
        (*PRESETS, "rtmdet", "yolox"),
        (1, 2, 4, 8, 1, 4, 8, 2, 1, 2, 4, 2, 1, 8, 4, 8),
        (32, 64, 256, 32) * 4,
        strict=True,
    )
]


@pytest.mark.parametrize(("preset", "splits", "bounds"), TOP_CASES)
def test_the_largest_ious(preset, splits, bounds):
    config = SimOTAConfig.from_preset(preset)
    problem = random_problem(config, 200, [2, 1], 4)
    problem.pred_boxes[0, 60:75] = problem.gts.boxes[0]  # more IoUs of 1 than are summed
    state = run_until(
        "sums_and_ious",
        problem,
        config,
        StreamConfig(tile=32, rows=32, bounds=32, iou_bounds=bounds, splits=splits, resolvers=1),
    )
    lists = state.scratch.top_ious.view(torch.float32).view(3, splits, 32)
    _, iou = launch.run(on_device(problem), config, INTERPRETER, 2)
    iou = torch.cat([iou[0], iou[1, :1]]).cpu()
    q = config.candidate_topk
    assert ((lists > 0).sum(2) <= q).all()
    assert (lists >= 0).all()
    assert torch.equal(
        lists.flatten(1).sort(1, descending=True).values[:, :q], iou.clamp(min=0).topk(q, 1).values
    )
    tile = state.slot // 32
    for split in range(splits):
        own = torch.where(tile % splits == split, iou, 0.0).clamp(min=0)
        assert torch.equal(lists[:, split].sort(1, descending=True).values[:, :q], own.topk(q, 1).values)


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "super_gradients_fast", "picodet_lightly"])
def test_ious_of_priors_that_class_sums_lose_do_not_count(preset, splits):
    """In the image of such a prior the lists are not trusted, whoever looked first; in others they are."""
    config = SimOTAConfig.from_preset(preset)
    pred, cls, obj, priors, boxes, labels = random_inputs(200, [2, 0, 2], 7)
    lost = torch.arange(60, 140, 3)
    pred[:2, lost] = boxes[0][0]  # the best predictions of a gt
    cls[:2, lost[1:], 3] = torch.nan
    problem = pack(
        config, pred, cls, priors, boxes, labels, obj_logits=obj if config.score == "joint" else None
    )
    expected = fused(problem, config)
    state = run_until(
        "select",
        problem,
        config,
        StreamConfig(tile=32, rows=32, bounds=32, iou_bounds=32, splits=splits, resolvers=1),
    )
    assert torch.equal(state.out.dynamic_k, expected.dynamic_k)
    assert torch.equal(state.out.claims, expected.claims)
    flags = state.scratch.unreadable[:3]
    assert flags.tolist() == [int(config.cls_classes == "all"), 0, 0]  # no candidates in the second image


@pytest.mark.parametrize(
    ("counts", "rows", "splits"),
    [([1], 32, 1), ([1], 8, 1), ([2, 1], 16, 4), ([9, 7], 1024, 8), ([40], 1024, 1), ([11], 256, 1)],
    ids=str,
)
def test_every_program_of_both_kinds_has_its_turn(counts, rows, splits):
    config = SimOTAConfig.rtmdet()
    problem = random_problem(config, 200, counts, 4)
    kernels = StreamConfig(
        tile=max(32, rows), rows=rows, bounds=32, iou_bounds=32, splits=splits, resolvers=1
    )
    state = run_until("sums_and_ious", problem, config, kernels)
    moved = on_device(problem)
    assert torch.equal(
        state.prior(4),
        launch.run_prior_pass(moved, INTERPRETER, launch.Shared.of(moved, config)).background.cpu(),
    )
    _, iou = launch.run(moved, config, INTERPRETER, max(counts))
    iou = torch.cat([values[:count] for values, count in zip(iou.cpu(), counts, strict=True)])
    lists = state.scratch.top_ious.view(torch.float32)[: 32 * splits * sum(counts)].view(sum(counts), -1)
    assert torch.equal(lists.sort(1, descending=True).values[:, :13], iou.clamp(min=0).topk(13, 1).values)


def test_ious_that_hardly_differ():
    """Predictions inside the gt, of IoUs 0.01 % apart: what is known of a tile is the largest IoU in it."""
    config = SimOTAConfig.rtmdet(candidate="all")
    pred, cls, _, priors, *_ = random_inputs(200, [1], 3)
    # every tile holds some of the largest
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    side = 40 * (0.5 + 0.00005 * order).sqrt()
    pred[0] = 50 + torch.stack([-side, -side, side, side], 1)
    problem = pack(config, pred, cls, priors, [torch.tensor([[10.0, 10.0, 90.0, 90.0]])], [torch.tensor([1])])
    found = run_until(
        "sums_and_ious", problem, config, StreamConfig(tile=32, rows=32, resolvers=1)
    ).scratch.top_ious.view(torch.float32)
    _, iou = launch.run(on_device(problem), config, INTERPRETER, 1)
    assert torch.equal(found.sort(descending=True).values[:13], iou.cpu()[0, 0].topk(13).values)


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "seed", "picodet_lightly", "super_gradients_fast"])
def test_claims_stand_until_conflicts_are_resolved(preset):
    config = SimOTAConfig.from_preset(preset)
    pred, cls, obj, priors, boxes, labels = random_inputs(120, [3, 2], 4)
    boxes[0] = boxes[0][:1] + torch.tensor([[0.0], [1.5], [3.0]])  # gts that want the same priors
    problem = pack(
        config, pred, cls, priors, boxes, labels, obj_logits=obj if config.score == "joint" else None
    )
    state, expected = run_until("select", problem, config), fused(problem, config)
    found = state.out
    assert torch.equal(found.dynamic_k, expected.dynamic_k)
    assert torch.equal(found.claims, expected.claims)
    sole, contested = expected.claims < 2, expected.claims > 1
    assert contested.sum() > 2
    for name in ("gt_index", "matched_iou", "labels"):
        assert torch.equal(getattr(found, name)[sole], getattr(expected, name)[sole])

    # each contested prior is noted once, with the cost of one of its claims
    count = int(state.scratch.num_conflicts[0])
    noted = state.scratch.conflicts[:count]
    image, slot = noted >> 32, noted & 0xFFFFFFFF
    prior = (state.slot == slot[:, None]).nonzero()[:, 1]
    assert (image * 120 + prior).sort().values.tolist() == contested.flatten().nonzero()[:, 0].tolist()
    cost, _ = (value.cpu() for value in launch.run(on_device(problem), config, INTERPRETER, 3))
    assert (cost[image, :, prior] == state.scratch.conflict_costs[:count, None]).any(1).all()
    if config.conflict == "matched":
        claimed = torch.where(contested, expected.gt_index, 0)
        cheapest = state.scratch.cheapest_claims[:240].view(2, 120)
        assert torch.equal((cheapest & 0xFFFFFFFF)[contested], claimed[contested])
        assert (cheapest == UNCLAIMED.value)[expected.claims == 0].all()


@pytest.mark.parametrize("conflict", ["all", "matched", "max_iou"])
@pytest.mark.parametrize("preset", ["rtmdet", "yolox"])
def test_conflicts(preset, conflict):
    config = SimOTAConfig.from_preset(preset, conflict=conflict)
    pred, cls, obj, priors, boxes, labels = random_inputs(60, [6, 4], 3)
    shift = torch.arange(6.0)[:, None]
    whole = torch.tensor([[8.0, 8.0, 80.0, 80.0]])
    boxes = [whole + shift, whole.expand(4, 4)]  # neighbours, and gts that only their labels tell apart
    pred[:, :8] = whole + torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    problem = pack(
        config, pred, cls, priors, boxes, labels, obj_logits=obj if config.score == "joint" else None
    )
    expected = fused(problem, config)
    assert (expected.claims[0] > 1).sum() > 2
    assert (expected.claims[1] > 1).sum() > 2
    assert_same(run_until("resolve", problem, config, replace(TILES, resolvers=2)).out, expected)
