"""What the compiled kernels need, without a GPU: registers, spills, shared memory, instructions of the loops.

    python -m bench.static_report                # write bench/results/static/sm_*.json and print a table
    python -m bench.static_report --check        # compare with those files: fails where instructions of a part grew by more than 5 %
    python -m bench.static_report --capability 90

Of ``prior_pass``, ``cost_pass`` and a logit in ``sums_and_ious`` instructions are those of one lane for one (gt,
prior) pair, or for one (class, prior) logit, and count every path through the loop: the 10 or so that store a
padded gt's row are part of the pair loop. The other parts of the streaming kernels are instructions of a
warp, which is a program:

* ``once``: outside every loop; of ``sums_and_ious``, whose programs are of two kinds, what the way of a kind leads
  through: ``once`` for those of gts, ``once_for_sums`` for those that sum logits; of ``select``, the way of a
  gt whose lists are merged.
* ``sums_and_ious`` and ``select``: ``per_bounds``, the bounds of StreamConfig.bounds tiles; ``per_visit``, a tile no
  pair of which is worth a closer look, and ``per_passed``, one that has such a pair, with insertions
  (``per_insertion``) apart.
* ``resolve``: ``per_conflict``, a prior; ``per_block`` and ``per_block_passed``, StreamConfig.gts gts, none
  and some of which are worth a closer look.
* ``prepare``: ``per_block``, gts held against a tile's box; ``per_near``, a gt held against its priors;
  ``per_table_block``, rows of the table of gts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton

from bench.offline import Census, Loop, census, compiled_for, problem
from simota_triton.config import SimOTAConfig
from simota_triton.kernels.constants import COLUMNS, GTS
from simota_triton.kernels.fused import launch
from simota_triton.kernels.stream import launch as stream
from simota_triton.tuning.kernel_config import KernelConfig, Shape, heuristic
from simota_triton.tuning.stream_config import StreamConfig, stream_heuristic

RESULTS = Path(__file__).parent / "results" / "static"
CAPABILITIES = (80, 86, 90, 100, 120)
GROWTH = 1.05

FAMILIES = {
    "rtmdet": "soft label from logits, all classes",
    "rtmdet_mmyolo": "soft label from logits, the gt's class, dynamic k from all priors",
    "nanodet": "soft label from logits, all classes, no centre term",
    "damo": "soft label from sigmoids, penalty",
    "yolox": "BCE of class and objectness, penalty",
    "super_gradients_fast": "the same, a gt sees its own pairs",
    "picodet_lightly": "varifocal and GIoU",
    "seed": "soft label of the gt's class, no candidate region, the largest IoU wins",
}
"""Preset -> what it stands for: one of each set of presets whose kernels differ in numbers alone."""

CASES = [(preset, "maps", torch.float32) for preset in FAMILIES] + [
    (preset, "flat", dtype)
    for preset, dtype in (("rtmdet", torch.float32), ("rtmdet", torch.float16), ("yolox", torch.float32))
]

STREAM = {
    capability: stream_heuristic((capability // 10, capability % 10), Shape(32, 8400, 480))
    for capability in CAPABILITIES
}
"""Splits are an argument at run time: any number of them is the same code."""


def measure(
    capability: int, case: tuple[str, str, torch.dtype], streaming: StreamConfig | None = None
) -> dict[str, Any]:
    """Kernel and case -> its numbers."""
    preset, layout, dtype = case
    config = SimOTAConfig.from_preset(preset)
    kernels, streaming = (
        heuristic((capability // 10, capability % 10), Shape(32, 8400, 100)),
        streaming or STREAM[capability],
    )
    streaming = replace(streaming, rows=streaming.sum_rows("priors" if layout == "maps" else "classes"))
    with compiled_for(capability) as binaries:
        launch.run(problem(config, layout, dtype), config, kernels, 4)
        stream.run(problem(config, layout, dtype), config, streaming)
    report = {}
    for binary in binaries:
        kernel, found = binary.metadata.name, census(binary)
        report[f"{kernel}, {preset}, {layout}, {str(dtype).removeprefix('torch.')}"] = {
            "registers": found.registers,
            "local_bytes": found.local_bytes,
            "local_instructions": found.instructions["local"],
            "shared_bytes": found.shared_bytes,
            "instructions": sum(found.instructions.values()),
        } | _parts(kernel, found, kernels, streaming)
    return report


def _parts(
    kernel: str, found: Census, kernels: KernelConfig, streaming: StreamConfig
) -> dict[str, dict[str, float]]:
    """Instructions of the parts of a kernel, by class."""
    if kernel == "cost_pass":
        (pairs,) = (loop for loop in found.innermost() if loop.instructions["mufu"])
        return {"per_pair": _per_item(pairs, kernels.tile / (32 * kernels.cost_warps))}
    if kernel == "prior_pass":
        rows = kernels.rows / (32 * kernels.prior_warps)
        regions, *classes = found.innermost()
        parts = {"per_region_test": _per_item(regions, rows * GTS.value)}
        if classes:
            parts["per_logit"] = _per_item(*classes, rows * COLUMNS.value)
        return parts
    return _stream_parts(kernel, found, streaming)


def _stream_parts(kernel: str, found: Census, streaming: StreamConfig) -> dict[str, dict[str, float]]:
    """Which loop is which: by the order in which they begin, an outer one before those inside."""
    loops, once = list(found.every_loop()), {"once": _per_item(found.once)}
    if kernel == "prepare":
        blocks, near, table = loops
        return once | {
            "per_block": _per_item(blocks),
            "per_near": _per_item(near),
            "per_table_block": _per_item(table),
        }
    if kernel == "resolve":
        priors, *blocks = loops
        parts = once | {"per_conflict": _per_item(priors)}
        for block in blocks:
            parts |= {"per_block": {"all": block.shortest}, "per_block_passed": _per_item(block)}
        return parts
    if kernel == "sums_and_ious":
        for classes in (loop for loop in found.loops if not loop.inner):
            once |= {
                "once_for_sums": _per_item(classes.around),
                "per_logit": _per_item(classes, streaming.rows * COLUMNS.value / 32),
            }
        loops = [loop for loop in found.every_loop() if loop.inner or loop not in found.loops]
    if kernel in ("sums_and_ious", "select"):
        once["once"] = _per_item(loops[0].around)
    # before them, ``select`` may merge lists, or search for them again
    bounds, visits, insertions = loops[-3:]
    return once | {
        "per_bounds": _per_item(bounds), "per_visit": {"all": visits.shortest}, "per_passed": _per_item(visits),
        "per_insertion": _per_item(insertions),
    }  # fmt: skip


def _per_item(counts: Loop | Counter[str], items: float = 1) -> dict[str, float]:
    if isinstance(counts, Loop):
        counts = counts.instructions
    return {"all": counts.total() / items, **{name: count / items for name, count in counts.most_common()}}


def parts(numbers: dict[str, Any]) -> list[str]:
    """Parts of a kernel whose instructions are counted."""
    return [part for part, value in numbers.items() if isinstance(value, dict)]


def compare(baseline: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Where instructions grew by more than 5 %, or memory that must not be used is."""
    wrong = []
    for case in baseline.keys() - now.keys():
        wrong.append(f"{case}: in the baseline, not compiled")
    for case, numbers in now.items():
        if case not in baseline:
            wrong.append(f"{case}: not in the baseline; write it again")
            continue
        for part in parts(numbers):
            before, after = baseline[case][part]["all"], numbers[part]["all"]
            if after > before * GROWTH:
                wrong.append(
                    f"{case}: {after:.1f} instructions {part.replace('_', ' ')}, {before:.1f} in the baseline"
                )
            if numbers[part].get("shared", 0) > baseline[case][part].get("shared", 0):
                wrong.append(f"{case}: shared memory or shuffles in the loop {part.replace('_', ' ')}")
        if numbers["local_bytes"] or numbers["local_instructions"]:
            wrong.append(f"{case}: spills to local memory")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.static_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed baseline and write nothing"
    )
    parser.add_argument(
        "--capability", type=int, nargs="*", default=CAPABILITIES, help="compute capabilities, all by default"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the baseline")
    options = parser.parse_args(arguments)
    wrong: list[str] = []
    jobs = [(capability, case) for capability in options.capability for case in CASES]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        measured = list(pool.map(measure, *zip(*jobs, strict=True)))
    for capability in options.capability:
        path = options.results / f"sm_{capability}.json"
        now = {
            name: numbers
            for job, report in zip(jobs, measured, strict=True)
            if job[0] == capability
            for name, numbers in report.items()
        }
        _print(capability, now)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"triton": triton.__version__, "kernels": now}, indent=1) + "\n")
            continue
        stored = json.loads(path.read_text())
        if stored["triton"] != triton.__version__:
            wrong.append(
                f"sm_{capability}: the baseline is of Triton {stored['triton']}, this is {triton.__version__}: nothing to compare"
            )
        else:
            wrong += [f"sm_{capability}: {line}" for line in compare(stored["kernels"], now)]
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


def _print(capability: int, report: dict[str, Any]) -> None:
    print(
        f"sm_{capability}, Triton {triton.__version__}: registers, local bytes, shared bytes; instructions an item"
    )
    for case, numbers in report.items():
        counts = ", ".join(f"{part.replace('_', ' ')} {numbers[part]['all']:.1f}" for part in parts(numbers))
        print(
            f"  {case:55} {numbers['registers']:4} {numbers['local_bytes']:3} {numbers['shared_bytes']:5}  {counts}"
        )


if __name__ == "__main__":
    sys.exit(main())
