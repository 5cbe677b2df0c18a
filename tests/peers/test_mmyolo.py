"""Our assigner in mmyolo's registry: the original's result to the letter, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from .loading import Missing, load_without_ops
from .openmmlab import load_package, padded
from .scenes import make_scene

pytestmark = pytest.mark.filterwarnings("ignore")  # the originals use calls that torch has since deprecated


@pytest.fixture(scope="module")
def mm() -> SimpleNamespace:
    """mmyolo, and our integration with it."""
    try:
        classes = load_package(with_mmyolo=True)
    except Missing as reason:
        pytest.skip(str(reason))
    (registry,) = load_without_ops("mmyolo.registry")
    (integration,) = load_without_ops("simota_triton.integrations.mmyolo")
    return SimpleNamespace(
        original=classes.BatchDynamicSoftLabelAssigner,
        build=registry.TASK_UTILS.build,
        integration=integration,
    )


def same_result(mm: SimpleNamespace, arguments: dict, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    config = {"type": "mmyolo.BatchDynamicSoftLabelAssigner", **arguments}
    ours = mm.build(config)
    assert type(ours) is mm.integration.BatchDynamicSoftLabelAssigner
    expected, result = mm.original(**arguments)(*inputs), ours(*inputs)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=0, atol=1e-6 if name == "assign_metrics" else 0)
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"topk": 9, "batch_iou": False}, {"soft_center_radius": 2.0, "iou_weight": 1.5}]
)
def test_every_entry_is_the_originals(mm, options, dtype):
    scene = make_scene(26, (8, 16, 32), 0.0, inverted=False)
    assert scene.kind == "plain"
    inputs = [value.to(dtype) if i == 4 else value for i, value in enumerate(padded(scene))]
    result = same_result(mm, {"num_classes": scene.num_classes, **options}, inputs)
    assert (result["assigned_labels"] < scene.num_classes).sum() > 10


@pytest.mark.parametrize("empty", ["gts", "priors", "every gt padded"])
def test_what_has_nothing_to_assign_is_the_originals(mm, empty):
    scene = make_scene(26, (8, 16, 32), 0.0, inverted=False)
    boxes, scores, priors, labels, gts, real = padded(scene)
    if empty == "gts":
        labels, gts, real = labels[:, :0], gts[:, :0], real[:, :0]
    elif empty == "priors":
        boxes, scores, priors = boxes[:, :0], scores[:, :0], priors[:0]
    else:
        labels, gts, real = labels * 0, gts * 0, real * 0
    same_result(mm, {"num_classes": scene.num_classes}, (boxes, scores, priors, labels, gts, real))


def test_a_prior_inside_no_gt_is_never_assigned(mm):
    """A gt that asks for five priors and has one inside: the original takes four from elsewhere."""
    priors = torch.tensor([[8.0 * i, 8.0, 8.0, 8.0] for i in range(6)])
    gt = torch.tensor([[[0.0, 0.0, 9.0, 16.0]]])
    inputs = gt.expand(1, 6, 4), torch.zeros(1, 6, 2), priors, torch.zeros(1, 1, 1), gt, torch.ones(1, 1, 1)
    assert (mm.original(num_classes=2)(*inputs)["assigned_labels"] == 0).sum() > 1
    assert mm.build({"type": "mmyolo.BatchDynamicSoftLabelAssigner", "num_classes": 2})(*inputs)[
        "assigned_labels"
    ].tolist() == [[2, 0, 2, 2, 2, 2]]


def test_ignored_priors_have_no_weight(mm):
    scene = make_scene(26, (8, 16, 32), 0.0, inverted=False)
    ours = mm.integration.BatchDynamicSoftLabelAssigner(num_classes=scene.num_classes)
    crowd = torch.tensor([[[0.0, 0.0, 60.0, 1e4], [0.0, 0.0, 0.0, 0.0]]]).expand(len(scene.gt_boxes), -1, -1)
    expected, result = ours(*padded(scene)), ours(*padded(scene), ignore_boxes=crowd)
    ignored = (scene.priors[:, 0] + scene.priors[:, 2] / 2 < 60) & (
        expected["assigned_labels"] == scene.num_classes
    )
    assert 0 < ignored.sum() < ignored.numel()
    assert torch.equal(result["assigned_labels_weights"], (~ignored).float())
    for name in ("assigned_labels", "assigned_bboxes", "assign_metrics"):
        assert torch.equal(result[name], expected[name])


def test_mmyolos_yolox_finds_mmdets_drop_in(mm):
    config = {
        "type": "mmdet.SimOTAAssigner",
        "center_radius": 2.5,
        "iou_calculator": {"type": "mmdet.BboxOverlaps2D"},
    }
    assert type(mm.build(config)).__module__ == "simota_triton.integrations.mmdet"


def test_a_thousand_gts(mm):
    scene = make_scene(26, (8, 16, 32), 0.0, inverted=False)
    boxes, scores, priors, *_ = padded(scene)
    corner = torch.rand(len(boxes), 1000, 2) * scene.size[0]
    gts = torch.cat([corner, corner + 4 + 30 * torch.rand(corner.shape)], 2)
    ours = mm.build({"type": "mmyolo.BatchDynamicSoftLabelAssigner", "num_classes": scene.num_classes})
    result = ours(
        boxes, scores, priors, torch.zeros(len(boxes), 1000, 1), gts, torch.ones(len(boxes), 1000, 1)
    )
    assert (result["assigned_labels"] == 0).any(1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou_calculator": {"type": "mmrotate.RBboxOverlaps2D"}}, "iou_calculator: expected BboxOverlaps2D"),
        ({"topk": 33}, "candidate_topk: expected 1 to 32"),
    ],
)
def test_what_it_does_not_compute_is_refused_when_the_model_is_built(mm, options, message):
    with pytest.raises(ValueError, match=message):
        mm.build({"type": "mmyolo.BatchDynamicSoftLabelAssigner", "num_classes": 3, **options})


def test_rotated_boxes_and_other_class_counts_are_refused(mm):
    scene = make_scene(26, (8, 16, 32), 0.0, inverted=False)
    boxes, scores, priors, labels, gts, real = padded(scene)
    ours = mm.integration.BatchDynamicSoftLabelAssigner(num_classes=scene.num_classes)
    with pytest.raises(
        ValueError,
        match=r"gt_bboxes: expected axis-aligned boxes \[\.\.\., 4\], got .*, 5\]; keep mmyolo's own",
    ):
        ours(boxes, scores, priors, labels, torch.cat([gts, real], 2), real)
    with pytest.raises(ValueError, match=r"pred_scores: expected .* num_classes = "):
        ours(boxes, scores[..., :-1], priors, labels, gts, real)
