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

HALF_PI = tl.constexpr(1.5707963267948966)

CIOU_SCALE = tl.constexpr(0.4052847345693511)
"""4 / pi^2."""

SMALLEST = tl.constexpr(2.0**-126)
"""The smallest normal float32."""

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

# columns of the table of gts, [N, GT_COLUMNS] float32, which ``gts.store_gts`` writes

BOX = tl.constexpr(0)
"""Four: x1, y1, x2, y2. They come first in a slot and in a tile's summary too."""

CENTER = tl.constexpr(4)
"""Two: x, y."""

AREA = tl.constexpr(6)

LABEL = tl.constexpr(7)
"""The bits of an int32; -1 for a gt that takes no part."""

IMAGE = tl.constexpr(8)
"""The bits of an int32."""

INDEX = tl.constexpr(9)
"""The gt's index within its image, the bits of an int32."""

GT_COLUMNS = tl.constexpr(10)
"""Even: kernels read two columns at a time, as one int64."""

# planes of the slots of the streaming kernels, [B, T, Rule.planes, TILE] float32; BOX is the first

BACKGROUND = tl.constexpr(4)
"""The sum of the background costs, or a flag in its place: 0 of candidates before they are summed, -1 of
priors that only count for dynamic k, +inf of those that take no part.
"""

OBJECTNESS = tl.constexpr(5)
"""Read where the score is "joint"; without it there is no such plane."""

# planes of the points of the streaming kernels, [T, POINT, TILE] float32, the same in all images: x, y and
# the strides along x and y, then

PRIOR = tl.constexpr(4)
"""The bits of an int32: the prior in the slot."""

POINT = tl.constexpr(5)
"""How many there are."""

# planes of the tiles' summaries, [B, ceil(T / GROUP), SUMMARY, GROUP] float32. BOX is the first: the box
# around the boxes of the tile's priors. Points and strides are those of all priors that take part, the others
# are taken over those that count for dynamic k. The box around no boxes is NOWHERE, the largest stride of
# none is 0

LARGEST_AREA = tl.constexpr(4)

SMALL_BOX = tl.constexpr(5)
"""Four: the box around the small boxes among them, see ``SMALL``."""

POINTS = tl.constexpr(9)
"""Four: the box around their points."""

STRIDE = tl.constexpr(13)
"""The largest, along x or y."""

ANY_CANDIDATE = tl.constexpr(14)
"""1 if any of the priors is a candidate, else 0."""

SUMMARY = tl.constexpr(15)
"""How many there are."""

GROUP = tl.constexpr(32)
"""Tiles whose summaries lie side by side, one a lane of a warp."""

SMALL = tl.constexpr(0.125)
"""A box is small if its area is at most this share of the largest in its tile. Where objects of many sizes
overlap, nearly every tile holds some large box, beside which the box around all says little: with a bound for
each of the two a gt looks at a third to a half fewer tiles for its largest IoUs in simulated scenes (shares
of 1/4 to 1/16 differ by some visits).
"""

NOWHERE = tl.constexpr(1.0e38)
"""Corners of the box that stands for none, x1 = y1 = NOWHERE and x2 = y2 = -NOWHERE: it meets no gt, and no
difference overflows.
"""

# by how much bounds are loosened, see ``stream.bounds``

SLACK = tl.constexpr(2.0**-12)
"""Of costs, relative."""

IOU_SLACK = tl.constexpr(1e-5)
"""Of IoUs, absolute, and of distances, relative."""

PAID_SLACK = tl.constexpr(2.0**-22)
"""Of costs with the penalty in them, relative."""

OVERLAP_SLACK = tl.constexpr(2.0**-16)
"""Of overlaps and their logarithms, see ``aligned_maths.least_overlap``."""

# the order in which tiles are visited, and lists

NONE = tl.constexpr(0x7FFFFFFF)
"""Above every key, which stands for "nothing"; as a number it is NaN, with which every comparison fails."""

NEARER = tl.constexpr(2.0**-8)
"""Most that the distance adds to the bound by which tiles are ranked; comparisons with a bound take it off.
"""

LANES = tl.constexpr(MAX_TOPK)
"""Entries of a gt's lists, one a lane of its warp."""

LISTS = tl.constexpr(MAX_SPLITS * MAX_TOPK)
"""Values of all the lists of a gt that ``sums_and_ious`` may write, which ``select`` merges."""

UNUSED = tl.constexpr(-0x80000000)
"""Below every cost's key: an entry of the list that is not in use, since the list is shorter."""

UNTAKEN = tl.constexpr(0x7F800000)
"""The key of +inf, which is what a pair that cannot be taken costs."""

UNCLAIMED = tl.constexpr(0x7FFFFFFFFFFFFFFF)
"""The cheapest claim on a prior that nobody claims."""

# gts that are short of positives

PLENTY = tl.constexpr(0x7FFFFFFF)
"""Positives of no gt, that is of background, which can always spare a prior."""

COUNTED = tl.constexpr(256)
"""Priors whose gts ``stream.rescue`` counts at once."""


def fingerprint() -> str:
    """Another string for other constants."""
    values = sorted(
        (name, value.value) for name, value in globals().items() if isinstance(value, tl.constexpr)
    )
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
