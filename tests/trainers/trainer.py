"""What a trainer is: an original loss, run as its own trainer runs it, whose assigning can be listened to."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from simota_triton import AssignResult, SimOTAAssigner, SimOTAConfig
from simota_triton.inputs import pack
from simota_triton.integrations.patching import Patch
from simota_triton.matching import Matching
from simota_triton.problem import Problem
from tests.peers.peer import Owners, Selections, nobody
from tests.peers.scenes import Scene


class Heard(NamedTuple):
    """One call of our assigner: what it was asked, as a list of gts, on the CPU, and what it answered."""

    config: SimOTAConfig
    problem: Problem
    matching: Matching

    @property
    def gt_counts(self) -> list[int]:
        """Gts of each image."""
        return self.problem.gts.offsets.diff().tolist()


@contextmanager
def hearing() -> Iterator[list[Heard]]:
    """Collects the calls of our assigner, whoever makes them."""
    calls: list[Heard] = []
    call = SimOTAAssigner.__call__

    def listen(self: SimOTAAssigner, *args: Any, **kwargs: Any) -> AssignResult:
        result = call(self, *args, **kwargs)
        calls.append(_heard(self.config, pack(self.config, *_to_cpu(args), **_to_cpu(kwargs)), result))
        return result

    with patch.object(SimOTAAssigner, "__call__", listen):
        yield calls


class Ear:
    """What an original did.

    Attributes:
        owners: Its assignment.
        seconds: CPU time it took (on a GPU: time, with the GPU waited for).
        repaired: Images on which it failed, as some do where no prior is a candidate; taken as background.
    """

    def __init__(self, heard: Heard, candidates: Tensor | None = None) -> None:
        """With ``candidates`` [B, P] it also hears who selected which prior, at a cost in time."""
        boxes = heard.problem.gts.boxes.split(heard.gt_counts)
        self.owners: Owners = nobody(SimpleNamespace(pred_boxes=heard.problem.pred_boxes, gt_boxes=boxes))
        self.images = [b for b, own in enumerate(boxes) if len(own)]
        self.candidates = candidates
        self.seconds = 0.0
        self.repaired = 0

    def call(self, image: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``function(*args, **kwargs)``, listened to."""
        with Selections() if self.candidates is not None else nullcontext() as selections:
            start = clock()
            result = function(*args, **kwargs)
            self.seconds += clock() - start
        if selections is not None:
            selections.rows = [rows.cpu() for rows in selections.rows]
            selections.write(self.owners, image, self.candidates[image])
        return result

    def write(self, image: int, fg_mask: Tensor, gt_index: Tensor, iou: Tensor) -> None:
        """Image's positives [P] bool, and the gt and IoU of each of them."""
        fg_mask = fg_mask.cpu()
        self.owners.gt_index[image, fg_mask], self.owners.iou[image, fg_mask] = (
            gt_index.cpu(),
            iou.detach().cpu().float(),
        )


class Trainer(ABC):
    """An original loss.

    Attributes:
        name: Class, as in the package.
        package: Distribution and version.
        strides: Levels of the detector.
        offset: Where in its cell a prior lies, 0 or 0.5.
        inverted: The detector can predict boxes whose corners are swapped.
        on_grid: It holds boxes as centre and size; scenes are rounded so that both forms are exact.
        variants: Arguments of the loss, taken in turn.
        relative_error: Of losses and gradients where both assignments are the same: float32 sums in another
            order, IoUs formed by another expression.
    """

    name: str
    package: str
    strides: tuple[int, ...] = (8, 16, 32)
    offset: float = 0.5
    inverted: bool = False
    on_grid: bool = False
    variants: tuple[dict[str, Any], ...] = ({},)
    relative_error: float = 2e-5

    @abstractmethod
    def load(self) -> None:
        """Load the package's modules; raises ``Missing``."""

    @abstractmethod
    def patch(self) -> Patch:
        """The integration's own ``patch()``."""

    @abstractmethod
    def make(self, num_classes: int, **arguments: Any) -> Any:
        """The loss, or the head that computes it."""

    @abstractmethod
    def predictions(self, scene: Scene) -> dict[str, Any]:
        """What the network would hand the loss so that it sees the scene's predictions."""

    @abstractmethod
    def loss(
        self, made: Any, predictions: dict[str, Any], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> dict[str, Tensor]:
        """The terms of the loss, the total as ``"total"``; gts xyxy."""

    @abstractmethod
    def listen(self, made: Any, ear: Ear) -> None:
        """Have the original of ``made`` tell ``ear`` what it assigns."""

    @abstractmethod
    def deafen(self, made: Any) -> None:
        """End :meth:`listen`."""


@contextmanager
def offered(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Let an integration import modules that were loaded without their packages."""
    with patch.dict("sys.modules", modules):
        yield


def clock() -> float:
    """CPU time of this process; with a GPU the time at which it has done all its work. Seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _to_cpu(entry) for key, entry in value.items()}
    return type(value)(_to_cpu(entry) for entry in value) if isinstance(value, (list, tuple)) else value


def _heard(config: SimOTAConfig, problem: Problem, result: AssignResult) -> Heard:
    """The call with its gts as a list, whatever form they had."""
    row, valid = problem.gts.padded_rows()
    dynamic_k = result.dynamic_k.cpu()
    rows = [row[b, valid[b]] for b in range(row.shape[0])]
    own = problem.gts
    listed = pack(
        config,
        problem.pred_boxes,
        problem.cls_logits.dense(),
        problem.priors,
        [own.boxes[r] for r in rows],
        [own.labels[r] for r in rows],
        gt_centers=[own.centers[r] for r in rows],
        obj_logits=None if problem.obj_logits is None else problem.obj_logits.dense(),
        candidate_mask=problem.candidate_mask,
    )
    matching = Matching(
        gt_index=result.gt_index.cpu(),
        matched_iou=result.matched_iou.cpu(),
        dynamic_k=dynamic_k.reshape(-1)[torch.cat(rows)] if rows else dynamic_k,
        claims=result.claims.cpu(),
    )
    return Heard(config, listed, matching)
