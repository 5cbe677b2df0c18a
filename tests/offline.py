"""Compiles the backend's kernels without a GPU and checks what comes out: no spills, no local memory, no shared memory in an
inner loop, and few binaries for an epoch of changing sizes.

    python -m tests.offline                             # with the installed Triton
    /path/to/other/venv/bin/python -m tests.offline     # with another one

Exits with 1 and says what is wrong. A process of its own, because Triton must not be in its interpreter.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
import triton

from bench.offline import census, compiled_for, problem
from bench.static_report import CAPABILITIES, FAMILIES
from simota_triton.config import SimOTAConfig
from simota_triton.inputs import Problem
from simota_triton.kernels import launch
from simota_triton.tuning.kernel_config import Shape, heuristic

MAX_BINARIES = 4
"""Of an epoch: each of the two kernels, with and without rows of priors that are a multiple of 4."""


def cases() -> Iterator[tuple[str, int, SimOTAConfig, Problem]]:
    """Name, compute capability, configuration, problem: every family everywhere, every preset and form of the inputs once."""
    for capability in CAPABILITIES:
        for preset in FAMILIES:
            config = SimOTAConfig.from_preset(preset)
            yield preset, capability, config, problem(config)
    for preset in sorted(set(SimOTAConfig.presets()) - set(FAMILIES)):
        config = SimOTAConfig.from_preset(preset)
        yield preset, 90, config, problem(config)
    config = SimOTAConfig.rtmdet()
    for layout in ("maps", "flat", "strided"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            yield f"{layout} {dtype}", 90, config, problem(config, layout, dtype)
    yield "odd sizes", 90, config, problem(config, cells=(13, 7), channels=17)
    plain = problem(SimOTAConfig.yolox(), "flat")
    mask = torch.ones(plain.pred_boxes.shape[:2], dtype=torch.bool)
    others = replace(plain, pred_boxes=plain.pred_boxes.half(), candidate_mask=mask, gts=replace(plain.gts, mask=None))
    yield "half boxes, a candidate mask, no gt mask", 90, SimOTAConfig.yolox(), others
    huge = torch.as_strided(torch.zeros(1), (1, plain.pred_boxes.shape[1], 80), (2**33, 0, 0))
    yield "strides beyond 32 bits", 90, config, replace(plain, cls_logits=replace(plain.cls_logits, levels=(huge,)), obj_logits=None)


def check_code() -> list[str]:
    """What is wrong with the machine code."""
    wrong = []
    for name, capability, config, case in cases():
        kernels = heuristic((capability // 10, capability % 10), Shape(32, 8400, 100))
        with compiled_for(capability) as binaries:
            launch.run(case, config, kernels, case.gts.slots()[0].shape[1])
        for binary in binaries:
            found, where = census(binary), f"sm_{capability}, {binary.metadata.name}, {name}"
            if found.local_bytes or found.instructions["local"]:
                wrong.append(f"{where}: {found.local_bytes} bytes of local memory, {found.instructions['local']} instructions on it")
            if any(loop.instructions["shared"] for loop in found.loops):
                wrong.append(f"{where}: shared memory, shuffles or barriers in an inner loop")
            if not any(loop.instructions["fp32"] for loop in found.loops):
                wrong.append(f"{where}: no loop found to look at")
    return wrong


def binaries_of_an_epoch() -> int:
    """Binaries compiled while image sizes and numbers of gts change from step to step, for one head and configuration."""
    config = SimOTAConfig.rtmdet()
    with compiled_for(90) as binaries:
        for step in range(60):
            side = 10 + step % 11  # images of 320 to 640 pixels
            case = problem(config, cells=(4 * side, 2 * side, side), channels=4, num_gts=1 + step * 7 % 48)
            width = case.gts.slots()[0].shape[1]
            launch.run(case, config, heuristic((9, 0), Shape(32, case.shape[1], width)), width)
    return len({id(binary) for binary in binaries})


def main() -> int:
    """Runs the checks; returns the exit code."""
    start = time.perf_counter()
    wrong = check_code()
    compiled = binaries_of_an_epoch()
    if compiled > MAX_BINARIES:
        wrong.append(f"{compiled} binaries in an epoch, expected at most {MAX_BINARIES}")
    print(f"Triton {triton.__version__}: {compiled} binaries in an epoch, {len(wrong)} complaints, {time.perf_counter() - start:.0f} s")
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
