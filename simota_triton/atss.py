"""ATSS (Zhang et al., CVPR 2020): the assigner that task-aligned detectors warm up with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import box_center, box_iou
from .checks import Ragged, fail, floating, same_device, shape_of, tensor
from .config import MAX_TOPK
from .ground_truth import checked, ground_truth
from .matching import cheapest
from .problem import GroundTruth
from .result import AssignResult
from .terms import depth

BLOCK_PAIRS = 1 << 20
"""(gt, prior) pairs of which distances are formed at once, 4 MB a tensor."""

UNION_EPS = 1e-6
"""The union of an IoU is at least this, as in mmdet's ``bbox_overlaps``."""

CONFLICTS = ("all", "matched")


class Pairs(NamedTuple):
    """A list of (gt, prior) pairs.

    Attributes:
        row: [n] int64, row of the gt.
        prior: [n] int64.
        iou: [n] float32, IoU of the gt and the prior's anchor.
    """

    row: Tensor
    prior: Tensor
    iou: Tensor


@torch.no_grad()
def atss_assign(
    priors: Tensor,
    gt_boxes: Ragged,
    gt_labels: Ragged,
    num_classes: int,
    *,
    gt_mask: Tensor | None = None,
    gt_offsets: Tensor | None = None,
    pred_boxes: Tensor | None = None,
    topk: int = 9,
    anchor_size: float = 5.0,
    margin: float = 0.0,
    at_threshold: bool = False,
    conflict: str = "all",
    validate: bool | None = None,
) -> AssignResult:
    """ATSS assignment of a batch, which looks at gts and not at predictions.

    Every prior stands for a square anchor of ``anchor_size`` strides about its point. The candidates of a gt
    are the ``topk`` priors of each level whose points are nearest to its centre, of equals the lowest. It
    selects those in which

        IoU(gt, anchor) > mean + std of the candidates' IoUs    and    the point lies inside its box,

    with the standard deviation over n - 1; a prior that several gts selected goes to the one of the largest
    IoU with its anchor, of equals the lowest.

    The defaults are those of YOLOv6 e86a483 ``yolov6/assigners/atss_assigner.py``, mmyolo 0.6.0
    ``batch_atss_assigner.py``, PaddleDetection 2.6.0 ``atss_assigner.py`` and super-gradients 3.7.1, with
    which YOLOv6 and PP-YOLOE train for their first epochs. TOOD's first four epochs are mmdet 3.3.0
    ``atss_assigner.py``: ``anchor_size=8.0, margin=0.01, at_threshold=True, conflict="matched"``.

    A level with fewer than ``topk`` priors has fewer candidates. The host waits for a GPU.

    Args:
        priors: [P, 3] or [P, 4] x, y, stride: cell centres, level after level.
        gt_boxes: xyxy, in one of the three forms of :class:`SimOTAAssigner`.
        gt_labels: Integer classes in [0, C).
        num_classes: C, the label of background.
        gt_mask: [B, G] bool, True for real gts, for padded gts.
        gt_offsets: [B + 1] int, for packed gts.
        pred_boxes: [B, P, 4] predictions, whose IoUs are then ``scores``, as of YOLOv6; None: the anchors'.
        topk: Candidates of a level, 1 to 32.
        anchor_size: Side of an anchor, in strides.
        margin: How far inside its gt a point must lie, in pixels.
        at_threshold: Whether an IoU of exactly the threshold is enough.
        conflict: Among ``"all"`` gts of the image, or among those that selected the prior (``"matched"``).
        validate: As of :class:`SimOTAAssigner`.

    Returns:
        An :class:`AssignResult`, whose ``dynamic_k`` is how many candidates a gt had.

    Raises:
        TypeError, ValueError: An argument is not what it should be.

    Example:
        >>> from simota_triton import grid_priors
        >>> gts = [torch.tensor([[4.0, 4.0, 28.0, 28.0]])], [torch.tensor([1])]
        >>> result = atss_assign(grid_priors(32, (4, 8), offset=0.5), *gts, num_classes=3)
        >>> result.fg_mask.nonzero()[:, 1].tolist()
        [27, 28, 35, 36]
    """
    priors = _checked_priors(priors)
    _check_numbers(topk, anchor_size, conflict)
    device, num_priors, batch = priors.device, priors.shape[0], _batch_size(gt_boxes, gt_offsets)
    if pred_boxes is not None:
        _check_predictions(pred_boxes, batch, num_priors, device)
    validate = device.type != "cuda" if validate is None else validate
    given = ground_truth(gt_boxes, gt_labels, gt_mask, gt_offsets, None, batch, device, validate)
    given = checked(given, num_classes) if validate else given
    gts = given.sanitised(num_classes)
    image, anchors = gts.image(), _anchors(priors, anchor_size)
    taking_part = torch.ones_like(gts.labels, dtype=torch.bool) if gts.mask is None else gts.mask  # [N]

    pairs, asked = _selected(priors, anchors, gts, taking_part, topk, margin, at_threshold)
    place = image[pairs.row] * num_priors + pairs.prior
    claims = torch.bincount(place, minlength=batch * num_priors).int()
    if conflict == "all":
        pairs = _with_rivals(pairs, anchors, gts, taking_part, (claims > 1).view(batch, -1))
        place = image[pairs.row] * num_priors + pairs.prior

    owner, iou = _owners(pairs, place, batch * num_priors, gts.boxes.shape[0])
    won = (owner < gts.boxes.shape[0]).nonzero().squeeze(1)
    row = owner[won]  # [n]
    if pred_boxes is not None:
        iou[won] = box_iou(pred_boxes.float().flatten(0, 1)[won], gts.boxes[row])
    gt_index, labels = torch.full_like(owner, -1), torch.full_like(owner, num_classes)
    gt_index[won], labels[won] = row - gts.offsets[image[row]], gts.labels[row]
    matched = iou.masked_fill(gt_index < 0, 0.0).view(batch, -1)
    return AssignResult(
        gt_index=gt_index.view(batch, -1),
        labels=labels.view(batch, -1),
        matched_iou=matched,
        ignore_mask=torch.zeros_like(matched, dtype=torch.bool),
        claims=claims.view(batch, -1),
        dynamic_k=asked if gts.padded_shape is None else asked.view(gts.padded_shape),
        num_classes=num_classes,
        gts=given,
        scores=matched,
    )


def _owners(pairs: Pairs, place: Tensor, places: int, nobody: int) -> tuple[Tensor, Tensor]:
    """Of each place the row of the gt with the largest IoU, of equals the lowest, ``nobody`` where there is
    none; and that IoU.
    """
    device = place.device
    iou = torch.full((places,), -1.0, dtype=torch.float32, device=device)
    iou.scatter_reduce_(0, place, pairs.iou, "amax")
    best = pairs.iou == iou[place]
    owner = torch.full((places,), nobody, dtype=torch.int64, device=device)
    return owner.scatter_reduce_(0, place, torch.where(best, pairs.row, nobody), "amin"), iou


def _anchors(priors: Tensor, anchor_size: float) -> Tensor:
    """Squares about the points of priors, [P, 4] xyxy."""
    reach = priors[:, 2:3] * anchor_size * 0.5
    return torch.cat([priors[:, :2] - reach, priors[:, :2] + reach], 1)


def _selected(
    priors: Tensor,
    anchors: Tensor,
    gts: GroundTruth,
    taking_part: Tensor,
    topk: int,
    margin: float,
    at_threshold: bool,
) -> tuple[Pairs, Tensor]:
    """The pairs that gts select, and how many candidates each gt has, [N]."""
    levels = _levels(priors)
    found = []
    for rows in _blocks(gts.boxes.shape[0], priors.shape[0]):
        boxes = gts.boxes[rows]
        offset = priors[:, :2] - box_center(boxes)[:, None]  # [g, P, 2]
        distance = offset[..., 0].square() + offset[..., 1].square()
        near = [
            cheapest(distance[None, :, level], min(topk, level.stop - level.start))[0] + level.start
            for level in levels
        ]
        candidates = torch.cat(near, 1)  # [g, n]
        iou = box_iou(boxes[:, None], anchors[candidates], rule="max", eps=UNION_EPS)
        spread = iou.std(1) if candidates.shape[1] > 1 else torch.zeros_like(iou[:, 0])
        threshold = (iou.mean(1) + spread)[:, None]
        points = priors[candidates]
        inside = torch.minimum(
            depth(points[..., 0], boxes[:, None, 0], boxes[:, None, 2]),
            depth(points[..., 1], boxes[:, None, 1], boxes[:, None, 3]),
        )
        taken = (iou >= threshold if at_threshold else iou > threshold) & (inside > margin)
        gt, slot = (taken & taking_part[rows, None]).nonzero().unbind(1)
        found.append(Pairs(gt + rows.start, candidates[gt, slot], iou[gt, slot]))
    count = sum(min(topk, level.stop - level.start) for level in levels)
    return _joined(found, priors.device), taking_part.long() * count


def _with_rivals(
    pairs: Pairs, anchors: Tensor, gts: GroundTruth, taking_part: Tensor, contested: Tensor
) -> Pairs:
    """Pairs, and those of contested priors [B, P] with all gts of their image."""
    found = [pairs]
    for image in contested.any(1).nonzero().squeeze(1).tolist():
        start, stop = gts.offsets[image : image + 2].tolist()
        prior = contested[image].nonzero().squeeze(1)  # [n]
        row = taking_part[start:stop].nonzero().squeeze(1) + start
        for part in _blocks(row.shape[0], prior.shape[0]):
            iou = box_iou(gts.boxes[row[part], None], anchors[prior], rule="max", eps=UNION_EPS)  # [g, n]
            own, other = torch.broadcast_tensors(row[part, None], prior)
            found.append(Pairs(own.flatten(), other.flatten(), iou.flatten()))
    return _joined(found, anchors.device)


def _joined(parts: list[Pairs], device: torch.device) -> Pairs:
    """Lists of pairs as one."""
    index = torch.empty(0, dtype=torch.int64, device=device)
    nothing = Pairs(index, index, torch.empty(0, dtype=torch.float32, device=device))
    return Pairs(*map(torch.cat, zip(nothing, *parts, strict=True)))


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Runs of rows of which each forms about ``BLOCK_PAIRS`` pairs with ``width`` others."""
    step = max(1, BLOCK_PAIRS // max(width, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _levels(priors: Tensor) -> list[slice]:
    """Runs of priors of one stride."""
    if not priors.shape[0]:
        return []
    changes = (priors[1:, 2] != priors[:-1, 2]).nonzero().squeeze(1) + 1
    return [slice(*ends) for ends in pairwise([0, *changes.tolist(), priors.shape[0]])]


def _batch_size(gt_boxes: Ragged, gt_offsets: Tensor | None) -> int:
    """B, which only the gts tell."""
    if gt_offsets is not None:
        tensor("gt_offsets", gt_offsets)
        return max(gt_offsets.numel() - 1, 0)
    return len(gt_boxes)


def _checked_priors(priors: Tensor) -> Tensor:
    """Priors [P, 3 or 4] in float32."""
    tensor("priors", priors)
    if priors.ndim != 2 or priors.shape[1] not in (3, 4):
        fail("priors", "[P, 3] x, y, stride, or [P, 4]", shape_of(priors), "")
    floating("priors", priors)
    return priors.float()


def _check_numbers(topk: int, anchor_size: float, conflict: str) -> None:
    """Refuse what is out of range, or no name."""
    if not 1 <= topk <= MAX_TOPK:
        raise ValueError(f"topk: expected 1 to {MAX_TOPK}, got {topk}")
    if not anchor_size > 0:
        raise ValueError(f"anchor_size: expected a number above 0, got {anchor_size}")
    if conflict not in CONFLICTS:
        raise ValueError(f"conflict: expected one of {', '.join(map(repr, CONFLICTS))}, got {conflict!r}")


def _check_predictions(pred_boxes: Tensor, batch: int, num_priors: int, device: torch.device) -> None:
    """Refuse what is not [B, P, 4]."""
    tensor("pred_boxes", pred_boxes)
    if pred_boxes.shape != (batch, num_priors, 4):
        fail("pred_boxes", f"[B, P, 4] = [{batch}, {num_priors}, 4]", shape_of(pred_boxes), "")
    floating("pred_boxes", pred_boxes)
    same_device("pred_boxes", pred_boxes, device)
