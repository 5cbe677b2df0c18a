"""``simota-triton bench``: times the backends and plain PyTorch on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..backends import BACKENDS, computes
from .arguments import NAMED, add_batches, batches, check_backend, check_batches, device_of, number, refuse
from .output import check_writable, write_record

DESCRIPTION = """\
Time every backend that runs here, and the same assignment in plain PyTorch, on simulated workloads or on
batches of your own training. Whole calls are timed, in turns, after their assignments were compared. The
memory is the most that a call allocates at one time. "floor" is how long this machine takes to copy the bytes
that any assigner must move."""

EXAMPLES = """\
examples:
  simota-triton bench
  simota-triton bench --batches mine.batches --device cuda --out after.json
  simota-triton bench --plot gts --plot classes
  simota-triton compare before.json after.json"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "bench",
        help="time the backends against plain PyTorch on this machine",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_batches(parser, default=("coco",))
    add = parser.add_argument
    add(
        "--backend",
        choices=tuple(BACKENDS),
        action="append",
        metavar="NAME",
        help="backend to time; repeat it for several; default: all that run on the device",
    )
    add(
        "--device",
        type=device_of,
        default=None,
        metavar="NAME",
        help="cpu or cuda; default: cuda if there is a GPU",
    )
    add("--rounds", type=number(1, 10**4), metavar="N", help="how often each case is timed; default: 15")
    add(
        "--out",
        type=Path,
        default=Path("simota-bench.json"),
        metavar="FILE",
        help="record to write; default: ./simota-bench.json",
    )
    add(
        "--plot",
        choices=("gts", "priors", "classes", "batch"),
        action="append",
        metavar="AXIS",
        help="instead of workloads: measure time and memory against the number of gts, priors, classes or "
        "images (batch), and write a record and a picture; repeat it for several",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure the cases, print them, and write the record."""
    from ..measure.cases import backends_on
    from ..measure.machine import facts

    check_batches(args)
    if args.plot:
        refuse(
            args,
            ("batches", *NAMED, "rounds"),
            "not with --plot, which has batches and a number of rounds of its own",
        )
    device = args.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in args.backend or ():
        check_backend(name, device)
    names = args.backend or backends_on(device)
    check_writable(
        [path for axis in args.plot for path in _curve_files(args.out, axis)] if args.plot else [args.out]
    )
    with torch.no_grad():
        if args.plot:
            return _curves(args, device, names)
        rows = _rows(args, device, names)
    write_record(args.out, {"machine": facts(device), "rows": rows})
    print(f"written: {args.out}")
    return 0


def _rows(args: argparse.Namespace, device: torch.device, names: list[str]) -> list[dict[str, Any]]:
    """Measure and print the cases of each batch; returns the record's rows."""
    from ..assigners import assigner_of
    from ..measure.cases import cases, copy_bandwidth, least_bytes, measure

    bandwidth = copy_bandwidth(device)
    found = []
    for batch in batches(args):
        expected = assigner_of(batch.config, backend="torch")(**batch.on(device)).gt_index
        floor = least_bytes(batch) / bandwidth
        print(f"{batch.name} on {device}; floor {floor:.3g} ms")
        rows = measure(cases(batch, device, names), device, args.rounds or 15, expected=expected)
        slowest = max((row["median_ms"] for row in rows), default=0.0)
        for row in rows:
            low, high = row["quartiles_ms"]
            differs = f"  differs in {row['differing_priors']} priors" if row["differing_priors"] else ""
            print(
                f"  {row['case']:24} {row['median_ms']:10.3f} ms  [{low:.3f}, {high:.3f}]  "
                f"{slowest / row['median_ms']:6.1f}x  {row['peak_mb']:9.1f} MB{differs}"
            )
        for name in names:
            if not computes(name, batch.config.variety, batch.inputs):
                print(f"  {name:24} not timed: it takes no extra_cost and no pair_mask")
        found += [{"workload": batch.name, "floor_ms": floor, **row} for row in rows]
    return found


def _curves(args: argparse.Namespace, device: torch.device, names: list[str]) -> int:
    """Measure each curve that was asked for, and write its record and its picture."""
    from ..measure.machine import facts
    from ..measure.scaling import curve, draw
    from .errors import CommandError, require

    require(matplotlib="matplotlib")
    for axis in args.plot:
        record = {"machine": facts(device), "axis": axis, "rows": curve(axis, device, names, seconds=2.0)}
        path, picture = _curve_files(args.out, axis)
        write_record(path, record)
        try:
            draw(record, picture)
        except OSError as error:
            raise CommandError(
                f"{picture} cannot be written ({error.strerror}); the record is in {path}"
            ) from error
        print(f"written: {path}, {picture}")
    return 0


def _curve_files(out: Path, axis: str) -> tuple[Path, Path]:
    """The files of a curve's record and of its picture."""
    path = out.with_name(f"{out.stem}-{axis}.json")
    return path, path.with_suffix(".png")
