"""Simulates predictions for a scene, assigns by each preset, and counts the priors that each gt got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...assigners import assigner_of
from ...backends.known import config_of
from ...config import Config
from ...measure.simulate import simulate_predictions
from ...priors import STRIDES, grid_priors
from ...result import AssignResult, AssignSummary, ImageAssignment
from .scene import Scene


@dataclass(frozen=True)
class Outcome:
    """The assignment of one scene by one preset, on the CPU.

    Attributes:
        config: The preset.
        phase: Phase of training that was simulated.
        priors: [P, 4] x, y, stride, stride.
        image: The assignment.
        summary: Its totals.
        priors_got: [G, levels] int64, how many priors of each level learn each gt.
        mean_iou: [G] float32, mean IoU of those priors' predicted boxes with the gt; 0 if there are none.
        mean_score: [G] float32, mean of what those priors should score the gt's class at; 0 if there are
            none.
    """

    config: Config
    phase: str
    priors: Tensor
    image: ImageAssignment
    summary: AssignSummary
    priors_got: Tensor
    mean_iou: Tensor
    mean_score: Tensor

    @property
    def preset(self) -> str:
        """The preset's name."""
        return str(self.config.preset)

    @property
    def is_aligned(self) -> bool:
        """Whether it is of the task-aligned rule, whose scores are its own."""
        return self.config.rule == "task_aligned"

    @property
    def empty(self) -> Tensor:
        """[G] bool, True for gts that no prior learns."""
        return self.priors_got.sum(1) == 0

    @property
    def is_stray(self) -> Tensor:
        """[P] bool, True for priors whose point lies outside of the gt that they learn."""
        points, boxes = self.priors[:, :2], self.image.gt_boxes
        return self.image.fg_mask & ((points < boxes[:, :2]) | (points > boxes[:, 2:])).any(1)


def run_presets(
    scene: Scene, presets: Sequence[str], phase: str, seed: int, backend: str, device: torch.device
) -> list[Outcome]:
    """Assign a scene by each preset. Presets with the same ``prior_offset`` see the same predictions."""
    outcomes = []
    predictions = {}
    for preset in presets:
        config = config_of(preset)
        offset = config.prior_offset
        if offset not in predictions:
            priors = grid_priors(scene.image_size, offset=offset)
            generator = torch.Generator().manual_seed(seed)
            simulated = simulate_predictions(
                [scene.gt_boxes], [scene.gt_labels], priors, len(scene.classes), phase, generator
            )
            predictions[offset] = priors, simulated
        priors, simulated = predictions[offset]
        objectness = {"obj_logits": simulated.obj_logits.to(device)} if config.score == "joint" else {}
        result = assigner_of(config, backend=backend)(
            simulated.pred_boxes.to(device),
            simulated.cls_logits.to(device),
            priors.to(device),
            [scene.gt_boxes.to(device)],
            [scene.gt_labels.to(device)],
            ignore_boxes=[scene.ignore_boxes.to(device)],
            **objectness,
        )
        outcomes.append(_outcome(config, phase, priors, result))
    return outcomes


def _outcome(config: Config, phase: str, priors: Tensor, result: AssignResult) -> Outcome:
    image = ImageAssignment(*(value.cpu() for value in result.to_image(0)))
    gts = torch.arange(len(image.dynamic_k), dtype=torch.int64, device=image.gt_index.device)
    mine = image.gt_index[None] == gts[:, None]  # [G, P]
    got = torch.stack([(mine & (priors[:, 2] == stride)).sum(1) for stride in STRIDES], 1)
    mean_iou, mean_score = (
        (mine * value).sum(1) / mine.sum(1).clamp(min=1) for value in (image.matched_iou, image.scores)
    )
    return Outcome(config, phase, priors, image, result.summary(), got, mean_iou, mean_score)


def count(number: int, noun: str) -> str:
    """The number with its noun, as in "1 gt" and "2 gts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def totals(summaries: Sequence[AssignSummary]) -> str:
    """In words, the sums of gts, positives, conflicts and gts without a prior."""
    gts, positives, conflicts, empty = (
        sum(getattr(summary, name) for summary in summaries)
        for name in ("num_gts", "num_pos", "num_conflicts", "num_empty")
    )
    counts = count(gts, "gt"), count(positives, "positive"), count(conflicts, "conflict"), count(empty, "gt")
    return f"{', '.join(counts)} left empty"
