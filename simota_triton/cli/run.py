"""``simota-triton run``: runs a training command with a patched package, in every process that it starts."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from .errors import CommandError

EPILOG = """\
Every Python process of the command assigns by simota_triton once it imports the package: also ranks that a
launcher spawns, subprocesses and data workers. Nothing in your code changes. The processes inherit two
environment variables, SIMOTA_TRITON_PATCH and PYTHONPATH, and log what they patched (logger "simota_triton",
level INFO).

examples:
  simota-triton run --patch yolox -- python tools/train.py -f exps/my_exp.py -d 8 -b 64
  simota-triton run --patch libreyolo -- python train.py"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    from ..integrations.children import PACKAGES

    parser = commands.add_parser(
        "run",
        help="run a training command with a patched package",
        description="Run a training command in which a package's losses assign by simota_triton, in all of "
        "its processes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--patch", choices=PACKAGES, action="append", required=True, metavar="PACKAGE",
        help=f"package to patch, one of {', '.join(PACKAGES)}; repeat it for several")  # fmt: skip
    add("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="the command and its arguments")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> NoReturn:
    """Replace this process by the command.

    Raises:
        CommandError: No command was given, or it cannot be started.
    """
    from ..integrations.children import reach

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise CommandError(
            "run: expected a command after --, as in: simota-triton run --patch yolox -- python train.py"
        )
    environ = dict(os.environ)
    reach(dict.fromkeys(args.patch), environ)
    try:
        os.execvpe(command[0], command, environ)
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be started ({error.strerror})") from error
