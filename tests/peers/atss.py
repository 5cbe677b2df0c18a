"""ATSS in mmdet 3.3.0, mmyolo 0.6.0 and super-gradients 3.7.1."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .loading import isolated, load, load_without_ops, site

TOPK = 9
MMDET: dict[str, Any] = {"anchor_size": 8.0, "margin": 0.01, "at_threshold": True, "conflict": "matched"}
"""What TOOD's first epochs ask of ``atss_assign``; the others are its defaults."""

Original = Callable[..., tuple[Tensor, Tensor]]
"""(priors [P, 4], anchors [P, 4], priors of each level, padded gts: boxes, labels, mask, predictions, C) ->
boxes learnt [B, P, 4], 0 for background, and targets of the classes [B, P, C]."""


def load_mmdet() -> Original:
    """``ATSSAssigner``, image by image; it has no targets."""
    site("mmdet", "3.3.0")
    site("mmengine", "0.10.7")
    module, structures = load_without_ops(
        "mmdet.models.task_modules.assigners.atss_assigner", "mmengine.structures"
    )

    def assign(
        priors: Tensor, anchors: Tensor, levels: list[int],
        boxes: Tensor, labels: Tensor, mask: Tensor, pred: Tensor, c: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        learnt = torch.zeros_like(pred)
        for b, real in enumerate(mask):
            own = boxes[b][real]
            found = module.ATSSAssigner(topk=TOPK).assign(
                structures.InstanceData(priors=anchors),
                levels,
                structures.InstanceData(bboxes=own, labels=labels[b][real]),
            )
            taken = found.gt_inds > 0
            learnt[b][taken] = own[found.gt_inds[taken] - 1]
        return learnt, torch.zeros((*pred.shape[:2], c))

    return assign


def load_mmyolo() -> Original:
    """``BatchATSSAssigner``."""
    for package in (("mmdet", "3.3.0"), ("mmengine", "0.10.7"), ("mmyolo", "0.6.0")):
        site(*package)
    (module,) = load_without_ops("mmyolo.models.task_modules.assigners.batch_atss_assigner")
    load_without_ops("mmdet.models.task_modules.assigners.iou2d_calculator")

    def assign(
        priors: Tensor, anchors: Tensor, levels: list[int],
        boxes: Tensor, labels: Tensor, mask: Tensor, pred: Tensor, c: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        assigner = module.BatchATSSAssigner(c, iou_calculator={"type": "mmdet.BboxOverlaps2D"}, topk=TOPK)
        found = assigner(pred, priors, levels, labels[..., None].float(), boxes, mask[..., None].float())
        taken = found["fg_mask_pre_prior"].bool()
        return torch.where(taken[..., None], found["assigned_bboxes"], 0.0), found["assigned_scores"][..., :c]

    return assign


def load_super_gradients() -> Original:
    """``ATSSAssigner`` of the PP-YOLOE loss."""
    root = "super_gradients"
    register = {"register_loss": lambda *args, **kwargs: lambda cls: cls}
    shells = {
        root: {},
        f"{root}.common": {},
        f"{root}.common.object_names": {"Losses": type("Losses", (), {"PPYOLOE_LOSS": ""})},
        f"{root}.common.registry": {},
        f"{root}.common.registry.registry": register,
        f"{root}.common.environment": {},
        f"{root}.common.environment.ddp_utils": {
            "get_world_size": lambda: 1,
            "is_distributed": lambda: False,
        },
        f"{root}.common.abstractions": {},
        f"{root}.common.abstractions.abstract_logger": {"get_logger": logging.getLogger},
        f"{root}.training": {},
        f"{root}.training.utils": {"torch_version_is_greater_or_equal": lambda major, minor: True},
        f"{root}.training.losses": {},
        f"{root}.training.datasets": {},
        f"{root}.training.datasets.data_formats": {},
        f"{root}.training.datasets.data_formats.bbox_formats": {},
    }
    with isolated(site("super-gradients", "3.7.1"), shells, ("torchvision", "omegaconf", "cv2")):
        losses = load(f"{root}.training.losses.ppyolo_loss")

    def assign(
        priors: Tensor, anchors: Tensor, levels: list[int],
        boxes: Tensor, labels: Tensor, mask: Tensor, pred: Tensor, c: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        assigner = losses.ATSSAssigner(topk=TOPK, num_classes=c)
        gts = labels[..., None], boxes, mask[..., None].float()
        found, learnt, scores = assigner(anchors, levels, *gts, bg_index=c, pred_bboxes=pred)[:3]
        return torch.where((found < c)[..., None], learnt, 0.0), scores

    return assign
