"""Device code, in order of execution: ``prior_pass`` (what belongs to a prior alone), then ``cost_pass``
(every pair); behind the matching ``rescue_pass``, where there are ``min_positives``.

``rule`` is what of a configuration is compiled in, ``maths`` the terms on the device, ``levels`` where logits
lie, ``launch`` the host side of it. Importing a module from here imports Triton.
"""
