"""Lists of (gt, prior) pairs, their bounds and their costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import terms
from ..config import SimOTAConfig
from ..inputs import Problem
from .candidates import Gts, candidate_mask, near_priors, usable_mask
from .folded import ALIGN
from .levels import Levels

BLOCK_SCORES = 1 << 16
"""Scores of whole priors read at once; their class costs take five tensors of this size."""

NEAR_COST = 8.0
"""What the centre term alone costs outside the priors near a gt: few gts have a k-th cost above it."""

LARGE_WINDOW = 8
"""Priors near a gt are listed where that can be at most this part of a level of all priors."""


@dataclass(frozen=True)
class Pairs:
    """Some pairs: row among the real gts, place of the prior in the batch (see ``Costs``), IoU and cost, [n] each."""

    row: Tensor
    place: Tensor
    iou: Tensor
    cost: Tensor

    def select(self, which: Tensor) -> Pairs:
        """The pairs of some indices."""
        return Pairs(*(column.index_select(0, which) for column in (self.row, self.place, self.iou, self.cost)))

    @staticmethod
    def concatenate(parts: list[Pairs]) -> Pairs:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        columns = zip(*((p.row, p.place, p.iou, p.cost) for p in parts), strict=True)
        return Pairs(*(torch.cat(column) for column in columns))


class PairTerms(NamedTuple):
    """Unweighted terms of pairs, [n] each: the gt's class, what it replaces in the class sum, IoU, centre, penalty."""

    own: Tensor
    background: Tensor
    iou: Tensor
    center: Tensor | None
    outside: Tensor | None

    def select(self, which: Tensor) -> PairTerms:
        """The terms of some indices."""
        return PairTerms(*(None if t is None else t.index_select(0, which) for t in self))  # type: ignore[arg-type]


class Costs:
    """Bounds and costs of a problem's pairs.

    Images are padded to ``stride`` priors; prior p of image b is at place b * stride + p.

    A first attempt (not ``careful``) takes all scores to be finite and looks only at those it reads: ``clean`` tells
    whether they were. A prior that was never read cannot matter, so a clean attempt stands; another is made carefully,
    with masks over all scores, which take longer than everything else.

    Attributes:
        boxes: [B * stride, 4] float32, zeros where the prior does not count for ``dynamic_k``.
        selectable: [B * stride] bool, candidates.
        priors: [stride, 4].
        floor: What pairs that are not among :meth:`near` cost at least, beside their IoU term.
    """

    def __init__(self, problem: Problem, config: SimOTAConfig, gts: Gts, *, careful: bool) -> None:
        self.problem, self.config, self.gts = problem, config, gts
        self.all_classes = config.cls_classes == "all"
        self.has_penalty = config.penalty > 0 and config.eligible != "all"
        self.careful = careful
        self._masks_pairs = config.own_pairs_only or (careful and not self.all_classes)
        self._read: list[Tensor] = []
        batch, num_priors, _ = problem.shape
        self.stride = -(-num_priors // ALIGN) * ALIGN
        self._levels = Levels.of(problem.priors)
        usable = usable_mask(problem, self.all_classes) if careful or not _boxes_are_finite(problem) else None
        selectable = candidate_mask(problem, config, gts, self._levels)
        if usable is not None:
            selectable = selectable & usable
        pool = selectable if config.k_pool == "candidates" else usable
        boxes = torch.zeros((batch, self.stride, 4), device=gts.boxes.device)
        boxes[:, :num_priors] = problem.pred_boxes
        if pool is not None:
            boxes[:, :num_priors].masked_fill_(~pool[..., None], 0)
        self.boxes, self._corners = boxes.view(-1, 4), boxes.permute(0, 2, 1).contiguous()  # [B, 4, stride]
        self.priors = F.pad(problem.priors, (0, 0, 0, self.stride - num_priors))
        self.selectable = F.pad(selectable, (0, self.stride - num_priors)).view(-1)
        self._radius, self.floor = self._window()

    def _window(self) -> tuple[float, float]:
        """Radius in strides around a gt's centre, and what pairs beyond it cost at least; 0 and 0 where no cost tells."""
        config, windows = self.config, [(math.inf, 0.0)]
        if config.center_weight and config.center_base > 1:
            radius = config.center_offset + math.log(NEAR_COST / config.center_weight, config.center_base)
            windows.append((max(radius, 0.0), NEAR_COST))
        if self.has_penalty and config.eligible in ("center", "box_and_center"):
            windows.append((config.center_radius, config.penalty))
        radius, floor = min(windows)
        return (radius, floor) if math.pi * radius**2 < self.problem.shape[1] / LARGE_WINDOW else (0.0, 0.0)

    def near(self, rows: slice) -> Tensor | None:
        """Places of all priors whose pairs with gts ``rows`` can cost less than ``floor``, and of others, [g, w], -1 for
        none; None where the floor is 0.
        """
        if not self._radius:
            return None
        prior = near_priors(self.problem, self.gts, self._levels, rows, self._radius)
        return torch.where(prior < 0, -1, prior + self.gts.image[rows, None] * self.stride)

    def clean(self) -> bool:
        """Whether every score that was read is finite."""
        return self.careful or bool(torch.stack(self._read).isfinite().all())

    def iou_block(self, image: int, rows: slice) -> Tensor:
        """IoUs of gts and all priors of their image, [g, stride]; -inf where a pair does not exist."""
        iou = terms.pair_iou(self._corners[image].t(), self.gts.boxes[rows, None], self.config)
        if self._masks_pairs:
            row = torch.arange(rows.start, rows.stop, device=iou.device)
            place = torch.arange(self.stride, device=iou.device) + image * self.stride
            iou.masked_fill_(~self.exists(row[:, None], place), -torch.inf)
        return iou

    # Pairs are two tensors of indices, row and place, of shapes that broadcast against each other.

    def iou(self, row: Tensor, place: Tensor) -> Tensor:
        """IoU of pairs; -inf where one does not exist."""
        iou = terms.pair_iou(_take(self.boxes, place), _take(self.gts.boxes, row), self.config)
        return iou.masked_fill_(~self.exists(row, place), -torch.inf) if self._masks_pairs else iou

    def exists(self, row: Tensor, place: Tensor) -> Tensor:
        """Whether pairs take part at all."""
        mask = torch.ones((), dtype=torch.bool, device=place.device)
        if self.config.own_pairs_only:
            mask = self._in_region(row, place, self.config.candidate)
        if self.careful and not self.all_classes:
            mask = mask & self._own_logits(row, place).isfinite()
        return mask

    def can_select(self, place: Tensor, iou: Tensor) -> Tensor:
        """Whether pairs of these IoUs may be selected."""
        return _take(self.selectable, place.clamp(min=0)) & (iou > -torch.inf)

    def flat(self, place: Tensor) -> Tensor:
        """Index b * P + p of places."""
        return place - place // self.stride * (self.stride - self.problem.shape[1])

    def bound(self, row: Tensor, place: Tensor, iou: Tensor) -> Tensor:
        """The cost without its class term, a lower bound of it."""
        return terms.pair_cost(torch.zeros((), device=iou.device), *self._other_terms(row, place, iou), self.config)

    def lowest_iou(self, limit: Tensor) -> Tensor:
        """The smallest IoU that a pair with a cost of at most ``limit`` can have, and a few ulp less."""
        if not self.config.iou_weight:
            return torch.zeros_like(limit)
        worth = limit / self.config.iou_weight
        iou = torch.exp(-worth) - self.config.log_eps if self.config.iou_cost == "log" else 1 - worth  # GIoU <= IoU
        return (iou - 1e-6).clamp(min=0)

    def terms(self, row: Tensor, place: Tensor, iou: Tensor) -> PairTerms:
        """The terms of pairs, [n] each, all but the sum over classes."""
        config, scores = self.config, self._own_scores(row, place)
        own = terms.class_cost(scores, iou, config)
        background = terms.background_cost(scores, config) if self.all_classes else scores
        return PairTerms(own, background, *self._other_terms(row, place, iou))

    def _other_terms(self, row: Tensor, place: Tensor, iou: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """IoU, centre and penalty terms."""
        config = self.config
        boxes = _take(self.boxes, place) if config.iou_cost == "giou" else iou
        priors, centers = _take(self.priors, place % self.stride), _take(self.gts.centers, row)
        return (
            terms.iou_cost(boxes, _take(self.gts.boxes, row), iou, config),
            terms.center_cost(priors, centers, config) if config.center_weight else None,
            ~self._in_region(row, place, config.eligible) if self.has_penalty else None,
        )

    def _in_region(self, row: Tensor, place: Tensor, region: str) -> Tensor:
        gts, priors = self.gts, _take(self.priors, place % self.stride)
        return terms.in_region(priors, _take(gts.boxes, row), _take(gts.centers, row), region, self.config.center_radius)

    def lower(self, t: PairTerms) -> Tensor:
        """The cost without the other classes' terms: a lower bound where those count, else the cost."""
        return terms.pair_cost(t.own, t.iou, t.center, t.outside, self.config)

    def cost(self, t: PairTerms, place: Tensor, sums: ClassSums) -> Tensor:
        """The cost of pairs, [n]."""
        if not self.all_classes:
            return self.lower(t)
        own = terms.swap_class(sums.of(place), t.background, t.own)
        return terms.pair_cost(own, t.iou, t.center, t.outside, self.config)

    def read(self, row: Tensor, place: Tensor) -> None:
        """Look at the scores of pairs that count for ``dynamic_k``, whether or not they are costed."""
        if self.careful:
            return
        if not self.all_classes:
            self._own_logits(row, place)
            return
        for part in place.unique().split(self.rows_at_once):
            self.scores(part)

    def _own_scores(self, row: Tensor, place: Tensor) -> Tensor:
        """Class scores of the gts' own classes."""
        image, prior = place // self.stride, place % self.stride
        objectness = None if self.problem.obj_logits is None else self.problem.obj_logits.at(image, prior, torch.zeros_like(prior))
        return terms.class_scores(self._own_logits(row, place), objectness, self.config)

    def _own_logits(self, row: Tensor, place: Tensor) -> Tensor:
        """Logits of the gts' own classes."""
        row, place = torch.broadcast_tensors(row, place)
        image, prior, label = place.flatten() // self.stride, place.flatten() % self.stride, _take(self.gts.labels, row.flatten())
        logits = self.problem.cls_logits.at(image, prior.clamp(max=self.problem.shape[1] - 1), label)
        self._read.append(logits.sum(dtype=torch.float32))
        return logits.view(place.shape)

    def scores(self, place: Tensor) -> tuple[Tensor, Tensor | None]:
        """Class and objectness logits of places, [n, C] and [n, 1]."""
        problem = self.problem
        image, prior = place // self.stride, place % self.stride
        logits = problem.cls_logits.rows(image, prior)
        self._read.append(logits.sum(dtype=torch.float32))
        return logits, None if problem.obj_logits is None else problem.obj_logits.rows(image, prior)

    @property
    def rows_at_once(self) -> int:
        """Priors whose scores are read at once."""
        return max(1, BLOCK_SCORES // self.problem.shape[2])


class ClassSums:
    """Background class cost of places, summed over classes; remembers those it was asked for."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._known = torch.full_like(costs.boxes[:, 0], torch.nan)

    def of(self, place: Tensor) -> Tensor:
        """The sums of places, [n]."""
        costs = self._costs
        unknown = self._known.index_select(0, place).isnan().nonzero().squeeze(1)
        for part in place.index_select(0, unknown).unique().split(costs.rows_at_once):
            logits, objectness = costs.scores(part)
            scores = terms.class_scores(logits, objectness, costs.config)
            self._known[part] = terms.background_cost(scores, costs.config).sum(1)
        return self._known.index_select(0, place)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """``values[index]``, three times as fast."""
    return values.index_select(0, index.flatten()).view(*index.shape, *values.shape[1:])


def _boxes_are_finite(problem: Problem) -> bool:
    """Whether all priors certainly take part: boxes and their areas, objectness and priors are finite, none is masked out."""
    if problem.candidate_mask is not None:
        return False
    values = [
        problem.priors.sum(),
        *(() if problem.obj_logits is None else (v.sum(dtype=torch.float32) for v in problem.obj_logits.levels)),
    ]
    if problem.pred_boxes.numel():
        values += [extreme.float().square() for extreme in problem.pred_boxes.aminmax()]
    return bool(torch.stack(values).isfinite().all())
