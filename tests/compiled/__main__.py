"""Executes both Triton backends as they are compiled for GPUs, without one, and holds every answer and every
access of memory to what it must be; see README.md.

    python -m tests.compiled                                      # about an hour on two processors
    python -m tests.compiled --short                              # a minute or two, what the tests run
    python -m tests.compiled --capability 80 90 --minutes 20 --workers 4
    python -m tests.compiled --parts fuzz --scenes 500 --presets rtmdet yolox

Prints a table, and exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

import triton

from simota_triton.cli.tune.families import TUNABLE
from simota_triton.config import SimOTAConfig, TaskAlignedConfig
from simota_triton.kernels.races import RACES
from simota_triton.tuning.kernel_config import Shape
from simota_triton.verification.scenes import FAMILIES, FORMS, LAYOUTS
from simota_triton.verification.variants import config_of

from .check import Case, Outcome, check

PRESETS = sorted(SimOTAConfig.presets())
ALIGNED = [name for name in TaskAlignedConfig.presets() if "obb" not in name]

Cases = Iterator[Case]


def _of_presets(
    seeds: range, presets: list[str], capability: int, min_positives: int = 0, **fields: Any
) -> Cases:
    """Every preset on every scene; over fifteen scenes each meets every form in every layout."""
    for seed in seeds:
        for n, preset in enumerate(presets):
            turn = seed + n
            named = {"form": FORMS[turn % len(FORMS)], "layout": LAYOUTS[turn % len(LAYOUTS)], **fields}
            yield Case(
                seed,
                SimOTAConfig.from_preset(preset, min_positives=min_positives),
                capability=capability,
                **named,
            )


def _fuzz(seeds: range, presets: list[str], capability: int) -> Cases:
    """Variants of presets with launch parameters of their own, unusable gts or very negative logits."""
    for seed in seeds:
        form, layout = FORMS[seed // 3 % len(FORMS)], LAYOUTS[seed // 5 % len(LAYOUTS)]
        extra = {"junk": seed % 3 == 0, "negative": seed % 4 == 0, "vary": seed % 2 == 0}
        yield Case(seed, config_of(seed), form, layout, capability, **extra)


def _aligned(seeds: range, presets: list[str], capability: int) -> Cases:
    """The task-aligned rule: its presets in turn, and gts that keep some of their priors, with launch
    parameters of their own or unusable gts.
    """
    for seed in seeds:
        config = TaskAlignedConfig.from_preset(ALIGNED[seed % len(ALIGNED)])
        if seed % 5 == 4:
            config = config.replace(topk2=min(3, config.topk))
        form, layout = FORMS[seed // 3 % len(FORMS)], LAYOUTS[seed // 5 % len(LAYOUTS)]
        yield Case(seed, config, form, layout, capability, junk=seed % 3 == 0, vary=seed % 2 == 0)


def _not_finite(seeds: range, presets: list[str], capability: int) -> Cases:
    """Scenes with NaN and Inf in every input, under all interleavings."""
    family = FAMILIES.index("nonfinite")
    yield from _of_presets(
        range(family, family + len(seeds) * len(FAMILIES), len(FAMILIES)), presets, capability, turns=5
    )


def _far(seeds: range, presets: list[str], capability: int) -> Cases:
    """Logits whose strides take more than 32 bits."""
    yield from _of_presets(seeds, presets, capability, layout="far", turns=1)


def _negative(seeds: range, presets: list[str], capability: int) -> Cases:
    """Very negative logits, and unusable gts."""
    yield from _of_presets(seeds, presets, capability, negative=True, junk=True)


def _short_of_positives(seeds: range, presets: list[str], capability: int) -> Cases:
    """Gts that are to keep more positives than they are left with."""
    yield from _of_presets(seeds, presets, capability, min_positives=3)


def _space(seeds: range, presets: list[str], capability: int) -> Cases:
    """All launch parameters that are tried when tuning, on one scene."""
    where = capability // 10, capability % 10
    spaces = [family.space(family.heuristic(where, Shape(2, 336, 40))) for family in TUNABLE.values()]
    config = SimOTAConfig.from_preset("rtmdet" if "rtmdet" in presets else presets[0])
    for choices in itertools.zip_longest(*spaces):
        yield Case(
            seeds.start + 1,
            config,
            capability=capability,
            turns=1,
            kernels=tuple(zip(TUNABLE, choices, strict=True)),
        )


PARTS: dict[str, Callable[[range, list[str], int], Cases]] = {
    "presets": _of_presets,
    "fuzz": _fuzz,
    "aligned": _aligned,
    "not finite": _not_finite,
    "far": _far,
    "negative": _negative,
    "short": _short_of_positives,
    "space": _space,
}
"""Part of the long form -> its cases, from seeds, presets and a compute capability."""


def short() -> Cases:
    """Each preset once; all forms and layouts, all architectures, unusable gts, very negative logits and
    gts that are short of positives occur.
    """
    for n, preset in enumerate(PRESETS):
        yield Case(
            seed=SHORT[n],
            config=SimOTAConfig.from_preset(preset, min_positives=3 if n % 6 == 1 else 0),
            form=FORMS[n % len(FORMS)],
            layout=LAYOUTS[n % len(LAYOUTS)],
            capability={3: 100, 8: 120}.get(n, (90, 80)[n % 2]),
            junk=n % 4 == 1,
            negative=n % 6 == 0,
        )

    for n, preset in enumerate(ALIGNED):
        yield Case(
            seed=SHORT[n],
            config=TaskAlignedConfig.from_preset(preset),
            form=FORMS[n % len(FORMS)],
            layout=LAYOUTS[n % len(LAYOUTS)],
            capability={3: 100, 8: 120}.get(n, (90, 80)[n % 2]),
            junk=n % 4 == 1,
        )


SHORT = (1, 4, 16, 14, 25, 28, 40, 19, 3, 20, 49, 52, 64, 43)
"""Scenes of the short form: many gts that claim the same priors, values that are not finite, and three
others.
"""


def run(cases: Iterable[tuple[str, Case]], workers: int, until: float) -> tuple[dict[str, Outcome], bool]:
    """Outcomes by part, and whether time was up before all cases were begun."""
    outcomes: dict[str, Outcome] = {}
    waiting: dict[Future[Outcome], str] = {}
    cases, late = iter(cases), False
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(waiting) < 2 * workers and not late:
                part, case = next(cases, (None, None))
                late = case is not None and time.monotonic() > until
                if part is None or case is None or late:
                    break
                waiting[pool.submit(check, case)] = part
            if not waiting:
                return outcomes, late
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                for complaint in outcome.complaints:
                    print(complaint, flush=True)
                outcomes.setdefault(waiting.pop(future), Outcome()).add(outcome)


def report(outcomes: dict[str, Outcome], whole: bool) -> int:
    """Prints the tables; returns how many complaints there are.

    Args:
        outcomes: By part.
        whole: Whether every race of the table has to have occurred.
    """
    total = Outcome()
    print(
        f"{'part':12}{'cases':>8}{'assignments':>13}{'equal to torch':>16}{'near-ties':>11}"
        f"{'10^6 instructions':>19}{'complaints':>12}"
    )
    rows = [*outcomes.items(), ("all", total)]
    for part, outcome in rows:
        counts = outcome.counts
        if outcome is not total:
            total.add(outcome)
        numbers = (
            counts["cases"],
            counts["runs"],
            counts["equal"],
            counts["excused"],
            round(counts["instructions"] / 1e6),
        )
        print("{:12}{:8}{:13}{:16}{:11}{:19}{:12}".format(part, *numbers, len(outcome.complaints)))
    never = sorted({f"{kernel} at {line}" for (kernel, line), times in total.lines.items() if not times})
    print(f"lines whose instructions never ran: {', '.join(never) or 'none'}")
    complaints = len(total.complaints)
    for race in RACES:
        other = "writes" if race.other_writes else "reads"
        print(
            f"race: {race.writer} writes {race.tensor} of {race.kernel}, {race.other} {other}: "
            f"{total.races[race]} times"
        )
        if whole and not total.races[race]:
            complaints += 1
            print("  it never occurred: take it out of the table, or add a scene where it does")
    return complaints


def main() -> int:
    """Runs what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.compiled", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="each preset once, as the tests do; of the other options only --workers counts",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="of the long form, in turn"
    )
    parser.add_argument(
        "--capability", type=int, nargs="+", default=(90,), help="compute capabilities, as 90"
    )
    parser.add_argument("--scenes", type=int, default=len(FAMILIES), help="scenes of each part")
    parser.add_argument("--seed", type=int, default=0, help="the first scene")
    parser.add_argument(
        "--presets", nargs="+", choices=PRESETS, default=PRESETS, metavar="PRESET", help=", ".join(PRESETS)
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no case after these")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    start = time.monotonic()
    if options.short:
        cases: Iterable[tuple[str, Case]] = (("all presets", case) for case in short())
    else:
        seeds = range(options.seed, options.seed + options.scenes)
        parts = [
            zip(itertools.repeat(f"{part} {capability}"), PARTS[part](seeds, options.presets, capability))
            for part in options.parts
            for capability in options.capability
        ]
        cases = (case for turn in itertools.zip_longest(*parts) for case in turn if case is not None)
    outcomes, late = run(cases, options.workers, start + 60 * options.minutes)
    whole = not late and (
        options.short or (len(options.parts) == len(PARTS) and len(options.presets) == len(PRESETS))
    )
    complaints = report(outcomes, whole)
    said = "out of time, " if late else ""
    print(f"Triton {triton.__version__}: {said}{complaints} complaints, {time.monotonic() - start:.0f} s")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
