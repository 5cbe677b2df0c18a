"""Environment variables, all of them, read when they are needed."""

from __future__ import annotations

import os

VARIABLES = {
    "SIMOTA_TRITON_BACKEND": 'backend of every assigner built with backend="auto": auto, reference, torch, triton',
}
"""Name -> what it sets."""


def backend() -> str:
    """SIMOTA_TRITON_BACKEND, "auto" where unset."""
    return os.environ.get("SIMOTA_TRITON_BACKEND", "auto") or "auto"
