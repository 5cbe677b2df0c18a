"""Captured batches: what a detector predicted at some step of a real training, and its gts.

``python -m tests.trainers.train --mode shadow --capture tests/data/captured`` writes them. Boxes and logits
are kept in float16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from simota_triton.problem import Problem

FOLDER = Path(__file__).parents[1] / "data" / "captured"


def save(problem: Problem, path: Path, images: int) -> None:
    """Write the first images of a batch whose gts are a list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = problem.gts.offsets[: images + 1]
    rows = slice(0, int(offsets[-1]))
    arrays = {
        "pred_boxes": problem.pred_boxes[:images].half(),
        "cls_logits": problem.cls_logits.dense()[:images].half(),
        "priors": problem.priors,
        "gt_boxes": problem.gts.boxes[rows],
        "gt_labels": problem.gts.labels[rows],
        "gt_offsets": offsets,
    }
    if problem.obj_logits is not None:
        arrays["obj_logits"] = problem.obj_logits.dense()[:images].half()
    np.savez_compressed(path, **{name: value.contiguous().numpy() for name, value in arrays.items()})


def captured(path: Path) -> dict[str, Any]:
    """Arguments of an assigner."""
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def preset_of(path: Path) -> str:
    """The preset of the detector that a file was captured from."""
    return "libre_rtmdet" if path.name.startswith("libreyolo_rtmdet") else "yolox_main"
