"""Imports torch. Where NumPy is missing it warns at every start of a process; nothing here needs NumPy, and
who does is told then.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)
    import torch  # noqa: F401
