"""The table of an image: how many priors each preset gave to each gt."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ...priors import STRIDES
from .outcome import Outcome
from .scene import Scene


def image_table(scene: Scene, outcomes: Sequence[Outcome]) -> Table:
    """The table, with a row for each gt and preset: class, size of the box, how many priors it asked for, how
    many it got in each level and in all, mean IoU, and mean score by a preset of the task-aligned rule. The
    last rows hold the sums.
    """
    width, height = scene.content
    title = Text(
        f"{scene.name}, {width} x {height}, simulated predictions ({outcomes[0].phase})", style="bold"
    )
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), collapse_padding=True
    )
    table.add_column("gt", justify="right", no_wrap=True)
    table.add_column("class", min_width=6)
    table.add_column("box", justify="right", no_wrap=True)
    table.add_column("preset", no_wrap=True)
    strides = [f"stride\n{stride}" if level == 0 else f"\n{stride}" for level, stride in enumerate(STRIDES)]
    has_scores = any(outcome.is_aligned for outcome in outcomes)
    for heading in ("k", *strides, "priors", "mean\nIoU", *(["mean\nscore"] if has_scores else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for gt, (box, label) in enumerate(zip(scene.gt_boxes.tolist(), scene.gt_labels.tolist(), strict=True)):
        size = f"{box[2] - box[0]:.0f} x {box[3] - box[1]:.0f}"
        for row, outcome in enumerate(outcomes):
            head = (str(gt), Text(scene.classes[label]), size) if row == 0 else ("", "", "")
            table.add_row(
                *head,
                outcome.preset,
                *_numbers(outcome, gt),
                end_section=len(outcomes) > 1 and row == len(outcomes) - 1,
            )
    table.add_section()
    for row, outcome in enumerate(outcomes):
        got = outcome.priors_got.sum(0).tolist()
        positives = outcome.summary.num_pos
        means = [
            f"{float(values.sum()) / positives:.3f}" if positives else "-"
            for values in (outcome.image.matched_iou, *([outcome.image.scores] if outcome.is_aligned else []))
        ]
        sums = (str(int(outcome.image.dynamic_k.sum())), *map(str, got), str(positives), *means)
        table.add_row("all" if row == 0 else "", "", "", outcome.preset, *sums, style="bold")
    return table


def _numbers(outcome: Outcome, gt: int) -> list[str | Text]:
    """The cells of a gt's row from how many priors it asked for on."""
    k, got = str(int(outcome.image.dynamic_k[gt])), outcome.priors_got[gt]
    if outcome.empty[gt]:
        return [k, *("-" for _ in STRIDES), Text("none", style="bold white on red"), "-"]
    means = [outcome.mean_iou[gt], *([outcome.mean_score[gt]] if outcome.is_aligned else [])]
    return [
        k,
        *(str(n) if n else "-" for n in got.tolist()),
        str(int(got.sum())),
        *(f"{float(mean):.3f}" for mean in means),
    ]
