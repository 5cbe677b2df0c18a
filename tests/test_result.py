"""What an assignment gives back: every field and view against what it is defined by."""

import dataclasses

import pytest
import torch

from simota_triton import AssignResult, AssignSummary, ImageAssignment, SimOTAAssigner
from simota_triton.backends import BACKENDS
from simota_triton.verification.scenes import FAMILIES, FORMS, make_scene
from tests.support.interpreter import QUICK, SMALL


@pytest.fixture
def example():
    """Two images of three gts (one is padding) and one; five priors, one in conflict, one ignored."""
    priors = torch.tensor([[8.0 * i, 8.0, 8.0, 8.0] for i in range(1, 6)])
    boxes = torch.tensor(
        [
            [[0.0, 0.0, 20.0, 16.0], [12.0, 0.0, 28.0, 16.0], [0.0, 0.0, 0.0, 0.0]],
            [[28.0, 0.0, 44.0, 16.0]] + [[0.0] * 4] * 2,
        ]
    )
    mask = torch.tensor([[True, True, False], [True, False, False]])
    labels = torch.tensor([[2, 1, 0], [0, 0, 0]])
    pred = boxes[0, [0, 0, 1, 1, 1]].repeat(2, 1, 1)
    pred[1] = boxes[1, 0]
    ignore = [
        torch.tensor([[36.0, 0.0, 48.0, 16.0]])
    ] * 2  # the cell of x = 40 has its centre at 44, that of 32 on the edge
    return SimOTAAssigner("rtmdet", backend="reference")(
        pred, torch.zeros(2, 5, 4), priors, boxes, labels, gt_mask=mask, ignore_boxes=ignore
    )


def test_the_example_by_hand(example):
    # image 0: x = 8, 16 and 24 are candidates; their IoUs with gt 0 are 1, 1 and 2/7, with gt 1 they are 2/7,
    # 2/7 and 1
    assert example.dynamic_k.tolist() == [[2, 1, 0], [2, 0, 0]]
    assert example.gt_index.tolist() == [[0, 0, 1, -1, -1], [-1, -1, -1, 0, 0]]
    assert example.labels.tolist() == [[2, 2, 1, 4, 4], [4, 4, 4, 0, 0]]
    assert example.matched_iou.tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]]
    assert example.fg_mask.tolist() == [[True] * 3 + [False] * 2, [False] * 3 + [True] * 2]
    assert example.ignore_mask.tolist() == [[False] * 4 + [True], [False] * 5]
    assert example.claims.tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert example.num_pos.tolist() == [3, 2]
    assert example.num_classes == 4
    assert (
        example.gt_boxes[0].tolist()
        == [[0.0, 0.0, 20.0, 16.0]] * 2 + [[12.0, 0.0, 28.0, 16.0]] + [[0.0] * 4] * 2
    )
    assert example.gt_boxes[1].tolist() == [[0.0] * 4] * 3 + [[28.0, 0.0, 44.0, 16.0]] * 2


def test_the_matching_matrix_of_the_example(example):
    matrix = example.matching_matrix()
    assert matrix.shape == (2, 5, 3)
    assert matrix.dtype == torch.bool
    assert matrix.nonzero().tolist() == [[0, 0, 0], [0, 1, 0], [0, 2, 1], [1, 3, 0], [1, 4, 0]]


def test_the_summary_of_the_example(example):
    summary = example.summary()
    assert summary == AssignSummary(
        num_gts=3, num_pos=5, num_conflicts=0, num_empty=0, num_ignored=1, dynamic_k={1: 1, 2: 2}
    )
    assert (
        str(summary)
        == "3 gts, 5 positives, 0 conflicts, 0 gts without a prior, 1 prior ignored, dynamic k 1:1 2:2"
    )


def test_an_image_of_the_example(example):
    image = example.to_image(1)
    assert isinstance(image, ImageAssignment)
    for name in (
        "gt_index",
        "labels",
        "matched_iou",
        "gt_boxes",
        "fg_mask",
        "ignore_mask",
        "claims",
        "dynamic_k",
    ):
        assert torch.equal(getattr(image, name), getattr(example, name)[1]), name
        assert torch.equal(getattr(example.to_image(-1), name), getattr(image, name)), name
    for wrong in (2, -3):
        with pytest.raises(IndexError, match=f"image: expected -2 <= image < 2, got {wrong}"):
            example.to_image(wrong)


def test_the_summary_counts_conflicts_and_gts_that_no_prior_learns():
    boxes = torch.tensor([[0.0, 0.0, 20.0, 16.0]] * 2 + [[900.0, 0.0, 920.0, 16.0]])
    priors = torch.tensor([[8.0, 8.0, 8.0, 8.0], [40.0, 8.0, 8.0, 8.0]])
    args = (boxes[:1].expand(1, 2, 4), torch.zeros(1, 2, 1), priors, [boxes], [torch.zeros(3).long()])
    summary = SimOTAAssigner("rtmdet", backend="reference")(*args).summary()
    assert summary == AssignSummary(
        num_gts=3, num_pos=1, num_conflicts=1, num_empty=2, num_ignored=0, dynamic_k={1: 3}
    )
    assert (
        str(summary)
        == "3 gts, 1 positive, 1 conflict, 2 gts without a prior, 0 priors ignored, dynamic k 1:3"
    )


def test_an_empty_summary():
    args = (
        torch.zeros(2, 3, 4),
        torch.zeros(2, 3, 1),
        torch.ones(3, 4),
        [torch.zeros(0, 4)] * 2,
        [torch.zeros(0).long()] * 2,
    )
    summary = SimOTAAssigner("rtmdet", backend="reference")(*args).summary()
    assert summary == AssignSummary(
        num_gts=0, num_pos=0, num_conflicts=0, num_empty=0, num_ignored=0, dynamic_k={}
    )
    assert (
        str(summary)
        == "0 gts, 0 positives, 0 conflicts, 0 gts without a prior, 0 priors ignored, dynamic k -"
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "seed"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_views_follow_from_gt_index(backend, preset, form):
    assigner = SimOTAAssigner(preset, backend=backend)
    for seed in range(len(FAMILIES)) if backend in QUICK else SMALL[:2]:
        scene = make_scene(seed)
        result = scene.call(assigner, form)
        batch, num_priors, num_classes = scene.cls_logits.shape
        args, kwargs = scene.inputs(assigner.config.score, form)
        boxes, labels = args[3:]
        dtypes = {
            "gt_index": torch.int64,
            "labels": torch.int64,
            "matched_iou": torch.float32,
            "ignore_mask": torch.bool,
            "claims": torch.int32,
        }
        for name, dtype in dtypes.items():
            assert getattr(result, name).dtype == dtype, name
            assert getattr(result, name).shape == (batch, num_priors), name
        assert result.num_classes == num_classes
        assert result.dynamic_k.dtype == torch.int64
        assert result.dynamic_k.shape == (
            boxes.shape[:2]
            if form in ("padded", "scattered")
            else boxes.shape[:1]
            if form == "spare"
            else (sum(map(len, scene.gt_boxes)),)
        )
        matrix = result.matching_matrix()
        summary = result.summary()
        learnt = 0
        for b in range(batch):
            image = result.to_image(b)
            if form in ("packed", "spare"):
                start = kwargs["gt_offsets"][b]
                own_boxes, own_labels = (
                    boxes[start : start + len(scene.gt_boxes[b])],
                    labels[start : start + len(scene.gt_boxes[b])],
                )
            else:
                own_boxes, own_labels = boxes[b], labels[b]
            assert image.dynamic_k.shape == (len(own_boxes),)
            assert torch.equal(result.to_image(b - batch).dynamic_k, image.dynamic_k)
            for p, g in enumerate(image.gt_index.tolist()):
                if g < 0:
                    assert (image.labels[p], image.matched_iou[p]) == (num_classes, 0)
                    assert image.gt_boxes[p].tolist() == [0.0] * 4
                else:
                    assert image.labels[p] == own_labels[g]
                    assert image.gt_boxes[p].tolist() == own_boxes[g].tolist()
                    assert image.dynamic_k[g] > 0
                    assert image.claims[p] > 0
                    assert not image.ignore_mask[p]
                assert matrix[b, p].nonzero().flatten().tolist() == ([] if g < 0 else [g])
            learnt += len(image.gt_index[image.fg_mask].unique())
            assert result.num_pos[b] == int((image.gt_index >= 0).sum())
        real = sum(map(len, scene.gt_boxes))
        assert (summary.num_gts, summary.num_pos) == (real, int(result.num_pos.sum()))
        assert summary.num_empty == real - learnt
        assert sum(summary.dynamic_k.values()) == real
        assert summary.num_conflicts == int((result.claims > 1).sum())
        assert summary.num_ignored == int(result.ignore_mask.sum())


def test_results_carry_no_gradient_and_leave_the_inputs_alone():
    scene = make_scene(69)
    tensors = [scene.pred_boxes, scene.cls_logits, scene.obj_logits, scene.priors, *scene.gt_boxes]
    before = [tensor.clone() for tensor in tensors]
    for tensor in tensors[:3]:
        tensor.requires_grad_()
    for backend in BACKENDS:
        result = scene.call(SimOTAAssigner("yolox", backend=backend))
        assert not any(getattr(result, name).requires_grad for name in ("matched_iou", "gt_boxes"))
        assert all(torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True)), backend


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend):
    scene = make_scene(69)
    assigner = SimOTAAssigner("yolox", backend=backend)
    plain = scene.call(assigner)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(scene.call(assigner).gt_index, plain.gt_index)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_call_gives_the_same_answer_again(backend):
    scene, assigner = make_scene(1 if backend in QUICK else 140), SimOTAAssigner("rtmdet", backend=backend)
    first = scene.call(assigner)
    for _ in range(3):
        again = scene.call(assigner)
        assert all(
            torch.equal(getattr(first, name), getattr(again, name))
            for name in ("gt_index", "matched_iou", "claims", "dynamic_k")
        )


def test_results_are_frozen_and_print_in_one_line(example):
    with pytest.raises(dataclasses.FrozenInstanceError):
        example.labels = None
    assert isinstance(example, AssignResult)
    assert repr(example) == f"AssignResult(B=2, P=5, C=4, cpu: {example.summary()})"
    # what would take a sync is left out
    assert repr(example.to("meta")) == "AssignResult(B=2, P=5, C=4, meta)"


def test_results_are_equal_where_all_they_hold_is(example):
    assert example == example.cpu()
    assert example == dataclasses.replace(example, labels=example.labels.clone())
    assert example != 3
    for name in ("gt_index", "labels", "matched_iou", "ignore_mask", "claims", "dynamic_k"):
        value = getattr(example, name)
        assert example != dataclasses.replace(
            example, **{name: ~value if value.dtype == torch.bool else value + 1}
        ), name
        assert example != dataclasses.replace(example, **{name: value[:1]}), name
    assert example != dataclasses.replace(example, num_classes=5)
    assert example != dataclasses.replace(example, gts=dataclasses.replace(example.gts, mask=None))
    assert example != dataclasses.replace(example, matched_iou=example.matched_iou.double())


@pytest.mark.parametrize("form", FORMS)
def test_a_result_can_be_saved_and_loaded_by_default(form, tmp_path):
    assigner = SimOTAAssigner("rtmdet", backend="torch")
    result = make_scene(3).call(assigner, form)
    args, kwargs = make_scene(3).inputs("logit", form)
    matrices = assigner.cost_matrix(*args, **kwargs)
    parts = {"summary": result.summary(), "image": result.to_image(0), "config": assigner.config}
    torch.save(
        {"result": result, **parts, "matrices": matrices, "matching": assigner.match(*matrices)},
        tmp_path / "file",
    )
    loaded = torch.load(tmp_path / "file")
    assert all(map(torch.equal, loaded["matrices"], matrices))
    expected = assigner.match(*matrices)
    assert all(map(torch.equal, loaded["matching"][:4], expected[:4]))
    assert loaded["matching"].labels is expected.labels is None
    assert loaded["result"] == result
    assert loaded["summary"] == result.summary()
    assert loaded["config"] == assigner.config
    assert all(map(torch.equal, loaded["image"], result.to_image(0)))


def test_a_result_moves_with_all_it_holds(example):
    with pytest.raises(
        TypeError, match=r"^device: expected a device, as torch.device\('cuda'\) or 'cpu', got torch.float16"
    ):
        example.to(torch.float16)
    moved = example.to("meta")
    tensors = [
        value
        for part in (moved, moved.gts)
        for value in vars(part).values()
        if isinstance(value, torch.Tensor)
    ]
    assert len(tensors) == 7 + 5
    assert all(value.is_meta for value in tensors)
    assert not any(value.is_meta for value in vars(example).values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_refused_gts_are_counted(backend, form):
    assigner = SimOTAAssigner("rtmdet", backend=backend, validate=False)
    scene = make_scene(140)
    clean = scene.call(assigner, form)
    assert clean.num_refused.tolist() == [0] * len(scene.gt_boxes)
    assert "refused" not in str(clean.summary())
    bad = [torch.arange(len(boxes)) % 3 == 1 for boxes in scene.gt_boxes]
    scene.gt_boxes = [
        torch.where(own[:, None] & (torch.arange(len(own)) % 2 == 0)[:, None], torch.nan, boxes)
        for own, boxes in zip(bad, scene.gt_boxes, strict=True)
    ]
    scene.gt_labels = [
        torch.where(own & (torch.arange(len(own)) % 2 == 1), scene.num_classes, labels)
        for own, labels in zip(bad, scene.gt_labels, strict=True)
    ]
    result = scene.call(assigner, form)
    expected = [int(own.sum()) for own in bad]
    assert sum(expected) > 1
    assert result.num_refused.tolist() == expected
    assert result.refused.shape == result.dynamic_k.shape
    assert int(result.refused.sum()) == sum(expected)
    total = sum(map(len, scene.gt_boxes))
    summary = result.summary()
    assert (summary.num_refused, summary.num_gts) == (sum(expected), total - sum(expected))
    assert str(summary).startswith(
        f"{sum(expected)} of {total} gts refused: label outside [0, C) or not finite; "
        f"{total - sum(expected)} gts, "
    )


def test_an_assigner_prints_what_it_is():
    assert (
        repr(SimOTAAssigner("rtmdet", backend="torch"))
        == "SimOTAAssigner(SimOTAConfig.rtmdet(), backend='torch')"
    )
