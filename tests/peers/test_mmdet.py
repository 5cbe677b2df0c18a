"""Our assigners in mmdet's registry: the original's fields, its configurations, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from simota_triton.boxes import box_center
from tests.trainers.trainer import hearing

from .loading import Missing, load_without_ops
from .openmmlab import instances, joint_scores, load_package
from .scenes import Scene, make_scene

pytestmark = pytest.mark.filterwarnings("ignore")  # the originals use calls that torch has since deprecated

NAMES = ("DynamicSoftLabelAssigner", "SimOTAAssigner")


@pytest.fixture(scope="module")
def mm() -> SimpleNamespace:
    """mmdet, and our integration with it."""
    try:
        classes = load_package()
    except Missing as reason:
        pytest.skip(str(reason))
    names = (
        "mmdet.registry",
        "mmdet.structures",
        "mmdet.structures.bbox",
        "mmdet.structures.mask",
        "mmdet.models",
        "mmengine",
        "mmengine.runner",
    )
    registry, structures, bbox, mask, _, mmengine, _ = load_without_ops(*names)
    (integration,) = load_without_ops("simota_triton.integrations.mmdet")
    return SimpleNamespace(
        classes=classes,
        InstanceData=classes.InstanceData,
        integration=integration,
        registry=registry,
        structures=structures,
        bbox=bbox,
        mask=mask,
        mmengine=mmengine,
    )


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    yield
    try:
        (integration,) = load_without_ops("simota_triton.integrations.mmdet")
    except Missing:
        return
    integration.unpatch()


def both(mm: SimpleNamespace, name: str, predictions: Any, gts: Any, **arguments: Any) -> tuple[Any, Any]:
    """The original's and our result for one image."""
    ours = mm.registry.TASK_UTILS.build({"type": name, **arguments})
    assert type(ours) is getattr(mm.integration, name)
    return getattr(mm.classes, name)(**arguments).assign(predictions, gts), ours.assign(
        predictions, gts, mm.InstanceData()
    )


def images(mm: SimpleNamespace, name: str, scene: Scene) -> list[tuple[Any, Any]]:
    scores = scene.cls_logits if name == NAMES[0] else joint_scores(scene)
    return instances(scene, mm.InstanceData, scores, with_masks=name == NAMES[0])


def same_fields(theirs: Any, ours: Any) -> None:
    """Every field is equal, in its dtype too."""
    assert type(ours) is type(theirs)
    assert ours.info.keys() == theirs.info.keys()
    for name, value in theirs.info.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(
                ours.info[name], value, rtol=0, atol=1e-6 if name == "max_overlaps" else 0
            )
        else:
            assert ours.info[name] == value, name


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 6, 7, 9])
@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_the_originals(mm, name, seed):
    scene = make_scene(seed, (8, 16, 32), 0.0 if name == NAMES[0] else 0.5, inverted=False)
    for predictions, gts in images(mm, name, scene):
        same_fields(*both(mm, name, predictions, gts))


@pytest.mark.parametrize("empty", ["gts", "priors", "both", "candidates"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_what_has_nothing_to_assign_is_the_originals(mm, name, dtype, empty):
    scene = make_scene(0, (8, 16, 32), 0.0, inverted=False)
    predictions, gts = images(mm, name, scene)[0]
    predictions.bboxes = predictions.bboxes.to(dtype)
    if empty in ("gts", "both"):
        gts = gts[torch.zeros(0, dtype=torch.int64)]
    if empty in ("priors", "both"):
        predictions = predictions[torch.zeros(0, dtype=torch.int64)]
    if empty == "candidates":
        gts.bboxes = gts.bboxes + 1e5
    theirs, ours = both(mm, name, predictions, gts)
    if (
        empty == "candidates"
    ):  # whether there are any, only the device knows: the dtype is that of images with candidates
        assert ours.max_overlaps.dtype == torch.float32
        ours.max_overlaps = ours.max_overlaps.to(dtype)
    same_fields(theirs, ours)


def test_masks_come_in_three_forms(mm):
    scene = make_scene(0, (8, 16, 32), 0.0, inverted=False)
    predictions, gts = images(mm, NAMES[0], scene)[1]
    masks = gts.masks
    assert not torch.allclose(
        mm.integration.mask_centers(masks, gts.bboxes), box_center(gts.bboxes), atol=1.0
    )
    expected = both(mm, NAMES[0], predictions, gts)[0]
    gts.masks = mm.mask.BitmapMasks(masks.to(torch.uint8).numpy(), *scene.size)
    same_fields(expected, mm.integration.DynamicSoftLabelAssigner().assign(predictions, gts))
    polygons = [
        [box[[0, 1, 2, 1, 2, 3, 0, 3]].double().numpy()] for box in gts.bboxes.clamp(0, min(scene.size))
    ]
    gts.masks = mm.mask.PolygonMasks(polygons, *scene.size)
    ours = mm.integration.DynamicSoftLabelAssigner().assign(predictions, gts)
    gts.masks = gts.masks.to_tensor(torch.bool, "cpu")
    assert gts.masks.flatten(1).any(1).all()
    same_fields(mm.classes.DynamicSoftLabelAssigner().assign(predictions, gts), ours)


def test_a_gt_without_a_mask_pixel_keeps_its_boxs_centre(mm):
    scene = make_scene(0, (8, 16, 32), 0.0, inverted=False)
    predictions, gts = images(mm, NAMES[0], scene)[1]
    gts.masks = torch.zeros_like(gts.masks)
    ours = mm.integration.DynamicSoftLabelAssigner().assign(predictions, gts)
    del gts.masks
    same_fields(mm.classes.DynamicSoftLabelAssigner().assign(predictions, gts), ours)


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_horizontal_boxes_hold_their_edge(mm, seed):
    """Boxes on whole cells: a prior on the edge is inside them, while it is outside a tensor's."""
    scene = on_cells(make_scene(seed, (8, 16, 32), 0.0, inverted=False))
    for predictions, gts in images(mm, NAMES[0], scene):
        as_tensors = both(mm, NAMES[0], predictions, gts)
        gts.bboxes = mm.bbox.HorizontalBoxes(gts.bboxes)
        as_boxes = both(mm, NAMES[0], predictions, gts)
        same_fields(*as_tensors)
        same_fields(*as_boxes)
        if seed == 0:
            assert not torch.equal(as_tensors[0].gt_inds, as_boxes[0].gt_inds), "the scene tells them apart"


def on_cells(scene: Scene) -> Scene:
    """The scene with gts on multiples of 8 px."""
    return replace(scene, gt_boxes=[(boxes / 8).round() * 8 for boxes in scene.gt_boxes])


def test_the_original_of_simota_fails_on_horizontal_boxes_and_ours_takes_their_tensor(mm):
    scene = make_scene(0, (8, 16, 32), 0.0, inverted=False)
    predictions, gts = images(mm, NAMES[1], scene)[0]
    expected = both(mm, NAMES[1], predictions, gts)[0]
    gts.bboxes = mm.bbox.HorizontalBoxes(gts.bboxes)
    with pytest.raises((AssertionError, TypeError, IndexError, RuntimeError)):
        mm.classes.SimOTAAssigner().assign(predictions, gts)
    same_fields(expected, mm.integration.SimOTAAssigner().assign(predictions, gts))


@pytest.mark.parametrize("name", NAMES)
def test_ious_of_axis_aligned_boxes_can_be_named_in_every_way(mm, name):
    calculator = mm.integration.PACKAGE.load("mmdet.models.task_modules.assigners").BboxOverlaps2D
    for value in (
        *({"type": kind} for kind in ("BboxOverlaps2D", "mmdet.BboxOverlaps2D", calculator)),
        {"type": calculator, "scale": 2.0},
    ):
        mm.registry.TASK_UTILS.build({"type": f"mmdet.{name}", "iou_calculator": value})


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_may_name_the_class(mm, name):
    cls = getattr(mm.integration, name)
    assert type(mm.registry.TASK_UTILS.build({"type": cls})) is cls


@pytest.mark.parametrize(
    "calculator",
    [
        {"type": "RBboxOverlaps2D"},
        {"type": "BboxOverlaps2D_GLIP"},
        {"type": "BboxOverlaps2D", "dtype": "fp16"},
        None,
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_other_ious_are_refused_by_name(mm, name, calculator):
    with pytest.raises(ValueError, match="iou_calculator: expected BboxOverlaps2D") as error:
        getattr(mm.integration, name)(iou_calculator=calculator)
    assert repr(calculator) in str(error.value)


@pytest.mark.parametrize(
    ("name", "arguments", "argument"),
    [
        (NAMES[0], {"topk": 0}, "candidate_topk"),
        (NAMES[1], {"candidate_topk": 33}, "candidate_topk"),
        (NAMES[1], {"cls_weight": -1.0}, "cls_weight"),
    ],
)
def test_numbers_out_of_range_are_refused_when_the_model_is_built(mm, name, arguments, argument):
    with pytest.raises(ValueError, match=argument):
        mm.registry.TASK_UTILS.build({"type": name, **arguments})


def test_boxes_of_another_kind_are_refused(mm):
    class RotatedBoxes(list):
        """As mmrotate's, not a tensor."""

    scene = make_scene(0, (8, 16, 32), 0.0, inverted=False)
    predictions, gts = images(mm, NAMES[0], scene)[0]
    gts = SimpleNamespace(bboxes=RotatedBoxes([0] * len(gts)), labels=gts.labels)
    with pytest.raises(
        TypeError,
        match=r"gt_instances\.bboxes: expected a tensor \[\*, 4\] or HorizontalBoxes, got RotatedBoxes",
    ):
        mm.integration.DynamicSoftLabelAssigner().assign(predictions, gts)


def head(mm: SimpleNamespace, name: str = "RTMDetSepBNHead", **more: Any) -> nn.Module:
    """A tiny head."""
    yolox = name == "YOLOXHead"
    config = {
        "type": name,
        "num_classes": 3,
        "in_channels": 8,
        "feat_channels": 8,
        "stacked_convs": 1,
        "norm_cfg": {"type": "BN"},
    }
    if not yolox:
        config["anchor_generator"] = {"type": "MlvlPointGenerator", "offset": 0, "strides": [8, 16, 32]}
        config["bbox_coder"] = {"type": "DistancePointBBoxCoder"}
        config["loss_cls"] = {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0}
        config["loss_bbox"] = {"type": "GIoULoss", "loss_weight": 2.0}
    train_cfg = {"assigner": {"type": NAMES[yolox]}, "allowed_border": -1, "pos_weight": -1, **more}
    return mm.registry.MODELS.build({**config, "train_cfg": train_cfg})


def samples(mm: SimpleNamespace, counts: tuple[int, ...] = (3, 0), crowds: int = 0) -> list[Any]:
    """Data samples of 64 px images with as many gts as ``counts`` says, and crowds beside them."""
    out = []
    for count in counts:
        sample = mm.structures.DetDataSample(
            metainfo={"img_shape": (64, 64), "pad_shape": (64, 64), "batch_input_shape": (64, 64)}
        )
        corner = 32 * torch.rand(count + crowds, 2)
        boxes = torch.cat([corner, corner + 8 + 20 * torch.rand(count + crowds, 2)], 1)
        sample.gt_instances = mm.InstanceData(bboxes=boxes[:count], labels=torch.randint(3, (count,)))
        sample.ignored_instances = mm.InstanceData(
            bboxes=boxes[count:], labels=torch.zeros(crowds, dtype=torch.int64)
        )
        out.append(sample)
    return out


def features(batch: int = 2) -> tuple[Tensor, ...]:
    return tuple(torch.rand(batch, 8, 64 // stride, 64 // stride) for stride in (8, 16, 32))


def test_targets_and_sampling_results_are_the_originals(mm):
    """Those too that no loss of mmdet's looks at, with priors outside the first image."""
    built = head(mm, pos_weight=2.0)
    scene = make_scene(26, (8, 16, 32), 0.0, inverted=False)
    gts = [
        mm.InstanceData(bboxes=boxes, labels=labels)
        for boxes, labels in zip(scene.gt_boxes, scene.gt_labels, strict=True)
    ]
    with mm.integration.patch(built):
        *ours, our_samples = targets_of(built, scene, gts)
    built.assigner = mm.classes.DynamicSoftLabelAssigner()
    *theirs, samples = targets_of(built, scene, gts)
    assert sum(int((labels < scene.num_classes).sum()) for labels in theirs[1]) > 20
    for target, expected in zip(ours, theirs, strict=True):
        assert len(target) == len(expected) == 3
        for level, value in zip(target, expected, strict=True):
            torch.testing.assert_close(level, value, rtol=0, atol=0)
    assert len(our_samples) == len(samples) == 3
    assert str(our_samples[-1]) == str(samples[-1])
    for sample, expected in zip(our_samples, samples, strict=True):
        assert vars(sample).keys() == vars(expected).keys()
        for name, value in vars(expected).items():
            same = (
                torch.equal(getattr(sample, name), value)
                if isinstance(value, Tensor)
                else getattr(sample, name) == value
            )
            assert same, name


def targets_of(built: nn.Module, scene: Scene, gts: list[Any], ignored: list[Any] | None = None) -> Any:
    """``get_targets`` of a head for a scene whose last rows are padding in the first image."""
    height, width = scene.size
    metas = [{"img_shape": scene.size, "pad_shape": scene.size} for _ in gts]
    metas[0]["pad_shape"] = (0.9 * height, 0.8 * width)
    built.num_classes = scene.num_classes
    anchors = built.get_anchors([(height // s, width // s) for s in (8, 16, 32)], metas, device="cpu")
    return built.get_targets(scene.cls_logits, scene.pred_boxes, *anchors, gts, metas, ignored)


def test_a_batch_of_tensors_and_horizontal_boxes_follows_each_images_type(mm):
    """mmdet's heads take no HorizontalBoxes, so the original assigner is asked image by image."""
    scene = on_cells(make_scene(26, (8, 16, 32), 0.0, inverted=False))
    listed = images(mm, NAMES[0], scene)
    for image in (0, 2):
        listed[image][1].bboxes = mm.bbox.HorizontalBoxes(listed[image][1].bboxes)
    result = mm.integration.DynamicSoftLabelAssigner().assign_batch(
        scene.pred_boxes,
        scene.cls_logits,
        scene.priors,
        [gts for _, gts in listed],
        candidate_mask=scene.inside,
    )
    for image, (predictions, gts) in enumerate(listed):
        expected = mm.classes.DynamicSoftLabelAssigner().assign(predictions, gts)
        assert (expected.gt_inds > 0).sum() > 5
        assert torch.equal(result.gt_index[image][scene.inside[image]], expected.gt_inds - 1)


def test_ignored_boxes_are_looked_at_on_request_alone(mm):
    """In one call and image by image: ``gt_inds`` -1, no weight in the head; gts keep their priors."""
    scene = make_scene(26, (8, 16, 32), 0.0, inverted=False)
    gts = [
        mm.InstanceData(bboxes=boxes, labels=labels)
        for boxes, labels in zip(scene.gt_boxes, scene.gt_labels, strict=True)
    ]
    crowd = torch.tensor([[0.0, 0.0, 0.6 * scene.size[1], 1.2 * scene.size[0]]])
    ignored = [mm.InstanceData(bboxes=crowd), None, mm.InstanceData(bboxes=mm.bbox.HorizontalBoxes(crowd))]
    plain, wary = head(mm), head(mm, assigner={"type": NAMES[0], "use_ignored": True})
    assert wary.assigner.use_ignored
    for image, own in enumerate(ignored):
        predictions = images(mm, NAMES[0], scene)[image][0]
        without, within = (built.assigner.assign(predictions, gts[image], own) for built in (plain, wary))
        inside = torch.zeros_like(without.gt_inds, dtype=torch.bool)
        if own is not None:
            # of the cells whose corners the priors are
            centers = predictions.priors[:, :2] + predictions.priors[:, 2:] / 2
            inside = ((centers > crowd[:, :2]) & (centers < crowd[:, 2:])).all(1)
            assert 0 < (inside & (without.gt_inds == 0)).sum() < len(inside)
        assert torch.equal(within.gt_inds, torch.where(inside & (without.gt_inds == 0), -1, without.gt_inds))
    with mm.integration.patch(wary):
        together = targets_of(wary, scene, gts, ignored)
        unaware = targets_of(plain, scene, gts, ignored)
    alone = targets_of(wary, scene, gts, ignored)
    assert any(
        (weight == 0).sum() > (other == 0).sum()
        for weight, other in zip(together[2], unaware[2], strict=True)
    )
    for target, expected in zip(together[:5], alone[:5], strict=True):
        for level, value in zip(target, expected, strict=True):
            assert torch.equal(level, value)
    for sample, expected in zip(together[5], alone[5], strict=True):
        assert torch.equal(sample.neg_inds, expected.neg_inds)


@pytest.mark.parametrize("name", ["RTMDetHead", "RTMDetSepBNHead", "YOLOXHead"])
@pytest.mark.parametrize(
    ("counts", "crowds"), [((0, 0), 0), ((0, 0), 5), ((1000, 1), 0)], ids=["empty", "all-crowd", "1000-gts"]
)
def test_heads_train_through(mm, name, counts, crowds):
    torch.manual_seed(0)
    built = head(mm, name)
    with mm.integration.patch(built):
        losses = built.loss(features(), samples(mm, counts, crowds))
    sum(sum(value) if isinstance(value, list) else value for value in losses.values()).backward()
    assert all(
        parameter.grad.isfinite().all() for parameter in built.parameters() if parameter.grad is not None
    )


@pytest.mark.parametrize("name", ["RTMDetHead", "RTMDetSepBNHead", "YOLOXHead"])
def test_heads_train_under_autocast(mm, name):
    torch.manual_seed(0)
    built = head(mm, name)
    with mm.integration.patch(built), torch.autocast("cpu", dtype=torch.bfloat16):
        losses = built.loss(features(), samples(mm, (5, 0)))
    total = sum(sum(value) if isinstance(value, list) else value for value in losses.values())
    total.backward()
    assert total.isfinite()
    assert (
        sum(
            float(parameter.grad.abs().sum())
            for parameter in built.parameters()
            if parameter.grad is not None
        )
        > 0
    )


def test_an_image_without_a_valid_prior_is_background(mm):
    built = head(mm)
    batch = samples(mm, (3, 3))
    batch[0].set_metainfo({"pad_shape": (0, 0)})
    with pytest.raises((TypeError, ValueError)):
        built.loss(features(), batch)
    with mm.integration.patch(built):
        losses = built.loss(features(), batch)
    assert all(value.isfinite() for values in losses.values() for value in values)


def test_patching_twice_and_undoing_twice_is_harmless(mm):
    before = replaceable(mm)
    mm.integration.patch()
    mm.integration.patch()
    assert not set(before) & set(replaceable(mm))
    mm.integration.unpatch()
    mm.integration.unpatch()
    assert replaceable(mm) == before


def replaceable(mm: SimpleNamespace) -> list[Any]:
    """What the patch replaces."""
    rtmdet, yolox = (
        mm.integration.PACKAGE.load(f"mmdet.models.dense_heads.{name}_head") for name in ("rtmdet", "yolox")
    )
    return [rtmdet.RTMDetHead.get_targets, yolox.multi_apply]


def test_heads_that_would_not_assign_in_one_call_are_refused_by_attribute(mm):
    built = head(mm)

    class Own(type(built)):
        def get_targets(self, *args: Any, **kwargs: Any) -> Any:
            """A fork's own way."""

    built.__class__ = Own
    with pytest.raises(TypeError, match=r"Own\.get_targets: expected RTMDetHead's own, got an override"):
        mm.integration.patch(built)
    built = head(mm)
    built.assigner = mm.classes.DynamicSoftLabelAssigner()
    for act in (lambda: mm.integration.patch(built), lambda: built.loss(features(), samples(mm))):
        with pytest.raises(
            TypeError, match=r"RTMDetSepBNHead\.assigner: expected simota_triton.*import simota_triton"
        ):
            act()
        mm.integration.patch()
    built = head(mm, "YOLOXHead")
    built.sampler = None
    with pytest.raises(TypeError, match=r"YOLOXHead\.sampler: expected PseudoSampler, got NoneType"):
        mm.integration.patch(built)
    with pytest.raises(
        ValueError, match="model: expected a RTMDetHead or YOLOXHead of mmdet in it, got Linear"
    ):
        mm.integration.patch(nn.Linear(1, 1))


def test_priors_that_differ_between_images_are_refused(mm):
    built = head(mm)
    anchors = built.get_anchors

    def moved(*args: Any, **kwargs: Any) -> Any:
        priors, flags = anchors(*args, **kwargs)
        return [priors[0], [level + 1 for level in priors[0]]], flags

    built.get_anchors = moved
    with (
        mm.integration.patch(built),
        pytest.raises(ValueError, match="anchor_list: expected the same priors for every image"),
    ):
        built.loss(features(), samples(mm))


def test_targets_that_are_not_mapped_back_are_refused(mm):
    built = head(mm)
    with (
        mm.integration.patch(built),
        pytest.raises(ValueError, match="unmap_outputs: expected True, got False; undo the patch"),
    ):
        built.get_targets(
            None,
            None,
            [[torch.zeros(1, 4)]],
            [[torch.ones(1, dtype=torch.bool)]],
            [None],
            [{}],
            unmap_outputs=False,
        )


class Photos(torch.utils.data.Dataset):
    """Two 64 px images for mmengine's runner."""

    metainfo: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, mm: SimpleNamespace) -> None:
        self.samples = samples(mm, (3, 1))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "inputs": torch.randint(256, (3, 64, 64), dtype=torch.uint8),
            "data_samples": self.samples[index],
        }


@pytest.mark.parametrize(
    "base", ["rtmdet/rtmdet_tiny_8xb32-300e_coco.py", "yolox/yolox_tiny_8xb8-300e_coco.py"]
)
def test_the_readmes_two_lines_train_by_ours(mm, base, tmp_path, monkeypatch):
    """A published configuration, the two lines, and mmengine's runner for one step."""
    readme = Path(__file__).parents[2] / "simota_triton/integrations/README.md"
    (lines,) = re.findall(r"```python mmdet\n(.*?)```", readme.read_text(), re.S)
    published = Path(mm.integration.PACKAGE.load("mmdet").__file__).parent / ".mim" / "configs" / base
    if not published.exists():
        pytest.skip("mmdet's source comes without its configurations")
    (tmp_path / "own.py").write_text(f'_base_ = "{published}"\n{lines}')
    config = mm.mmengine.Config.fromfile(tmp_path / "own.py")
    assert len(config.custom_hooks) >= 2, "the base's hooks are kept"
    scope = mm.mmengine.registry.DefaultScope  # what a runner leaves behind
    monkeypatch.setattr(scope, "_instance_dict", scope._instance_dict.copy())
    seen = []
    targets = mm.integration.check_head
    monkeypatch.setattr(mm.integration, "check_head", lambda built: seen.append(targets(built)))
    model = config.model.to_dict()
    model["backbone"].pop("init_cfg", None)
    model["data_preprocessor"] = {"type": "DetDataPreprocessor"}
    model["bbox_head"]["num_classes"] = 3
    loader = {
        "batch_size": 2,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": Photos(mm),
    }
    runner = mm.mmengine.runner.Runner(
        model=local_norms(model),
        work_dir=str(tmp_path),
        optim_wrapper={**config.optim_wrapper.to_dict(), "type": "OptimWrapper"},
        train_cfg={"by_epoch": False, "max_iters": 1},
        train_dataloader=loader,
        default_hooks={**config.default_hooks.to_dict(), "checkpoint": None},
        default_scope="mmdet",
        experiment_name=tmp_path.name,
    )
    before = replaceable(mm)
    with hearing() as calls:
        runner.train()
    assert replaceable(mm) == before
    assert len(seen) == 2, "once before training, once for the batch"
    assert len(calls) == 1
    assert calls[0].gt_counts == [3, 1]


def local_norms(config: Any) -> Any:
    """The configuration with norms that a single process has."""
    if isinstance(config, dict):
        return {key: "BN" if value == "SyncBN" else local_norms(value) for key, value in config.items()}
    return config
