"""Lists of (gt, prior) pairs, their bounds and their costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ... import terms
from ...boxes import SMALLEST, box_area, intersection
from ...config import SimOTAConfig
from ...problem import Problem, Scores
from ..gts import Gts, take, take_columns
from .candidates import mark_candidates, near_priors, usable_mask
from .grid import SLACK
from .priors import Priors

BLOCK_SCORES = 1 << 17
"""Scores of whole priors read at once; their class costs take five tensors of this size."""

NEAR_COST = 30.0
"""What the centre term alone costs outside the priors near a gt: few gts have a k-th cost above it."""

NEAR_PART = 1 / 2
"""Priors near a gt are listed where a circle of that radius holds at most this part of all priors."""


@dataclass(frozen=True)
class Pairs:
    """Some pairs: row among the real gts, prior within the image, IoU and cost, [n] each."""

    row: Tensor
    prior: Tensor
    iou: Tensor
    cost: Tensor

    def select(self, which: Tensor) -> Pairs:
        """The pairs of some indices."""
        return Pairs(
            *(column.index_select(0, which) for column in (self.row, self.prior, self.iou, self.cost))
        )

    @staticmethod
    def concatenate(parts: list[Pairs]) -> Pairs:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        columns = zip(*((p.row, p.prior, p.iou, p.cost) for p in parts), strict=True)
        return Pairs(*(torch.cat(column) for column in columns))


class PairTerms(NamedTuple):
    """Unweighted terms of pairs: the gt's class, what it replaces in the class sum, IoU, centre, penalty."""

    own: Tensor
    background: Tensor
    iou: Tensor
    center: Tensor | None
    outside: Tensor | None

    def select(self, which: Tensor) -> PairTerms:
        """The terms of some of the flattened pairs, [n] each."""
        return self._each(lambda term: term.flatten().index_select(0, which))

    def columns(self, which: Tensor) -> PairTerms:
        """The terms of some columns of pairs [G, n], [G, m] each."""
        return self._each(lambda term: term.index_select(1, which))

    def _each(self, function: Callable[[Tensor], Tensor]) -> PairTerms:
        own, background, iou, center, outside = (term if term is None else function(term) for term in self)
        return PairTerms(own, background, iou, center, outside)  # type: ignore[arg-type]


class NotFinite(Exception):
    """A first attempt has read a score that is not finite."""


class Costs:
    """Bounds and costs of a problem's pairs.

    Images are padded to ``stride`` priors: prior p of image b is at place b * stride + p, and prior P, like
    all padding, is none. Lists of pairs are two tensors of indices, row and prior, of shapes that broadcast
    against each other.

    A first attempt (not ``careful``) takes all scores to be finite and looks only at those it reads:
    :meth:`check` ends it where they were not. A prior that was never read cannot matter, so an attempt that
    passes stands; another is made carefully, with masks over all scores, which take longer than everything
    else.

    Attributes:
        floor: What pairs that are not among :meth:`near` cost at least, beside their IoU term.
    """

    def __init__(self, problem: Problem, config: SimOTAConfig, gts: Gts, *, careful: bool) -> None:
        self.problem, self.config, self.gts, self.careful = problem, config, gts, careful
        self.all_classes = config.cls_classes == "all"
        self.has_penalty = config.penalty > 0 and config.eligible != "all"
        self._masks_pairs = config.own_pairs_only or (careful and not self.all_classes)
        self._read: list[Tensor] = []
        batch, num_priors, self.num_classes = problem.shape
        self.num_priors = num_priors
        priors = Priors.of(problem.priors)
        self._priors, self._levels, self.stride = priors.columns, priors.levels, priors.columns.shape[1]
        usable = (
            usable_mask(problem, self.all_classes)
            if careful or not (priors.usable and _all_take_part(problem))
            else None
        )
        # columns of their own, because arithmetic on them is six times as fast as on columns of a matrix
        shape = (4, batch, self.stride)
        corners = torch.zeros(shape, dtype=torch.float32, device=gts.boxes.device)  # [4, B, stride]
        corners[:, :, :num_priors] = problem.pred_boxes.permute(2, 0, 1)
        selectable = torch.zeros_like(corners[0])  # [B, stride], 1 or 0
        mark_candidates(problem, config, gts, self._levels, out=selectable[:, :num_priors])
        if usable is not None:
            selectable[:, :num_priors].mul_(usable)
            corners[:, :, :num_priors].masked_fill_(~usable, 0)  # what is not finite stays so when multiplied
        if config.k_pool == "candidates":
            corners[::2].mul_(selectable)  # no width: no intersection, no area
        self._corners = corners.flatten(
            1
        )  # [4, B * stride], without area where a prior does not count for dynamic_k
        self._areas = box_area(self._corners.t())  # [B * stride]
        self._gt_corners, self._gt_areas = gts.boxes.t().contiguous(), box_area(gts.boxes)  # [4, N], [N]
        self._has_small_unions = config.union_rule == "add" or float(self._gt_areas.min()) < 2 * max(
            config.union_eps, SMALLEST
        )
        # [B * stride], +inf where a prior cannot be selected, else 0
        self._hidden = selectable.view(-1).reciprocal_().sub_(1)
        self._start = gts.image * self.stride  # [N], place of prior 0
        self._radius, self.floor = self._window()

    def _window(self) -> tuple[float, float]:
        """Radius in strides around a gt's centre, and what pairs beyond it cost at least; 0 and 0 where no
        cost tells.
        """
        config, windows = self.config, [(math.inf, 0.0)]
        if config.center_weight and config.center_base > 1:
            radius = config.center_offset + math.log(NEAR_COST / config.center_weight, config.center_base)
            windows.append((max(radius, 0.0), NEAR_COST))
        if self.has_penalty and config.eligible in ("center", "box_and_center"):
            windows.append((config.center_radius, config.penalty))
        radius, floor = min(windows)
        return (radius, floor) if math.pi * radius**2 <= NEAR_PART * self.num_priors else (0.0, 0.0)

    def near(self, rows: slice) -> tuple[Tensor, Tensor, Tensor] | None:
        """All priors whose pairs with gts ``rows`` can cost less than ``floor``, and others; their IoUs; and
        their costs without the class term, lower bounds, +inf where a prior cannot be selected: [g, w] each.
        None where the radius is 0.

        The centre term is a power of 2 here, a tenth of the time of another base's, of distances that are
        rather too small.
        """
        if not self._radius:
            return None
        config, center = self.config, None
        row = torch.arange(rows.start, rows.stop, dtype=torch.int64, device=self._start.device)[:, None]
        prior, distance = near_priors(self.problem, self.gts, self._levels, rows, self._radius)
        prior.clamp_(max=self.num_priors)
        iou = self.iou(row, prior)
        if config.center_weight:
            center = torch.exp2(
                (distance - (config.center_offset + SLACK)).mul_(math.log2(config.center_base))
            )
        no_class, iou_cost = (
            torch.zeros((), dtype=torch.float32, device=iou.device),
            self._iou_cost(row, prior, iou.clamp(min=0)),
        )
        bound = terms.pair_cost(no_class, iou_cost, center, self._outside(row, prior), config)
        return prior, iou, bound.add_(self.hidden(row, prior, iou))

    def check(self) -> None:
        """Look at the scores that a first attempt has read since this was last asked: to be done before
        anything that takes costs to be numbers, and at the end.

        Raises:
            NotFinite: One of them is not finite.
        """
        if not self.careful and self._read and not bool(torch.stack(self._read).isfinite().all()):
            raise NotFinite
        self._read.clear()

    def places(self, row: Tensor, prior: Tensor) -> Tensor:
        """Where priors are among those of all images."""
        return prior + take(self._start, row)

    def iou_block(self, image: int, rows: slice, work: Tensor) -> Tensor:
        """IoUs of gts and all priors of their image, [g, stride] within ``work`` [3, g or more, stride]; -inf
        where a pair does not exist.
        """
        own, work = slice(image * self.stride, (image + 1) * self.stride), work[:, : rows.stop - rows.start]
        inter = intersection(self._corners[:, own], self._gt_corners[:, rows, None], work, dim=0)
        iou = self._shared_part(inter, torch.add(self._areas[own], self._gt_areas[rows, None], out=work[1]))
        if self._masks_pairs:
            row, prior = (
                torch.arange(a, b, dtype=torch.int64, device=iou.device)
                for a, b in ((rows.start, rows.stop), (0, self.stride))
            )
            iou.masked_fill_(~self._exists(row[:, None], prior), -torch.inf)
        return iou

    def iou(self, row: Tensor, prior: Tensor) -> Tensor:
        """IoU of pairs; -inf where one does not exist."""
        places = self.places(row, prior)
        areas = take(self._areas, places).add_(take(self._gt_areas, row))
        inter = intersection(take_columns(self._corners, places), take_columns(self._gt_corners, row), dim=0)
        iou = self._shared_part(inter, areas)
        return iou.masked_fill_(~self._exists(row, prior), -torch.inf) if self._masks_pairs else iou

    def _shared_part(self, inter: Tensor, areas: Tensor) -> Tensor:
        """IoU of an intersection and the sum of both areas; both are overwritten. A union is as large as its
        gt, so that there is nothing to guard where all gts are large.
        """
        return (
            terms.shared_part(inter, areas, self.config)
            if self._has_small_unions
            else inter.div_(areas.sub_(inter))
        )

    def _exists(self, row: Tensor, prior: Tensor) -> Tensor:
        """Whether pairs take part at all."""
        mask = torch.ones((), dtype=torch.bool, device=prior.device)
        if self.config.own_pairs_only:
            mask = self._in_region(row, prior, self.config.candidate)
        if self.careful and not self.all_classes:
            mask = mask & self._own_logits(row, prior).float().isfinite()
        return mask

    def hidden(self, row: Tensor, prior: Tensor, iou: Tensor) -> Tensor:
        """+inf where pairs of these IoUs cannot be selected, else 0."""
        hidden = take(self._hidden, self.places(row, prior))
        return hidden.masked_fill_(iou == -torch.inf, torch.inf) if self._masks_pairs else hidden

    def lowest_iou(self, limit: Tensor) -> Tensor:
        """The smallest IoU that a pair with a cost of at most ``limit`` can have, and a few ulp less; above 1
        where there is none.
        """
        if not self.config.iou_weight:
            return torch.zeros_like(limit).masked_fill_(limit < 0, torch.inf)
        worth = limit / self.config.iou_weight
        # GIoU <= IoU
        iou = torch.exp(-worth) - self.config.log_eps if self.config.iou_cost == "log" else 1 - worth
        return (iou - 1e-6).clamp(min=0)

    def terms(self, row: Tensor, prior: Tensor, iou: Tensor) -> PairTerms:
        """The terms of pairs, all but the sum over classes."""
        problem, config, objectness = self.problem, self.config, None
        if problem.obj_logits is not None:
            objectness = self._at(problem.obj_logits, row, prior, torch.zeros_like(row))
        scores = terms.class_scores(self._own_logits(row, prior), objectness, config)
        own = terms.class_cost(scores, iou, config)
        background = terms.background_cost(scores, config) if self.all_classes else scores
        center = None
        if config.center_weight:
            center = terms.center_cost(
                take_columns(self._priors[:3], prior).movedim(0, -1), take(self.gts.centers, row), config
            )
        return PairTerms(own, background, self._iou_cost(row, prior, iou), center, self._outside(row, prior))

    def _iou_cost(self, row: Tensor, prior: Tensor, iou: Tensor) -> Tensor:
        if self.config.iou_cost == "log":
            return terms.iou_cost(iou, iou, iou, self.config)  # which looks at no boxes
        boxes, gt_boxes = (
            take_columns(self._corners, self.places(row, prior)),
            take_columns(self._gt_corners, row),
        )
        return terms.iou_cost(boxes.movedim(0, -1), gt_boxes.movedim(0, -1), iou, self.config)

    def _outside(self, row: Tensor, prior: Tensor) -> Tensor | None:
        """Whether pairs pay the penalty; None where there is none."""
        return ~self._in_region(row, prior, self.config.eligible) if self.has_penalty else None

    def _in_region(self, row: Tensor, prior: Tensor, region: str) -> Tensor:
        priors, boxes = (
            take_columns(*columns).movedim(0, -1)
            for columns in ((self._priors, prior), (self._gt_corners, row))
        )
        return terms.in_region(priors, boxes, take(self.gts.centers, row), region, self.config.center_radius)

    def lower(self, t: PairTerms) -> Tensor:
        """The cost without the other classes' terms: a lower bound where those count, else the cost."""
        return terms.pair_cost(t.own, t.iou, t.center, t.outside, self.config)

    def cost(self, t: PairTerms, row: Tensor, prior: Tensor, sums: ClassSums) -> Tensor:
        """The cost of pairs, [n]."""
        if not self.all_classes:
            return self.lower(t)
        own = terms.swap_class(sums.of(self.places(row, prior)), t.background, t.own)
        return terms.pair_cost(own, t.iou, t.center, t.outside, self.config)

    def read(self, row: Tensor, prior: Tensor, sums: ClassSums) -> None:
        """Look at the scores of pairs that count for ``dynamic_k``, whether or not they are costed."""
        if self.careful:
            return
        if not self.all_classes:
            self._own_logits(row, prior)
            return
        for part in sums.unknown(self.places(row, prior)):
            self.scores(part)

    def _own_logits(self, row: Tensor, prior: Tensor) -> Tensor:
        """Logits of the gts' own classes."""
        logits = self._at(self.problem.cls_logits, row, prior, take(self.gts.labels, row))
        self._read.append(logits.sum(dtype=torch.float32))
        return logits

    def _at(self, scores: Scores, row: Tensor, prior: Tensor, label: Tensor) -> Tensor:
        """Logits of pairs; padding has the last prior's."""
        return scores.at(take(self.gts.image, row), prior.clamp(max=self.num_priors - 1), label)

    def scores(self, places: Tensor) -> tuple[Tensor, Tensor | None]:
        """Class and objectness logits of priors of all images, [n, C] and [n, 1]."""
        problem = self.problem
        image, prior = places // self.stride, places % self.stride
        logits = problem.cls_logits.rows(image, prior)
        self._read.append(logits.sum(dtype=torch.float32))
        return logits, None if problem.obj_logits is None else problem.obj_logits.rows(image, prior)


class ClassSums:
    """Background class cost of the priors of all images, summed over classes; remembers those it was asked
    for.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._known = torch.full(
            (costs.problem.shape[0] * costs.stride,),
            torch.nan,
            dtype=torch.float32,
            device=costs.gts.boxes.device,
        )

    def unknown(self, places: Tensor) -> tuple[Tensor, ...]:
        """Those it was not asked for, in parts."""
        places = places.index_select(0, self._known.index_select(0, places).isnan().nonzero().squeeze(1))
        return places.split(max(1, BLOCK_SCORES // self._costs.num_classes)) if places.numel() else ()

    def of(self, places: Tensor) -> Tensor:
        """The sums, [n]."""
        config = self._costs.config
        for part in self.unknown(places):
            scores = terms.class_scores(*self._costs.scores(part), config)
            self._known.index_copy_(0, part, terms.background_cost(scores, config).sum(1))
        return self._known.index_select(0, places)


def loosened(limit: Tensor) -> Tensor:
    """Costs up to a limit, and as much more as rounding may add (a few ulp of the cost, and of the class sums
    that it is a difference of); below the +inf of what cannot be selected.
    """
    return (limit + 1e-3 + 1e-4 * limit.clamp(max=terms.COST_LIMIT)).clamp(max=terms.COST_LIMIT)


def _all_take_part(problem: Problem) -> bool:
    """Whether all priors certainly do, as far as predictions go: boxes, their areas and objectness are
    finite, none is masked out.
    """
    if problem.candidate_mask is not None:
        return False
    objectness = (
        ()
        if problem.obj_logits is None
        else (level.sum(dtype=torch.float32) for level in problem.obj_logits.levels)
    )
    return bool(torch.stack([problem.pred_boxes.float().norm(), *objectness]).isfinite().all())
