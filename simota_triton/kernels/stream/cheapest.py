"""The list of the k cheapest priors of a gt, one entry a lane: the key of a cost and the prior.

Entries are compared by cost, and by prior where costs are equal: the lower prior is the cheaper one. The
costliest entry is the one that the next cheaper prior replaces.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..maths import value_of


@triton.jit
def empty_list(k):
    """A list with room for k priors: costs and priors, [LANES] int32 each, and its costliest entry.

    An entry that is still free costs NONE. Free entries differ in their prior, so that cost and prior tell
    which one is replaced. Lanes behind the k-th are UNUSED, and never the costliest.
    """
    lane = tl.arange(0, const.LANES)
    costs = tl.where(lane < k, const.NONE, const.UNUSED)
    priors = tl.where(lane < k, -lane + const.NONE, -1)
    return costs, priors, tl.max(costs), tl.max(priors)


@triton.jit
def costliest_of(costs, priors):
    """Cost and prior of the costliest entry."""
    costliest = tl.max(costs)
    return costliest, tl.max(tl.where(costs == costliest, priors, -1))


@triton.jit
def cheapest_of(found, p):
    """Key and prior of the cheapest of priors p [TILE] with the keys ``found``."""
    cheapest = tl.min(found)
    return cheapest, tl.min(tl.where(found == cheapest, p, const.NONE))


@triton.jit
def insert(costs, priors, costliest, last, found, p):
    """The list with those of priors p [TILE] that belong in it.

    Args:
        costs: The list's costs.
        priors: The list's priors.
        costliest: Cost of its costliest entry.
        last: Prior of that entry.
        found: Keys of the costs of p, NONE of those that are no pairs.
        p: Priors.

    Returns:
        The first four of these again.
    """
    cheapest, prior = cheapest_of(found, p)
    while (cheapest < costliest) | ((cheapest == costliest) & (prior < last) & (cheapest != const.NONE)):
        found = tl.where(p == prior, const.NONE, found)
        replaced = (costs == costliest) & (priors == last)
        costs = tl.where(replaced, cheapest, costs)
        priors = tl.where(replaced, prior, priors)
        costliest, last = costliest_of(costs, priors)
        cheapest, prior = cheapest_of(found, p)
    return costs, priors, costliest, last


@triton.jit
def limit_of(costliest):
    """What a prior may cost at most to enter the list: anything, while an entry is free."""
    return tl.where(costliest == const.NONE, float("inf"), value_of(costliest))
