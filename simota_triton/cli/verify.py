"""``simota-triton verify``: checks that the backends give right answers on this machine."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from ..backends import BACKENDS, triton_refusal
from .arguments import check_backend, device_of, number, recorded_in, refuse
from .errors import CommandError, report
from .output import check_writable, write_record
from .progress import Bar

DESCRIPTION = """\
Compare the backends that compute here with the definition in float64, on seeded scenes of every preset, form
and dtype; only a proven near-tie excuses another answer. On a GPU check also that no call waits for the host,
that a captured graph replays on changed inputs, and that memory stays within what is promised; at the end
time some workloads beside plain PyTorch. It takes about two minutes for each backend. What this machine
cannot run is listed as not run. At a difference the exit code is 1 and the batch that shows it is written."""

EXAMPLES = """\
examples:
  simota-triton verify
  simota-triton verify --long --out gpu.json
  simota-triton verify --backend torch --device cpu
  TRITON_INTERPRET=1 simota-triton verify --backend triton-stream --device cpu
  simota-triton verify --batches simota-verify.batches"""

KERNELS = ("triton-stream", "triton")
"""The backends that are checked if none is asked for, provided that they run here. "auto" takes the first."""

SECONDS, LONG_SECONDS = 60.0, 1500.0
"""Time for the random scenes of a backend: by default, and with ``--long``."""


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "verify",
        help="check the backends that compute here against the definition",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--backend",
        choices=tuple(BACKENDS),
        action="append",
        metavar="NAME",
        help="backend to check; repeat it for several; default: triton-stream and triton if they run on the "
        "device, else torch",
    )
    add(
        "--device",
        type=device_of,
        default=None,
        metavar="NAME",
        help="cpu or cuda; default: cuda if there is a GPU",
    )
    add(
        "--seed",
        type=number(0, 10**9),
        default=None,
        metavar="N",
        help="seed of the first scene; default: 0",
    )
    add(
        "--scenes",
        type=number(1, 10**9),
        default=None,
        metavar="N",
        help="number of seeded scenes; default: as many as a minute allows",
    )
    add(
        "--workers",
        type=number(1, 256),
        default=None,
        metavar="N",
        help="processes that compute them; default: up to 8",
    )
    add(
        "--long",
        action="store_true",
        default=None,
        help="25 minutes of scenes, every preset at full size, every workload",
    )
    add(
        "--batches",
        type=Path,
        metavar="FILE",
        help="check these batches instead of seeded scenes: your own, or those that verify wrote",
    )
    add(
        "--out",
        type=Path,
        default=Path("simota-verify.json"),
        metavar="FILE",
        help="record to write; at a difference also the batch that shows it, in a file beside it that ends "
        "in .batches; default: ./simota-verify.json",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the checks, print a table, and write the record."""
    from ..verification.scan import processes
    from ..verification.suite import FAILED, Finding, Target, findings, names_of, record

    if args.batches is not None:
        refuse(
            args,
            ("seed", "scenes", "workers", "long"),
            "not with --batches, which are judged instead of seeded scenes",
        )
    device = args.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    repro = args.out.with_suffix(".batches")
    if args.batches is not None and args.batches.resolve() == repro.resolve():
        repro = args.out.with_suffix(".again.batches")
    names = backends(args.backend, device)
    check_writable((args.out, repro))
    target = Target(
        backend="",
        device=device,
        seed=args.seed or 0,
        seconds=LONG_SECONDS if args.long else SECONDS,
        scenes=args.scenes,
        workers=args.workers or processes(),
        long=bool(args.long),
        batches=recorded_in(args.batches) if args.batches is not None else (),
    )
    found: list[Finding] = []
    with Bar("checks", len(names) * len(names_of(target))) as bar:
        for name in names:
            for finding in findings(target.of(name), lambda note: bar.update(len(found), note)):
                found.append(finding)
                if finding.batch is not None and not any(earlier.batch for earlier in found[:-1]):
                    _write_repro(repro, finding.batch)
        bar.update(len(found))
    _print(found)
    write_record(args.out, record(found, target))
    print(f"written: {args.out}")
    failed = [finding for finding in found if finding.status == FAILED]
    if any(finding.batch for finding in failed):
        print(
            f"written: {repro}, the first batch with a difference; "
            f"again: simota-triton verify --batches {repro}"
        )
    return int(bool(failed))


def backends(asked: list[str] | None, device: torch.device) -> list[str]:
    """The backends to check: those that were asked for; else both with kernels, if they can run on the
    device; else "torch", which "auto" falls back to.

    Raises:
        CommandError: One that was asked for cannot run on the device.
    """
    for name in asked or ():
        check_backend(name, device)
    if asked:
        return asked
    refusal = triton_refusal(device)
    if refusal is None:
        return list(KERNELS)
    if device.type == "cuda":
        report(f"the kernels are not checked: {refusal}")
    return ["torch"]


def _print(found: list[Any]) -> None:
    """Print the table of all checks, and a line that sums it up."""
    widths = [
        max(len(getattr(finding, name)) for finding in found) for name in ("backend", "check", "status")
    ]
    for finding in found:
        head = (
            f"{getattr(finding, name):<{width}}"
            for name, width in zip(("backend", "check", "status"), widths, strict=True)
        )
        print(*head, f"{finding.seconds:6.1f} s", " ".join(finding.detail.split()), sep="  ")
    counts = Counter(finding.status for finding in found)
    print(", ".join(f"{count} {status}" for status, count in counts.items()))


def _write_repro(path: Path, batch: Any) -> None:
    """Write the batch that shows a difference, in place of an older one."""
    from ..capture import Recorder

    try:
        path.unlink(missing_ok=True)
        Recorder(path, 1).append(batch)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written ({error.strerror}); choose another file with --out"
        ) from error
