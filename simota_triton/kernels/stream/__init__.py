"""Device code of the streaming backend, in order of execution: ``prepare`` (candidates, tiles, the table of
gts), ``sums_and_ious`` (``class_sums`` of candidates and each gt's ``top_iou``, side by side), ``select`` (dynamic k
and the k cheapest priors), ``resolve`` (conflicts), and where there are ``min_positives`` ``rescue``. No
matrix over (gt, prior) pairs is ever written.

``tiles`` is how priors are grouped, ``bounds`` what is known of the pairs of a tile before they are looked
at, ``search`` how a gt looks for its cheapest, ``launch`` the host side. Importing a module from here imports
Triton.
"""
