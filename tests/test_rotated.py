"""ProbIoU, and the task-aligned rule with rotated boxes."""

import math

import pytest
import torch

from simota_triton import TaskAlignedAssigner, TaskAlignedConfig, box_probiou, grid_priors

PRIORS = grid_priors(64, (8, 16), offset=0.5)
PRESETS = ("tal_obb", "tal_obb_v8")


def literal(boxes, others, eps=1e-7):
    """The paper's formulas on covariance matrices."""

    def gaussian(box):
        turn = torch.stack([box[..., 4].cos(), -box[..., 4].sin(), box[..., 4].sin(), box[..., 4].cos()], -1)
        turn = turn.view(*box.shape[:-1], 2, 2)
        return turn @ torch.diag_embed(box[..., 2:4].square() / 12) @ turn.mT

    first, second = gaussian(boxes), gaussian(others)
    both = first + second
    offset = (others[..., :2] - boxes[..., :2])[..., None]
    adjugate = torch.stack([both[..., 1, 1], -both[..., 0, 1], -both[..., 1, 0], both[..., 0, 0]], -1)
    adjugate = adjugate.view(both.shape)
    apart = (offset.mT @ adjugate @ offset)[..., 0, 0] / (torch.det(both) + eps) / 4
    spread = torch.det(both) / (4 * (torch.det(first) * torch.det(second)).clamp(min=0).sqrt() + eps) + eps
    distance = (apart + spread.log() / 2).clamp(eps, 100.0)
    return 1 - (1 - (-distance).exp() + eps).sqrt()


def pairs(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 5, generator=rng, dtype=torch.float64) * 50
    boxes[:, 2:4] = torch.exp(torch.randn(count, 2, generator=rng, dtype=torch.float64) + 3)
    boxes[:, 4] = torch.rand(count, generator=rng, dtype=torch.float64) * 7 - 3.5
    near = (
        torch.randn(count, 5, generator=rng, dtype=torch.float64) * torch.tensor([4.0, 4, 4, 4, 0.2]).double()
    )
    others = boxes + near * torch.rand(count, 1, generator=rng, dtype=torch.float64)
    others[:, 2:4] = others[:, 2:4].abs() + 0.5
    return boxes, others


def test_it_is_the_papers():
    boxes, others = pairs(20_000)
    assert (box_probiou(boxes, others) - literal(boxes, others)).abs().max() < 1e-9


def test_float32_keeps_the_digits_of_thin_boxes():
    boxes, others = (value.float() for value in pairs(20_000))
    exact = box_probiou(boxes.double(), others.double())
    assert (box_probiou(boxes, others) - exact).abs().max() < 1e-4
    boxes[:, 3], others[:, 3] = boxes[:, 2] / 50, others[:, 2] / 50  # thin ones
    exact = box_probiou(boxes.double(), others.double())
    ours = (box_probiou(boxes, others) - exact).abs().max()
    assert ours < 1e-4
    assert (literal(boxes, others) - exact).nan_to_num(1.0).abs().max() > 10 * ours  # by determinants


def test_it_is_symmetric_and_at_most_that_of_identical_boxes():
    boxes, others = pairs(5_000)
    assert torch.equal(box_probiou(boxes, others), box_probiou(others, boxes)) or (
        (box_probiou(boxes, others) - box_probiou(others, boxes)).abs().max() < 1e-12
    )
    same = box_probiou(boxes, boxes)
    assert (same - (1 - math.sqrt(2e-7))).abs().max() < 1e-6
    assert (box_probiou(boxes, others) <= same.max()).all()
    turned = boxes[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, math.pi / 2], dtype=torch.float64)
    assert (box_probiou(boxes, turned) - same).abs().max() < 1e-6  # the same rectangle


def test_what_are_no_rotated_boxes_is_refused():
    with pytest.raises(ValueError, match=r"^boxes: expected \[..., 5\]"):
        box_probiou(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(TypeError, match=r"^others: expected a torch.Tensor"):
        box_probiou(torch.zeros(3, 5), [1.0])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_region_turns_with_the_box(preset):
    assigner = TaskAlignedAssigner(TaskAlignedConfig.from_preset(preset, topk=32))
    gt = torch.tensor([[32.0, 32.0, 60.0, 12.0, math.pi / 4]])
    inside = assigner.metric_matrix(
        gt.expand(1, len(PRIORS), 5), torch.zeros(1, len(PRIORS), 1), PRIORS, [gt], [torch.tensor([0])]
    ).inside[0, 0]
    x, y = (PRIORS[:, :2] - 32).unbind(1)
    reach = 8.0 if preset == "tal_obb" else 6.0  # a side of 12 is enlarged to 16
    expected = ((x + y).abs() / math.sqrt(2) <= 30) & ((y - x).abs() / math.sqrt(2) <= reach)
    assert torch.equal(inside, expected)
    assert expected.sum() > 5


@pytest.mark.parametrize("preset", PRESETS)
def test_priors_on_an_edge_are_inside(preset):
    gt = torch.tensor([[20.0, 20.0, 32.0, 48.0, 0.0]])  # from 4 to 36, and from -4 to 44
    assigner = TaskAlignedAssigner(preset)
    inside = assigner.metric_matrix(
        gt.expand(1, 1, 5), torch.zeros(1, 1, 1), torch.tensor([[4.0, 12.0]]), [gt], [torch.tensor([0])]
    ).inside
    assert bool(inside)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_rotated_boxes_come_in_every_form(backend):
    rng = torch.Generator().manual_seed(3)
    gts = torch.rand(2, 3, 5, generator=rng) * torch.tensor([64.0, 64.0, 20.0, 20.0, 3.0]) + 4
    near = torch.randint(0, 3, (2, len(PRIORS), 1), generator=rng).expand(-1, -1, 5)
    pred = gts.gather(1, near) + torch.randn(2, len(PRIORS), 5, generator=rng) * 0.5
    logits, labels = torch.randn(2, len(PRIORS), 4, generator=rng), torch.randint(0, 4, (2, 3), generator=rng)
    assigner = TaskAlignedAssigner("tal_obb", backend=backend)
    padded = assigner(pred, logits, PRIORS, gts, labels)
    listed = assigner(pred, logits, PRIORS[:, :2], list(gts), list(labels))
    packed = assigner(
        pred, logits, PRIORS, gts.flatten(0, 1), labels.flatten(), gt_offsets=torch.tensor([0, 3, 6])
    )
    assert padded.num_pos.min() > 3
    assert torch.equal(
        padded.gt_index,
        TaskAlignedAssigner("tal_obb", backend="reference")(pred, logits, PRIORS, gts, labels).gt_index,
    )
    for other in (listed, packed):
        assert torch.equal(other.gt_index, padded.gt_index)
        assert torch.equal(other.scores, padded.scores)
    assert padded.gt_boxes.shape == (2, len(PRIORS), 5)


def test_wrong_boxes_are_refused():
    assigner, logits = TaskAlignedAssigner("tal_obb"), torch.zeros(1, len(PRIORS), 2)
    pred, label = torch.ones(1, len(PRIORS), 5), [torch.tensor([0])]
    with pytest.raises(ValueError, match=r"^pred_boxes: expected \[B, P, 5\]"):
        assigner(pred[..., :4], logits, PRIORS, [torch.ones(1, 5)], label)
    with pytest.raises(ValueError, match=r"^gt_boxes.*rotated: \(cx, cy, w, h, angle"):
        assigner(pred, logits, PRIORS, [torch.ones(1, 4)], label)
    with pytest.raises(ValueError, match=r"^gt_boxes: expected sides w and h of 0 or more"):
        assigner(pred, logits, PRIORS, [torch.tensor([[9.0, 9.0, -4.0, 4.0, 0.0]])], label)
