"""Assigners by preset and overrides, built once: what replaced code asks for at every step."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..assigners import SimOTAAssigner
from ..config import SimOTAConfig


@lru_cache(maxsize=64)
def assigner_for(preset: str, **overrides: Any) -> SimOTAAssigner:
    """``SimOTAAssigner(SimOTAConfig.from_preset(preset, **overrides))``; its backend is ``"auto"``.

    Example:
        >>> assigner_for("rtmdet", candidate_topk=9) is assigner_for("rtmdet", candidate_topk=9)
        True
    """
    return SimOTAAssigner(SimOTAConfig.from_preset(preset, **overrides))
