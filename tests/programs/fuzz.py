"""Holds a backend against the float64 definition on many seeded scenes: every preset, variants of them, every
form of the inputs.

    python -m tests.programs.fuzz --scenes 20000 --backend torch

Prints what it saw and exits with 1 if any answer is unexplained. ``check(seed, backend, rule)`` repeats one
scene.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any
from unittest import mock

import torch

from simota_triton.backends import BACKENDS
from simota_triton.backends.torch_pruned import compact
from simota_triton.verification.cases import case_of, judged
from simota_triton.verification.variants import PRESETS
from tests.support import interpreter

DEFAULTS = (*[torch.float32] * 7, torch.float16, torch.bfloat16, torch.float64)
"""Torch's default dtype while a scene is assigned, as often as each comes."""

ALIGNED = import_module("simota_triton.backends.torch_aligned.match")
MOST_OF_SMALL_CALLS = ((compact, "MOST_PAIRS"), (ALIGNED, "FEW"), (ALIGNED, "FEW_OF_GT"))
"""What makes a call a small one. Every scene is: half of them go the way of large ones."""


RULES = tuple(PRESETS)


def launch_of(seed: int, backend: str) -> Any:
    """Launch parameters of a scene: every third scene of the streaming kernels has some of its own."""
    if backend != "triton-stream" or seed % 3:
        return None
    from tests.support.kernels import random_launch

    return random_launch(seed)


def check(seed: int, backend: str, rule: str = "simota") -> tuple[Counter[str], list[str]]:
    """Counts and complaints of one scene; its configuration and form of inputs follow from the seed."""
    case, rng = case_of(seed, rule), random.Random(~seed)
    batch = case.batch()
    torch.set_default_dtype(rng.choice(DEFAULTS))
    try:
        with contextlib.ExitStack() as stack:
            if rng.random() < 0.5:
                for module, name in MOST_OF_SMALL_CALLS:
                    stack.enter_context(mock.patch.object(module, name, 0))
            outcome = judged(
                batch, backend, torch.device("cpu"), kernels=launch_of(seed, backend), validate=None
            )
    finally:
        torch.set_default_dtype(torch.float32)
    counts = Counter(
        scenes=1, positives=outcome.positives, excused=outcome.excused, unexplained=len(outcome.unexplained)
    )
    return counts, [f"{case}: {line}" for line in outcome.unexplained]


def run(
    seeds: Iterable[int], backend: str, workers: int = 1, every: int = 0, rule: str = "simota"
) -> tuple[Counter[str], list[str]]:
    """Counts and complaints of many scenes; a progress line after ``every`` scenes."""
    total: Counter[str] = Counter(scenes=0, positives=0, excused=0, unexplained=0)
    complaints: list[str] = []
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers, _prepare) if workers > 1 else _Inline() as pool:
        for counts, lines in pool.imap_unordered(partial(check, backend=backend, rule=rule), seeds, 64):
            total.update(counts)
            complaints += lines
            if every and total["scenes"] % every == 0:
                print(
                    f"{total['scenes']:8d} scenes, {total['scenes'] / (time.perf_counter() - start):.0f} a "
                    f"second, {_found(total)}",
                    flush=True,
                )
    return total, complaints


def _prepare() -> None:
    """A worker: one thread, and Triton's interpreter, where it is asked for, as fast as it can be."""
    torch.set_num_threads(1)
    if os.environ.get("TRITON_INTERPRET"):
        interpreter.prepare()


class _Inline:
    """A pool of no processes but this one."""

    def __enter__(self):
        _prepare()
        return self

    def __exit__(self, *exception):
        return None

    def imap_unordered(self, function, values, chunk):
        return map(function, values)


def _found(total: Counter[str]) -> str:
    return f"{total['positives']} positives, {total['excused']} excused, {total['unexplained']} unexplained"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs.fuzz", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--scenes", type=int, default=20000, help="how many scenes")
    parser.add_argument("--backend", choices=tuple(BACKENDS), default="torch")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first scene")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--rule", choices=RULES, help="default: every rule that the backend computes")
    options = parser.parse_args()
    computed = [rule for rule in RULES if rule in BACKENDS[options.backend].load]
    if options.rule and options.rule not in computed:
        parser.error(f"--rule: backend {options.backend} computes {', '.join(computed)}")
    seeds, unexplained = range(options.seed, options.seed + options.scenes), 0
    for rule in [options.rule] if options.rule else computed:
        total, complaints = run(seeds, options.backend, options.workers, every=1000, rule=rule)
        print(*complaints[:20], sep="\n", end="\n" if complaints else "")
        print(
            f"{options.backend}, {rule}: {total['scenes']} scenes, {len(PRESETS[rule])} presets, "
            f"{_found(total)}"
        )
        unexplained += total["unexplained"]
    return 1 if unexplained else 0


if __name__ == "__main__":
    raise SystemExit(main())
