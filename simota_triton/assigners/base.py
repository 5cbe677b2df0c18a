"""What the assigners of all rules share: check and pack the inputs, let a backend compute, hand out the
result.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar, Generic, TypeVar

import torch
import torch.nn.functional as F

from .. import backends, capture, op
from ..checks import tensor
from ..config import Config, nearest
from ..config.fields import fields_of
from ..inputs import pack
from ..matching import Matching
from ..problem import Problem
from ..result import AssignResult
from ..terms import in_region
from ..tuning.families import backend_of

SomeConfig = TypeVar("SomeConfig", bound=Config)


class Assigner(Generic[SomeConfig]):
    """An assigner of one rule, which a subclass names; see :class:`SimOTAAssigner` for the arguments."""

    config_class: ClassVar[type[Config]]
    example: ClassVar[tuple[str, str]]
    """A preset and a field that messages mention."""

    config: SomeConfig

    def __init__(
        self,
        config: str | SomeConfig,
        *,
        backend: str = "auto",
        validate: bool | None = None,
        kernels: Any = None,
        **unknown: Any,
    ) -> None:
        kind, name = self.config_class, type(self).__name__
        for field in unknown:
            preset = config.preset if isinstance(config, Config) else nearest(str(config), kind.presets())
            default_preset, default_field = self.example
            raise TypeError(
                f"{field}: no argument of {name}, which takes config, backend, validate and kernels; fields "
                f"are changed in the configuration, as in {name}({kind.__name__}."
                f"{preset or default_preset}({nearest(field, fields_of(kind)) or default_field}=...))"
            )
        if isinstance(config, str):
            config = kind.from_preset(config)  # type: ignore[assignment]
        elif not isinstance(config, kind):
            remedy = "; call it" if callable(config) else ""
            if isinstance(config, Config):
                remedy = f"; use {config.assigner}"
            raise TypeError(
                f"config: expected a preset's name or a {kind.__name__}, got {type(config).__name__}{remedy}"
            )
        if not isinstance(backend, str):
            raise TypeError(f"backend: expected a name, got {type(backend).__name__}")
        self.config = config  # type: ignore[assignment]
        self._config_key = op.config_key(self.config)
        self.backend = backends.check_name(backend)
        if kernels is not None:
            self.backend = backend_of(kernels, backend)
        backends.check_rule(self.backend, self.config.variety)
        backends.import_kernels(self.backend)
        self.kernels = kernels
        self._kernels_key = op.kernels_key(kernels)
        self.validate = validate

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config!r}, backend={self.backend!r})"

    def _assign(self, inputs: dict[str, Any]) -> AssignResult:
        """A call, given its arguments by name."""
        tensor("pred_boxes", inputs["pred_boxes"])
        device = inputs["pred_boxes"].device
        if torch.compiler.is_compiling():
            problem = pack(self.config, **inputs, validate=False)
            with without_autocast(device):
                matching = op.assign(
                    problem, self._config_key, self.backend, self._kernels_key, self.config.rule
                )
                return _result(problem, matching, self.config)
        pairs = inputs.get("extra_cost") is not None or inputs["pair_mask"] is not None
        name = backends.choose_for_call(self.backend, device, pairs, self.config.variety)
        problem = pack(self.config, **inputs, validate=self.validate)
        recorder = capture.active()
        if recorder is not None and not capture.is_captured(device):
            recorder.keep(self.config, problem, inputs)
        with without_autocast(device):
            return _result(problem, backends.assign(name, problem, self.config, self.kernels), self.config)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Autocast switched off; looked at first, because switching takes 10 us of a call."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def _result(problem: Problem, matching: Matching, config: Config) -> AssignResult:
    gts, num_classes, labels = problem.gts, problem.shape[2], matching.labels
    if labels is None:
        of_rows = F.pad(gts.labels, (0, 1), value=num_classes)  # of all gts, then of background
        row = gts.offsets[:-1, None] + matching.gt_index
        row = torch.where(matching.gt_index >= 0, row, gts.labels.shape[0])
        labels = of_rows.index_select(0, row.flatten()).view(row.shape)
    ignored = torch.zeros_like(matching.gt_index, dtype=torch.bool)
    if problem.ignore_boxes is not None:
        priors, boxes = problem.priors, problem.ignore_boxes[:, :, None]
        centers = priors[:, :2] + (0.5 - config.prior_offset) * priors[:, 2:]
        cells = torch.cat([centers, priors[:, 2:]], 1)  # [P, 4]
        ignored = in_region(cells, boxes, boxes[..., :2], "box", 1.0).any(1) & (matching.gt_index < 0)
    return AssignResult(
        gt_index=matching.gt_index,
        labels=labels,
        matched_iou=matching.matched_iou,
        ignore_mask=ignored,
        claims=matching.claims,
        dynamic_k=matching.dynamic_k,
        num_classes=num_classes,
        gts=gts,
        scores=matching.matched_iou if matching.scores is None else matching.scores,
    )
