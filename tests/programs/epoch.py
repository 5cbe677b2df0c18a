"""Binaries that an epoch of multi-scale training compiles, without a GPU: 1,000 steps, random numbers of gts,
10 image sizes.

    python -m tests.programs.epoch

Prints how many each kernel family takes; exits with 1 where all together are more than MAX_BINARIES. A
process of its own, because Triton must not be in its interpreter.
"""

from __future__ import annotations

import random
import sys
from collections import Counter

import torch

from simota_triton.cli.tune.families import TUNABLE
from simota_triton.config import SimOTAConfig
from simota_triton.inputs import pack
from simota_triton.measure.compiling import compiled_for
from simota_triton.tuning.choice import choose
from simota_triton.tuning.store import Gpu

MAX_BINARIES = 24
STEPS, SIZES, BATCH, CLASSES = 1000, range(320, 640, 32), 16, 3
GPU = Gpu("a GPU that is not here", (9, 0))


def binaries(backend: str, padded: bool) -> Counter[str]:
    """Kernel -> binaries of an epoch with a smaller last batch; gts padded to a step's most, or as lists."""
    family, config, generator = TUNABLE[backend], SimOTAConfig.rtmdet(), random.Random(0)
    found: dict[int, str] = {}
    with compiled_for(10 * GPU.capability[0] + GPU.capability[1]) as compiled:
        for step in range(STEPS):
            side = generator.choice(SIZES) // 32
            batch = BATCH if step < STEPS - 1 else 1
            counts = [generator.choice((0, 1, generator.randrange(2, 300))) for _ in range(batch)]
            counts[0] = max(counts[0], 1)
            cells = [4 * side, 2 * side, side]
            maps = [torch.empty(batch, CLASSES, cell, cell) for cell in cells]
            num_priors = sum(cell * cell for cell in cells)
            boxes, labels, mask = (
                [torch.empty(n, 4) for n in counts],
                [torch.zeros(n, dtype=torch.int64) for n in counts],
                None,
            )
            if padded:
                boxes, labels = (
                    torch.empty(batch, max(counts), 4),
                    torch.zeros(batch, max(counts), dtype=torch.int64),
                )
                mask = torch.ones(batch, max(counts), dtype=torch.bool)
            problem = pack(
                config,
                torch.empty(batch, num_priors, 4),
                maps,
                torch.ones(num_priors, 4),
                boxes,
                labels,
                gt_mask=mask,
                validate=False,
            )
            family.launch(problem, config, choose(backend, GPU, family.shape(problem)).kernels)
            found |= {id(binary): binary.metadata.name for binary in compiled}
            # held, so that no id comes twice
            compiled[:] = list({id(binary): binary for binary in compiled}.values())
    return Counter(found.values())


def main() -> int:
    """The command line; returns the exit code."""
    worst = 0
    for form in ("padded", "list"):
        counts = {backend: binaries(backend, form == "padded") for backend in TUNABLE}
        total = sum(count.total() for count in counts.values())
        worst = max(worst, total)
        print(
            f"gts as {form}: {total} binaries in {STEPS} steps:",
            {backend: dict(count) for backend, count in counts.items()},
            flush=True,
        )
    return worst > MAX_BINARIES


if __name__ == "__main__":
    sys.exit(main())
