"""``torch.ops.simota_triton.assign``: the whole assignment as one opaque PyTorch operator, for
``torch.compile``.

It takes a packed problem as flat tensors. Opaque, because the backends hold kernel launches and
data-dependent code that must not be traced; registered through ``torch.library.Library``, whose boundary
costs less than half of ``torch.library.custom_op``'s. Outside ``torch.compile`` the assigner calls its
backend directly: an operator would give it nothing, and taking a problem apart and together again costs about
20 us a call.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import torch
from torch import Tensor

from . import backends
from .config import config_key as config_key
from .config import config_of
from .matching import Matching
from .problem import GroundTruth, Problem, Scores
from .tuning.families import FAMILIES

_LIBRARY = torch.library.Library("simota_triton", "DEF")
_LIBRARY.define(
    "assign(Tensor pred_boxes, Tensor[] cls_levels, Tensor[] obj_levels, Tensor priors, "
    "Tensor gt_boxes, Tensor gt_labels, "
    "Tensor? gt_centers, Tensor gt_offsets, Tensor? gt_mask, Tensor? candidate_mask, Tensor? extra_cost, "
    "SymInt padded, SymInt max_count, bool all_owned, SymInt[] cells, "
    "str config, str backend, str kernels='') "
    "-> (Tensor gt_index, Tensor matched_iou, Tensor dynamic_k, Tensor claims, Tensor scores)"
)

UNKNOWN = -1
"""``padded`` of gts that did not come padded, ``max_count`` where only the device knows it."""


def kernels_key(kernels: Any) -> str:
    """Launch parameters as the string that the operator takes."""
    return "" if kernels is None else json.dumps(dataclasses.asdict(kernels))


def assign(problem: Problem, config: str, backend: str, kernels: str = "", rule: str = "simota") -> Matching:
    """The operator on a :class:`Problem`; ``config`` and ``kernels`` as :func:`config_key` and
    :func:`kernels_key` give them.
    """
    gts = problem.gts
    gt_index, matched_iou, dynamic_k, claims, scores = torch.ops.simota_triton.assign(
        problem.pred_boxes,
        list(problem.cls_logits.levels),
        [] if problem.obj_logits is None else list(problem.obj_logits.levels),
        problem.priors,
        gts.boxes,
        gts.labels,
        gts.given_centers,
        gts.offsets,
        gts.mask,
        problem.candidate_mask,
        problem.extra_cost,
        UNKNOWN if gts.padded_shape is None else gts.padded_shape[1],
        UNKNOWN if gts.max_count is None else gts.max_count,
        gts.all_owned,
        [size for shape in problem.cells or () for size in shape],
        config,
        backend,
        kernels,
    )
    # labels are left to the caller, where they are compiled with the loss
    scores = None if rule == "simota" else scores
    return Matching(gt_index, matched_iou, dynamic_k, claims, scores=scores)


@functools.cache
def _kernels(backend: str, key: str) -> Any:
    return FAMILIES[backend].config(**json.loads(key)) if key else None


def _assign(
    pred_boxes: Tensor, cls_levels: list[Tensor], obj_levels: list[Tensor], priors: Tensor,
    gt_boxes: Tensor, gt_labels: Tensor,
    gt_centers: Tensor | None, gt_offsets: Tensor, gt_mask: Tensor | None, candidate_mask: Tensor | None,
    extra_cost: Tensor | None, padded: int, max_count: int, all_owned: bool, cells: list[int],
    config: str, backend: str, kernels: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    problem = Problem(
        pred_boxes=pred_boxes,
        cls_logits=Scores(tuple(cls_levels)),
        obj_logits=Scores(tuple(obj_levels)) if obj_levels else None,
        priors=priors,
        gts=GroundTruth(
            boxes=gt_boxes,
            labels=gt_labels,
            given_centers=gt_centers,
            offsets=gt_offsets,
            mask=gt_mask,
            padded_shape=None if padded == UNKNOWN else (pred_boxes.shape[0], padded),
            max_count=None if max_count == UNKNOWN else max_count,
            all_owned=all_owned,
        ),
        candidate_mask=candidate_mask,
        ignore_boxes=None,
        cells=tuple(zip(cells[::2], cells[1::2], strict=True)) or None,
        extra_cost=extra_cost,
    )
    wanted, pairs = config_of(config), extra_cost is not None
    name = backends.choose_for_call(backend, pred_boxes.device, pairs, wanted.variety, may_check=False)
    found = backends.assign(name, problem, wanted, _kernels(name, kernels))
    scores = pred_boxes.new_empty(0, dtype=torch.float32) if found.scores is None else found.scores
    return found.gt_index, found.matched_iou, found.dynamic_k, found.claims, scores


def _fake(
    pred_boxes: Tensor, cls_levels: list[Tensor], obj_levels: list[Tensor], priors: Tensor,
    gt_boxes: Tensor, gt_labels: Tensor,
    gt_centers: Tensor | None, gt_offsets: Tensor, gt_mask: Tensor | None, candidate_mask: Tensor | None,
    extra_cost: Tensor | None, padded: int, max_count: int, all_owned: bool, cells: list[int],
    config: str, backend: str, kernels: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    per_prior = pred_boxes.shape[:2]
    per_gt = (gt_boxes.shape[0],) if padded == UNKNOWN else (pred_boxes.shape[0], padded)
    return (
        pred_boxes.new_empty(per_prior, dtype=torch.int64),
        pred_boxes.new_empty(per_prior, dtype=torch.float32),
        pred_boxes.new_empty(per_gt, dtype=torch.int64),
        pred_boxes.new_empty(per_prior, dtype=torch.int32),
        pred_boxes.new_empty(0 if config_of(config).rule == "simota" else per_prior, dtype=torch.float32),
    )


_LIBRARY.impl("assign", _assign, "CompositeExplicitAutograd")
torch.library.register_fake("simota_triton::assign", _fake, lib=_LIBRARY)
