"""Losses of the task-aligned family beside ultralytics': PP-YOLOE's and YOLO-NAS's, YOLOv9's, TOOD's, and
mmyolo's heads of YOLOv8 and YOLOv6.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tests.peers import libreyolo, super_gradients
from tests.peers.aligned import Targets, of_dense
from tests.peers.loading import load_without_ops
from tests.peers.openmmlab import MMDET, YOLOV6, YOLOV8, load_package
from tests.peers.peer import to_cxcywh
from tests.peers.scenes import Scene

from .aligned import AlignedTrainer, listening
from .maps import distances, distributions, level_shapes, to_maps
from .yolox_heads import pad_labels

BINS = 16


def gt_rows(scene: Scene) -> Tensor:
    """[N, 6] image, label and box of each gt. Those whose coordinates sum to 0 or less are left out: to these
    losses they are padding, which yet wins conflicts in the originals.
    """
    return torch.cat([
        torch.cat([torch.full((len(boxes), 1), image), labels[:, None], boxes], 1)[boxes.sum(1) > 0]
        for image, (boxes, labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True))
    ])  # fmt: skip


class PPYoloELoss(AlignedTrainer):
    """The loss of PP-YOLOE and YOLO-NAS.

    Args:
        package: Distribution and version.
        module: Full name of its module.
        peer: The module of tests.peers that loads and patches it.
        variants: Arguments of the loss, taken in turn.
    """

    name = "PPYoloELoss"

    def __init__(self, package: str, module: str, peer: Any, *variants: dict[str, Any]) -> None:
        self.package, self.module, self.peer, self.variants = package, module, peer, variants

    def load(self) -> None:
        self.loaded = self.peer.load_modules()[self.module]

    def make(self, num_classes: int, **arguments: Any) -> Any:
        return self.loaded.PPYoloELoss(num_classes, use_static_assigner=False, **arguments)

    def predictions(self, scene: Scene) -> Any:
        points, stride = scene.priors[:, :2], scene.priors[:, 2:3]
        logits = scene.cls_logits.clone().requires_grad_()
        sides = distributions(distances(scene) / stride, BINS + 1).requires_grad_()
        counts = [height * width for height, width in level_shapes(scene.priors)]
        anchors = torch.cat([points - 2.5 * stride, points + 2.5 * stride], 1)
        return logits, sides, anchors, points, counts, stride

    def loss(self, made: Any, predictions: Any, scene: Scene) -> dict[str, Tensor]:
        rows = gt_rows(scene)
        total, terms = made(predictions, torch.cat([rows[:, :2], to_cxcywh(rows[:, 2:])], 1))
        return {f"term {i}": term for i, term in enumerate(terms)} | {"total": total}

    @contextmanager
    def assigning(self, made: Any, *, ours: bool) -> Iterator[list[Targets]]:
        def targets(result: tuple[Tensor, ...], args: Any) -> Targets:
            return of_dense(*result, result[0] < made.num_classes)

        with (
            self.peer.patched() if ours else nullcontext(),
            listening(self.loaded.TaskAlignedAssigner, "forward", targets) as heard,
        ):
            yield heard


class YOLO9Loss(AlignedTrainer):
    name = "YOLO9Loss"
    package = "libreyolo 1.6.0"
    variants = ({}, {"topk": 7, "cls_factor": 1.0})

    def load(self) -> None:
        self.module = libreyolo.load_modules()["libreyolo.models.yolo9.loss"]

    def make(self, num_classes: int, **arguments: Any) -> Any:
        self.num_classes = num_classes
        return self.module.YOLO9Loss(
            num_classes, BINS, list(self.strides), None, torch.device("cpu"), **arguments
        )

    def predictions(self, scene: Scene) -> Any:
        sides = distributions(distances(scene) / scene.priors[:, 2:3], BINS)
        return to_maps(torch.cat([sides, scene.cls_logits], 2), scene.priors)

    def loss(self, made: Any, predictions: Any, scene: Scene) -> dict[str, Tensor]:
        height, width = (8 * side for side in level_shapes(scene.priors)[0])
        made.update_anchors([width, height])
        labels = pad_labels(scene.gt_boxes, scene.gt_labels)  # class, centre and size
        center, half = labels[..., 1:3], labels[..., 3:] / 2
        scale = torch.tensor([width, height] * 2)
        boxes = torch.cat([center - half, center + half], 2) / scale
        terms = made(predictions, torch.cat([labels[..., :1], boxes], 2))
        return {name.removesuffix("_loss"): value for name, value in terms.items()}

    @contextmanager
    def assigning(self, made: Any, *, ours: bool) -> Iterator[list[Targets]]:
        def targets(result: tuple[Tensor, ...], args: Any) -> Targets:
            scores, boxes = result[0].split((self.num_classes, 4), 2)
            return of_dense(scores.argmax(2), boxes, scores, result[1])

        with (
            libreyolo.patched() if ours else nullcontext(),
            listening(self.module.BoxMatcher, "__call__", targets) as heard,
        ):
            yield heard


class Registered(AlignedTrainer):
    """``loss_by_feat`` of a head of OpenMMLab's that a configuration built with our assigner.

    Attributes:
        assigner: Name of the assigner.
        method: What the head calls of it.
        attribute: Where the head holds it.
    """

    assigner: str
    method: str
    attribute = "assigner"

    def load(self) -> None:
        package = self.package.split()[0]
        load_package(with_mmyolo=package == "mmyolo")
        module = {"mmyolo": "batch_task_aligned_assigner"}.get(package, "task_aligned_assigner")
        name = {"mmyolo": "mmyolo"}.get(package, "mmdet")
        _, registry, self.mmengine, self.structures, assigners = load_without_ops(
            f"{name}.models", f"{name}.registry", "mmengine", "mmengine.structures",
            f"{name}.models.task_modules.assigners.{module}",
        )  # fmt: skip
        load_without_ops(f"simota_triton.integrations.{name}")
        self.build, self.original = registry.MODELS.build, getattr(assigners, self.assigner)

    def build_head(self, config: dict[str, Any], assigner: dict[str, Any]) -> Any:
        """The head, past its epochs of ATSS, and the original assigner beside it."""
        self.mmengine.MessageHub.get_instance("tests.trainers").update_info("epoch", 4)
        head = self.build(self.mmengine.ConfigDict(config))
        ours = getattr(head, self.attribute)
        assert type(ours).__module__.startswith("simota_triton")
        return SimpleNamespace(head=head, ours=ours, original=self.original(**assigner))

    @abstractmethod
    def targets(self, result: Any, args: tuple[Any, ...]) -> Targets:
        """What a call of the assigner assigned."""

    @contextmanager
    def assigning(self, made: Any, *, ours: bool) -> Iterator[list[Targets]]:
        chosen = made.ours if ours else made.original
        with (
            mock.patch.object(made.head, self.attribute, chosen),
            listening(type(chosen), self.method, self.targets) as heard,
        ):
            yield heard


class MMYolo(Registered):
    """YOLOv8's and YOLOv6's heads.

    Args:
        name: ``"YOLOv8Head"`` or ``"YOLOv6Head"``.
        assigner: Numbers of its assigner.
    """

    package = "mmyolo 0.6.0"
    assigner = "BatchTaskAlignedAssigner"
    method = "forward"

    def __init__(self, name: str, numbers: dict[str, Any]) -> None:
        self.name, self.numbers = name, numbers

    def make(self, num_classes: int) -> Any:
        numbers = {"num_classes": num_classes, **self.numbers}
        module = {"type": f"{self.name}Module", "num_classes": num_classes, "in_channels": [16, 16, 16]}
        atss = {
            "type": "BatchATSSAssigner", "num_classes": num_classes, "topk": 9,
            "iou_calculator": {"type": "mmdet.BboxOverlaps2D"},
        }  # fmt: skip
        config = {
            "type": self.name, "head_module": module,
            "train_cfg": {
                "initial_epoch": 0, "initial_assigner": atss, "assigner": {"type": self.assigner, **numbers},
            },
        }  # fmt: skip
        return self.build_head(config, numbers)

    def predictions(self, scene: Scene) -> Any:
        sides = distances(scene) / scene.priors[:, 2:3]
        counts = [height * width for height, width in level_shapes(scene.priors)]
        bins = [level.clone().requires_grad_() for level in distributions(sides, BINS).split(counts, 1)]
        return to_maps(scene.cls_logits, scene.priors), to_maps(sides, scene.priors), bins

    def loss(self, made: Any, predictions: Any, scene: Scene) -> dict[str, Tensor]:
        rows = gt_rows(scene)
        terms = made.head.loss_by_feat(*predictions, rows, [{} for _ in scene.gt_boxes])
        return terms | {"total": sum(terms.values())}

    def targets(self, result: Any, args: tuple[Any, ...]) -> Targets:
        values = (result[f"assigned_{name}"] for name in ("labels", "bboxes", "scores"))
        return of_dense(*values, result["fg_mask_pre_prior"])


class TOOD(Registered):
    name = "TOODHead"
    package = " ".join(MMDET)
    assigner = "TaskAlignedAssigner"
    method = "assign"
    attribute = "alignment_assigner"
    offset = 0.0
    variants = ({}, {"topk": 9})

    def make(self, num_classes: int, *, topk: int = 13) -> Any:
        anchors = {
            "type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1,
            "strides": list(self.strides),
        }  # fmt: skip
        config = {
            "type": self.name, "num_classes": num_classes, "in_channels": 8, "feat_channels": 8,
            "stacked_convs": 1, "anchor_type": "anchor_free", "anchor_generator": anchors,
            "norm_cfg": {"type": "BN"}, "num_dcn": 0,
            "initial_loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "activated": True},
            "loss_cls": {
                "type": "QualityFocalLoss", "use_sigmoid": True, "activated": True, "loss_weight": 1.0,
            },
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            "train_cfg": {
                "initial_epoch": 0, "initial_assigner": {"type": "ATSSAssigner", "topk": 9},
                "assigner": {"type": self.assigner, "topk": topk}, "alpha": 1, "beta": 6,
                "allowed_border": -1, "pos_weight": -1,
            },
        }  # fmt: skip
        return self.build_head(config, {"topk": topk})

    def predictions(self, scene: Scene) -> Any:
        """Probabilities, and boxes in strides."""
        boxes = scene.pred_boxes / scene.priors[:, 2:3]
        return to_maps(scene.cls_logits.sigmoid(), scene.priors), to_maps(boxes, scene.priors)

    def loss(self, made: Any, predictions: Any, scene: Scene) -> dict[str, Tensor]:
        size = tuple(8 * side for side in level_shapes(scene.priors)[0])
        gts = [
            self.structures.InstanceData(bboxes=boxes, labels=labels)
            for boxes, labels in zip(scene.gt_boxes, scene.gt_labels, strict=True)
        ]
        metas = [{"img_shape": size, "pad_shape": size} for _ in gts]
        terms = made.head.loss_by_feat(*predictions, gts, metas)
        flat = {f"{name} {i}": term for name, own in terms.items() for i, term in enumerate(own)}
        return flat | {"total": torch.stack(list(flat.values())).sum()}

    def targets(self, result: Any, args: tuple[Any, ...]) -> Targets:
        fg_mask, boxes = result.gt_inds > 0, args[2].bboxes  # self, predictions, gts
        own = boxes[(result.gt_inds - 1).clamp(min=0)] if len(boxes) else boxes.new_zeros(len(fg_mask), 4)
        return Targets(fg_mask[None], result.labels[None], own[None], result.assign_metrics[None])


TRAINERS = (
    PPYoloELoss(
        "super-gradients 3.7.1", "super_gradients.training.losses.ppyolo_loss", super_gradients,
        {}, {"use_varifocal_loss": False},
    ),
    PPYoloELoss(
        "libreyolo 1.6.0", "libreyolo.models.yolonas.loss", libreyolo, {}, {"use_varifocal_loss": False}
    ),
    YOLO9Loss(),
    TOOD(),
    MMYolo("YOLOv8Head", YOLOV8),
    MMYolo("YOLOv6Head", YOLOV6),
)  # fmt: skip
