"""How many priors each gt has, for the two kernels behind ``min_positives``: one program an image keeps the
counts while gts that are short of priors take some.

What a lane of the program writes here its other lanes read, and no other program does. A barrier stands
between: it makes all lanes of the program wait, and the writes and atomics before it are seen by the reads
behind it. All branches around barriers are taken by all lanes.
"""

import triton
import triton.language as tl

from . import constants as const


@triton.jit
def count_positives(gt_index_ptr, positives_ptr, num_gts, P, BLOCK: tl.constexpr):
    """``positives[g]``, int32, the priors of gt g. Both pointers are those of the program's image."""
    lane = tl.arange(0, BLOCK)
    g = 0
    while g < num_gts:
        tl.store(positives_ptr + g + lane, tl.zeros([BLOCK], tl.int32), mask=g + lane < num_gts)
        g += BLOCK
    tl.debug_barrier()
    p = 0
    while p < P:
        owner = tl.load(gt_index_ptr + p + lane, mask=p + lane < P, other=-1)
        tl.atomic_add(positives_ptr + owner, 1, mask=owner >= 0, sem="relaxed")
        p += BLOCK
    tl.debug_barrier()


@triton.jit
def can_be_spared(gt_index_ptr, positives_ptr, p, mask, min_positives):
    """Whether priors are background, or their gt has more than ``min_positives``; for those not in ``mask``
    the answer means nothing.
    """
    owner = tl.load(gt_index_ptr + p, mask=mask, other=-1)
    return tl.load(positives_ptr + owner, mask=mask & (owner >= 0), other=const.PLENTY) > min_positives


@triton.jit
def hand_over(gt_index_ptr, positives_ptr, prior, g):
    """Prior ``prior`` goes to gt ``g``, whose own count stays as it was: a gt that was short never has any to
    spare.
    """
    owner = tl.load(gt_index_ptr + prior)
    left = tl.load(positives_ptr + owner, mask=owner >= 0, other=1) - 1
    tl.debug_barrier()  # all lanes have read
    tl.store(positives_ptr + owner, left, mask=owner >= 0)
    tl.store(gt_index_ptr + prior, g)
    tl.debug_barrier()
