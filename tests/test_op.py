"""The assigner inside torch.compile: one operator, compiled once for any number of gts."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from simota_triton import SimOTAAssigner, SimOTAConfig, TaskAlignedAssigner, TaskAlignedConfig, op
from simota_triton.assigners import assigner_of
from simota_triton.backends.known import config_of
from simota_triton.inputs import pack
from tests.support.interpreter import QUICK
from tests.support.kernels import DEVICE, random_inputs

# Inductor's own import of a deprecated function
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

BACKENDS = ("reference", "torch", "triton", "triton-stream")
FIELDS = ("gt_index", "labels", "matched_iou", "ignore_mask", "claims", "dynamic_k", "scores")
CALLS = [("rtmdet", name) for name in BACKENDS] + [("tal", name) for name in BACKENDS if name != "triton"]
"""Presets of both rules, with the backends that compute them."""


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def moved(value):
    return [v.to(DEVICE) for v in value] if isinstance(value, list) else value.to(DEVICE)


def padded_inputs(width, seed=0, batch=2):
    """pred_boxes, cls_logits, obj_logits, priors, gt_boxes, gt_labels, gt_mask."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, width + 1, (batch,), generator=generator).tolist()
    pred, cls, obj, priors, boxes, labels = random_inputs(80, counts, 4, seed)
    padded, padded_labels = torch.zeros(batch, width, 4), torch.zeros(batch, width, dtype=torch.int64)
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    padded[mask], padded_labels[mask] = torch.cat(boxes), torch.cat(labels)
    return tuple(map(moved, (pred, cls, obj, priors, padded, padded_labels, mask)))


def flat(problem, config, backend):
    gts = problem.gts
    return (
        problem.pred_boxes,
        list(problem.cls_logits.levels),
        list(problem.obj_logits.levels) if problem.obj_logits else [],
        problem.priors,
        gts.boxes,
        gts.labels,
        gts.given_centers,
        gts.offsets,
        gts.mask,
        problem.candidate_mask,
        problem.extra_cost,
        op.UNKNOWN if gts.padded_shape is None else gts.padded_shape[1],
        op.UNKNOWN if gts.max_count is None else gts.max_count,
        gts.all_owned,
        [size for shape in problem.cells or () for size in shape],
        op.config_key(config),
        backend,
    )


@pytest.mark.parametrize(("preset", "backend"), CALLS)
@pytest.mark.parametrize("form", ["padded", "list", "device offsets", "maps"])
def test_the_operator_passes_pytorchs_own_checks(preset, backend, form):
    config = config_of("yolox" if form == "maps" and preset == "rtmdet" else preset)
    pred, cls, obj, priors, boxes, labels = map(moved, random_inputs(80, [3, 2], 4))
    if form == "padded":
        pred, cls, _, priors, boxes, labels, mask = padded_inputs(4)
        problem = pack(
            config,
            pred,
            cls,
            priors,
            boxes,
            labels,
            gt_mask=mask,
            candidate_mask=torch.ones_like(pred[..., 0]) > 0,
        )
    elif form == "maps":
        maps = [
            [
                value[:, :64].transpose(1, 2).reshape(2, -1, 8, 8),
                value[:, 64:].transpose(1, 2).reshape(2, -1, 4, 4),
            ]
            for value in (cls, obj)
        ]
        objectness = {"obj_logits": maps[1]} if config.score == "joint" else {}
        problem = pack(config, pred, maps[0], priors, boxes, labels, **objectness)
    else:
        problem = pack(config, pred, cls, priors, boxes, labels)
    arguments = list(flat(problem, config, backend))
    if form == "device offsets":
        arguments[11] = op.UNKNOWN
    torch.library.opcheck(torch.ops.simota_triton.assign.default, tuple(arguments))
    expected = op.assign(problem, op.config_key(config), "reference", rule=config.rule)
    *found, scores = torch.ops.simota_triton.assign(*arguments)
    assert all(map(torch.equal, expected, found)) or backend != "reference"
    if config.rule == "simota":
        assert not scores.numel()  # which this rule has none of
    else:
        torch.testing.assert_close(scores, expected.scores, rtol=1e-5, atol=0.0)
        assert bool((scores > 0).any())


def test_a_configuration_survives_its_key():
    for name in SimOTAConfig.presets():
        config = SimOTAConfig.from_preset(name, candidate_topk=7, iou_weight=0.1)
        assert op.config_of(op.config_key(config)) == config
    for name in TaskAlignedConfig.presets():
        config = TaskAlignedConfig.from_preset(name, topk=7, alpha=0.1)
        assert op.config_of(op.config_key(config)) == config


def compiled(assigner, compiler):
    """A function around the assigner, compiled in one piece, and the counter of its compilations."""
    counter = CompileCounterWithBackend(compiler)

    def step(pred, cls, priors, boxes, labels, mask):
        result = assigner(pred * 1.0, cls, priors, boxes, labels, gt_mask=mask)
        return (
            tuple(getattr(result, name) for name in FIELDS),
            result.fg_mask,
            result.gt_boxes,
            result.num_pos,
        )

    return step, torch.compile(step, fullgraph=True, backend=counter), counter


@pytest.mark.parametrize(
    ("preset", "backend", "compiler"),
    [
        *((*call, "aot_eager") for call in CALLS),
        ("rtmdet", "torch", "inductor"),
        ("rtmdet", "triton", "inductor"),
        ("tal", "torch", "inductor"),
    ],
)
def test_many_numbers_of_gts_compile_once_where_the_dimension_is_marked(preset, backend, compiler):
    step, fast, counter = compiled(assigner_of(config_of(preset), backend=backend), compiler)
    for width in range(2, 22) if backend in QUICK else (2, 3, 8, 17):
        pred, cls, _, priors, boxes, labels, mask = padded_inputs(width, seed=width)
        for value in (boxes, labels, mask):
            torch._dynamo.mark_dynamic(value, 1)
        found, expected = (
            fast(pred, cls, priors, boxes, labels, mask),
            step(pred, cls, priors, boxes, labels, mask),
        )
        for one, other in zip(
            torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(expected), strict=True
        ):
            assert torch.equal(one, other)
    assert counter.frame_count == 1


def test_unmarked_it_compiles_once_more():
    step, fast, counter = compiled(SimOTAAssigner("rtmdet", backend="torch"), "aot_eager")
    for width in range(2, 22):
        pred, cls, _, priors, boxes, labels, mask = padded_inputs(width, seed=width)
        assert torch.equal(
            fast(pred, cls, priors, boxes, labels, mask)[0][0],
            step(pred, cls, priors, boxes, labels, mask)[0][0],
        )
    assert counter.frame_count == 2


@pytest.mark.parametrize(("preset", "backend"), CALLS)
def test_every_form_of_the_inputs_compiles(preset, backend):
    pred, cls, obj, priors, boxes, labels = map(moved, random_inputs(80, [3, 2], 4))
    maps = [
        [
            value[:, :64].transpose(1, 2).reshape(2, -1, 8, 8),
            value[:, 64:].transpose(1, 2).reshape(2, -1, 4, 4),
        ]
        for value in (cls, obj)
    ]
    packed = (torch.cat(boxes), torch.cat(labels)), {"gt_offsets": torch.tensor([0, 3, 5])}
    assigner = assigner_of(config_of("yolox" if preset == "rtmdet" else preset), backend=backend)
    fast = torch.compile(assigner, fullgraph=True, backend="aot_eager")
    for gts, more in (((boxes, labels), {}), packed):
        for logits, objectness in ((cls, obj), maps):
            options = {"ignore_boxes": [b[:1] for b in boxes], **more}
            if assigner.config.score == "joint":
                options["obj_logits"] = objectness
            found, expected = (
                fast(pred, logits, priors, *gts, **options),
                assigner(pred, logits, priors, *gts, **options),
            )
            for name in FIELDS:
                assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_points_without_strides_and_dense_targets_compile():
    pred, cls, _, priors, boxes, labels, mask = padded_inputs(4, seed=1)
    assigner = TaskAlignedAssigner("tal", backend="torch")

    def step(pred, cls, points, boxes, labels, mask):
        return assigner(pred, cls, points, boxes, labels, gt_mask=mask).target_scores()

    inputs = pred, cls, priors[:, :2], boxes, labels, mask
    found = torch.compile(step, fullgraph=True, backend="aot_eager")(*inputs)
    assert torch.equal(found, step(*inputs))
    assert bool((found > 0).any())


def test_values_are_not_looked_at_while_compiling():
    pred, cls, _, priors, boxes, labels, mask = padded_inputs(4, seed=2)
    labels[0, 0], mask[0, 0] = 99, True
    assigner = SimOTAAssigner("rtmdet", backend="torch", validate=True)
    with pytest.raises(ValueError, match="gt_labels: expected labels in"):
        assigner(pred, cls, priors, boxes, labels, gt_mask=mask)
    result = torch.compile(assigner, fullgraph=True, backend="aot_eager")(
        pred, cls, priors, boxes, labels, gt_mask=mask
    )
    assert result.dynamic_k[0, 0] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_compiles_under_autocast_and_takes_what_requires_gradients(dtype):
    pred, cls, _, priors, boxes, labels, mask = padded_inputs(5, seed=3)
    step, fast, _ = compiled(SimOTAAssigner("rtmdet", backend="triton"), "aot_eager")
    expected = step(pred, cls.to(dtype), priors, boxes, labels, mask)
    with torch.autocast(DEVICE.type, dtype):
        found = fast(pred.requires_grad_(), cls.to(dtype).requires_grad_(), priors, boxes, labels, mask)
    assert all(map(torch.equal, found[0], expected[0]))
    assert not found[2].requires_grad
