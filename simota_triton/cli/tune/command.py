"""``simota-triton tune``: finds the fastest launch parameters for this GPU and keeps them on disk."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...backends import triton_refusal
from ...config import SimOTAConfig
from ...measure.timing import GraphTimer, Timer, WallTimer
from ...tuning import choice
from ...tuning.kernel_config import PROCESSORS, bucket
from ...tuning.store import Gpu, save, user_file, user_folder
from ...version import __version__
from ..arguments import add_batches, batches, check_batches, choice_of, number, refuse
from ..errors import CommandError, report
from ..progress import Bar
from . import model
from .families import TUNABLE, Tunable
from .journal import Journal
from .search import Outcome, Progress, Task, prune, sweep

DESCRIPTION = """\
Find the fastest launch parameters of the Triton kernels for this GPU and keep them in the user's folder,
where every assigner finds them. You need not tune: a heuristic decides until you do. Launch parameters never
change an answer: a candidate whose result differs from the default's by a single bit is thrown out.

It compiles all candidates first. Those that spill registers, and those that a static model ranks low, are
never run. The others are timed as CUDA graphs, in turns with the default. Ctrl-C stops the command; start it
again and it continues where it stopped."""

EXAMPLES = """\
examples:
  simota-triton tune                                   every named workload, every kernel family
  simota-triton tune --workload coco --dtype float16
  SIMOTA_TRITON_CAPTURE=mine.batches python train.py   keeps a few of your own batches, then
  simota-triton tune --batches mine.batches
  simota-triton tune --dry-run --capability 90         needs no GPU: compile all candidates and rank them"""


NOT_TUNED = "tuning measures SimOTA's kernels; those of the task-aligned rule take the same launch parameters"


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "tune",
        help="find the fastest launch parameters for this GPU",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_batches(parser, default=("coco", "mosaic", "o365", "dota"), presets=SimOTAConfig.presets())
    add("--backend", choices=tuple(TUNABLE), action="append", metavar="NAME",
        help=f"kernel family; repeat it for several; default: all of {', '.join(TUNABLE)}")  # fmt: skip
    add(
        "--device",
        metavar="NAME",
        help="cuda (default), cuda:N, or cpu, which only tries this command out: on a tiny batch, in "
        "Triton's interpreter, whose times say nothing about a GPU",
    )
    add("--dry-run", action="store_true", help="compile and rank, run nothing, write nothing; needs no GPU")
    capabilities = {f"{major}{minor}": (major, minor) for major, minor in PROCESSORS}
    add(
        "--capability",
        type=choice_of(capabilities),
        metavar="NN",
        help=f"with --dry-run: compute capability, one of {', '.join(capabilities)}; "
        "default: this GPU's, or 90 without one",
    )
    add(
        "--keep",
        type=number(1, 10**6),
        metavar="N",
        help="how many candidates of each stage are run, the best by the static model; default: 32",
    )
    add("--rounds", type=number(1, 10**4), metavar="N", help="how often each candidate is timed; default: 15")
    add(
        "--workers",
        type=number(1, 256),
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that compile; default: up to 8",
    )
    add("--limit", type=number(1, 10**6), metavar="N", help="only the first N candidates of the space")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the file; default: the one that assigners read, see simota-triton info",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Tune, or with ``--dry-run`` rank the candidates without a GPU."""
    check_batches(args)
    if args.dry_run:
        refuse(args, ("device", "keep", "rounds", "out"), "not with --dry-run, which runs and writes nothing")
        return _dry_run(args)
    refuse(args, ("capability",), "only with --dry-run; without it this GPU's counts")
    interpreted = args.device == "cpu"
    if interpreted:
        if args.batches is None:
            refuse(
                args,
                ("workload", "batch_size"),
                "not with --device cpu, which tries a tiny batch; try your own with --batches",
            )
        os.environ.setdefault("TRITON_INTERPRET", "1")
    device = _device(args.device or "cuda")
    with _folder(args.out, interpreted) as folder:
        return max(_tune(args, device, folder, TUNABLE[name]) for name in args.backend or TUNABLE)


def _device(name: str) -> torch.device:
    """The device of a name, which the kernels can run on.

    Raises:
        CommandError: There is no such device, or the kernels cannot run there.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise CommandError(
            "no CUDA device is available; --dry-run ranks candidates without one, "
            "--device cpu tries this command out"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CommandError(f"--device: expected cuda, cuda:N or cpu, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CommandError(f"--device: {name} is not here; {torch.cuda.device_count()} CUDA devices are")
    refusal = triton_refusal(device)
    if refusal is not None:
        raise CommandError(f"nothing to tune on {device}: {refusal}")
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else device


@contextmanager
def _folder(out: Path | None, interpreted: bool) -> Iterator[Path]:
    """The folder of the file: a temporary one for the interpreter's times, which no assigner may find."""
    if out is not None:
        yield out
    elif interpreted:
        with tempfile.TemporaryDirectory(prefix="simota-tune-") as name:
            yield Path(name)
    else:
        yield user_folder()


def _tune(args: argparse.Namespace, device: torch.device, folder: Path, family: Tunable) -> int:
    """Tune one family for every batch that was asked for; returns the exit code."""
    interpreted = device.type != "cuda"
    gpu = Gpu("Triton's interpreter", (9, 0)) if interpreted else Gpu.of(device)
    timer: Timer = WallTimer() if interpreted else GraphTimer(device)
    code = 0
    for task in _tasks(args, family, device, tiny=interpreted):
        shape = family.shape(task.problem)
        name = bucket(shape)
        space = family.space(family.heuristic(gpu.capability, shape))[: args.limit]
        title = f"{family.backend}, {task.name}"
        with _journal(folder, gpu, family, task, name) as journal:
            try:
                candidates, pruned = _compile(args, family, task, gpu.capability, space, title)
                with Bar(f"{title}: timing", len(candidates) - 1) as bar:
                    outcome = sweep(
                        task, family, candidates, timer, journal, args.rounds or 15, partial(_show, bar)
                    )
            except KeyboardInterrupt:
                report(
                    journal.trouble
                    or f"{len(journal.records)} candidates are measured; the same command goes on from there"
                )
                raise
            outcome.pruned = pruned
            if journal.trouble is not None:
                report(journal.trouble)
            failed = _finish(folder, gpu, family, task, name, outcome)
            code = max(code, failed)
            if not failed:
                journal.remove()
    return code


def _tasks(
    args: argparse.Namespace, family: Tunable, device: torch.device, tiny: bool = False
) -> Iterator[Task]:
    """The batches that were asked for, packed for the family's backend.

    Raises:
        CommandError: None of them is of SimOTA's rule.
    """
    found = 0
    for batch in batches(args, tiny):
        if isinstance(batch.config, SimOTAConfig):
            found += 1
            yield Task(batch.name, batch.problem(device), batch.config)
        else:
            report(f"{family.backend}, {batch.name}: left out, {NOT_TUNED}")
    if not found:
        raise CommandError(f"{args.batches} holds nothing to tune: {NOT_TUNED}")


@contextmanager
def _journal(folder: Path, gpu: Gpu, family: Tunable, task: Task, name: str) -> Iterator[Journal]:
    """The journal of a run, opened.

    Raises:
        CommandError: Another process has it open, or the folder cannot be written.
    """
    path = folder / "unfinished" / f"{gpu.slug}.{family.backend}.{name}.jsonl"
    journal = Journal(
        path, {"gpu": gpu.name, "backend": family.backend, "task": task.name, "bucket": name, **_versions()}
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(journal.opened())
        except BlockingIOError as error:
            raise CommandError(
                f"another simota-triton tune is measuring this ({path}); "
                "wait for it, or choose another folder with --out"
            ) from error
        except OSError as error:
            raise CommandError(
                f"{folder} cannot be written ({error.strerror}); "
                "choose another folder with --out or SIMOTA_TRITON_CONFIG_DIR"
            ) from error
        yield journal


def _compile(
    args: argparse.Namespace,
    family: Tunable,
    task: Task,
    capability: tuple[int, int],
    space: list[Any],
    title: str,
) -> tuple[list[Any], dict[Any, str]]:
    """Candidates that are worth running, and why the others are not; see :func:`.search.prune`."""
    with Bar(f"{title}: compiling", len(space)) as bar:
        reports = model.examine(family.backend, task.problem, task.config, capability, space, args.workers)
        return prune(family, space, reports, args.keep or 32, lambda: bar.update(bar.done + 1))


def _show(bar: Bar, at: Progress) -> None:
    best = f": {_fields(at.best)}" if at.speed_up > 1 else ""
    bar.update(at.done, f"best so far {at.speed_up:.2f}x the default{best}")


def _fields(kernels: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in asdict(kernels).items())


def _finish(folder: Path, gpu: Gpu, family: Tunable, task: Task, name: str, outcome: Outcome) -> int:
    """Print the result and write the file. Returns the exit code: 2 where the file cannot be written."""
    entry = {
        "config": asdict(outcome.winner),
        "median_ms": outcome.median_ms,
        "default": asdict(outcome.default),
        "default_ms": outcome.default_ms,
        "measured": {"workload": task.name, **_versions(), "date": datetime.date.today().isoformat()},
    }
    path = user_file(gpu, folder)
    code = 0
    print(
        f"{family.backend}, {task.name}, bucket {name}: {outcome.median_ms:.4f} ms, "
        f"{outcome.speed_up:.2f}x the default's {outcome.default_ms:.4f} ms; "
        f"{outcome.measured} candidates timed, {len(outcome.pruned)} pruned"
    )
    for candidate, what in outcome.differing.items():
        print(f"  thrown out: {_fields(candidate)}: {what}")
    if gpu.name.startswith("Triton's"):
        print("  tried out in Triton's interpreter: these are no times of a GPU")
    try:
        kept = save(path, gpu, family.backend, {name: entry})
        print(f"  written: {path}")
        if kept is not None:
            print(f"  the file that was there could not be used and is kept as {kept}")
        choice.forget()
    except OSError as error:
        report(
            f"{path} cannot be written ({error.strerror}); make room or choose another folder with --out. "
            "Nothing is lost: the next line is the result, and the same command goes on from what was "
            "measured"
        )
        code = 2
    print(
        f"  in code: SimOTAAssigner(..., kernels={outcome.winner!r})  "
        f"# from simota_triton.tuning import {family.config.__name__}"
    )
    return code


def _versions() -> dict[str, str]:
    import triton

    return {
        "simota_triton": __version__,
        "triton": triton.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _dry_run(args: argparse.Namespace) -> int:
    """Compile all candidates for a GPU that need not be here, and print them, the best first."""
    capability = args.capability or (
        torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
    )
    for backend in args.backend or TUNABLE:
        family = TUNABLE[backend]
        for task in _tasks(args, family, torch.device("cpu")):
            space = family.space(family.heuristic(capability, family.shape(task.problem)))[: args.limit]
            with Bar(f"{backend}, {task.name}: compiling", len(space)) as bar:
                reports = []
                for found in model.examine(
                    backend, task.problem, task.config, capability, space, args.workers
                ):
                    reports.append(found)
                    bar.update(len(reports))
            print(
                f"{backend}, {task.name}, sm_{capability[0]}{capability[1]}: {len(space)} candidates by "
                "modelled cycles over the default's"
            )
            print(
                "A model of instructions and registers, not a measurement: memory and data-dependent loops "
                "are not in it."
            )
            _print_ranked(space, reports)
    return 0


def _print_ranked(candidates: Sequence[Any], reports: Sequence[model.Static]) -> None:
    """A line for each candidate, the default being the first: those that may be run, then the others."""
    cycles = [float("inf") if found.cycles is None else found.cycles for found in reports]
    for index in sorted(range(len(reports)), key=lambda i: (reports[i].refusal is not None, cycles[i], i)):
        registers = ", ".join(f"{name} {count}" for name, count in reports[index].registers.items())
        why = reports[index].refusal or f"registers {registers}"
        default = "default: " if index == 0 else ""
        print(f"  {cycles[index] / cycles[0]:6.2f}  {default}{_fields(candidates[index])}  ({why})")
