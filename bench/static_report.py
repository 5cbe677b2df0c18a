"""What the compiled kernels need: registers, spills, shared memory, instructions. It takes no GPU.

    python -m bench.static_report                # write bench/results/static/sm_*.json and print a table
    python -m bench.static_report --check        # compare with those files, and write nothing
    python -m bench.static_report --capability 90

With ``--check`` it fails where the instructions of a part have grown by more than 5 %, or a kernel spills
registers.

The parts of kernels whose instructions are counted for one lane, on all paths through the loop:

- ``cost_pass``: ``per_pair``, a (gt, prior) pair; it contains about 10 instructions that store the row of a
  padded gt;
- ``prior_pass``: ``per_region_test``, whether a prior lies in the region of a gt, and ``per_logit``, a logit;
- ``sums_and_ious``: ``per_logit``, a logit.

The parts whose instructions are counted for one warp, which is one program:

- ``once``: everything outside of loops. ``sums_and_ious`` has programs of two kinds: ``once`` is what those
  that search for a gt's largest IoUs pass through, ``once_for_sums`` what those that sum logits pass through.
  Of ``select`` it is what a gt passes through whose lists are merged;
- ``sums_and_ious`` and ``select``: ``per_bounds``, the bounds of StreamConfig.bounds tiles; ``per_visit``, a
  visited tile without a pair that is worth a closer look; ``per_passed``, one with such a pair;
  ``per_insertion``, an insertion into the list;
- ``resolve``: ``per_conflict``, a prior with a conflict; ``per_block``, StreamConfig.gts gts of which none is
  worth a closer look; ``per_block_passed``, as many of which some are;
- ``prepare``: ``per_block``, StreamConfig.gts gts compared with a tile's box; ``per_near``, a gt compared
  with the priors of the tile, neither of which the task-aligned rule has; ``per_table_block``, rows of the
  table of gts.

The kernels of the task-aligned rule have the parts of ``select`` and ``resolve``. Those that go through the
priors have ``once`` alone, for a block of them.
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

from bench.empty_batch import problem
from simota_triton.backends import BACKENDS
from simota_triton.backends.known import config_of
from simota_triton.kernels.constants import COLUMNS, GTS
from simota_triton.kernels.fused import launch
from simota_triton.kernels.stream import launch as stream
from simota_triton.measure.compiling import compiled_for
from simota_triton.measure.machine_code import Census, Loop, census
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
"""Preset -> what it stands for. It is one of several presets whose kernels differ only in constants."""

ALIGNED = {
    "tal": "CIoU, the largest overlap of the gts that contain the prior",
    "tal_o2o": "the same, and one prior a gt",
    "yolov6": "IoU, the largest overlap of all gts",
    "tood": "IoU, the topk of all priors, the largest overlap of the claimants",
    "yolo9_mit": "CIoU, a reach, at least one prior a gt",
}
"""The same of the task-aligned rule."""

CASES = [(preset, "maps", torch.float32) for preset in FAMILIES] + [
    (preset, "flat", dtype)
    for preset, dtype in (("rtmdet", torch.float32), ("rtmdet", torch.float16), ("yolox", torch.float32))
]

ALIGNED_CASES = [(preset, "maps", torch.float32) for preset in ALIGNED] + [
    ("tal", "flat", torch.float32), ("tal", "flat", torch.float16),
]  # fmt: skip

STREAM = {
    capability: stream_heuristic((capability // 10, capability % 10), Shape(32, 8400, 480))
    for capability in CAPABILITIES
}
"""Compute capability -> launch parameters of the streaming kernels. ``splits`` is an argument at run time, so
every number of them is the same code.
"""


OVER_PRIORS = ("rank_owned", "largest_owned", "write_targets")
"""Kernels of the task-aligned rule that have no loop."""


def measure(
    capability: int, case: tuple[str, str, torch.dtype], streaming: StreamConfig | None = None
) -> dict[str, Any]:
    """Compile the kernels for one case: "kernel, case" -> its numbers."""
    preset, layout, dtype = case
    config = config_of(preset)
    kernels = heuristic((capability // 10, capability % 10), Shape(32, 8400, 100))
    streaming = streaming or STREAM[capability]
    streaming = replace(streaming, rows=streaming.sum_rows("priors" if layout == "maps" else "classes"))
    with compiled_for(capability) as binaries:
        if config.variety in BACKENDS["triton"].load:
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
    """Part of a kernel -> class -> instructions."""
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
    """Part of a streaming kernel -> class -> instructions. Loops are told apart by the order in which they
    begin, where an outer loop comes before those inside.
    """
    loops, once = list(found.every_loop()), {"once": _per_item(found.once)}
    if kernel == "prepare":
        *regions, table = loops
        names = ("per_block", "per_near")[: len(regions)]
        parts = {name: _per_item(loop) for name, loop in zip(names, regions, strict=True)}
        return once | parts | {"per_table_block": _per_item(table)}
    if kernel in OVER_PRIORS:
        return once
    if kernel in ("resolve", "resolve_aligned"):
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
    if kernel in ("sums_and_ious", "select", "select_aligned"):
        once["once"] = _per_item(loops[0].around)
    if kernel == "select_aligned":  # what comes behind searches outside of the region
        loops = loops[:3]
    # the last three; ``select`` has others before them, which merge lists or search for them again
    bounds, visits, insertions = loops[-3:]
    return once | {
        "per_bounds": _per_item(bounds),
        "per_visit": {"all": visits.shortest},
        "per_passed": _per_item(visits),
        "per_insertion": _per_item(insertions),
    }


def _per_item(counts: Loop | Counter[str], items: float = 1) -> dict[str, float]:
    if isinstance(counts, Loop):
        counts = counts.instructions
    return {"all": counts.total() / items, **{name: count / items for name, count in counts.most_common()}}


def parts(numbers: dict[str, Any]) -> list[str]:
    """The names of the parts in a kernel's numbers."""
    return [part for part, value in numbers.items() if isinstance(value, dict)]


def compare(baseline: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What got worse: 5 % more instructions in a part, shared memory in a loop, or spilled registers."""
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
    """Compile all cases, print them, and compare or write them; returns the exit code."""
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
    jobs = [(capability, case) for capability in options.capability for case in CASES + ALIGNED_CASES]
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
                f"sm_{capability}: the baseline is of Triton {stored['triton']}, this is "
                f"{triton.__version__}: nothing to compare"
            )
        else:
            wrong += [f"sm_{capability}: {line}" for line in compare(stored["kernels"], now)]
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


def _print(capability: int, report: dict[str, Any]) -> None:
    print(
        f"sm_{capability}, Triton {triton.__version__}: registers, local bytes, shared bytes; "
        "instructions an item"
    )
    for case, numbers in report.items():
        counts = ", ".join(f"{part.replace('_', ' ')} {numbers[part]['all']:.1f}" for part in parts(numbers))
        memory = f"{numbers['local_bytes']:3} {numbers['shared_bytes']:5}"
        print(f"  {case:55} {numbers['registers']:4} {memory}  {counts}")


if __name__ == "__main__":
    sys.exit(main())
