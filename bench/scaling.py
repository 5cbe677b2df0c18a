"""Curves of time and memory against the number of gts, priors, classes and images, kept in bench/docs.

    python -m bench.scaling                      # all four axes, on the GPU if there is one, else on the CPU
    python -m bench.scaling --axis gts --seconds 5
    python -m bench.scaling --draw               # only the pictures, from the records that are there

A case that takes longer than --seconds at a point is not measured at larger points. All numbers are measured:
a machine without a GPU gives curves of its CPU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from simota_triton.measure.cases import backends_on
from simota_triton.measure.machine import facts
from simota_triton.measure.scaling import AXES, curve, draw

DOCS = Path(__file__).parent / "docs"


def main() -> None:
    """Measure, write the records, and draw the pictures."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--axis",
        choices=tuple(AXES),
        action="append",
        help="size that grows; repeat it for several; default: all",
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="a case ends once a call takes longer than this"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads of the CPU; with one (default) its CPU time is measured",
    )
    parser.add_argument("--draw", action="store_true", help="only draw the records that are there")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the records and pictures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    for axis in args.axis or AXES:
        path = args.out / f"scaling-{axis}-{device.type}.json"
        if not args.draw:
            with torch.no_grad():
                rows = curve(axis, device, backends_on(device), args.seconds, on_point=_tell, compiled=True)
            path.write_text(
                json.dumps({"machine": facts(device), "axis": axis, "rows": rows}, indent=1) + "\n"
            )
        draw(json.loads(path.read_text()), path.with_suffix(".png"))
        print(f"written: {path}, {path.with_suffix('.png')}", flush=True)


def _tell(row: dict) -> None:
    print(
        f"{row['value']:8} {row['case']:24} {row['median_ms']:10.2f} ms {row['peak_mb']:10.1f} MB", flush=True
    )


if __name__ == "__main__":
    main()
