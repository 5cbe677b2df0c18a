"""Torch's default dtype and device change no answer, and no tensor of the package is made by them."""

import ast
import contextlib
import functools
from pathlib import Path

import pytest
import torch

import simota_triton
from simota_triton import SimOTAConfig, TaskAlignedConfig, convert_boxes, grid_priors, mask_centers
from simota_triton.assigners import assigner_of
from simota_triton.backends import BACKENDS
from simota_triton.backends.known import config_of
from simota_triton.verification.scenes import FAMILIES, FORMS, make_scene
from tests.support.interpreter import QUICK

PRESETS = (*SimOTAConfig.presets(), *TaskAlignedConfig.presets())
FIELDS = (
    "gt_index", "labels", "matched_iou", "ignore_mask", "claims", "dynamic_k", "gt_boxes", "num_pos",
    "scores",
)  # fmt: skip
FACTORIES = (
    "arange",
    "as_tensor",
    "empty",
    "eye",
    "full",
    "linspace",
    "logspace",
    "normal",
    "ones",
    "rand",
    "randint",
    "randn",
    "randperm",
    "scalar_tensor",
    "tensor",
    "zeros",
)


DEFAULTS = pytest.mark.parametrize("default", ["float16", "bfloat16", "float64", "meta", "with meta"])


@contextlib.contextmanager
def others(default):
    """Another default dtype or device."""
    if default == "with meta":
        with torch.device("meta"):
            yield
        return
    try:
        if default == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, default))
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def cases(backend):
    """Preset, form and scene of some calls: every preset and every form, empty batches among them."""
    families = (
        ("crowded", "empty_images", "all_empty", "few_priors") if backend in QUICK else ("tiny", "all_empty")
    )
    presets = PRESETS if backend in QUICK else ("rtmdet", "yolox", "picodet_lightly", "tal")
    presets = [name for name in presets if config_of(name).variety in BACKENDS[backend].load]
    for number, preset in enumerate(presets):
        for turn, family in enumerate(families):
            yield preset, FORMS[(number + turn) % len(FORMS)], make_scene(140 + turn, family)


def arguments(config, scene, form):
    """Arguments of an assigner of any rule."""
    args, options = scene.inputs(config.score, form)
    if config.rule == "task_aligned":
        del options["gt_centers"]
    if config.boxes == "rotated":
        pred_boxes, cls_logits, priors, gt_boxes, gt_labels = args
        gt_boxes = list(map(turned, gt_boxes)) if isinstance(gt_boxes, list) else turned(gt_boxes)
        args = turned(pred_boxes), cls_logits, priors, gt_boxes, gt_labels
    return args, options


def turned(boxes):
    """Boxes (cx, cy, w, h, 0.3) of those xyxy."""
    return torch.cat([convert_boxes(boxes, "xyxy", "cxcywh"), torch.full_like(boxes[..., :1], 0.3)], -1)


@functools.cache
def calls(backend):
    """Some calls of a backend and their answers, with torch's own defaults."""
    found = []
    for preset, form, scene in cases(backend):
        assigner = assigner_of(config_of(preset), backend=backend)
        args, options = arguments(assigner.config, scene, form)
        answer = assigner(*args, **options)
        found.append((assigner, args, options, answer, [getattr(answer, name) for name in FIELDS]))
    return found


@DEFAULTS
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gives_its_float32_answer(backend, default):
    for assigner, args, options, answer, fields in calls(backend):
        with others(default):
            found = assigner(*args, **options)
            values = [getattr(found, name) for name in FIELDS]
            more = found.summary(), found.to_image(0), found.matching_matrix(), found.target_scores()
            matrices = matrices_of(assigner)(*args, **options) if backend in QUICK else ()
        for name, value, expected in zip(FIELDS, values, fields, strict=True):
            assert value.dtype == expected.dtype
            assert torch.equal(value, expected), (assigner, name)
        assert more[0] == answer.summary()
        assert all(map(torch.equal, more[1], answer.to_image(0)))
        assert torch.equal(more[2], answer.matching_matrix())
        assert torch.equal(more[3], answer.target_scores())
        assert more[3].dtype == torch.float32
        assert all(matrix.dtype in (torch.float32, torch.bool) for matrix in matrices)


def matrices_of(assigner):
    """What shows an assigner's dense matrices."""
    return assigner.cost_matrix if assigner.config.rule == "simota" else assigner.metric_matrix


@DEFAULTS
@pytest.mark.parametrize("seed", range(0, 2 * len(FAMILIES), 2))
def test_scenes_priors_and_centers_are_the_same(seed, default):
    def made():
        scene = make_scene(seed)
        tensors = (scene.pred_boxes, scene.cls_logits, scene.obj_logits, *scene.gt_boxes, *scene.gt_labels)
        return (
            grid_priors((64, 96)),
            scene.priors,
            *tensors,
            mask_centers(masks, torch.zeros_like(masks[:, 0, :4], dtype=torch.float32)),
        )

    masks = torch.ones(2, 6, 8, dtype=torch.bool)
    expected = made()
    with others(default):
        found = made()
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0, equal_nan=True)


def careless(tree):
    """Lines of calls that leave a dtype or a device to torch's defaults."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not isinstance(node.func.value, ast.Name) or node.func.value.id != "torch":
            continue
        named = {word.arg for word in node.keywords}
        if node.func.attr in FACTORIES and None not in named and not {"dtype", "device"} <= named:
            yield node.lineno
        if node.func.attr == "where" and all(map(_is_scalar, node.args[1:])) and len(node.args) == 3:
            yield node.lineno


def _is_scalar(node):
    """A number, ``torch.inf``, a constant, or a choice of those."""
    if isinstance(node, ast.UnaryOp):
        return _is_scalar(node.operand)
    if isinstance(node, ast.IfExp):
        return _is_scalar(node.body) and _is_scalar(node.orelse)
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id in ("torch", "math")
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.isupper())


def test_the_package_names_dtype_and_device_wherever_it_makes_a_tensor():
    package = Path(simota_triton.__file__).parent
    found = [
        f"{path.relative_to(package)}:{line}"
        for path in sorted(package.rglob("*.py"))
        for line in careless(ast.parse(path.read_text()))
    ]
    assert not found, found


@pytest.mark.parametrize(
    "line",
    [
        "torch.zeros(3)",
        "torch.full((2,), 1.0, device=d)",
        "torch.where(m, 1.0, 0.0)",
        "torch.where(m, torch.inf, -1)",
    ],
)
def test_such_lines_are_found(line):
    assert list(careless(ast.parse(line)))
