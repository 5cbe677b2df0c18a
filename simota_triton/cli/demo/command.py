"""``simota-triton demo``: shows assignments, in a table and a picture for each image and preset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ...backends import CHOICES
from ...measure.simulate import PHASES
from ..arguments import PRESETS, device_of, number, refuse
from ..errors import require

DESCRIPTION = """\
Assign priors to ground-truth boxes and show what came out: a table and a picture for each image and preset.

Without arguments it runs on a small scene that comes with the package. With --coco it runs on your own
annotations in COCO's format; each image is fitted into a square, with its padding at the right or bottom.
No detector runs here: predictions are simulated for a phase of training, and tables and pictures say so."""

EXAMPLES = """\
examples:
  simota-triton demo
  simota-triton demo --preset all --phase untrained
  simota-triton demo --preset rtmdet --preset tal --preset tal_o2o
  simota-triton demo --coco instances_val2017.json --images val2017 --limit 8
  simota-triton demo --coco instances.json --images images --preset yolox --preset yolox_main --out compare

how to read the result:
  k         how many priors the gt asked for: SimOTA's dynamic k, from the sum of its best IoUs; the
            task-aligned rule's topk, of which it gets those whose metric is above 0
  priors    how many it got, by level: a prior wanted by several gts goes to one of them
  none      no prior at all: the gt was outbid everywhere, or no prediction is good enough for a metric
            above 0, and it teaches the detector nothing in this step
  IoU       mean of its priors' predictions with the gt: complete IoU where the preset takes that
  score     mean of the scores that its priors should give to its class, with a task-aligned preset
  picture   dots are priors, coloured by the gt they learn and sized by their stride; a ring marks a prior
            that several gts wanted; a dashed box got no prior; hatched regions are crowds (iscrowd)"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "demo",
        help="assignments as tables and pictures, on a shipped scene or on COCO data",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    data = parser.add_argument_group("data")
    data.add_argument(
        "--coco",
        type=Path,
        metavar="FILE",
        help="annotations in COCO's instances format; default: the shipped scene",
    )
    data.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images named in FILE; default: a plain background",
    )
    data.add_argument("--limit", type=number(1, 10**9), metavar="N", help="only the first N images")
    data.add_argument(
        "--image-size",
        type=number(32, 4096),
        default=640,
        metavar="PIXELS",
        help="side of the square, 32 to 4096; default: 640",
    )
    add(
        "--preset",
        action="append",
        choices=("all", *PRESETS),
        metavar="NAME",
        dest="presets",
        help="preset to assign by; repeat it to compare several; default: rtmdet and yolox; "
        f"one of all, {', '.join(PRESETS)}",
    )
    add(
        "--phase",
        choices=PHASES,
        default="mid",
        metavar="PHASE",
        help="phase of training whose predictions are simulated: untrained, mid (default) or trained",
    )
    add(
        "--seed",
        type=number(0, 2**32),
        default=0,
        metavar="N",
        help="seed of the simulation, which decides its result; default: 0",
    )
    add("--backend", choices=CHOICES, default="auto", metavar="NAME",
        help=f"what computes: {', '.join(CHOICES)}; default: auto, see simota-triton info")  # fmt: skip
    add(
        "--device",
        type=device_of,
        default=torch.device("cpu"),
        metavar="NAME",
        help="device that computes: cpu (default) or cuda",
    )
    add(
        "--out",
        type=Path,
        default=Path("simota-demo"),
        metavar="DIR",
        help="folder of the pictures; default: ./simota-demo",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Check what argparse cannot check, then run the demo."""
    if args.coco is None:
        refuse(
            args,
            ("images", "limit"),
            "needs --coco FILE, the annotations of your images; without it there is the shipped scene",
        )
    require(rich="rich", matplotlib="matplotlib", PIL="pillow")
    from .run import Options, run

    names = args.presets or ["rtmdet", "yolox"]
    presets = PRESETS if "all" in names else tuple(dict.fromkeys(names))
    return run(
        Options(
            coco=args.coco, images=args.images, limit=args.limit, image_size=args.image_size, presets=presets,
            phase=args.phase, seed=args.seed, backend=args.backend, device=args.device, out=args.out,
        )
    )  # fmt: skip
