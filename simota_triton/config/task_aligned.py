"""One frozen configuration for every variant of the task-aligned assigner (TAL), and a preset for each public
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .fields import MAX_TOPK, UNION_RULES, Config, Fields, fields_of

OVERLAPS = ("iou", "ciou", "probiou")
PROBABILITIES = ("sigmoid", "prob")
POOLS = ("inside", "all")
TAL_CONFLICTS = ("inside", "all", "matched")

MAX_EXPONENT = 64.0
"""Largest ``alpha`` and ``beta``, far above what anybody uses."""


@dataclass(frozen=True, repr=False)
class TaskAlignedConfig(Config):
    """The mathematics of one variant of the task-aligned assigner.

    The metric of gt ``g`` and prior ``p`` is, in float32::

        metric = score ** alpha * overlap ** beta

    with the probability ``score`` that the prior's prediction gives to the gt's class, and the ``overlap`` of
    the gt's box with the predicted one. Each gt selects the ``topk`` priors of the largest metric in its
    region; a prior that several gts selected goes to one of them; and what the owner's class should be scored
    at is::

        target = metric / (largest metric of the gt + norm_eps) * largest overlap of the gt

    where the largest are those of the priors that the gt keeps. A pair whose metric is 0 (in float32: below
    1.2e-38) is never selected. The defaults are those of preset ``tal``.

    Attributes:
        alpha: Exponent of the class score, 0 to 64.
        beta: Exponent of the overlap, above 0, to 64.
        topk: How many priors a gt selects, 1 to 32.
        topk2: After conflicts each gt keeps this many of the priors that it owns then, those of the largest
            metric; None: all of them. 1 is the one-to-one head of YOLO26.
        overlap: ``"iou"``. ``"ciou"``: complete IoU, 0 where it is negative. ``"probiou"``: of rotated boxes
            (cx, cy, w, h, angle in radians), one minus the Hellinger distance of the two Gaussians.
        union_rule: Guard of the union: ``"none"``, ``"add"`` union + union_eps, ``"max"`` max(union,
            union_eps). ``"ciou"`` and ``"probiou"`` add.
        union_eps: See ``union_rule``; ``"ciou"`` adds it to its other denominators too, and ``"probiou"`` to
            its own.
        margin: A prior lies in the region of a gt where its point is inside the box by more than this, in
            pixels.
        inclusive: By this or more.
        min_side_below: Sides of a gt's box below this, in pixels, are enlarged for the region alone, about
            the box's centre ...
        min_side_to: ... to this.
        max_reach: Priors further from a side of the box than this, in strides, are not in the region either;
            None: they are.
        pool: The ``topk`` are those of the priors in the region (``"inside"``), or of ``"all"`` priors of the
            image, of which then only those in the region count.
        at_least_one: A gt that selects nothing selects the prior of its largest metric, in the region or not.
        conflict: A prior that several gts selected goes to the one of the largest overlap: among the gts in
            whose region it lies (``"inside"``), among ``"all"`` gts of the image, or among those that
            selected it (``"matched"``). The winner need not have selected it under the first two, and under
            ``"all"`` need not contain it.
        norm_eps: Added to the largest metric that targets are divided by.
        score: How class scores are read: ``"sigmoid"`` of logits, or ``"prob"``, which they are already;
            what lies above 1 is 1.
        prior_offset: Where in its cell a prior's point lies, see :class:`SimOTAConfig`.
        preset: Name of the preset this configuration started from; not part of its identity.

    Raises:
        TypeError: A field has a value of the wrong type.
        ValueError: A field is outside its range, an unknown name, or contradicts another field.

    Example:
        >>> TaskAlignedConfig.tal(topk=7)
        TaskAlignedConfig.tal(topk=7)
    """

    alpha: float = 0.5
    beta: float = 6.0
    topk: int = 10
    topk2: int | None = None
    overlap: str = "ciou"
    union_rule: str = "add"
    union_eps: float = 1e-7
    margin: float = 0.0
    inclusive: bool = False
    min_side_below: float = 16.0
    min_side_to: float = 16.0
    max_reach: float | None = None
    pool: str = "inside"
    at_least_one: bool = False
    conflict: str = "inside"
    norm_eps: float = 1e-9
    score: str = "sigmoid"
    prior_offset: float = 0.5

    rule: ClassVar[str] = "task_aligned"
    assigner: ClassVar[str] = "TaskAlignedAssigner"
    checks: ClassVar[Fields] = Fields(
        choices={
            "overlap": OVERLAPS,
            "union_rule": UNION_RULES,
            "pool": POOLS,
            "conflict": TAL_CONFLICTS,
            "score": PROBABILITIES,
        },
        non_negative=(
            "alpha", "union_eps", "margin", "min_side_below", "min_side_to", "norm_eps", "prior_offset",
        ),
        positive=("beta", "max_reach"),
        booleans=("inclusive", "at_least_one"),
        integers={"topk": (1, MAX_TOPK), "topk2": (1, MAX_TOPK)},
        optional=("topk2", "max_reach"),
    )  # fmt: skip

    def _check_combinations(self) -> None:
        for name in ("alpha", "beta"):
            if getattr(self, name) > MAX_EXPONENT:
                raise ValueError(
                    f"{name}: expected a number up to {MAX_EXPONENT:g}, got {getattr(self, name)}"
                )
        if self.topk2 is not None and self.topk2 > self.topk:
            raise ValueError(f"topk2: expected at most topk = {self.topk}, got {self.topk2}")
        if self.min_side_to < self.min_side_below:
            raise ValueError(
                f"min_side_to: expected at least min_side_below = {self.min_side_below}, "
                f"got {self.min_side_to}"
            )
        if self.prior_offset > 1:
            raise ValueError(
                "prior_offset: expected 0.0 for corners of cells, 0.5 for centres, at most 1, "
                f"got {self.prior_offset}"
            )
        if self.overlap != "iou" and (self.union_rule != "add" or not self.union_eps):
            raise ValueError(
                f"union_rule: overlap {self.overlap!r} adds union_eps to what it divides by; "
                "use union_rule='add' with union_eps above 0"
            )
        if self.boxes == "rotated" and (self.max_reach is not None or self.pool == "all"):
            raise ValueError("overlap: 'probiou' goes with max_reach=None and pool='inside'")

    @property
    def boxes(self) -> str:
        """The format of all boxes: ``"xyxy"``, or ``"rotated"``, which is (cx, cy, w, h, angle)."""
        return "rotated" if self.overlap == "probiou" else "xyxy"

    @property
    def asks_for_strides(self) -> bool:
        """Whether priors need strides, or may be points [P, 2]."""
        return self.max_reach is not None

    # Presets. Each docstring names the package, version and file whose rule it is.

    @classmethod
    def tal(cls, **overrides: Any) -> TaskAlignedConfig:
        """Ultralytics 8.4.190 ``utils/tal.py`` TaskAlignedAssigner as ``utils/loss.py`` v8DetectionLoss calls
        it: YOLOv5u, v8, 11, 12, and the one-to-many head of YOLOv10 and 26. Since 8.4.150 at the latest,
        after 8.4.100.
        """
        return cls._preset("tal", overrides)

    @classmethod
    def tal_o2o(cls, **overrides: Any) -> TaskAlignedConfig:
        """Ultralytics 8.4.190, the one-to-one head of YOLO26 (E2ELoss): topk 7, of which one is kept."""
        return cls._preset("tal_o2o", overrides, topk=7, topk2=1)

    @classmethod
    def tal_v10(cls, **overrides: Any) -> TaskAlignedConfig:
        """Ultralytics 8.4.190, the one-to-one head of YOLOv10 (E2EDetectLoss): topk 1."""
        return cls._preset("tal_v10", overrides, topk=1)

    @classmethod
    def tal_840(cls, **overrides: Any) -> TaskAlignedConfig:
        """Ultralytics 8.4.0 to 8.4.100: sides below 8 pixels are enlarged to 16, those of 8 to 16 are not, so
        that an object of 8 pixels has a smaller region than one of 7.
        """
        return cls._preset("tal_840", overrides, min_side_below=8.0)

    @classmethod
    def tal_v8(cls, **overrides: Any) -> TaskAlignedConfig:
        """Ultralytics 8.2 and 8.3 ``utils/tal.py``: no side is enlarged."""
        return cls._preset("tal_v8", overrides, **_NO_FLOOR)

    @classmethod
    def yolov9(cls, **overrides: Any) -> TaskAlignedConfig:
        """WongKinYiu/yolov9 5b1ea9a ``utils/tal/assigner.py``: conflicts among all gts of the image."""
        return cls._preset("yolov9", overrides, conflict="all", **_NO_FLOOR)

    @classmethod
    def tal_mmyolo(cls, **overrides: Any) -> TaskAlignedConfig:
        """Mmyolo 0.6.0 ``models/task_modules/assigners/batch_task_aligned_assigner.py`` with the numbers of
        its YOLOv8 configurations.
        """
        return cls._preset("tal_mmyolo", overrides, conflict="all", **_NO_FLOOR)

    @classmethod
    def yolov6(cls, **overrides: Any) -> TaskAlignedConfig:
        """YOLOv6 e86a483 ``yolov6/assigners/tal_assigner.py``, since 0.2; after the epochs of
        :func:`simota_triton.atss_assign`.
        """
        return cls._preset("yolov6", overrides, **_IOU_13)

    @classmethod
    def yolov6_mmyolo(cls, **overrides: Any) -> TaskAlignedConfig:
        """Mmyolo 0.6.0, the same file as ``tal_mmyolo``, with the numbers of its YOLOv6 configurations."""
        return cls._preset("yolov6_mmyolo", overrides, norm_eps=1e-7, **_IOU_13)

    @classmethod
    def ppyoloe(cls, **overrides: Any) -> TaskAlignedConfig:
        """PaddleDetection 2.6.0 ``ppdet/modeling/assigners/task_aligned_assigner.py``; super-gradients 3.7.1
        ``training/losses/ppyolo_loss.py`` (PP-YOLOE, YOLO-NAS) and libreyolo 1.6.0 YOLO-NAS are the same
        rule; after the epochs of :func:`simota_triton.atss_assign`.
        """
        return cls._preset("ppyoloe", overrides, **_IOU_13)

    @classmethod
    def luxonis(cls, **overrides: Any) -> TaskAlignedConfig:
        """luxonis-train 0.6.0 ``assigners/tal_assigner.py`` with strides 8, 16 and 32: sides below the first
        are enlarged to the second. Read, and not run beside the original.
        """
        return cls._preset("luxonis", overrides, **{**_IOU_13, "min_side_below": 8.0, "min_side_to": 16.0})

    @classmethod
    def tood(cls, **overrides: Any) -> TaskAlignedConfig:
        """Mmdet 3.3.0 ``task_modules/assigners/task_aligned_assigner.py`` with the targets of
        ``dense_heads/tood_head.py``.
        """
        return cls._preset(
            "tood", overrides, alpha=1.0, topk=13, overlap="iou", union_rule="max", union_eps=1e-6,
            margin=0.01, pool="all", conflict="matched", norm_eps=1e-7, **_NO_FLOOR,
        )  # fmt: skip

    @classmethod
    def yolo9_mit(cls, **overrides: Any) -> TaskAlignedConfig:
        """Libreyolo 1.6.0 ``models/yolo9/loss.py`` BoxMatcher, after WongKinYiu/YOLO: the region is what 16
        bins of a distance can reach.
        """
        return cls._preset(
            "yolo9_mit", overrides, inclusive=True, max_reach=14.99, at_least_one=True, conflict="matched",
            **_NO_FLOOR,
        )  # fmt: skip

    @classmethod
    def tal_obb(cls, **overrides: Any) -> TaskAlignedConfig:
        """Ultralytics 8.4.190 ``utils/tal.py`` RotatedTaskAlignedAssigner: YOLOv8, 11 and 26 with rotated
        boxes.
        """
        return cls._preset("tal_obb", overrides, overlap="probiou", inclusive=True)

    @classmethod
    def tal_obb_v8(cls, **overrides: Any) -> TaskAlignedConfig:
        """Ultralytics 8.3 to 8.4.0, the same class before sides were enlarged."""
        return cls._preset("tal_obb_v8", overrides, overlap="probiou", inclusive=True, **_NO_FLOOR)


_NO_FLOOR: dict[str, Any] = {"min_side_below": 0.0, "min_side_to": 0.0}
_IOU_13: dict[str, Any] = {
    "alpha": 1.0, "topk": 13, "overlap": "iou", "union_eps": 1e-9, "conflict": "all", **_NO_FLOOR,
}  # fmt: skip

TaskAlignedConfig.known_presets = (
    "tal", "tal_o2o", "tal_v10", "tal_840", "tal_v8", "yolov9", "tal_mmyolo", "yolov6", "yolov6_mmyolo",
    "ppyoloe", "luxonis", "tood", "yolo9_mit", "tal_obb", "tal_obb_v8",
)  # fmt: skip

TAL_FIELDS = fields_of(TaskAlignedConfig)
"""Names of the fields that say what is computed."""
