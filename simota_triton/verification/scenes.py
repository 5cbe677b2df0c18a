"""Seeded small scenes: inputs of an assigner that are realistic, crowded, degenerate or hostile.

``make_scene(seed)`` gives the same scene for the same seed on every machine. A scene fits every
configuration: it hands out objectness where the score is "joint" and probabilities where it is "prob".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..boxes import ROTATED
from ..inputs import pack
from ..measure.simulate import PHASES, simulate_predictions
from ..priors import grid_priors
from ..problem import Problem

FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
INT: dict[str, Any] = {"dtype": torch.int64, "device": "cpu"}

FORMS = ("list", "padded", "scattered", "packed", "spare")
"""How gts are handed over. "scattered" is padded with real gts and padding in any order: indices then differ.
"spare" is packed, with rows before and behind those that images own."""

LAYOUTS = ("flat", "strided", "maps")
"""How logits are handed over: contiguous, a view with gaps or other strides, the head's level maps."""

CLASSES = (*(1, 2, 3, 5, 20) * 6, 80, 80, 365, 1203)
"""Numbers of classes, as often as they come."""

LEVEL = 60.0
"""How far from 0 the level of logits may lie."""

NOT_FINITE = (float("nan"), -float("nan"), float("inf"), -float("inf"))

JUNK_BOXES = (
    (float("nan"),) * 4,
    (float("inf"),) * 4,
    (0.0, 0.0, 0.0, 0.0),
    (-1e30, -1e30, 1e30, 1e30),
    (0.0, 0.0, 64.0, 64.0),
)
JUNK_LABELS = (-1, 0, 1, 1 << 40, -(1 << 62))


@dataclass
class Scene:
    """Inputs of one call, with gts as lists of B tensors."""

    seed: int
    family: str
    priors: Tensor  # [P, 4], or [P, 2] where strides are of no use
    cells: list[tuple[int, int]]  # rows and columns of each level
    num_classes: int
    gt_boxes: list[Tensor]
    gt_labels: list[Tensor]
    pred_boxes: Tensor = field(default_factory=lambda: torch.empty(0, **FLOAT))  # [B, P, 4]
    cls_logits: Tensor = field(default_factory=lambda: torch.empty(0, **FLOAT))  # [B, P, C]
    obj_logits: Tensor = field(default_factory=lambda: torch.empty(0, **FLOAT))  # [B, P, 1]
    gt_centers: list[Tensor] | None = None
    ignore_boxes: list[Tensor] | None = None
    candidate_mask: Tensor | None = None  # [B, P] or [P]

    def call(self, assigner: Any, form: str = "list", layout: str = "flat", **overrides: Any) -> Any:
        """What ``assigner`` makes of the scene."""
        args, kwargs = self.inputs(assigner.config.score, form, layout)
        given = {name: value for name, value in kwargs.items() if value is not None}
        return assigner(*args, **{**given, **overrides})

    def problem(self, config: Any, form: str = "list", layout: str = "flat") -> Problem:
        """The scene, checked and packed."""
        args, kwargs = self.inputs(config.score, form, layout)
        return pack(config, *args, **kwargs)

    def turn(self) -> None:
        """Make all boxes rotated ones (cx, cy, w, h, angle): gts at any angle, predictions near that of the
        gt next to their prior.
        """
        generator = torch.Generator().manual_seed(self.seed)

        def turned(boxes: Tensor, angle: Tensor) -> Tensor:
            low, high = boxes[..., :2], boxes[..., 2:]
            return torch.cat([(low + high) / 2, high - low, angle[..., None]], -1)

        angles = [torch.rand(len(boxes), generator=generator, **FLOAT) * 6.3 - 1.6 for boxes in self.gt_boxes]
        near = torch.randn(self.pred_boxes.shape[:2], generator=generator, **FLOAT) * 0.1
        for b, (boxes, angle) in enumerate(zip(self.gt_boxes, angles, strict=True)):
            if len(boxes):
                away = torch.cdist(self.priors[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2)  # [P, G]
                near[b] += angle[away.argmin(1)]
        self.gt_boxes = [turned(*pair) for pair in zip(self.gt_boxes, angles, strict=True)]
        for boxes in self.gt_boxes:
            boxes[:, 2:4].clamp_(min=0)  # a side below 0 is refused
        self.pred_boxes = turned(self.pred_boxes, near.to(self.pred_boxes.dtype))

    def spoil(self, claims: Tensor) -> None:
        """Put values that are not finite where they matter: into some of the priors that gts have claimed [B,
        P], contested ones first.
        """
        rng = random.Random(self.seed)
        claimed = claims.nonzero().tolist()
        claimed.sort(key=lambda place: (-int(claims[place[0], place[1]]), rng.random()))
        for b, p in claimed[: rng.randint(1, 3)]:
            values = rng.choice(
                [self.cls_logits, self.cls_logits, self.cls_logits, self.obj_logits, self.pred_boxes]
            )
            values[b, p, rng.randrange(values.shape[2])] = rng.choice(NOT_FINITE)

    def inputs(
        self, score: str, form: str = "list", layout: str = "flat"
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of an assigner whose configuration has this ``score``."""
        rng = random.Random(self.seed)
        cls = (
            self.cls_logits.float().sigmoid().to(self.cls_logits.dtype)
            if score == "prob"
            else self.cls_logits
        )
        kwargs: dict[str, Any] = {"ignore_boxes": self.ignore_boxes, "candidate_mask": self.candidate_mask}
        if score == "joint":
            kwargs["obj_logits"] = self._laid_out(self.obj_logits, layout, rng)
        gts = {
            "list": self._as_list,
            "padded": self._padded,
            "scattered": self._padded,
            "packed": self._packed,
            "spare": self._packed,
        }[form]
        boxes, labels, more = gts(rng, form)
        return (self.pred_boxes, self._laid_out(cls, layout, rng), self.priors, boxes, labels), {
            **kwargs,
            **more,
        }

    def _as_list(self, rng: random.Random, form: str) -> tuple[Any, Any, dict[str, Any]]:
        return self.gt_boxes, self.gt_labels, {"gt_centers": self.gt_centers}

    def _packed(self, rng: random.Random, form: str) -> tuple[Any, Any, dict[str, Any]]:
        dtype = rng.choice([torch.int64, torch.int32])
        before, behind = (rng.randint(0, 3), rng.randint(1, 3)) if form == "spare" else (0, 0)
        offsets = torch.tensor([before] + [len(b) for b in self.gt_boxes], **INT).cumsum(0).to(dtype)
        junk = [
            torch.tensor([rng.choice(JUNK_BOXES) for _ in range(n)], **FLOAT).view(n, 4)
            for n in (before, behind)
        ]
        boxes = torch.cat([_like(self.gt_boxes, junk[0]), *self.gt_boxes, _like(self.gt_boxes, junk[1])])
        junk = [torch.tensor([rng.choice(JUNK_LABELS) for _ in range(n)], **INT) for n in (before, behind)]
        labels = torch.cat([junk[0], *self.gt_labels, junk[1]])
        centers = None
        if self.gt_centers is not None:
            centers = torch.cat([torch.full((n, 2), float("nan"), **FLOAT) for n in (before, behind)])
            centers = torch.cat([centers[:before], *self.gt_centers, centers[before:]])
        return boxes, labels, {"gt_offsets": offsets, "gt_centers": centers}

    def _padded(self, rng: random.Random, form: str) -> tuple[Any, Any, dict[str, Any]]:
        batch, width = len(self.gt_boxes), max(map(len, self.gt_boxes), default=0) + rng.randint(0, 4)
        boxes = torch.tensor(
            [[rng.choice(JUNK_BOXES) for _ in range(width)] for _ in range(batch)], **FLOAT
        ).view(batch, width, 4)
        boxes = _like(self.gt_boxes, boxes)
        labels = torch.tensor(
            [[rng.choice(JUNK_LABELS) for _ in range(width)] for _ in range(batch)], **INT
        ).view(batch, width)
        centers = torch.full((batch, width, 2), float("nan"), **FLOAT)
        mask = torch.zeros(batch, width, dtype=torch.bool, device="cpu")
        for b, own in enumerate(self.gt_boxes):
            slots = (
                sorted(rng.sample(range(width), len(own))) if form == "scattered" else list(range(len(own)))
            )
            boxes[b, slots], labels[b, slots], mask[b, slots] = own, self.gt_labels[b], True
            if self.gt_centers is not None:
                centers[b, slots] = self.gt_centers[b]
        return boxes, labels, {"gt_mask": mask, "gt_centers": None if self.gt_centers is None else centers}

    def _laid_out(self, logits: Tensor, layout: str, rng: random.Random) -> Any:
        batch, num_priors, channels = logits.shape
        if layout == "maps":
            levels = logits.split([rows * columns for rows, columns in self.cells], dim=1)
            maps = [
                level.reshape(batch, *cell, channels).permute(0, 3, 1, 2)
                for level, cell in zip(levels, self.cells, strict=True)
            ]
            return [m if rng.random() < 0.5 else m.contiguous() for m in maps]
        if layout == "strided":
            if rng.random() < 0.5:
                return logits.transpose(1, 2).contiguous().transpose(1, 2)
            before, after = rng.randint(0, 5), rng.randint(1, 3)
            wide = torch.full(
                (batch, num_priors, before + channels + after), float("nan"), dtype=logits.dtype, device="cpu"
            )
            wide[..., before : before + channels] = logits
            return wide[..., before : before + channels]
        return logits


def make_scene(seed: int, family: str | None = None) -> Scene:
    """The scene of this seed; its family follows from the seed unless given."""
    rng = random.Random(seed)
    family = family or FAMILIES[seed % len(FAMILIES)]
    generator = torch.Generator().manual_seed(seed)
    size = rng.choice([64, 96, 128, 160])
    strides = rng.choice([(8, 16, 32), (8, 16, 32), (16, 32), (8,)]) if size < 160 else (8, 16, 32)
    crowd = family == "crowded"
    batch = rng.randint(1, 2) if crowd else rng.randint(1, 4)
    counts = [rng.randint(20, 60) if crowd else rng.choice([0, 1, 2, 3, 5, 8, 12]) for _ in range(batch)]
    if family not in ("empty_images", "all_empty"):
        counts[0] = max(counts[0], 1)
    scene = Scene(
        seed=seed,
        family=family,
        priors=grid_priors(size, strides, rng.choice([0.0, 0.5])),
        cells=[(-(-size // s), -(-size // s)) for s in strides],
        num_classes=rng.choice(CLASSES),
        gt_boxes=[],
        gt_labels=[],
    )
    build = globals()[f"_{family}"]
    before: Callable[..., None] | None = build if build in _BEFORE else None
    _gts(scene, counts, size, generator, median=rng.choice([12.0, 32.0, 64.0]))
    _repeat(scene, rng)
    if before:
        before(scene, size, rng, generator)
    _predict(scene, rng.choice([*PHASES, "noisy", "noisy"]) if family not in PHASES else family, generator)
    _move_levels(scene, rng, generator)
    if not before:
        build(scene, size, rng, generator)
    _options(scene, size, rng, generator)
    return scene


def _gts(scene: Scene, counts: list[int], size: int, generator: torch.Generator, median: float) -> None:
    for count in counts:
        side = median * torch.exp(0.7 * torch.randn(count, 2, generator=generator, **FLOAT))
        center = torch.rand(count, 2, generator=generator, **FLOAT) * size
        scene.gt_boxes.append(torch.cat([center - side / 2, center + side / 2], 1).clamp(0, size))
        scene.gt_labels.append(torch.randint(scene.num_classes, (count,), generator=generator, **INT))


def _predict(scene: Scene, phase: str, generator: torch.Generator) -> None:
    """Predictions of a phase; "noisy" mixes near hits, hits on any gt and noise, with logits all over the
    range.
    """
    start = "mid" if phase == "noisy" else phase
    pred = simulate_predictions(
        scene.gt_boxes, scene.gt_labels, scene.priors, scene.num_classes, start, generator
    )
    scene.pred_boxes, scene.cls_logits, scene.obj_logits = pred
    if phase != "noisy":
        return
    num_priors = scene.pred_boxes.shape[1]
    scene.cls_logits = 3 * torch.randn(scene.cls_logits.shape, generator=generator, **FLOAT)
    scene.obj_logits = 3 * torch.randn(scene.obj_logits.shape, generator=generator, **FLOAT)
    for b, boxes in enumerate(scene.gt_boxes):
        if len(boxes):
            target = boxes[torch.randint(len(boxes), (num_priors,), generator=generator, **INT)]
            moved = target + 6 * torch.randn(num_priors, 4, generator=generator, **FLOAT)
            scene.pred_boxes[b] = torch.where(
                torch.rand(num_priors, 1, generator=generator, **FLOAT) < 0.5, moved, scene.pred_boxes[b]
            )


def _repeat(scene: Scene, rng: random.Random) -> None:
    """Some gts of an image once more, here and there."""
    for b, count in enumerate(map(len, scene.gt_boxes)):
        if count and rng.random() < 0.1:
            order = [*range(count), *rng.choices(range(count), k=rng.randint(1, 4))]
            scene.gt_boxes[b], scene.gt_labels[b] = scene.gt_boxes[b][order], scene.gt_labels[b][order]


def _move_levels(scene: Scene, rng: random.Random, generator: torch.Generator) -> None:
    """Logits to another level: all of the scene's, those of each image and prior, those of each class."""
    for logits in (scene.cls_logits, scene.obj_logits):
        batch, num_priors, channels = logits.shape
        for shape in ((1, 1, 1), (batch, num_priors, 1), (1, 1, channels)):
            if rng.random() < 0.2:
                reach = rng.choice([5.0, 20.0, 40.0, LEVEL])
                logits += reach * (2 * torch.rand(shape, generator=generator, **FLOAT) - 1)
        logits.clamp_(-100.0, 100.0)


def _options(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    batch, num_priors = scene.pred_boxes.shape[:2]
    if rng.random() < 0.15:
        shape = rng.choice([(num_priors,), (batch, num_priors)])
        scene.candidate_mask = torch.rand(shape, generator=generator, **FLOAT) < 0.7
    if rng.random() < 0.15:
        scene.gt_centers = [
            (b[:, :2] + b[:, 2:]) / 2 + 3 * torch.randn(len(b), 2, generator=generator, **FLOAT)
            for b in scene.gt_boxes
        ]
    if rng.random() < 0.1:
        corners = [
            torch.rand(rng.randint(0, 3), 2, 2, generator=generator, **FLOAT) * size for _ in range(batch)
        ]
        scene.ignore_boxes = [torch.cat([c.amin(1), c.amax(1)], 1) for c in corners]


# Families. Those in _BEFORE change gts and priors before predictions are simulated, the others what was
# predicted.


def _random(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    pass


_crowded = _untrained = _mid = _trained = _random


def _tiny(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    for b in range(len(scene.gt_boxes)):
        scene.gt_boxes[b][:, 2:] = (
            scene.gt_boxes[b][:, :2]
            + 0.5
            + 6 * torch.rand(len(scene.gt_boxes[b]), 2, generator=generator, **FLOAT)
        )


def _huge(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    scene.gt_boxes[0][0] = torch.tensor([-5.0, -3.0, size + 4.0, size + 9.0], **FLOAT)


def _duplicates(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    for b in range(len(scene.gt_boxes)):
        again = rng.choice([2, 3])
        labels = scene.gt_labels[b].repeat(again)
        if rng.random() < 0.5:
            labels = torch.randint(scene.num_classes, labels.shape, generator=generator, **INT)
        scene.gt_boxes[b], scene.gt_labels[b] = scene.gt_boxes[b].repeat(again, 1), labels


def _outside(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    for b in range(len(scene.gt_boxes)):
        shift = torch.randn(len(scene.gt_boxes[b]), 2, generator=generator, **FLOAT) * size
        scene.gt_boxes[b] = scene.gt_boxes[b] + shift.repeat(1, 2)


def _empty_images(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    b = rng.randrange(len(scene.gt_boxes))
    scene.gt_boxes[b], scene.gt_labels[b] = torch.zeros(0, 4, **FLOAT), torch.zeros(0, **INT)


def _all_empty(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    scene.gt_boxes = [torch.zeros(0, 4, **FLOAT) for _ in scene.gt_boxes]
    scene.gt_labels = [torch.zeros(0, **INT) for _ in scene.gt_labels]


def _few_priors(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    count = rng.choice([0, 1, 7])
    picked = torch.randperm(len(scene.priors), generator=generator, **INT)[:count]
    scene.priors, scene.cells = scene.priors[picked], [(1, count)]


def _one_class(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    scene.num_classes = 1
    scene.gt_labels = [torch.zeros_like(labels) for labels in scene.gt_labels]


def _odd_strides(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    strides = [rng.choice([5, 7, 9, 13, 24]), rng.choice([11, 27, 31])]
    levels = []
    scene.cells = []
    for stride in strides:
        stride_x, stride_y = stride, rng.choice([stride, stride * 1.5, stride + 3])
        rows, columns = int(size // stride_y) + 1, size // stride_x + 1
        y, x = torch.meshgrid(
            torch.arange(rows, **FLOAT) * float(stride_y),
            torch.arange(columns, **FLOAT) * float(stride_x),
            indexing="ij",
        )
        level = torch.stack([x, y, torch.full_like(x, stride_x), torch.full_like(y, stride_y)], -1)
        levels.append(level.reshape(-1, 4).float())
        scene.cells.append((rows, columns))
    scene.priors = torch.cat(levels)


def _shuffled(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    scene.priors = scene.priors[torch.randperm(len(scene.priors), generator=generator, **INT)]


def _flat_gts(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    for boxes in scene.gt_boxes:
        kind = torch.randint(5, (len(boxes),), generator=generator, **INT)
        boxes[kind == 0, 2] = boxes[kind == 0, 0]  # no width
        boxes[kind == 1, 2:] = boxes[kind == 1, :2]  # a point
        kind[::2] += kind[::2] == 2
        # inverted, at most half of them: more are refused
        boxes[kind == 2] = boxes[kind == 2][:, [2, 3, 0, 1]]


def _far(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    if rng.random() < 0.5:
        shift, scale = 1e6, 1.0
    else:
        shift, scale = 0.0, 1e6 / size
    scene.priors = scene.priors * scale
    scene.priors[:, :2] += shift
    scene.gt_boxes = [boxes * scale + shift for boxes in scene.gt_boxes]


def _edges(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    """Gts whose corners are points of priors."""
    points = scene.priors[:, :2]
    for boxes in scene.gt_boxes:
        corners = points[torch.randint(len(points), (len(boxes), 2), generator=generator, **INT)]
        boxes[:, :2], boxes[:, 2:] = corners.amin(1), corners.amax(1)


def _floors(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    """Gts whose sides are as long as those that are enlarged for a region, or almost."""
    sides = torch.tensor([7.9, 8.0, 8.1, 15.9, 16.0, 16.1], **FLOAT)
    inf = torch.tensor(torch.inf, **FLOAT)
    for boxes in scene.gt_boxes:
        boxes[:, :2] = boxes[:, :2].round()
        boxes[:, 2:] = boxes[:, :2] + sides[torch.randint(6, (len(boxes), 2), generator=generator, **INT)]
        side = torch.randint(3, (len(boxes), 2), generator=generator, **INT)  # an ulp less, exact, more
        high = boxes[:, 2:].clone()
        boxes[:, 2:] = torch.where(side == 0, high.nextafter(-inf), high)
        boxes[:, 2:] = torch.where(side == 2, high.nextafter(inf), boxes[:, 2:])


def _like(gt_boxes: list[Tensor], boxes: Tensor) -> Tensor:
    """Boxes [..., 4] with an angle, where gts have one."""
    return torch.cat([boxes, boxes[..., :1]], -1) if any(b.shape[1] == ROTATED for b in gt_boxes) else boxes


_BEFORE = {
    _tiny, _huge, _duplicates, _outside, _empty_images, _all_empty, _few_priors, _one_class, _odd_strides,
    _shuffled, _flat_gts, _far, _edges, _floors,
}  # fmt: skip


def _identical(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    scene.pred_boxes[:] = torch.tensor([size * 0.2, size * 0.25, size * 0.7, size * 0.6], **FLOAT)
    scene.cls_logits[:] = scene.cls_logits[0, 0].clone()
    scene.obj_logits[:] = 0.5


def _perfect(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    for b, boxes in enumerate(scene.gt_boxes):
        if len(boxes):
            target = boxes[torch.randint(len(boxes), (len(scene.priors),), generator=generator, **INT)]
            scene.pred_boxes[b] = torch.where(
                torch.rand(len(target), 1, generator=generator, **FLOAT) < 0.6, target, scene.pred_boxes[b]
            )


def _nonfinite(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    for values, share in (
        (scene.pred_boxes, 0.03),
        (scene.cls_logits, 0.03 / scene.num_classes**0.5),
        (scene.obj_logits, 0.05),
    ):
        for bad in (float("nan"), float("inf"), -float("inf")):
            values[torch.rand(values.shape, generator=generator, **FLOAT) < share] = bad
    overflow = torch.rand(scene.pred_boxes.shape[:2], generator=generator, **FLOAT) < 0.02
    scene.pred_boxes[overflow] = torch.tensor([-1e30, -1e30, 1e30, 1e30], **FLOAT)


def _flat_predictions(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    kind = torch.randint(6, scene.pred_boxes.shape[:2], generator=generator, **INT)
    scene.pred_boxes[..., 2] = torch.where(kind == 0, scene.pred_boxes[..., 0], scene.pred_boxes[..., 2])
    scene.pred_boxes[kind == 1] = scene.pred_boxes[kind == 1][:, [2, 3, 0, 1]]
    scene.pred_boxes[kind == 2] = scene.pred_boxes[kind == 2][:, [0, 1, 0, 1]]


def _saturated(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    for logits in (scene.cls_logits, scene.obj_logits):
        far = torch.rand(logits.shape, generator=generator, **FLOAT)
        logits[far < 0.4] = -50.0
        logits[far > 0.7] = 50.0


def _swapped(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    for b, boxes in enumerate(scene.gt_boxes):
        if len(boxes):
            scene.pred_boxes[b] = boxes.roll(1, 0)[
                torch.randint(len(boxes), (len(scene.priors),), generator=generator, **INT)
            ]
            scene.pred_boxes[b] += torch.randn(len(scene.priors), 4, generator=generator, **FLOAT)


def _half(scene: Scene, size: int, rng: random.Random, generator: torch.Generator) -> None:
    dtype = rng.choice([torch.float16, torch.bfloat16])
    scene.cls_logits, scene.obj_logits = scene.cls_logits.to(dtype), scene.obj_logits.to(dtype)
    if rng.random() < 0.3:
        scene.pred_boxes = scene.pred_boxes.to(dtype)


FAMILIES = (
    "random", "crowded", "tiny", "huge", "duplicates", "outside", "empty_images", "all_empty", "few_priors",
    "one_class", "odd_strides", "shuffled", "flat_gts", "far", "identical", "perfect", "nonfinite",
    "flat_predictions", "saturated", "swapped", "half", *PHASES,
)  # fmt: skip

ALIGNED_FAMILIES = (*FAMILIES, "edges", "floors")
"""Those of the task-aligned rule, whose regions may enlarge a gt."""
