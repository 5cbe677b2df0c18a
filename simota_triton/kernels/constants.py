"""The numbers that are compiled into kernels whatever the configuration.

Kernels read them as attributes of this module. Triton does not look at those in every launch, as it does at
each global constant that a kernel names, nor are they part of its key on disk: :func:`fingerprint` is, as a
field of ``rule.Rule``, the one argument that every kernel has.
"""

import hashlib

import triton.language as tl

from ..config import MAX_TOPK
from ..terms import COST_LIMIT as _COST_LIMIT
from ..terms import LOG_LIMIT as _LOG_LIMIT
from ..terms import VFL_ALPHA as _VFL_ALPHA
from ..tuning.stream_config import MAX_SPLITS

# terms of the cost

COST_LIMIT = tl.constexpr(_COST_LIMIT)
LOG_LIMIT = tl.constexpr(_LOG_LIMIT)
VFL_ALPHA = tl.constexpr(_VFL_ALPHA)
LN2 = tl.constexpr(0.6931471805599453)
LOG2E = tl.constexpr(1.4426950408889634)

TINY = tl.constexpr(2.0**-149)
"""The smallest float32 above 0."""

# sums over classes

COLUMNS = tl.constexpr(16)
"""Classes taken side by side. Part of the definition: it fixes the order in which they are summed."""

ABSENT = tl.constexpr(-1.0e4)
"""A logit, of any type, whose background cost is exactly 0 unless probabilities are clamped."""

# gts

GTS = tl.constexpr(8)
"""Gts that ``prior_pass`` takes side by side; twice as many take registers that some GPUs do not have."""

TABLE_COLUMNS = tl.constexpr(10)
"""Float32 values a gt in the table: x1, y1, x2, y2, centre x, centre y, area; then the bits of an int32 each:
label (-1 for a gt that takes no part), image, index within the image."""

# tiles of the streaming kernels

SUMMARY = tl.constexpr(15)
"""Float32 values a tile and image: the box around its priors' boxes (x1, y1, x2, y2), the largest area of
one, the box around the small ones among them, the box around their points, the largest stride, and 1 if any
of them is a candidate. Points and strides are those of all priors that take part, the rest is taken over
those that count for dynamic k. The box around no boxes has no area, the largest stride of none is 0.
"""

SMALL = tl.constexpr(0.125)
"""A box is small if its area is at most this share of the largest in its tile. Where objects of many sizes
overlap, nearly every tile holds some large box, beside which the box around all says little: with the two
apart a gt looks at a third to a half fewer tiles for its largest IoUs in simulated scenes (shares of 1/4 to
1/16 differ by some visits).
"""

POINT = tl.constexpr(5)
"""Float32 values a slot, the same in all images: point x, y, strides x, y, and the prior (the bits of an
int32).
"""

NOWHERE = tl.constexpr(1.0e38)
"""Corners of the box that stands for none, x1 = y1 = NOWHERE and x2 = y2 = -NOWHERE: it meets no gt, and no
difference overflows.
"""

# what bounds are given away by, see ``bounds``

SLACK = tl.constexpr(2.0**-12)
IOU_SLACK = tl.constexpr(1e-5)
PAID_SLACK = tl.constexpr(2.0**-22)

# the order of visits, and lists

NONE = tl.constexpr(0x7FFFFFFF)
"""Above every key; as a number it is NaN, with which every comparison fails."""

NEARER = tl.constexpr(2.0**-8)
"""Most that the distance adds to a bound. It is given away where bounds are compared."""

LANES = tl.constexpr(MAX_TOPK)
"""Entries of a gt's lists, one a lane of its warp."""

LISTS = tl.constexpr(MAX_SPLITS * MAX_TOPK)
"""Values of the most lists of ``sums_and_ious`` that are merged."""

FREE = tl.constexpr(-0x80000000)
"""Below every cost's key: an entry of the list that is not in use."""

BACKGROUND = tl.constexpr(0x7FFFFFFF)
"""Positives of no gt, which can always spare a prior."""

COUNTED = tl.constexpr(256)
"""Priors whose gts ``stream.rescue`` counts at once."""

UNTAKEN = tl.constexpr(0x7F800000)
"""The key of +inf, which is what a pair that cannot be taken costs."""

UNCLAIMED = tl.constexpr(0x7FFFFFFFFFFFFFFF)
"""The cheapest claim on a prior that nobody claims."""


def fingerprint() -> str:
    """Another string for other constants."""
    values = sorted(
        (name, value.value) for name, value in globals().items() if isinstance(value, tl.constexpr)
    )
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
