"""Device code and what launches it, a room for each backend and what both use beside them. To be read in this
order:

* ``constants``: numbers that are compiled in; names of columns and planes. ``rule``: what of a configuration
  is.
* ``maths``: the terms of the cost, one function each, and the cost of a pair. ``background``: sums over
  classes.
* ``levels``: where priors, boxes and logits lie. ``gts``: how gts are read, and the table of them.
* ``fused/``, backend "triton": ``prior_pass``, ``cost_pass`` write matrices over (gt, prior) pairs.
* ``stream/``, backend "triton-stream": no matrix; its docstring is a guide.
* ``positives``: what the kernels behind ``min_positives`` of both count.
* ``host``: what both launches need. ``ready``: what Triton does once a process. ``races``: the races that are
  meant.

README.md tells why there are two families and how they were checked. Importing a module from here, but for
``stream.grid``, imports Triton.
"""
