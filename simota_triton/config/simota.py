"""One frozen configuration for every SimOTA variant, and a preset for each public one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from .fields import MAX_TOPK, SCORES, UNION_RULES, Config, Fields, fields_of

REGIONS = ("box_or_center", "box_and_center", "box", "center", "all")
CLS_COSTS = ("bce", "soft_bce", "vfl")
CLS_CLASSES = ("all", "gt")
IOU_COSTS = ("log", "giou")
K_POOLS = ("candidates", "all")
CONFLICTS = ("all", "matched", "max_iou")


@dataclass(frozen=True, repr=False)
class SimOTAConfig(Config):
    """The mathematics of one SimOTA variant.

    The cost of gt ``g`` and prior ``p`` is, in float32 and added in this order::

        cost = ((cls_weight * cls + iou_weight * iou_cost) + center_weight * center)
               + penalty * [not eligible]

    where a prior that is no candidate has no cost at all and is never assigned. The defaults are those of
    mmdet's ``SimOTAAssigner``; every preset is a short list of overrides.

    Attributes:
        candidate: Which priors take part: those whose point lies in this region of *any* gt of the image.
            ``"box"`` is strictly inside the gt box, ``"center"`` strictly inside the square of half-width
            ``center_radius`` strides around the gt's centre, ``"box_or_center"`` in either of them,
            ``"box_and_center"`` in both, ``"all"`` is every prior.
        eligible: Pairs outside this region of *their own* gt pay ``penalty``. ``"all"`` charges nobody.
        center_radius: Half-width of the centre square, in strides of the prior.
        penalty: Added last, so that pairs which pay it are ranked on float32's grid at that magnitude
            (1/128 at 1e5, 8 at 1e8), as in the originals.
        own_pairs_only: A gt sees only priors in its own candidate region, for ``dynamic_k`` and for
            selection.
        score: How class scores are read. ``"logit"``: the class term is taken from the logits in stable form.
            ``"sigmoid"``: p = sigmoid(cls). ``"joint"``: p = sqrt(sigmoid(cls) * sigmoid(obj)),
            ``obj_logits`` needed. ``"prob"``: ``cls_logits`` already holds probabilities. Logarithms of p are
            clamped at -100, as in ``torch.nn.functional.binary_cross_entropy``.
        cls_cost: ``"bce"``: BCE(p, onehot). ``"soft_bce"``: BCE(p, onehot * iou) * (onehot * iou - p)^2.
            ``"vfl"``: varifocal, BCE(p, t) * (t if t > 0 else 0.75 * p^2) with t = onehot * iou.
        cls_classes: Sum the class term over ``"all"`` classes or take only the ``"gt"``'s class.
        cls_weight: Factor of the class term.
        prob_clamp: p is clamped to [prob_clamp, 1 - prob_clamp] inside the BCE (not in its weight).
        iou_cost: ``"log"``: -log(iou + log_eps). ``"giou"``: 1 - GIoU.
        iou_weight: Factor of the IoU cost.
        log_eps: Added to the IoU inside the logarithm.
        union_rule: Guard of the union: ``"none"``, ``"add"`` union + union_eps, ``"max"`` max(union,
            union_eps).
        union_eps: See ``union_rule``; for ``"giou"`` it guards the enclosing area in the same way.
        center_weight: Factor of the centre prior center_base ** (distance / stride - center_offset); 0 leaves
            it out.
        center_base: See ``center_weight``.
        center_offset: See ``center_weight``; in strides.
        candidate_topk: q, the number of largest IoUs whose sum gives ``dynamic_k``. 1 to 32.
        k_pool: The IoUs come from the ``"candidates"`` or from ``"all"`` priors of the image.
        k_scale: dynamic_k = max(1, floor(k_scale * sum)).
        conflict: A prior taken by several gts goes to the gt with the smallest cost among ``"all"`` gts of
            the image, among those that ``"matched"`` it, or to the gt of the image with the largest IoU
            (``"max_iou"``).
        min_positives: Positives that every gt keeps where there are priors for it, 0 to 32. After conflicts,
            the gts of an image in the order of their index: while one has fewer, it takes the cheapest prior
            (of equals the lowest) among those it may take and that are background or belong to a gt with more
            than ``min_positives``. So no gt falls short for another's sake, and one that finds no such prior
            keeps what it has. 0, as in all originals, leaves a gt that loses every conflict without a
            positive: mostly small objects inside or beside large ones. Objects that are too small to hold a
            prior's point want ``candidate="box_or_center"`` too: under ``"box"`` they have at best the priors
            that other gts hold.
        prior_offset: Where in its cell a prior's point lies, in strides from the upper left: 0.0 for corners,
            0.5 for centres, as the ``offset`` of ``grid_priors``. Only ``ignore_boxes`` asks for it: what a
            prior stands for is its cell, which is ignored where the cell's centre lies strictly inside such a
            box.
        preset: Name of the preset this configuration started from; not part of its identity.

    Raises:
        TypeError: A field has a value of the wrong type.
        ValueError: A field is outside its range, an unknown name, or contradicts another field.

    Example:
        >>> SimOTAConfig.rtmdet(candidate_topk=9)
        SimOTAConfig.rtmdet(candidate_topk=9)
    """

    candidate: str = "box_or_center"
    eligible: str = "box_and_center"
    center_radius: float = 2.5
    penalty: float = 1e5
    own_pairs_only: bool = False
    score: str = "joint"
    cls_cost: str = "bce"
    cls_classes: str = "all"
    cls_weight: float = 1.0
    prob_clamp: float = 0.0
    iou_cost: str = "log"
    iou_weight: float = 3.0
    log_eps: float = 1e-7
    union_rule: str = "max"
    union_eps: float = 1e-6
    center_weight: float = 0.0
    center_base: float = 10.0
    center_offset: float = 3.0
    candidate_topk: int = 10
    k_pool: str = "candidates"
    k_scale: float = 1.0
    conflict: str = "all"
    min_positives: int = 0
    prior_offset: float = 0.5

    rule: ClassVar[str] = "simota"
    assigner: ClassVar[str] = "SimOTAAssigner"
    checks: ClassVar[Fields] = Fields(
        choices={
            "candidate": REGIONS,
            "eligible": REGIONS,
            "score": SCORES,
            "cls_cost": CLS_COSTS,
            "cls_classes": CLS_CLASSES,
            "iou_cost": IOU_COSTS,
            "union_rule": UNION_RULES,
            "k_pool": K_POOLS,
            "conflict": CONFLICTS,
        },
        non_negative=(
            "penalty", "cls_weight", "iou_weight", "union_eps", "center_weight", "prob_clamp", "prior_offset",
        ),
        positive=("center_radius", "log_eps", "center_base", "k_scale"),
        finite=("center_offset",),
        booleans=("own_pairs_only",),
        integers={"candidate_topk": (1, MAX_TOPK), "min_positives": (0, MAX_TOPK)},
    )  # fmt: skip

    def _check_combinations(self) -> None:
        if self.max_dynamic_k > MAX_TOPK:
            raise ValueError(
                f"k_scale: expected candidate_topk * k_scale <= {MAX_TOPK}, "
                f"got {self.candidate_topk} * {self.k_scale}; lower one of them"
            )
        if self.center_base < 1:
            raise ValueError(f"center_base: expected a number >= 1, got {self.center_base}")
        if self.prob_clamp >= 0.5:
            raise ValueError(f"prob_clamp: expected a number in [0, 0.5), got {self.prob_clamp}")
        if self.prior_offset > 1:
            raise ValueError(
                "prior_offset: expected 0.0 for corners of cells, 0.5 for centres, at most 1, "
                f"got {self.prior_offset}"
            )
        if self.log_eps > 1:
            raise ValueError(f"log_eps: expected a number in (0, 1], got {self.log_eps}")
        if self.cls_cost == "vfl" and self.score == "logit":
            raise ValueError(
                "cls_cost: 'vfl' works on probabilities; use score='sigmoid', 'joint' or 'prob', got 'logit'"
            )
        if self.prob_clamp > 0 and self.score == "logit":
            raise ValueError(
                "prob_clamp: works on probabilities; use score='sigmoid', 'joint' or 'prob', got 'logit'"
            )
        if self.own_pairs_only and self.k_pool == "all":
            raise ValueError(
                "k_pool: own_pairs_only takes the IoUs from the gt's own pairs; use k_pool='candidates', "
                "got 'all'"
            )

    @property
    def max_dynamic_k(self) -> int:
        """Upper bound of ``dynamic_k``: an IoU is at most 1."""
        return max(1, math.floor(self.candidate_topk * self.k_scale))

    # Presets. Each docstring names the package, version and file whose rule it is.

    @classmethod
    def seed(cls, **overrides: Any) -> SimOTAConfig:
        """The blog text "Implementing RTMDet-Ins 3. Implementing SimOTA" (J. Y. Na, 2025), literal where it
        can run: the gt's own class, eps 1e-10, no candidate region, conflicts to the largest IoU. The centre
        prior is mmdet's.
        """
        return cls._preset(
            "seed", overrides, candidate="all", eligible="all", score="logit", cls_cost="soft_bce",
            cls_classes="gt", log_eps=1e-10, union_rule="none", center_weight=1.0, candidate_topk=13,
            conflict="max_iou", prior_offset=0.0,
        )  # fmt: skip

    @classmethod
    def rtmdet(cls, **overrides: Any) -> SimOTAConfig:
        """Mmdet 3.3.0 ``task_modules/assigners/dynamic_soft_label_assigner.py``: RTMDet, RTMDet-Ins (OTX
        copies it).
        """
        return cls._preset(
            "rtmdet", overrides, candidate="box", eligible="all", score="logit", cls_cost="soft_bce",
            center_weight=1.0, candidate_topk=13, prior_offset=0.0,
        )  # fmt: skip

    @classmethod
    def rtmdet_mmyolo(cls, **overrides: Any) -> SimOTAConfig:
        """Mmyolo 0.6.0 ``models/task_modules/assigners/batch_dsl_assigner.py``: the gt's own class, IoUs of
        all priors.
        Deviations: a prior that is no candidate, and a padded gt, is never assigned.
        """
        return cls._preset(
            "rtmdet_mmyolo", overrides, candidate="box", eligible="all", score="logit", cls_cost="soft_bce",
            cls_classes="gt", center_weight=1.0, candidate_topk=13, k_pool="all", prior_offset=0.0,
        )  # fmt: skip

    @classmethod
    def libre_rtmdet(cls, **overrides: Any) -> SimOTAConfig:
        """Libreyolo 1.6.0 ``models/rtmdet/loss.py``: mmdet's rule with the union guarded at 1e-7."""
        return cls._preset(
            "libre_rtmdet", overrides, candidate="box", eligible="all", score="logit", cls_cost="soft_bce",
            center_weight=1.0, candidate_topk=13, union_eps=1e-7, prior_offset=0.0,
        )  # fmt: skip

    @classmethod
    def nanodet(cls, **overrides: Any) -> SimOTAConfig:
        """NanoDet-Plus be9b4a9 ``model/head/assigner/dsl_assigner.py``: mmdet's rule without the centre
        prior.
        """
        return cls._preset(
            "nanodet", overrides, candidate="box", eligible="all", score="logit", cls_cost="soft_bce",
            candidate_topk=13, prior_offset=0.0,
        )  # fmt: skip

    @classmethod
    def damo(cls, **overrides: Any) -> SimOTAConfig:
        """DAMO-YOLO 319572e ``damo/base_models/core/ota_assigner.py`` (AlignOTAAssigner)."""
        return cls._preset(
            "damo", overrides, score="sigmoid", cls_cost="soft_bce", penalty=1e8, prior_offset=0.0
        )

    @classmethod
    def yolox(cls, **overrides: Any) -> SimOTAConfig:
        """YOLOX 0.1.0 to 0.3.0 ``yolox/models/yolo_head.py`` get_assignments; YOLOv6 0.1.0 is the same
        rule.
        """
        return cls._preset("yolox", overrides, union_rule="none", log_eps=1e-8)

    @classmethod
    def yolox_main(cls, **overrides: Any) -> SimOTAConfig:
        """YOLOX main since 14c62a7 (2023-01); pixeltable-yolox 0.4.3 and libreyolo 1.6.0 YOLOX are the same
        rule.
        """
        return cls._preset(
            "yolox_main", overrides, candidate="center", eligible="center", center_radius=1.5, penalty=1e6,
            union_rule="none", log_eps=1e-8,
        )  # fmt: skip

    @classmethod
    def mmdet_simota(cls, **overrides: Any) -> SimOTAConfig:
        """Mmdet 3.3.0 ``task_modules/assigners/sim_ota_assigner.py``; mmyolo 0.6.0 YOLOX uses this class."""
        return cls._preset("mmdet_simota", overrides)

    @classmethod
    def super_gradients(cls, **overrides: Any) -> SimOTAConfig:
        """super-gradients 3.7.1 ``training/losses/yolox_loss.py`` YoloXDetectionLoss."""
        return cls._preset("super_gradients", overrides, union_rule="add", union_eps=1e-9, log_eps=1e-8)

    @classmethod
    def super_gradients_fast(cls, **overrides: Any) -> SimOTAConfig:
        """super-gradients 3.7.1 ``training/losses/yolox_loss.py`` YoloXFastDetectionLoss (dynamic_ks_bias
        1.1).
        """
        return cls._preset(
            "super_gradients_fast", overrides, union_rule="none", log_eps=1e-8, own_pairs_only=True,
            k_scale=1.1, conflict="matched",
        )  # fmt: skip

    @classmethod
    def picodet(cls, **overrides: Any) -> SimOTAConfig:
        """PaddleDetection 666f597 ``ppdet/modeling/assigners/simota_assigner.py`` with use_vfl (legacy
        PicoHead).
        """
        return cls._preset(
            "picodet",
            overrides,
            score="sigmoid",
            cls_cost="vfl",
            iou_cost="giou",
            iou_weight=6.0,
            penalty=1e8,
        )

    @classmethod
    def picodet_lightly(cls, **overrides: Any) -> SimOTAConfig:
        """lightly-train 8f5a75c ``picodet_object_detection/sim_ota_assigner.py``."""
        return cls._preset(
            "picodet_lightly", overrides, score="sigmoid", cls_cost="vfl", prob_clamp=1e-7, iou_cost="giou",
            iou_weight=6.0, penalty=1e8, conflict="matched",
        )  # fmt: skip

    @classmethod
    def picodet_libre(cls, **overrides: Any) -> SimOTAConfig:
        """Libreyolo 1.6.0 ``models/picodet/loss.py``: plain BCE and -log IoU."""
        return cls._preset(
            "picodet_libre", overrides, score="sigmoid", prob_clamp=1e-7, iou_weight=6.0, log_eps=1e-8,
            union_rule="add", union_eps=1e-16,
        )  # fmt: skip


PRESETS = (
    "seed", "rtmdet", "rtmdet_mmyolo", "libre_rtmdet", "nanodet", "damo", "yolox", "yolox_main",
    "mmdet_simota", "super_gradients", "super_gradients_fast", "picodet", "picodet_lightly", "picodet_libre",
)  # fmt: skip

SimOTAConfig.known_presets = PRESETS

FIELDS = fields_of(SimOTAConfig)
"""Names of the fields that say what is computed."""
