"""Device code of the backend "triton", in order of execution: ``prior_pass`` (what belongs to a prior alone),
``cost_pass`` (cost and IoU of every pair, written as matrices), and behind the matching, which is PyTorch's,
``rescue_pass`` where there are ``min_positives``. ``launch`` is the host side. Importing a module from here
imports Triton.
"""
