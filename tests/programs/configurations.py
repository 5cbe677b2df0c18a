"""Every launch configuration of a kernel family's space against the interpreter's own, bit for bit, on random
scenes.

    python -m tests.programs.configurations    # every family, 20 scenes, in Triton's interpreter
    python -m tests.programs.configurations --backend triton --scenes 3 --workers 2

All kernels of all configurations are launched. A launch whose kernel, grid and arguments are those of an
earlier one, to the last byte, is computed once: many configurations differ in what one kernel of several
reads, and the interpreter has no warps and no registers. Those that differ in these alone are held to the
default's bits on a GPU, by ``simota-triton tune``. Exits with 1 and names the configurations that differ.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch

from simota_triton.cli.tune.families import TUNABLE, Tunable
from simota_triton.config import SimOTAConfig
from simota_triton.problem import Problem
from tests.support import interpreter

WIDE = 4
"""Every so many scenes one has more tiles than the smallest choices look at in a pass."""


class Compared(NamedTuple):
    """How configurations compare.

    Attributes:
        configurations: How many were compared.
        differing: Those that give other bits than the interpreter's own.
        launches: Of kernels.
        computed: Launches that were no other's repetition.
    """

    configurations: int
    differing: list[Any]
    launches: int
    computed: int


def scene(seed: int) -> tuple[Problem, SimOTAConfig]:
    """A small random problem and its configuration; the presets come in turn."""
    from tests.support.kernels import PRESETS, random_problem

    presets = sorted(PRESETS)
    config = SimOTAConfig.from_preset(presets[seed * 3 % len(presets)])
    if seed % WIDE == WIDE - 1:
        num_priors, counts = 2200, [2]
    else:
        num_priors, counts = 50 + 37 * seed % 90, [1 + seed % 6, 0, 3][: 2 + seed % 2]
    return random_problem(config, num_priors, counts, 3 + 5 * seed % 18, seed), config


def space(family: Tunable, problem: Problem) -> list[Any]:
    """The family's whole space for a problem."""
    return family.space(family.heuristic((9, 0), family.shape(problem)))


def compare(family: Tunable, problem: Problem, config: SimOTAConfig, candidates: Sequence[Any]) -> Compared:
    """Candidates against the interpreter's own configuration."""
    with interpreter.remembering() as counts:
        expected = [value.clone() for value in family.launch(problem, config, family.interpreter)]
        found = [
            kernels
            for kernels in candidates
            if not all(map(torch.equal, family.launch(problem, config, kernels), expected))
        ]
    return Compared(len(candidates), found, counts["launches"], counts["computed"])


def _compare_scene(backend: str, seed: int) -> Compared:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # memory that nothing has written holds NaN
    interpreter.prepare()
    problem, config = scene(seed)
    return compare(TUNABLE[backend], problem, config, space(TUNABLE[backend], problem))


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs.configurations", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--backend", choices=tuple(TUNABLE), action="append", help="kernel family; default: all"
    )
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="processes; default: 1")
    args = parser.parse_args()
    wrong = 0
    with ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name in args.backend or TUNABLE:
            start, done = time.perf_counter(), []
            for seed, found in enumerate(pool.map(partial(_compare_scene, name), range(args.scenes))):
                done.append(found)
                print(
                    f"{name}, scene {seed}: {found.configurations} configurations, {found.launches} "
                    f"launches, {found.computed} computed, "
                    f"{len(found.differing)} differ",
                    flush=True,
                )
                for kernels in found.differing:
                    print(f"  {kernels} gives other bits", file=sys.stderr)
            differ = sum(len(found.differing) for found in done)
            wrong += differ
            print(
                f"{name}: {sum(found.configurations for found in done)} comparisons on {len(done)} scenes, "
                f"{sum(found.launches for found in done)} launches of kernels, "
                f"{sum(found.computed for found in done)} computed, "
                f"{differ} differ, {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    return bool(wrong)


if __name__ == "__main__":
    os.environ.setdefault("TRITON_INTERPRET", "1")
    sys.exit(main())
