"""The dense definition, held against rules written down a second time."""

import pytest
import torch

from simota_triton import SimOTAConfig, reference
from simota_triton.matching import Matching
from simota_triton.verification.judge import judge
from simota_triton.verification.scenes import FAMILIES, make_scene
from tests.support.literal import RULES, Image, matched

INF = float("inf")
PER_FAMILY = 2
CASES = [
    (family, family_index + len(FAMILIES) * i)
    for family_index, family in enumerate(FAMILIES)
    for i in range(PER_FAMILY)
]


def literal(scene, preset):
    """Cost and IoU [P, G] of every image, with the rows of unreadable priors put back."""
    rule = RULES[preset]
    objectness = SimOTAConfig.from_preset(preset).score == "joint"
    p_cls, p_obj = scene.cls_logits.float().sigmoid(), scene.obj_logits.float().sigmoid()
    for b, boxes in enumerate(scene.gt_boxes):
        pred = scene.pred_boxes[b].float()
        with_area = (pred[:, 2:] - pred[:, :2]).clamp(min=0).prod(1)
        readable = pred.isfinite().all(1) & with_area.isfinite()
        if preset not in ("seed", "rtmdet_mmyolo"):
            readable &= scene.cls_logits[b].isfinite().all(1)
        if objectness:
            readable &= scene.obj_logits[b, :, 0].isfinite()
        if scene.candidate_mask is not None:
            readable &= scene.candidate_mask.expand(len(scene.gt_boxes), -1)[b]
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2 if scene.gt_centers is None else scene.gt_centers[b]
        image = Image(
            pred[readable].double(),
            scene.cls_logits[b][readable].float(),
            p_cls[b][readable],
            p_obj[b][readable],
            scene.priors[readable],
            boxes,
            scene.gt_labels[b],
            centers,
        )
        cost, iou = (
            torch.full((len(pred), len(boxes)), INF, dtype=torch.float64),
            torch.zeros(len(pred), len(boxes), dtype=torch.float64),
        )
        cost[readable], iou[readable] = rule.costs(image)
        yield cost, iou


def as_matching(answers, iou):
    """The answers of literal.matched, as a backend returns them."""
    index, k, claims = zip(*answers, strict=True)
    gt_index = torch.tensor(index).view(len(index), -1)
    matched_iou = (
        iou.gather(1, gt_index.clamp(min=0)[:, None])[:, 0].clamp(min=0)
        if iou.numel()
        else torch.zeros(gt_index.shape)
    )
    matched_iou = torch.where(gt_index >= 0, matched_iou, 0.0).float()
    k = torch.tensor([v for image in k for v in image], dtype=torch.int64)
    return Matching(gt_index, matched_iou, k, torch.tensor(claims, dtype=torch.int32).view(gt_index.shape))


def test_there_is_a_second_opinion_on_every_preset():
    assert set(RULES) == set(SimOTAConfig.presets())


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
def test_costs_and_answers_are_those_of_the_literal_rule(preset):
    config, rule = SimOTAConfig.from_preset(preset), RULES[preset]
    positives = excused = 0
    for family, seed in CASES:
        scene = make_scene(seed)
        assert scene.family == family
        problem = scene.problem(config)
        cost, iou, _ = reference.cost_matrix(problem, config, torch.float64)
        wide = reference.assign(problem, config, dtype=torch.float64)
        k = wide.dynamic_k.split([len(boxes) for boxes in scene.gt_boxes])
        answers = []
        for b, (literal_cost, literal_iou) in enumerate(literal(scene, preset)):
            own_cost, own_iou = (
                cost[b, : literal_cost.shape[1]].T,
                iou[b, : literal_cost.shape[1]].T.clamp(min=0),
            )
            torch.testing.assert_close(
                own_cost, literal_cost, rtol=1e-11, atol=1e-11, msg=lambda m, s=seed: f"{s}: {m}"
            )
            torch.testing.assert_close(own_iou, literal_iou, rtol=1e-12, atol=1e-14)
            answer = (wide.gt_index[b].tolist(), k[b].tolist(), wide.claims[b].tolist())
            assert matched(own_cost, own_iou, rule) == answer, (family, seed, b)
            answers.append(matched(literal_cost, literal_iou, rule))
        verdict = judge(as_matching(answers, iou), problem, config)
        assert not verdict.unexplained, (family, seed)
        positives, excused = positives + verdict.positives, excused + verdict.excused
    assert positives > 300
    # ties in exact arithmetic, such as one box with two labels and no overlap
    assert excused <= positives / 100


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
def test_float32_gives_the_answers_of_float64(preset):
    config = SimOTAConfig.from_preset(preset)
    for family, seed in CASES:
        problem = make_scene(seed).problem(config)
        assert not judge(reference.assign(problem, config), problem, config).unexplained, (family, seed)
