"""The scratch memory of a call: one allocation, and the parts that kernels see of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...config import SimOTAConfig, TaskAlignedConfig
from ...tuning.stream_config import StreamConfig
from .. import constants as const
from ..rule import AlignedRule, Rule
from .grid import Grid

Parts = dict[str, tuple[torch.dtype, int]]
"""Dtype and elements of each part, by name."""


class Scratch(NamedTuple):
    """Parts of the scratch memory; None where a rule has no use for one. Who writes and who reads each is in
    the guides, ``kernels.stream`` and ``kernels.stream.aligned``.

    Attributes:
        slots: [B, T, planes, TILE], see ``prepare``.
        points: [T, POINT, TILE], see ``constants.POINT``.
        tiles: [B, ceil(T / 32), SUMMARY, 32], see ``constants.SUMMARY``.
        slot_of: [P], the slot of each prior.
        num_conflicts: Entries of ``conflicts`` in use; one number, the rest is padding.
        gts: The table of gts, [N, GT_COLUMNS] float32, two of which are one int64.
        conflicts: Image and slot of each prior that several gts claim.
        conflict_costs: The cost of one claim on each entry of ``conflicts``.
        top_ious: [N, splits, LANES], lists of largest IoUs.
        unreadable: [B], whether an image has an unreadable prior, see ``class_sums``.
        cheapest_claims: [B, P], the cheapest claim on each prior, or None where none is asked for.
        largest: [N, 1 + topk2], see ``aligned.targets``.
    """

    slots: Tensor
    points: Tensor
    tiles: Tensor
    slot_of: Tensor
    num_conflicts: Tensor
    gts: Tensor
    conflicts: Tensor
    conflict_costs: Tensor | None = None
    top_ious: Tensor | None = None
    unreadable: Tensor | None = None
    cheapest_claims: Tensor | None = None
    largest: Tensor | None = None


def scratch_parts(
    batch: int,
    num_priors: int,
    num_gts: int,
    config: SimOTAConfig | TaskAlignedConfig,
    grid: Grid,
    kernels: StreamConfig,
) -> Parts:
    """What a call needs."""
    # two claims at least make a conflict
    most = config.max_dynamic_k if isinstance(config, SimOTAConfig) else config.topk
    conflicts = min(batch * num_priors, num_gts * most // 2) + 1
    if isinstance(config, SimOTAConfig):
        planes, compares_claims = Rule.of(config).planes, config.conflict == "matched"
        own: Parts = {
            "conflict_costs": (torch.float32, conflicts),
            "top_ious": (torch.int32, const.LANES.value * kernels.splits * num_gts),
            "unreadable": (torch.int32, batch),
        }
    else:
        rule = AlignedRule.of(config)
        planes, compares_claims = rule.planes, rule.compares_claims
        own = {"largest": (torch.int64, (1 + rule.topk2) * num_gts)}
    slots = grid.num_tiles * kernels.tile
    parts = {
        "slots": (torch.float32, planes * batch * slots),
        "points": (torch.float32, const.POINT.value * slots),
        "tiles": (torch.float32, const.SUMMARY.value * 32 * batch * -(-grid.num_tiles // 32)),
        "slot_of": (torch.int32, num_priors),
        "num_conflicts": (torch.int32, 1),
        "gts": (torch.int64, const.GT_COLUMNS.value // 2 * num_gts),
        "conflicts": (torch.int64, conflicts),
        **own,
    }
    if compares_claims:
        parts["cheapest_claims"] = (torch.int64, batch * num_priors)
    # every part begins at a multiple of 16 bytes: Triton compiles a kernel again for an address that does not
    return {name: (dtype, -(-elements // 4) * 4) for name, (dtype, elements) in parts.items()}


def scratch_bytes(parts: Parts) -> int:
    """Bytes of all parts together."""
    return sum(dtype.itemsize * elements for dtype, elements in parts.values())


def allocate(parts: Parts, device: torch.device) -> Scratch:
    """All parts in one allocation.

    Raises:
        torch.OutOfMemoryError: It does not fit; the message says how much is needed.
    """
    try:
        memory = torch.empty(scratch_bytes(parts), dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"backend: 'triton-stream' needs {scratch_bytes(parts) / 1e6:.1f} MB of scratch memory for this "
            "batch; use fewer images at once, or free memory that PyTorch has cached with "
            f"torch.cuda.empty_cache() ({error})"
        ) from error
    pieces = memory.split_with_sizes([dtype.itemsize * elements for dtype, elements in parts.values()])
    return Scratch(
        **{name: piece.view(dtype) for (name, (dtype, _)), piece in zip(parts.items(), pieces, strict=True)}
    )
