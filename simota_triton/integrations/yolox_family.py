"""What the heads and losses of the YOLOX family share: decoded boxes as centre and size, objectness, cells as
priors.

yolox, libreyolo and super-gradients each loop over images; here a batch is assigned in one call, and what the
positives learn comes out in the order in which those loops would have collected it: image after image, prior
after prior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..assigners import SimOTAAssigner
from ..boxes import convert_boxes
from ..result import AssignResult
from .assigners import assigner_for
from .patching import Package

RULES = {
    "get_in_boxes_info": (
        "yolox",
        (
            "self",
            "gt_bboxes_per_image",
            "expanded_strides",
            "x_shifts",
            "y_shifts",
            "total_num_anchors",
            "num_gt",
        ),
    ),
    "get_geometry_constraint": (
        "yolox_main",
        ("self", "gt_bboxes_per_image", "expanded_strides", "x_shifts", "y_shifts"),
    ),
}
"""The method by which a head finds its candidates -> our preset, and the method's parameters."""

BYPASSED = ("get_assignments", *RULES, "dynamic_k_matching", "simota_matching")
"""What these heads find positives by, image by image; a patched head calls none of it."""


class Cells(NamedTuple):
    """The priors as these heads hold them.

    Attributes:
        x: [1, P] column of the cell.
        y: [1, P] row of the cell.
        stride: [1, P] pixels.
    """

    x: Tensor
    y: Tensor
    stride: Tensor


class Positives(NamedTuple):
    """The priors that learn a gt, and what they learn.

    Attributes:
        image: [N] int64.
        prior: [N] int64.
        gt_boxes: [N, 4] centre and size, as given.
        classes: [N, C] the IoU in the gt's class, 0 elsewhere.
        objectness: [B, P] 1 for positives, 0 elsewhere.
    """

    image: Tensor
    prior: Tensor
    gt_boxes: Tensor
    classes: Tensor
    objectness: Tensor


class LossTerms(NamedTuple):
    """Sums over positives (objectness: over priors), divided by the number of positives. Without L1, 0.0."""

    iou: Tensor
    obj: Tensor
    cls: Tensor
    l1: Tensor | float


def preset_of(package: Package, head: type) -> str:
    """Our preset for a head of the YOLOX family, by the rule it holds.

    Raises:
        AttributeError, TypeError: It holds neither rule.
    """
    rule = next((name for name in RULES if hasattr(head, name)), "get_geometry_constraint")
    preset, parameters = RULES[rule]
    package.expect(head, rule, parameters)
    return preset


@torch.no_grad()
def assign_cells(
    assigner: SimOTAAssigner, outputs: Tensor, cells: Cells, gt_boxes: Tensor, gt_labels: Tensor, **form: Any
) -> AssignResult:
    """Assign a batch.

    Args:
        assigner: Its configuration's score is ``"joint"``.
        outputs: [B, P, 5 + C] decoded centre and size in pixels, then objectness and class logits.
        cells: The priors.
        gt_boxes: [B, G, 4] or [N, 4] centre and size in pixels.
        gt_labels: [B, G] or [N], of any dtype.
        form: ``gt_mask`` for padded gts, ``gt_offsets`` for packed ones.
    """
    outputs, gt_boxes, stride = outputs.detach(), gt_boxes.float(), cells.stride[0].float()
    x, y = (cells.x[0].float() + 0.5) * stride, (cells.y[0].float() + 0.5) * stride
    priors = torch.stack([x, y, stride, stride], 1)  # [P, 4]
    return assigner(
        pred_boxes=convert_boxes(outputs[..., :4].float(), "cxcywh"),
        cls_logits=outputs[..., 5:],
        priors=priors,
        gt_boxes=convert_boxes(gt_boxes, "cxcywh"),
        gt_labels=gt_labels.long(),
        obj_logits=outputs[..., 4:5],
        gt_centers=gt_boxes[..., :2],  # the heads' own centres, not rounded by way of corners
        **form,
    )


def positives(result: AssignResult, gt_boxes: Tensor) -> Positives:
    """What the positives learn. Reads their number back, the only stall of a step.

    Args:
        result: An assignment of a batch.
        gt_boxes: [B, G, 4] or [N, 4] centre and size, as assigned.
    """
    image, prior = result.fg_mask.nonzero(as_tuple=True)
    gt = result.gt_index[image, prior]
    own = gt_boxes[image, gt] if gt_boxes.ndim == 3 else gt_boxes[result.gts.offsets[image] + gt]
    classes = (
        F.one_hot(result.labels[image, prior], result.num_classes) * result.matched_iou[image, prior, None]
    )
    return Positives(image, prior, own, classes, result.fg_mask.float())


def loss_terms(
    head: Any,
    positives: Positives,
    outputs: Tensor,
    origin_preds: Any,
    cells: Cells,
    num_fg: Any,
    obj_loss: Any,
    cls_loss: Any,
) -> LossTerms:
    """The loss by the head's own loss functions.

    Args:
        head: Has ``iou_loss``, ``l1_loss``, ``get_l1_target`` and ``use_l1``.
        positives: What is learnt.
        outputs: [B, P, 5 + C] as in :func:`assign_cells`.
        origin_preds: [B, P, 4] box outputs before decoding; without ``use_l1`` not looked at.
        cells: The priors.
        num_fg: What sums are divided by.
        obj_loss: BCE with logits, unreduced.
        cls_loss: As ``obj_loss``.
    """
    at = positives.image, positives.prior
    l1: Tensor | float = 0.0
    if head.use_l1:
        prior = positives.prior
        target = head.get_l1_target(
            outputs.new_zeros(prior.shape[0], 4), positives.gt_boxes, cells.stride[0, prior],
            x_shifts=cells.x[0, prior], y_shifts=cells.y[0, prior],
        )  # fmt: skip
        l1 = head.l1_loss(origin_preds[at], target).sum() / num_fg
    return LossTerms(
        iou=head.iou_loss(outputs[..., :4][at], positives.gt_boxes).sum() / num_fg,
        obj=obj_loss(
            outputs[..., 4:5].reshape(-1, 1), positives.objectness.reshape(-1, 1).to(outputs.dtype)
        ).sum()
        / num_fg,
        cls=cls_loss(outputs[..., 5:][at], positives.classes).sum() / num_fg,
        l1=l1,
    )


def padded_losses(
    head: Any,
    preset: str,
    shifts: tuple[list[Tensor], ...],
    labels: Tensor,
    outputs: Tensor,
    origin_preds: list[Tensor],
    average: Callable[[int], Any],
) -> tuple[Any, ...]:
    """What ``get_losses`` of a head computes.

    Args:
        head: The head.
        preset: Name of our preset.
        shifts: Columns, rows and strides of the cells, [1, P_l] for each level.
        labels: [B, G, 5] class, centre and size in pixels; an image's gts are as many leading rows as have a
            sum above 0.
        outputs: [B, P, 5 + C] decoded centre and size in pixels, then objectness and class logits.
        origin_preds: [B, P_l, 4] box outputs before decoding, for each level; empty without ``use_l1``.
        average: Number of positives -> what the loss is divided by.

    Returns:
        Total, 5 * IoU, objectness, class and L1 loss, and that divisor over the number of gts (at least 1).
    """
    cells = Cells(*(torch.cat(levels, 1) for levels in shifts))
    count = (labels.sum(2) > 0).sum(1)  # [B]
    row = torch.arange(labels.shape[1], dtype=torch.int64, device=labels.device)
    gt_mask = row < count[:, None]  # [B, G]
    result = assign_cells(
        assigner_for(preset), outputs, cells, labels[..., 1:5], labels[..., 0], gt_mask=gt_mask
    )
    learnt = positives(result, labels[..., 1:5])
    num_fg = average(learnt.prior.shape[0])
    origin = torch.cat(origin_preds, 1) if head.use_l1 else None
    terms = loss_terms(
        head, learnt, outputs, origin, cells, num_fg, head.bcewithlog_loss, head.bcewithlog_loss
    )
    total = 5.0 * terms.iou + terms.obj + terms.cls + terms.l1
    return total, 5.0 * terms.iou, terms.obj, terms.cls, terms.l1, num_fg / count.sum().clamp(min=1).float()
