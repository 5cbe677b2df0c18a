"""What the host does in a call of the Triton backends, part by part.

    python -m bench.overhead            # prints, and with --save writes bench/results/overhead.json

No GPU is needed: tensors are on the CPU, and every launch ends before it would reach the GPU.

The parts of a call in a process that has made some before:

- ``pack`` checks and packs the inputs;
- ``look-up`` finds the launch parameters;
- ``allocation`` makes outputs and scratch memory;
- ``arguments`` forms the arguments of the kernels;
- ``Triton`` is what Triton does to bind the arguments and to find the binary;
- ``result`` makes the AssignResult.

``pack`` by form is that part for each form in which gts come, of 2 images and of 32: on a GPU a list and
offsets on the host are one copy each besides, from pinned memory.

Their times are CPU times of one thread, medians over batches of calls. A small operator takes a few us more
on CUDA tensors than on these. For backend "triton" the matching in PyTorch, which follows its kernels, is
left out.

``the first call`` of a process goes from inputs to the result, with Triton's binaries in its cache on disk.
Its part ``launches`` is all that Triton does to load them, without handing them to the GPU. ``construction``
is what constructing the assigner takes before. These are CPU times of the process and of those that Triton
starts.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results" / "overhead.json"
CALLS, REPEATS = 100, 15


def microseconds(call: Callable[[], object]) -> float:
    """Median CPU time of a call in us."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(CALLS):
            call()
        times.append((time.process_time() - start) / CALLS * 1e6)
    return statistics.median(times)


def inputs(batch: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of a call with COCO's shapes, gts padded. Values do not matter to the host."""
    maps = [torch.zeros(batch, 80, side, side) for side in (80, 40, 20)]
    given = {"pred_boxes": torch.zeros(batch, 8400, 4), "cls_logits": maps, "priors": torch.ones(8400, 4)}
    gts = {
        "gt_boxes": torch.zeros(batch, 40, 4),
        "gt_labels": torch.zeros(batch, 40, dtype=torch.int64),
        "gt_mask": torch.ones(batch, 40).bool(),
    }
    return given, gts


def forms() -> dict[str, float]:
    """Form of the gts and number of images -> us to check and to pack the inputs."""
    from simota_triton import SimOTAConfig
    from simota_triton.inputs import pack

    found, config = {}, SimOTAConfig.rtmdet()
    for batch in (2, 32):
        given, padded = inputs(batch)
        boxes, labels = padded["gt_boxes"], padded["gt_labels"]
        listed = {"gt_boxes": list(boxes), "gt_labels": list(labels)}
        offsets = torch.arange(batch + 1) * boxes.shape[1]
        packed = {"gt_boxes": boxes.flatten(0, 1), "gt_labels": labels.flatten(), "gt_offsets": offsets}
        for form, gts in (("padded", padded), ("a list", listed), ("packed, offsets on the host", packed)):
            call = functools.partial(pack, config, **given, **gts, validate=False)
            found[f"{form}, B = {batch}"] = microseconds(call)
    return found


def steady(backend: str) -> dict[str, float]:
    """Part of a call -> us."""
    from triton.runtime.jit import JITFunction

    from simota_triton.assigners import SimOTAAssigner
    from simota_triton.assigners.base import _result
    from simota_triton.cli.tune.families import TUNABLE
    from simota_triton.inputs import pack
    from simota_triton.matching import Matching
    from simota_triton.measure.compiling import compiled_for
    from simota_triton.tuning.choice import configuration

    family = TUNABLE[backend]
    given, gts = inputs()
    config = SimOTAAssigner("rtmdet").config

    def packed() -> Any:
        return pack(config, **given, **gts, validate=False)

    problem = packed()
    kernels = family.heuristic((9, 0), family.shape(problem))
    device = torch.device("cpu")
    batch, num_priors, _ = problem.shape
    nothing = torch.zeros(batch, num_priors, dtype=torch.int64)
    labels = nothing if backend == "triton-stream" else None
    matching = Matching(nothing, torch.zeros(batch, num_priors), nothing[:, :40], nothing.int(), labels)
    allocations: list[tuple[Any, Any]] = []
    empty = torch.empty
    parts = {
        "pack": microseconds(packed),
        "look-up": microseconds(lambda: configuration(backend, device, family.shape(problem))),
    }
    run = JITFunction.run
    with compiled_for(90) as binaries:  # from here on launches end once Triton has found the binary

        def launch() -> None:
            family.launch(problem, config, kernels)
            binaries.clear()

        bound = microseconds(launch)
        compile_only = JITFunction.run
        JITFunction.run = lambda *_, **__: None
        try:
            torch.empty = lambda *args, **options: (
                allocations.append((args, options)) or empty(*args, **options)
            )
            launch()
            torch.empty = empty
            stubbed = microseconds(launch)
        finally:
            torch.empty, JITFunction.run = empty, compile_only
    assert JITFunction.run is run
    parts["allocation"] = microseconds(lambda: [empty(*args, **options) for args, options in allocations])
    parts["arguments"] = stubbed - parts["allocation"]
    parts["Triton"] = bound - stubbed
    parts["result"] = microseconds(lambda: _result(problem, matching, config))
    return parts | {"sum": sum(parts.values())}


def milliseconds() -> float:
    """CPU time in ms of this process so far, and of those that it started and waited for."""
    return 1e3 * sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def first_call(backend: str) -> dict[str, float]:
    """Part of a process's first call -> ms. It must be called in a process of its own."""
    from simota_triton import SimOTAAssigner
    from simota_triton.assigners.base import _result
    from simota_triton.backends import BACKENDS
    from simota_triton.cli.tune.families import TUNABLE
    from simota_triton.inputs import pack
    from simota_triton.matching import Matching

    given, gts = inputs()
    parts: dict[str, float] = {}

    def step(name: str, call: Callable[[], Any]) -> Any:
        start = milliseconds()
        found = call()
        parts[name] = milliseconds() - start
        return found

    config = step("construction", lambda: SimOTAAssigner("rtmdet", backend=backend)).config
    problem = step("pack", lambda: pack(config, **given, **gts, validate=False))
    step("backend", BACKENDS[backend].load[config.rule])

    from simota_triton.measure.compiling import compiled_for
    from simota_triton.tuning.choice import choose
    from simota_triton.tuning.store import Gpu

    family = TUNABLE[backend]
    kernels = step(
        "look-up",
        lambda: choose(backend, Gpu("a GPU that is not here", (9, 0)), family.shape(problem)).kernels,
    )
    with compiled_for(90):
        step("launches", lambda: family.launch(problem, config, kernels))
    nothing = torch.zeros(problem.shape[:2], dtype=torch.int64)
    labels = nothing if backend == "triton-stream" else None
    matching = Matching(nothing, nothing.float(), nothing[:, :40], nothing.int(), labels)
    step("result", lambda: _result(problem, matching, config))
    return parts | {"the call": sum(parts.values()) - parts["construction"]}


def main() -> None:
    """Measure both backends, each in processes of its own, print the times, and write them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--part", nargs=2, metavar=("KIND", "BACKEND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part:
        print(json.dumps({"steady": steady, "first": first_call}[args.part[0]](args.part[1])))
        return
    from simota_triton.cli.tune.families import TUNABLE
    from simota_triton.measure.machine import facts

    record: dict[str, Any] = {"machine": facts(torch.device("cpu")), "pack by form": forms()}
    print("pack:", ", ".join(f"{form} {value:.1f}" for form, value in record["pack by form"].items()), "us")
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
            "TRITON_CACHE_DIR": cache
        }
        for backend in TUNABLE:
            for kind, title, unit in (("steady", "a call", "us"), ("first", "the first call", "ms")):
                command = [sys.executable, "-m", "bench.overhead", "--part", kind, backend]
                done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
                record[f"{kind}, {backend}"] = parts = json.loads(done.stdout)
                print(
                    f"{backend}, {title}: "
                    + ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
                    + f" {unit}",
                    flush=True,
                )
    if args.save:
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
