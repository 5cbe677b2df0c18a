"""What judges of all rules share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...problem import Problem

ULP = 2.0**-23
"""Distance of 1 and the next float32: roundings are relative errors of half of it."""


def no_pairs(result: Any) -> list[str]:
    """Lines on priors of a batch without (gt, prior) pairs."""
    assigned = (result.gt_index >= 0) | (result.claims != 0)
    return ["gt_index: a prior is assigned where there is no pair"] * int(assigned.any())


def judge_values(result: Any, problem: Problem, overlap: Tensor, error: Tensor | float) -> list[str]:
    """Lines on what priors are told of the gts that they came back with.

    Args:
        result: The answer.
        problem: Of sanitised gts.
        overlap: [B, G, P] float64, of every pair.
        error: How far ``matched_iou`` may be from it, [B, G, P] or a number.
    """
    answer = result.gt_index
    row, _ = problem.gts.padded_rows()
    positive = (answer >= 0) & (answer < row.shape[1])
    matched = torch.zeros(answer.shape, dtype=torch.float64, device=answer.device)
    slack, label = torch.full_like(matched, 0.0), torch.zeros_like(answer)
    if row.numel():
        slot = answer.clamp(0, row.shape[1] - 1)
        errors = torch.as_tensor(error, dtype=torch.float64, device=answer.device).expand_as(overlap)
        matched, slack = (torch.where(positive, of_answer(value, slot), 0.0) for value in (overlap, errors))
        label = problem.gts.labels[row.gather(1, slot)]
    wrong = [
        f"matched_iou: image {b}, prior {p}: {float(result.matched_iou[b, p])}, "
        f"in float64 {float(matched[b, p])}"
        for b, p in (~((result.matched_iou - matched).abs() <= slack)).nonzero().tolist()
    ]
    if result.labels is not None:
        expected = torch.where(positive, label, problem.shape[2])
        wrong += [
            f"labels: image {b}, prior {p}: {int(result.labels[b, p])}, expected {int(expected[b, p])}"
            for b, p in (result.labels != expected).nonzero().tolist()
        ]
    return wrong


def of_answer(values: Tensor, slot: Tensor) -> Tensor:
    """The values [B, G, P] of each prior's gt, [B, P]; ``slot`` [B, P] is in range."""
    return values.gather(1, slot[:, None])[:, 0]


def names(gts: Tensor) -> str:
    """The gts of a mask [G], in words."""
    return "gts " + ", ".join(map(str, gts.nonzero().flatten().tolist())) if bool(gts.any()) else "no gt"
