"""Judges an assignment against the float64 definition: for every prior, is the answer right, a near-tie, or
wrong?

A backend computes in float32, so two costs or metrics closer than float32 can tell apart may come out in
either order. The judge bounds every one of them by an interval that float32 arithmetic cannot leave, and
accepts an answer only if some choice of values within the intervals gives it. Nothing is accepted because it
is "close". ``simota`` and ``aligned`` say what the intervals of their rules are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...config import Config, SimOTAConfig, TaskAlignedConfig
from ...problem import Problem
from .aligned import judge_aligned
from .simota import judge_simota


class Verdict(NamedTuple):
    """What the judge found.

    Attributes:
        unexplained: One line for each thing that no rounding explains; empty for a right answer.
        excused: Priors whose answer is not the float64 definition's but a proven near-tie.
        positives: Positives of the float64 definition.
    """

    unexplained: list[str]
    excused: int
    positives: int


def judge(result: Any, problem: Problem, config: Config) -> Verdict:
    """Judge an ``AssignResult`` or a ``Matching``."""
    problem = problem.sanitised()
    if isinstance(config, TaskAlignedConfig):
        expected, wrong = judge_aligned(result, problem, config)
    else:
        assert isinstance(config, SimOTAConfig)
        expected, wrong = judge_simota(result, problem, config)
    shapes = expected.gt_index.shape, expected.dynamic_k.shape
    if (result.gt_index.shape, result.dynamic_k.shape) != shapes:
        return Verdict(
            [f"shapes: expected {shapes}, got {result.gt_index.shape}, {result.dynamic_k.shape}"], 0, 0
        )
    excused = 0 if wrong else int((result.gt_index != expected.gt_index).sum())
    return Verdict(wrong, excused, int((expected.gt_index >= 0).sum()))
