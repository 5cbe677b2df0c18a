"""COCO's instances format, read with care: what cannot be used is counted, never passed on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CommandError

LARGEST_SIDE = 1e6
"""Pixels. A box beyond this is a mistake, and its area would leave float32's comfort."""


@dataclass(frozen=True)
class Annotation:
    """One object: xyxy box in the image's pixels, class in 0..C-1, and whether it is a crowd region."""

    box: tuple[float, float, float, float]
    label: int
    is_crowd: bool


@dataclass(frozen=True)
class ImageRecord:
    """One image.

    Attributes:
        image_id: The id in the file.
        file_name: As in the file, relative to the images' folder.
        name: What its pictures are called: the file name without its suffix, unique in the data set.
        width: Pixels.
        height: Pixels.
        annotations: Its usable objects.
    """

    image_id: int
    file_name: str
    name: str
    width: int
    height: int
    annotations: list[Annotation] = field(default_factory=list)


@dataclass(frozen=True)
class Dataset:
    """The file.

    Attributes:
        images: In the file's order.
        classes: Names; a label is a place in it, categories in the file's order.
        dropped: Why annotations were left out -> how many.
    """

    images: list[ImageRecord]
    classes: tuple[str, ...]
    dropped: Counter[str]

    def warning(self) -> str | None:
        """One line about the annotations left out, or None."""
        if not self.dropped:
            return None
        reasons = ", ".join(f"{number} with {reason}" for reason, number in self.dropped.items())
        return f"annotations left out: {self.dropped.total()} ({reasons})"


def read_coco(path: Path) -> Dataset:
    """Read an instances file.

    Raises:
        CommandError: The file is missing, is no JSON, or its images or categories are not in COCO's form.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path}: is no JSON: {error}") from None
    if not isinstance(data, dict) or not all(
        isinstance(data.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise CommandError(
            f"{path}: expected COCO's instances format, an object with the lists images, annotations and categories"
        )
    try:
        label_of = {category["id"]: label for label, category in enumerate(data["categories"])}
        classes = tuple(" ".join(str(category["name"]).split()) for category in data["categories"])
        images = _images(data["images"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CommandError(
            f"{path}: an entry of images or categories is not in COCO's form: {type(error).__name__} {error}"
        ) from None
    if not classes:
        raise CommandError(f"{path}: has no categories")
    dropped: Counter[str] = Counter()
    for entry in data["annotations"]:
        try:
            reason = _add(entry, images, label_of)
        except (KeyError, TypeError, ValueError, OverflowError):
            reason = "fields that are missing or of the wrong type"
        if reason:
            dropped[reason] += 1
    return Dataset(list(images.values()), classes, dropped)


def _images(entries: list[Any]) -> dict[int, ImageRecord]:
    records: dict[int, ImageRecord] = {}
    names = set()
    for entry in entries:
        file_name = str(entry["file_name"])
        name = Path(file_name).with_suffix("").as_posix().replace("/", "_")
        name = name if name not in names else f"{name}-{entry['id']}"
        names.add(name)
        width, height = int(entry["width"]), int(entry["height"])
        if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
            raise ValueError(f"{file_name} is {width} x {height} pixels")
        records[entry["id"]] = ImageRecord(int(entry["id"]), file_name, name, width, height)
    return records


def _add(entry: dict[str, Any], images: dict[int, ImageRecord], label_of: dict[int, int]) -> str | None:
    """Add one annotation to its image, or say why not."""
    if entry["image_id"] not in images:
        return "an unknown image"
    if entry["category_id"] not in label_of:
        return "an unknown category"
    x, y, width, height = (float(value) for value in entry["bbox"])
    if not (
        width > 0 and height > 0 and all(abs(value) <= LARGEST_SIDE for value in (x, y, width, height))
    ):  # refuses NaN too
        return "a box that is empty, not finite or absurdly large"
    box = (x, y, x + width, y + height)
    images[entry["image_id"]].annotations.append(
        Annotation(box, label_of[entry["category_id"]], bool(entry.get("iscrowd", 0)))
    )
    return None
