"""Device code and what launches it: a folder for each backend, and beside the folders what both use. To be
read in this order:

* ``constants``: numbers that are compiled in; names of columns and planes. ``rule``: the part of a
  configuration that is compiled in, a class for each rule.
* ``maths``: the terms of the cost, one function each, and the cost of a pair. ``background``: sums over
  classes.
* ``levels``: where priors, boxes and logits lie. ``gts``: how gts are read, and the table of them.
* ``fused/``, backend "triton": ``prior_pass`` and ``cost_pass`` write matrices over (gt, prior) pairs,
  ``rescue_pass`` does what ``min_positives`` asks for.
* ``stream/``, backend "triton-stream": no matrix; its docstring is a guide. ``stream/aligned/`` is the same
  for the task-aligned rule, whose terms are ``aligned_maths``.
* ``positives``: what the kernels behind ``min_positives`` of both count.
* ``host``: what both launches need. ``ready``: what Triton does once a process. ``races``: the races that are
  meant.

README.md tells why there are two families and how they were checked. Importing a module from here, but for
``stream.grid`` and ``races``, imports Triton.
"""
