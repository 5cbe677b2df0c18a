"""Heads of yolox 0.3.0, pixeltable-yolox 0.4.3 and libreyolo 1.6.0, and super-gradients' losses."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simota_triton.integrations import libreyolo, yolox
from simota_triton.integrations.patching import Patch
from tests.peers.libreyolo import load_modules as load_libreyolo
from tests.peers.loading import export, isolated, load, site, unpacked
from tests.peers.peer import cells, to_cxcywh
from tests.peers.scenes import Scene
from tests.peers.super_gradients import load_losses, patched

from .trainer import Ear, Trainer, offered

TERMS = ("total", "iou", "obj", "cls", "l1", "num_fg")


class YoloxHead(Trainer):
    """``get_losses`` of a head."""

    on_grid = True
    variants = ({}, {"use_l1": True})
    head: type
    modules: dict[str, ModuleType]

    def patch(self) -> Patch:
        with offered(self.modules):
            return yolox.patch()

    def make(self, num_classes: int, *, use_l1: bool = False) -> Any:
        head = self.head(num_classes, width=1 / 64, in_channels=[256, 512, 1024])
        head.use_l1 = use_l1
        return head

    def predictions(self, scene: Scene) -> dict[str, Any]:
        x_shifts, y_shifts, strides = cells(scene)
        outputs = torch.cat([to_cxcywh(scene.pred_boxes), scene.obj_logits, scene.cls_logits], 2)
        raw = torch.randn(*outputs.shape[:2], 4, generator=torch.Generator().manual_seed(scene.seed))
        return {
            "x_shifts": [x_shifts],
            "y_shifts": [y_shifts],
            "expanded_strides": [strides],
            "outputs": outputs.requires_grad_(),
            "origin_preds": [raw.requires_grad_()],
        }

    def loss(
        self, made: Any, predictions: dict[str, Any], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> dict[str, Tensor]:
        labels = pad_labels(gt_boxes, gt_labels).to(predictions["outputs"].device)
        result = type(made).get_losses(
            made, None, labels=labels, dtype=predictions["outputs"].dtype, **predictions
        )
        values = (
            [result[f"{name}_loss"] for name in TERMS[:5]] + [result["num_fg"]]
            if isinstance(result, dict)
            else result
        )
        return dict(zip(TERMS, map(torch.as_tensor, values), strict=True))

    def listen(self, made: Any, ear: Ear) -> None:
        listen_to_get_assignments(made, ear)

    def deafen(self, made: Any) -> None:
        del made.get_assignments


class Megvii(YoloxHead):
    name = "YOLOXHead.get_losses"
    package = "yolox 0.3.0"

    def load(self) -> None:
        self.modules = load_yolox(unpacked("yolox-0.3.0"), "yolo_head")
        self.head = self.modules["yolox.models.yolo_head"].YOLOXHead


class Pixeltable(YoloxHead):
    name = "YoloxHead.get_losses"
    package = "pixeltable-yolox 0.4.3"

    def load(self) -> None:
        self.modules = load_yolox(site("pixeltable-yolox", "0.4.3"), "yolo_head", "yolo_pafpn")
        self.head = self.modules["yolox.models.yolo_head"].YoloxHead


class LibreYolox(YoloxHead):
    name = "YOLOXHead.get_losses"
    package = "libreyolo 1.6.0"

    def load(self) -> None:
        self.modules = load_libreyolo()
        self.head = self.modules["libreyolo.models.yolox.nn"].YOLOXHead

    def patch(self) -> Patch:
        with offered(self.modules):
            return libreyolo.patch()


class SuperGradients(Trainer):
    """A loss, whose gts of all images are rows of one table; ``interleaved``: not image after image."""

    name = "YoloXDetectionLoss"
    package = "super-gradients 3.7.1"
    on_grid = True
    interleaved = True
    variants = ({}, {"use_l1": True}, {"center_sampling_radius": 1.5})

    def load(self) -> None:
        self.module = load_losses()

    def patch(self) -> Patch:
        return patched()

    def make(self, num_classes: int, **arguments: Any) -> Any:
        return getattr(self.module, self.name)(list(self.strides), num_classes, **arguments)

    def predictions(self, scene: Scene) -> dict[str, Any]:
        outputs = torch.cat([to_cxcywh(scene.pred_boxes), scene.obj_logits, scene.cls_logits], 2)
        raw = torch.randn(*outputs.shape[:2], 4, generator=torch.Generator().manual_seed(scene.seed))
        return {"cells": cells(scene), "outputs": outputs.requires_grad_(), "raw": raw.requires_grad_()}

    def loss(
        self, made: Any, predictions: dict[str, Any], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> dict[str, Tensor]:
        """The loss decodes raw outputs; it is handed decoded ones, so that boxes stay on their grid."""
        made.prepare_predictions = lambda raw: (
            *predictions["cells"],
            predictions["outputs"],
            predictions["raw"],
        )
        image = torch.arange(len(gt_boxes)).repeat_interleave(torch.tensor([len(own) for own in gt_boxes]))
        targets = torch.cat(
            [image[:, None], torch.cat(gt_labels)[:, None], to_cxcywh(torch.cat(gt_boxes))], 1
        )
        if self.interleaved:
            place = torch.cat([torch.arange(len(own)) for own in gt_boxes])
            targets = targets[place.argsort(stable=True)]
        total, parts = made._compute_loss([], targets)
        return {"total": total, **dict(zip((*TERMS[1:], "logged total"), parts, strict=True))}

    def listen(self, made: Any, ear: Ear) -> None:
        listen_to_get_assignments(made, ear)

    def deafen(self, made: Any) -> None:
        del made.get_assignments


class SuperGradientsFast(SuperGradients):
    name = "YoloXFastDetectionLoss"
    interleaved = False  # what is listened to counts gts by their rows
    variants = ({}, {"dynamic_ks_bias": 1.3}, {"dynamic_ks_bias": None})

    def listen(self, made: Any, ear: Ear) -> None:
        compute, count_k, combine = (
            made._compute_matching,
            made._compute_dynamic_ks,
            made._combine_candidates_img_id_fg_id,
        )
        counts = [len(own) for own in ear.owners.dynamic_k]
        first = torch.tensor([0, *counts]).cumsum(0)

        def ks(ids: Tensor, ious: Tensor, bias: float) -> Any:
            result = count_k(ids, ious, bias)
            for gt, k in zip(ids.unique().tolist(), result[0].tolist(), strict=True):
                own = int((first <= gt).sum()) - 1
                ear.owners.dynamic_k[own][gt - first[own]] = k
            return result

        def pairs(images: Tensor, priors: Tensor) -> Any:
            ear.owners.claims.index_put_(
                (images, priors), torch.ones_like(images, dtype=torch.int32), accumulate=True
            )
            return combine(images, priors)

        def matching(*args: Any) -> Any:
            prior, _, gt, image, iou, _ = result = compute(*args)
            ear.owners.gt_index[image, prior], ear.owners.iou[image, prior] = gt - first[image], iou
            return result

        made._compute_matching, made._compute_dynamic_ks, made._combine_candidates_img_id_fg_id = (
            matching,
            ks,
            pairs,
        )

    def deafen(self, made: Any) -> None:
        del made._compute_matching, made._compute_dynamic_ks, made._combine_candidates_img_id_fg_id


def pad_labels(gt_boxes: list[Tensor], gt_labels: list[Tensor]) -> Tensor:
    """[B, G, 5] class, centre and size, zero rows after each image's gts."""
    width = max(1, *(len(own) for own in gt_boxes))
    rows = [
        torch.cat([own_labels[:, None].float(), to_cxcywh(own)], 1)
        for own, own_labels in zip(gt_boxes, gt_labels, strict=True)
    ]
    return torch.stack([F.pad(own, (0, 0, 0, width - len(own))) for own in rows])


def listen_to_get_assignments(made: Any, ear: Ear) -> None:
    """Images come one by one; two originals fail on one without a candidate prior."""
    original = made.get_assignments

    def get_assignments(image: int, num_gt: int, *args: Any) -> Any:
        try:
            result = ear.call(image, original, image, num_gt, *args)
        except (RuntimeError, UnboundLocalError) as error:
            if "selected index k out of range" not in str(error) and "pos_idx" not in str(error):
                raise
            ear.repaired += 1
            nobody = torch.zeros(ear.owners.gt_index.shape[1], dtype=torch.bool)
            return torch.zeros(0), nobody, torch.zeros(0), torch.zeros(0, dtype=torch.long), 0
        _, fg_mask, iou, gt_index, _ = result
        ear.write(image, fg_mask, gt_index, iou)
        return result

    made.get_assignments = get_assignments


def load_yolox(root: Path, *models: str) -> dict[str, ModuleType]:
    """Modules of ``yolox.models``, by their full names."""
    shells = {"yolox": {}, "yolox.utils": {"visualize_assign": None}, "yolox.models": {}}
    with isolated(root, shells, ("torchvision", "loguru", "cv2", "PIL.Image")):
        export("yolox.utils", "boxes", "compat")
        return {f"yolox.models.{name}": load(f"yolox.models.{name}") for name in models}
