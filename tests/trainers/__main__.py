"""Run every installed loss with and without our patch: ``python -m tests.trainers --scenes 200``."""

from __future__ import annotations

import argparse
import sys
import warnings

import torch

from tests.peers.loading import Missing

from .registry import ALIGNED_TRAINERS, TRAINERS, comparison_of


def main() -> int:
    """Print one line a loss; 0 if nothing is unexplained and every package is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.trainers", description=__doc__)
    parser.add_argument("--scenes", type=int, default=200, help="scenes for each loss")
    parser.add_argument("--first", type=int, default=0, help="seed of the first scene")
    parser.add_argument("--only", default="", help="losses whose package and name contain this")
    parser.add_argument(
        "--allow-missing", action="append", default=[], metavar="PACKAGE", help="packages that may be absent"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # the originals use calls that torch has since deprecated
    warnings.filterwarnings("ignore", "torch.meshgrid")
    torch.set_num_threads(1)  # on tensors this small a second thread costs time
    chosen = [
        trainer
        for trainer in (*TRAINERS, *ALIGNED_TRAINERS)
        if options.only in f"{trainer.package} {trainer.name}"
    ]
    if not chosen:
        parser.error(f"--only: no loss's package and name contain {options.only!r}")
    seeds = range(options.first, options.first + options.scenes)
    print(f"torch {torch.__version__}, scenes {seeds.start} to {seeds.stop - 1}\n")
    columns = (
        "scenes",
        "positives",
        "differing",
        "documented",
        "ties",
        "equal losses",
        "repaired",
        "unexplained",
    )
    print(f"{'package':24}{'loss':28}" + "".join(f"{column:>14}" for column in columns))
    failed = 0
    for trainer in chosen:
        start = f"{trainer.package:24}{trainer.name:28}"
        try:
            trainer.load()
        except Missing as reason:
            print(f"{start}skipped: {reason}")
            failed += trainer.package.split()[0] not in options.allow_missing
            continue
        tally = comparison_of(trainer)(trainer, seeds)
        counts = (
            tally.scenes,
            tally.positives,
            tally.differing,
            tally.documented,
            tally.excused,
            tally.same_loss,
            tally.repaired,
            len(tally.unexplained),
        )
        print(start + "".join(f"{count:14}" for count in counts), flush=True)
        for line in tally.unexplained[:5]:
            print(f"    {line}")
        failed += bool(tally.unexplained)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
