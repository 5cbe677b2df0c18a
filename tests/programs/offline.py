"""Compiles the kernels of both Triton backends without a GPU and checks what comes out: no spills, no local
memory, no shared memory (in an inner loop of the fused kernels, at all in the streaming ones), few registers,
and few binaries for an epoch of changing sizes.

What is compiled is what the backends launch: problems packed as each of them packs, and the launch parameters
of its heuristic for the named workloads, which come in turn. Beside presets and forms of input there are
random configurations, which may spill as much as launch parameters that are tuned.

    python -m tests.programs.offline                             # with the installed Triton
    python -m tests.programs.offline --capability 90 --random 4  # for one GPU; the tests add --every 3
    /path/to/other/venv/bin/python -m tests.programs.offline     # with another Triton

Exits with 1 and says what is wrong. A process of its own, because Triton must not be in its interpreter.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import torch
import triton

from bench.empty_batch import problem
from bench.static_report import ALIGNED, CAPABILITIES, OVER_PRIORS
from bench.static_report import FAMILIES as PRESETS
from simota_triton import config as configs
from simota_triton import grid_priors
from simota_triton.backends import BACKENDS
from simota_triton.backends.known import config_of
from simota_triton.cli.tune.families import TUNABLE
from simota_triton.cli.tune.model import MAX_SPILLS
from simota_triton.config import Config, SimOTAConfig, TaskAlignedConfig
from simota_triton.kernels.host import Logits
from simota_triton.kernels.stream.common import OLD_COMPILER
from simota_triton.measure.compiling import compiled_for
from simota_triton.measure.machine_code import Census, census
from simota_triton.measure.workloads import WORKLOADS
from simota_triton.problem import Problem
from simota_triton.tuning.kernel_config import Shape

MAX_BINARIES = {("triton", "rtmdet"): 4, ("triton-stream", "rtmdet"): 7, ("triton-stream", "tal"): 7}
"""Binaries of an epoch of a backend and a preset: each of the two fused kernels with and without rows of
priors that are a multiple of 4; each streaming kernel once, but ``sums_and_ious`` for logits with and without
strides that are, and for up to 32 and 64 bounds; of the task-aligned rule those that look at gts side by side
for 64 and 128 of them.
"""

MAX_REGISTERS = 104 if OLD_COMPILER else 80
"""Of the streaming kernels: 19 or 24 warps fit a processor."""

FUSED = ("prior_pass", "cost_pass")

GAPS = 64
"""Bytes of shared memory that ``sums_and_ious`` may use behind its loop over classes, for logits with gaps
between priors and classes, and for flat ones with an older compiler.
"""


def _masked() -> tuple[SimOTAConfig, Problem]:
    config = SimOTAConfig.yolox()
    plain = problem(config, "flat")
    mask = torch.ones(plain.pred_boxes.shape[:2], dtype=torch.bool)
    return config, replace(
        plain, pred_boxes=plain.pred_boxes.half(), candidate_mask=mask, gts=replace(plain.gts, mask=None)
    )


def _huge() -> tuple[SimOTAConfig, Problem]:
    config = SimOTAConfig.rtmdet()
    plain = problem(config, "flat")
    huge = torch.as_strided(torch.zeros(1), (1, plain.pred_boxes.shape[1], 80), (2**33, 0, 0))
    return config, replace(plain, cls_logits=replace(plain.cls_logits, levels=(huge,)), obj_logits=None)


def _form(**form: object) -> tuple[SimOTAConfig, Problem]:
    config = SimOTAConfig.rtmdet()
    return config, problem(config, **form)  # type: ignore[arg-type]


def _aligned(name: str, **form: object) -> tuple[TaskAlignedConfig, Problem]:
    config = TaskAlignedConfig.from_preset(name)
    return config, problem(config, **form)  # type: ignore[arg-type]


def _preset(name: str) -> tuple[SimOTAConfig, Problem]:
    config = SimOTAConfig.from_preset(name, min_positives=1)  # which adds a kernel and changes no other
    return config, problem(config)


def random_config(seed: int) -> Config:
    """A configuration with every field drawn at random, one in four of the task-aligned rule."""
    rng = random.Random(seed)
    kind, choices = (TaskAlignedConfig, ALIGNED_CHOICES) if seed % 4 == 3 else (SimOTAConfig, CHOICES)
    while True:
        fields = {name: rng.choice(values) for name, values in choices.items()}
        try:
            return kind(**fields)
        except ValueError:  # fields that contradict each other
            continue


def _random(seed: int) -> tuple[Config, Problem]:
    config = random_config(seed)
    return config, problem(
        config, ("maps", "flat", "strided")[seed % 3], (torch.float32, torch.float16)[seed % 2]
    )


CHOICES = {
    "candidate": configs.REGIONS,
    "eligible": configs.REGIONS,
    "center_radius": (0.5, 2.5),
    "penalty": (0.0, 1e5, 1e8),
    "own_pairs_only": (False, True),
    "score": configs.SCORES,
    "cls_cost": configs.CLS_COSTS,
    "cls_classes": configs.CLS_CLASSES,
    "cls_weight": (0.0, 1.0, 2.0),
    "prob_clamp": (0.0, 1e-7),
    "iou_cost": configs.IOU_COSTS,
    "iou_weight": (0.0, 3.0),
    "log_eps": (1e-7, 1e-3),
    "union_rule": configs.UNION_RULES,
    "union_eps": (1e-6, 1e-3),
    "center_weight": (0.0, 1.0),
    "center_base": (1.0, 2.0, 10.0),
    "center_offset": (-1.0, 0.0, 3.0),
    "candidate_topk": (1, 13, 32),
    "k_pool": configs.K_POOLS,
    "k_scale": (1.0, 1.1),
    "conflict": configs.CONFLICTS,
}
"""Field -> values that a random configuration takes."""

ALIGNED_CHOICES = {
    "alpha": (0.0, 0.5, 1.0, 1.7),
    "beta": (0.5, 1.0, 6.0, 4.3),
    "topk": (1, 10, 32),
    "topk2": (None, 1, 3),
    "overlap": ("iou", "ciou"),
    "union_rule": configs.UNION_RULES,
    "union_eps": (1e-9, 1e-6),
    "margin": (0.0, 0.01),
    "inclusive": (False, True),
    "min_side_below": (0.0, 16.0),
    "max_reach": (None, 14.99),
    "pool": configs.POOLS,
    "at_least_one": (False, True),
    "conflict": configs.TAL_CONFLICTS,
    "norm_eps": (0.0, 1e-9),
    "score": ("sigmoid", "prob"),
}
"""The same of the task-aligned rule."""

RANDOM = 60
"""Random configurations, all for one GPU."""

INPUTS = {name: partial(_preset, name) for name in SimOTAConfig.presets()} | {
    f"{layout} {dtype}": partial(_form, layout=layout, dtype=dtype)
    for layout in ("maps", "flat", "strided")
    for dtype in (torch.float32, torch.float16, torch.bfloat16)
    if (layout, dtype) != ("maps", torch.float32)  # every preset is that
} | {
    "odd sizes": partial(_form, cells=(13, 7), channels=17),
    "a single level": partial(_form, cells=(40,)),
    "five levels": partial(_form, cells=(52, 26, 13, 7, 4)),
    "half boxes, a candidate mask, no gt mask": _masked,
    "strides beyond 32 bits": _huge,
} | {name: partial(_aligned, name) for name in TaskAlignedConfig.presets() if "obb" not in name} | {
    "tal, flat float16": partial(_aligned, "tal", layout="flat", dtype=torch.float16),
    "tal, strided": partial(_aligned, "tal", layout="strided"),
    "tal, a single level": partial(_aligned, "tal", cells=(40,)),
    "tal_o2o, five levels": partial(_aligned, "tal_o2o", cells=(52, 26, 13, 7, 4)),
}  # fmt: skip
"""What is compiled -> configuration and problem, packed tidily or not."""

NAMED = tuple(INPUTS)
INPUTS |= {f"random configuration {seed}": partial(_random, seed) for seed in range(RANDOM)}

NAMES = tuple(INPUTS)

CASES = [(90, name) for name in INPUTS] + [
    (capability, name) for capability in CAPABILITIES if capability != 90 for name in (*PRESETS, *ALIGNED)
]
"""Everything for one GPU, a preset of each kind for all."""


def shapes() -> list[Shape]:
    """Those of the named workloads as the streaming family sees them."""
    return [Shape(w.batch, len(grid_priors(w.image_size)), w.num_gts) for w in WORKLOADS.values()]


def check(capability: int, name: str) -> list[str]:
    """What is wrong with the machine code of one case."""
    target, shape = (
        (capability // 10, capability % 10),
        shapes()[CASES.index((capability, name)) % len(WORKLOADS)],
    )
    config, case = INPUTS[name]()
    with compiled_for(capability) as binaries:
        for family in TUNABLE.values():
            if config.variety not in BACKENDS[family.backend].load:
                continue
            family.launch(case, config, family.heuristic(target, shape))
    gaps = Logits.of(case).layout.layout == "any"
    return [
        f"sm_{capability}, {binary.metadata.name}, {name}: {complaint}"
        for binary in binaries
        for complaint in complaints(
            binary.metadata.name, census(binary), gaps, 0.0 if name in NAMED else MAX_SPILLS
        )
    ]


def complaints(kernel: str, found: Census, gaps: bool = False, spills: float = 0.0) -> list[str]:
    """What a kernel must not need.

    Args:
        kernel: Its name.
        found: Its census.
        gaps: Its class logits lie with gaps between priors and classes.
        spills: Share of its instructions that may move registers to memory and back, outside its innermost
            loops.
    """
    wrong = []
    spilled = found.instructions["local"]
    in_loop = any(loop.instructions["local"] for loop in found.innermost())
    if in_loop or spilled > spills * sum(found.instructions.values()) or (found.local_bytes and not spills):
        wrong.append(f"{found.local_bytes} bytes of local memory, {spilled} instructions on it")
    if kernel in FUSED and any(loop.instructions["shared"] for loop in found.innermost()):
        wrong.append("shared memory, shuffles or barriers in an inner loop")
    if kernel not in FUSED and found.shared_bytes > (
        GAPS if kernel == "sums_and_ious" and (OLD_COMPILER or gaps) else 0
    ):
        wrong.append(f"{found.shared_bytes} bytes of shared memory")
    if kernel not in FUSED and found.registers > MAX_REGISTERS:
        wrong.append(f"{found.registers} registers, expected at most {MAX_REGISTERS}")
    if (kernel not in OVER_PRIORS and not found.loops) or (
        kernel in FUSED and not any(loop.instructions["fp32"] for loop in found.innermost())
    ):
        wrong.append("no loop found to look at")
    return wrong


def binaries_of_an_epoch(backend: str, preset: str) -> int:
    """Binaries compiled while image sizes and numbers of gts change, for one head and configuration."""
    config, family = config_of(preset), TUNABLE[backend]
    with compiled_for(90) as binaries:
        for step in range(60):
            side = 10 + step % 11  # images of 320 to 640 pixels
            cells, num_gts = (4 * side, 2 * side, side), 1 + step * 7 % 48
            case = problem(config, cells=cells, channels=4, num_gts=num_gts)
            shape = Shape(32, case.shape[1], num_gts if backend == "triton" else 500 * num_gts)
            family.launch(case, config, family.heuristic((9, 0), shape))
    return len({id(binary) for binary in binaries})


def main() -> int:
    """Runs the checks; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs.offline", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--random", type=int, default=RANDOM, help=f"random configurations, up to {RANDOM} (default)"
    )
    parser.add_argument("--capability", type=int, nargs="+", default=CAPABILITIES, help="GPUs (default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth case (default: all)")
    options = parser.parse_args()
    left_out = NAMES[len(NAMED) + options.random :]
    cases = [
        (capability, name)
        for capability, name in CASES
        if capability in options.capability and name not in left_out
    ][:: options.every]
    start = time.perf_counter()
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), multiprocessing.get_context("spawn")) as pool:
        epochs = {epoch: pool.submit(binaries_of_an_epoch, *epoch) for epoch in MAX_BINARIES}
        wrong = [line for lines in pool.map(check, *zip(*cases, strict=True)) for line in lines]
        compiled = {", ".join(epoch): found.result() for epoch, found in epochs.items()}
    most = {", ".join(epoch): number for epoch, number in MAX_BINARIES.items()}
    wrong += [
        f"{compiled[epoch]} binaries of {epoch} in an epoch, expected at most {number}"
        for epoch, number in most.items()
        if compiled[epoch] > number
    ]
    seconds = time.perf_counter() - start
    print(
        f"Triton {triton.__version__}: {len(cases)} cases, binaries in an epoch {compiled}, {len(wrong)} "
        f"complaints, {seconds:.0f} s"
    )
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
