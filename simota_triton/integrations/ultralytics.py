"""Ultralytics 8.3 and 8.4: ``TaskAlignedAssigner``, by which YOLOv5u, v8, v9, v10, 11, 12 and 26 assign.

This serves the losses of detection, segmentation and pose that hold the plain class, one-to-one heads among
them, and those of rotated boxes (``RotatedTaskAlignedAssigner``). ``PoseTaskAlignedAssigner`` and
``SegTaskAlignedAssigner`` (pose and segmentation of YOLO26) measure overlap by keypoints and masks: they stay
as they are.

Call ``patch()`` before ``train``: Python processes that are started later, as the ranks of
``train(device="0,1")`` are, inherit it. ``simota-triton run --patch ultralytics -- yolo train ...`` needs no
line of code.
"""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .patching import Package, Patch, Replacement
from .task_aligned_family import dense_targets

PACKAGE = Package(
    "ultralytics",
    {"ultralytics": ("8.3.0 to 8.3.253", "8.4.0 to 8.4.190")},
    "pip install ultralytics==8.4.190",
)
_PATCH = Patch(PACKAGE)

PARAMETERS = ("self", "pd_scores", "pd_bboxes", "anc_points", "gt_labels", "gt_bboxes", "mask_gt")
"""Of ``TaskAlignedAssigner.forward``; newer versions have ``**extra`` too, for the classes that are kept."""

BYPASSED = (
    "_forward", "get_pos_mask", "get_box_metrics", "pair_overlaps", "iou_calculation",
    "select_topk_candidates", "get_targets", "select_candidates_in_gts", "select_highest_overlaps",
)  # fmt: skip
"""Methods of ``TaskAlignedAssigner``, which are not called while it is patched."""

ENLARGED = {(False, False): None, (True, False): 0, (True, True): 1}
"""Whether boxes of 6 and of 12 pixels are enlarged to 16 -> the place of the stride (8 or 16) that sides are
enlarged below."""

PRESETS = {None: "tal_v8", 0: "tal_840", 1: "tal"}
ROTATED_PRESETS = {None: "tal_obb_v8", 0: "tal_obb", 1: "tal_obb"}
"""That place -> our preset."""

KEPT = ("PoseTaskAlignedAssigner", "SegTaskAlignedAssigner")
"""Subclasses that keep the original, as far as a version has them."""


def patch() -> Patch:
    """Make Ultralytics' losses assign by simota_triton.

    Returns:
        The patch, which is also a context manager that undoes it.

    Raises:
        ImportError: ultralytics is missing or of another version.
        AttributeError, TypeError: The assigner is not laid out as expected; names the attribute.

    Example:
        >>> import simota_triton.integrations.ultralytics
        >>> simota_triton.integrations.ultralytics.patch()  # doctest: +SKIP
    """
    module = PACKAGE.load("ultralytics.utils.tal")
    return _PATCH.apply([plain_replacement(module), rotated_replacement(module)], in_children=True)


def unpatch() -> None:
    """Put the assigner back as it was."""
    _PATCH.undo()


def is_patched() -> bool:
    """Whether the losses of this process assign by simota_triton."""
    return _PATCH.applied


def calls() -> dict[str, int]:
    """How often the patched function was called in this process, by its name."""
    return dict(_PATCH.calls)


def plain_replacement(module: ModuleType) -> Replacement:
    """``TaskAlignedAssigner.forward`` of ``ultralytics.utils.tal``."""
    kept = tuple(getattr(module, name) for name in KEPT if hasattr(module, name))
    return _replacement(PACKAGE.attribute(module, "TaskAlignedAssigner"), PRESETS, kept)


def rotated_replacement(module: ModuleType) -> Replacement:
    """``RotatedTaskAlignedAssigner.forward``."""
    return _replacement(PACKAGE.attribute(module, "RotatedTaskAlignedAssigner"), ROTATED_PRESETS)


def _replacement(owner: type, presets: dict[int | None, str], kept: tuple[type, ...] = ()) -> Replacement:
    original = PACKAGE.attribute(owner, "forward")
    extra = ("extra",) if "extra" in inspect.signature(original).parameters else ()
    PACKAGE.expect(owner, "forward", (*PARAMETERS, *extra))
    enlarged = enlarged_by(owner, rotated=presets is ROTATED_PRESETS)
    preset = presets[enlarged]

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return _assign(self, preset, enlarged, *args, **kwargs)

    return Replacement(owner, "forward", forward, preset, BYPASSED, kept)


def enlarged_by(assigner: type, *, rotated: bool) -> int | None:
    """Which sides an assigner's class enlarges for the region, by what it does with boxes of 6 and 12 pixels.
    Versions differ in that, and a class tells more surely than its version.

    Returns:
        Sides below the stride at this place among those of an instance; None: no sides.

    Raises:
        TypeError: It enlarges others, or to other than 16 pixels.
    """
    made = assigner(topk=10, num_classes=1, alpha=0.5, beta=6.0)
    sides = torch.tensor([[6.0], [12.0]], dtype=torch.float32, device="cpu")
    center = torch.full_like(sides, 50.0)
    if rotated:
        boxes = torch.cat([center, center, sides, sides, torch.zeros_like(sides)], 1)[None]  # [1, 2, 5]
    else:
        boxes = torch.cat([center - sides / 2] * 2 + [center + sides / 2] * 2, 1)[None]  # [1, 2, 4]
    points = torch.tensor([[50.0, 50.0], [57.0, 50.0], [59.0, 50.0]], dtype=torch.float32, device="cpu")
    masked = "mask_gt" in inspect.signature(made.select_candidates_in_gts).parameters
    mask = (torch.ones((1, 2, 1), dtype=torch.float32, device="cpu"),) if masked else ()
    center_in, reached, beyond = made.select_candidates_in_gts(points, boxes, *mask)[0].bool().unbind(1)
    found = tuple(reached.tolist())
    if found not in ENLARGED or not center_in.all() or beyond.any():
        raise TypeError(
            f"{assigner.__name__}.select_candidates_in_gts: expected sides below 8 or below 16 pixels to be "
            f"enlarged to 16, or none, got another region; works with {PACKAGE}: {PACKAGE.install}"
        )
    return ENLARGED[found]


def _assign(
    self: Any,
    preset: str,
    enlarged: int | None,
    pd_scores: Tensor,
    pd_bboxes: Tensor,
    anc_points: Tensor,
    gt_labels: Tensor,
    gt_bboxes: Tensor,
    mask_gt: Tensor,
) -> tuple[Tensor, ...]:
    """``TaskAlignedAssigner.forward`` with the arguments of an instance.

    Args:
        self: The assigner.
        preset: Name of our preset.
        enlarged: What :func:`enlarged_by` says of its class.
        pd_scores: [B, P, C] probabilities.
        pd_bboxes: [B, P, 4] xyxy, or [B, P, 5] rotated.
        anc_points: [P, 2] centres of cells, in pixels.
        gt_labels: [B, G, 1], of any dtype.
        gt_bboxes: [B, G, 4] xyxy, or [B, G, 5] rotated.
        mask_gt: [B, G, 1], 0 for padding.

    Returns:
        Labels [B, P] int64, boxes [B, P, 4], scores [B, P, C], foreground [B, P] bool and gts [B, P] int64.
        Background has the label and the box of the image's first gt and index 0, as in the original; without
        gts it has the label C.
    """
    return dense_targets(
        preset, overrides_of(self, enlarged), pd_scores, pd_bboxes, anc_points, gt_labels[..., 0], gt_bboxes,
        mask_gt[..., 0],
    )  # fmt: skip


def overrides_of(assigner: Any, enlarged: int | None) -> dict[str, Any]:
    """What an assigner's attributes change in its preset."""
    topk2 = getattr(assigner, "topk2", assigner.topk)
    overrides = {
        "topk": assigner.topk,
        "topk2": None if topk2 == assigner.topk else topk2,
        "alpha": float(assigner.alpha),
        "beta": float(assigner.beta),
        "norm_eps": float(assigner.eps),
    }
    if enlarged is not None:
        strides = assigner.stride if len(assigner.stride) > 1 else [*assigner.stride] * 2
        overrides |= {"min_side_below": float(strides[enlarged]), "min_side_to": float(strides[1])}
    return overrides
