"""NanoDet-Plus 1.0.0-alpha: ``DynamicSoftLabelAssigner`` computes by ours, image by image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..boxes import box_area
from .assigners import assigner_for
from .patching import Package, Patch, Replacement

PACKAGE = Package(
    "nanodet",
    {"nanodet": ("1.0.0a0", "1.0.0-alpha")},
    "pip install git+https://github.com/RangiLyu/nanodet@be9b4a9",
)
_PATCH = Patch(PACKAGE)

UNASSIGNED = -1e8
"""Overlap of a prior without a gt in an image that has candidates."""


def patch() -> Patch:
    """Make NanoDet's assigner compute by ours, with the arguments and results it has.

    With ``ignore_iof_thr`` above 0, a prior whose predicted box lies in an ignore box by more than that share
    is marked -1; the original's index fails there unless every prior is a candidate.

    Returns:
        The patch, which is also a context manager that undoes it.

    Raises:
        ImportError: nanodet is missing or of another version.
        AttributeError, TypeError: The assigner is not laid out as expected; names the attribute.

    Example:
        >>> import simota_triton.integrations.nanodet
        >>> simota_triton.integrations.nanodet.patch()  # doctest: +SKIP
    """
    module = PACKAGE.load("nanodet.model.head.assigner.dsl_assigner")
    assign_result = PACKAGE.attribute(module, "AssignResult")
    PACKAGE.expect(assign_result, "__init__", ("self", "num_gts", "gt_inds", "max_overlaps", "labels"))
    assigner_class = PACKAGE.attribute(module, "DynamicSoftLabelAssigner")
    PACKAGE.expect(assigner_class, "__init__", ("self", "topk", "iou_factor", "ignore_iof_thr"))

    def assign(
        self: Any,
        pred_scores: Tensor,
        priors: Tensor,
        decoded_bboxes: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        gt_bboxes_ignore: Any = None,
    ) -> Any:
        """Assign one image: logits [P, C], priors [P, 4], boxes [P, 4], gts [G, 4] and [G]."""
        assigner = assigner_for("nanodet", candidate_topk=self.topk, iou_weight=float(self.iou_factor))
        result = assigner(
            decoded_bboxes[None],
            pred_scores[None],
            priors,
            [gt_bboxes.reshape(-1, 4)],
            [gt_labels.reshape(-1).long()],
        )
        own = result.to_image(0)
        overlaps = own.matched_iou.masked_fill(~own.fg_mask & own.fg_mask.any(), UNASSIGNED)
        labels = torch.where(own.fg_mask, own.labels, -1)
        gt_inds = own.gt_index + 1
        if self.ignore_iof_thr > 0 and gt_bboxes_ignore is not None and len(gt_bboxes_ignore):
            ignored = torch.as_tensor(
                gt_bboxes_ignore, dtype=decoded_bboxes.dtype, device=decoded_bboxes.device
            )
            gt_inds = gt_inds.masked_fill(_covered(decoded_bboxes, ignored) > self.ignore_iof_thr, -1)
        return assign_result(gt_bboxes.shape[0], gt_inds, overlaps, labels=labels)

    return _PATCH.apply(
        [Replacement(assigner_class, "assign", assign, "nanodet", ("dynamic_k_matching",))], in_children=True
    )


def unpatch() -> None:
    """Put the assigner back as it was."""
    _PATCH.undo()


def is_patched() -> bool:
    """Whether the assigners of this process assign by simota_triton."""
    return _PATCH.applied


def calls() -> dict[str, int]:
    """How often each patched function was called in this process, by its name."""
    return dict(_PATCH.calls)


def _covered(boxes: Tensor, ignored: Tensor) -> Tensor:
    """The largest share of each box that lies in one ignore box: [P, 4], [I, 4] -> [P]."""
    size = torch.minimum(boxes[:, None, 2:], ignored[:, 2:]) - torch.maximum(
        boxes[:, None, :2], ignored[:, :2]
    )
    inter = size.clamp(min=0).prod(2)  # [P, I]
    return (inter / box_area(boxes).clamp(min=1e-6)[:, None]).amax(1)
