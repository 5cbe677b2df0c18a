"""``atss_assign`` against loops written from its docstring."""

import pytest
import torch

from simota_triton import atss_assign, box_iou, grid_priors

PRIORS = grid_priors(96, (8, 16, 32), offset=0.5)
CLASSES = 4
VARIANTS = [
    {},
    {"anchor_size": 8.0, "margin": 0.01, "at_threshold": True, "conflict": "matched"},
    {"topk": 3},
]


def scene(seed, count=9):
    rng = torch.Generator().manual_seed(seed)
    center = torch.rand(count, 2, generator=rng) * 96
    size = torch.exp(torch.randn(count, 2, generator=rng) * 0.6 + 3.2)
    return torch.cat([center - size / 2, center + size / 2], 1), torch.randint(
        0, CLASSES, (count,), generator=rng
    )


def literal(boxes, priors, topk=9, anchor_size=5.0, margin=0.0, at_threshold=False, conflict="all"):
    """Owner of each prior of one image, -1 for none."""
    reach = priors[:, 2:3] * anchor_size / 2
    iou = box_iou(
        boxes[:, None], torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], 1), rule="max", eps=1e-6
    )
    takers = [[] for _ in range(len(priors))]
    for gt, box in enumerate(boxes):
        candidates = []
        for stride in priors[:, 2].unique().tolist():
            own = (priors[:, 2] == stride).nonzero().squeeze(1).tolist()
            far = ((priors[:, :2] - (box[:2] + box[2:]) / 2) ** 2).sum(1).tolist()
            candidates += sorted(own, key=lambda p: (far[p], p))[:topk]
        values = iou[gt, candidates]
        threshold = float(values.mean() + values.std())
        for p in candidates:
            x, y = priors[p, :2]
            deep = min(x - box[0], y - box[1], box[2] - x, box[3] - y)
            enough = iou[gt, p] >= threshold if at_threshold else iou[gt, p] > threshold
            if enough and deep > margin:
                takers[p].append(gt)
    owners = []
    for p, gts in enumerate(takers):
        rivals = range(len(boxes)) if len(gts) > 1 and conflict == "all" else gts
        owners.append(max(rivals, key=lambda gt: (float(iou[gt, p]), -gt)) if gts else -1)
    return torch.tensor(owners)


@pytest.mark.parametrize("options", VARIANTS)
def test_it_is_what_its_docstring_says(options):
    positives = conflicts = 0
    for seed in range(12):
        boxes, labels = scene(seed)
        found = atss_assign(PRIORS, [boxes], [labels], CLASSES, **options)
        assert found.gt_index[0].tolist() == literal(boxes, PRIORS, **options).tolist()
        taken = found.fg_mask[0]
        assert torch.equal(found.labels[0][taken], labels[found.gt_index[0][taken]])
        assert found.labels[0][~taken].unique().tolist() == [CLASSES]
        positives, conflicts = positives + int(taken.sum()), conflicts + int((found.claims > 1).sum())
    assert positives > 100
    assert conflicts > 3


def test_all_forms_of_gts_give_one_answer():
    (boxes, labels), (more, others) = scene(1), scene(2, 4)
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    listed = atss_assign(PRIORS, [boxes, nothing[0], more], [labels, nothing[1], others], CLASSES)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    padded, classes = torch.full((3, 9, 4), 7.0), torch.full((3, 9), -1)
    for image, (own, own_labels) in ((0, (boxes, labels)), (2, (more, others))):
        mask[image, : len(own)] = True
        padded[image, : len(own)], classes[image, : len(own)] = own, own_labels
    packed = torch.cat([boxes, more]), torch.cat([labels, others])
    offsets = torch.tensor([0, 9, 9, 13])
    for found in (
        atss_assign(PRIORS, padded, classes, CLASSES, gt_mask=mask, validate=False),
        atss_assign(PRIORS, *packed, CLASSES, gt_offsets=offsets),
    ):
        for name in ("gt_index", "labels", "matched_iou", "claims"):
            assert torch.equal(getattr(found, name), getattr(listed, name)), name
    assert listed.num_pos[1] == 0
    assert listed.dynamic_k.tolist() == [9 * 3] * 13  # its largest level has 9 priors


def test_predictions_give_the_targets():
    boxes, labels = scene(3)
    plain = atss_assign(PRIORS, [boxes], [labels], CLASSES)
    learnt = plain.gt_boxes + torch.tensor([0.0, 0.0, 2.0, 0.0])
    found = atss_assign(PRIORS, [boxes], [labels], CLASSES, pred_boxes=learnt)
    assert torch.equal(found.gt_index, plain.gt_index)
    expected = torch.where(plain.fg_mask, box_iou(learnt, plain.gt_boxes), 0.0)
    assert torch.equal(found.scores, expected)
    assert not torch.equal(found.scores, plain.scores)


def test_unusable_gts_take_no_part():
    boxes, labels = scene(4)
    without = atss_assign(PRIORS, [boxes[1:]], [labels[1:]], CLASSES)
    for bad in (torch.nan, torch.inf):
        spoilt = boxes.clone()
        spoilt[0, 2] = bad
        found = atss_assign(PRIORS, [spoilt], [labels], CLASSES, validate=False)
        assert torch.equal(found.gt_index, torch.where(without.fg_mask, without.gt_index + 1, -1))
        assert found.num_refused.tolist() == [1]


def test_small_levels_have_fewer_candidates():
    few = grid_priors(32, (16, 32), offset=0.5)  # of 4 priors and of 1
    found = atss_assign(few, [torch.tensor([[0.0, 0.0, 32.0, 32.0]])], [torch.tensor([0])], CLASSES)
    assert found.dynamic_k.tolist() == [5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topk": 0}, "topk: expected 1 to 32, got 0"),
        ({"anchor_size": 0.0}, "anchor_size: expected a number above 0"),
        ({"conflict": "inside"}, "conflict: expected one of 'all', 'matched', got 'inside'"),
        ({"priors": PRIORS[:, :2]}, r"priors: expected \[P, 3\] x, y, stride"),
        ({"pred_boxes": torch.zeros(1, 3, 4)}, r"pred_boxes: expected \[B, P, 4\]"),
        ({"num_classes": 1}, r"gt_labels: expected labels in \[0, 1\)"),
    ],
)
def test_bad_input_is_refused(change, message):
    boxes, labels = scene(5)
    arguments = {
        "priors": PRIORS,
        "gt_boxes": [boxes],
        "gt_labels": [labels.clamp(min=1)],
        "num_classes": CLASSES,
    }
    with pytest.raises(ValueError, match=f"^{message}"):
        atss_assign(**arguments | change)
