"""ultralytics 8.4.190: the losses of detection, segmentation and poses, and those of end-to-end heads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.peers.aligned import Targets, of_dense
from tests.peers.peer import to_cxcywh
from tests.peers.scenes import Scene
from tests.peers.ultralytics import NEWEST, load_modules, patched

from .aligned import AlignedTrainer, listening
from .maps import distances, distributions, level_shapes

GAINS = {
    "box": 7.5,
    "cls": 0.5,
    "dfl": 1.5,
    "pose": 12.0,
    "kobj": 1.0,
    "angle": 1.0,
    "epochs": 100,
    "overlap_mask": True,
}
KEYPOINTS = 17
MASKS = 32


def listening_to(
    tal: ModuleType, assigner: str = "TaskAlignedAssigner"
) -> AbstractContextManager[list[Targets]]:
    """Collects what an assigner of ``ultralytics.utils.tal`` assigns."""
    return listening(getattr(tal, assigner), "forward", lambda result, args: of_dense(*result[:4]))


class DetectionLoss(AlignedTrainer):
    """A loss on the outputs of a ``Detect`` head; ``reg_max`` is 1 in YOLO26."""

    name = "v8DetectionLoss"
    assigner = "TaskAlignedAssigner"
    package = f"ultralytics {NEWEST}"
    variants = ({}, {"reg_max": 1})

    def load(self) -> None:
        modules = load_modules(NEWEST)
        self.tal, self.losses = modules["ultralytics.utils.tal"], modules["ultralytics.utils.loss"]

    def make(self, num_classes: int, *, reg_max: int = 16) -> Any:
        head = SimpleNamespace(
            stride=torch.tensor([float(stride) for stride in self.strides]),
            nc=num_classes,
            reg_max=reg_max,
            kpt_shape=[KEYPOINTS, 3],
        )
        model = nn.Linear(1, 1)  # which has a device
        model.args, model.model = SimpleNamespace(**GAINS), [head]
        self.reg_max = reg_max
        return getattr(self.losses, self.name)(model)

    def predictions(self, scene: Scene) -> dict[str, Any]:
        return self.outputs(scene, scene.cls_logits)

    def outputs(self, scene: Scene, logits: Tensor) -> dict[str, Any]:
        """What a ``Detect`` head puts out."""
        sides = distances(scene) / scene.priors[:, 2:3]
        if self.reg_max > 1:
            sides = distributions(sides, self.reg_max)
        batch = len(scene.gt_boxes)
        return {
            "boxes": sides.transpose(1, 2).contiguous().requires_grad_(),
            "scores": logits.transpose(1, 2).clone().contiguous().requires_grad_(),
            "feats": [torch.zeros(batch, 1, *shape) for shape in level_shapes(scene.priors)],
        }

    def batch(self, scene: Scene) -> dict[str, Tensor]:
        """Gts as the data loader hands them out, in parts of the image."""
        height, width = (scene.priors[:, i].max() + scene.priors[-1, 2] / 2 for i in (1, 0))
        counts = torch.tensor([len(own) for own in scene.gt_boxes])
        return {
            "batch_idx": torch.arange(len(counts)).repeat_interleave(counts).float(),
            "cls": torch.cat(scene.gt_labels)[:, None].float(),
            "bboxes": to_cxcywh(torch.cat(scene.gt_boxes)) / torch.stack([width, height] * 2),
        }

    def loss(self, made: Any, predictions: dict[str, Any], scene: Scene) -> dict[str, Tensor]:
        terms, _ = made(predictions, self.batch(scene))
        return {f"term {i}": term for i, term in enumerate(terms)} | {"total": terms.sum()}

    @contextmanager
    def assigning(self, made: Any, *, ours: bool) -> Iterator[list[Targets]]:
        with patched() if ours else nullcontext(), listening_to(self.tal, self.assigner) as heard:
            yield heard


class SegmentationLoss(DetectionLoss):
    name = "v8SegmentationLoss"
    reads_zeros = True
    variants = ({},)

    def outputs(self, scene: Scene, logits: Tensor) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(scene.seed)
        batch, num_priors = logits.shape[:2]
        height, width = (2 * side for side in level_shapes(scene.priors)[0])
        return super().outputs(scene, logits) | {
            "mask_coefficient": torch.randn(batch, MASKS, num_priors, generator=generator).requires_grad_(),
            "proto": torch.randn(batch, MASKS, height, width, generator=generator).requires_grad_(),
        }

    def batch(self, scene: Scene) -> dict[str, Tensor]:
        masks = torch.zeros(len(scene.gt_boxes), *(side // 4 for side in scene.size))
        for own, image in zip(scene.masks, masks, strict=True):
            for i, mask in enumerate(own[:, 2::4, 2::4]):
                image[mask] = i + 1
        return super().batch(scene) | {"masks": masks}


class PoseLoss(DetectionLoss):
    name = "v8PoseLoss"
    reads_zeros = True
    variants = ({},)

    def outputs(self, scene: Scene, logits: Tensor) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(scene.seed)
        batch, num_priors = logits.shape[:2]
        keypoints = torch.randn(batch, 3 * KEYPOINTS, num_priors, generator=generator)
        return super().outputs(scene, logits) | {"kpts": keypoints.requires_grad_()}

    def batch(self, scene: Scene) -> dict[str, Tensor]:
        batch = super().batch(scene)
        generator = torch.Generator().manual_seed(scene.seed)
        count = len(batch["cls"])
        place = torch.rand(count, KEYPOINTS, 2, generator=generator) - 0.5
        boxes = batch["bboxes"][:, None]
        seen = torch.randint(0, 3, (count, KEYPOINTS, 1), generator=generator).float()
        return batch | {"keypoints": torch.cat([boxes[..., :2] + place * boxes[..., 2:], seen], 2)}


class OBBLoss(DetectionLoss):
    """Rotated boxes; gts and predictions are turned."""

    name = "v8OBBLoss"
    assigner = "RotatedTaskAlignedAssigner"
    variants = ({},)

    def outputs(self, scene: Scene, logits: Tensor) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(scene.seed)
        angle = torch.randn(logits.shape[0], 1, logits.shape[1], generator=generator)
        return super().outputs(scene, logits) | {"angle": angle.requires_grad_()}

    def batch(self, scene: Scene) -> dict[str, Tensor]:
        batch = super().batch(scene)
        generator = torch.Generator().manual_seed(scene.seed)
        angle = 3.14 * (torch.rand(len(batch["cls"]), 1, generator=generator) - 0.25)
        return batch | {"bboxes": torch.cat([batch["bboxes"], angle], 1)}


class EndToEnd(DetectionLoss):
    """Two heads: YOLOv10's losses (``E2EDetectLoss``) and YOLO26's (``E2ELoss``)."""

    def __init__(self, name: str, **arguments: Any) -> None:
        self.name = name
        self.variants = (arguments,)

    def predictions(self, scene: Scene) -> dict[str, Any]:
        return {
            "one2many": self.outputs(scene, scene.cls_logits),
            "one2one": self.outputs(scene, 1.5 * scene.cls_logits),
        }


TRAINERS = (
    DetectionLoss(),
    SegmentationLoss(),
    PoseLoss(),
    OBBLoss(),
    EndToEnd("E2EDetectLoss"),
    EndToEnd("E2ELoss", reg_max=1),
)
