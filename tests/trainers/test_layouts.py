"""A package whose losses are not laid out as expected is refused by the name of what is missing; half
precision is not.
"""

from __future__ import annotations

from inspect import signature
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor

from simota_triton.integrations import libreyolo
from tests.peers.loading import Missing
from tests.peers.scenes import make_scene

from .libreyolo import RTMDet
from .trainer import Trainer
from .yolox_heads import LibreYolox, Megvii, Pixeltable, SuperGradients, YoloxHead, pad_labels

CASES = [
    (Megvii, "head", "get_losses"),
    (Megvii, "head", "get_in_boxes_info"),
    (Pixeltable, "head", "get_losses"),
    (Pixeltable, "head", "get_geometry_constraint"),
    (LibreYolox, "head", "get_losses"),
    (LibreYolox, "picodet", "giou_loss"),
    (LibreYolox, "picodet", "all_reduce_avg_scalar"),
    (LibreYolox, "picodet.PICODETLoss", "_batch_decode"),
    (LibreYolox, "rtmdet.DynamicSoftLabelAssigner", "forward"),
    (SuperGradients, "module.YoloXDetectionLoss", "_compute_loss"),
    (SuperGradients, "module.YoloXFastDetectionLoss", "_compute_matching"),
]
"""(trainer that loads the package, owner, attribute that the integration needs)"""


def load(trainer: Trainer) -> Any:
    try:
        trainer.load()
    except Missing as reason:
        pytest.skip(str(reason))
    for name, module in getattr(trainer, "modules", {}).items():
        setattr(trainer, name.split(".")[2], module)
    return trainer


@pytest.mark.parametrize(
    ("kind", "owner", "name"), CASES, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_what_is_missing_or_different_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: type[Trainer], owner: str, name: str
) -> None:
    trainer = load(kind())
    found = attrgetter(owner)(trainer)
    before = dict(vars(found))
    with monkeypatch.context() as changed:
        changed.setattr(found, name, lambda something, different: None)
        with pytest.raises(
            TypeError,
            match=rf"{name}: expected parameters .*, got \(something, different\); works with .*pip install",
        ):
            trainer.patch()
    with monkeypatch.context() as changed:
        for base in found.__mro__[:-1] if isinstance(found, type) else [found]:
            if name in vars(base):
                changed.delattr(base, name)
        expected = (
            "forward|_forward_unimplemented" if name == "forward" else "get_geometry_constraint|" + name
        )
        with pytest.raises(
            (AttributeError, TypeError), match=rf"({expected}): expected.*; works with .*pip install"
        ):
            trainer.patch()
    assert dict(vars(found)) == before, "nothing is replaced where something does not fit"


@pytest.mark.filterwarnings("ignore")  # the originals use calls that torch has since deprecated
@pytest.mark.parametrize("kind", [Megvii, Pixeltable, LibreYolox])
def test_heads_train_in_half_precision(kind: type[YoloxHead]) -> None:
    trainer = load(kind())
    scene = make_scene(3, trainer.strides, trainer.offset, inverted=False).on_grid()
    head = trainer.make(scene.num_classes)
    predictions = trainer.predictions(scene)
    outputs = predictions.pop("outputs").detach().half()
    labels = pad_labels(scene.gt_boxes, scene.gt_labels).half()

    def total() -> Tensor:
        leaf = outputs.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16):
            result = trainer.head.get_losses(
                head, None, labels=labels, outputs=leaf, dtype=torch.float16, **predictions
            )
            value = result["total_loss"] if isinstance(result, dict) else result[0]
        value.backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        return value.detach()

    with trainer.patch():
        ours = total()
    torch.testing.assert_close(ours, total(), rtol=1e-3, atol=0.0)  # the originals' IoUs are float16


def test_an_assigner_built_before_the_patch_is_patched() -> None:
    trainer = load(RTMDet())
    loss = trainer.make(3)
    with trainer.patch():
        assert loss.assigner.forward.__module__ == "simota_triton.integrations.libreyolo"
    assert loss.assigner.forward.__module__.startswith("libreyolo")


@pytest.mark.parametrize(
    ("kind", "owner", "method"),
    [
        (Megvii, "head", "get_assignments"),
        (Megvii, "head", "get_in_boxes_info"),
        (Pixeltable, "head", "get_assignments"),
        (Pixeltable, "head", "simota_matching"),
        (LibreYolox, "head", "get_geometry_constraint"),
        (RTMDet, "rtmdet.DynamicSoftLabelAssigner", "_assign_single"),
        (LibreYolox, "picodet.SimOTAAssigner", "assign"),
        (SuperGradients, "module.YoloXDetectionLoss", "get_assignments"),
        (SuperGradients, "module.YoloXFastDetectionLoss", "_compute_dynamic_ks"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_subclass_that_overrides_the_rule_is_refused(kind: type[Trainer], owner: str, method: str) -> None:
    """By the function that would go past it; the method is there in each package, so that the refusal can
    happen.
    """
    trainer = load(kind())
    base = attrgetter(owner)(trainer)
    own = type("Own", (base,), {method: lambda self, *args: pytest.fail("the rule that the user wrote")})
    with trainer.patch() as patch:
        replaced = {id(replacement.owner): replacement for _, _, replacement in patch._replaced.values()}
        if id(base) in replaced:
            replacement = replaced[id(base)]
            made, arguments = own.__new__(own), [None] * (len(signature(replacement.function).parameters) - 1)
            with pytest.raises(
                TypeError,
                match=rf"Own\.{method}: expected {base.__name__}'s own.*override; train this class without",
            ):
                getattr(own, replacement.name)(made, *arguments)
        else:  # PicoDet's loss holds its assigner
            loss = trainer.picodet.PICODETLoss(3)
            loss.assigner = own()
            maps = (
                [torch.zeros(1, channels, 8 >> level, 8 >> level) for level in range(4)]
                for channels in (3, 32)
            )
            with pytest.raises(TypeError, match=rf"Own\.{method}: expected SimOTAAssigner's own"):
                loss(*maps, [], [])


def test_a_picodet_assigner_has_what_is_compared() -> None:
    trainer = load(LibreYolox())
    assert all(hasattr(trainer.picodet.SimOTAAssigner, name) for name in libreyolo.ASSIGNING)
