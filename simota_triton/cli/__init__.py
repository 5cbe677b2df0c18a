"""The command line: ``simota-triton COMMAND`` or ``python -m simota_triton COMMAND``, one module per
command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..version import __version__
from . import bench, compare, demo, info, run, tune, verify
from .errors import CommandError, report

COMMANDS = (info, demo, verify, bench, compare, tune, run)
"""Each has ``add_parser(commands)``, whose parser names the function that runs it:
``set_defaults(run=...)``.
"""

DESCRIPTION = """\
SimOTA label assignment for anchor-free detectors: which prior learns which ground-truth box.

  simota-triton info    what is installed here and which backend will compute
  simota-triton demo    see an assignment: a table and a picture for each image and preset
  simota-triton verify  check what computes here against the definition
  simota-triton bench   time the backends against plain PyTorch on this machine
  simota-triton tune    the fastest launch parameters for this GPU, ahead of time
  simota-triton run     your training command with a patched package, in all of its processes"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 a request that cannot be met, 130 interrupted, 141
    nobody reads on.

    Args:
        argv: Arguments without the program's name; None takes those of the process. Without any, the help is
            printed.

    Raises:
        SystemExit: From argparse, after ``--help`` (0) and for arguments it refuses (2).
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
    except BrokenPipeError:  # as of `simota-triton info | head -1`
        # what is left in the buffer is flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    root = argparse.ArgumentParser(
        prog="simota-triton", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND")
    root.set_defaults(run=None)
    for command in COMMANDS:
        command.add_parser(commands)
    return root
