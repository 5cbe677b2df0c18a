"""Small detectors that train on real photos: the smallest RTMDet of libreyolo, and the smallest YOLOX of
libreyolo and of pixeltable-yolox.

Networks and losses are the packages' own. They are loaded module by module, so that the packages' heavy
dependencies need not be installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from simota_triton.cli.demo.coco import read_coco
from tests.peers.loading import isolated, load, site

from .libreyolo import RTMDet
from .trainer import Trainer
from .yolox_heads import LibreYolox, Pixeltable, YoloxHead

NUM_CLASSES = 80
MEAN, DEVIATION = 114.0, 58.0
"""Mean and standard deviation that pixels are normalised by."""


class Detector(NamedTuple):
    """A network with random weights, and its loss.

    Attributes:
        trainer: Computes the loss, with the original's assigner or with ours.
        network: The network.
        made: The loss, or the head that computes it.
    """

    trainer: Trainer
    network: nn.Module
    made: Any

    def predict(self, images: Tensor) -> dict[str, Any]:
        """The predictions that the network passes to its loss."""
        if isinstance(self.trainer, RTMDet):
            return dict(zip(("cls", "box"), self.network(images), strict=True))
        return intercepted(self.network, self.made, images)


def intercepted(network: nn.Module, head: Any, images: Tensor) -> dict[str, Any]:
    """The arguments that a YOLOX head calls its own ``get_losses`` with."""
    kept: dict[str, Any] = {}
    names = ("imgs", "x_shifts", "y_shifts", "expanded_strides", "labels", "outputs", "origin_preds")
    head.get_losses = lambda *args, dtype: kept.update(zip(names, args, strict=True))
    try:
        head(network[0](images), torch.zeros(0), images)
    finally:
        del head.get_losses
    return {name: kept[name] for name in names if name not in ("imgs", "labels")}


def make(name: str, device: str) -> Detector:
    """A detector of ``DETECTORS``.

    Raises:
        Missing: Its package is not installed.
    """
    trainer = DETECTORS[name]()
    trainer.load()
    if isinstance(trainer, RTMDet):
        shells = {"libreyolo": {}, "libreyolo.models": {}, "libreyolo.models.rtmdet": {}}
        with isolated(site("libreyolo", "1.6.0"), shells):
            network = load("libreyolo.models.rtmdet.nn").LibreRTMDetModel("t", NUM_CLASSES)
        return Detector(trainer, network.to(device), trainer.make(NUM_CLASSES).to(device))
    assert isinstance(trainer, YoloxHead)
    scale = {"width": 0.25, "depthwise": True}  # YOLOX-Nano
    module = trainer.modules[
        "yolox.models.yolo_pafpn" if name == "pixeltable_yolox" else "libreyolo.models.yolox.nn"
    ]
    backbone = getattr(module, "YoloPafpn" if name == "pixeltable_yolox" else "YOLOPAFPN")(
        depth=0.33, **scale
    )
    head = trainer.head(NUM_CLASSES, **scale)
    head.initialize_biases(0.01)
    return Detector(trainer, nn.Sequential(backbone, head).to(device), head.to(device))


DETECTORS: dict[str, type[Trainer]] = {
    "libreyolo_rtmdet": RTMDet,
    "pixeltable_yolox": Pixeltable,
    "libreyolo_yolox": LibreYolox,
}


class Photos(NamedTuple):
    """A data set in memory.

    Attributes:
        pixels: [N, 3, S, S] uint8, photos fitted into a square and padded at the right and the bottom.
        gt_boxes: N tensors [G, 4] xyxy in pixels of the square, without crowds.
        gt_labels: N tensors [G].
    """

    pixels: Tensor
    gt_boxes: list[Tensor]
    gt_labels: list[Tensor]

    def batches(self, batch: int, seed: int) -> Iterator[tuple[Tensor, list[Tensor], list[Tensor]]]:
        """Endless batches of shuffled photos, mirrored at random: images [B, 3, S, S] float and their gts."""
        generator = torch.Generator().manual_seed(seed)
        side = self.pixels.shape[3]
        while True:
            for chosen in torch.randperm(len(self.pixels), generator=generator).split(batch):
                if len(chosen) < batch:
                    continue
                images, boxes = self.pixels[chosen].float(), [self.gt_boxes[i] for i in chosen.tolist()]
                for b in (torch.rand(batch, generator=generator) < 0.5).nonzero().flatten().tolist():
                    images[b] = images[b].flip(2)
                    boxes[b] = torch.stack(
                        [side - boxes[b][:, 2], boxes[b][:, 1], side - boxes[b][:, 0], boxes[b][:, 3]], 1
                    )
                yield (images - MEAN) / DEVIATION, boxes, [self.gt_labels[i] for i in chosen.tolist()]


def read_photos(folder: Path, size: int) -> Photos:
    """Read the data set in a folder, ``instances.json`` and ``images/``, at ``size`` pixels a side."""
    pixels, gt_boxes, gt_labels = [], [], []
    for record in read_coco(folder / "instances.json").images:
        scale = size / max(record.width, record.height)
        with Image.open(folder / "images" / record.file_name) as file:
            small = file.convert("RGB").resize(
                (max(1, round(record.width * scale)), max(1, round(record.height * scale)))
            )
        square = torch.full((3, size, size), int(MEAN), dtype=torch.uint8)
        square[:, : small.height, : small.width] = torch.from_numpy(np.array(small)).permute(2, 0, 1)
        own = [entry for entry in record.annotations if not entry.is_crowd]
        pixels.append(square)
        gt_boxes.append(torch.tensor([entry.box for entry in own]).reshape(-1, 4) * scale)
        gt_labels.append(torch.tensor([entry.label for entry in own], dtype=torch.int64))
    return Photos(torch.stack(pixels), gt_boxes, gt_labels)
