"""YOLOv6 and YOLOv9 as packages on PyPI hold them (GPL: run, not copied): ``TaskAlignedAssigner``."""

from __future__ import annotations

from functools import partial
from typing import Any

from .aligned import AlignedPeer, Targets, of_dense
from .loading import isolated, load, unpacked
from .openmmlab import padded
from .scenes import Scene


def load_yolov6() -> Any:
    with isolated(unpacked("yolov6detect-0.4.1"), {"yolov6": {}, "yolov6.assigners": {}}):
        return load("yolov6.assigners.tal_assigner").TaskAlignedAssigner


def load_yolov9() -> Any:
    plain = {"TryExcept": lambda message: lambda method: method, "threaded": lambda method: method}
    shells = {"utils": plain, "utils.tal": {}}
    root = unpacked("yolov9pip-0.0.4") / "yolov9"
    with isolated(root, shells, ("matplotlib", "matplotlib.pyplot")):
        return load("utils.tal.assigner").TaskAlignedAssigner


def load_assigner(load_class: Any) -> Any:
    cls = load_class()

    def assign(scene: Scene, **arguments: Any) -> Targets:
        """``ComputeLoss`` of both, but that every gt is one."""
        boxes, logits, priors, *gts = padded(scene)
        assigner = cls(num_classes=scene.num_classes, **arguments)
        labels, own, scores, fg_mask = assigner(logits.sigmoid(), boxes, priors[:, :2], *gts)
        return of_dense(labels, own, scores, fg_mask)

    return assign


YOLOV9 = {"topk": 10, "alpha": 0.5, "beta": 6.0}

ALIGNED_PEERS = (
    AlignedPeer(
        name="YOLOv6 TaskAlignedAssigner",
        package="yolov6detect 0.4.1",
        preset="yolov6",
        load=partial(load_assigner, load_yolov6),
        variants=(({}, {}), ({"topk": 9, "beta": 4.0}, {"topk": 9, "beta": 4.0})),
    ),
    AlignedPeer(
        name="YOLOv9 TaskAlignedAssigner",
        package="yolov9pip 0.0.4",
        preset="yolov9",
        load=partial(load_assigner, load_yolov9),
        variants=((YOLOV9, {}), ({**YOLOV9, "topk": 7}, {"topk": 7})),
    ),
)
