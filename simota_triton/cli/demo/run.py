"""Runs the demo: reads the data, and for each image assigns, prints a table and draws pictures. An image that
cannot be used is reported, and the others are done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...backends import check_rule, choose
from ...backends.known import config_of
from ...result import AssignSummary
from ..arguments import check_backend
from ..errors import CommandError, report
from .coco import ImageRecord, read_coco
from .fonts import fonts_for
from .outcome import Outcome, count, run_presets, totals
from .picture import draw
from .scene import SHIPPED, Scene, load_scene
from .table import image_table

FILE_WIDTH = 120
"""Width of tables that go to a file or a pipe, in characters."""


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        coco: The annotations; None for the shipped scene.
        images: Folder of the images; None for a plain background.
        limit: Number of images; None for all.
        image_size: Side in pixels of the square that images are fitted into.
        presets: Names of the presets.
        phase: Phase of training to simulate.
        seed: Seed of the simulation.
        backend: One of ``backends.CHOICES``.
        device: Where assignments are computed.
        out: Folder of the pictures.
    """

    coco: Path | None
    images: Path | None
    limit: int | None
    image_size: int
    presets: Sequence[str]
    phase: str
    seed: int
    backend: str
    device: torch.device
    out: Path


def run(options: Options, console: Console | None = None) -> int:
    """Print a table and write pictures for each image, then print the totals.

    Returns:
        The exit code: 0, or 2 if an image could not be used.

    Raises:
        CommandError: Nothing can be done at all: the data cannot be read, the folder cannot be written, or
            the backend cannot run here.
    """
    console = console or _console()
    try:
        for rule in {config_of(preset).variety for preset in options.presets}:
            check_rule(options.backend, rule, "--backend")
            backend, reason = choose(options.backend, options.device, rule=rule)
    except ValueError as error:
        raise CommandError(str(error)) from None
    check_backend(backend, options.device)
    dataset = read_coco(options.coco or SHIPPED)
    records = dataset.images[: options.limit]
    if not records:
        raise CommandError(f"{options.coco}: has no images")
    if options.images is not None and not options.images.is_dir():
        raise CommandError(f"{options.images}: no such folder of images")
    if warning := dataset.warning():
        report(warning)
    _make_folder(options.out)

    summaries: dict[str, list[AssignSummary]] = {preset: [] for preset in options.presets}
    failed = 0
    texts = [dataset.classes[annotation.label] for record in records for annotation in record.annotations]
    with (
        fonts_for("".join({*texts, *(record.name for record in records)})),
        _progress(records, console) as steps,
    ):
        for record in steps:
            try:
                scene = load_scene(record, dataset.classes, options.images, options.image_size)
            except CommandError as error:
                report(error)
                failed += 1
                continue
            outcomes = run_presets(
                scene, options.presets, options.phase, options.seed, options.backend, options.device
            )
            console.print(image_table(scene, outcomes))
            for outcome in outcomes:
                summaries[outcome.preset].append(outcome.summary)
                _save(scene, outcome, options.out)

    done = len(records) - failed
    console.print(
        f"{count(done, 'image')}, simulated predictions ({options.phase}), backend {backend} ({reason})",
        highlight=False,
    )
    width = max(map(len, options.presets))
    for preset, found in summaries.items():
        console.print(f"  {preset:<{width}}  {totals(found)}", highlight=False)
    console.print(
        f"{count(done * len(options.presets), 'picture')} in {options.out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if failed:
        report(f"{count(failed, 'image')} of {len(records)} could not be used")
    return 2 if failed else 0


def _console() -> Console:
    if hasattr(sys.stdout, "reconfigure"):
        # a character that the terminal cannot show must not end the run
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH)


@contextmanager
def _progress(records: Sequence[ImageRecord], console: Console) -> Iterator[Iterator[ImageRecord]]:
    """The records one by one, with a progress bar on a terminal and a line for each elsewhere."""
    if not console.is_terminal:

        def lines() -> Iterator[ImageRecord]:
            for number, record in enumerate(records, 1):
                console.print(
                    f"image {number}/{len(records)}: {record.file_name}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
                yield record

        yield lines()
        return
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield iter(progress.track(records))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{folder}: cannot be written to: {error.strerror}") from None


def _save(scene: Scene, outcome: Outcome, folder: Path) -> None:
    path = folder / f"{scene.name}_{outcome.preset}_{outcome.phase}.png"
    try:
        # level 4 takes a third of the default's time for files that are 4 % larger
        draw(scene, outcome).savefig(path, pil_kwargs={"compress_level": 4})
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror or error}") from None
