"""YOLOX: Megvii's yolox 0.3 and pixeltable-yolox 0.4.

``get_losses`` of the head assigns image by image and empties the CUDA cache after each; where memory runs out it goes on
on the CPU. Here it assigns the batch in one call. Losses and ``num_fg`` are the head's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .assigners import assigner_for
from .patching import Package, Patch, Replacement
from .yolox_family import Cells, LossTerms, assign_cells, loss_terms, positives

PACKAGE = Package(
    "yolox", {"pixeltable-yolox": ("0.4",), "yolox": ("0.3",)}, "pip install pixeltable-yolox==0.4.3, or pip install yolox==0.3.0"
)
_PATCH = Patch(PACKAGE)

RULES = {
    "get_in_boxes_info": (
        "yolox",
        ("self", "gt_bboxes_per_image", "expanded_strides", "x_shifts", "y_shifts", "total_num_anchors", "num_gt"),
    ),
    "get_geometry_constraint": ("yolox_main", ("self", "gt_bboxes_per_image", "expanded_strides", "x_shifts", "y_shifts")),
}
"""The method by which a head finds its candidates -> our preset, and the method's parameters."""


def patch(head: type | None = None) -> Patch:
    """Make YOLOX's head assign the batch in one call.

    Args:
        head: The head's class, for forks that carry a copy of it. None: the installed package's.

    Returns:
        The patch, which is also a context manager that undoes it.

    Raises:
        ImportError: yolox is missing or of another version.
        AttributeError, TypeError: The head is not laid out as expected; names the attribute.

    Example:
        >>> import simota_triton.integrations.yolox
        >>> simota_triton.integrations.yolox.patch()  # doctest: +SKIP
    """
    if head is None:
        module = PACKAGE.load("yolox.models.yolo_head")
        head = PACKAGE.attribute(module, "YoloxHead" if hasattr(module, "YoloxHead") else "YOLOXHead")
    return _PATCH.apply([Replacement(head, "get_losses", _get_losses(preset_of(PACKAGE, head)))])


def unpatch() -> None:
    """Put the heads back as they were."""
    _PATCH.undo()


def preset_of(package: Package, head: type) -> str:
    """Our preset for a head of the YOLOX family, by the rule it holds.

    Raises:
        AttributeError, TypeError: It holds neither rule.
    """
    rule = next((name for name in RULES if hasattr(head, name)), "get_geometry_constraint")
    preset, parameters = RULES[rule]
    package.expect(head, rule, parameters)
    return preset


def padded_losses(
    head: Any, preset: str, cells: Cells, labels: Tensor, outputs: Tensor, origin_preds: Tensor | None, average: Callable[[int], Any]
) -> tuple[LossTerms, Any]:
    """The loss of a batch whose gts come as YOLOX pads them.

    Args:
        head: The head.
        preset: Name of our preset.
        cells: The priors.
        labels: [B, G, 5] class, centre and size in pixels; an image's gts are as many leading rows as have a sum above 0.
        outputs: [B, P, 5 + C] decoded centre and size, then objectness and class logits.
        origin_preds: [B, P, 4] or None.
        average: Number of positives -> what the loss is divided by.

    Returns:
        The terms, and that divisor over the number of gts (at least 1).
    """
    count = (labels.sum(2) > 0).sum(1)  # [B]
    gt_mask = torch.arange(labels.shape[1], device=labels.device) < count[:, None]  # [B, G]
    result = assign_cells(assigner_for(preset), outputs, cells, labels[..., 1:5], labels[..., 0], gt_mask=gt_mask)
    learnt = positives(result, labels[..., 1:5])
    num_fg = average(learnt.prior.shape[0])
    terms = loss_terms(head, learnt, outputs, origin_preds, cells, num_fg, head.bcewithlog_loss, head.bcewithlog_loss)
    return terms, num_fg / count.sum().clamp(min=1)


def _get_losses(preset: str) -> Callable[..., Any]:
    def get_losses(
        self: Any, imgs: Any, x_shifts: Any, y_shifts: Any, expanded_strides: Any, labels: Tensor, outputs: Tensor, origin_preds: Any,
        dtype: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Total, 5 * IoU, objectness, class and L1 loss, and positives per gt."""
        cells = Cells(torch.cat(x_shifts, 1), torch.cat(y_shifts, 1), torch.cat(expanded_strides, 1))
        origin = torch.cat(origin_preds, 1) if self.use_l1 else None
        terms, num_fg = padded_losses(self, preset, cells, labels, outputs, origin, lambda count: max(count, 1))
        return 5.0 * terms.iou + terms.obj + terms.cls + terms.l1, 5.0 * terms.iou, terms.obj, terms.cls, terms.l1, num_fg

    return get_losses
