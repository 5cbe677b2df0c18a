"""mmyolo 0.5 and 0.6: ``BatchDynamicSoftLabelAssigner`` (RTMDet, RTMDet-Ins) and ``BatchTaskAlignedAssigner``
(YOLOv6, YOLOv8, PP-YOLOE), in place of mmyolo's of the same names::

    custom_imports = dict(imports=["simota_triton.integrations.mmyolo"], allow_failed_imports=False)

What deviates: a prior inside no gt, and a padded gt, is never assigned. mmyolo can select such a prior where
a gt asks for more priors than it has candidates, also before candidates that cost more than 1e8, and lets
padding win conflicts. A prior of metric 0 is never selected by ``BatchTaskAlignedAssigner``. ATSS, by which
YOLOv6 and PP-YOLOE begin, stays mmyolo's. mmyolo's YOLOX holds mmdet's ``SimOTAAssigner``: import
``simota_triton.integrations.mmdet`` for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import SimOTAConfig, TaskAlignedConfig
from .assigners import assigner_for
from .openmmlab import check_iou_calculator
from .patching import Package
from .task_aligned_family import dense_targets

PACKAGE = Package(
    "mmyolo", {"mmyolo": ("0.5", "0.6")}, "pip install mmyolo==0.6.0, which needs mmdet 3 and mmcv >=2.0,<2.1"
)


@PACKAGE.load("mmyolo.registry").TASK_UTILS.register_module(force=True)
class BatchDynamicSoftLabelAssigner(nn.Module):
    """RTMDet's assigner for a batch of padded gts (``task_modules/assigners/batch_dsl_assigner.py``).

    Args:
        num_classes: C.
        soft_center_radius: Strides from the gt's centre within which the centre prior stays below 1.
        topk: How many of the largest IoUs are summed to a gt's number of priors, 1 to 32.
        iou_weight: Factor of the IoU cost.
        iou_calculator: ``mmdet.BboxOverlaps2D``, the default.
        batch_iou: As the original takes it; without effect.

    Raises:
        ValueError: Another ``iou_calculator``, or a number out of range.

    Example:
        >>> from mmyolo.registry import TASK_UTILS  # doctest: +SKIP
        >>> TASK_UTILS.build(dict(type="BatchDynamicSoftLabelAssigner", num_classes=80))  # doctest: +SKIP
    """

    def __init__(
        self, num_classes: int, soft_center_radius: float = 3.0, topk: int = 13, iou_weight: float = 3.0,
        iou_calculator: Any = "mmdet.BboxOverlaps2D", batch_iou: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        check_iou_calculator(iou_calculator)
        self.num_classes = num_classes
        self.overrides = {
            "center_offset": soft_center_radius,
            "candidate_topk": topk,
            "iou_weight": iou_weight,
        }
        # refuses a number out of range now, when the model is built
        SimOTAConfig.rtmdet_mmyolo(**self.overrides)

    @torch.no_grad()
    def forward(
        self,
        pred_bboxes: Tensor,
        pred_scores: Tensor,
        priors: Tensor,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        pad_bbox_flag: Tensor,
        ignore_boxes: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Assign a batch.

        Args:
            pred_bboxes: [B, P, 4] decoded predictions, xyxy.
            pred_scores: [B, P, C] logits.
            priors: [P, 4] x, y, stride_x, stride_y.
            gt_labels: [B, G, 1], of any dtype.
            gt_bboxes: [B, G, 4] xyxy, padded.
            pad_bbox_flag: [B, G, 1], 0 for padding.
            ignore_boxes: [B, I, 4] xyxy crowds, zeros for padding. A prior that no gt gets has weight 0
                where its cell's centre lies inside one. mmyolo has no such argument, and drops crowds before
                its heads see them: this one is for heads of your own.

        Returns:
            A dict of

            - ``assigned_labels`` [B, P] int64: ``num_classes`` for background.
            - ``assigned_labels_weights`` [B, P]: 1, or 0 for what is ignored.
            - ``assigned_bboxes`` [B, P, 4], in the dtype of ``gt_bboxes``: 0 for background.
            - ``assign_metrics`` [B, P], in the dtype of ``gt_bboxes``: the IoU, 0 for background.

        Raises:
            ValueError: Boxes are rotated (their last dimension is 5), scores have other than ``num_classes``
                classes, or an argument is not what it should be. The message names the argument.
        """
        check_inputs(pred_bboxes, gt_bboxes, pred_scores, self.num_classes)
        result = assigner_for("rtmdet_mmyolo", **self.overrides)(
            pred_bboxes,
            pred_scores,
            priors,
            gt_bboxes,
            gt_labels[..., 0].long(),
            gt_mask=pad_bbox_flag[..., 0] > 0,
            ignore_boxes=ignore_boxes,
        )
        return {
            "assigned_labels": result.labels,
            "assigned_labels_weights": (~result.ignore_mask).to(gt_bboxes.dtype),
            "assigned_bboxes": result.gt_boxes.to(gt_bboxes.dtype),
            "assign_metrics": result.matched_iou.to(gt_bboxes.dtype),
        }


@PACKAGE.load("mmyolo.registry").TASK_UTILS.register_module(force=True)
class BatchTaskAlignedAssigner(nn.Module):
    """The task-aligned assigner for a batch of padded gts
    (``task_modules/assigners/batch_task_aligned_assigner.py``).

    Args:
        num_classes: C.
        topk: How many priors a gt selects, 1 to 32.
        alpha: Exponent of the class score.
        beta: Exponent of the overlap.
        eps: Added to the largest metric of a gt.
        use_ciou: Whether overlaps are CIoU, as in YOLOv8, or IoU, as in YOLOv6.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> from mmyolo.registry import TASK_UTILS  # doctest: +SKIP
        >>> TASK_UTILS.build(dict(type="BatchTaskAlignedAssigner", num_classes=80))  # doctest: +SKIP
    """

    def __init__(
        self, num_classes: int, topk: int = 13, alpha: float = 1.0, beta: float = 6.0, eps: float = 1e-7,
        use_ciou: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_classes = num_classes
        self.preset = "tal_mmyolo" if use_ciou else "yolov6_mmyolo"
        self.overrides = {"topk": topk, "alpha": float(alpha), "beta": float(beta), "norm_eps": float(eps)}
        # refuses a number out of range now, when the model is built
        TaskAlignedConfig.from_preset(self.preset, **self.overrides)

    @torch.no_grad()
    def forward(
        self,
        pred_bboxes: Tensor,
        pred_scores: Tensor,
        priors: Tensor,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        pad_bbox_flag: Tensor,
    ) -> dict[str, Tensor]:
        """Assign a batch.

        Args:
            pred_bboxes: [B, P, 4] decoded predictions, xyxy.
            pred_scores: [B, P, C] probabilities.
            priors: [P, 4] x, y, stride_x, stride_y.
            gt_labels: [B, G, 1], of any dtype.
            gt_bboxes: [B, G, 4] xyxy, padded.
            pad_bbox_flag: [B, G, 1], 0 for padding.

        Returns:
            A dict of

            - ``assigned_labels`` [B, P] int64: of background the label of the image's first gt, or
              ``num_classes`` where the batch has none, as in mmyolo.
            - ``assigned_bboxes`` [B, P, 4], in the dtype of ``gt_bboxes``: of background the first gt's.
            - ``assigned_scores`` [B, P, C]: 0 for background.
            - ``fg_mask_pre_prior`` [B, P] bool.

        Raises:
            ValueError: Boxes are rotated, scores have other than ``num_classes`` classes, or an argument is
                not what it should be. The message names the argument.
        """
        check_inputs(pred_bboxes, gt_bboxes, pred_scores, self.num_classes)
        found = dense_targets(
            self.preset, self.overrides, pred_scores, pred_bboxes, priors[:, :2], gt_labels[..., 0],
            gt_bboxes, pad_bbox_flag[..., 0],
        )  # fmt: skip
        return {
            "assigned_labels": found.labels,
            "assigned_bboxes": found.boxes,
            "assigned_scores": found.scores,
            "fg_mask_pre_prior": found.fg_mask,
        }


def check_inputs(pred_bboxes: Tensor, gt_bboxes: Tensor, pred_scores: Tensor, num_classes: int) -> None:
    """Refuse rotated boxes and other numbers of classes.

    Raises:
        ValueError: It names the argument.
    """
    for name, boxes in (("pred_bboxes", pred_bboxes), ("gt_bboxes", gt_bboxes)):
        if boxes.shape[-1] != 4:
            raise ValueError(
                f"{name}: expected axis-aligned boxes [..., 4], got {list(boxes.shape)}; keep mmyolo's own "
                "for rotated boxes"
            )
    if pred_scores.shape[2] != num_classes:
        raise ValueError(
            f"pred_scores: expected [B, P, C] with C = num_classes = {num_classes}, got "
            f"{list(pred_scores.shape)}"
        )
