"""The cases of the task-aligned rule: our torch backend, and the assigner of Ultralytics' own package where
it is installed.

All are called as Ultralytics' detection loss calls its assigner: with probabilities, points without strides,
and padded gts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from simota_triton import AssignResult, TaskAlignedAssigner, TaskAlignedConfig
from simota_triton.measure.workloads import WORKLOADS, Workload, make_batch
from tests.peers.loading import Missing
from tests.peers.ultralytics import NEWEST, load_modules

XVIEW = replace(WORKLOADS["xview"], batch=2, num_gts=1800, padded=1500, most=1500)
"""Two crowded images with small objects, padded to 3,000 gts."""

OURS = "simota_triton (torch)"
DENSE = "simota_triton (torch), dense targets"
THEIRS = f"ultralytics {NEWEST}"


def calls(workload: Workload, phase: str) -> tuple[dict[str, Callable[[], Any]], Tensor]:
    """The cases of a workload by name, and the gt_index [B, P] that each must give, see :func:`gt_index`."""
    batch = make_batch(workload, phase, offset=0.5)
    assert workload.padded is not None
    gt_boxes, gt_labels, gt_mask = batch.padded(workload.padded)
    inputs = (batch.pred_boxes, batch.cls_logits.sigmoid(), batch.priors[:, :2].contiguous())
    config = TaskAlignedConfig.tal(score="prob")
    ours, reference = (TaskAlignedAssigner(config, backend=name) for name in ("torch", "reference"))

    def assign() -> AssignResult:
        return ours(*inputs, gt_boxes, gt_labels, gt_mask=gt_mask)

    def with_dense_targets() -> tuple[AssignResult, Tensor]:
        result = assign()
        return result, result.target_scores()

    cases: dict[str, Callable[[], Any]] = {OURS: assign, DENSE: with_dense_targets}
    try:
        theirs = load_modules(NEWEST)["ultralytics.utils.tal"].TaskAlignedAssigner(
            topk=10, num_classes=workload.num_classes, alpha=0.5, beta=6.0, stride=[8, 16, 32]
        )
    except Missing as error:
        print(f"{workload.name:8} without the original assigner: {error}")
    else:
        columns = gt_labels[..., None].float(), gt_boxes, gt_mask[..., None]
        cases[THEIRS] = lambda: theirs(inputs[1], inputs[0], inputs[2], *columns)
    return cases, reference(*inputs, gt_boxes, gt_labels, gt_mask=gt_mask).gt_index


def gt_index(found: Any) -> Tensor:
    """The gt of each prior [B, P], -1 for background, of what a case returns.

    Ultralytics' assigner fills up with pairs of metric 0 where a gt has too few others. Its losses weight
    them with 0, so that they count as background here.
    """
    result = found[0] if isinstance(found, tuple) else found
    if isinstance(result, AssignResult):
        return result.gt_index
    labels, _, scores, fg_mask, index = found
    own = scores.gather(2, labels.clamp(max=scores.shape[2] - 1)[..., None]).squeeze(2)
    return torch.where(fg_mask & (own > 0), index, -1)
