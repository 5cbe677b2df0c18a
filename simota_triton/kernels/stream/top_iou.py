"""The largest IoUs of a gt, which dynamic k is formed of: the other half of ``sums_and_ious``.

Tiles are ranked in *parts* of BOUNDS tiles: part n of N holds the tiles n, n + N, n + 2N, ... A part then
holds tiles of the whole image, so that the first one already fills the list with good entries, which prune
the others.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..maths import box_area, finite, fraction, intersection_and_union, reciprocal, region_depth
from .bounds import meets, tile_iou, tile_points
from .order import index_of, keys_of_tiles, least_bound, nearer_boxes, without
from .tiles import find_logits_of_tile, load_four, summary_at


@triton.jit
def largest_ious(
    gt, image, slots_ptr, points_ptr, tiles_ptr, cls, wanted, candidate_topk, split, splits, num_tiles,
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """The ``candidate_topk`` largest IoUs above 0 of a gt and every ``splits``-th tile of its image.

    Tiles are visited in descending order of the IoU they may hold. The least of the list, once it is full, is
    what an IoU must exceed: where the next tile's bound does not, the rest is left alone, and pairs are
    dropped before the quotient is formed. What is left, some 18 to 37 pairs a gt, is inserted in place of the
    least.

    Args:
        gt: As in ``search``; so are ``image``, the three pointers, ``cls`` and ``num_tiles``.
        wanted: Whether there is anything to do.
        candidate_topk: Length of the list.
        split: Which of the tiles: split, split + splits, ...
        splits: See there.

    Returns:
        [LANES] int32: the bits of float32, which are ordered like the numbers, in any order, and zeros behind
        them. All zeros unless ``wanted``.

    Twin: ``matching.dynamic_k_matching``'s ``top_iou``.
    """
    PLANES: tl.constexpr = RULE.value.planes
    gx1, gy1, gx2, gy2, _cx, _cy, gt_area, _label = gt
    lane = tl.arange(0, const.LANES)
    best = tl.where(lane < candidate_topk, 0, const.NONE)  # [LANES]
    least = tl.min(best)
    place = tl.arange(0, TILE)
    per_area = tl.maximum(reciprocal(tl.maximum(gt_area, 1e-30), FAST), 1e-30)
    # none for a gt that takes no part or meets nothing (Triton 3.3 cannot compile a loop within a condition)
    parts = tl.where(wanted & (gt_area > 0.0), tl.cdiv(num_tiles, BOUNDS * splits), 0)
    part = 0
    while part < parts:
        tile = (tl.arange(0, BOUNDS) * parts + part) * splits + split  # [BOUNDS]
        waiting = _rank_by_iou(tile, num_tiles, tiles_ptr, gt, per_area, RULE, FAST, BOUNDS)  # [BOUNDS]
        next_visit = tl.min(waiting)
        while 1.0 - least_bound(next_visit, BOUNDS) > least.to(tl.float32, bitcast=True):
            visited = (index_of(next_visit, BOUNDS) * parts + part) * splits + split
            x1, y1, x2, y2 = load_four(slots_ptr + visited * (PLANES * TILE) + place, TILE)  # [TILE] each
            # scheduling hint: the next visit is found here, while the boxes are being loaded
            waiting = without(waiting, next_visit)
            next_visit = tl.min(waiting)
            area = box_area(x1, y1, x2, y2)
            inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
            # above 0 and, as far as is certain, above the least; a union that is not finite tells nothing
            lowest = least.to(tl.float32, bitcast=True) * (1.0 - 2.0**-20)
            worth = inter >= tl.maximum(lowest * union, const.TINY)  # [TILE]
            point = points_ptr + visited * (const.POINT * TILE) + place
            if RULE.value.own_pairs_only:
                worth &= _own(point, gt, RULE, TILE)
            if tl.max(worth.to(tl.int32)) != 0:
                if RULE.value.gt_class_only:
                    worth &= _readable(worth, point, visited, image, gt, cls, LAYOUT, TILE)
                found = tl.where(worth, fraction(inter, union, FAST).to(tl.int32, bitcast=True), -1)  # [TILE]
                largest = tl.max(found)
                while largest > least:
                    found = without_one(found, largest, place)
                    replaced = tl.min(tl.where(best == least, lane, const.LANES))
                    best = tl.where(lane == replaced, largest, best)
                    least = tl.min(best)
                    largest = tl.max(found)
        part += 1
    return tl.where(best == const.NONE, 0, best)


@triton.jit
def _rank_by_iou(
    tile, num_tiles, tiles_ptr, gt, per_area, RULE: tl.constexpr, FAST: tl.constexpr, BOUNDS: tl.constexpr
):
    """Keys of tiles [BOUNDS], see ``order``, by 1 - the largest IoU that they may hold; those that hold none
    above 0 are not visited.
    """
    CANDIDATE: tl.constexpr = RULE.value.candidate
    gx1, gy1, gx2, gy2, cx, cy, gt_area, _label = gt
    # behind the last tile the last one is read, which takes fewer instructions than a mask for each value
    summary = tiles_ptr + summary_at(tl.minimum(tile, num_tiles - 1))
    bound, middle_x, middle_y = tile_iou(summary, gx1, gy1, gx2, gy2, gt_area, FAST)  # [BOUNDS] each
    if RULE.value.own_pairs_only:
        left, top, right, bottom, stride = tile_points(summary)
        own = meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, CANDIDATE)
        bound = tl.where(own, bound, 0.0)
    # among tiles that may hold as much, the one whose small boxes lie nearest
    distance = nearer_boxes(middle_x, middle_y, cx, cy, per_area)
    return keys_of_tiles(1.0 - bound + distance, (bound > 0.0) & (tile < num_tiles), BOUNDS)


@triton.jit
def _own(point, gt, RULE: tl.constexpr, TILE: tl.constexpr):
    """Whether priors [TILE] lie in the gt's own candidate region."""
    CANDIDATE: tl.constexpr = RULE.value.candidate
    gx1, gy1, gx2, gy2, cx, cy, _gt_area, _label = gt
    x, y, stride_x, stride_y = load_four(point, TILE)
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    return region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, CANDIDATE) > 0.0


@triton.jit
def _readable(worth, point, visited, image, gt, cls, LAYOUT: tl.constexpr, TILE: tl.constexpr):
    """Whether priors' logits [TILE] of the gt's class are finite, where ``worth``."""
    p = tl.load(point + const.PRIOR * TILE).to(tl.int32, bitcast=True)
    logits, stride_p, stride_c = find_logits_of_tile(visited, image, cls, LAYOUT)
    at = logits + gt[7].to(tl.int64) * stride_c + p.to(tl.int64) * stride_p
    return finite(tl.load(at, mask=worth, other=0.0).to(tl.float32))


@triton.jit
def without_one(found, value, place):
    """``found`` [TILE] with the first occurrence of ``value`` taken out."""
    at = tl.min(tl.where(found == value, place, 0x7FFFFFFF))
    return tl.where(place == at, -1, found)
