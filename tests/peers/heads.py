"""mmdet's heads whole: the original assigns image by image with its own assigner, ours a batch in one call.

A scene's predictions are encoded as the head's maps, so that every kind of scene and phase of training comes by. Where both
assign alike, all losses and their gradients in all maps must be equal to the last bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from simota_triton import SimOTAConfig
from simota_triton.matching import Matching

from .compare import Tally, candidates, compare_matchings, pack_scene
from .loading import load_without_ops
from .openmmlab import PEERS, load_package
from .peer import Owners, Peer, Results, Selections, nobody
from .scenes import Scene, make_scene

STRIDES = (8, 16, 32)
CONVS = {"in_channels": 4, "feat_channels": 4, "stacked_convs": 1, "norm_cfg": {"type": "BN"}}
RTMDET = {
    **CONVS,
    "anchor_generator": {"type": "MlvlPointGenerator", "offset": 0, "strides": list(STRIDES)},
    "bbox_coder": {"type": "DistancePointBBoxCoder"},
    "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
    "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
}


@dataclass(frozen=True)
class Head:
    """A head of mmdet.

    Attributes:
        name: Its name in the registry.
        peer: The original assigner that it holds.
        config: Its arguments.
        masks: It takes masks.
    """

    name: str
    peer: Peer
    config: dict[str, Any]
    masks: bool = False

    @property
    def yolox(self) -> bool:
        return self.peer.name == "SimOTAAssigner"


_SIMOTA, _SOFT_LABEL, _WITH_MASKS, _ = PEERS
HEADS = (
    Head("RTMDetHead", _SOFT_LABEL, RTMDET),
    Head("RTMDetSepBNHead", _SOFT_LABEL, {**RTMDET, "with_objectness": False}),
    Head("RTMDetInsHead", _WITH_MASKS, RTMDET, masks=True),
    Head("RTMDetInsSepBNHead", _WITH_MASKS, RTMDET, masks=True),
    Head("YOLOXHead", dataclasses.replace(_SIMOTA, extras=lambda scene: {}), CONVS),
)


def load() -> SimpleNamespace:
    """mmdet and our integration."""
    classes = load_package()
    heads, registry, masks = load_without_ops("mmdet.models", "mmdet.registry", "mmdet.structures.mask")
    (integration,) = load_without_ops("simota_triton.integrations.mmdet")
    return SimpleNamespace(classes=classes, heads=heads, registry=registry, masks=masks, integration=integration)


def build(packages: SimpleNamespace, head: Head, num_classes: int, arguments: dict[str, Any], pos_weight: float = -1) -> Any:
    """The head with our assigner, as a configuration builds it."""
    train_cfg = {"assigner": {"type": head.peer.name.split()[0], **arguments}, "allowed_border": -1, "pos_weight": pos_weight}
    return packages.registry.MODELS.build({"type": head.name, "num_classes": num_classes, **head.config, "train_cfg": train_cfg})


def maps(head: Head, built: Any, scene: Scene) -> list[list[Tensor]]:
    """The head's outputs, lists of [B, *, H, W] that decode to the scene's predictions, as leaves."""
    height, width = scene.size
    corners, stride = scene.priors[:, :2] - (scene.priors[:, 2:] / 2 if head.yolox else 0), scene.priors[:, 2:]
    if head.yolox:
        size = (scene.pred_boxes[..., 2:] - scene.pred_boxes[..., :2]).clamp(min=2**-13)
        boxes = torch.cat([((scene.pred_boxes[..., :2] + size / 2) - corners) / stride, (size / stride).log()], -1)
    else:
        boxes = torch.cat([corners - scene.pred_boxes[..., :2], scene.pred_boxes[..., 2:] - corners], -1)
    outputs = [scene.cls_logits, boxes] + ([scene.obj_logits] if head.yolox else [])
    if head.masks:
        generator = torch.Generator().manual_seed(scene.seed)
        outputs.append(torch.randn(*boxes.shape[:2], built.num_gen_params, generator=generator) * 0.1)
    sizes = [(height // s, width // s) for s in STRIDES]
    counts = [rows * columns for rows, columns in sizes]
    return [
        [
            level.transpose(1, 2).unflatten(2, size).clone().requires_grad_()
            for level, size in zip(output.split(counts, 1), sizes, strict=True)
        ]
        for output in outputs
    ]


def losses(packages: SimpleNamespace, head: Head, built: Any, scene: Scene) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """``loss_by_feat`` of a scene: the losses by name, and their gradients in every map."""
    height, width = scene.size
    levels = maps(head, built, scene)
    gts = [packages.classes.InstanceData(bboxes=own, labels=labels) for own, labels in zip(scene.gt_boxes, scene.gt_labels, strict=True)]
    more: list[Tensor] = []
    if head.masks:
        for own, masks in zip(gts, scene.masks, strict=True):
            own.masks = packages.masks.BitmapMasks(masks.to(torch.uint8).numpy(), height, width)
        generator = torch.Generator().manual_seed(scene.seed)
        more = [torch.randn(len(gts), 8, height // 8, width // 8, generator=generator).requires_grad_()]
    shapes = [(0.9 * height, 0.8 * width) if b == 0 else scene.size for b in range(len(gts))]  # where Scene.inside is True
    metas = [{"img_shape": scene.size, "pad_shape": shape} for shape in shapes]
    named = {name: value if isinstance(value, list) else [value] for name, value in built.loss_by_feat(*levels, *more, gts, metas).items()}
    leaves = [leaf for own in levels for leaf in own] + more
    total = torch.stack([loss for values in named.values() for loss in values]).sum()
    gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return {name: [value.detach() for value in values] for name, values in named.items()}, list(gradients)


def original_losses(
    packages: SimpleNamespace, head: Head, built: Any, scene: Scene, config: SimOTAConfig, arguments: dict[str, Any]
) -> tuple[tuple[dict[str, list[Tensor]], list[Tensor]], Owners, Scene]:
    """The losses with the original assigner, image by image; its assignment; and the scene with the boxes that it was given."""
    assigner = getattr(packages.classes, head.peer.name.split()[0])(**arguments)
    owners, seen = nobody(scene), dataclasses.replace(scene, pred_boxes=scene.pred_boxes.clone())
    allowed = candidates(pack_scene(scene, head.peer, config), config)
    images = iter([b for b, own in enumerate(scene.gt_boxes) if len(own) or not head.yolox])  # YOLOX's head passes over images without gts
    assign = assigner.assign

    def listen(pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any = None) -> Any:
        b = next(images)
        inside = scene.inside[b]
        with Selections() as heard:
            result = assign(pred_instances, gt_instances, gt_instances_ignore)
        heard.write(owners, b, allowed[b])
        seen.pred_boxes[b, inside] = pred_instances.bboxes
        owners.gt_index[b, inside] = result.gt_inds - 1
        owners.iou[b, inside] = torch.where(result.gt_inds > 0, result.max_overlaps, 0.0)
        return result

    with mock.patch.object(assigner, "assign", listen), mock.patch.object(built, "assigner", assigner):
        return losses(packages, head, built, scene), owners, seen


def compare_head(packages: SimpleNamespace, head: Head, seeds: Iterable[int]) -> Tally:
    """Compare on the scenes of ``seeds``."""
    tally = Tally()
    for seed in seeds:
        scene = make_scene(seed, STRIDES, head.peer.offset, inverted=head.peer.inverted)
        if head.yolox:
            scene = dataclasses.replace(scene, inside=torch.ones_like(scene.inside))
        arguments, overrides = head.peer.variants[seed // 7 % len(head.peer.variants)]
        config = SimOTAConfig.from_preset(head.peer.preset, **overrides)
        built = build(packages, head, scene.num_classes, arguments, pos_weight=2.0 if seed % 4 == 0 else -1)
        built.use_l1 = seed % 2 == 0  # YOLOX's last epochs
        expected, owners, seen = original_losses(packages, head, built, scene, config, arguments)
        problem = pack_scene(seen, head.peer, config)
        with packages.integration.patch(built), Results() as heard:
            got = losses(packages, head, built, scene)
        ours = heard.result
        where = f"scene {seed}"
        tally.scenes += 1
        tally.positives += int((owners.gt_index >= 0).sum())
        compare_matchings(config, problem, owners, Matching(ours.gt_index, ours.matched_iou, ours.dynamic_k, ours.claims), where, tally)
        if torch.equal(ours.gt_index, owners.gt_index):
            tally.unexplained += [f"{where}: {line}" for line in different(expected, got)]
    return tally


def different(expected: tuple[dict[str, list[Tensor]], list[Tensor]], got: tuple[dict[str, list[Tensor]], list[Tensor]]) -> list[str]:
    """What differs between two answers of :func:`losses`."""
    if expected[0].keys() != got[0].keys():
        return [f"losses {sorted(expected[0])} became {sorted(got[0])}"]
    lines = [
        f"{name}: {[float(value) for value in values]} became {[float(value) for value in got[0][name]]}"
        for name, values in expected[0].items()
        if len(values) != len(got[0][name]) or not all(map(torch.equal, values, got[0][name]))
    ]
    return lines + [
        f"gradient in map {i} differs" for i, pair in enumerate(zip(expected[1], got[1], strict=True)) if not torch.equal(*pair)
    ]
