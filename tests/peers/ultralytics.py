"""ultralytics 8.3 and 8.4: ``TaskAlignedAssigner`` of detection, and its one-to-one heads."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from types import ModuleType
from typing import Any
from unittest import mock

from simota_triton.integrations import ultralytics as integration
from simota_triton.integrations.patching import Patch

from .aligned import AlignedPeer, Targets, of_dense
from .loading import isolated, load, site, unpacked
from .openmmlab import padded
from .scenes import Scene

NEWEST = "8.4.190"


@cache
def load_modules(version: str) -> dict[str, ModuleType]:
    """``ultralytics.utils.tal`` and ``.loss``, by their full names."""
    root = site("ultralytics", version) if version == NEWEST else unpacked(f"ultralytics-{version}")
    names = ("ultralytics.utils.tal", "ultralytics.utils.loss")
    with importable(), isolated(root, {"ultralytics": {"__version__": version}}):
        return {name: load(name) for name in names}


@contextmanager
def importable() -> Iterator[None]:
    """In the block ultralytics can be imported: its settings go to a temporary folder, and it is told a
    version of torchvision, which it asks for and which nothing here uses, so that it need not be installed.
    """
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())
    os.environ.setdefault("YOLO_VERBOSE", "false")
    version = importlib.metadata.version

    def stated(name: str) -> str:
        return "0.0.0" if name == "torchvision" else version(name)

    with mock.patch.object(importlib.metadata, "version", stated):
        yield


def patched(version: str = NEWEST) -> Patch:
    """The integration's own ``patch()`` of these modules; whether it takes a version is tested elsewhere."""
    with mock.patch.dict("sys.modules", load_modules(version)):
        return integration.patch()


def load_assigner(version: str, name: str, *, ours: bool = False) -> Any:
    cls = getattr(load_modules(version)["ultralytics.utils.tal"], name)

    def assign(scene: Scene, **arguments: Any) -> Targets:
        """``get_assigned_targets_and_loss``, but that every gt is one."""
        boxes, logits, priors, *gts = padded(scene)
        assigner = cls(
            **{"topk": 10, "num_classes": scene.num_classes, "alpha": 0.5, "beta": 6.0, **arguments}
        )
        inputs = logits.sigmoid(), boxes, priors[:, :2], *gts
        with patched(version) if ours else nullcontext():
            labels, own, scores, fg_mask, _ = assigner(*inputs)
        return of_dense(labels, own, scores, fg_mask)

    return assign


def peer(version: str, preset: str, *variants: tuple[dict[str, Any], dict[str, Any]]) -> AlignedPeer:
    rotated = preset.startswith("tal_obb")
    name = "RotatedTaskAlignedAssigner" if rotated else "TaskAlignedAssigner"
    return AlignedPeer(
        name=name,
        rotated=rotated,
        package=f"ultralytics {version}",
        preset=preset,
        load=partial(load_assigner, version, name),
        drop_in=partial(load_assigner, version, name, ours=True),
        variants=(({}, {}), *variants, ({"alpha": 1.0, "beta": 4.0}, {"alpha": 1.0, "beta": 4.0})),
    )


ONE_TO_ONE = (
    ({"topk": 7, "topk2": 1}, {"topk": 7, "topk2": 1}),  # YOLO26
    ({"topk": 1}, {"topk": 1}),  # YOLOv10
)
FINE = ({"stride": [4.0, 8.0, 16.0, 32.0]}, {"min_side_below": 8.0, "min_side_to": 8.0})
FINE_840 = ({"stride": [4.0, 8.0, 16.0, 32.0]}, {"min_side_below": 4.0, "min_side_to": 8.0})

PEERS = (
    peer(NEWEST, "tal", *ONE_TO_ONE, FINE),
    peer("8.4.150", "tal", *ONE_TO_ONE, FINE),
    peer("8.4.100", "tal_840", *ONE_TO_ONE, FINE_840),
    peer("8.4.0", "tal_840", *ONE_TO_ONE, FINE_840),
    peer("8.3.253", "tal_v8", ONE_TO_ONE[1]),
    peer("8.3.0", "tal_v8", ONE_TO_ONE[1]),
    peer(NEWEST, "tal_obb", *ONE_TO_ONE, FINE),
    peer("8.4.150", "tal_obb", *ONE_TO_ONE, FINE),
    peer("8.4.0", "tal_obb_v8", *ONE_TO_ONE),
    peer("8.3.253", "tal_obb_v8", ONE_TO_ONE[1]),
    peer("8.3.0", "tal_obb_v8", ONE_TO_ONE[1]),
)
