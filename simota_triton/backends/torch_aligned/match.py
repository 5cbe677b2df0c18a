"""Which pairs each gt selects, who gets a prior that several want, and what each gt keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from ...boxes import IOU_ERROR
from ...config import TaskAlignedConfig
from ...matching import key_index, pack_key
from ..gts import smallest_of_each
from .pairs import Pairs, PairTerms

FEW, FEW_OF_GT = 8192, 32
"""Pairs in all, and of a gt on average, up to which the metrics of all of them are formed at once."""


def match(pair_terms: PairTerms, claims: Tensor) -> Pairs:
    """The pairs that are left, one a prior; counts ``claims`` [B * P]."""
    config = pair_terms.config
    found = [pair_terms.in_region(rows) for rows in pair_terms.groups()]
    picked = Pairs.concatenate([_select(pair_terms, config.topk, *pairs) for pairs in found])
    if config.pool == "all":
        picked = _of_all(pair_terms, picked)
    if config.at_least_one:
        picked = Pairs.concatenate([picked, _best(pair_terms, picked)])
    claims.scatter_add_(0, picked.place, torch.ones_like(picked.place, dtype=torch.int32))
    contested = claims.index_select(0, picked.place) > 1
    if bool(contested.any()):
        won = _resolve(pair_terms, Pairs(*_chosen(contested, *picked)), claims, found)
        picked = Pairs.concatenate([Pairs(*_chosen(~contested, *picked)), won])
    if config.topk2 is not None:
        picked = picked.select(picked.place.argsort())  # of equals the lowest prior is kept
        picked = picked.select(_largest(pair_terms, config.topk2, picked))
    return picked


def _select(pair_terms: PairTerms, k: int, row: Tensor, place: Tensor, iou: Tensor | None = None) -> Pairs:
    """The k pairs of the largest metric above 0 of each gt, of equals the first, given IoUs if known."""
    if row.shape[0] > max(FEW, FEW_OF_GT * pair_terms.gts.packed.shape[0]):
        iou = pair_terms.iou(row, place) if iou is None else iou
        least = _least_iou(pair_terms, k, row, place, iou)
        row, place = _chosen((iou > 0) & (iou >= least.index_select(0, row)), row, place)
    pairs = pair_terms.pairs(row, place)
    pairs = Pairs(*_chosen(pairs.metric > 0, *pairs))
    return pairs.select(_largest(pair_terms, k, pairs))


def _chosen(mask: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """The elements of some columns for which a mask is true."""
    which = mask.nonzero().squeeze(1)
    return tuple(column.index_select(0, which) for column in columns)


def _largest(pair_terms: PairTerms, k: int, pairs: Pairs) -> Tensor:
    """Which pairs are the k of the largest metric of their gt."""
    return smallest_of_each(pairs.row, -pairs.metric, torch.full_like(pair_terms.gts.packed, k))


def _least_iou(pair_terms: PairTerms, k: int, row: Tensor, place: Tensor, iou: Tensor) -> Tensor:
    """An IoU below which a pair cannot be among the k of its gt, [N].

    The pairs of a gt are dealt to more than k hands, and of each hand the one of the largest IoU is looked
    at: the k-th largest metric of those is at most the true one. A metric is at most overlap ** beta.
    """
    gts, hands, n = pair_terms.gts.packed.shape[0], k + k // 2 + 1, row.shape[0]
    hand = torch.arange(hands, dtype=torch.int32, device=row.device).repeat(-(-n // hands))[:n]
    hand = hand.add_(row, alpha=hands).long()
    best = torch.zeros(gts * hands, dtype=torch.float32, device=row.device)
    best.scatter_reduce_(0, hand, iou, "amax")
    row, place, hand = _chosen((iou > 0) & (iou == best.index_select(0, hand)), row, place, hand)
    metric = torch.zeros_like(best)
    metric.scatter_reduce_(0, hand, pair_terms.pairs(row, place).metric, "amax")
    kth = metric.view(gts, hands).topk(k, dim=1).values[:, -1]
    return _overlap_of(kth, pair_terms.config)


def _overlap_of(metric: Tensor, config: TaskAlignedConfig) -> Tensor:
    """The least IoU that a pair of a metric can have, and a little less, for rounding."""
    return (metric * (1 - 1e-5)).pow(1 / config.beta) - IOU_ERROR


def _of_all(pair_terms: PairTerms, inside: Pairs) -> Pairs:
    """Those of the pairs that gts would select in their regions that are among the topk of all priors."""
    config, gts = pair_terms.config, pair_terms.gts.packed.shape[0]
    lowest = torch.full((gts,), torch.inf, dtype=torch.float32, device=inside.row.device)
    lowest.scatter_reduce_(0, inside.row, inside.metric, "amin")
    found = _anywhere(pair_terms, config.topk, lowest < torch.inf, _overlap_of(lowest, config))
    return Pairs(*_chosen(pair_terms.inside(found.row, found.place), *found))


def _best(pair_terms: PairTerms, picked: Pairs) -> Pairs:
    """The pair of the largest metric, wherever it lies, of each gt that has picked nothing."""
    counts = torch.bincount(picked.row, minlength=pair_terms.gts.packed.shape[0])
    return _anywhere(pair_terms, 1, counts == 0, torch.zeros_like(counts))


def _anywhere(pair_terms: PairTerms, k: int, gts: Tensor, least: Tensor) -> Pairs:
    """The k pairs of the largest metric above 0, of all places, of some gts; only IoUs above ``least`` [N]
    count.
    """
    row = gts.nonzero().squeeze(1)
    everywhere = torch.arange(pair_terms.num_places, dtype=torch.int64, device=row.device)
    listed = pair_terms.across(row, everywhere, lambda row, _: least[row])
    found = [_select(pair_terms, k, *pairs) for pairs in listed]
    return Pairs.concatenate(found) if found else pair_terms.pairs(row, row)


def _resolve(
    pair_terms: PairTerms, claimed: Pairs, claims: Tensor, inside: list[tuple[Tensor, Tensor]]
) -> Pairs:
    """The pair that wins each contested prior, given all pairs that selected one, and those in regions."""
    config = pair_terms.config
    # of each place the largest overlap, of equals the first gt
    key = pack_key(-claimed.overlap, claimed.row)
    best = torch.full(claims.shape, torch.iinfo(torch.int64).max, dtype=torch.int64, device=claims.device)
    best.scatter_reduce_(0, claimed.place, key, "amin")
    contested = (claims > 1).nonzero().squeeze(1)
    if config.conflict == "inside":
        for row, place in inside:
            _let_in(pair_terms, best, *_chosen(claims.index_select(0, place) > 1, row, place))
    elif config.conflict == "all":
        least = torch.zeros(claims.shape, dtype=torch.float32, device=claims.device)
        least.scatter_reduce_(0, claimed.place, claimed.overlap - IOU_ERROR, "amax")
        gts = torch.arange(pair_terms.gts.packed.shape[0], dtype=torch.int64, device=claims.device)
        for row, place, _ in pair_terms.across(gts, contested, lambda _, place: least[place]):
            _let_in(pair_terms, best, row, place)
    row = key_index(best.index_select(0, contested))
    return pair_terms.pairs(row, contested)


def _let_in(pair_terms: PairTerms, best: Tensor, row: Tensor, place: Tensor) -> None:
    """Let pairs that exist take the places of which they have the largest overlap."""
    row, place = row.long(), place.long()
    overlap = pair_terms.overlap(row, place)
    key = pack_key(-overlap, row)
    row, place, key = _chosen((overlap > 0) & (key < best.index_select(0, place)), row, place, key)
    place, key = _chosen(pair_terms.exist(row, place), place, key)
    best.scatter_reduce_(0, place, key, "amin")
