"""mmdet 3.0 to 3.3 and onedl-mmdetection 3.5: ``DynamicSoftLabelAssigner`` (RTMDet, RTMDet-Ins),
``SimOTAAssigner`` (YOLOX) and ``TaskAlignedAssigner`` (TOOD, image by image).

Two lines of a config make a trainer use them. The first registers the assigners under the names of those they
replace; the second makes the heads assign a batch in one call instead of image by image::

    custom_imports = dict(imports=["simota_triton.integrations.mmdet"], allow_failed_imports=False)
    default_hooks = dict(simota=dict(type="BatchedAssignment"))

A configuration that names classes instead of strings imports ``DynamicSoftLabelAssigner``,
``SimOTAAssigner``, ``TaskAlignedAssigner`` and ``BatchedAssignment`` from here.

What deviates: costs are computed in float32 under AMP too. An instance without a single mask pixel has its
box's centre, where mmdet uses (0, 0). With ``patch``, an image without a valid prior is background; mmdet's
heads fail on it. ``SimOTAAssigner`` takes HorizontalBoxes as the tensors they hold, while mmdet's fails on
them. Crowds are looked at only with ``DynamicSoftLabelAssigner(use_ignored=True)``; YOLOX's head weighs no
prior, so that it could not leave one out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..boxes import box_center
from ..config import SimOTAConfig, TaskAlignedConfig
from ..masks import mask_centers
from ..result import AssignResult
from ..terms import in_region
from .assigners import assigner_for
from .openmmlab import check_iou_calculator
from .patching import Package, Patch, Replacement

PACKAGE = Package(
    "mmdet",
    {"mmdet": ("3.0", "3.1", "3.2", "3.3"), "onedl-mmdetection": ("3.5",)},
    "pip install mmdet==3.3.0, which needs mmcv >=2.0,<2.2",
)
_PATCH = Patch(PACKAGE)
_registry = PACKAGE.load("mmdet.registry")
_boxes = PACKAGE.load("mmdet.structures.bbox")
_structures = PACKAGE.load("mmengine.structures")
_assigners = PACKAGE.load("mmdet.models.task_modules.assigners")
_samplers = PACKAGE.load("mmdet.models.task_modules.samplers")
_prior_generators = PACKAGE.load("mmdet.models.task_modules.prior_generators")
_utils = PACKAGE.load("mmdet.models.utils")
_rtmdet = PACKAGE.load("mmdet.models.dense_heads.rtmdet_head")
_yolox = PACKAGE.load("mmdet.models.dense_heads.yolox_head")
_BaseAssigner: Any = _assigners.BaseAssigner
_Hook: Any = PACKAGE.load("mmengine.hooks").Hook


class _Assigner(_BaseAssigner):  # type: ignore[misc]
    """What both assigners share: ``assign`` for an image, ``assign_batch`` for a batch.

    Attributes:
        unassigned: Overlap of a prior without a gt in an image that has candidates.
        uses_masks: Centres come from ``gt_instances.masks`` where there are masks.
        asks_boxes: HorizontalBoxes say which priors lie inside: their edge belongs to them, a tensor's does
            not.
        use_ignored: Priors inside a box of ``gt_instances_ignore`` are no background.
    """

    unassigned: float
    uses_masks = False
    asks_boxes = False
    use_ignored = False

    def __init__(self, iou_calculator: Any, preset: str, **overrides: Any) -> None:
        check_iou_calculator(iou_calculator)
        self.preset = preset
        self.overrides = overrides
        # refuses a number out of range now, when the model is built
        SimOTAConfig.from_preset(preset, **overrides)

    def assign(
        self, pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any = None, **kwargs: Any
    ) -> Any:
        """Assign one image.

        Args:
            pred_instances: ``bboxes`` [P, 4], ``scores`` [P, C] and ``priors`` [P, 4], each of which is
                x, y, stride_x, stride_y.
            gt_instances: ``bboxes`` [G, 4], a tensor or HorizontalBoxes, ``labels`` [G], and perhaps
                ``masks``: a tensor [G, H, W], BitmapMasks or PolygonMasks.
            gt_instances_ignore: ``bboxes`` [I, 4]. They are only read with ``use_ignored``; the original
                never reads them.
            kwargs: Not read.

        Returns:
            mmdet's ``AssignResult``:

            - ``gt_inds`` [P] int64: the gt, counted from 1; 0 for background, -1 for what is ignored.
            - ``labels`` [P] int64: the gt's label; -1 where there is no gt.
            - ``max_overlaps`` [P]: the IoU with the gt. Background has -1e8 (-1e5 with ``SimOTAAssigner``),
              or 0 where the image has no gt or no candidate.

        Raises:
            TypeError, ValueError: Boxes are rotated, or an argument is not what it should be. The message
                names the argument.
        """
        bboxes = _plain("pred_instances.bboxes", pred_instances.bboxes)
        result = self.assign_batch(
            bboxes[None],
            pred_instances.scores[None],
            pred_instances.priors,
            [gt_instances],
            batch_gt_instances_ignore=[gt_instances_ignore],
        )
        assigned = self.to_image(result, 0, len(gt_instances.bboxes))
        if not len(gt_instances.bboxes) or not len(bboxes):
            assigned.max_overlaps = assigned.max_overlaps.to(bboxes.dtype)
        return assigned

    def assign_batch(
        self,
        bboxes: Tensor,
        scores: Tensor,
        priors: Tensor,
        batch_gt_instances: Sequence[Any],
        *,
        objectness: Tensor | None = None,
        candidate_mask: Tensor | None = None,
        batch_gt_instances_ignore: Sequence[Any] | None = None,
    ) -> AssignResult:
        """Assign a batch in one call.

        Args:
            bboxes: [B, P, 4] decoded predictions, xyxy.
            scores: [B, P, C] as the original takes them; logits, where ``objectness`` is given.
            priors: [P, 4] x, y, stride_x, stride_y.
            batch_gt_instances: B times what ``assign`` takes.
            objectness: [B, P] logits, for ``SimOTAAssigner``.
            candidate_mask: [B, P] bool, False for priors that take no part.
            batch_gt_instances_ignore: B times what ``assign`` takes, looked at with ``use_ignored``.

        Returns:
            A :class:`simota_triton.AssignResult`.
        """
        overrides = self.overrides if objectness is None else {**self.overrides, "score": "joint"}
        boxes = [_plain("gt_instances.bboxes", gts.bboxes) for gts in batch_gt_instances]
        if self.asks_boxes and any(
            isinstance(gts.bboxes, _boxes.HorizontalBoxes) for gts in batch_gt_instances
        ):
            overrides = {**overrides, "candidate": "all"}
            inside = torch.stack([_in_any(gts.bboxes, priors) for gts in batch_gt_instances])  # [B, P]
            candidate_mask = inside if candidate_mask is None else inside & candidate_mask
        result: AssignResult = assigner_for(self.preset, **overrides)(
            bboxes,
            scores,
            priors,
            boxes,
            [gts.labels for gts in batch_gt_instances],
            obj_logits=objectness,
            gt_centers=self._centers(boxes, batch_gt_instances),
            candidate_mask=candidate_mask,
            ignore_boxes=self._ignored(batch_gt_instances_ignore, bboxes),
        )
        return result

    def to_image(self, result: AssignResult, image: int, num_gts: int, keep: Tensor | None = None) -> Any:
        """One image as mmdet's ``AssignResult``, of the priors in ``keep`` [P] bool."""
        fg_mask, gt_index, labels, iou, ignored = (
            value[image] if keep is None else value[image][keep]
            for value in (
                result.fg_mask,
                result.gt_index,
                result.labels,
                result.matched_iou,
                result.ignore_mask,
            )
        )
        overlaps = iou.masked_fill(~fg_mask & fg_mask.any(), self.unassigned)
        gt_inds = (gt_index + 1).masked_fill(ignored, -1)
        return _assigners.AssignResult(num_gts, gt_inds, overlaps, labels=torch.where(fg_mask, labels, -1))

    def _ignored(
        self, batch_gt_instances_ignore: Sequence[Any] | None, bboxes: Tensor
    ) -> list[Tensor] | None:
        if not self.use_ignored or batch_gt_instances_ignore is None:
            return None
        return [
            bboxes.new_zeros(0, 4)
            if ignored is None
            else _plain("gt_instances_ignore.bboxes", ignored.bboxes)
            for ignored in batch_gt_instances_ignore
        ]

    def _centers(self, boxes: Sequence[Tensor], batch_gt_instances: Sequence[Any]) -> list[Tensor] | None:
        if not self.uses_masks or not any(hasattr(gts, "masks") for gts in batch_gt_instances):
            return None
        return [
            mask_centers(_dense(gts.masks, own), own) if hasattr(gts, "masks") else box_center(own.float())
            for own, gts in zip(boxes, batch_gt_instances, strict=True)
        ]


@_registry.TASK_UTILS.register_module(force=True)
class DynamicSoftLabelAssigner(_Assigner):
    """RTMDet's assigner, in place of mmdet's of the same name
    (``task_modules/assigners/dynamic_soft_label_assigner.py``).

    Args:
        soft_center_radius: Strides from the gt's centre within which the centre prior stays below 1.
        topk: How many of the largest IoUs are summed to a gt's number of priors, 1 to 32.
        iou_weight: Factor of the IoU cost.
        iou_calculator: ``BboxOverlaps2D``, the default.
        use_ignored: A prior that no gt gets and whose cell's centre lies inside a box of
            ``gt_instances_ignore`` (crowds) is not trained as background: its ``gt_inds`` is -1, and
            RTMDet's heads give it no weight. mmdet has no such option.

    Raises:
        ValueError: Another ``iou_calculator``, or a number out of range.

    Example:
        >>> from mmdet.registry import TASK_UTILS  # doctest: +SKIP
        >>> TASK_UTILS.build(dict(type="DynamicSoftLabelAssigner", topk=13))  # doctest: +SKIP
    """

    unassigned = -1e8
    uses_masks = True
    asks_boxes = True

    def __init__(
        self,
        soft_center_radius: float = 3.0,
        topk: int = 13,
        iou_weight: float = 3.0,
        iou_calculator: Any = "BboxOverlaps2D",
        use_ignored: bool = False,
    ) -> None:
        super().__init__(
            iou_calculator,
            "rtmdet",
            center_offset=soft_center_radius,
            candidate_topk=topk,
            iou_weight=iou_weight,
        )
        self.use_ignored = use_ignored


@_registry.TASK_UTILS.register_module(force=True)
class SimOTAAssigner(_Assigner):
    """YOLOX's assigner, in place of mmdet's of the same name
    (``task_modules/assigners/sim_ota_assigner.py``).

    Args:
        center_radius: Half-width of the centre square, in strides.
        candidate_topk: How many of the largest IoUs are summed to a gt's number of priors, 1 to 32.
        iou_weight: Factor of the IoU cost.
        cls_weight: Factor of the class cost.
        iou_calculator: ``BboxOverlaps2D``, the default.

    Raises:
        ValueError: Another ``iou_calculator``, or a number out of range.

    Example:
        >>> from mmdet.registry import TASK_UTILS  # doctest: +SKIP
        >>> TASK_UTILS.build(dict(type="SimOTAAssigner", center_radius=2.5))  # doctest: +SKIP
    """

    unassigned = -1e5

    def __init__(
        self,
        center_radius: float = 2.5,
        candidate_topk: int = 10,
        iou_weight: float = 3.0,
        cls_weight: float = 1.0,
        iou_calculator: Any = "BboxOverlaps2D",
    ) -> None:
        super().__init__(
            iou_calculator,
            "mmdet_simota",
            score="prob",
            center_radius=center_radius,
            candidate_topk=candidate_topk,
            iou_weight=iou_weight,
            cls_weight=cls_weight,
        )


@_registry.TASK_UTILS.register_module(force=True)
class TaskAlignedAssigner(_BaseAssigner):  # type: ignore[misc]
    """TOOD's assigner, in place of mmdet's of the same name
    (``task_modules/assigners/task_aligned_assigner.py``).

    Args:
        topk: How many priors a gt selects, 1 to 32.
        iou_calculator: ``BboxOverlaps2D``, the default.

    Raises:
        ValueError: Another ``iou_calculator``, or a number out of range.

    Example:
        >>> from mmdet.registry import TASK_UTILS  # doctest: +SKIP
        >>> TASK_UTILS.build(dict(type="TaskAlignedAssigner", topk=13))  # doctest: +SKIP
    """

    def __init__(self, topk: int, iou_calculator: Any = "BboxOverlaps2D") -> None:
        check_iou_calculator(iou_calculator)
        self.topk = topk
        # refuses a number out of range now, when the model is built
        TaskAlignedConfig.tood(topk=topk)

    @torch.no_grad()
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any = None,
        alpha: float = 1,
        beta: float = 6,
    ) -> Any:
        """Assign one image.

        Args:
            pred_instances: ``bboxes`` [P, 4], ``scores`` [P, C] probabilities, and ``priors`` [P, 4], the
                anchors, xyxy.
            gt_instances: ``bboxes`` [G, 4], a tensor or HorizontalBoxes, and ``labels`` [G].
            gt_instances_ignore: Not read.
            alpha: Exponent of the class score.
            beta: Exponent of the IoU.

        Returns:
            mmdet's ``AssignResult``:

            - ``gt_inds`` [P] int64: the gt, counted from 1; 0 for background.
            - ``labels`` [P] int64: the gt's label; -1 for background.
            - ``max_overlaps`` [P]: the IoU with the gt. Background has -1e8, or 0 where there is no gt.
            - ``assign_metrics`` [P]: the metric with the gt, 0 for background.

        Raises:
            TypeError, ValueError: Boxes are rotated, or an argument is not what it should be. The message
                names the argument.
        """
        scores, priors = pred_instances.scores, pred_instances.priors
        boxes = _plain("gt_instances.bboxes", gt_instances.bboxes)
        result = assigner_for("tood", score="prob", topk=self.topk, alpha=float(alpha), beta=float(beta))(
            _plain("pred_instances.bboxes", pred_instances.bboxes)[None],
            scores[None],
            box_center(_plain("pred_instances.priors", priors)[:, :4]),
            [boxes],
            [gt_instances.labels],
        )
        image = result.to_image(0)
        label = torch.where(image.fg_mask, image.labels, 0)[:, None]  # [P, 1]
        score = scores.gather(1, label)[:, 0].float() if scores.shape[1] else image.matched_iou
        metric = torch.where(image.fg_mask, score**alpha * image.matched_iou**beta, 0.0)
        overlaps = image.matched_iou
        if len(boxes):
            overlaps = overlaps.masked_fill(~image.fg_mask, -1e8)
        assigned = _assigners.AssignResult(
            len(boxes), image.gt_index + 1, overlaps, labels=torch.where(image.fg_mask, image.labels, -1)
        )
        assigned.assign_metrics = metric.to(priors.dtype)
        return assigned


@_registry.HOOKS.register_module(force=True)
class BatchedAssignment(_Hook):  # type: ignore[misc]
    """While training, the model's heads assign a batch in one call: :func:`patch` as a line of a config."""

    def before_train(self, runner: Any) -> None:
        """Patch, once the model is built."""
        patch(runner.model)

    def after_train(self, runner: Any) -> None:
        """Put the heads back."""
        unpatch()


HEADS: dict[type, tuple[type[_Assigner], tuple[str, ...]]] = {
    _rtmdet.RTMDetHead: (DynamicSoftLabelAssigner, ("get_targets", "_get_targets_single")),
    _yolox.YOLOXHead: (SimOTAAssigner, ("loss_by_feat", "_get_targets_single")),
}
"""Head -> the assigner it must hold, and the methods that it must not override. RTMDetSepBNHead,
RTMDetInsHead and RTMDetInsSepBNHead are RTMDetHeads."""


def patch(model: nn.Module | None = None) -> Patch:
    """Make RTMDet's, RTMDet-Ins's and YOLOX's heads assign a batch in one call. Targets and losses stay the
    same.

    Args:
        model: A model whose heads are looked at before anything is replaced.

    Returns:
        The patch, which is also a context manager that undoes it.

    Raises:
        AttributeError, TypeError: A head is not laid out as expected, or holds another assigner; names the
            attribute.
        ValueError: ``model`` has no such head.

    Example:
        >>> import simota_triton.integrations.mmdet
        >>> simota_triton.integrations.mmdet.patch()  # doctest: +SKIP
    """
    PACKAGE.expect(
        _rtmdet.RTMDetHead,
        "_get_targets_single",
        (
            "self",
            "cls_scores",
            "bbox_preds",
            "flat_anchors",
            "valid_flags",
            "gt_instances",
            "img_meta",
            "gt_instances_ignore",
            "unmap_outputs",
        ),
    )
    PACKAGE.expect(
        _yolox.YOLOXHead,
        "_get_targets_single",
        (
            "self",
            "priors",
            "cls_preds",
            "decoded_bboxes",
            "objectness",
            "gt_instances",
            "img_meta",
            "gt_instances_ignore",
        ),
    )
    PACKAGE.expect(_yolox.YOLOXHead, "_get_l1_target", ("self", "l1_target", "gt_bboxes", "priors", "eps"))
    if model is not None:
        heads = [module for module in model.modules() if isinstance(module, tuple(HEADS))]
        if not heads:
            raise ValueError(
                f"model: expected a RTMDetHead or YOLOXHead of mmdet in it, got {type(model).__name__} "
                "without one"
            )
        for head in heads:
            check_head(head)
    return _PATCH.apply([
        Replacement(_rtmdet.RTMDetHead, "get_targets", _rtmdet_targets, "rtmdet"),
        Replacement(_yolox, "multi_apply", _multi_apply, "mmdet_simota"),
    ])  # fmt: skip


def unpatch() -> None:
    """Put the heads back as they were."""
    _PATCH.undo()


def is_patched() -> bool:
    """Whether the heads of this process assign by simota_triton."""
    return _PATCH.applied


def calls() -> dict[str, int]:
    """How often each patched function was called in this process, by its name."""
    return dict(_PATCH.calls)


def check_head(head: Any) -> None:
    """Refuse a head that would not assign in one call, or not by ours.

    Raises:
        TypeError: It names the attribute.
    """
    name = type(head).__name__
    base, (assigner, methods) = next((base, needs) for base, needs in HEADS.items() if isinstance(head, base))
    for method in methods:
        if getattr(type(head), method) is not getattr(base, method):
            raise TypeError(
                f"{name}.{method}: expected {base.__name__}'s own, got an override; leave the hook (or "
                "patch) out: "
                "the assigner then works image by image"
            )
    if not isinstance(getattr(head, "assigner", None), assigner):
        raise TypeError(
            f"{name}.assigner: expected {assigner.__module__}.{assigner.__name__}, got "
            f"{type(getattr(head, 'assigner', None)).__name__}; import simota_triton.integrations.mmdet "
            "before the model is built "
            "(a configuration that names classes must name this one)"
        )
    if type(getattr(head, "sampler", None)) is not _samplers.PseudoSampler:
        raise TypeError(
            f"{name}.sampler: expected PseudoSampler, got {type(getattr(head, 'sampler', None)).__name__}"
        )


class _Samples(Sequence[Any]):
    """Sampling results of a batch, each computed when it is asked for, as RTMDet-Ins's mask loss does."""

    def __init__(self, sample: Callable[[int], Any], batch: int) -> None:
        self._sample = sample
        self._batch = batch

    def __len__(self) -> int:
        return self._batch

    def __getitem__(self, image: Any) -> Any:
        return self._sample(range(self._batch)[image])

    def __iter__(self) -> Iterator[Any]:
        return map(self._sample, range(self._batch))


def _rtmdet_targets(
    self: Any,
    cls_scores: Tensor,
    bbox_preds: Tensor,
    anchor_list: Any,
    valid_flag_list: Any,
    batch_gt_instances: Any,
    batch_img_metas: Any,
    batch_gt_instances_ignore: Any = None,
    unmap_outputs: bool = True,
) -> Any:
    """``RTMDetHead.get_targets``: anchors, labels, label weights, boxes and IoUs.

    Each is a list of levels [B, P_l, ...]; the sampling results of the images follow.
    """
    check_head(self)
    if not unmap_outputs:
        raise ValueError(
            "unmap_outputs: expected True, got False; undo the patch with "
            "simota_triton.integrations.mmdet.unpatch()"
        )
    levels, batch = anchor_list[0], len(batch_img_metas)
    if any(own is not level for image in anchor_list for own, level in zip(image, levels, strict=True)):
        raise ValueError(
            "anchor_list: expected the same priors for every image, as RTMDetHead.get_anchors gives them, "
            "got others"
        )
    priors = torch.cat(levels)  # [P, 4]
    flags_of_images = [
        _prior_generators.anchor_inside_flags(
            priors, torch.cat(flags), meta["img_shape"][:2], self.train_cfg["allowed_border"]
        )
        for flags, meta in zip(valid_flag_list, batch_img_metas, strict=True)
    ]
    inside = torch.stack(flags_of_images)  # [B, P]
    assigner = self.assigner
    result = assigner.assign_batch(
        bbox_preds.detach(), cls_scores.detach(), priors, batch_gt_instances, candidate_mask=inside,
        batch_gt_instances_ignore=batch_gt_instances_ignore,
    )  # fmt: skip
    pos_weight = self.train_cfg["pos_weight"]
    targets = (
        torch.where(inside[..., None], priors, 0.0),
        result.labels,
        torch.where(
            result.fg_mask, pos_weight if pos_weight > 0 else 1.0, (inside & ~result.ignore_mask).float()
        ),
        result.gt_boxes.to(priors.dtype),
        result.matched_iou,
    )

    def sample(image: int) -> Any:
        keep = inside[image]
        assigned = assigner.to_image(result, image, len(batch_gt_instances[image]), keep)
        return self.sampler.sample(
            assigned, _structures.InstanceData(priors=priors[keep]), batch_gt_instances[image]
        )

    counts = [len(level) for level in levels]
    return *(list(target.split(counts, 1)) for target in targets), _Samples(sample, batch)


def _multi_apply(func: Any, *args: Any, **kwargs: Any) -> Any:
    """``multi_apply`` of YOLOX's head, which maps methods over images; targets are those of the batch."""
    if getattr(func, "__name__", "") == "_get_targets_single":
        return _yolox_targets(func.__self__, *args, **kwargs)
    return _utils.multi_apply(func, *args, **kwargs)


def _yolox_targets(
    head: Any,
    priors: Tensor,
    cls_preds: Tensor,
    bboxes: Tensor,
    objectness: Tensor,
    batch_gt_instances: Any,
    *ignored: Any,
) -> tuple[list[Any], ...]:
    """What ``_get_targets_single`` gives for each image, as lists of one entry: the head joins them."""
    check_head(head)
    priors = priors[0]  # [P, 4], the same for every image; corners, while the assigner takes centres
    centers = torch.cat([priors[:, :2] + priors[:, 2:] * 0.5, priors[:, 2:]], 1)
    result = head.assigner.assign_batch(bboxes, cls_preds, centers, batch_gt_instances, objectness=objectness)
    image, prior = result.fg_mask.nonzero(as_tuple=True)
    gt_boxes = result.gt_boxes[image, prior]  # [N, 4]
    classes = (
        F.one_hot(result.labels[image, prior], head.num_classes) * result.matched_iou[image, prior, None]
    )
    l1_targets = cls_preds.new_zeros(len(prior), 4)
    if head.use_l1:
        l1_targets = head._get_l1_target(l1_targets, gt_boxes, priors[prior])
    fg_mask = result.fg_mask.flatten()
    return (
        [fg_mask],
        [classes],
        [fg_mask[:, None].to(objectness.dtype)],
        [gt_boxes],
        [l1_targets],
        [len(prior)],
    )


def _plain(name: str, boxes: Any) -> Tensor:
    """Boxes as a tensor [*, 4]."""
    if isinstance(boxes, _boxes.HorizontalBoxes):
        boxes = boxes.tensor
    if not isinstance(boxes, Tensor):
        raise TypeError(
            f"{name}: expected a tensor [*, 4] or HorizontalBoxes, got {type(boxes).__name__}; keep the "
            "original assigner"
        )
    return boxes


def _in_any(boxes: Any, priors: Tensor) -> Tensor:
    """[P] bool: priors that lie in any of an image's boxes, as the type of the boxes has it."""
    if isinstance(boxes, _boxes.HorizontalBoxes):
        inside: Tensor = boxes.find_inside_points(priors[:, :2])  # [P, G]
    else:
        inside = in_region(priors[:, None], boxes, box_center(boxes), "box", 1.0)
    return inside.any(1)


def _dense(masks: Any, boxes: Tensor) -> Tensor:
    """Masks as a tensor [G, H, W]."""
    return masks if isinstance(masks, Tensor) else masks.to_tensor(dtype=torch.bool, device=boxes.device)
