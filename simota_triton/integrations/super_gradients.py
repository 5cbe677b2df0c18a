"""super-gradients 3.7: ``YoloXDetectionLoss`` and ``YoloXFastDetectionLoss`` assign the batch in one call,
and the ``TaskAlignedAssigner`` of ``PPYoloELoss`` (PP-YOLOE, YOLO-NAS) forms no matrix over gts and priors.
While ``use_static_assigner`` is set, that loss assigns by its ATSS, which is not replaced.

Call ``patch()`` before ``setup_device`` or ``train``: Python processes that are started later inherit it.
``simota-triton run --patch super_gradients -- python train.py`` needs no line of code.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..result import AssignResult
from .assigners import assigner_for
from .patching import Package, Patch, Replacement
from .task_aligned_family import ppyoloe_forward
from .yolox_family import BYPASSED, Cells, assign_cells, loss_terms, positives, preset_of

PACKAGE = Package("super_gradients", {"super-gradients": ("3.7",)}, "pip install super-gradients==3.7.1")
_PATCH = Patch(PACKAGE)


def patch() -> Patch:
    """Make super-gradients' losses of YOLOX, PP-YOLOE and YOLO-NAS assign by simota_triton.

    Returns:
        The patch, which is also a context manager that undoes it.

    Raises:
        ImportError: super-gradients is missing or of another version.
        AttributeError, TypeError: A loss is not laid out as expected; names the attribute.

    Example:
        >>> import simota_triton.integrations.super_gradients
        >>> simota_triton.integrations.super_gradients.patch()  # doctest: +SKIP
    """
    yolox, ppyolo = (
        PACKAGE.load(f"super_gradients.training.losses.{name}") for name in ("yolox_loss", "ppyolo_loss")
    )
    return _PATCH.apply(
        [loop_replacement(yolox), fast_replacement(yolox), ppyoloe_replacement(ppyolo)], in_children=True
    )


def unpatch() -> None:
    """Put the losses back as they were."""
    _PATCH.undo()


def is_patched() -> bool:
    """Whether the losses of this process assign by simota_triton."""
    return _PATCH.applied


def calls() -> dict[str, int]:
    """How often each patched function was called in this process, by its name."""
    return dict(_PATCH.calls)


def loop_replacement(module: ModuleType) -> Replacement:
    """``YoloXDetectionLoss._compute_loss``."""
    loss_class = PACKAGE.attribute(module, "YoloXDetectionLoss")
    preset_of(PACKAGE, loss_class)  # the rule of YOLOX 0.3, with a guarded IoU and a radius of its own

    def _compute_loss(self: Any, predictions: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """The total, and its terms with positives per gt, detached."""
        *cells, outputs, origin = self.prepare_predictions(predictions)
        own_cells = Cells(*cells)
        rows, result = _assign(
            outputs,
            own_cells,
            targets,
            ("super_gradients", {"center_radius": float(self.center_sampling_radius)}),
        )
        learnt = positives(result, rows[:, 2:6])
        num_fg = max(learnt.prior.shape[0], 1)
        terms = loss_terms(
            self,
            learnt,
            outputs,
            origin,
            own_cells,
            num_fg,
            self.obj_bcewithlog_loss,
            self.cls_bcewithlog_loss,
        )
        total = (
            self.iou_weight * terms.iou + self.obj_weight * terms.obj + self.cls_weight * terms.cls + terms.l1
        )
        parts = (*terms, num_fg / max(targets.shape[0], 1), total)
        return total, torch.stack(
            [torch.as_tensor(part, dtype=total.dtype, device=total.device) for part in parts]
        ).detach()

    return Replacement(loss_class, "_compute_loss", _compute_loss, "super_gradients", BYPASSED)


def fast_replacement(module: ModuleType) -> Replacement:
    """``YoloXFastDetectionLoss._compute_matching``."""
    loss_class = PACKAGE.attribute(module, "YoloXFastDetectionLoss")

    @torch.no_grad()
    def _compute_matching(
        self: Any,
        bbox_preds: Tensor,
        cls_preds: Tensor,
        obj_preds: Tensor,
        expanded_strides: Tensor,
        x_shifts: Tensor,
        y_shifts: Tensor,
        labels: Tensor,
        ious_loss_cost_coeff: float = 3.0,
        outside_boxes_and_center_cost_coeff: float = 100000.0,
    ) -> tuple[Tensor, ...]:
        """Prior, class, gt, image and IoU of each positive, and the gts [T, 5]."""
        outputs = torch.cat([bbox_preds, obj_preds, cls_preds], 2)
        overrides = {
            "iou_weight": ious_loss_cost_coeff,
            "penalty": outside_boxes_and_center_cost_coeff,
            "k_scale": 1.0 if self.dynamic_ks_bias is None else float(self.dynamic_ks_bias),
        }
        rows, result = _assign(
            outputs, Cells(x_shifts, y_shifts, expanded_strides), labels, ("super_gradients_fast", overrides)
        )
        image, prior = result.fg_mask.nonzero(as_tuple=True)
        gt = result.gts.offsets[image] + result.gt_index[image, prior]
        return prior, rows[gt, 1], gt, image, result.matched_iou[image, prior], rows[:, 1:]

    bypassed = (
        "_get_initial_matching",
        "_compute_dynamic_ks",
        "_compute_cost_order",
        "_compute_ranks",
        "_compute_is_first_mask",
    )
    return Replacement(loss_class, "_compute_matching", _compute_matching, "super_gradients_fast", bypassed)


def ppyoloe_replacement(module: ModuleType) -> Replacement:
    """``TaskAlignedAssigner.forward`` of ``ppyolo_loss``."""
    return Replacement(
        PACKAGE.attribute(module, "TaskAlignedAssigner"), "forward", ppyoloe_forward, "ppyoloe"
    )


def _assign(
    outputs: Tensor, cells: Cells, targets: Tensor, rule: tuple[str, dict[str, float]]
) -> tuple[Tensor, AssignResult]:
    """Targets [T, 6] (image, class, centre, size) sorted by image, and their assignment as packed gts."""
    rows = targets[targets[:, 0].argsort(stable=True)]
    images = torch.arange(outputs.shape[0] + 1, device=rows.device, dtype=torch.int64)
    gt_offsets = torch.searchsorted(rows[:, 0].long(), images)
    preset, overrides = rule
    return rows, assign_cells(
        assigner_for(preset, **overrides), outputs, cells, rows[:, 2:6], rows[:, 1], gt_offsets=gt_offsets
    )
