"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from ..backends import triton_refusal
from ..capture import Recorded, read_batches
from ..config import PRESETS
from ..measure.workloads import TINY, WORKLOADS, recorded
from .errors import CommandError, report

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
T = TypeVar("T")


def number(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers in a range."""

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
    """A parser of names that stand for values."""

    def parse(text: str) -> T:
        if text not in values:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(values)}, got {text!r}")
        return values[text]

    return parse


def device_of(text: str) -> torch.device:
    """A parser of devices that are here."""
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
    """Whether a backend can compute on a device.

    Raises:
        CommandError: It cannot; the line says why.
    """
    if name.startswith("triton") and (refusal := triton_refusal(device)):
        raise CommandError(f"backend {name} cannot run on {device}: {refusal}")


def refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """End with argparse's error, ``why``, where one of the options was given: it would be ignored. Their
    defaults are None.
    """
    for name in names:
        if getattr(args, name) is not None:
            args.parser.error(f"argument --{name.replace('_', '-')}: {why}")


def add_batches(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """Which batches a command works on."""
    group = parser.add_argument_group("batches")
    add = group.add_argument
    names = [name for name, workload in WORKLOADS.items() if workload.padded is not None]
    add("--workload", choices=names, action="append", metavar="NAME",
        help=f"named workload, simulated, of {', '.join(names)}; repeat it for several; default: {', '.join(default)}")  # fmt: skip
    add(
        "--batches",
        type=Path,
        metavar="FILE",
        help="batches captured from your own training (SIMOTA_TRITON_CAPTURE), instead",
    )
    add(
        "--batch-size",
        type=number(1, 4096),
        metavar="B",
        help="images of the named workloads; default: each one's own",
    )
    add("--dtype", choices=tuple(DTYPES), metavar="NAME", help="of the workloads' logits; default: float32")
    add("--preset", choices=PRESETS, metavar="NAME", help="rule of the named workloads; default: rtmdet")
    parser.set_defaults(default_workloads=tuple(default))


NAMED = ("workload", "batch_size", "dtype", "preset")
"""Options of the named workloads."""


def check_batches(args: argparse.Namespace) -> None:
    """End with an error where a file of batches and options of the named workloads are given together."""
    if args.batches is not None:
        refuse(args, NAMED, "is of the named workloads; leave it out, or --batches")


def batches(args: argparse.Namespace, tiny: bool = False) -> Iterator[Recorded]:
    """The batches asked for, one after the other; after :func:`check_batches`.

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
    """The batches of a file, at least one; if its end is damaged, a line says so.

    Raises:
        CommandError: It cannot be used.
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
