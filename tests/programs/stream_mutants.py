"""Breaks the streaming kernels on purpose and sees the tests fail.

    python -m tests.programs.stream_mutants             # all of MUTANTS
    python -m tests.programs.stream_mutants tie stride  # those whose names contain one of these words

Each mutant is one replacement in a copy of the package in a temporary folder, against which the tests named
beside it run; they pass on a copy that is left alone. Prints what was killed and what survived, and exits
with 1 if anything survived.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
KERNELS_FOLDER = ROOT / "simota_triton/kernels/stream"
"""What the mutants' files are relative to."""


class Mutant(NamedTuple):
    """A replacement of ``old`` by ``new`` wherever it stands in a file, and the tests that notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


BOUNDS, KERNELS, PRUNING, BACKEND = (
    f"tests/kernels/test_stream_{name}.py" for name in ("bounds", "kernels", "pruning", "backend")
)
ALIGNED_MATHS, ALIGNED_PRUNING, ALIGNED = (
    f"tests/kernels/test_aligned_{name}.py" for name in ("maths", "pruning", "backend")
)
RESCUE = "tests/test_rescue.py"
PAIRS = f"{BOUNDS} -k never_excluded"
FLOORS = f"{BOUNDS} -k floor"
COMPILED = "tests/kernels/test_compiled.py -k every_preset"
"""For what the interpreter cannot see, where one program runs after the other and memory has no bounds."""
SMALL, EQUALS, PASS = (
    f"{RESCUE} -k '{words}'" for words in ("small_gt and stream", "among_equal", "pass_over")
)

MUTANTS = (
    Mutant(
        "the least IoU by a logarithm is 1 % too high",
        "bounds.py",
        "            - RULE.value.log_eps\n            - const.IOU_SLACK\n",
        "            - RULE.value.log_eps\n            + 0.01\n",
        PAIRS,
    ),
    Mutant(
        "the least IoU by GIoU is 0.01 too high",
        "bounds.py",
        "+ (1.0 - const.IOU_SLACK)\n",
        "+ 1.01\n",
        PAIRS,
    ),
    Mutant(
        "the largest distance is 1 % too short",
        "bounds.py",
        "strides += tl.abs(strides) * const.IOU_SLACK",
        "strides *= 0.99",
        PAIRS,
    ),
    Mutant(
        "no slack for the grid of penalised sums",
        "bounds.py",
        " + tl.abs(cost) * const.PAID_SLACK",
        "",
        PAIRS,
    ),
    Mutant(
        "the penalty is subtracted 1 % too large",
        "bounds.py",
        "(cost - RULE.value.penalty)",
        "(cost - 1.01 * RULE.value.penalty)",
        PAIRS,
    ),
    Mutant(
        "pairs that do not pay are held to the limit of those that do",
        "bounds.py",
        "tl.where(outside, iou_if_paid, iou)",
        "iou_if_paid",
        PAIRS,
    ),
    Mutant(
        "clamped costs exclude by distance",
        "bounds.py",
        "    # costs are clamped to COST_LIMIT, and nothing follows from one that was\n"
        "    cost = tl.where(cost < const.COST_LIMIT",
        "    cost = tl.where(cost < 1.1 * const.COST_LIMIT",
        f"{PRUNING} -k clamped",
    ),
    Mutant(
        "a tile's IoU is 1 % too small",
        "bounds.py",
        "FAST)) * (\n        1.0 + const.IOU_SLACK\n    )\n",
        "FAST)) * 0.99\n",
        f"{BOUNDS} -k each_of_its_priors",
    ),
    Mutant(
        "large boxes are bounded by twice the least of their areas",
        "bounds.py",
        "tl.maximum(most_of_small - shared, 0.0)",
        "tl.maximum(2.0 * most_of_small - shared, 0.0)",
        f"{BOUNDS} -k each_of_its_priors",
    ),
    Mutant(
        "small boxes are bounded by half of the largest of their areas",
        "bounds.py",
        "tl.minimum(shared_by_small, most_of_small)",
        "tl.minimum(shared_by_small, 0.5 * most_of_small)",
        f"{BOUNDS} -k each_of_its_priors",
    ),
    Mutant(
        "some small boxes are taken for large ones",
        "prepare.py",
        "area <= largest * const.SMALL",
        "area <= largest * (0.5 * const.SMALL)",
        f"{KERNELS} -k every_candidate_region",
    ),
    Mutant(
        "a tile's distance is 1 % too long",
        "bounds.py",
        "dy * dy) * (1.0 - const.IOU_SLACK)",
        "dy * dy) * 1.02",
        f"{BOUNDS} -k each_of_its_priors",
    ),
    Mutant(
        "a tile's place costs 1 % too much",
        "bounds.py",
        "tl.minimum(cost, 1e38) * (1.0 - const.SLACK)",
        "tl.minimum(cost, 1e38) * 1.01",
        FLOORS,
    ),
    Mutant(
        "a tile's IoU costs 1 % too much",
        "bounds.py",
        "(cost - least_cost(RULE)) * (1.0 - const.SLACK)",
        "(cost - least_cost(RULE)) * 1.01",
        FLOORS,
    ),
    Mutant(
        "a tile's floor always holds the penalty",
        "bounds.py",
        "tl.where(eligible, 0.0, RULE.value.penalty)",
        "RULE.value.penalty",
        FLOORS,
    ),
    Mutant(
        "the nearest tile of a bound goes last",
        "order.py",
        "tl.minimum(distance_squared * (per_unit_squared * (const.NEARER / 1024.0)), const.NEARER)",
        "const.NEARER - tl.minimum(distance_squared * (per_unit_squared * (const.NEARER / 1024.0)), "
        "const.NEARER)",
        f"{BOUNDS} -k promising",
    ),
    Mutant(
        "a visit promises less than is left",
        "order.py",
        "bitcast=True) - const.NEARER",
        "bitcast=True) + const.NEARER",
        f"{BOUNDS} -k promising",
    ),
    Mutant(
        "a tile meets a region only if its first column does",
        "bounds.py",
        "(low_x < right)",
        "(low_x < left)",
        f"{BOUNDS} -k meets",
    ),
    Mutant(
        "a tile's stride is that along x",
        "prepare.py",
        "max_from_zero(tl.where(usable, tl.maximum(stride_x, stride_y), 0.0))",
        "max_from_zero(tl.where(usable, stride_x, 0.0))",
        f"{KERNELS} -k every_candidate_region",
    ),
    Mutant(
        "a tile takes one column too many",
        "tiles.py",
        "(column < left)",
        "(column <= left)",
        f"{KERNELS} -k blocks",
    ),
    Mutant(
        "the second round of gts is never a candidate's",
        "prepare.py",
        "        g += GTS\n",
        "        g += 2 * GTS\n",
        f"{KERNELS} -k every_candidate_region",
    ),
    Mutant(
        "padded gts take part",
        "../gts.py",
        "tl.load(mask_ptr + first + gt) != 0",
        "tl.load(mask_ptr + first + gt) >= 0",
        f"{KERNELS} -k as_they_are",
    ),
    Mutant(
        "a label beyond the classes takes part",
        "../gts.py",
        "< C.to(tl.uint64)",
        "<= C.to(tl.uint64)",
        f"{KERNELS} -k as_they_are",
    ),
    Mutant(
        "gts of no image take part",
        "prepare.py",
        "owned = (gt >= gt_first)",
        "owned = (gt >= 0)",
        f"{KERNELS} -k belong_to_no_image",
    ),
    Mutant(
        "a NaN among the classes leaves its prior readable",
        "class_sums.py",
        "read & ~readable",
        "read & (total == -1.0)",
        f"{KERNELS} -k class_sums",
    ),
    Mutant(
        "a share of the tiles is skipped",
        "top_iou.py",
        "tl.where(wanted &",
        "tl.where(wanted & (split != 1) &",
        f"{KERNELS} -k largest",
    ),
    Mutant(
        "lists with unreadable priors are trusted",
        "select.py",
        "tl.load(unreadable_ptr + image) != 0",
        "image < 0",
        f"{KERNELS} -k lose",
    ),
    Mutant(
        "an image stays unreadable from the call before",
        "prepare.py",
        "tl.store(unreadable_ptr + image, 0)",
        "pass",
        f"{KERNELS} -k lose",
    ),
    Mutant(
        "the last of the minority has no turn",
        "sums_and_ious.py",
        "(turn < minority)",
        "(turn < minority - 1)",
        f"{KERNELS} -k turn",
    ),
    Mutant(
        "one of the majority has no turn",
        "sums_and_ious.py",
        "tl.minimum(turn + 1, minority)",
        "tl.minimum(turn, minority)",
        f"{KERNELS} -k turn",
    ),
    Mutant(
        "IoUs within 1 % of the least are dropped",
        "top_iou.py",
        "(next_visit, BOUNDS) > least.to(tl.float32, bitcast=True)",
        "(next_visit, BOUNDS) > 1.01 * least.to(tl.float32, bitcast=True)",
        f"{KERNELS} -k hardly_differ",
    ),
    Mutant("equal IoUs count once", "select.py", "tl.sum(equal.to(tl.int32))", "1", f"{PRUNING} -k ties_at"),
    Mutant(
        "k is one too large",
        "select.py",
        "tl.maximum(scaled.to(tl.int32), 1)",
        "tl.maximum(scaled.to(tl.int32), 0) + 1",
        f"{KERNELS} -k claims_stand",
    ),
    Mutant(
        "k may be 0",
        "select.py",
        "tl.maximum(scaled.to(tl.int32), 1)",
        "tl.maximum(scaled.to(tl.int32), 0)",
        f"{PRUNING} -k without_area",
    ),
    Mutant(
        "the higher prior wins a tie between tiles",
        "cheapest.py",
        "(prior < last)",
        "(prior > last)",
        f"{PRUNING} -k ties_at",
    ),
    Mutant(
        "of equal entries the lowest prior is thrown out",
        "cheapest.py",
        "return costliest, tl.max(tl.where(costs == costliest, priors, -1))",
        "return costliest, tl.min(tl.where(costs == costliest, priors, const.NONE))",
        f"{PRUNING} -k ties_at",
    ),
    Mutant(
        "tiles whose floor is near the limit are missed",
        "bounds.py",
        "return cost - least_cost(RULE)",
        "return 0.7 * cost",
        f"{PRUNING} {BACKEND} -k 'one_huge or at_the_edge or shapes or far_away or some_pairs'",
    ),
    Mutant(
        "tiles nearly as far as the limit are missed",
        "bounds.py",
        "        return reach\n",
        "        return 0.7 * reach\n",
        f"{PRUNING} {BACKEND} -k 'one_huge or at_the_edge or shapes or far_away or some_pairs'",
    ),
    Mutant(
        "an insertion fills all that is free",
        "cheapest.py",
        "tl.where(lane < k, -lane + const.NONE, -1)",
        "tl.where(lane < k, const.NONE, -1)",
        f"{KERNELS} -k claims_stand",
    ),
    Mutant(
        "the last round of tiles is missed",
        "search.py",
        "while part < parts:",
        "while part < tl.minimum(parts, 1):",
        f"{PRUNING} -k registers",
    ),
    Mutant(
        "own pairs are not looked at alone",
        "search.py",
        "gx1, gy1, gx2, gy2, cx, cy, CANDIDATE) > 0.0",
        "gx1, gy1, gx2, gy2, cx, cy, CANDIDATE) > -1e9",
        f"{PRUNING} -k sees_its_own",
    ),
    Mutant(
        "the second claimant notes nothing",
        "select.py",
        "(before == 1)",
        "(before == 2)",
        f"{KERNELS} -k claims_stand",
    ),
    Mutant(
        "every later claimant notes the prior",
        "select.py",
        "(before == 1)",
        "(before >= 1)",
        f"{KERNELS} -k claims_stand",
    ),
    Mutant(
        "matched takes the costliest claim",
        "select.py",
        "(costs.to(tl.int64) << 32)",
        "((-costs).to(tl.int64) << 32)",
        f"{KERNELS} -k conflicts",
    ),
    Mutant(
        "the last gt wins a tie of a conflict",
        "resolve.py",
        "tl.min(tl.where(key == least, g + lane, const.NONE))",
        "tl.max(tl.where(key == least, g + lane, -1))",
        f"{KERNELS} -k conflicts",
    ),
    Mutant(
        "later gts win ties of a conflict",
        "resolve.py",
        "if least < best:",
        "if least <= best:",
        f"{PRUNING} -k duplicates",
    ),
    Mutant(
        "the largest IoU is sought among the cheap",
        "resolve.py",
        'limit * 0.0 + float("inf")',
        "limit",
        f"{KERNELS} {PRUNING} -k 'conflicts or at_the_edge'",
    ),
    Mutant(
        "a conflict's later gts must be cheaper by a tenth",
        "resolve.py",
        "tl.minimum(limit, value_of(best))",
        "tl.minimum(limit, 0.9 * value_of(best))",
        f"{PRUNING} -k several_rounds",
    ),
    Mutant(
        "the second prior of a program is the first again",
        "resolve.py",
        "        entry = tl.load(conflicts_ptr + turn, mask=turn < count, other=0)\n",
        "",
        f"{KERNELS} -k conflicts",
    ),
    Mutant(
        "only the first conflict is resolved",
        "resolve.py",
        "while turn < count:",
        "while turn < tl.minimum(count, 1):",
        f"{KERNELS} -k conflicts",
    ),
    Mutant(
        "claims are counted by a load and a store",
        "select.py",
        'before = tl.atomic_add(claims_ptr + out, 1, mask=taken, sem="relaxed")',
        "before = tl.load(claims_ptr + out, mask=taken, other=0)\n    tl.store(claims_ptr + out, before + "
        "1, mask=taken)",
        COMPILED,
    ),
    Mutant(
        "the cheapest claim is kept by a load and a store",
        "select.py",
        'tl.atomic_min(cheapest_claims_ptr + out, claim, mask=taken, sem="relaxed")',
        "before = tl.load(cheapest_claims_ptr + out, mask=taken, other=0)\n"
        "        tl.store(cheapest_claims_ptr + out, tl.minimum(before, claim), mask=taken)",
        COMPILED,
    ),
    Mutant(
        "conflicts are counted by a load and a store",
        "select.py",
        'entry = tl.atomic_add(number, 1, mask=second, sem="relaxed")',
        "entry = tl.load(num_conflicts_ptr) + tl.cumsum(second.to(tl.int32), 0) - 1\n"
        "        tl.store(num_conflicts_ptr, tl.load(num_conflicts_ptr) + tl.sum(second.to(tl.int32)))",
        COMPILED,
    ),
    Mutant(
        "unreadable priors are not told of, as compiled",
        "select.py",
        "tl.load(unreadable_ptr + image) != 0",
        "image < 0",
        COMPILED,
    ),
    Mutant(
        "every image writes the points",
        "prepare.py",
        "    if image == 0:\n        point =",
        "    if image >= 0:\n        point =",
        COMPILED,
    ),
    Mutant(
        "positives are counted before all counts are zero",
        "../positives.py",
        "        g += BLOCK\n    tl.debug_barrier()\n",
        "        g += BLOCK\n",
        COMPILED,
    ),
    Mutant(
        "summaries are read behind the last tile",
        "top_iou.py",
        "summary_at(tl.minimum(tile, num_tiles - 1))",
        "summary_at(tile)",
        COMPILED,
    ),
    Mutant(
        "the list of conflicts is read behind its end",
        "resolve.py",
        "tl.load(conflicts_ptr + turn, mask=turn < count, other=0)",
        "tl.load(conflicts_ptr + turn)",
        COMPILED,
    ),
    Mutant(
        "a short gt takes one prior too few",
        "rescue.py",
        "- tl.load(positives_ptr + g)",
        "- 1 - tl.load(positives_ptr + g)",
        SMALL,
    ),
    Mutant("the last gt has no turn", "rescue.py", "while g < num_gts:", "while g < num_gts - 1:", SMALL),
    Mutant(
        "a rescued prior keeps its label",
        "rescue.py",
        "tl.store(labels_ptr + prior, label.to(tl.int64))",
        "pass",
        SMALL,
    ),
    Mutant(
        "a rescued prior keeps its IoU",
        "rescue.py",
        "tl.store(matched_iou_ptr + prior",
        "(matched_iou_ptr + prior",
        SMALL,
    ),
    Mutant(
        "the higher prior is rescued among equals",
        "cheapest.py",
        "(prior < last)",
        "(prior > last)",
        EQUALS,
    ),
    Mutant(
        "a short gt looks at one round of tiles",
        "search.py",
        "while part < parts:",
        "while part < tl.minimum(parts, 1):",
        EQUALS,
    ),
    Mutant(
        "a cheaper prior must be cheaper by half",
        "cheapest.py",
        "value_of(costliest))",
        "0.5 * value_of(costliest))",
        f"{RESCUE} -k 'answer_as_the_definition and rtmdet-3'",
    ),
    Mutant(
        "who has just enough can spare one",
        "../positives.py",
        ") > min_positives",
        ") >= min_positives",
        PASS,
    ),
    Mutant("background cannot be spared", "../positives.py", "other=const.PLENTY", "other=0", PASS),
    Mutant("who has lost a prior still counts it", "../positives.py", "other=1) - 1", "other=1)", PASS),
    Mutant(
        "only the first priors are counted",
        "../positives.py",
        "        p += BLOCK\n",
        "        p += P\n",
        PASS,
    ),
    Mutant(
        "counts begin with what the memory held",
        "../positives.py",
        "tl.zeros([BLOCK], tl.int32)",
        "tl.load(positives_ptr + g + lane)",
        f"{RESCUE} -k 'answer_as_the_definition and rtmdet-3'",
    ),
    Mutant(
        "of equals a matrix gives the last",
        "../fused/rescue_pass.py",
        "tl.min(tl.where(key == least, p, const.NONE))",
        "tl.max(tl.where(key == least, p, 0))",
        PASS,
    ),
    Mutant(
        "a matrix's rows are read to their first block",
        "../fused/rescue_pass.py",
        "first += BLOCK",
        "first += P",
        PASS,
    ),
    Mutant(
        "an edge is no part of an inclusive region",
        "../aligned_maths.py",
        "return depth >= RULE.value.margin",
        "return depth > RULE.value.margin",
        f"{ALIGNED_MATHS} -k region",
    ),
    Mutant(
        "a region has no margin",
        "../aligned_maths.py",
        "return depth > RULE.value.margin",
        "return depth > 0.0",
        f"{ALIGNED_MATHS} -k region",
    ),
    Mutant(
        "short sides are enlarged by half as much",
        "../aligned_maths.py",
        "RULE.value.min_side_to / 2",
        "RULE.value.min_side_to / 4",
        f"{ALIGNED_MATHS} -k region",
    ),
    Mutant(
        "the least overlap of a metric is 1 % too high",
        "../aligned_maths.py",
        "(1.0 + const.OVERLAP_SLACK) / RULE.value.beta",
        "0.9 / RULE.value.beta",
        f"{ALIGNED_MATHS} -k least_overlap",
    ),
    Mutant(
        "CIoU does not compare shapes",
        "../aligned_maths.py",
        "v * fraction(v,",
        "0.0 * fraction(v,",
        f"{ALIGNED_MATHS} -k test_overlap",
    ),
    Mutant(
        "angles end at 45 degrees",
        "../aligned_maths.py",
        "tl.where(a > b, angle * -1.0 + const.HALF_PI, angle)",
        "angle",
        f"{ALIGNED_MATHS} -k arctangent",
    ),
    Mutant(
        "scores below the normal numbers count",
        "../aligned_maths.py",
        "tl.where(p >= const.SMALLEST, p, 0.0)",
        "p",
        f"{ALIGNED_MATHS} -k very_negative",
    ),
    Mutant(
        "tiles at the lower edge of a region are missed",
        "aligned/search.py",
        "y2 - top))\n    may =",
        "y2 - bottom))\n    may =",
        f"{ALIGNED_PRUNING} -k 'regions_end or worst_score'",
    ),
    Mutant(
        "tiles nearly as good as the limit are missed",
        "aligned/search.py",
        "while 1.0 - least_bound(next_visit, BOUNDS) >= limit:",
        "while 0.9 - least_bound(next_visit, BOUNDS) >= limit:",
        f"{ALIGNED_PRUNING} -k 'worst_score or ties'",
    ),
    Mutant(
        "metrics are sought in one round of tiles",
        "aligned/search.py",
        "while part < parts:",
        "while part < tl.minimum(parts, 1):",
        f"{ALIGNED_PRUNING} -k registers",
    ),
    Mutant(
        "pairs must be above the limit by a tenth",
        "aligned/search.py",
        "limit = least_overlap(metric_of_key(worst), RULE, FAST)\n        part",
        "limit = 1.1 * least_overlap(metric_of_key(worst), RULE, FAST)\n        part",
        f"{ALIGNED_PRUNING} -k 'worst_score or ties'",
    ),
    Mutant(
        "the second gt that selects a prior notes nothing",
        "aligned/select.py",
        "(before == 1)",
        "(before == 2)",
        f"{ALIGNED} -k 'every_preset and tal'",
    ),
    Mutant(
        "a gt that selects nothing stays without",
        "aligned/select.py",
        "tl.where(lonely, tl.minimum(k, 1), 0)",
        "k * 0",
        f"{ALIGNED_PRUNING} -k outside",
    ),
    Mutant(
        "what lies outside of the region is selected",
        "aligned/select.py",
        "    if RULE.value.pool_all:\n",
        "    if False:\n",
        f"{ALIGNED_PRUNING} -k outside",
    ),
    Mutant(
        "the last gt wins a tie of overlaps",
        "aligned/resolve.py",
        "tl.min(tl.where(key == least_key, g + lane, const.NONE))",
        "tl.max(tl.where(key == least_key, g + lane, -1))",
        f"{ALIGNED} -k mass_ties",
    ),
    Mutant(
        "a prior goes to a gt that does not contain it",
        "aligned/resolve.py",
        'if CONFLICT == "inside":',
        'if CONFLICT == "nowhere":',
        f"{ALIGNED} -k 'every_preset or more_gts'",
    ),
    Mutant(
        "a conflict is won by a twentieth",
        "aligned/resolve.py",
        "known * (1.0 - const.OVERLAP_SLACK)",
        "known * 1.05",
        f"{ALIGNED} -k 'every_preset and tal'",
    ),
    Mutant(
        "claims from outside of the region lose",
        "../rule.py",
        'config.conflict == "matched" or (at_least_one and config.conflict == "inside")',
        'config.conflict == "matched"',
        f"{ALIGNED_PRUNING} -k claim_from_outside",
    ),
    Mutant(
        "of equal metrics the highest prior is kept",
        "aligned/targets.py",
        "(0xFFFFFFFF - p.to(tl.int64))",
        "p.to(tl.int64)",
        f"{ALIGNED} -k mass_ties",
    ),
    Mutant(
        "the second rank is the first again",
        "aligned/targets.py",
        "rank < tl.load(column - 1",
        "rank <= tl.load(column - 1",
        f"{ALIGNED} -k variants",
    ),
    Mutant(
        "a gt keeps one prior too few",
        "aligned/targets.py",
        "(_rank(scores_ptr, p, out, owned) < least)",
        "(_rank(scores_ptr, p, out, owned) <= least)",
        f"{ALIGNED} -k variants",
    ),
    Mutant(
        "targets are not scaled by the largest overlap",
        "aligned/targets.py",
        "FAST) * largest_overlap",
        "FAST)",
        f"{ALIGNED} -k 'every_preset and tal'",
    ),
    Mutant(
        "largest values begin with what the memory held",
        "prepare.py",
        "tl.zeros([GTS], tl.int64), mask=gt < end_row",
        "tl.zeros([GTS], tl.int64), mask=gt < 0",
        f"{ALIGNED} -k memory_held",
    ),
    Mutant(
        "selections are counted by a load and a store",
        "aligned/select.py",
        'before = tl.atomic_add(claims_ptr + out, 1, mask=taken, sem="relaxed")',
        "before = tl.load(claims_ptr + out, mask=taken, other=0)\n    tl.store(claims_ptr + out, before + "
        "1, mask=taken)",
        COMPILED,
    ),
    Mutant(
        "the largest overlap is kept by a load and a store",
        "aligned/targets.py",
        'tl.atomic_max(halves + 1, overlap.to(tl.int32, bitcast=True), mask=owned, sem="relaxed")',
        "tl.store(halves + 1, overlap.to(tl.int32, bitcast=True), mask=owned)",
        COMPILED,
    ),
)


def copy_of_the_project(folder: str, mutant: Mutant | None = None) -> None:
    """The package and its tests in an empty folder, with the mutant's replacement."""
    for name in ("simota_triton", "tests", "bench"):
        shutil.copytree(
            ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__", "results")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    if mutant is not None:
        file = Path(folder, KERNELS_FOLDER.relative_to(ROOT), mutant.file)
        text = file.read_text()
        if mutant.old not in text:
            raise ValueError(f"{mutant.name}: {mutant.old!r} is not in {mutant.file}")
        file.write_text(text.replace(mutant.old, mutant.new))


def passes(folder: str, arguments: list[str]) -> bool:
    """Whether tests of a folder pass, in a process of their own that has imported torch and Triton."""
    child = os.fork()
    if child == 0:
        log = os.open(Path(folder, "log"), os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        sys.path[0] = folder
        for name in [
            name for name in sys.modules if name.split(".")[0] in ("tests", "simota_triton", "bench")
        ]:
            del sys.modules[name]
        import pytest

        code = pytest.main(["-q", "-x", *arguments])
        sys.stdout.flush()
        os._exit(int(code))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code > 1:  # no test ran; a signal, as from a store out of bounds, is a failure
        raise RuntimeError(
            f"pytest {' '.join(arguments)} failed with {code}: {Path(folder, 'log').read_text()[-2000:]}"
        )
    return code == 0


def main(words: list[str], mutants: Sequence[Mutant] = MUTANTS) -> int:
    """Runs the mutants whose names contain one of the words; returns the exit code."""
    import shlex

    os.environ.setdefault("TRITON_INTERPRET", "1")
    import pytest  # noqa: F401
    import torch
    import triton.language  # noqa: F401

    torch.set_num_threads(1)
    chosen = [mutant for mutant in mutants if not words or any(word in mutant.name for word in words)]
    survivors = []
    for mutant in chosen:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            copy_of_the_project(folder, mutant)
            alive = passes(folder, shlex.split(mutant.tests))
            reason = next(
                (line for line in Path(folder, "log").read_text().splitlines() if line.startswith("FAILED")),
                "",
            )
        print(
            f"{'SURVIVED' if alive else 'killed  '} {mutant.name} ({time.perf_counter() - start:.0f} s) "
            f"{reason[:140]}",
            flush=True,
        )
        survivors += [mutant.name] * alive
    for tests in sorted({mutant.tests for mutant in chosen}):
        with tempfile.TemporaryDirectory() as folder:
            copy_of_the_project(folder)
            if not passes(folder, shlex.split(tests)):
                survivors.append(f"a copy that is left alone fails {tests}")
                print(survivors[-1], flush=True)
    print(f"{len(chosen)} mutants, {len(survivors)} complaints")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
