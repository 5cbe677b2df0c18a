"""Boxes: formats, areas, IoU and GIoU, against numbers worked out by hand."""

import pytest
import torch

from simota_triton import box_giou, box_iou, convert_boxes
from simota_triton.boxes import BOX_FORMATS, box_area, box_center, guard

SAME = {"xyxy": [10.0, 20.0, 14.0, 30.0], "xywh": [10.0, 20.0, 4.0, 10.0], "cxcywh": [12.0, 25.0, 4.0, 10.0]}


@pytest.mark.parametrize("source", BOX_FORMATS)
@pytest.mark.parametrize("target", BOX_FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_every_format_converts_to_every_other(source, target, dtype):
    converted = convert_boxes(torch.tensor([[SAME[source]]], dtype=dtype), source, target)
    assert converted.dtype == dtype
    assert converted.tolist() == [[SAME[target]]]


def test_unknown_formats_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="source: expected one of 'xyxy', 'xywh', 'cxcywh', got 'yxyx'"):
        convert_boxes(torch.zeros(4), "yxyx")
    with pytest.raises(ValueError, match="target: expected one of 'xyxy', 'xywh', 'cxcywh', got 'tlbr'"):
        convert_boxes(torch.zeros(4), "xyxy", "tlbr")
    with pytest.raises(ValueError, match=r"boxes: expected \[..., 4\], got \[2, 5\]"):
        convert_boxes(torch.zeros(2, 5), "xyxy")
    with pytest.raises(ValueError, match="source: expected one of"):
        box_iou(torch.zeros(4), torch.zeros(4), "xyxyxy")
    for function in (box_iou, box_giou):
        with pytest.raises(
            TypeError, match=r"^others: expected a torch.Tensor, got list; use torch.tensor\(others\)"
        ):
            function(torch.zeros(4), [0.0] * 4)
        with pytest.raises(ValueError, match=r"^others: expected \[..., 4\], got \[5\]"):
            function(torch.zeros(4), torch.zeros(5))
    with pytest.raises(
        TypeError, match=r"^boxes: expected a torch.Tensor, got ndarray; use torch.from_numpy\(boxes\)"
    ):
        convert_boxes(torch.zeros(4).numpy(), "xywh")


def test_center_and_area():
    boxes = torch.tensor(
        [[0.0, 0.0, 4.0, 2.0], [1.0, 1.0, 1.0, 5.0], [4.0, 4.0, 0.0, 0.0], [4.0, 0.0, 0.0, 4.0]]
    )
    assert box_center(boxes).tolist() == [[2.0, 1.0], [1.0, 3.0], [2.0, 2.0], [2.0, 2.0]]
    assert box_area(boxes).tolist() == [8.0, 0.0, 0.0, 0.0]  # inverted along both axes is no area either


@pytest.mark.parametrize(
    ("rule", "expected"), [("none", [0.0, 0.5, 4.0]), ("add", [1.0, 1.5, 5.0]), ("max", [1.0, 1.0, 4.0])]
)
def test_guards(rule, expected):
    guarded = guard(torch.tensor([0.0, 0.5, 4.0]), rule, 1.0)
    assert guarded.tolist() == pytest.approx(expected, abs=1e-37)
    assert bool((guarded > 0).all())


PAIRS = [
    # box, other, IoU, GIoU
    ([0, 0, 2, 2], [0, 0, 2, 2], 1.0, 1.0),
    ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3, 1 / 3),
    ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
    ([0, 0, 4, 4], [1, 1, 2, 2], 1 / 16, 1 / 16),
    ([0, 0, 1, 1], [1, 0, 2, 1], 0.0, 0.0),  # they touch
    ([0, 0, 1, 1], [3, 0, 4, 1], 0.0, -0.5),
    ([0, 0, 1, 1], [9, 9, 10, 10], 0.0, -0.98),
    ([0, 0, 0, 0], [0, 0, 0, 0], 0.0, 0.0),  # 0 / 0
    ([1, 1, 1, 1], [0, 0, 2, 2], 0.0, 0.0),
    ([2, 2, 0, 0], [0, 0, 2, 2], 0.0, 0.0),  # inverted
    ([2, 2, 0, 0], [2, 2, 0, 0], 0.0, 0.0),
]


@pytest.mark.parametrize(("box", "other", "iou", "giou"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_iou_and_giou(box, other, iou, giou, dtype):
    box, other = torch.tensor(box, dtype=dtype), torch.tensor(other, dtype=dtype)
    assert float(box_iou(box, other)) == pytest.approx(iou, abs=1e-7)
    assert float(box_iou(other, box)) == pytest.approx(iou, abs=1e-7)
    assert float(box_giou(box, other)) == pytest.approx(giou, abs=1e-6)
    assert float(box_giou(other, box)) == pytest.approx(giou, abs=1e-6)


@pytest.mark.parametrize("box_format", BOX_FORMATS)
def test_iou_reads_every_format(box_format):
    others = convert_boxes(torch.tensor([12.0, 20.0, 16.0, 30.0]), "xyxy", box_format)
    assert float(box_iou(torch.tensor(SAME[box_format]), others, box_format)) == pytest.approx(1 / 3)
    assert float(box_giou(torch.tensor(SAME[box_format]), others, box_format)) == pytest.approx(1 / 3)


def test_union_rules_enter_the_quotient():
    box, other = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 3.0, 2.0])  # 2 / 6
    assert float(box_iou(box, other, rule="add", eps=2.0)) == pytest.approx(2 / 8)
    assert float(box_iou(box, other, rule="max", eps=10.0)) == pytest.approx(2 / 10)
    assert float(box_iou(box, other, rule="max", eps=1.0)) == pytest.approx(2 / 6)
    assert float(box_iou(box, other, rule="none", eps=5.0)) == pytest.approx(2 / 6)
    # GIoU guards the enclosing area too: 2/8 - (8 - 8)/8, then 2/10 - (10 - 10)/10
    assert float(box_giou(box, other, rule="add", eps=2.0)) == pytest.approx(2 / 8)
    assert float(box_giou(box, other, rule="max", eps=10.0)) == pytest.approx(2 / 10)


def test_identical_boxes_overlap_by_exactly_one_wherever_they_are():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1.0, 1e3, 1e6):
        corner = torch.randn(4000, 2, generator=generator) * scale
        boxes = torch.cat([corner, corner + torch.rand(4000, 2, generator=generator) * scale], 1)
        boxes = boxes[box_area(boxes) > 0]
        assert bool((box_iou(boxes, boxes) == 1).all())


def test_all_pairs_by_broadcasting():
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 7, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 1 + 9 * torch.rand(2, 7, 2, generator=generator)], 2)
    table = box_iou(boxes[0][:, None], boxes[1][None])
    assert table.shape == (7, 7)
    for i in range(7):
        for j in range(7):
            (a, b, c, d), (e, f, g, h) = boxes[0, i].tolist(), boxes[1, j].tolist()
            overlap = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
            assert float(table[i, j]) == pytest.approx(
                overlap / ((c - a) * (d - b) + (g - e) * (h - f) - overlap), abs=1e-6
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_boxes_may_have_areas_that_halves_cannot_hold(dtype):
    box, other = (
        torch.tensor([0, 0, 1024, 1024], dtype=dtype),
        torch.tensor([512, 0, 1536, 1024], dtype=dtype),
    )
    assert float(box_iou(box, other)) == pytest.approx(1 / 3)
    assert float(box_giou(box, other)) == pytest.approx(1 / 3)


def test_nan_gives_no_overlap_to_speak_of():
    nan = torch.tensor([float("nan"), 0.0, 2.0, 2.0])
    assert not float(box_iou(nan, torch.tensor([0.0, 0.0, 2.0, 2.0]))) > 0
