"""Every launch configuration of a kernel family's space against the interpreter's own, bit for bit, on random scenes.

    python -m tests.configurations                       # every family, 20 scenes, in Triton's interpreter
    python -m tests.configurations --backend triton --scenes 3

Configurations that differ only in what the interpreter does not have (warps, registers) are one to it and run once; those are
held to the default's bits on a GPU, by ``simota-triton tune``. Exits with 1 and names the configurations that differ.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch

from simota_triton.config import SimOTAConfig
from simota_triton.inputs import Problem
from simota_triton.tuning.families import FAMILIES, Family

UNSEEN = ("prior_warps", "prior_registers", "cost_warps")
"""Fields that the interpreter does not look at."""


def scenes(count: int) -> Iterator[tuple[int, Problem, SimOTAConfig]]:
    """Seed, problem and configuration of small random scenes, the presets in turn."""
    from .kernels_support import PRESETS, random_problem

    presets = sorted(PRESETS)
    for seed in range(count):
        config = SimOTAConfig.from_preset(presets[seed * 3 % len(presets)])
        yield seed, random_problem(config, 50 + 37 * seed % 90, [1 + seed % 6, 0, 3][: 2 + seed % 2], 3 + 5 * seed % 18, seed), config


def seen(family: Family, problem: Problem) -> list[Any]:
    """The space, one of each that the interpreter can tell apart."""
    space = family.space(family.heuristic((9, 0), family.shape(problem)))
    names = [field.name for field in fields(family.config) if field.name not in UNSEEN]
    return list({tuple(getattr(kernels, name) for name in names): kernels for kernels in reversed(space)}.values())[::-1]


def differing(family: Family, problem: Problem, config: SimOTAConfig, candidates: list[Any]) -> list[Any]:
    """The candidates that give other bits than the interpreter's own configuration."""
    expected = [value.clone() for value in family.launch(problem, config, family.interpreter)]
    return [kernels for kernels in candidates if not all(map(torch.equal, family.launch(problem, config, kernels), expected))]


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.configurations", description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=tuple(FAMILIES), action="append", help="kernel family; default: all")
    parser.add_argument("--scenes", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    wrong = 0
    for name in args.backend or FAMILIES:
        total, start = 0, time.perf_counter()
        for seed, problem, config in scenes(args.scenes):
            candidates = seen(FAMILIES[name], problem)
            found = differing(FAMILIES[name], problem, config, candidates)
            total, wrong = total + len(candidates), wrong + len(found)
            print(f"{name}, scene {seed}: {len(candidates)} compared, {len(found)} differ", flush=True)
            for kernels in found:
                print(f"  {kernels} gives other bits", file=sys.stderr)
        print(f"{name}: {total} launches of {args.scenes} scenes compared, {wrong} differ, {time.perf_counter() - start:.0f} s", flush=True)
    return bool(wrong)


if __name__ == "__main__":
    os.environ.setdefault("TRITON_INTERPRET", "1")
    sys.exit(main())
