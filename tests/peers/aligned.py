"""Assign a scene by an original of the task-aligned family and by us, and judge every prior of both answers.

A prior's answer is right if it follows from metrics, overlaps and depths that float32 may have rounded
differently: each is given an interval about its float64 value, and what an interval leaves open may go either
way. An original may fill up its ``topk`` with priors of metric 0, which ours never selects: positives that it
scores at 0 are counted as documented, and conflicts that such a selection makes are allowed for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from simota_triton import TaskAlignedConfig, backends
from simota_triton.boxes import SMALLEST
from simota_triton.inputs import pack
from simota_triton.problem import Problem
from simota_triton.rotated import in_frame
from simota_triton.task_aligned import terms
from simota_triton.task_aligned.reference import metric_matrix

from .compare import Tally
from .peer import Peer, to_cxcywh
from .scenes import Scene, make_scene

OVERLAP_ERROR = 2e-6
"""How far float32 may move an overlap, beside what rounding of a sum of coordinates does to CIoU."""

METRIC_ERROR = 1e-5
"""Relative error of a metric, beside what its overlap's makes of it."""

DEPTH_ERROR = 2.0**-21
"""Of how deep a point lies inside a box, relative to the largest coordinate."""

SCORE_ERROR = 1e-5
"""Relative error of a target, beside what the errors of overlaps make of it."""


@dataclass(frozen=True)
class AlignedPeer(Peer):
    """An original of the task-aligned family; ``load`` returns ``assign(scene, **arguments) -> Targets``.

    Attributes:
        rotated: It assigns rotated boxes.
    """

    rotated: bool = False


class Targets(NamedTuple):
    """What priors learn.

    Attributes:
        fg_mask: [B, P] bool.
        labels: [B, P] int64; of background not looked at.
        boxes: [B, P, 4], as labels.
        scores: [B, P] target of the label's class, 0 for background; None: the original forms none.
    """

    fg_mask: Tensor
    labels: Tensor
    boxes: Tensor
    scores: Tensor | None

    def owners(self, scene: Scene) -> Tensor:
        """[B, P] int64, the first gt of that label and box, -1 for background. Under conflicts among all gts
        of the image an original may give a prior of metric 0 to padding, which counts as gt G.
        """
        owners = torch.full(self.fg_mask.shape, -1)
        for b, (boxes, labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True)):
            prior = self.fg_mask[b].nonzero().squeeze(1)
            same = (self.boxes[b, prior, None] == boxes).all(2) & (self.labels[b, prior, None] == labels)
            if not len(prior):
                continue
            found = same.any(1)
            assert found.all() or not self.scores[b, prior[~found]].any(), "a positive learns what is no gt"
            owners[b, prior] = torch.where(found, same.byte().argmax(1), len(boxes))
        return owners


def of_dense(labels: Tensor, boxes: Tensor, scores: Tensor, fg_mask: Tensor) -> Targets:
    """Targets whose scores are dense, [B, P, C]."""
    return Targets(fg_mask.bool(), labels.long(), boxes, scores.float().sum(2))


def compare_aligned(
    peer: AlignedPeer, assign: Callable[..., Targets], seeds: Iterable[int], names: Iterable[str]
) -> Tally:
    """Compare on the scenes of ``seeds``, with every backend in ``names`` and with the drop-in."""
    tally = Tally()
    drop_in = peer.drop_in and peer.drop_in()
    for seed in seeds:
        scene = make_scene(seed, peer.strides, peer.offset, inverted=peer.inverted)
        if peer.rotated:
            scene = turned(scene)
        arguments, overrides = peer.variants[seed // 7 % len(peer.variants)]
        config = TaskAlignedConfig.from_preset(peer.preset, **{"score": "prob", **overrides})
        problem = pack(
            config,
            scene.pred_boxes,
            scene.cls_logits.sigmoid(),
            scene.priors,
            scene.gt_boxes,
            scene.gt_labels,
        )
        theirs = assign(scene, **arguments)
        verdict = Verdict(problem, config, scene)
        tally.scenes += 1
        tally.positives += int(theirs.fg_mask.sum())
        zero = torch.zeros_like(theirs.fg_mask)
        if theirs.scores is not None:
            zero = theirs.fg_mask & (theirs.scores == 0)
        tally.unexplained += verdict.of(theirs.owners(scene), f"scene {seed}, original", ~zero)
        answers = {name: ours(scene, problem, config, name) for name in names}
        if drop_in:
            answers["drop-in"] = drop_in(scene, **arguments)
        for name, answer in answers.items():
            where = f"scene {seed}, {name}"
            owners = answer.owners(scene)
            differing = owners != theirs.owners(scene)
            tally.differing += int(differing.sum())
            tally.documented += int((differing & zero).sum())
            tally.excused += int((differing & ~zero).sum())
            tally.unexplained += verdict.of(owners, where, torch.ones_like(zero))
            tally.unexplained += scores_differ(scene, theirs, answer, zero, verdict.doubt, where)
    return tally


def turned(scene: Scene) -> Scene:
    """The scene with boxes (cx, cy, w, h, angle): gts at any angle, predictions near that of some gt."""
    generator = torch.Generator().manual_seed(scene.seed)

    def turn(boxes: Tensor, angle: Tensor) -> Tensor:
        boxes = to_cxcywh(boxes)
        return torch.cat([boxes[..., :2], boxes[..., 2:].clamp(min=0.5), angle[..., None]], -1)

    gts, predictions = [], []
    for boxes, pred in zip(scene.gt_boxes, scene.pred_boxes, strict=True):
        angle = 3.14 * (torch.rand(len(boxes), generator=generator) - 0.25)
        near = torch.zeros(len(pred))
        if len(boxes):
            near = angle[torch.cdist(to_cxcywh(pred)[:, :2], to_cxcywh(boxes)[:, :2]).argmin(1)]
        gts.append(turn(boxes, angle))
        predictions.append(turn(pred, near + 0.1 * torch.randn(len(pred), generator=generator)))
    return replace(scene, gt_boxes=gts, pred_boxes=torch.stack(predictions))


def ours(scene: Scene, problem: Problem, config: TaskAlignedConfig, backend: str) -> Targets:
    """The answer of a backend."""
    matching = backends.assign(backend, problem, config)
    fg_mask = matching.gt_index >= 0
    row = (problem.gts.offsets[:-1, None] + matching.gt_index).clamp(0, max(len(problem.gts.labels) - 1, 0))
    if not len(problem.gts.labels):
        return Targets(fg_mask, fg_mask.long(), scene.pred_boxes, matching.scores)
    return Targets(fg_mask, problem.gts.labels[row], problem.gts.boxes[row], matching.scores)


def scores_differ(
    scene: Scene, theirs: Targets, answer: Targets, zero: Tensor, doubt: Tensor, where: str
) -> list[str]:
    """A line if scores differ on priors of gts that own the same priors in both answers."""
    if theirs.scores is None or answer.scores is None:
        return []
    lines = []
    first, second = (targets.owners(scene) for targets in (theirs, answer))
    first = torch.where(zero, -1, first)
    for b, boxes in enumerate(scene.gt_boxes):
        for gt in first[b][first[b] >= 0].unique().tolist():
            mine = first[b] == gt
            twins = (boxes == boxes[gt]).all(1).sum() > 1
            if twins or not torch.equal(mine, second[b] == gt):
                continue
            error = (theirs.scores[b, mine] - answer.scores[b, mine]).abs()
            slack = SCORE_ERROR + 2 * float(doubt[b, gt, mine].max())
            if bool((error > slack * theirs.scores[b, mine] + 1e-7).any()):
                lines.append(f"{where}: image {b}, gt {gt}: scores differ by {float(error.max()):.3g}")
    return lines


class Verdict:
    """Which answers float32 may give for the priors of a problem.

    Attributes:
        owned: [B, G, P] bool, the prior may go to the gt.
        background: [B, P] bool, the prior may go to nobody.
        doubt: [B, G, P] relative error of the metric.
    """

    def __init__(self, problem: Problem, config: TaskAlignedConfig, scene: Scene) -> None:
        metric, overlap, _, gt_mask = metric_matrix(problem, config, torch.float64)
        self.first = [_first_of_twins(*gts) for gts in zip(scene.gt_boxes, scene.gt_labels, strict=True)]
        if not metric.shape[1]:
            self.owned = torch.zeros(metric.shape, dtype=torch.bool)
            self.background = torch.ones(metric.shape[::2], dtype=torch.bool)
            self.doubt = metric
            return
        exists = gt_mask[:, :, None].expand_as(metric)
        row, _ = problem.gts.padded_rows()
        boxes = problem.gts.boxes[row][:, :, None].double()  # [B, G, 1, 4]
        surely_in, maybe_in = self._regions(problem, boxes, exists, config)
        error = OVERLAP_ERROR + self._overlap_error(
            boxes, problem.pred_boxes[:, None].double(), overlap, config
        )
        self.doubt = config.beta * error / overlap.clamp(min=1e-30)
        power = torch.where(overlap > 0, ((overlap + error) / overlap.clamp(min=1e-30)) ** config.beta, 0.0)
        low = torch.where(
            overlap > error, metric * ((overlap - error) / overlap) ** config.beta, torch.zeros_like(metric)
        ) * (1 - METRIC_ERROR)
        # a class score below the normal numbers is 0 here, and may be more there
        least = SMALLEST**config.alpha * (overlap + error).clamp(min=0) ** config.beta
        least = torch.where(overlap > error, least, error**config.beta)
        high = torch.maximum(metric * power, least) * (1 + METRIC_ERROR)

        # what each gt selects
        pools = (exists, exists) if config.pool == "all" else (surely_in, maybe_in)
        before, ahead = _above(low, pools[0], high), _above(high, pools[1], low) - 1
        maybe = maybe_in & (before < config.topk)
        surely = surely_in & (ahead < config.topk) & (low > 0)
        if config.at_least_one:
            lonely = ~surely.any(2, keepdim=True)
            best = exists & (high >= low.amax(2, keepdim=True)) & lonely
            surely = surely | (best & ~maybe.any(2, keepdim=True) & (best.sum(2, keepdim=True) == 1))
            maybe = maybe | best

        # whom each prior goes to
        others = surely.sum(1, keepdim=True) - surely.long()
        alone = maybe & (others == 0)
        rivals, sure_rivals = {
            "inside": (maybe_in, surely_in), "all": (exists, exists), "matched": (maybe, surely),
        }[config.conflict]  # fmt: skip
        best = torch.where(sure_rivals, overlap - error, -1.0).amax(1, keepdim=True)
        wins = rivals & (overlap + error >= best) & (maybe.sum(1, keepdim=True) > 1)
        owned, background = alone | wins, ~surely.any(1)
        if config.topk2 is not None:
            states = owned.sum(1, keepdim=True) + background[:, None].long()
            certain = owned & (states == 1)
            may_lose = owned & (_above(high, owned, low) - 1 >= config.topk2)
            background = background | may_lose.any(1)
            owned = owned & (_above(low, certain, high) < config.topk2)
        self.owned, self.background = owned, background

    @staticmethod
    def _regions(
        problem: Problem, boxes: Tensor, exists: Tensor, config: TaskAlignedConfig
    ) -> tuple[Tensor, Tensor]:
        region = terms.region_boxes(boxes, config)
        if config.boxes == "rotated":
            x, y = in_frame(problem.priors.double(), region)  # [B, G, P]
            x2, y2 = region[..., 2] / 2, region[..., 3] / 2
            x1, y1 = -x2, -y2
        else:
            x, y = (problem.priors[:, i].double() for i in (0, 1))
            x1, y1, x2, y2 = region.unbind(-1)
        sides = torch.stack([x - x1, y - y1, x2 - x, y2 - y])  # [4, B, G, P]
        deep = sides.amin(0) - config.margin
        slack = DEPTH_ERROR * max(float(region.abs().max()), float(problem.priors.abs().max()))
        surely, maybe = exists & (deep > slack), exists & (deep >= -slack)
        if config.max_reach is not None:
            stride = problem.priors[:, 2].double()
            reach = sides.amax(0) / stride - config.max_reach
            surely, maybe = surely & (reach < -1e-5), maybe & (reach <= 1e-5)
        return surely, maybe

    @staticmethod
    def _overlap_error(boxes: Tensor, pred: Tensor, overlap: Tensor, config: TaskAlignedConfig) -> Tensor:
        """What float32 makes of CIoU, by rounding sums of coordinates in the distance of two centres, and of
        ProbIoU, by rounding determinants and a logarithm before the root.
        """
        if config.overlap == "probiou":
            spread, other = (values[..., 2:4].square() / 12 for values in (boxes, pred))
            thin = [values.amax(-1) / values.amin(-1).clamp(min=1e-9) for values in (spread, other)]
            lost = 2.0**-22 * (1 + torch.maximum(*thin))
            return lost / (2 * (1 - overlap).clamp(min=3e-4)) + 1e-6
        if config.overlap != "ciou":
            return torch.zeros((), dtype=torch.float64)
        low, high = (torch.minimum(boxes, pred), torch.maximum(boxes, pred))
        diagonal = (high[..., 2:] - low[..., :2]).square().sum(-1) + config.union_eps
        gap = (boxes[..., :2] + boxes[..., 2:] - pred[..., :2] - pred[..., 2:]).norm(dim=-1) / 2
        rounding = 2.0**-22 * torch.maximum(boxes.abs().amax(-1), pred.abs().amax(-1))
        return (2 * gap + rounding) * rounding / diagonal

    def of(self, owners: Tensor, where: str, judged: Tensor) -> list[str]:
        """A line if some prior in ``judged`` [B, P] has an owner that it may not have."""
        lines = []
        for b, first in enumerate(self.first):
            owned = torch.zeros((len(first) + 1, owners.shape[1]), dtype=torch.bool)
            for gt, own in enumerate(first.tolist()):  # twins are one
                owned[own] |= self.owned[b, gt]
            owned[-1] = self.background[b]
            right = owned.gather(0, owners[b][None].where(owners[b] >= 0, len(first)))[0]
            wrong = (~right & judged[b]).nonzero().squeeze(1).tolist()
            if wrong:
                lines.append(
                    f"{where}: image {b}: priors {wrong[:5]} (of {len(wrong)}) go to "
                    f"{owners[b, wrong[:5]].tolist()}"
                )
        return lines


def _first_of_twins(boxes: Tensor, labels: Tensor) -> Tensor:
    """[G] the first gt with the same box and label as each."""
    same = (boxes[:, None] == boxes).all(2) & (labels[:, None] == labels)
    return same.byte().argmax(1) if len(boxes) else labels


def _above(values: Tensor, among: Tensor, thresholds: Tensor) -> Tensor:
    """How many ``values`` of each row [B, G, P] in ``among`` are above (or at) each of its thresholds."""
    ranked = torch.where(among, values, -1.0).sort(2).values
    return values.shape[2] - torch.searchsorted(ranked, thresholds.contiguous())
