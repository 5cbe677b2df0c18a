"""Both passes against the dense definition: each cost lies within what float32 arithmetic can give."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from simota_triton import reference, terms
from simota_triton.config import SimOTAConfig
from simota_triton.inputs import pack
from simota_triton.kernels import constants
from simota_triton.kernels.fused import launch
from simota_triton.kernels.host import INTERPRETED, Logits, codes
from simota_triton.kernels.levels import find_logits, find_tile, matrix_row
from simota_triton.kernels.rule import AlignedRule, CompiledRule, Rule
from simota_triton.kernels.stream import common
from simota_triton.kernels.stream import launch as stream
from simota_triton.problem import Scores
from simota_triton.tuning.kernel_config import INTERPRETER, KernelConfig
from simota_triton.verification.judge.simota import cost_intervals
from tests.support.kernels import DEVICE, PRESETS, ApproximateUnits, on_device, random_inputs, random_problem

CONFIG = SimOTAConfig.rtmdet()
STREAM = ("sums_and_ious", "select", "resolve", "rescue")
ALIGNED = ("select_aligned", "resolve_aligned", "rank_owned", "largest_owned", "write_targets")


def check(problem, config=CONFIG, kernels=INTERPRETER):
    """Cost and IoU of a problem, held against the definition."""
    width = problem.gts.padded_rows()[0].shape[1]
    cost, iou = (value.cpu() for value in launch.run(on_device(problem), config, kernels, width))
    exact, exact_iou, _ = reference.cost_matrix(problem, config, torch.float64)
    assert cost.shape == iou.shape == exact.shape
    assert torch.equal(cost == torch.inf, exact == torch.inf)
    assert torch.equal(iou == -1, exact_iou == -1)
    low, high, _ = cost_intervals(problem, config, exact)
    outside = (cost < low) | (cost > high)
    assert not outside.any(), (
        f"{cost[outside][:3]} should be within {low[outside][:3]} and {high[outside][:3]}"
    )
    single = reference.cost_matrix(problem, config)[1]
    assert ((iou - single).abs() <= 1e-6 * (iou > 0)).all()
    assert torch.equal(iou == 1, single == 1)
    return cost, iou


@pytest.mark.parametrize("num_priors", [1, 7, 33, 257, 600])
@pytest.mark.parametrize("counts", [[0], [1, 0], [5, 2, 0]], ids=str)
def test_any_number_of_priors_and_gts(num_priors, counts):
    for preset, num_classes in (("rtmdet", 3), ("yolox", 1)):
        config = SimOTAConfig.from_preset(preset)
        check(random_problem(config, num_priors, counts, num_classes), config)


@pytest.mark.parametrize("num_classes", [1, 3, 16, 17, 80])
@pytest.mark.parametrize("preset", ["rtmdet", "mmdet_simota", "picodet", "rtmdet_mmyolo"])
def test_any_number_of_classes(preset, num_classes):
    config = SimOTAConfig.from_preset(preset)
    check(random_problem(config, 200, [4, 1], num_classes), config)


@pytest.mark.parametrize("cls_cost", ["bce", "soft_bce", "vfl"])
@pytest.mark.parametrize("score", ["sigmoid", "joint", "prob"])
def test_clamped_probabilities_of_a_number_of_classes_that_fills_no_columns(score, cls_cost):
    config = SimOTAConfig(score=score, cls_cost=cls_cost, prob_clamp=0.05)
    problem = random_problem(config.replace(score="sigmoid") if score == "prob" else config, 200, [4, 1], 9)
    if score == "prob":
        problem = dataclasses.replace(
            problem, cls_logits=Scores(tuple(level.sigmoid() for level in problem.cls_logits.levels))
        )
    check(problem, config)


LEVELS = (-100.0, -60.0, -46.5, -20.0, -16.0, -13.0, -5.0, 5.0, 20.0, 100.0)


@pytest.mark.parametrize("units", ["as it runs", "approximate units"])
@pytest.mark.parametrize("preset", ["rtmdet", "rtmdet_mmyolo", "damo", "yolox", "picodet_lightly"])
def test_any_level_of_the_logits(preset, units, monkeypatch):
    """Where a softplus is nothing but rounding, a sum of them is still no flag."""
    config = SimOTAConfig.from_preset(preset)
    if units != "as it runs":
        if not INTERPRETED:
            pytest.skip("a GPU has its own units")
        ApproximateUnits(monkeypatch)
    level = torch.tensor(LEVELS).repeat(20)[:, None]
    for pool in ("candidates", "all"):
        pred, cls, obj, *rest = random_inputs(200, [4], 80)
        cls[:] = level + torch.rand(200, 80, generator=torch.Generator().manual_seed(1)) - 0.5
        cls[:, ::3, 1] = -level[::3, 0]  # one class of some priors at the other end
        check(
            pack(config, pred, cls, *rest, obj_logits=obj if config.score == "joint" else None),
            config.replace(k_pool=pool),
        )


@pytest.mark.parametrize("units", ["as it runs", "approximate units"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset(preset, units, monkeypatch):
    config = SimOTAConfig.from_preset(preset)
    if units != "as it runs":
        if not INTERPRETED:
            pytest.skip("a GPU has its own units")
        emulated = ApproximateUnits(monkeypatch)
    for phase, seed in (("mid", 1), ("trained", 2)):
        pred, cls, obj, *rest = random_inputs(300, [6, 3], 5, seed, phase)
        cost, iou = check(
            pack(config, pred, cls, *rest, obj_logits=obj if config.score == "joint" else None), config
        )
        assert (cost < torch.inf).sum() > 50
        assert (iou > 0.3).sum() > 10
    assert units == "as it runs" or emulated.calls > 100


def as_maps(logits, cells, memory_format=torch.contiguous_format):
    """[B, P, C] as level maps [B, C, H, W]."""
    levels = logits.split([rows * columns for rows, columns in cells], dim=1)
    return [
        level.transpose(1, 2).reshape(level.shape[0], -1, *cell).contiguous(memory_format=memory_format)
        for level, cell in zip(levels, cells, strict=True)
    ]


def with_gaps(logits):
    wide = torch.full((*logits.shape[:2], logits.shape[2] + 3), torch.nan, dtype=logits.dtype)
    wide[..., 1:-2] = logits
    return wide[..., 1:-2]


LAYOUTS = {
    "contiguous": lambda x: x,
    "gaps": with_gaps,
    "classes first": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "images last": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "three maps": lambda x: as_maps(x, [(12, 16), (6, 8), (3, 4)]),
    "odd maps": lambda x: as_maps(x, [(1, 1), (5, 7), (216, 1)]),
    "eight maps": lambda x: as_maps(x, [(10, 10), (5, 10), (7, 7), (4, 5), (3, 5), (3, 3), (1, 8), (1, 1)]),
    "channels last": lambda x: as_maps(x, [(12, 16), (6, 8), (3, 4)], torch.channels_last),
}


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [(layout, torch.float16) for layout in LAYOUTS]
    + [(layout, dtype) for layout in ("contiguous", "three maps") for dtype in DTYPES],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_logits_are_read_where_they_are(layout, dtype):
    for preset in ("rtmdet", "yolox"):
        config = SimOTAConfig.from_preset(preset)
        pred, cls, obj, *rest = random_inputs(252, [4, 2], 5)
        cls, obj = (LAYOUTS[layout](value.to(dtype)) for value in (cls, obj))
        problem = pack(config, pred, cls, *rest, obj_logits=obj if config.score == "joint" else None)
        plain = pack(
            config,
            pred,
            problem.cls_logits.dense(),
            *rest,
            obj_logits=problem.obj_logits.dense() if problem.obj_logits else None,
        )
        # the layout changes no bit
        assert all(map(torch.equal, check(problem, config), check(plain, config)))


def test_class_and_objectness_may_come_in_different_layouts():
    config = SimOTAConfig.yolox()
    pred, cls, obj, *rest = random_inputs(252, [4, 2], 5)
    expected = check(pack(config, pred, cls, *rest, obj_logits=obj), config)
    for cls_layout, obj_layout in (
        ("three maps", "contiguous"),
        ("contiguous", "three maps"),
        ("three maps", "odd maps"),
    ):
        problem = pack(config, pred, LAYOUTS[cls_layout](cls), *rest, obj_logits=LAYOUTS[obj_layout](obj))
        assert all(map(torch.equal, check(problem, config), expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda value: str(value).removeprefix("torch."))
def test_boxes_are_read_where_they_are(dtype):
    pred, cls, _, *rest = random_inputs(200, [4, 2], 5)
    pred = pred.to(dtype)
    expected = check(pack(CONFIG, pred.clone(), cls, *rest))
    coordinates_first = pred.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    wide = torch.full((2, 200, 9), torch.nan, dtype=dtype)
    wide[..., 2:6] = pred
    for boxes in (coordinates_first, wide[..., 2:6], pred.transpose(0, 1).contiguous().transpose(0, 1)):
        assert not boxes.is_contiguous()
        assert all(map(torch.equal, check(pack(CONFIG, boxes, cls, *rest)), expected))


def test_nothing_is_copied_that_can_be_read_in_place():
    pred, cls, obj, *rest = random_inputs(252, [4, 2], 5)
    for layout in LAYOUTS:
        config = SimOTAConfig.yolox()
        problem = pack(config, pred, LAYOUTS[layout](cls), *rest, obj_logits=LAYOUTS[layout](obj))
        shared = launch.Shared.of(problem, config)
        own = [*problem.cls_logits.levels, *problem.obj_logits.levels, problem.pred_boxes]
        assert [t.data_ptr() for t in (*shared.logits.cls, *shared.logits.obj, shared.boxes)] == [
            t.data_ptr() for t in own
        ]


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "rtmdet_mmyolo", "super_gradients_fast"])
def test_forms_of_the_gts(preset):
    config = SimOTAConfig.from_preset(preset)
    pred, cls, obj, priors, boxes, labels = random_inputs(200, [5, 0, 3], 4)
    more = {"obj_logits": obj} if config.score == "joint" else {}
    listed = check(pack(config, pred, cls, priors, boxes, labels, **more), config)
    offsets = torch.tensor([0, 5, 5, 8])
    packed = check(
        pack(config, pred, cls, priors, torch.cat(boxes), torch.cat(labels), gt_offsets=offsets, **more),
        config,
    )
    assert all(map(torch.equal, listed, packed))
    slots = [torch.tensor([0, 2, 3, 6, 7]), torch.tensor([], dtype=torch.int64), torch.tensor([1, 2, 8])]
    padded, padded_labels, mask = (
        torch.full((3, 9, 4), torch.nan),
        torch.full((3, 9), -7),
        torch.zeros(3, 9, dtype=torch.bool),
    )
    for b, own in enumerate(slots):
        padded[b, own], padded_labels[b, own], mask[b, own] = boxes[b], labels[b], True
    cost, iou = check(pack(config, pred, cls, priors, padded, padded_labels, gt_mask=mask, **more), config)
    for b, own in enumerate(slots):
        assert torch.equal(cost[b, own], listed[0][b, : len(own)])
        assert torch.equal(iou[b, own], listed[1][b, : len(own)])
    assert (cost[~mask] == torch.inf).all()
    assert (iou[~mask] == -1).all()


def test_own_centres_and_a_candidate_mask():
    for preset in ("rtmdet", "yolox_main", "rtmdet_mmyolo"):
        config = SimOTAConfig.from_preset(preset)
        pred, cls, obj, priors, boxes, labels = random_inputs(200, [5, 3], 4)
        centers = [b[:, :2] + 3.0 for b in boxes]
        more = {"obj_logits": obj} if config.score == "joint" else {}
        for mask in (
            torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.6,
            torch.ones(2, 200, dtype=torch.bool),
        ):
            check(
                pack(
                    config, pred, cls, priors, boxes, labels, gt_centers=centers, candidate_mask=mask, **more
                ),
                config,
            )


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_not_finite_takes_no_part_and_leaves_the_rest_alone(preset):
    config = SimOTAConfig.from_preset(preset)
    pred, cls, obj, *rest = random_inputs(300, [6, 3], 5)
    more = {"obj_logits": obj} if config.score == "joint" else {}
    clean, _ = check(pack(config, pred.clone(), cls.clone(), *rest, **more), config)
    generator = torch.Generator().manual_seed(1)
    for bad in (torch.nan, torch.inf, -torch.inf):
        for values in (pred, cls, *more.values()):
            values[torch.rand(values.shape, generator=generator) < 0.01] = bad
    pred[:, 7] = torch.tensor([-1e30, -1e30, 1e30, 1e30])
    cost, _ = check(pack(config, pred, cls, *rest, **more), config)
    same = (cost < torch.inf) & (cost == clean)
    assert same.sum() > 0.5 * (clean < torch.inf).sum()
    assert torch.equal(same, cost < torch.inf)


CONFIGS = [
    KernelConfig(rows=rows, prior_warps=warps, tile=tile, cost_warps=cost_warps, gts_per_program=gts)
    for rows, warps, tile, cost_warps, gts in (
        (16, 1, 64, 1, 1), (32, 1, 512, 4, 2), (64, 2, 256, 8, 3), (256, 4, 1024, 4, 64),
    )
]  # fmt: skip


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "rtmdet_mmyolo", "picodet_lightly"])
def test_launch_parameters_change_no_bit(preset):
    config = SimOTAConfig.from_preset(preset)
    pred, cls, obj, *rest = random_inputs(135, [4, 0, 2], 20)
    cls, obj = (as_maps(value, [(7, 15), (3, 10)]) for value in (cls, obj))
    problem = on_device(pack(config, pred, cls, *rest, obj_logits=obj if config.score == "joint" else None))
    expected = launch.run(problem, config, INTERPRETER, 4)
    for kernels in CONFIGS:
        assert all(map(torch.equal, launch.run(problem, config, kernels, 4), expected)), kernels


def test_every_element_is_written(monkeypatch):
    problem = on_device(random_problem(CONFIG, 333, [5, 0, 2], 3))
    expected = launch.run(problem, CONFIG, INTERPRETER, 5)
    empty = torch.empty
    for poison in (torch.nan, -torch.inf):
        monkeypatch.setattr(
            torch, "empty", lambda *args, value=poison, **kwargs: empty(*args, **kwargs).fill_(value)
        )
        assert all(map(torch.equal, launch.run(problem, CONFIG, INTERPRETER, 5), expected))


@pytest.mark.parametrize("num_classes", [1, 80, 1203])
def test_a_sum_of_class_costs_is_never_below_zero_nor_minus_zero(num_classes):
    for preset in ("rtmdet", "yolox"):
        config = SimOTAConfig.from_preset(preset, candidate="all")
        pred, cls, obj, *rest = random_inputs(60, [1], num_classes)
        cls[:] = torch.linspace(-120, 0, 60)[:, None] + torch.rand(
            cls.shape, generator=torch.Generator().manual_seed(1)
        )
        problem = on_device(
            pack(config, pred, cls, *rest, obj_logits=obj if config.score == "joint" else None)
        )
        background = launch.run_prior_pass(problem, INTERPRETER, launch.Shared.of(problem, config)).background
        assert (background < torch.inf).all()
        assert not background.signbit().any()


def test_the_rows_of_the_first_pass():
    config = SimOTAConfig.yolox(candidate="box")
    pred, cls, obj, *rest = random_inputs(150, [3, 0], 7)
    obj[0, 3], pred[1, 5, 0] = torch.nan, torch.inf
    problem = pack(config, pred, cls, *rest, obj_logits=obj, candidate_mask=torch.arange(150) != 40)
    moved = on_device(problem)
    shared = launch.Shared.of(moved, config)
    rows = launch.run_prior_pass(moved, INTERPRETER, shared)
    cost, _, _ = reference.cost_matrix(problem, config, torch.float64)
    candidate = (cost < torch.inf).any(1)
    scores = terms.class_scores(cls, obj, config).double()
    expected = torch.where(candidate, terms.background_cost(scores, config).sum(2), torch.inf)
    assert torch.equal(rows.background.cpu() == torch.inf, ~candidate)
    assert candidate.sum() > 20
    assert torch.allclose(rows.background.cpu().double(), expected, rtol=2e-6)
    assert torch.allclose(rows.objectness.cpu(), obj[..., 0].sigmoid(), rtol=1e-6, equal_nan=True)
    table = rows.gt_table.cpu()
    gts = problem.gts
    assert torch.equal(table[:, :4], gts.boxes)
    assert torch.equal(table[:, 4:6], gts.centers)
    assert torch.equal(table[:, 6], (gts.boxes[:, 2:] - gts.boxes[:, :2]).prod(1))
    assert torch.equal(table[:, 7].contiguous().view(torch.int32), gts.labels.int())


def levels_of(logits):
    pred, _, _, *rest = random_inputs(252, [1, 1], 4)
    return Logits.of(pack(CONFIG, pred, logits, *rest)).layout


def test_what_a_launch_may_assume_about_addresses():
    """A wrong promise would be a misaligned load on a GPU, which the interpreter cannot show."""
    flat = torch.zeros(2, 252, 8)
    found = {name: levels_of(view(flat)) for name, view in LAYOUTS.items()}
    assert {name: levels.layout for name, levels in found.items()} == {
        "contiguous": "classes",
        "gaps": "classes",
        "classes first": "priors",
        "images last": "any",
        "three maps": "priors",
        "odd maps": "priors",
        "eight maps": "priors",
        "channels last": "classes",
    }
    assert [name for name, levels in found.items() if not levels.aligned] == ["odd maps", "eight maps"]
    assert found["three maps"].starts == (0, 192, 240, 252)
    assert [name for name, levels in found.items() if not levels.aligned_logits] == [
        "gaps",
        "images last",
        "odd maps",
        "eight maps",
    ]
    assert not levels_of(torch.zeros(2, 252, 6)).aligned_logits
    for dtype, offset, expected in (
        (torch.float32, 2, False),
        (torch.float32, 4, True),
        (torch.float16, 4, True),
        (torch.float16, 2, False),
    ):
        moved = torch.zeros(2 * 252 * 8 + offset, dtype=dtype)[offset:].view(2, 252, 8)
        assert levels_of(moved).aligned_logits is expected


def test_whatever_is_compiled_in_is_in_the_key(monkeypatch):
    """Triton's key on disk holds the repr of a constexpr argument, and on earlier versions no global
    constant.
    """
    rule = Rule.of(CONFIG)
    # nothing is derived behind its back
    for kind in (Rule, AlignedRule):
        names = [name for name in dir(kind) if isinstance(getattr(kind, name), property)]
        assert names == ["value"]
        assert {field.name for field in dataclasses.fields(kind)} >= set(CompiledRule.__annotations__)
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        other = not value if isinstance(value, bool) else value + "!" if isinstance(value, str) else value + 1
        changed = dataclasses.replace(rule, **{field.name: other})
        assert repr(changed) != repr(rule)
        assert changed != rule
    kernels = (
        launch.prior_pass,
        launch.cost_pass,
        launch.rescue_pass,
        common.prepare,
        *(getattr(stream, name) for name in STREAM),
        *(getattr(stream.aligned, name) for name in ALIGNED),
    )
    assert all("RULE" in kernel.arg_names for kernel in kernels)
    names = [name for name, value in vars(constants).items() if isinstance(value, tl.constexpr)]
    assert len(names) > 20
    for name in names:
        with monkeypatch.context() as patch:
            patch.setattr(constants, name, tl.constexpr(getattr(constants, name).value * 2 + 1))
            assert repr(Rule.of.__wrapped__(Rule, CONFIG)) != repr(rule), name


def test_kernels_read_no_constant_that_is_not_in_the_key():
    folder = Path(constants.__file__).parent
    for file in [*folder.glob("*.py"), *folder.glob("stream/*.py")]:
        if file.name != "constants.py":
            assert not re.findall(r"^[A-Z_]+ = tl\.constexpr.*", file.read_text(), re.MULTILINE), file


def test_a_rule_is_told_apart_by_its_text_and_ignores_what_only_the_matching_reads():
    rules = {Rule.of(SimOTAConfig.from_preset(preset)) for preset in PRESETS}
    assert len({repr(rule) for rule in rules}) == len(rules)
    assert Rule.of(SimOTAConfig.rtmdet(candidate_topk=3, k_scale=2.0, conflict="max_iou")) == Rule.of(CONFIG)
    read = {"cls_classes": "gt", "k_pool": "all", "center_base": 2.0}
    for name, value in read.items():
        assert Rule.of(CONFIG.replace(**{name: value})) != Rule.of(CONFIG)


@triton.jit
def _offsets(
    out_ptr, base_ptr, levels, starts, strides_b, strides_p, strides_c, image, g, G, P, LAYOUT: tl.constexpr
):
    image = tl.full((), image, tl.int64)
    level, level_start, first, end = find_tile(2, starts, 16, False)
    pointer, stride_p, stride_c = find_logits(
        level, image, level_start, levels, strides_b, strides_p, strides_c, LAYOUT, False
    )
    p = first + tl.arange(0, 1)
    logits = pointer + p.to(tl.int64) * stride_p + tl.full((), 300, tl.int64) * stride_c
    one = tl.arange(0, 1)
    tl.store(out_ptr + one, (logits.to(tl.int64) - base_ptr.to(tl.int64)) // 4)
    tl.store(out_ptr + 1 + one, matrix_row(image, g, G, P) + one)
    tl.store(out_ptr + 2 + one, first + one)
    tl.store(out_ptr + 3 + one, end + one)


@pytest.mark.parametrize("layout", ["priors", "classes", "any"])
def test_offsets_beyond_32_bits(layout):
    out, base = torch.zeros(4, dtype=torch.int64, device=DEVICE), torch.zeros(4, device=DEVICE)
    stride_b, stride_p, stride_c = (
        3 * 2**31,
        1 if layout == "priors" else 2**27 + 1,
        1 if layout == "classes" else 2**25 + 3,
    )
    strides = {"strides_b": (7, stride_b), "strides_p": (7, stride_p), "strides_c": (7, stride_c)}
    with np.errstate(all="ignore"):
        _offsets[(1,)](
            out,
            base,
            (base, base),
            starts=codes((0, 30, 90)),
            image=50_000,
            g=4000,
            G=5000,
            P=33_600,
            LAYOUT=layout,
            **{name: codes(value) for name, value in strides.items()},
        )
    first = 30  # tiles 0 and 1 cover level 0
    logits = 50_000 * stride_b + (first - 30) * stride_p + 300 * stride_c
    assert out.tolist() == [logits, (50_000 * 5000 + 4000) * 33_600, first, 90]
