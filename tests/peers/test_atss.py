"""``atss_assign`` beside the originals' own classes."""

import pytest
import torch

from simota_triton import atss_assign, grid_priors

from . import atss
from .loading import Missing

SCENES = 40
CLASSES, SIZE, STRIDES = 5, 256, (8, 16, 32)
MOST_TIES = 2
"""Positives of all scenes that may hang on the last bit of a threshold."""


def scene(seed):
    """Padded gts of three images and predictions near them."""
    rng = torch.Generator().manual_seed(seed)
    batch, count = 3, int(torch.randint(1, 20, (), generator=rng))
    priors = grid_priors(SIZE, STRIDES, offset=0.5)
    center = torch.rand(batch, count, 2, generator=rng) * SIZE
    size = torch.exp(torch.randn(batch, count, 2, generator=rng) * 0.8 + 3.2)
    boxes = torch.cat([center - size / 2, center + size / 2], -1).clamp(0, SIZE)
    labels = torch.randint(0, CLASSES, (batch, count), generator=rng)
    mask = torch.rand(batch, count, generator=rng) < 0.8
    mask[:, 0] = True
    near = torch.randint(0, count, (batch, len(priors), 1), generator=rng).expand(-1, -1, 4)
    noise = torch.randn(batch, len(priors), 4, generator=rng) * 5
    return priors, boxes * mask[..., None], labels, mask, boxes.gather(1, near) + noise


@pytest.mark.parametrize("name", ["mmdet", "mmyolo", "super_gradients"])
def test_it_assigns_as_the_original_does(name):
    try:
        original = getattr(atss, f"load_{name}")()
    except Missing as error:
        pytest.skip(str(error))
    options = atss.MMDET if name == "mmdet" else {}
    levels = [(SIZE // stride) ** 2 for stride in STRIDES]
    positives = different = 0
    for seed in range(SCENES):
        priors, boxes, labels, mask, pred = scene(seed)
        reach = priors[:, 2:] * options.get("anchor_size", 5.0) / 2
        anchors = torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], 1)
        learnt, targets = original(priors, anchors, levels, boxes, labels, mask, pred, CLASSES)
        ours = atss_assign(
            priors, boxes, labels, CLASSES, gt_mask=mask, **options, pred_boxes=None if options else pred
        )
        wrong = (learnt != ours.gt_boxes).any(-1)
        positives, different = positives + int(ours.fg_mask.sum()), different + int(wrong.sum())
        if name != "mmdet":
            error = (targets - ours.target_scores()).abs().amax(2)[~wrong]
            assert float(error.max()) < 2e-6
    assert positives > 500
    assert different <= MOST_TIES, f"{different} of {positives} priors"
    print(f"{name}: {positives} positives, {different} different")
