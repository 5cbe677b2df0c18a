"""Assigners by preset and overrides, built once: what replaced code asks for at every step."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..assigners import assigner_of
from ..config import SimOTAConfig, TaskAlignedConfig


@lru_cache(maxsize=64)
def assigner_for(preset: str, **overrides: Any) -> Any:
    """The assigner of a preset of either rule with some fields changed; its backend is ``"auto"``.

    Example:
        >>> assigner_for("rtmdet", candidate_topk=9) is assigner_for("rtmdet", candidate_topk=9)
        True
        >>> assigner_for("tal", topk=7).config
        TaskAlignedConfig.tal(topk=7)
    """
    rule = TaskAlignedConfig if preset in TaskAlignedConfig.presets() else SimOTAConfig
    return assigner_of(rule.from_preset(preset, **overrides))
