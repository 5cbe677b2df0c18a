"""The judge must let right answers pass and must not let wrong ones pass: answers corrupted on purpose."""

from dataclasses import replace

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig, reference
from simota_triton.inputs import pack
from simota_triton.problem import Scores
from simota_triton.verification.judge import judge
from simota_triton.verification.judge.simota import cost_intervals
from simota_triton.verification.scenes import make_scene

SEEDS = (0, 1, 5, 13, 17, 22)
"""Scenes with several gts, positives and padding, without exact ties."""

PRESETS = ("rtmdet", "yolox", "seed", "super_gradients_fast", "picodet")


def corrupted(change, preset, seed, form="padded"):
    """The verdict on a right answer of which ``change``, given the answer, replaced the fields it returns."""
    assigner = SimOTAAssigner(preset, backend="reference")
    scene = make_scene(seed)
    problem = scene.problem(assigner.config, form)
    result = scene.call(assigner, form)
    assert not judge(result, problem, assigner.config).unexplained
    return judge(replace(result, **change(result)), problem, assigner.config)


def a_positive(result, claims=1):
    """Image and prior of a positive with so many claims."""
    found = ((result.gt_index >= 0) & (result.claims == claims)).nonzero()
    return found[len(found) // 2].tolist()


def edited(values, place, value):
    values = values.clone()
    values[tuple(place)] = value
    return values


def swap_two_gts(result):
    b = a_positive(result)[0]
    first, second = result.gt_index[b][result.gt_index[b] >= 0].unique()[:2].tolist()
    row = result.gt_index[b]
    swapped = torch.where(row == first, second, torch.where(row == second, first, row))
    return {"gt_index": edited(result.gt_index, [b], swapped)}


def drop_a_positive(result):
    place = a_positive(result)
    return {
        "gt_index": edited(result.gt_index, place, -1),
        "labels": edited(result.labels, place, result.num_classes),
        "matched_iou": edited(result.matched_iou, place, 0.0),
        "claims": edited(result.claims, place, 0),
    }


def one_more_k(result):
    return {"dynamic_k": result.dynamic_k + (result.dynamic_k > 0)}


def one_k_less(result):
    return {
        "dynamic_k": edited(
            result.dynamic_k, (result.dynamic_k == result.dynamic_k.max()).nonzero()[0].tolist(), 0
        )
    }


def steal_a_prior(result):
    place = a_positive(result)
    real = (result.dynamic_k[place[0]] > 0).nonzero().flatten().tolist()
    return {
        "gt_index": edited(
            result.gt_index, place, next(g for g in real if g != result.gt_index[tuple(place)])
        )
    }


def an_extra_positive(result):
    b = a_positive(result)[0]
    p = int((result.gt_index[b] < 0).nonzero()[0])
    return {"gt_index": edited(result.gt_index, (b, p), 0), "claims": edited(result.claims, (b, p), 1)}


def a_wrong_label(result):
    place = a_positive(result)
    return {
        "labels": edited(
            result.labels, place, (int(result.labels[tuple(place)]) + 1) % (result.num_classes + 1)
        )
    }


def a_labelled_background(result):
    place = (result.gt_index < 0).nonzero()[0].tolist()
    return {"labels": edited(result.labels, place, 0)}


def a_wrong_iou(result):
    place = a_positive(result)
    return {"matched_iou": edited(result.matched_iou, place, float(result.matched_iou[tuple(place)]) + 3e-6)}


def a_nan_iou(result):
    return {"matched_iou": edited(result.matched_iou, a_positive(result), float("nan"))}


def a_claim_too_many(result):
    return {"claims": edited(result.claims, a_positive(result), 2)}


def a_lost_claim(result):
    return {"claims": edited(result.claims, a_positive(result), 0)}


def a_gt_out_of_range(result):
    return {"gt_index": edited(result.gt_index, a_positive(result), result.dynamic_k.shape[1])}


def padding_that_asks(result):
    return {"dynamic_k": edited(result.dynamic_k, (result.dynamic_k == 0).nonzero()[0].tolist(), 1)}


CHANGES = (
    swap_two_gts,
    drop_a_positive,
    one_more_k,
    one_k_less,
    steal_a_prior,
    an_extra_positive,
    a_wrong_label,
    a_labelled_background,
    a_wrong_iou,
    a_nan_iou,
    a_claim_too_many,
    a_lost_claim,
    a_gt_out_of_range,
)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_corrupted_answer_is_unexplained(change, preset):
    for seed in SEEDS:
        assert corrupted(change, preset, seed).unexplained, seed


def test_padding_that_asks_for_priors_is_unexplained():
    assert corrupted(padding_that_asks, "rtmdet", 22).unexplained == [
        "dynamic_k: padding, or a row that no image owns, asks for priors"
    ]


@pytest.mark.parametrize(
    ("preset", "wrong"),
    [
        ("rtmdet", {"iou_weight": 2.9}),
        ("rtmdet", {"candidate_topk": 12}),
        ("rtmdet", {"center_offset": 2.9}),
        ("rtmdet", {"union_rule": "add", "union_eps": 1.0}),
        ("rtmdet", {"conflict": "matched"}),
        ("rtmdet_mmyolo", {"k_pool": "candidates"}),
        ("nanodet", {"cls_classes": "gt"}),
        ("nanodet", {"cls_cost": "bce"}),
        ("yolox", {"center_radius": 2.4}),
        ("yolox", {"penalty": 1e6}),
        ("yolox", {"own_pairs_only": True}),
        ("super_gradients_fast", {"k_scale": 1.0}),
        ("picodet", {"iou_cost": "log"}),
        ("seed", {"conflict": "all"}),
    ],
)  # fmt: skip
def test_the_answers_of_another_configuration_are_unexplained(preset, wrong):
    config = SimOTAConfig.from_preset(preset)
    found = 0
    for seed in range(48):
        problem = make_scene(seed).problem(config)
        found += bool(judge(reference.assign(problem, config.replace(**wrong)), problem, config).unexplained)
    assert found > 1


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
def test_intervals_hold_the_float32_costs_and_are_narrow(preset):
    config = SimOTAConfig.from_preset(preset)
    widths = []
    for seed in range(24):
        problem = make_scene(seed).problem(config)
        wide, _, _ = reference.cost_matrix(problem, config, torch.float64)
        narrow, _, _ = reference.cost_matrix(problem, config, torch.float32)
        if wide.numel() == 0:
            continue
        low, high, _ = cost_intervals(problem, config, wide)
        finite = wide < torch.inf
        narrow = narrow.double()[finite]
        assert bool(((low[finite] <= narrow) & (narrow <= high[finite])).all()), seed
        plain = wide[finite] < 1e4
        if float(problem.cls_logits.dense().abs().max()) > 12:
            continue  # a float32 probability that near 1 tells little of its logarithm
        widths.append(((high - low)[finite] / wide[finite].clamp(min=1))[plain])
    assert float(torch.cat(widths).median()) < 1e-4


def test_costs_below_the_range_of_float32_may_come_in_either_order():
    """They are 0 in float32, and apart in float64: costs of sigmoids near 0, with the class term alone."""
    problem, config = make_scene(1).problem(SimOTAConfig.picodet()), SimOTAConfig.picodet(iou_weight=0.0)
    logits = problem.cls_logits.dense() * 0.5 - 80.0
    problem = replace(problem, cls_logits=Scores((logits,)))
    wide, _, _ = reference.cost_matrix(problem, config, torch.float64)
    found = reference.assign(problem, config)
    assert 0 < float(wide[wide < torch.inf].min()) < 1e-60
    assert not torch.equal(found.gt_index, reference.assign(problem, config, dtype=torch.float64).gt_index)
    assert not judge(found, problem, config).unexplained


def test_a_wrong_shape_is_unexplained():
    config = SimOTAConfig.rtmdet()
    problem = make_scene(0).problem(config)
    matching = reference.assign(problem, config)
    assert judge(matching._replace(gt_index=matching.gt_index[:, 1:]), problem, config).unexplained


def test_a_sum_of_ious_at_an_integer_may_go_either_way_and_no_further():
    config = SimOTAConfig.rtmdet()
    priors = torch.tensor([[8.0, 8.0, 8.0, 8.0], [24.0, 24.0, 8.0, 8.0], [32.0, 32.0, 8.0, 8.0]])
    gt = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    pred = gt.repeat(3, 1)[None].clone()
    pred[0, 2, 2] = 1e-4  # IoUs 1, 1 and 1.6e-6
    problem = pack(config, pred, torch.zeros(1, 3, 1), priors, [gt], [torch.tensor([0])])
    right = reference.assign(problem, config)
    assert (right.dynamic_k.tolist(), right.gt_index.tolist()) == ([2], [[0, 0, -1]])
    assert judge(right, problem, config) == ([], 0, 2)
    fewer = right._replace(
        dynamic_k=torch.tensor([1]),
        gt_index=torch.tensor([[-1, 0, -1]]),
        matched_iou=torch.tensor([[0.0, 1.0, 0.0]]),
        claims=torch.tensor([[0, 1, 0]]),
    )
    assert judge(fewer, problem, config) == ([], 1, 2)
    more = right._replace(
        dynamic_k=torch.tensor([3]),
        gt_index=torch.tensor([[0, 0, 0]]),
        matched_iou=torch.tensor([[1.0, 1.0, 1.6e-6]]),
        claims=torch.tensor([[1, 1, 1]]),
    )
    assert judge(more, problem, config).unexplained == [
        "dynamic_k: image 0, gt 0: 3 with a sum of IoUs of 2.0000016"
    ]


# min_positives


def short_of_priors(preset="rtmdet", least=2):
    """Problems in which some gts lose all of their priors, and right answers."""
    config = SimOTAConfig.from_preset(preset, min_positives=least)
    for seed in range(12):
        scene = make_scene(seed, "crowded" if seed % 2 else "duplicates")
        problem = scene.problem(config)
        yield config, problem, reference.assign(problem, config)


@pytest.mark.parametrize("preset", ["rtmdet", "super_gradients_fast", "seed"])
def test_what_min_positives_gives_is_explained_and_other_numbers_of_it_are_not(preset):
    noticed = cases = 0
    for config, problem, right in short_of_priors(preset):
        assert judge(right, problem, config).unexplained == []
        for other in (0, 3):
            wrong = reference.assign(problem, config.replace(min_positives=other))
            if not torch.equal(wrong.gt_index, right.gt_index):
                cases += 1
                noticed += bool(judge(wrong, problem, config).unexplained)
    assert cases > 12
    assert noticed > 0.9 * cases  # twins may have had the priors from the start


def gained(config, problem, right):
    """Image and prior of those that ``min_positives`` moved."""
    before = reference.assign(problem, config.replace(min_positives=0))
    return (before.gt_index != right.gt_index).nonzero().tolist(), before


def test_a_gt_that_takes_another_prior_than_its_cheapest_is_unexplained():
    noticed = 0
    for config, problem, right in short_of_priors():
        cost, all_iou, _ = reference.cost_matrix(problem, config)
        moved, before = gained(config, problem, right)
        for b, p in moved:
            gt = int(right.gt_index[b, p])
            free = (right.gt_index[b] < 0) & (cost[b, gt] < torch.inf)
            free[p] = False
            if before.gt_index[b, p] >= 0 or not free.any():
                continue
            other = int(torch.where(free, cost[b, gt], -torch.inf).argmax())  # the dearest
            if float(cost[b, gt, other]) < 1.1 * float(cost[b, gt, p]):
                continue
            index, iou = right.gt_index.clone(), right.matched_iou.clone()
            index[b, p], index[b, other] = -1, gt
            iou[b, p], iou[b, other] = 0.0, all_iou[b, gt, other]
            noticed += 1
            lines = judge(right._replace(gt_index=index, matched_iou=iou), problem, config).unexplained
            assert (
                lines[0] == f"image {b}: no order of its costs leads to these positives by min_positives = 2"
            )
    assert noticed > 3


def test_a_prior_taken_from_a_gt_that_has_none_to_spare_is_unexplained():
    """Three gts want the same two priors; the last has none, and may not take one."""
    config = SimOTAConfig.rtmdet(min_positives=1)
    priors = torch.tensor([[8.0, 8.0, 8.0, 8.0], [24.0, 24.0, 8.0, 8.0]])
    gts = torch.tensor([[0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 31.0, 32.0], [0.0, 0.0, 32.0, 30.0]])
    pred = gts[[0, 0]][None]
    problem = pack(config, pred, torch.zeros(1, 2, 1), priors, [gts], [torch.zeros(3, dtype=torch.int64)])
    right = reference.assign(problem, config)
    assert right.gt_index.tolist() == [[1, 0]]
    assert judge(right, problem, config) == ([], 0, 2)
    stolen = right._replace(gt_index=torch.tensor([[2, 0]]), matched_iou=torch.tensor([[30 / 32, 1.0]]))
    assert judge(stolen, problem, config).unexplained
    stolen = right._replace(gt_index=torch.tensor([[1, 2]]), matched_iou=torch.tensor([[31 / 32, 30 / 32]]))
    assert judge(stolen, problem, config).unexplained


def test_of_two_priors_that_cost_the_same_a_gt_may_take_either():
    """The small gt's centre lies between two priors whose predictions are the same."""
    config = SimOTAConfig.rtmdet(min_positives=1)
    priors = torch.tensor([[12.0, 16.0, 8.0, 8.0], [20.0, 16.0, 8.0, 8.0], [28.0, 16.0, 8.0, 8.0]])
    gts = torch.tensor([[0.0, 0.0, 32.0, 32.0], [10.0, 10.0, 22.0, 22.0]])
    problem = pack(
        config,
        gts[:1].repeat(3, 1)[None],
        torch.zeros(1, 3, 1),
        priors,
        [gts],
        [torch.zeros(2, dtype=torch.int64)],
    )
    right = reference.assign(problem, config)
    assert right.gt_index.tolist() == [[1, 0, 0]]
    index, iou = right.gt_index, right.matched_iou
    either = right._replace(gt_index=index[:, [1, 0, 2]], matched_iou=iou[:, [1, 0, 2]])
    assert judge(either, problem, config) == ([], 2, 3)
    dearer = right._replace(gt_index=index[:, [1, 2, 0]], matched_iou=iou[:, [1, 2, 0]])
    assert judge(dearer, problem, config).unexplained
