"""Device code of the backend "triton-stream", and the guide to it, by the example of SimOTA.

**What it is.** A best-first branch and bound over tiles of priors. SimOTA gives each ground truth (gt) the k
priors that cost it least, where k, its *dynamic k*, is the sum of its q = ``candidate_topk`` largest IoUs,
rounded down, and at least 1. A dense implementation writes cost and IoU of every (gt, prior) pair into [B, G,
P] matrices and sorts their rows. Here no matrix is written. Neighbouring priors form a *tile*. For each gt
and tile there is a bound: no pair of the two has a larger IoU, or costs less, than it says. A gt visits tiles
in the order of their bounds, keeps the best pairs so far in a list, and stops as soon as the next bound is no
better than the worst entry of the full list. What is left out provably changes nothing (``bounds``), so
answers are those of the dense definition. (Where there is a centre prior and no penalty, as in "rtmdet",
``select`` ranks tiles by their distance alone, which bounds the cost too: ``Rule.by_distance``.)

**Five kernels**, one launch each, in this order:

1. ``prepare``, a program a tile: finds candidates, writes priors in tile order and a summary of each tile.
2. ``sums_and_ious``, programs of two kinds side by side: ``class_sums`` adds up what a prior's classes cost
   as background (it waits for memory), ``top_iou`` lists the q largest IoUs of each gt (it computes).
3. ``select``, a program (one warp) a gt: dynamic k, then the k cheapest priors, each of which it *claims*.
4. ``resolve``: a prior that several gts have claimed is left to one of them.
5. ``rescue``, with ``min_positives`` only, a program an image: gts that are short of priors take some.

**Buffers**, and who writes (W), reads (R) or changes (WR) each. The first five are outputs, the others
scratch memory (``scratch``), planes and columns are named in ``kernels.constants``::

                                            prepare  sums_and_ious  select  resolve  rescue
    gt_index, matched_iou, labels  [B, P]      W                      W       WR       WR
    claims  [B, P], gts that claim a prior     W                      WR
    dynamic_k  [N]                                                    W
    slots  [B, T, planes, TILE]                W           WR         R       R        R
    points  [T, POINT, TILE]                   W           R          R       R        R
    slot_of  [P]                               W                      R                R
    tiles  [B, T / 32, SUMMARY, 32]            W           R          R                R
    gts  [N, GT_COLUMNS], the table of gts     W           R          R       R        R
    unreadable  [B]                            W           W          R
    top_ious  [N, splits, LANES]                           W          R                (memory of positives)
    num_conflicts                              W                      WR      R
    conflicts, conflict_costs                                         W       R
    cheapest_claims  [B, P], if "matched"      W                      WR      R

**Two lists a gt.** The q largest IoUs decide how long the other list is, that of the k cheapest priors, so
the first must be complete before the second is begun. One cannot stand in for the other: a cost also holds
class and centre terms, and IoUs may count of priors that are no candidates (``k_pool``). ``top_iou``
(``sums_and_ious``) makes the first one, so that it overlaps with the class sums, which costs need and IoUs do
not; ``cheapest`` (``select``) keeps the second one, in registers.

**The list of conflicts** is written by ``select`` and read by ``resolve``. ``select`` writes a claim into the
outputs at once, as if it stood. An atomic counter, ``claims[b, p]``, tells each claimant how many came
before. The *second* one, and no other, adds the prior to ``conflicts`` (image and slot) and what it costs
itself to ``conflict_costs``; so each prior is there once, however many claim it. ``resolve`` goes through the
list and overwrites the outputs of its priors. Where the cheapest of all gts wins ("all"), the noted cost
tells it which gts cannot be cheaper; with "max_iou" it compares IoUs instead, and with "matched" it reads the
winner from ``cheapest_claims``, which claimants keep up to date.

**Unreadable priors.** A prior with a class logit that is not finite takes no part, which ``class_sums``
learns while ``top_iou`` may be looking at that very prior. It takes the prior's box away and sets
``unreadable[b]``, and ``select`` forms the lists of IoUs of such an image again instead of reading them.
The race is meant (``kernels.races``).

**An example.** One gt, four tiles, q = 2. Of each tile are known the largest IoU and the least cost that it
may hold; the other columns are what its priors have, which is known once it is visited::

    tile   bound of IoU   IoUs           bound of cost   costs
    0          0.95       0.90, 0.55          1.2        1.5, 3.0
    1          0.85       0.80, 0.70          1.4        2.1, 2.6
    2          0.60       0.50, 0.40          1.9        2.2, 4.0
    3          0.00       none                none       no candidate

* ``top_iou`` visits tile 0: the list is {0.90, 0.55}, it is full, and its least entry is 0.55. Tile 1 may
  hold 0.85, which is more: 0.80 takes the place of 0.55, and 0.70 is too small. Tile 2 holds at most 0.60,
  less than 0.80: the search ends, and tiles 2 and 3 are never read.
* ``select``: k = floor(0.90 + 0.80) = 1. It visits tile 0: the list is {1.5}, full, and 1.5 is the limit.
  Tile 1 may hold a cost of 1.4, so it is visited. Its pairs are first held against the limit without forming
  a cost: of one that costs at most 1.5 it is known what its IoU and distance must be, and none of the two
  satisfies that. Tile 2 costs at least 1.9: the search ends. The prior of cost 1.5 is claimed: ``claims``
  goes from 0 to 1.
* Let another gt claim the same prior later, at a cost of 1.7. It finds ``claims`` at 1, so it is the second
  one and notes (image, slot) and 1.7. ``resolve`` looks for gts to which the prior costs at most 1.7, finds
  1.5, and writes the first gt into the outputs again.

**Words.**

* *tile*: TILE priors, a block of cells of one level. *slot*: a prior's number in tile order, tile * TILE +
  place.
* *summary*: what is known of a tile in an image, SUMMARY numbers, see ``kernels.constants``.
* *bound*: what a pair's IoU cannot exceed, or its cost cannot fall below. *rank*: the number tiles are
  visited by.
* *visit*: load a tile's pairs. *worth*: a pair that may enter the list, whose cost or IoU is therefore
  formed.
* *limit*: the cost of the costliest entry of a full list, +inf before. *key*: a float32 as an int32 of the
  same order.
* *candidate*: a prior in the candidate region of any gt of its image. *counts*: a prior whose IoUs count for
  dynamic k. *takes part*: a prior or gt whose numbers are finite and which is not masked out.
* *split*: one of several programs that share the tiles of a gt in ``sums_and_ious``. *part*: tiles ranked at
  once.
* *LANES*: 32, the lanes of a warp and the entries of a list.
* *coded*: integers passed so that Triton compiles nothing anew for other values, see ``host.codes``.
* *scheduling hint* in a comment: what follows changes no value and is there for the compiler alone.

**The task-aligned rule** has kernels of its own behind ``prepare``, in ``aligned``, whose docstring is their
guide.

**Where to read.** ``prepare``, ``tiles`` (slots and cells), ``bounds``, ``order`` (of visits), ``top_iou``,
``search`` and ``cheapest`` (the loop and the list of ``select``), ``select``, ``resolve``, ``rescue``; on the
host ``grid`` (which priors share a tile), ``scratch``, ``common`` and ``launch``. Importing ``launch`` or a
kernel imports Triton.
"""
