"""Device code of the backend "triton-stream" for the task-aligned rule, and the guide to it. The guide to the
streaming kernels in general is that of the folder above.

**What it is.** The task-aligned rule gives each gt the ``topk`` priors in its region whose *metric* ::

    metric = score ** alpha * overlap ** beta

is the largest. There is no dynamic k and no sum over classes, so there is one list a gt instead of two, and
the overlap alone rules nearly every pair out: a score is at most 1, so a pair that is to have the metric t
needs an overlap of t ** (1 / beta) at least, hence a tile with a pair of such an IoU. Class logits are read
of some dozen pairs a gt.

**Kernels**, one launch each, in this order:

1. ``prepare`` of the folder above: slots, summaries of tiles, the table of gts. No prior is a candidate or
   not: each gt looks at its own region, in ``select``.
2. ``select_aligned``, a program (one warp) a gt: its ``topk`` priors, each of which it *claims*.
3. ``resolve_aligned``: a prior that several gts have claimed is left to the one of the largest overlap.
4. ``rank_owned``, ``topk2`` times: the next largest metric of each gt among the priors that it owns now.
5. ``largest_owned``: what each gt divides by, the largest metric and overlap of its priors; with ``topk2``
   those that it does not keep become background.
6. ``write_targets``: labels and scores of the priors that have a gt.

The last three go through the priors, not through the gts: a gt may own priors that it never selected, as a
conflict is won by the largest overlap.

**Buffers**, and who writes (W), reads (R) or changes (WR) each. The first six are outputs, the others scratch
memory. Those that are not named here are as in the guide above::

                                             prepare  select  resolve  rank  largest  write
                                                     _aligned _aligned _owned _owned _targets
    gt_index  [B, P]                            W       W       W       R      WR       R
    matched_iou  [B, P], the overlap            W       W       WR             WR       R
    labels  [B, P]                              W                                       W
    claims  [B, P]                              W       WR
    scores  [B, P], metrics until the end       W       W       W       R      WR       WR
    dynamic_k  [N], topk or 0                           W
    cheapest_claims  [B, P], if claims are      W       WR      R
        compared
    largest  [N, 1 + topk2]                     W                       WR     WR       R

**Claims** are compared as they are made, in ``cheapest_claims``, where the winner of a conflict is one of the
claimants ("matched"), or may be one that lies outside of its own region (``at_least_one``). Otherwise
``resolve_aligned`` looks through the gts of the image. Any claimant's overlap, which it finds in
``matched_iou``, says what a winner must have.

**Same bits.** Overlap and metric are one function each (``aligned_maths``). Largest values are atomic maxima
of the bits of positive float32, in any order, so launch parameters, tiles, padding and the batch change no
bit.
"""
