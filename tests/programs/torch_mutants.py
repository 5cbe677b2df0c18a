"""Breaks what all backends share, and the torch backend, on purpose, and sees the tests or the fuzz fail; as
``tests.programs.stream_mutants``.

python -m tests.programs.torch_mutants            # all of MUTANTS
python -m tests.programs.torch_mutants gpu level  # those whose names contain one of these words
"""

from __future__ import annotations

import os
import sys

from tests.programs.stream_mutants import Mutant, main

FUZZ, TORCH, MATCHING, WAITS, DEFAULTS, INPUTS, EDGES = (
    f"tests/test_{name}.py"
    for name in ("fuzz", "torch_backend", "matching", "waits", "default_dtype", "inputs", "edge_cases")
)

ALIGNED, DEPARTURES = "tests/test_torch_aligned.py", "tests/test_aligned_reference.py"
FUZZED = f"{FUZZ} -k 'explained and torch-task_aligned'"
TURNED = f"{FUZZ} -k 'explained and torch-task_aligned_rotated'"

SPARE = f"{INPUTS} -k 'no_image_owns and torch'"

MUTANTS = (
    Mutant(
        "pairs beyond the near priors cost 1.2 times as much",
        "../../backends/torch_pruned/pairs.py",
        "return (radius, floor) if",
        "return (radius, 1.2 * floor) if",
        f"{TORCH} -k far_priors",
    ),
    Mutant(
        "corners may be so large that areas overflow",
        "../../ground_truth.py",
        "SAFE = 9e18",
        "SAFE = 9e20",
        f"{EDGES} -k 'float32_does_not_hold and torch'",
    ),
    Mutant(
        "costs are compared before anyone asks whether they are numbers",
        "../../backends/torch_pruned/pruned.py",
        "    costs.check()  # conflicts",
        "    # conflicts",
        f"{TORCH} -k contested_priors",
    ),
    Mutant(
        "the lowest cost of a comb may be padding's",
        "../../backends/torch_pruned/pruned.py",
        "value=torch.inf).view(-1, teeth",
        "value=-torch.inf).view(-1, teeth",
        f"{TORCH} -k as_the_definition",
    ),
    Mutant(
        "logarithms of probabilities have no lower end",
        "../../terms.py",
        "LOG_LIMIT = -100.0",
        "LOG_LIMIT = -60.0",
        "tests/test_terms.py",
    ),
    Mutant("rows that no image owns take part", "../../problem.py", "& (rows < self.offsets[-1])", "", SPARE),
    Mutant(
        "rows before the first image take part", "../../problem.py", "(rows >= self.offsets[0]) &", "", SPARE
    ),
    Mutant(
        "offsets are copied from pageable memory",
        "../../ground_truth.py",
        "host.pin_memory().to(",
        "host.to(",
        f"{WAITS} -k host_wait",
    ),
    Mutant(
        "the host waits for offsets",
        "../../ground_truth.py",
        "to(device, non_blocking=True)",
        "to(device)",
        f"{WAITS} -k host_wait",
    ),
    Mutant(
        "a graph holds memory of the host",
        "../../ground_truth.py",
        "is_current_stream_capturing():",
        "is_current_stream_capturing() is None:",
        f"{WAITS} -k graph",
    ),
    Mutant(
        "matched IoUs have the default dtype",
        "../../backends/torch_pruned/__init__.py",
        "torch.zeros(batch * num_priors, dtype=torch.float32,",
        "torch.zeros(batch * num_priors,",
        f"{DEFAULTS} -k names",
    ),
    Mutant(
        "a prior on an edge is inside",
        "../../backends/torch_aligned/grids.py",
        "begin = torch.searchsorted(self.lines, low, right=not inclusive)",
        "begin = torch.searchsorted(self.lines, low, right=inclusive)",
        f"{ALIGNED} -k 'ranges or field'",
    ),
    Mutant(
        "a grid goes on with other columns",
        "../../backends/torch_aligned/grids.py",
        "(moved[1:] > 0) | ",
        "",
        f"{ALIGNED} -k grids",
    ),
    Mutant(
        "priors that go back are a row of a grid",
        "../../backends/torch_aligned/grids.py",
        " | (x[1:] <= x[:-1])",
        "",
        f"{ALIGNED} -k grids",
    ),
    Mutant(
        "priors that take no part keep their boxes",
        "../../backends/torch_aligned/pairs.py",
        "if usable is not None:",
        "if usable is not None and self.gts is None:",
        f"{ALIGNED} -k masks",
    ),
    Mutant(
        "a margin is left to the ranges",
        "../../backends/torch_aligned/pairs.py",
        "if config.margin or config.max_reach",
        "if config.max_reach",
        f"{ALIGNED} -k field",
    ),
    Mutant(
        "the overlap of a metric is that of a larger exponent",
        "../../backends/torch_aligned/match.py",
        ".pow(1 / config.beta)",
        ".pow(0.5 / config.beta)",
        f"{ALIGNED} -k cut",
    ),
    Mutant(
        "the bound is the largest metric that was looked at",
        "../../backends/torch_aligned/match.py",
        ".values[:, -1]",
        ".values[:, 0]",
        f"{ALIGNED} -k cut",
    ),
    Mutant(
        "a pair that does not exist may take a prior",
        "../../backends/torch_aligned/match.py",
        "_chosen(pair_terms.exist(row, place), place, key)",
        "place, key",
        f"{ALIGNED} -k largest_overlap",
    ),
    Mutant(
        "only a gt that overlaps a tenth more takes a prior that it did not select",
        "../../backends/torch_aligned/match.py",
        '"amax")\n        gts',
        '"amax").add_(0.1)\n        gts',
        f"{ALIGNED} -k largest_overlap",
    ),
    Mutant(
        "the topk of all priors are those of regions",
        "../../backends/torch_aligned/match.py",
        'if config.pool == "all":',
        'if config.pool == "":',
        f"{ALIGNED} -k definition",
    ),
    Mutant(
        "no gt is given a prior outside of its region",
        "../../backends/torch_aligned/match.py",
        "if config.at_least_one:",
        "if config.at_least_one and not picked:",
        f"{ALIGNED} -k definition",
    ),
    Mutant(
        "gts that contain a contested prior have no part in it",
        "../../backends/torch_aligned/match.py",
        'if config.conflict == "inside":',
        'if config.conflict == "":',
        FUZZED,
    ),
    Mutant(
        "of large calls, pairs that might be selected are left out",
        "../../backends/torch_aligned/match.py",
        "(metric * (1 - 1e-5)).pow(1 / config.beta)",
        "(metric * 1.5).pow(1 / config.beta)",
        FUZZED,
    ),
    Mutant(
        "the box around a rotated one is that of one without an angle",
        "../../backends/torch_aligned/pairs.py",
        "torch.stack([width * cos + height * sin, width * sin + height * cos], 1) / 2",
        "torch.stack([width, height], 1) / 2",
        TURNED,
    ),
    Mutant(
        "the region of a rotated box is the box around it",
        "../../backends/torch_aligned/pairs.py",
        'if config.margin or config.max_reach is not None or config.boxes == "rotated":',
        "if config.margin or config.max_reach is not None:",
        TURNED,
    ),
    Mutant(
        "every gt keeps all that it wins",
        "../../backends/torch_aligned/match.py",
        "if config.topk2 is not None:",
        "if config.topk2 == 0:",
        FUZZED,
    ),
    Mutant(
        "targets are normalised by the whole image",
        "../../backends/torch_aligned/__init__.py",
        "metric, overlap = largest.index_select(1, won.row)",
        "metric, overlap = largest.amax(1, keepdim=True).expand(2, won.row.shape[0])",
        FUZZED,
    ),
    Mutant(
        "sides of exactly the floor are enlarged",
        "../../task_aligned/terms.py",
        "high - low < config.min_side_below",
        "high - low <= config.min_side_below",
        f"{DEPARTURES} -k enlarged",
    ),
    Mutant(
        "a metric of 0 is selected",
        "../../task_aligned/matching.py",
        "& inside & (metric > 0)",
        "& inside",
        f"{DEPARTURES} -k metric_of_zero",
    ),
    Mutant(
        "the largest of each gt's metrics counts twice",
        "../../task_aligned/terms.py",
        "share = metric / (largest_metric + norm_eps)",
        "share = metric / (2 * largest_metric + norm_eps)",
        f"{DEPARTURES} -k 'second_writing and tood'",
    ),
    Mutant(
        "integers of half the bits",
        "../../matching.py",
        "FIXED_POINT = 57",
        "FIXED_POINT = 28",
        f"{MATCHING} -k integers",
    ),
    Mutant(
        "a pair that is not taken claims its prior",
        "../../matching.py",
        "taken.flatten(1).int()\n",
        "torch.ones_like(slot).int()\n",
        MATCHING,
    ),
    Mutant(
        "a pair that is not taken may be the cheapest",
        "../../matching.py",
        "torch.where(taken, prior_cost, torch.inf)",
        "prior_cost",
        MATCHING,
    ),
)


if __name__ == "__main__":
    os.environ.setdefault("TRITON_INTERPRET", "1")
    sys.exit(main(sys.argv[1:], MUTANTS))
