"""libreyolo 1.6: the losses of RTMDet, YOLOX and PicoDet assign the batch in one call, and those of YOLO-NAS,
PP-YOLOE and YOLOv9 without a matrix over gts and priors. Its losses of keypoints and of rotated boxes are not
replaced.

Call ``patch()`` before ``train(device="0,1")``: the ranks, which import nothing of your script, inherit it,
as all Python processes do that are started later. Under ``torchrun`` each rank runs your script, and
``patch()`` in it. ``simota-triton run --patch libreyolo -- python train.py`` needs no line of code.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .assigners import assigner_for
from .patching import Package, Patch, Replacement
from .task_aligned_family import dense_targets, ppyoloe_forward
from .yolox_family import BYPASSED, padded_losses, preset_of

PACKAGE = Package("libreyolo", {"libreyolo": ("1.6",)}, "pip install libreyolo==1.6.0")
_PATCH = Patch(PACKAGE)

HELPERS = {
    "_generate_priors": ("feature_shapes", "strides", "device", "dtype"),
    "_pairwise_iou_aligned": ("boxes_a", "boxes_b"),
    "giou_loss": ("pred", "target"),
    "_bbox_to_distance": ("points", "bboxes", "max_dis", "eps"),
    "all_reduce_avg_scalar": ("value", "device", "min_value"),
}
"""Functions of ``libreyolo.models.picodet.loss`` of which PicoDet's loss consists -> their parameters."""

ASSIGNING = ("assign", "_get_in_gt_and_in_center_info", "_dynamic_k_matching")
"""Methods of PicoDet's ``SimOTAAssigner``, which its patched loss does not call."""


def patch() -> Patch:
    """Make libreyolo's detectors assign by simota_triton: RTMDet, YOLOX, PicoDet, YOLO-NAS, PP-YOLOE, YOLOv9.

    Returns:
        The patch, which is also a context manager that undoes it.

    Raises:
        ImportError: libreyolo is missing or of another version.
        AttributeError, TypeError: A loss is not laid out as expected; names the attribute.

    Example:
        >>> import simota_triton.integrations.libreyolo
        >>> simota_triton.integrations.libreyolo.patch()  # doctest: +SKIP
    """
    modules = {name: PACKAGE.load(f"libreyolo.models.{name}") for name in REPLACEMENTS}
    return _PATCH.apply(
        [replacement(modules[name]) for name, replacement in REPLACEMENTS.items()], in_children=True
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


def rtmdet_replacement(module: ModuleType) -> Replacement:
    """``DynamicSoftLabelAssigner.forward``, the value of ``RTMDetLoss.assigner``."""

    @torch.no_grad()
    def forward(
        self: Any,
        pred_bboxes: Tensor,
        pred_scores: Tensor,
        priors: Tensor,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        pad_bbox_flag: Tensor,
    ) -> dict[str, Tensor]:
        """Labels [B, P] (``num_classes`` for background), boxes [B, P, 4] and IoUs [B, P]."""
        assigner = assigner_for(
            "libre_rtmdet",
            candidate_topk=self.topk,
            center_offset=self.soft_center_radius,
            iou_weight=self.iou_weight,
        )
        result = assigner(
            pred_bboxes,
            pred_scores,
            priors,
            gt_bboxes,
            gt_labels[..., 0].long(),
            gt_mask=pad_bbox_flag[..., 0] > 0,
        )
        return {
            "assigned_labels": result.labels,
            "assigned_bboxes": result.gt_boxes.to(gt_bboxes.dtype),
            "assign_metrics": result.matched_iou.to(gt_bboxes.dtype),
        }

    owner = PACKAGE.attribute(module, "DynamicSoftLabelAssigner")
    return Replacement(owner, "forward", forward, "libre_rtmdet", ("_assign_single", "_dynamic_k_matching"))


def yolox_replacement(module: ModuleType) -> Replacement:
    """``YOLOXHead.get_losses``."""
    average = PACKAGE.attribute(module, "all_reduce_avg_scalar")
    head = PACKAGE.attribute(module, "YOLOXHead")
    preset = preset_of(PACKAGE, head)

    def get_losses(
        self: Any,
        imgs: Any,
        x_shifts: Any,
        y_shifts: Any,
        expanded_strides: Any,
        labels: Tensor,
        outputs: Tensor,
        origin_preds: Any,
        dtype: Any,
    ) -> dict[str, Any]:
        """The terms of the loss by name, their total, and positives per gt."""

        def divisor(count: int) -> float:
            # validation runs on one rank, which must not wait for the others
            if self.emit_loss_outputs and not self.training:
                return float(max(count, 1))
            value: float = average(float(count), device=outputs.device)
            return value

        values = padded_losses(
            self, preset, (x_shifts, y_shifts, expanded_strides), labels, outputs, origin_preds, divisor
        )
        return dict(
            zip(("total_loss", "iou_loss", "obj_loss", "cls_loss", "l1_loss", "num_fg"), values, strict=True)
        )

    return Replacement(head, "get_losses", get_losses, preset, BYPASSED)


def picodet_replacement(module: ModuleType) -> Replacement:
    """``PICODETLoss.forward``."""
    for name, parameters in HELPERS.items():
        PACKAGE.expect(module, name, parameters)
    loss = PACKAGE.attribute(module, "PICODETLoss")
    PACKAGE.expect(loss, "_batch_decode", ("self", "bbox_flat", "priors", "strides_per_prior"))
    original = PACKAGE.attribute(module, "SimOTAAssigner")
    helper: dict[str, Callable[..., Any]] = {name: getattr(module, name) for name in HELPERS}

    def forward(
        self: Any, cls_scores: Any, bbox_preds: Any, gt_boxes_list: Any, gt_labels_list: Any
    ) -> dict[str, Any]:
        """Varifocal, GIoU and distribution focal loss; box losses are weighted by the best class score."""
        device, batch = cls_scores[0].device, cls_scores[0].shape[0]
        sizes = [tuple(level.shape[2:]) for level in cls_scores]
        priors = helper["_generate_priors"](sizes, self.strides, device)  # [P, 4]
        # [B, P, C] and [B, P, 4 * (reg_max + 1)]
        logits, corners = (
            torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1).float()
            for levels in (cls_scores, bbox_preds)
        )
        boxes = self._batch_decode(corners, priors, priors[:, 2])  # [B, P, 4]
        gt_boxes = [own.reshape(-1, 4).to(device, torch.float32) for own in gt_boxes_list]
        gt_labels = [own.reshape(-1).to(device, torch.long) for own in gt_labels_list]
        rule = self.assigner
        PACKAGE.refuse_overrides(type(rule), original, ASSIGNING, "PICODETLoss.forward")
        assigner = assigner_for(
            "picodet_libre",
            center_radius=rule.center_radius,
            candidate_topk=rule.candidate_topk,
            iou_weight=rule.iou_weight,
            cls_weight=rule.cls_weight,
        )
        with torch.no_grad():
            result = assigner(boxes.detach(), logits.detach(), priors, gt_boxes, gt_labels)
            image, prior = result.fg_mask.nonzero(as_tuple=True)
            targets = result.gt_boxes[image, prior]  # [N, 4]
            quality = logits.detach()[image, prior].sigmoid().amax(1)  # [N]
            iou = helper["_pairwise_iou_aligned"](boxes.detach()[image, prior], targets).clamp(min=1e-6)
            soft_labels = torch.zeros_like(logits)
            soft_labels[image, prior, result.labels[image, prior]] = iou
        count, weight = image.shape[0], quality.sum()
        if self.distributed_normalize:
            num_pos = helper["all_reduce_avg_scalar"](count, device=device)
            weight = helper["all_reduce_avg_scalar"](weight, min_value=1e-6)
        else:
            num_pos, weight = float(max(count, 1)), weight.clamp(min=1e-6)
        loss_cls = self.vfl(
            logits.reshape(batch * len(priors), -1),
            soft_labels.reshape(batch * len(priors), -1),
            avg_factor=num_pos,
        )
        if not count:
            zero = corners.new_zeros(())
            # keeps the regression tower in the graph, as ranks with positives have it
            unused = corners.sum() * 0.0
            return {
                "total_loss": loss_cls + unused,
                "loss_cls": loss_cls.detach(),
                "loss_bbox": zero,
                "loss_dfl": zero,
                "num_pos": 0.0,
            }
        stride = priors[prior, 2:3]
        giou = helper["giou_loss"](boxes[image, prior], targets)
        # in strides, [N, 4]
        distances = helper["_bbox_to_distance"](
            priors[prior, :2] / stride, targets / stride, max_dis=self.reg_max, eps=0.1
        )
        dfl = self.dfl(corners[image, prior].reshape(4 * count, -1), distances.reshape(-1)).reshape(count, 4)
        loss_bbox = (quality * giou).sum() * self.bbox_loss_weight / weight
        loss_dfl = (quality[:, None] * dfl).sum() / (4.0 * weight)
        return {
            "total_loss": loss_cls + loss_bbox + loss_dfl,
            "loss_cls": loss_cls.detach(),
            "loss_bbox": loss_bbox.detach(),
            "loss_dfl": loss_dfl.detach(),
            "num_pos": float(count),
        }

    return Replacement(loss, "forward", forward, "picodet_libre")


def yolonas_replacement(module: ModuleType) -> Replacement:
    """``TaskAlignedAssigner.forward`` of YOLO-NAS, which PP-YOLOE's loss holds too."""
    return Replacement(
        PACKAGE.attribute(module, "TaskAlignedAssigner"), "forward", ppyoloe_forward, "ppyoloe"
    )


def yolo9_replacement(module: ModuleType) -> Replacement:
    """``BoxMatcher.__call__``, the value of ``YOLO9Loss.matcher``."""

    def __call__(
        self: Any, target: Tensor, predict: tuple[Tensor, Tensor], return_indices: bool = False
    ) -> tuple[Tensor, ...]:
        """Class and box targets [B, P, C + 4], positives [B, P], and with ``return_indices`` gts [B, P].

        Args:
            self: The matcher.
            target: [B, G, 5] class and xyxy, zero boxes for padding.
            predict: Logits [B, P, C] and boxes [B, P, 4].
            return_indices: Whether gts are asked for.
        """
        logits, boxes = predict
        priors = torch.cat([self.anchor_grid, self.scaler[:, None]], 1)  # [P, 3]
        overrides = {
            "topk": self.topk,
            "alpha": float(self.cls_factor),
            "beta": float(self.iou_factor),
            "max_reach": self.reg_max - 1.01,
            "score": "sigmoid",
        }
        gt_boxes = target[..., 1:]
        found = dense_targets(
            "yolo9_mit", overrides, logits, boxes, priors, target[..., 0], gt_boxes, gt_boxes.any(-1)
        )
        targets = torch.cat([found.scores, found.boxes.to(found.scores.dtype)], 2)
        return (targets, found.fg_mask, found.gt_index)[: 3 if return_indices else 2]

    bypassed = (
        "get_valid_matrix", "get_cls_matrix", "get_iou_matrix", "filter_topk", "ensure_one_anchor",
        "filter_duplicates",
    )  # fmt: skip
    return Replacement(PACKAGE.attribute(module, "BoxMatcher"), "__call__", __call__, "yolo9_mit", bypassed)


REPLACEMENTS: dict[str, Callable[[ModuleType], Replacement]] = {
    "rtmdet.loss": rtmdet_replacement,
    "yolox.nn": yolox_replacement,
    "picodet.loss": picodet_replacement,
    "yolonas.loss": yolonas_replacement,
    "yolo9.loss": yolo9_replacement,
}
"""Module of ``libreyolo.models`` -> what makes its replacement."""
