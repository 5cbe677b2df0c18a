"""Arguments that several commands take, and their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from ..backends import triton_refusal
from ..capture import Recorded, read_batches
from ..config import RULES
from ..measure.workloads import TINY, WORKLOADS, recorded
from .errors import CommandError, report

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
T = TypeVar("T")

PRESETS = tuple(
    name for rule in RULES.values() for name in rule.presets() if rule.from_preset(name).boxes == "xyxy"
)
"""The presets of all rules for boxes as simulated batches and scenes have them."""


def number(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``low`` to ``high``, for argparse's ``type``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text!r}")
        return value

    return parse


def choice_of(values: Mapping[str, T]) -> Callable[[str], T]:
    """A parser of names, which gives the value that a name stands for."""

    def parse(text: str) -> T:
        if text not in values:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(values)}, got {text!r}")
        return values[text]

    return parse


def device_of(text: str) -> torch.device:
    """A parser of devices, which must be in this machine."""
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"expected cpu, cuda or cuda:N, got {text!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu, cuda or cuda:N, got {text!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not here; {torch.cuda.device_count()} CUDA devices are"
        )
    return device


def check_backend(name: str, device: torch.device) -> None:
    """Check that a backend can compute on a device.

    Raises:
        CommandError: It cannot; the message says why.
    """
    if name.startswith("triton") and (refusal := triton_refusal(device)):
        raise CommandError(f"backend {name} cannot run on {device}: {refusal}")


def refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """End with argparse's error ``why`` if one of the options was given, because it would have no effect. The
    defaults of the options must be None.
    """
    for name in names:
        if getattr(args, name) is not None:
            args.parser.error(f"argument --{name.replace('_', '-')}: {why}")


def add_batches(
    parser: argparse.ArgumentParser, default: Sequence[str], presets: Sequence[str] = PRESETS
) -> None:
    """Add the options that say which batches a command works on; workloads are assigned by one of
    ``presets``.
    """
    group = parser.add_argument_group("batches")
    add = group.add_argument
    names = [name for name, workload in WORKLOADS.items() if workload.padded is not None]
    add(
        "--workload",
        choices=names,
        action="append",
        metavar="NAME",
        help=f"a simulated workload, one of {', '.join(names)}; repeat it for several; "
        f"default: {', '.join(default)}",
    )
    add(
        "--batches",
        type=Path,
        metavar="FILE",
        help="instead of workloads: batches that were captured from your own training, see "
        "SIMOTA_TRITON_CAPTURE",
    )
    add(
        "--batch-size",
        type=number(1, 4096),
        metavar="B",
        help="number of images of a workload; default: each workload's own",
    )
    add(
        "--dtype",
        choices=tuple(DTYPES),
        metavar="NAME",
        help="dtype of the workloads' logits; default: float32",
    )
    add(
        "--preset",
        choices=presets,
        metavar="NAME",
        help=f"preset that workloads are assigned by, one of {', '.join(presets)}; default: rtmdet",
    )
    parser.set_defaults(default_workloads=tuple(default))


NAMED = ("workload", "batch_size", "dtype", "preset")
"""Options that are about workloads."""


def check_batches(args: argparse.Namespace) -> None:
    """End with an error if a file of batches was given together with options that are about workloads."""
    if args.batches is not None:
        refuse(args, NAMED, "is about workloads; leave it out, or leave out --batches")


def batches(args: argparse.Namespace, tiny: bool = False) -> Iterator[Recorded]:
    """The batches that were asked for, one after the other. Call :func:`check_batches` first.

    Args:
        args: The parsed arguments.
        tiny: Only the workload that Triton's interpreter can compute, unless there is a file of batches.

    Raises:
        CommandError: The file of batches cannot be used.
    """
    if args.batches is not None:
        yield from recorded_in(args.batches)
        return
    for workload in [TINY] if tiny else [WORKLOADS[name] for name in args.workload or args.default_workloads]:
        if args.batch_size and not tiny:
            workload = workload.with_batch(args.batch_size)
        yield recorded(workload, args.preset or "rtmdet", dtype=DTYPES[args.dtype or "float32"])


def recorded_in(path: Path) -> list[Recorded]:
    """The batches in a file, at least one. A file that is cut off is used up to there, and a line says so.

    Raises:
        CommandError: The file cannot be used.
    """
    try:
        found, trouble = read_batches(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CommandError(str(error)) from error
    if trouble is not None:
        report(trouble)
    if not found:
        raise CommandError(f"{path} holds no whole batch; capture some with SIMOTA_TRITON_CAPTURE")
    return found
