"""Reads COCO's instances format. Annotations that cannot be used are left out and counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CommandError

LARGEST_SIDE = 1e6
"""Pixels. A box or an image that is larger is taken for a mistake."""


@dataclass(frozen=True)
class Annotation:
    """One object: its box, xyxy in pixels of the image, its class, 0 to C - 1, and whether it is a crowd."""

    box: tuple[float, float, float, float]
    label: int
    is_crowd: bool


@dataclass(frozen=True)
class ImageRecord:
    """One image.

    Attributes:
        image_id: Its id in the file.
        file_name: Its path in the file, relative to the folder of the images.
        name: The beginning of its pictures' names: the file name without its suffix, unique in the data set.
        width: In pixels.
        height: In pixels.
        annotations: The objects that can be used.
    """

    image_id: int
    file_name: str
    name: str
    width: int
    height: int
    annotations: list[Annotation] = field(default_factory=list)


@dataclass(frozen=True)
class Dataset:
    """The content of a file.

    Attributes:
        images: In the order of the file.
        classes: Names of the categories, in the order of the file; labels are indices into it.
        dropped: Reason to leave annotations out -> how many were left out.
    """

    images: list[ImageRecord]
    classes: tuple[str, ...]
    dropped: Counter[str]

    def warning(self) -> str | None:
        """One line about the annotations that were left out; None if there are none."""
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
            f"{path}: expected COCO's instances format, an object with the lists images, annotations and "
            "categories"
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
    """The images of a file by their ids."""
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
    """Add an annotation to its image; returns the reason to leave it out, or None."""
    if entry["image_id"] not in images:
        return "an unknown image"
    if entry["category_id"] not in label_of:
        return "an unknown category"
    x, y, width, height = (float(value) for value in entry["bbox"])
    usual = all(abs(value) <= LARGEST_SIDE for value in (x, y, width, height))  # False for NaN too
    if not (width > 0 and height > 0 and usual):
        return "a box that is empty, not finite or absurdly large"
    box = (x, y, x + width, y + height)
    images[entry["image_id"]].annotations.append(
        Annotation(box, label_of[entry["category_id"]], bool(entry.get("iscrowd", 0)))
    )
    return None
