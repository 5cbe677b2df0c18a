"""What a peer is: an original assigner, called as its own trainer calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from simota_triton import AssignResult, SimOTAAssigner

from .scenes import Scene


class Owners(NamedTuple):
    """An assignment.

    Attributes:
        gt_index: [B, P] int64, -1 for background.
        iou: [B, P] float32, IoU with that gt, 0 for background.
        claims: [B, P] int32, how many gts selected the prior.
        dynamic_k: B tensors [G] int64.
        documented: [B, P] bool, priors on which a documented deviation bears.
    """

    gt_index: Tensor
    iou: Tensor
    claims: Tensor
    dynamic_k: list[Tensor]
    documented: Tensor


def nobody(scene: Scene) -> Owners:
    """All background, every gt asking for one prior: what an image without candidates gives."""
    shape = scene.pred_boxes.shape[:2]
    asked = [torch.ones(len(boxes), dtype=torch.int64) for boxes in scene.gt_boxes]
    return Owners(
        gt_index=torch.full(shape, -1),
        iou=torch.zeros(shape),
        claims=torch.zeros(shape, dtype=torch.int32),
        dynamic_k=asked,
        documented=torch.zeros(shape, dtype=torch.bool),
    )


class Selections(TorchFunctionMode):
    """Listens to an original at work: the rows of every ``topk(largest=False)``, one call a gt.

    The originals hand out owners only; whether an owner is right can depend on who else selected the prior.

    Attributes:
        deaf: Nobody listens to anything, so that what a peer takes is what its original takes.
    """

    deaf = False

    def __enter__(self) -> Selections:
        return self if self.deaf else super().__enter__()

    def __exit__(self, *error: Any) -> None:
        if not self.deaf:
            super().__exit__(*error)

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []
        self.lengths: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "topk" and (kwargs or {}).get("largest") is False:
            self.select(result.indices, args[0].shape[0])
        return result

    def select(self, rows: Tensor, length: int) -> None:
        """A gt selects ``rows`` of ``length``."""
        self.rows.append(rows)
        self.lengths.add(length)

    def write(self, owners: Owners, image: int, candidates: Tensor, rows: Tensor | None = None) -> None:
        """Claims and ks of an image whose rows are the priors in ``candidates`` [P] bool, if it had any."""
        if self.rows:
            assert len(self.rows) == len(owners.dynamic_k[image]), "one topk a gt"
            assert self.lengths == {int(candidates.sum())}, "the original keeps other candidates than we do"
            owners.dynamic_k[image][:] = torch.tensor([len(rows) for rows in self.rows])
            prior = candidates.nonzero().squeeze(1)[torch.cat(self.rows)]
            owners.claims[image].index_add_(0, prior, torch.ones_like(prior, dtype=torch.int32))


class Results:
    """Listens to a drop-in at work: what our assigner answered. A drop-in may hand out less."""

    result: AssignResult

    def __enter__(self) -> Results:
        call = SimOTAAssigner.__call__

        def listen(assigner: SimOTAAssigner, *args: Any, **kwargs: Any) -> AssignResult:
            self.result = call(assigner, *args, **kwargs)
            return self.result

        self._patch = mock.patch.object(SimOTAAssigner, "__call__", listen)
        self._patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.stop()

    def write(self, owners: Owners, image: int, candidates: Tensor, rows: Tensor) -> None:
        """Claims and ks of an image of which the drop-in saw the priors in ``rows`` [P] bool."""
        owners.dynamic_k[image][:] = self.result.dynamic_k
        owners.claims[image, rows] = self.result.claims[0]


def no_extras(scene: Scene) -> dict[str, Any]:
    """No inputs beside predictions, priors and gts."""
    return {}


@dataclass(frozen=True)
class Peer:
    """An original assigner and the preset that must agree with it.

    Attributes:
        name: Class or function, as in the package.
        package: Distribution and version.
        preset: Name of our preset.
        load: Returns ``assign(scene, candidates, **arguments) -> Owners``, candidates [B, P] bool being the
            priors that take part by our configuration; raises ``Missing``.
        drop_in: The same for our class that takes the original's place in its package, where there is one.
        strides: Levels of the detector.
        offset: Where in its cell a prior lies, 0 or 0.5.
        inverted: The detector can predict boxes whose corners are swapped.
        on_grid: The original holds boxes as centre and size; scenes are rounded so that both forms are exact.
        variants: (arguments of the original, overrides of the preset), taken in turn.
        extras: Further inputs of ours.
    """

    name: str
    package: str
    preset: str
    load: Callable[[], Callable[..., Owners]]
    drop_in: Callable[[], Callable[..., Owners]] | None = None
    strides: tuple[int, ...] = (8, 16, 32)
    offset: float = 0.5
    inverted: bool = False
    on_grid: bool = False
    variants: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = field(default=(({}, {}),))
    extras: Callable[[Scene], dict[str, Any]] = no_extras


def to_cxcywh(boxes: Tensor) -> Tensor:
    """xyxy -> centre and size, [..., 4]; exact for boxes on the scenes' grid."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def cells(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """x_shifts, y_shifts and expanded_strides, [1, P] each, as the heads of the YOLOX family hold their
    priors.
    """
    stride = scene.priors[None, :, 2]
    return scene.priors[None, :, 0] / stride - 0.5, scene.priors[None, :, 1] / stride - 0.5, stride
