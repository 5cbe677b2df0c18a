"""What the tests of the Triton kernels share: where they run, problems on that device, and a GPU's
approximate units for Triton's interpreter.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import TensorHandle

from simota_triton.backends import triton_fused, triton_stream
from simota_triton.config import SimOTAConfig, TaskAlignedConfig
from simota_triton.inputs import pack
from simota_triton.kernels import host
from simota_triton.kernels.stream import launch as stream
from simota_triton.matching import Matching
from simota_triton.measure.simulate import random_gts, simulate_predictions
from simota_triton.problem import Problem, map_tensors
from simota_triton.tuning.stream_config import StreamConfig

DEVICE = torch.device("cpu" if host.INTERPRETED else "cuda")
PRESETS = SimOTAConfig.presets()


def on_device(problem: Problem) -> Problem:
    """The problem where kernels run."""

    moved: Problem = map_tensors(lambda tensor: tensor.to(DEVICE), problem)  # keeps strides
    return moved


def random_inputs(
    num_priors: int, counts: list[int], num_classes: int, seed: int = 0, phase: str = "mid", size: int = 96
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]:
    """pred_boxes, cls_logits, obj_logits, priors, gt_boxes and gt_labels, with ``counts`` gts."""
    generator = torch.Generator().manual_seed(seed)
    stride = torch.tensor([4.0, 8.0, 16.0])[torch.randint(3, (num_priors, 1), generator=generator)].expand(
        -1, 2
    )
    priors = torch.cat([torch.rand(num_priors, 2, generator=generator) * size, stride], 1)
    gts = [random_gts(count, size, num_classes, generator, median=40.0) for count in counts]
    boxes, labels = [b for b, _ in gts], [label for _, label in gts]
    pred = simulate_predictions(boxes, labels, priors, num_classes, phase, generator)
    return pred.pred_boxes, pred.cls_logits, pred.obj_logits, priors, boxes, labels


def random_problem(
    config: SimOTAConfig, num_priors: int, counts: list[int], num_classes: int, seed: int = 0, **options: Any
) -> Problem:
    """A random problem, on the CPU."""
    pred, cls, obj, *rest = random_inputs(num_priors, counts, num_classes, seed)
    return pack(config, pred, cls, *rest, obj_logits=obj if config.score == "joint" else None, **options)


class Answer(NamedTuple):
    """A matching and its labels, on the CPU; see ``Matching``. Scores are the task-aligned rule's alone."""

    gt_index: Tensor
    matched_iou: Tensor
    dynamic_k: Tensor
    claims: Tensor
    labels: Tensor
    scores: Tensor | None = None

    @classmethod
    def of(cls, matching: Matching) -> Answer:
        values = matching._asdict().items()
        return cls(**{name: None if value is None else value.cpu() for name, value in values})


def fused(problem: Problem, config: SimOTAConfig) -> Answer:
    """What backend "triton" answers."""
    matching = triton_fused.assign(on_device(problem), config)
    gts, gt_index = problem.gts, matching.gt_index.cpu()
    labels = torch.full_like(gt_index, problem.shape[2])
    if gts.labels.shape[0]:
        row = torch.where(gt_index >= 0, gts.offsets[:-1, None] + gt_index, 0)
        labels = torch.where(gt_index >= 0, gts.labels[row], labels)
    return Answer.of(matching._replace(labels=labels))


def streamed(
    problem: Problem, config: SimOTAConfig | TaskAlignedConfig, kernels: StreamConfig | None = None
) -> Answer:
    """What backend "triton-stream" answers."""
    return Answer.of(triton_stream.assign(on_device(problem), config, kernels))


def assert_same(found: Answer, expected: Answer, what: Any = "") -> None:
    """Every value of two answers is the same to the bit."""
    for name, a, b in zip(Answer._fields, found, expected, strict=True):
        if a is None and b is None:
            continue
        assert (a.dtype, a.shape) == (b.dtype, b.shape), (
            f"{name}: {a.dtype} {list(a.shape)}, expected {b.dtype} {list(b.shape)}, {what}"
        )
        wrong = (a != b).nonzero().tolist()
        assert not wrong, (
            f"{name}: {len(wrong)} differ, at {wrong[0]}: {a[tuple(wrong[0])]}, expected "
            f"{b[tuple(wrong[0])]}, {what}"
        )


def random_launch(seed: int) -> StreamConfig:
    """Launch parameters of the streaming kernels that follow from the seed, small enough to prune scenes of
    some hundred priors.
    """
    rng = random.Random(seed)
    tile = rng.choice([32, 64, 64, 128, 256, 1024])
    return StreamConfig(
        tile=tile,
        rows=rng.choice([rows for rows in (8, 32, 256, 1024) if tile // 4 <= rows <= tile]),
        bounds=rng.choice([32, 64, 256]),
        iou_bounds=rng.choice([32, 128]),
        splits=rng.choice([1, 1, 2, 4, 4, 8]),
        gts=rng.choice([32, 128]),
        resolvers=rng.choice([1, 1, 3]),
    )


UNITS = {
    "rcp": (np.reciprocal, 2.0**-23),
    "lg2": (np.log2, 2.0**-22),
    "ex2": (np.exp2, 2.0**-22),
    "sqrt": (np.sqrt, 2.0**-23),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 2.0**-22.4),
}
"""Instruction -> what it computes, and its largest relative error (of lg2 between 0.5 and 2: absolute)."""


class ApproximateUnits:
    """Runs the kernels' inline PTX in NumPy, as wrong as PTX's manual allows.

    Every approximate instruction is off by up to its bound, one way for some operands and the other way for
    others, always the same for the same operand; subnormal numbers are flushed to zero.
    """

    def __init__(self, monkeypatch: Any) -> None:
        self.calls = 0
        monkeypatch.setattr(tl, "inline_asm_elementwise", self)
        monkeypatch.setattr(host, "FAST", True)
        for launch in (stream, stream.aligned):  # plans are kept, and hold FAST
            monkeypatch.setattr(launch, "_plan", launch._plan.__wrapped__)

    def __call__(self, asm: str, constraints: str, args: list[Any], **_: Any) -> Any:
        self.calls += 1
        values = [np.float32(arg.handle.data) for arg in args]
        unit = asm.split(".")[0]
        if unit == "fma":
            assert asm.startswith("fma.rn.sat.f32")
            a, b, c = (value.astype(np.float64) for value in values)
            result = np.nan_to_num(np.clip(np.float32(a * b + c), 0, 1), nan=0.0)
        else:
            assert asm.startswith(f"{unit}.approx.ftz.f32")
            result = self._approximate(unit, values[0])
        shaped = max(args, key=lambda arg: arg.handle.data.size)
        return tl.tensor(TensorHandle(result.astype(np.float32), tl.float32), shaped.type)

    def _approximate(self, unit: str, x: np.ndarray) -> np.ndarray:
        tiny = np.finfo(np.float32).tiny
        x = np.where(np.abs(x) < tiny, np.copysign(np.float32(0), x), x).astype(np.float32)
        function, bound = UNITS[unit]
        exact = function(x.astype(np.float64))
        sign = (x.view(np.uint32).astype(np.uint64) * 2654435761 >> 16) % 1024 / 511.5 - 1  # in [-1, 1]
        error = sign * bound
        absolute = (unit == "lg2") & (x >= 0.5) & (x <= 2)
        result = np.float32(np.where(absolute, exact + error, exact * (1 + error)))
        return np.where(np.abs(result) < tiny, np.float32(0), result)
