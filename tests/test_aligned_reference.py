"""The task-aligned rule, held against rules written down a second time, and where it departs from the
originals on purpose.
"""

from dataclasses import replace

import pytest
import torch

from simota_triton import TaskAlignedAssigner, TaskAlignedConfig
from simota_triton.matching import Matching
from simota_triton.task_aligned import reference
from simota_triton.verification.judge import judge
from simota_triton.verification.scenes import ALIGNED_FAMILIES, make_scene
from tests.support.literal_aligned import ALIGNED_RULES, assign

backends = pytest.mark.parametrize("backend", ["reference", "torch"])


def literal(scene, preset):
    """The answer of the second writing for a scene with gts as lists."""
    answers = []
    for b, boxes in enumerate(scene.gt_boxes):
        pred, logits = scene.pred_boxes[b].float(), scene.cls_logits[b].float()
        size = pred[:, 2:4] if ALIGNED_RULES[preset].rotated else pred[:, 2:] - pred[:, :2]
        area = size.clamp(min=0).prod(1)
        usable = pred.isfinite().all(1) & area.isfinite()
        if scene.candidate_mask is not None:
            usable &= scene.candidate_mask.expand(len(scene.gt_boxes), -1)[b]
        scores = torch.where(logits.isfinite(), logits.neg().exp().add(1).reciprocal(), torch.nan)
        rule = ALIGNED_RULES[preset]
        answers.append(assign(rule, scene.priors, pred, scores, boxes, scene.gt_labels[b], usable))
    shape = len(answers), len(scene.priors)
    kinds = (torch.int64, torch.int32, torch.float64, torch.float64)
    gt, claims, overlap, score = (
        torch.tensor(values, dtype=dtype).view(shape)
        for values, dtype in zip(zip(*answers, strict=True), kinds, strict=True)
    )
    asked = [torch.full((len(boxes),), ALIGNED_RULES[preset].topk) for boxes in scene.gt_boxes]
    return Matching(gt_index=gt, matched_iou=overlap, dynamic_k=torch.cat(asked), claims=claims, scores=score)


@pytest.mark.parametrize("preset", TaskAlignedConfig.presets())
def test_the_definition_is_what_a_second_writing_of_the_rule_gives(preset):
    config, priors, different = TaskAlignedConfig.from_preset(preset), 0, 0
    for seed, family in enumerate(ALIGNED_FAMILIES):
        scene = make_scene(seed, family)
        if sum(map(len, scene.gt_boxes)) * len(scene.priors) > 4_000:  # loops are slow
            scene.gt_boxes = [boxes[:5] for boxes in scene.gt_boxes]
            scene.gt_labels = [labels[:5] for labels in scene.gt_labels]
        scene.gt_centers = None
        if config.boxes == "rotated":
            scene.turn()
        problem, expected = scene.problem(config), literal(scene, preset)
        found = reference.assign(problem, config, dtype=torch.float64)
        assert not judge(expected, problem, config).unexplained, family
        priors += int((found.gt_index >= 0).sum())
        same = found.gt_index == expected.gt_index
        different += int((~same).sum())
        if bool(same.all()):
            torch.testing.assert_close(found.scores.double(), expected.scores, rtol=1e-5, atol=1e-9)
    assert priors > 150
    assert different <= priors / 200  # equal metrics and overlaps, which float64 rounds in two ways


def test_every_preset_is_written_down_twice():
    assert set(ALIGNED_RULES) == set(TaskAlignedConfig.presets())


GT = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
POINTS = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0], [28.0, 4.0], [60.0, 60.0]])


def call(preset, pred, gts=GT, points=POINTS, logits=None, backend="reference", **given):
    """The result for one image; ``pred`` [P, 4], gts of class 0."""
    logits = torch.zeros(1, len(points), 2) if logits is None else logits
    assigner = TaskAlignedAssigner(preset, backend=backend)
    boxes = gts if gts.ndim == 3 else [gts]
    labels = (
        torch.zeros(gts.shape[:2], dtype=torch.int64) if gts.ndim == 3 else [torch.zeros(len(gts)).long()]
    )
    return assigner(pred[None], logits, points, boxes, labels, **given)


@backends
def test_a_metric_of_zero_is_never_selected(backend):
    """The originals fill up their topk with priors of metric 0 inside the gt."""
    pred = GT.repeat(5, 1)
    pred[1:] += 100.0
    result = call("tal", pred, backend=backend)
    assert result.gt_index.tolist() == [[0, -1, -1, -1, -1]]
    assert result.claims.tolist() == [[1, 0, 0, 0, 0]]


@backends
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("what", ["pred_boxes", "cls_logits"])
@pytest.mark.parametrize("preset", ["tal", "tal_o2o", "yolov6", "tood", "yolo9_mit"])
def test_a_prediction_that_is_no_number_spoils_one_prior(backend, value, what, preset):
    """It makes the targets of a whole image NaN in the originals."""
    scene = replace(make_scene(1), gt_centers=None, candidate_mask=None)
    assigner = TaskAlignedAssigner(preset, backend=backend)
    b, p = (scene.call(assigner).claims[:1] > 0).nonzero()[0].tolist()
    mask = torch.ones(scene.pred_boxes.shape[:2], dtype=torch.bool)
    mask[b, p] = False
    expected = scene.call(assigner, candidate_mask=mask)
    getattr(scene, what if what == "pred_boxes" else "cls_logits")[b, p] = value
    result = scene.call(assigner)
    assert result.scores.isfinite().all()
    for name in ("gt_index", "claims", "matched_iou", "scores"):
        assert torch.equal(getattr(result, name), getattr(expected, name)), name


@backends
def test_fewer_priors_than_topk_are_all_that_a_gt_selects(backend):
    result = call("tal", GT.repeat(2, 1), points=POINTS[:2], backend=backend)
    assert (result.gt_index.tolist(), result.dynamic_k.tolist()) == ([[0, 0]], [10])


@backends
def test_a_gt_is_what_the_caller_says_whatever_its_coordinates_sum_up_to(backend):
    """Heads of Ultralytics take a gt whose coordinates sum up to 0 or less for padding."""
    gt = GT - 40.0
    result = call("tal", gt.repeat(5, 1), gt, POINTS - 40.0, backend=backend)
    assert result.gt_index.tolist() == [[0, 0, 0, 0, -1]]


@backends
@pytest.mark.parametrize("preset", ["tal", "yolov6", "tood"])
def test_padding_wins_no_conflict(backend, preset):
    """The padding has the prediction's own box, and its overlap would be the largest."""
    gts = torch.tensor([[[0.0, 0.0, 32.0, 30.0], [0.0, 0.0, 32.0, 28.0], [0.0, 0.0, 32.0, 32.0]]])
    mask = torch.tensor([[True, True, False]])
    result = call(preset, GT.repeat(5, 1), gts, gt_mask=mask, backend=backend)
    assert result.gt_index.tolist() == [[0, 0, 0, 0, -1]]
    assert result.dynamic_k[0].tolist()[2] == 0
    assert result.claims.tolist() == [[2, 2, 2, 2, 0]]


@backends
@pytest.mark.parametrize("preset", ["tal", "yolov6", "tood"])
def test_of_equals_the_lowest_prior_and_then_the_lowest_gt(backend, preset):
    config = TaskAlignedConfig.from_preset(preset, topk=2)
    result = call(config, GT.repeat(5, 1), GT.repeat(3, 1), backend=backend)
    assert result.gt_index.tolist() == [[0, 0, -1, -1, -1]]
    assert result.claims.tolist() == [[3, 3, 0, 0, 0]]


@backends
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_are_float32_whatever_the_logits_are(backend, dtype):
    logits = torch.tensor([[[1.5, 0.0], [1.25, 0.0], [-2.0, 0.0], [0.5, 0.0], [0.0, 0.0]]])
    plain = call("tal", GT.repeat(5, 1), logits=logits, backend=backend)
    half = call("tal", GT.repeat(5, 1), logits=logits.to(dtype), backend=backend)
    assert torch.equal(plain.scores, half.scores)
    assert torch.equal(plain.gt_index, half.gt_index)


@backends
@pytest.mark.parametrize(
    ("preset", "side", "reach"),
    [
        ("tal", 15.99, 8.0), ("tal", 16.0, 8.0), ("tal", 7.99, 8.0), ("tal", 20.0, 10.0),
        ("tal_840", 7.99, 8.0), ("tal_840", 8.0, 4.0), ("tal_840", 15.99, 7.995),
        ("tal_v8", 7.99, 3.995), ("luxonis", 7.99, 8.0), ("luxonis", 8.0, 4.0),
    ],
)  # fmt: skip
def test_short_sides_are_enlarged_for_the_region_alone(backend, preset, side, reach):
    """Priors around the gt's centre, 0, at the region's edge and an ulp or so to either side of it."""
    gt = torch.tensor([[-side / 2, -32.0, side / 2, 32.0]])
    points = torch.tensor([[reach * (1 - 1e-5), 0.0], [reach * (1 + 1e-5), 0.0]])
    result = call(preset, gt.repeat(2, 1), gt, points, backend=backend)
    assert result.gt_index.tolist() == [[0, -1]]
    assert result.matched_iou[0, 0] > 0.999  # of the true box


@backends
def test_sides_that_are_long_enough_keep_their_exact_edges(backend):
    low, high = torch.tensor(0.1), torch.tensor(40.3)  # whose centre and size are rounded
    gt = torch.stack([low, low, high, high])[None]
    inf = torch.tensor(torch.inf)
    points = torch.stack([low, low.nextafter(inf), high.nextafter(-inf), high])[:, None].expand(4, 2).clone()
    points[:, 1] = 20.0
    result = call("tal", gt.repeat(4, 1), gt, points, backend=backend)
    assert result.gt_index.tolist() == [[-1, 0, 0, -1]]


@backends
@pytest.mark.parametrize(("conflict", "owner"), [("inside", 1), ("matched", 1), ("all", 2)])
def test_under_all_a_prior_may_go_to_a_gt_that_does_not_contain_it(backend, conflict, owner):
    """Two gts contain and select the prior; its prediction is that of a third, elsewhere."""
    gts = torch.tensor([[0.0, 0.0, 30.0, 30.0], [0.0, 0.0, 32.0, 32.0], [10.0, 10.0, 42.0, 42.0]])
    config = TaskAlignedConfig.yolov6(conflict=conflict)
    result = call(config, gts[2:], gts, torch.tensor([[5.0, 5.0]]), backend=backend)
    assert (result.gt_index.tolist(), result.claims.tolist()) == ([[owner]], [[2]])


@backends
def test_the_winner_of_a_conflict_need_not_have_selected_the_prior(backend):
    """Both first gts select the prior; the third contains it and selects another with a larger metric."""
    gts = torch.tensor([[0.0, 0.0, 28.0, 32.0], [0.0, 0.0, 27.0, 32.0], [0.0, 0.0, 32.0, 31.0]])
    points = torch.tensor([[4.0, 4.0], [30.0, 4.0]])
    pred = torch.stack([GT[0], gts[2]])
    config = TaskAlignedConfig.tal(topk=1)
    for conflict, owner in (("inside", 2), ("matched", 0)):
        result = call(config.replace(conflict=conflict), pred, gts, points, backend=backend)
        assert result.gt_index.tolist() == [[owner, 2]]
        assert result.claims.tolist() == [[2, 1]]


@backends
@pytest.mark.parametrize(("preset", "owners"), [("tal_obb", [0, 0, 0]), ("tal_obb_v8", [0, 0, -1])])
def test_a_rotated_box_without_a_side_may_have_positives_where_it_lies_or_where_it_is_enlarged(
    preset, owners, backend
):
    points = torch.tensor([[8.0, 8.0], [12.0, 8.0], [12.0, 12.0]])
    gt = torch.tensor([[8.0, 8.0, 16.0, 0.0, 0.0]])
    result = call(preset, gt.expand(3, 5), gt, points, backend=backend)
    assert result.gt_index.tolist() == [owners]
