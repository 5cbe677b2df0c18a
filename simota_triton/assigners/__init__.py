"""The assigners: a class for each rule, over one base."""

from typing import Any

from ..config import Config
from .base import Assigner
from .simota import CostMatrix, SimOTAAssigner, assign
from .task_aligned import MetricMatrix, TaskAlignedAssigner

__all__ = [
    "Assigner",
    "CostMatrix",
    "MetricMatrix",
    "SimOTAAssigner",
    "TaskAlignedAssigner",
    "assign",
    "assigner_of",
]

ASSIGNERS: dict[str, type[Assigner[Any]]] = {"simota": SimOTAAssigner, "task_aligned": TaskAlignedAssigner}
"""The class of each rule."""


def assigner_of(config: Config, **options: Any) -> Any:
    """The assigner of a configuration, whichever its rule; its options are those of the rule's class."""
    return ASSIGNERS[config.rule](config, **options)
