"""An image as an assigner sees it: fitted into a square, with boxes in the pixels of the square."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import CommandError
from .coco import Annotation, ImageRecord

if TYPE_CHECKING:
    from PIL.Image import Image

SHIPPED = Path(__file__).with_name("scene.json")
"""The scene that comes with the package: invented boxes in COCO's format, without a photo."""


@dataclass(frozen=True)
class Scene:
    """An image, fitted into a square.

    Attributes:
        name: The beginning of its pictures' names.
        image_size: Side of the square in pixels.
        content: Width and height of the photo in the square, where it begins in the upper left corner; the
            rest is padding.
        photo: The photo in that size, or None for a plain background.
        gt_boxes: [G, 4] float32 xyxy in pixels of the square.
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
    """Fit an image into a square as YOLOX and mmdet do: its longer side becomes that of the square, and the
    padding is at the right or at the bottom.

    Args:
        record: The image.
        classes: Names of the C classes.
        images: Folder of the image files; None for a plain background.
        image_size: Side of the square in pixels.

    Raises:
        CommandError: The image file is missing, cannot be read, or has another size than the annotations say.
    """
    scale = image_size / max(record.width, record.height)
    content = (max(1, round(record.width * scale)), max(1, round(record.height * scale)))
    ratios = [content[0] / record.width, content[1] / record.height] * 2
    ratio = torch.tensor(ratios, dtype=torch.float32, device="cpu")

    def tensors(annotations: list[Annotation]) -> tuple[Tensor, Tensor]:
        boxes = torch.tensor([a.box for a in annotations], dtype=torch.float32, device="cpu")
        labels = torch.tensor([a.label for a in annotations], dtype=torch.int64, device="cpu")
        return boxes.reshape(-1, 4) * ratio, labels

    photo = None
    if images is not None:
        photo = _photo(images / record.file_name, (record.width, record.height), content)
    gt_boxes, gt_labels = tensors([a for a in record.annotations if not a.is_crowd])
    ignore_boxes, ignore_labels = tensors([a for a in record.annotations if a.is_crowd])
    return Scene(
        record.name, image_size, content, photo, gt_boxes, gt_labels, ignore_boxes, ignore_labels, classes
    )


def _photo(path: Path, declared: tuple[int, int], content: tuple[int, int]) -> Image:
    """Read a photo of the size ``declared`` and scale it to the size ``content``."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            # COCO's boxes are in pixels of the file as it is stored; other tools' boxes are in pixels of the
            # photo as its EXIF tag turns it
            image = file if file.size == declared else ImageOps.exif_transpose(file)
            if image.size != declared:
                raise CommandError(
                    f"{path}: expected {declared[0]} x {declared[1]} pixels, as the annotations say, "
                    f"got {file.size[0]} x {file.size[1]}"
                )
            return image.convert("RGB").resize(content, Image.Resampling.BILINEAR)
    except FileNotFoundError:
        raise CommandError(f"{path}: no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CommandError(f"{path}: is no readable image: {error}") from None
