"""Second opinions: every preset written down again in its original's style, to hold the definition against.

One image at a time, dense [n, G, C] losses from torch.nn.functional, a Python loop over gts, float64; nothing
of the package is used and no configuration is read: the constants below are the originals'. Three things are
the rule rather
than its precision and stay float32: where a prior lies, probabilities, and the sum once the penalty is added.
Rows that an original would have dropped (no candidates, unreadable predictions) are dropped before anything
is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

INF = float("inf")


@dataclass
class Image:
    """One image: n priors with readable predictions, G real gts."""

    pred: Tensor  # [n, 4] float64
    cls: Tensor  # [n, C] float32 logits
    # [n, C] float32, their sigmoid; given, since torch's differs by an ulp with an element's place in its
    # tensor
    p_cls: Tensor
    p_obj: Tensor  # [n, 1] float32, sigmoid of the objectness logits
    priors: Tensor  # [n, 4] float32
    boxes: Tensor  # [G, 4] float32
    labels: Tensor  # [G]
    centers: Tensor  # [G, 2] float32

    @property
    def onehot(self) -> Tensor:
        """[n, G, C] float64."""
        return F.one_hot(self.labels, self.cls.shape[1]).double()[None].expand(len(self.pred), -1, -1)

    def in_box(self) -> Tensor:
        """[n, G]: the smallest distance to the four sides is positive."""
        x, y = self.priors[:, None, 0], self.priors[:, None, 1]
        left, top, right, bottom = self.boxes.T
        return torch.stack([x - left, y - top, right - x, bottom - y], -1).amin(-1) > 0

    def in_center(self, radius: float) -> Tensor:
        """[n, G]: inside the square of ``radius`` strides around the centre."""
        x, y, stride_x, stride_y = self.priors[:, None].unbind(-1)
        cx, cy = self.centers.T
        sides = [
            x - (cx - radius * stride_x),
            y - (cy - radius * stride_y),
            (cx + radius * stride_x) - x,
            (cy + radius * stride_y) - y,
        ]
        return torch.stack(sides, -1).amin(-1) > 0

    def overlaps(self, guard: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """IoU and GIoU, [n, G]."""
        a, b = self.pred[:, None], self.boxes[None].double()
        size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
        hull = (
            (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
            .clamp(min=0)
            .prod(-1)
        )
        overlap = size.prod(-1)
        area_a, area_b = ((x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b))
        union, hull = guard(area_a + area_b - overlap), guard(hull)
        iou = (overlap / union).nan_to_num(0.0)
        return iou, iou - ((hull - union) / hull).nan_to_num(0.0)


def at_least(eps: float) -> Callable[[Tensor], Tensor]:
    return lambda area: area.clamp(min=eps)


def plus(eps: float) -> Callable[[Tensor], Tensor]:
    return lambda area: area + eps


def bare(area: Tensor) -> Tensor:
    return area


Costs = tuple[Tensor, Tensor]
"""Cost [n, G], +inf where a gt may not take a row, and the IoU [n, G] that dynamic k counts, 0 where it does
not.
"""


def penalised(cost: Tensor, outside: Tensor, penalty: float) -> Tensor:
    return torch.where(outside, (cost + penalty).float().double(), cost)


def kept(cost: Tensor, iou: Tensor, rows: Tensor) -> Costs:
    return torch.where(rows, cost, INF), torch.where(rows, iou, 0.0)


def yolox(
    image: Image,
    radius: float = 2.5,
    penalty: float = 1e5,
    eps: float = 1e-8,
    guard=bare,
    weight: float = 3.0,
    objectness: bool = True,
    clamp: float = 0.0,
    center_only: bool = False,
    own_pairs: bool = False,
) -> Costs:
    """YOLOX and its copies: BCE of probabilities, -log IoU, a penalty outside box and centre."""
    inner, near = image.in_box(), image.in_center(radius)
    either, both = (near, near) if center_only else (inner | near, inner & near)
    p = (image.p_cls * image.p_obj).sqrt() if objectness else image.p_cls
    p = p.clamp(clamp, 1 - clamp).double()[:, None].expand_as(image.onehot)
    iou, _ = image.overlaps(guard)
    cost = F.binary_cross_entropy(p, image.onehot, reduction="none").sum(-1) + weight * -torch.log(iou + eps)
    return kept(penalised(cost, ~both, penalty), iou, either if own_pairs else either.any(1, keepdim=True))


def soft_label(image: Image, guard=at_least(1e-6), center: bool = True) -> Costs:  # noqa: B008
    """RTMDet and NanoDet: soft BCE times the squared difference, all classes, rows inside any gt."""
    iou, _ = image.overlaps(guard)
    logits, soft = image.cls.double()[:, None].expand_as(image.onehot), image.onehot * iou[..., None]
    scale = (soft - logits.sigmoid()).abs().pow(2.0)
    cost = (F.binary_cross_entropy_with_logits(logits, soft, reduction="none") * scale).sum(-1) - torch.log(
        iou + 1e-7
    ) * 3.0
    if center:
        cost = cost + center_prior(image)
    return kept(cost.clamp(max=3e38), iou, image.in_box().any(1, keepdim=True))


def own_class(image: Image, guard=at_least(1e-6), eps: float = 1e-7, anywhere: bool = False) -> Costs:  # noqa: B008
    """mmyolo's RTMDet and the blog text: as :func:`soft_label`, of the gt's class; all priors count for k."""
    iou, _ = image.overlaps(guard)
    logit = image.cls.double()[:, image.labels]  # [n, G]
    cost = F.binary_cross_entropy_with_logits(logit, iou, reduction="none") * (
        iou - logit.sigmoid()
    ).abs().pow(2.0)
    cost = cost - torch.log(iou + eps) * 3.0 + center_prior(image)
    readable = logit.isfinite()
    rows = readable if anywhere else readable & image.in_box().any(1, keepdim=True)
    return torch.where(rows, cost.clamp(max=3e38), INF), torch.where(readable, iou, 0.0)


def center_prior(image: Image) -> Tensor:
    distance = (image.priors[:, None, :2].double() - image.centers[None].double()).pow(2).sum(
        -1
    ).sqrt() / image.priors[:, None, 2]
    return torch.pow(10.0, distance - 3.0).clamp(max=3e38)


def damo(image: Image) -> Costs:
    """DAMO-YOLO: the soft label on probabilities, YOLOX's regions, penalty 1e8."""
    inner, near = image.in_box(), image.in_center(2.5)
    iou, _ = image.overlaps(at_least(1e-6))
    p, soft = image.p_cls.double()[:, None].expand_as(image.onehot), image.onehot * iou[..., None]
    cost = (F.binary_cross_entropy(p, soft, reduction="none") * (soft - p).abs().pow(2.0)).sum(
        -1
    ) - torch.log(iou + 1e-7) * 3.0
    return kept(penalised(cost, ~(inner & near), 1e8), iou, (inner | near).any(1, keepdim=True))


def picodet(image: Image, clamp: float = 0.0) -> Costs:
    """PicoDet: varifocal loss of probabilities and GIoU, penalty 1e8."""
    inner, near = image.in_box(), image.in_center(2.5)
    iou, giou = image.overlaps(at_least(1e-6))
    p, inside_log = (
        v.double()[:, None].expand_as(image.onehot)
        for v in (image.p_cls, image.p_cls.clamp(clamp, 1 - clamp))
    )
    target = image.onehot * iou[..., None]
    weight = torch.where(target > 0, target, 0.75 * (p - target).abs().pow(2.0))
    cost = (F.binary_cross_entropy(inside_log, target, reduction="none") * weight).sum(-1) + 6.0 * (1 - giou)
    return kept(penalised(cost, ~(inner & near), 1e8), iou, (inner | near).any(1, keepdim=True))


@dataclass(frozen=True)
class Rule:
    """A preset: its costs, q of dynamic k, the factor of the IoU sum, and who gets a prior that several gts
    selected.
    """

    costs: Callable[[Image], Costs]
    topk: int = 10
    scale: float = 1.0
    conflict: str = "all"


RULES = {
    "seed": Rule(lambda i: own_class(i, bare, 1e-10, anywhere=True), 13, conflict="max_iou"),
    "rtmdet": Rule(soft_label, 13),
    "rtmdet_mmyolo": Rule(own_class, 13),
    "libre_rtmdet": Rule(lambda i: soft_label(i, at_least(1e-7)), 13),
    "nanodet": Rule(lambda i: soft_label(i, center=False), 13),
    "damo": Rule(damo),
    "yolox": Rule(yolox),
    "yolox_main": Rule(lambda i: yolox(i, radius=1.5, penalty=1e6, center_only=True)),
    "mmdet_simota": Rule(lambda i: yolox(i, eps=1e-7, guard=at_least(1e-6))),
    "super_gradients": Rule(lambda i: yolox(i, guard=plus(1e-9))),
    "super_gradients_fast": Rule(lambda i: yolox(i, own_pairs=True), scale=1.1, conflict="matched"),
    "picodet": Rule(picodet),
    "picodet_lightly": Rule(lambda i: picodet(i, clamp=1e-7), conflict="matched"),
    "picodet_libre": Rule(lambda i: yolox(i, objectness=False, clamp=1e-7, weight=6.0, guard=plus(1e-16))),
}


def matched(cost: Tensor, iou: Tensor, rule: Rule) -> tuple[list[int], list[int], list[int]]:
    """Gt of each of n priors (-1: none), dynamic k of each gt, number of gts that selected each prior."""
    n, num_gts = cost.shape
    selected_by: list[list[int]] = [[] for _ in range(n)]
    ks = []
    for g in range(num_gts):
        total = math.fsum(sorted(iou[:, g].tolist(), reverse=True)[: rule.topk])
        ks.append(max(1, math.floor(total * rule.scale)))
        column = cost[:, g].tolist()
        for p in sorted(range(n), key=lambda p: (column[p], p))[: ks[g]]:
            if column[p] < INF:
                selected_by[p].append(g)
    answer = []
    for p, claimants in enumerate(selected_by):
        if len(claimants) < 2:
            answer.append(claimants[0] if claimants else -1)
            continue
        among = claimants if rule.conflict == "matched" else [g for g in range(num_gts) if cost[p, g] < INF]
        sign = -iou[p] if rule.conflict == "max_iou" else cost[p]
        answer.append(min(among, key=lambda g: (float(sign[g]), g)))
    return answer, ks, [len(c) for c in selected_by]
