"""Our assigner in ultralytics: values, dtypes, what deviates, what is kept and what is refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from simota_triton.integrations import ultralytics as integration

from .loading import Missing
from .openmmlab import padded
from .scenes import make_scene
from .ultralytics import NEWEST, load_modules, patched

NAMES = ("labels", "boxes", "scores", "foreground", "gts")


@pytest.fixture(scope="module")
def tal() -> ModuleType:
    try:
        return load_modules(NEWEST)["ultralytics.utils.tal"]
    except Missing as reason:
        pytest.skip(str(reason))


def inputs(dtype: torch.dtype = torch.float32) -> tuple[int, list[Tensor]]:
    """Number of classes, and the arguments of ``forward``."""
    scene = make_scene(26, (8, 16, 32), 0.5, inverted=False)
    assert scene.kind == "plain"
    boxes, logits, priors, *gts = padded(scene)
    return scene.num_classes, [logits.sigmoid().to(dtype), boxes, priors[:, :2], *gts]


def one_gt(points: list[list[float]], box: list[float], pred: list[list[float]]) -> list[Tensor]:
    """Arguments of an image with one gt, every score 0.5."""
    return [
        torch.full((1, len(points), 1), 0.5), torch.tensor([pred]), torch.tensor(points),
        torch.zeros(1, 1, 1), torch.tensor([[box]]), torch.ones(1, 1, 1),
    ]  # fmt: skip


def make(tal: ModuleType, num_classes: int, **arguments: Any) -> Any:
    return tal.TaskAlignedAssigner(**{
        "topk": 10, "num_classes": num_classes, "alpha": 0.5, "beta": 6.0, **arguments,
    })  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"topk": 7, "topk2": 1}, {"topk": 1}, {"stride": [16.0]}], ids=str)
def test_every_value_is_the_originals_of_background_too(tal, options):
    num_classes, arguments = inputs()
    assigner = make(tal, num_classes, **options)
    expected = assigner(*arguments)
    with patched():
        found = assigner(*arguments)
    assert expected[3].sum() > 5
    for name, value, other in zip(NAMES, found, expected, strict=True):
        assert value.dtype == other.dtype, name
        torch.testing.assert_close(value, other, rtol=0, atol=1e-6 if name == "scores" else 0)


def test_without_gts_and_without_priors(tal):
    num_classes, (scores, boxes, points, labels, gts, mask) = inputs()
    assigner = make(tal, num_classes)
    bare = scores, boxes, points, labels[:, :0], gts[:, :0], mask[:, :0]
    expected = assigner(*bare)
    with patched():
        found = assigner(*bare)
        nothing = assigner(scores[:, :0], boxes[:, :0], points[:0], labels, gts, mask)
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, check_dtype=False)  # the original's indices are floats here
    assert [value.shape[1] for value in nothing] == [0] * 5


def test_a_prior_of_metric_0_is_not_selected(tal):
    """The original selects topk priors whatever their metric."""
    near, far = [0.0, 0.0, 32.0, 32.0], [100.0, 100.0, 104.0, 104.0]
    points = [[4.0 + 8 * i, 16.0] for i in range(4)]
    arguments = one_gt(points, near, [near, far, far, far])
    assigner = make(tal, 1, topk=4)
    expected = assigner(*arguments)
    with patched():
        found = assigner(*arguments)
    assert expected[3].tolist() == [[True] * 4]
    assert expected[2][0, 1:].sum() == 0, "they are scored at 0"
    assert found[3].tolist() == [[True, False, False, False]]
    torch.testing.assert_close(found[2], expected[2])


def test_fewer_priors_than_topk_are_no_error(tal):
    box = [0.0, 0.0, 32.0, 32.0]
    arguments = one_gt([[8.0, 8.0], [24.0, 24.0]], box, [box, box])
    with pytest.raises(RuntimeError, match="out of range"):
        make(tal, 1)(*arguments)
    with patched():
        assert make(tal, 1)(*arguments)[3].tolist() == [[True, True]]


def test_of_equal_metrics_the_earlier_prior_is_selected(tal):
    box = [0.0, 0.0, 32.0, 32.0]
    with patched():
        found = make(tal, 1, topk=2)(*one_gt([[8.0 + i, 8.0] for i in range(5)], box, [box] * 5))
    assert found[3].tolist() == [[True, True, False, False, False]]


def test_sides_that_are_not_enlarged_keep_their_edges(tal):
    """The original moves every box to centre and size and back, which rounds the left edges of wide boxes:
    of priors one step inside them it loses some.
    """
    cases = []
    for i in range(64):
        left = 300.0 + 0.1 * i
        box = torch.tensor([left, 0.0, left + 800.0, 32.0])
        inner = float(torch.nextafter(box[0], torch.tensor(1e4)))
        cases.append(one_gt([[inner, 8.0]], box.tolist(), [box.tolist()]))
    assigner = make(tal, 1, topk=1)
    kept = sum(int(assigner(*arguments)[3].sum()) for arguments in cases)
    assert 0 < kept < 64
    with patched():
        assert all(assigner(*arguments)[3].all() for arguments in cases)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_scores_are_read_as_they_are(tal, dtype):
    num_classes, arguments = inputs(dtype)
    with patched():
        half = make(tal, num_classes)(*arguments)
        full = make(tal, num_classes)(arguments[0].float(), *arguments[1:])
    assert half[2].dtype == torch.float32
    for name, value, other in zip(NAMES, half, full, strict=True):
        assert torch.equal(value, other), name


def test_padding_is_what_the_caller_says(tal):
    box = [-64.0, -64.0, -32.0, -32.0]  # a sum below 0, which the losses take for padding
    with patched():
        found = make(tal, 1, topk=1)(*one_gt([[-48.0, -48.0]], box, [box]))
    assert found[3].all()


def test_a_subclass_that_overrides_a_method_is_refused(tal):
    class Own(tal.TaskAlignedAssigner):
        def iou_calculation(self, gt_bboxes: Tensor, pd_bboxes: Tensor) -> Tensor:
            """What a user overrides to change the rule."""
            return super().iou_calculation(gt_bboxes, pd_bboxes)

    num_classes, arguments = inputs()
    own = Own(topk=10, num_classes=num_classes, alpha=0.5, beta=6.0)
    expected = own(*arguments)
    with patched(), pytest.raises(TypeError, match=r"Own\.iou_calculation: .* train this class without"):
        own(*arguments)
    assert all(torch.equal(value, other) for value, other in zip(own(*arguments), expected, strict=True))


def test_assigners_of_keypoints_and_masks_keep_the_original(tal):
    num_classes, arguments = inputs()
    pose = tal.PoseTaskAlignedAssigner(torch.ones(3), num_classes=num_classes)
    batch, num_priors, num_gts = *arguments[0].shape[:2], arguments[4].shape[1]
    strides = make_scene(26, (8, 16, 32), 0.5, inverted=False).priors[:, 2]
    extra = {
        "anc_strides": strides, "pd_kpts": torch.rand(batch, num_priors, 3, 2),
        "gt_kpts": torch.rand(batch, num_gts, 3, 3),
    }  # fmt: skip
    expected = pose(*arguments, **extra)
    with patched() as patch:
        assert "PoseTaskAlignedAssigner, SegTaskAlignedAssigner as before" in repr(patch)
        before = patch.calls.total()
        found = pose(*arguments, **extra)
        assert patch.calls.total() == before, "a call of the original does not count"
    assert all(torch.equal(value, other) for value, other in zip(found, expected, strict=True))


def test_another_region_is_refused(tal, monkeypatch):
    def larger(
        self: Any, xy_centers: Tensor, gt_bboxes: Tensor, mask_gt: Tensor, eps: float = 1e-9
    ) -> Tensor:
        return torch.ones(*gt_bboxes.shape[:2], len(xy_centers), dtype=torch.bool)

    monkeypatch.setattr(tal.TaskAlignedAssigner, "select_candidates_in_gts", larger)
    with pytest.raises(
        TypeError, match=r"select_candidates_in_gts: expected sides .*pip install ultralytics"
    ):
        patched()
    assert not integration.is_patched()


def test_twice_and_back(tal):
    owners = tal.TaskAlignedAssigner, tal.RotatedTaskAlignedAssigner
    originals = [owner.forward for owner in owners]
    patch = patched()
    patched()
    assert integration.is_patched()
    assert all(owner.forward is not original for owner, original in zip(owners, originals, strict=True))
    patch.undo()
    integration.unpatch()
    assert [owner.forward for owner in owners] == originals
    assert "forward" not in vars(tal.RotatedTaskAlignedAssigner), "it was inherited"
