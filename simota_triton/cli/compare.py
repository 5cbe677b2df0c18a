"""``simota-triton compare``: shows what changed between two records of ``simota-triton bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .errors import CommandError, report


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "compare",
        help="what changed between two records of simota-triton bench",
        description="Print what changed between two records by more than noise: cases where the middle "
        "halves of the two series of times do not overlap, or where peak memory changed by more than 1 %. "
        "The exit code is 1 if a case got slower.",
    )
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument("--all", action="store_true", help="print the other cases too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the changes, those that got slower first."""
    from ..measure.compare import changes, read_record
    from ..measure.machine import machine_class

    records = []
    for path in (args.before, args.after):
        try:
            records.append(read_record(path))
        except OSError as error:
            raise CommandError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise CommandError(str(error)) from error
    before, after = records
    classes = [machine_class(record["machine"]) for record in records]
    if classes[0] != classes[1]:
        report(
            f"these are two kinds of machine, {classes[0]} and {classes[1]}: times say nothing about the code"
        )
    both, gone, new = changes(before, after)
    if not both:
        raise CommandError("the two records have no workload and case in common")
    memory = [
        change
        for change in both
        if change.before_mb and change.after_mb and abs(change.after_mb / change.before_mb - 1) > 0.01
    ]
    moved = [change for change in both if change.beyond_noise]
    shown = both if args.all else [change for change in both if change in moved or change in memory]
    for change in sorted(shown, key=lambda change: -change.ratio):
        mark = ("slower" if change.ratio > 1 else "faster") if change.beyond_noise else "within noise"
        megabytes = f", {change.before_mb:.1f} -> {change.after_mb:.1f} MB" if change in memory else ""
        print(
            f"{change.workload}, {change.case}: {change.before_ms:.4g} -> {change.after_ms:.4g} ms "
            f"({100 * (change.ratio - 1):+.1f} %, {mark}){megabytes}"
        )
    print(
        f"{len(both)} cases in both: {len(moved)} moved beyond noise, {len(both) - len(moved)} did not; "
        f"{len(memory)} in memory"
    )
    for name, keys in (("only in A", gone), ("only in B", new)):
        if keys:
            print(f"{name}: " + "; ".join(", ".join(key) for key in keys))
    return int(any(change.ratio > 1 for change in moved))
