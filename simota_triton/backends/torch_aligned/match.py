"""Which pairs each gt selects, who gets a prior that several want, and what each gt keeps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...boxes import IOU_ERROR
from ...config import TaskAlignedConfig
from ...matching import key_index, pack_key
from ..gts import blocks, smallest_of_each
from .pairs import Pairs, PairTerms

FEW = 32
"""Pairs of a gt, on average, up to which all of their metrics are formed at once."""


def match(pair_terms: PairTerms, claims: Tensor) -> Pairs:
    """The pairs that are left, one a prior; counts ``claims`` [B * P]."""
    config = pair_terms.config
    found = [pair_terms.in_region(rows) for rows in pair_terms.groups()]
    inside = tuple(map(torch.cat, zip(*found, strict=True))) if len(found) > 1 else found[0]
    picked = Pairs.concatenate([_of_region(pair_terms, *pairs) for pairs in found])
    if config.pool == "all":
        picked = _of_all(pair_terms, picked)
    if config.at_least_one:
        picked = Pairs.concatenate([picked, _best(pair_terms, picked)])
    claims.scatter_add_(0, picked.place, torch.ones_like(picked.place, dtype=torch.int32))
    contested = claims.index_select(0, picked.place) > 1
    several = contested.nonzero().squeeze(1)
    if several.numel():
        single = (~contested).nonzero().squeeze(1)
        won = _resolve(pair_terms, picked.select(several), claims, inside)
        picked = Pairs.concatenate([picked.select(single), won])
    if config.topk2 is not None:
        order = picked.place.argsort()
        picked = picked.select(order)
        picked = picked.select(_largest(pair_terms, picked, config.topk2))
    return picked


def _of_region(pair_terms: PairTerms, row: Tensor, place: Tensor) -> Pairs:
    """The topk of pairs in the regions of some gts."""
    iou = pair_terms.iou(row, place)
    which = (iou > 0).nonzero().squeeze(1)
    listed = (column.index_select(0, which) for column in (row, place, iou))
    return _select(pair_terms, pair_terms.config.topk, *listed)


def _select(pair_terms: PairTerms, k: int, row: Tensor, place: Tensor, iou: Tensor) -> Pairs:
    """The k pairs of the largest metric above 0 of each gt, of equals the first, of overlapping ones."""
    if row.shape[0] > FEW * pair_terms.gts.packed.shape[0]:
        least = _least_iou(pair_terms, row, place, iou, k)
        which = (iou >= least.index_select(0, row)).nonzero().squeeze(1)
        row, place, iou = (column.index_select(0, which) for column in (row, place, iou))
    pairs = pair_terms.pairs(row, place, iou)
    pairs = pairs.select((pairs.metric > 0).nonzero().squeeze(1))
    return pairs.select(_largest(pair_terms, pairs, k))


def _largest(pair_terms: PairTerms, pairs: Pairs, k: int) -> Tensor:
    """Which pairs are the k of the largest metric of their gt."""
    return smallest_of_each(pairs.row, -pairs.metric, torch.full_like(pair_terms.gts.packed, k))


def _least_iou(pair_terms: PairTerms, row: Tensor, place: Tensor, iou: Tensor, k: int) -> Tensor:
    """An IoU below which a pair cannot be among the k of its gt, [N].

    The pairs of a gt are dealt to more than k hands, and of each hand the one of the largest IoU is looked
    at: the k-th largest metric of those is at most the true one. A metric is at most overlap ** beta.
    """
    gts, hands = pair_terms.gts.packed.shape[0], 1 << k.bit_length()
    index = torch.arange(row.shape[0], dtype=torch.int64, device=row.device)
    best = torch.full((gts * hands,), -1, dtype=torch.int64, device=row.device)
    best.scatter_reduce_(0, row * hands + index % hands, (iou.view(torch.int32).long() << 32) | index, "amax")
    filled = (best >= 0).nonzero().squeeze(1)
    which = key_index(best.index_select(0, filled))
    metric = torch.zeros(gts * hands, dtype=torch.float32, device=row.device)
    looked_at = pair_terms.pairs(*(column.index_select(0, which) for column in (row, place, iou)))
    metric.index_copy_(0, filled, looked_at.metric)
    kth = metric.view(gts, hands).topk(k, dim=1).values[:, -1]
    return _overlap_of(kth, pair_terms.config)


def _overlap_of(metric: Tensor, config: TaskAlignedConfig) -> Tensor:
    """The least IoU that a pair of a metric can have, and a little less, for rounding."""
    return metric.pow(1 / config.beta) * (1 - 1e-4) - IOU_ERROR


def _of_all(pair_terms: PairTerms, inside: Pairs) -> Pairs:
    """Those of the pairs that gts would select in their regions that are among the topk of all priors."""
    config, gts = pair_terms.config, pair_terms.gts.packed.shape[0]
    lowest = torch.full((gts,), torch.inf, dtype=torch.float32, device=inside.row.device)
    lowest.scatter_reduce_(0, inside.row, inside.metric, "amin")
    least = _overlap_of(lowest, config)
    found = [inside.select(inside.row[:0])]
    for row, place, iou in pair_terms.everywhere((lowest < torch.inf).nonzero().squeeze(1)):
        which = (iou >= least.index_select(0, row)).nonzero().squeeze(1)
        listed = (column.index_select(0, which) for column in (row, place, iou))
        found.append(_select(pair_terms, config.topk, *listed))
    pairs = Pairs.concatenate(found)
    return pairs.select(pair_terms.inside(pairs.row, pairs.place).nonzero().squeeze(1))


def _best(pair_terms: PairTerms, picked: Pairs) -> Pairs:
    """The pair of the largest metric, wherever it lies, of each gt that has picked nothing."""
    counts = torch.bincount(picked.row, minlength=pair_terms.gts.packed.shape[0])
    found = [picked.select(picked.row[:0])]
    for listed in pair_terms.everywhere((counts == 0).nonzero().squeeze(1)):
        found.append(_select(pair_terms, 1, *listed))
    return Pairs.concatenate(found)


def _resolve(pair_terms: PairTerms, claimed: Pairs, claims: Tensor, inside: tuple[Tensor, ...]) -> Pairs:
    """The pair that wins each contested prior, given all pairs that selected one, and those in regions."""
    config = pair_terms.config
    # of each place the largest overlap, of equals the first gt
    key = pack_key(-claimed.overlap, claimed.row)
    best = torch.full(claims.shape, torch.iinfo(torch.int64).max, dtype=torch.int64, device=claims.device)
    best.scatter_reduce_(0, claimed.place, key, "amin")
    contested = (claims > 1).nonzero().squeeze(1)
    if config.conflict == "inside":
        row, place = inside
        which = (claims.index_select(0, place) > 1).nonzero().squeeze(1)
        _let_in(pair_terms, row.index_select(0, which), place.index_select(0, which), best)
    elif config.conflict == "all":
        for row, place in _with_all(pair_terms, contested):
            _let_in(pair_terms, row, place, best)
    row = key_index(best.index_select(0, contested))
    return pair_terms.pairs(row, contested, pair_terms.iou(row, contested))


def _let_in(pair_terms: PairTerms, row: Tensor, place: Tensor, best: Tensor) -> None:
    """Let pairs that exist take the places of which they have the largest overlap."""
    overlap = pair_terms.overlap(row, place)
    key = pack_key(-overlap, row)
    which = ((overlap > 0) & (key < best.index_select(0, place))).nonzero().squeeze(1)
    row, place, key = (column.index_select(0, which) for column in (row, place, key))
    which = pair_terms.exist(row, place).nonzero().squeeze(1)
    best.scatter_reduce_(0, place.index_select(0, which), key.index_select(0, which), "amin")


def _with_all(pair_terms: PairTerms, place: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Row and place of all pairs of places, ascending, with gts of their image, some places at a time."""
    gts, image = pair_terms.gts, place // pair_terms.num_priors
    starts = torch.tensor(gts.starts, dtype=torch.int64, device=place.device)
    first, count = starts.index_select(0, image), starts.diff().index_select(0, image)
    for part in blocks(0, place.shape[0], int(count.max())):
        number = count[part]
        which = torch.repeat_interleave(number)
        row = (first[part] - number.cumsum(0) + number).index_select(0, which)
        row += torch.arange(which.shape[0], dtype=torch.int64, device=row.device)
        yield row, place[part].index_select(0, which)
