"""NanoDet's assigner. The package has no release to test with, so a stub has the interface of its be9b4a9:
names, arguments, results.
"""

from __future__ import annotations

import importlib.metadata
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from simota_triton import grid_priors
from simota_triton.integrations import nanodet
from simota_triton.measure.simulate import random_gts, simulate_predictions
from tests.support.literal import RULES, Image, matched

MODULE = "nanodet.model.head.assigner.dsl_assigner"


class AssignResult:
    def __init__(self, num_gts, gt_inds, max_overlaps, labels=None):
        self.num_gts, self.gt_inds, self.max_overlaps, self.labels = num_gts, gt_inds, max_overlaps, labels


@pytest.fixture
def assigner_class(monkeypatch):
    class DynamicSoftLabelAssigner:
        def __init__(self, topk=13, iou_factor=3.0, ignore_iof_thr=-1):
            self.topk, self.iou_factor, self.ignore_iof_thr = topk, iou_factor, ignore_iof_thr

        def assign(self, pred_scores, priors, decoded_bboxes, gt_bboxes, gt_labels, gt_bboxes_ignore=None):
            raise AssertionError("the original was called")

    module = ModuleType(MODULE)
    module.DynamicSoftLabelAssigner, module.AssignResult = DynamicSoftLabelAssigner, AssignResult
    monkeypatch.setitem(sys.modules, MODULE, module)
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "1.0.0a0" if name == "nanodet" else version(name)
    )
    yield DynamicSoftLabelAssigner
    nanodet.unpatch()


def image(seed: int, count: int = 6) -> tuple[Tensor, ...]:
    """pred_scores, priors, decoded_bboxes, gt_bboxes and gt_labels of one image."""
    generator = torch.Generator().manual_seed(seed)
    priors = grid_priors(96)
    boxes, labels = random_gts(count, 96, 5, generator, 32.0)
    pred = simulate_predictions([boxes], [labels], priors, 5, "mid", generator)
    return pred.cls_logits[0], priors, pred.pred_boxes[0], boxes, labels


@pytest.mark.parametrize("arguments", [{}, {"topk": 9, "iou_factor": 2.0}])
@pytest.mark.parametrize("seed", range(5))
def test_assigns_as_the_literal_rule(assigner_class, seed, arguments):
    pred_scores, priors, decoded_bboxes, gt_bboxes, gt_labels = image(seed)
    with nanodet.patch():
        result = assigner_class(**arguments).assign(pred_scores, priors, decoded_bboxes, gt_bboxes, gt_labels)
    centers = (gt_bboxes[:, :2] + gt_bboxes[:, 2:]) / 2
    nothing = torch.zeros(len(priors), 1)
    rows = Image(
        decoded_bboxes.double(),
        pred_scores,
        pred_scores.sigmoid(),
        nothing,
        priors,
        gt_bboxes,
        gt_labels,
        centers,
    )
    cost, iou = RULES["nanodet"].costs(rows)
    if arguments:
        cost = cost + torch.log(iou + 1e-7)  # the literal rule weighs the IoU by 3
    rule = type(RULES["nanodet"])(RULES["nanodet"].costs, arguments.get("topk", 13))
    expected = torch.tensor(matched(cost, iou, rule)[0])
    fg_mask = expected >= 0
    assert fg_mask.any()
    assert torch.equal(result.gt_inds, expected + 1)
    assert result.num_gts == len(gt_bboxes)
    assert torch.equal(result.labels, torch.where(fg_mask, gt_labels[expected], -1))
    own_iou = iou.gather(1, expected.clamp(min=0)[:, None])[:, 0].float()
    torch.testing.assert_close(result.max_overlaps, torch.where(fg_mask, own_iou, -1e8))


def test_an_image_without_gts_is_background(assigner_class):
    pred_scores, priors, decoded_bboxes, _, _ = image(0)
    nanodet.patch()
    result = assigner_class().assign(
        pred_scores, priors, decoded_bboxes, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    )
    assert result.num_gts == 0
    assert not result.gt_inds.any()
    assert not result.max_overlaps.any()
    assert (result.labels == -1).all()


def test_an_image_with_a_thousand_gts(assigner_class):
    arguments = image(0, count=1000)
    nanodet.patch()
    result = assigner_class().assign(*arguments)
    fg_mask = result.gt_inds > 0
    assert result.num_gts == 1000
    assert fg_mask.sum() > 50
    assert torch.equal(result.labels[fg_mask], arguments[4][result.gt_inds[fg_mask] - 1])


def test_ignore_boxes_mark_the_predictions_inside_them(assigner_class):
    arguments = image(1)
    pred = arguments[2]
    ignored = torch.cat([pred[:3], torch.tensor([[500.0, 500.0, 600.0, 600.0]])])
    nanodet.patch()
    plain, marked, off = (
        assigner_class(ignore_iof_thr=threshold).assign(*arguments, gt_bboxes_ignore=ignored.numpy()).gt_inds
        for threshold in (-1, 0.5, -1)
    )
    inside = torch.zeros(len(pred), dtype=torch.bool)
    for i, (left, top, right, bottom) in enumerate(pred.tolist()):
        for x1, y1, x2, y2 in ignored.tolist():
            overlap = max(0.0, min(right, x2) - max(left, x1)) * max(0.0, min(bottom, y2) - max(top, y1))
            inside[i] |= overlap / ((right - left) * (bottom - top)) > 0.5
    assert inside.any()
    assert not inside.all()
    assert torch.equal(marked, torch.where(inside, -1, plain))
    assert torch.equal(off, plain)


def test_twice_and_back(assigner_class):
    original = assigner_class.assign
    nanodet.patch()
    nanodet.patch()
    nanodet.unpatch()
    nanodet.unpatch()
    assert assigner_class.assign is original


def test_another_layout_is_named(assigner_class):
    # before be9b4a9
    assigner_class.assign = lambda self, pred_scores, priors, decoded_bboxes, gt_bboxes, gt_labels: None
    with pytest.raises(
        TypeError,
        match=r"DynamicSoftLabelAssigner\.assign: expected parameters .*gt_bboxes_ignore.* nanodet 1\.0\.0a0",
    ):
        nanodet.patch()
