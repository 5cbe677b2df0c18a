"""What the compiled kernels need, without a GPU: registers, spills, shared memory, instructions per pair of the inner loops.

    python -m bench.static_report                # write bench/results/static/sm_*.json and print a table
    python -m bench.static_report --check        # compare with those files: fails where instructions per pair grew by more than 5 %
    python -m bench.static_report --capability 90

Instructions are those of one lane for one (gt, prior) pair, or for one (class, prior) logit, and count every path through the
loop: the 10 or so that store a padded gt's row are part of the pair loop.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import triton

from bench.offline import Census, Loop, census, compiled_for, problem
from simota_triton.config import SimOTAConfig
from simota_triton.kernels import launch
from simota_triton.kernels.prior_pass import COLUMNS, GTS
from simota_triton.tuning.kernel_config import KernelConfig, Shape, heuristic

RESULTS = Path(__file__).parent / "results" / "static"
CAPABILITIES = (80, 86, 90, 100, 120)
GROWTH = 1.05

FAMILIES = {
    "rtmdet": "soft label from logits, all classes",
    "rtmdet_mmyolo": "soft label from logits, the gt's class, dynamic k from all priors",
    "damo": "soft label from sigmoids, penalty",
    "yolox": "BCE of class and objectness, penalty",
    "super_gradients_fast": "the same, a gt sees its own pairs",
    "picodet_lightly": "varifocal and GIoU",
}
"""Preset -> what it stands for: one of each set of presets whose kernels differ in numbers alone."""

CASES = [(preset, layout, torch.float32) for preset in FAMILIES for layout in ("maps", "flat")] + [("rtmdet", "flat", torch.float16)]


def measure(capability: int) -> dict[str, Any]:
    """Kernel and case -> its numbers."""
    report = {}
    for preset, layout, dtype in CASES:
        config = SimOTAConfig.from_preset(preset)
        kernels = heuristic((capability // 10, capability % 10), Shape(32, 8400, 100))
        with compiled_for(capability) as binaries:
            launch.run(problem(config, layout, dtype), config, kernels, 4)
        for binary in binaries:
            kernel = binary.metadata.name
            report[f"{kernel}, {preset}, {layout}, {str(dtype).removeprefix('torch.')}"] = _numbers(kernel, census(binary), kernels)
    return report


def _numbers(kernel: str, found: Census, kernels: KernelConfig) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "registers": found.registers,
        "local_bytes": found.local_bytes,
        "local_instructions": found.instructions["local"],
        "shared_bytes": found.shared_bytes,
        "instructions": sum(found.instructions.values()),
    }
    if kernel == "cost_pass":
        (pairs,) = (loop for loop in found.loops if loop.instructions["mufu"])
        numbers["per_pair"] = _per_item(pairs, kernels.tile / (32 * kernels.cost_warps))
    else:
        rows = kernels.rows / (32 * kernels.prior_warps)
        regions, *classes = found.loops
        numbers["per_region_test"] = _per_item(regions, rows * GTS.value)
        if classes:
            numbers["per_logit"] = _per_item(*classes, rows * COLUMNS.value)
    return numbers


def _per_item(loop: Loop, items: float) -> dict[str, float]:
    counts = {name: count / items for name, count in sorted(loop.instructions.items(), key=lambda item: -item[1])}
    return {"all": loop.total / items, **counts}


def compare(baseline: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Where instructions grew by more than 5 %, or memory that must not be used is."""
    wrong = []
    for case in baseline.keys() - now.keys():
        wrong.append(f"{case}: in the baseline, not compiled")
    for case, numbers in now.items():
        if case not in baseline:
            wrong.append(f"{case}: not in the baseline; write it again")
            continue
        for part in ("per_pair", "per_region_test", "per_logit"):
            if part not in numbers and part not in baseline[case]:
                continue
            before, after = baseline[case][part]["all"], numbers[part]["all"]
            if after > before * GROWTH:
                wrong.append(f"{case}: {after:.1f} instructions {part.replace('_', ' ')}, {before:.1f} in the baseline")
            if numbers[part].get("shared", 0) > baseline[case][part].get("shared", 0):
                wrong.append(f"{case}: shared memory or shuffles in the loop {part.replace('_', ' ')}")
        if numbers["local_bytes"] or numbers["local_instructions"]:
            wrong.append(f"{case}: spills to local memory")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.static_report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the committed baseline and write nothing")
    parser.add_argument("--capability", type=int, nargs="*", default=CAPABILITIES, help="compute capabilities, all by default")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the baseline")
    options = parser.parse_args(arguments)
    wrong: list[str] = []
    for capability in options.capability:
        path = options.results / f"sm_{capability}.json"
        now = measure(capability)
        _print(capability, now)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"triton": triton.__version__, "kernels": now}, indent=1) + "\n")
            continue
        stored = json.loads(path.read_text())
        if stored["triton"] != triton.__version__:
            wrong.append(f"sm_{capability}: the baseline is of Triton {stored['triton']}, this is {triton.__version__}: nothing to compare")
        else:
            wrong += [f"sm_{capability}: {line}" for line in compare(stored["kernels"], now)]
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


def _print(capability: int, report: dict[str, Any]) -> None:
    print(f"sm_{capability}, Triton {triton.__version__}: registers, local bytes, shared bytes; instructions an item")
    for case, numbers in report.items():
        parts = [
            f"{part.replace('_', ' ')} {numbers[part]['all']:.1f}"
            for part in ("per_pair", "per_region_test", "per_logit")
            if part in numbers
        ]
        print(f"  {case:55} {numbers['registers']:4} {numbers['local_bytes']:3} {numbers['shared_bytes']:5}  {', '.join(parts)}")


if __name__ == "__main__":
    sys.exit(main())
