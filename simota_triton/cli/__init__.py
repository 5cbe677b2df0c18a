"""The command line: ``simota-triton COMMAND``, or ``python -m simota_triton COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..version import __version__
from . import bench, compare, demo, info, run, tune, verify
from .errors import CommandError, report

COMMANDS = (info, demo, verify, bench, compare, tune, run)
"""Each has a function ``add_parser(commands)``, which adds the command's parser. The parser's default ``run``
is the function that runs the command.
"""

DESCRIPTION = """\
Label assignment for anchor-free detectors: which prior learns which ground-truth box.

  simota-triton info    what is installed here and which backend will compute
  simota-triton demo    see an assignment: a table and a picture for each image and preset
  simota-triton verify  check what computes here against the definition
  simota-triton bench   time the backends against plain PyTorch on this machine
  simota-triton tune    the fastest launch parameters for this GPU, ahead of time
  simota-triton run     your training command with a patched package, in all of its processes"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, or print the help where no command is named.

    Args:
        argv: Arguments without the program's name. None: those of the process.

    Returns:
        The exit code: 0 the command succeeded, 1 it found what it looked for (a wrong answer, a slower case),
        2 the request cannot be met, 130 it was interrupted, 141 the reader of its output has stopped reading.

    Raises:
        SystemExit: From argparse: with 0 after ``--help``, with 2 for arguments that it refuses.
    """
    root = parser()
    args = root.parse_args(argv)
    if args.run is None:
        root.print_help()
        return 0
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except CommandError as error:
        report(error)
        return 2
    except KeyboardInterrupt:
        report("interrupted")
        return 130
    except BrokenPipeError:  # as in `simota-triton info | head -1`
        # what is left in the buffer is flushed when the process ends, and must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    root = argparse.ArgumentParser(
        prog="simota-triton", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND")
    root.set_defaults(run=None)
    for command in COMMANDS:
        command.add_parser(commands)
    return root
