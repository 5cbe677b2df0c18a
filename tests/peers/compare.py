"""Assign a scene by an original and by us, and judge every prior on which they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from simota_triton import SimOTAConfig, backends
from simota_triton.inputs import pack
from simota_triton.matching import Matching
from simota_triton.problem import Problem
from simota_triton.terms import in_region
from simota_triton.verification.judge import judge

from .peer import Owners, Peer
from .scenes import Scene, make_scene


@dataclass
class Tally:
    """What a comparison found.

    Attributes:
        scenes: Scenes compared.
        positives: Priors that the original assigned.
        differing: Priors whose gt differs, summed over our backends and the drop-in.
        documented: Of these, those under a documented deviation.
        excused: Of these, those whose answers are near-ties on both sides, by the judge.
        unexplained: One line for each thing left over.
    """

    scenes: int = 0
    positives: int = 0
    differing: int = 0
    documented: int = 0
    excused: int = 0
    unexplained: list[str] = field(default_factory=list)


def compare(peer: Peer, assign: Callable[..., Owners], seeds: Iterable[int], names: Iterable[str]) -> Tally:
    """Compare on the scenes of ``seeds``, with every backend in ``names`` and with the drop-in."""
    tally = Tally()
    drop_in = peer.drop_in and peer.drop_in()
    for seed in seeds:
        scene = make_scene(seed, peer.strides, peer.offset, inverted=peer.inverted)
        if peer.on_grid:
            scene = scene.on_grid()
        arguments, overrides = peer.variants[seed // 7 % len(peer.variants)]
        config = SimOTAConfig.from_preset(peer.preset, **overrides)
        problem = pack_scene(scene, peer, config)
        original = assign(scene, candidates(problem, config), **arguments)
        tally.scenes += 1
        tally.positives += int((original.gt_index >= 0).sum())
        for name in names:
            compare_matchings(
                config,
                problem,
                original,
                backends.assign(name, problem, config),
                f"scene {seed}, {name}",
                tally,
            )
        if drop_in:
            ours = as_matching(drop_in(scene, candidates(problem, config), **arguments))
            compare_matchings(config, problem, original, ours, f"scene {seed}, drop-in", tally)
    return tally


def as_matching(owners: Owners) -> Matching:
    """An assignment in the form of a backend's answer."""
    return Matching(owners.gt_index, owners.iou, torch.cat(owners.dynamic_k), owners.claims)


def pack_scene(scene: Scene, peer: Peer, config: SimOTAConfig) -> Problem:
    """Our form of the scene."""
    obj_logits = scene.obj_logits if config.score == "joint" else None
    return pack(
        config,
        scene.pred_boxes,
        scene.cls_logits,
        scene.priors,
        scene.gt_boxes,
        scene.gt_labels,
        obj_logits=obj_logits,
        **peer.extras(scene),
    )


def candidates(problem: Problem, config: SimOTAConfig) -> Tensor:
    """[B, P] bool, the priors that take part."""
    row, valid = problem.gts.padded_rows()
    boxes, centers = problem.gts.boxes[row][:, :, None], problem.gts.centers[row][:, :, None]
    inside = in_region(problem.priors[None, None], boxes, centers, config.candidate, config.center_radius)
    inside = (inside & valid[..., None]).any(1)
    return inside if problem.candidate_mask is None else inside & problem.candidate_mask


def compare_matchings(
    config: SimOTAConfig, problem: Problem, original: Owners, ours: Matching, where: str, tally: Tally
) -> None:
    """Judge one answer of ours against the original's."""
    theirs = as_matching(original)
    differing = theirs.gt_index != ours.gt_index
    tally.differing += int(differing.sum())
    tally.documented += int((differing & original.documented).sum())
    theirs = theirs._replace(
        **{
            name: torch.where(original.documented, getattr(ours, name), getattr(theirs, name))
            for name in ("gt_index", "matched_iou", "claims")
        }
    )
    differing = theirs.gt_index != ours.gt_index
    same_iou = bool(
        torch.allclose(theirs.matched_iou, ours.matched_iou, rtol=0, atol=1e-6) or differing.any()
    )
    if same_iou and not differing.any() and torch.equal(theirs.dynamic_k, ours.dynamic_k):
        return
    wrong = [
        f"{where}, {who}: {line}"
        for who, side in (("original", theirs), ("ours", ours))
        for line in judge(side, problem, config).unexplained
    ]
    tally.unexplained += wrong
    if not wrong:
        tally.excused += int(differing.sum())
