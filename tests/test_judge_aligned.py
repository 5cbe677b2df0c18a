"""The judge of the task-aligned rule lets right answers pass and does not let wrong ones pass."""

import pytest
import torch

from simota_triton import TaskAlignedConfig
from simota_triton.inputs import pack
from simota_triton.task_aligned import reference
from simota_triton.verification.judge import judge
from simota_triton.verification.judge.aligned import metric_intervals
from simota_triton.verification.scenes import make_scene

SEEDS = (0, 1, 5, 17, 22)
"""Scenes with several gts and positives, without exact ties."""

PLANTED = ("tal", "tal_o2o", "yolov6", "tood", "yolo9_mit", "tal_obb")


def problem_of(seed, config, form="list"):
    """A scene, in boxes of the configuration's format."""
    scene = make_scene(seed)
    if config.boxes == "rotated":
        scene.turn()
    return scene.problem(config, form)


def edited(values, place, value):
    values = values.clone()
    values[tuple(place)] = value
    return values


def a_positive(right):
    """Image and prior of a positive that one gt selected and that is not the only one of its gt's."""
    found = ((right.gt_index >= 0) & (right.claims == 1)).nonzero()
    return found[len(found) // 2].tolist()


def drop_a_positive(right):
    place = a_positive(right)
    return {
        "gt_index": edited(right.gt_index, place, -1), "claims": edited(right.claims, place, 0),
        "matched_iou": edited(right.matched_iou, place, 0.0), "scores": edited(right.scores, place, 0.0),
    }  # fmt: skip


def keep_the_claim_alone(right):
    place = a_positive(right)
    return {**drop_a_positive(right), "claims": edited(right.claims, place, 1)}


def an_extra_positive(right):
    b, _ = a_positive(right)
    p = int(((right.gt_index[b] < 0) & (right.claims[b] == 0)).nonzero()[0])
    return {"gt_index": edited(right.gt_index, (b, p), 0), "claims": edited(right.claims, (b, p), 1)}


def a_gt_out_of_range(right):
    return {"gt_index": edited(right.gt_index, a_positive(right), right.dynamic_k.numel())}


def another_k(right):
    return {"dynamic_k": right.dynamic_k + (right.dynamic_k > 0)}


def padding_asks_for_priors(right):
    assert (right.dynamic_k == 0).any()
    return {"dynamic_k": torch.full_like(right.dynamic_k, int(right.dynamic_k.max()))}


def a_claim_too_many(right):
    return {"claims": edited(right.claims, a_positive(right), 2)}


def a_lost_claim(right):
    return {"claims": edited(right.claims, a_positive(right), 0)}


def a_wrong_overlap(right):
    place = a_positive(right)
    return {"matched_iou": edited(right.matched_iou, place, float(right.matched_iou[tuple(place)]) + 1e-4)}


def an_overlap_that_is_no_number(right):
    return {"matched_iou": edited(right.matched_iou, a_positive(right), float("nan"))}


def a_score_that_is_no_number(right):
    return {"scores": edited(right.scores, a_positive(right), float("nan"))}


def a_score_of_background(right):
    return {"scores": edited(right.scores, (right.gt_index < 0).nonzero()[0].tolist(), 1e-6)}


def scores_a_thousandth_too_high(right):
    return {"scores": right.scores * 1.001}


def all_to_another_gt(right):
    b, _ = a_positive(right)
    first, second = right.gt_index[b][right.gt_index[b] >= 0].unique()[:2].tolist()
    row = right.gt_index[b]
    swapped = torch.where(row == first, second, torch.where(row == second, first, row))
    return {"gt_index": edited(right.gt_index, [b], swapped)}


@pytest.mark.parametrize("preset", PLANTED)
@pytest.mark.parametrize(
    "change",
    [
        drop_a_positive, keep_the_claim_alone, an_extra_positive, a_gt_out_of_range, another_k,
        padding_asks_for_priors, a_claim_too_many, a_lost_claim, a_wrong_overlap,
        an_overlap_that_is_no_number, a_score_that_is_no_number, a_score_of_background,
        scores_a_thousandth_too_high, all_to_another_gt,
    ],
)  # fmt: skip
def test_a_planted_mistake_is_unexplained(preset, change):
    config, noticed = TaskAlignedConfig.from_preset(preset), []
    for seed in SEEDS:
        problem = problem_of(seed, config, "padded")
        right = reference.assign(problem, config)
        assert not judge(right, problem, config).unexplained
        try:
            wrong = change(right)
        except (AssertionError, IndexError, ValueError):  # the scene has nothing to plant it in
            continue
        noticed.append(bool(judge(right._replace(**wrong), problem, config).unexplained))
    assert len(noticed) > 1
    assert all(noticed)


@pytest.mark.parametrize(
    ("preset", "wrong"),
    [
        ("tal", {"topk": 9}),
        ("tal", {"topk": 11}),
        ("tal", {"alpha": 0.51}),
        ("tal", {"beta": 5.9}),
        ("tal", {"overlap": "iou"}),
        ("tal", {"min_side_below": 0.0}),
        ("tal", {"inclusive": True}),
        ("tal", {"margin": 1.0}),
        ("tal", {"conflict": "all"}),
        ("tal", {"conflict": "matched"}),
        ("tal", {"norm_eps": 1e-3}),
        ("tal", {"at_least_one": True}),
        ("tal_o2o", {"topk2": 2}),
        ("tal_o2o", {"topk2": None}),
        ("yolov6", {"conflict": "inside"}),
        ("yolov6", {"conflict": "matched"}),
        ("yolov6", {"union_eps": 1.0}),
        ("tood", {"pool": "inside"}),
        ("tood", {"margin": 0.5}),
        ("yolo9_mit", {"at_least_one": False}),
        ("yolo9_mit", {"max_reach": 2.0}),
        ("tal_obb", {"topk": 9}),
        ("tal_obb", {"beta": 5.9}),
        ("tal_obb", {"union_eps": 1e-3}),
        ("tal_obb", {"min_side_below": 0.0}),
        ("tal_obb", {"margin": 0.5}),
        ("tal_obb", {"conflict": "matched"}),
        ("tal_obb", {"conflict": "all"}),
    ],
)  # fmt: skip
def test_the_answers_of_another_configuration_are_unexplained(preset, wrong):
    config = TaskAlignedConfig.from_preset(preset)
    found = 0
    for seed in range(48):
        problem = problem_of(seed, config)
        found += bool(judge(reference.assign(problem, config.replace(**wrong)), problem, config).unexplained)
    assert found > 1


@pytest.mark.parametrize("preset", TaskAlignedConfig.presets())
def test_intervals_hold_the_float32_metrics_and_are_narrow(preset):
    config = TaskAlignedConfig.from_preset(preset)
    widths = []
    for seed in range(24):
        problem = problem_of(seed, config)
        wide, overlap, _, _ = reference.metric_matrix(problem, config, torch.float64)
        narrow, narrow_overlap, _, _ = reference.metric_matrix(problem, config)
        if not wide.numel():
            continue
        low, high, overlap_low, overlap_high = metric_intervals(problem, config, overlap)
        assert bool(((low <= narrow) & (narrow <= high)).all()), seed
        assert bool(((overlap_low <= narrow_overlap) & (narrow_overlap <= overlap_high)).all()), seed
        well = overlap > 0.3
        widths.append(((high - low) / wide)[well & (wide > 0)])
    assert float(torch.cat(widths).median()) < 2e-4


def two_gts(config, overlaps):
    """A prior inside two gts that each select it, with these IoUs of its prediction."""
    sides = [64.0 * overlap for overlap in overlaps]
    gts = torch.tensor([[0.0, 0.0, side, 64.0] for side in sides])
    pred = torch.tensor([[[0.0, 0.0, 64.0, 64.0]]])
    labels = [torch.zeros(2, dtype=torch.int64)]
    return pack(config, pred, torch.zeros(1, 1, 1), torch.tensor([[8.0, 8.0]]), [gts], labels)


@pytest.mark.parametrize(("other", "excused"), [(0.75 + 2**-23, True), (0.75 + 1e-5, False)])
def test_a_conflict_of_overlaps_that_float32_cannot_tell_apart_may_go_either_way(other, excused):
    config = TaskAlignedConfig.yolov6()
    problem = two_gts(config, (0.75, other))
    right = reference.assign(problem, config, dtype=torch.float64)
    assert (right.gt_index.tolist(), right.claims.tolist()) == ([[1]], [[2]])
    swapped = right._replace(
        gt_index=torch.tensor([[0]]), matched_iou=torch.tensor([[0.75]]), scores=torch.tensor([[0.75]])
    )
    verdict = judge(swapped, problem, config)
    assert (verdict.excused == 1, verdict.unexplained == []) == (excused, excused)


@pytest.mark.parametrize(("x", "either"), [(20.0, True), (20.0 + 1e-4, False)])
def test_a_prior_on_the_edge_of_a_rotated_box_may_lie_on_either_side(x, either):
    config = TaskAlignedConfig.tal_obb()
    half = 20.0 * 2**-0.5  # the middle of the box's right edge lies at 45 degrees
    point = torch.tensor([[half * x / 20, half * x / 20]])
    gt = torch.tensor([[0.0, 0.0, 40.0, 20.0, torch.pi / 4]])
    inputs = gt[None], torch.zeros(1, 1, 1), point, [gt], [torch.zeros(1, dtype=torch.int64)]
    problem = pack(config, *inputs)
    answers = [reference.assign(problem, config.replace(margin=margin)) for margin in (0.0, 1.0)]
    inner = reference.assign(pack(config, *inputs[:2], point * 0.5, *inputs[3:]), config)
    assert [int(answer.gt_index) for answer in (answers[1], inner)] == [-1, 0]
    assert not judge(answers[0], problem, config).unexplained
    assert not judge(answers[1], problem, config).unexplained
    assert (judge(inner, problem, config).unexplained == []) == either
