"""One image as an assigner sees it: fitted into a square, boxes in the square's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import CommandError
from .coco import ImageRecord

if TYPE_CHECKING:
    from PIL.Image import Image

SHIPPED = Path(__file__).with_name("scene.json")
"""The shipped scene: invented boxes in COCO's format, without a photo."""


@dataclass(frozen=True)
class Scene:
    """One image.

    Attributes:
        name: Stem of its pictures' names.
        image_size: Pixels a side of the square.
        content: Width and height of the photo inside the square, from the upper left corner; the rest is
            padding.
        photo: The photo at that size, or None for a plain background.
        gt_boxes: [G, 4] float32 xyxy in the square's pixels.
        gt_labels: [G] int64.
        ignore_boxes: [I, 4] float32 xyxy, the crowd regions.
        ignore_labels: [I] int64.
        classes: Names of the C classes.
    """

    name: str
    image_size: int
    content: tuple[int, int]
    photo: Image | None
    gt_boxes: Tensor
    gt_labels: Tensor
    ignore_boxes: Tensor
    ignore_labels: Tensor
    classes: tuple[str, ...]


def load_scene(record: ImageRecord, classes: tuple[str, ...], images: Path | None, image_size: int) -> Scene:
    """Fit an image into the square: scaled to its longer side, padding at the right or bottom, as YOLOX and
    mmdet do.

    Raises:
        CommandError: The image file is missing, cannot be read, or has another size than the annotations say.
    """
    scale = image_size / max(record.width, record.height)
    content = (max(1, round(record.width * scale)), max(1, round(record.height * scale)))
    ratio = torch.tensor(
        [content[0] / record.width, content[1] / record.height] * 2, dtype=torch.float32, device="cpu"
    )
    gts = [a for a in record.annotations if not a.is_crowd]
    crowds = [a for a in record.annotations if a.is_crowd]
    return Scene(
        name=record.name,
        image_size=image_size,
        content=content,
        photo=None
        if images is None
        else _photo(images / record.file_name, (record.width, record.height), content),
        gt_boxes=torch.tensor([a.box for a in gts], dtype=torch.float32, device="cpu").reshape(-1, 4) * ratio,
        gt_labels=torch.tensor([a.label for a in gts], dtype=torch.int64, device="cpu"),
        ignore_boxes=torch.tensor([a.box for a in crowds], dtype=torch.float32, device="cpu").reshape(-1, 4)
        * ratio,
        ignore_labels=torch.tensor([a.label for a in crowds], dtype=torch.int64, device="cpu"),
        classes=classes,
    )


def _photo(path: Path, declared: tuple[int, int], content: tuple[int, int]) -> Image:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            # COCO's boxes belong to the pixels as stored, other tools' to the picture as turned by its EXIF
            # tag
            image = file if file.size == declared else ImageOps.exif_transpose(file)
            if image.size != declared:
                raise CommandError(
                    f"{path}: expected {declared[0]} x {declared[1]} pixels, as the annotations say, got {file.size[0]} x {file.size[1]}"
                )
            return image.convert("RGB").resize(content, Image.Resampling.BILINEAR)
    except FileNotFoundError:
        raise CommandError(f"{path}: no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CommandError(f"{path}: is no readable image: {error}") from None
