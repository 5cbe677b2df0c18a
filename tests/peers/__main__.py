"""Compare with every installed peer: ``python -m tests.peers --scenes 200``."""

from __future__ import annotations

import argparse
import sys
import warnings

import torch

from simota_triton.backends import BACKENDS

from .loading import Missing
from .registry import ALIGNED_PEERS, LEFT_OUT, PEERS, comparison_of

COLUMNS = "{:24}{:42}{:22}{:>7}{:>10}{:>10}{:>11}{:>6}{:>12}"


def main() -> int:
    """Print one line a peer; 0 if nothing is unexplained and every peer is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("--scenes", type=int, default=200, help="scenes for each peer")
    parser.add_argument("--first", type=int, default=0, help="seed of the first scene")
    parser.add_argument("--only", default="", help="peers whose package and name contain this")
    parser.add_argument(
        "--backend",
        action="append",
        choices=BACKENDS,
        help="ours; may be repeated; default: all that run on a CPU",
    )
    parser.add_argument(
        "--allow-missing", action="append", default=[], metavar="PACKAGE", help="packages that may be absent"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # the originals use calls that torch has since deprecated
    warnings.filterwarnings("ignore", "torch.meshgrid")
    torch.set_num_threads(1)  # on tensors this small a second thread costs time
    names = options.backend or ["reference", "torch"]
    seeds = range(options.first, options.first + options.scenes)

    chosen = [peer for peer in (*PEERS, *ALIGNED_PEERS) if options.only in f"{peer.package} {peer.name}"]
    if not chosen:
        parser.error(f"--only: no peer's package and name contain {options.only!r}")
    print(
        f"torch {torch.__version__}, scenes {seeds.start} to {seeds.stop - 1}, ours: {', '.join(names)}; "
        "where * stands the drop-in too\n"
    )
    print(
        COLUMNS.format(
            "package",
            "original",
            "preset",
            "scenes",
            "positives",
            "differing",
            "documented",
            "ties",
            "unexplained",
        )
    )
    failed = 0
    for peer in chosen:
        start = peer.package, peer.name + " *" * bool(peer.drop_in), peer.preset
        try:
            tally = comparison_of(peer)(peer, peer.load(), seeds, names)
        except Missing as reason:
            print(f"{peer.package:24}{peer.name:42}{peer.preset:22}skipped: {reason}")
            failed += peer.package.split()[0] not in options.allow_missing
            continue
        counts = (
            tally.scenes,
            tally.positives,
            tally.differing,
            tally.documented,
            tally.excused,
            len(tally.unexplained),
        )
        print(COLUMNS.format(*start, *counts), flush=True)
        for line in tally.unexplained[:5]:
            print(f"    {line}")
        failed += bool(tally.unexplained)
    for name, reason in LEFT_OUT.items():
        print(f"{name}: left out, {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
