"""Costs and masks that a caller gives for pairs, and the matching stage on its own."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simota_triton import SimOTAAssigner, SimOTAConfig, backends
from simota_triton.capture import capture, read_batches
from simota_triton.inputs import pack
from simota_triton.measure.cases import cases
from simota_triton.verification.judge import judge
from simota_triton.verification.scenes import FORMS, make_scene
from simota_triton.verification.suite import Target, findings

FIELDS = ("gt_index", "labels", "matched_iou", "claims", "dynamic_k")
NAN, INF = float("nan"), float("inf")
DENSE = ("reference", "torch")


def assert_same(first, second, fields=FIELDS):
    for name in fields:
        assert torch.equal(getattr(first, name), getattr(second, name)), name


def extras(scene, seed=0):
    """An extra cost of each gt and prior, some of it not finite, and a mask: lists of [G, P]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(len(boxes), len(scene.priors)) for boxes in scene.gt_boxes]
    extra = [4 * torch.randn(shape, generator=generator) for shape in shapes]
    for values in extra:
        for junk in (NAN, INF, -INF):
            values[torch.rand(values.shape, generator=generator) < 0.03] = junk
    return extra, [torch.rand(shape, generator=generator) < 0.8 for shape in shapes]


def in_form(values, form, inputs):
    """Lists of [G, P] in a form of the gts; padding and rows that no image owns hold junk."""
    if form == "list":
        return values
    (_, _, priors, boxes, _), kwargs = inputs
    junk = True if values[0].dtype == torch.bool else NAN
    if form in ("packed", "spare"):
        offsets = kwargs["gt_offsets"]
        rows = torch.full((len(boxes), len(priors)), junk, dtype=values[0].dtype)
        rows[offsets[0] : offsets[-1]] = torch.cat(values)
        return rows
    mask = kwargs["gt_mask"]
    padded = torch.full((*mask.shape, len(priors)), junk, dtype=values[0].dtype)
    for image, own in enumerate(values):
        padded[image, mask[image]] = own
    return padded


def by_hand(assigner, scene, extra, mask):
    """The matching of the plain call's matrices, changed as the text says."""
    args, kwargs = scene.inputs(assigner.config.score)
    cost, iou = (matrix.clone() for matrix in assigner.cost_matrix(*args, **kwargs))
    real = torch.zeros(cost.shape[:2], dtype=torch.bool)
    for image, (own, allowed) in enumerate(zip(extra, mask, strict=True)):
        taken = allowed & own.isfinite()
        rows = slice(0, len(own))
        cost[image, rows] = torch.where(taken, cost[image, rows] + own, INF)
        iou[image, rows] = torch.where(taken, iou[image, rows], -1.0)
        real[image, rows] = True
    return assigner.match(cost, iou, gt_mask=real), real


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    preset=st.sampled_from(SimOTAConfig.presets()),
    form=st.sampled_from(FORMS[:2] + FORMS[3:]),
)
def test_a_call_is_the_matching_of_its_matrices_with_the_extra_cost(seed, preset, form):
    scene = make_scene(seed)
    extra, mask = extras(scene, seed)
    expected, real = by_hand(SimOTAAssigner(preset, backend="reference"), scene, extra, mask)
    for backend in DENSE:
        assigner = SimOTAAssigner(preset, backend=backend)
        inputs = scene.inputs(assigner.config.score, form)
        given = {"extra_cost": in_form(extra, form, inputs), "pair_mask": in_form(mask, form, inputs)}
        result = scene.call(assigner, form, **given)
        assert_same(result, expected, ("gt_index", "matched_iou", "claims"))
        k = torch.cat([result.to_image(b).dynamic_k[: len(boxes)] for b, boxes in enumerate(scene.gt_boxes)])
        assert torch.equal(k, expected.dynamic_k[real])
        merged = [torch.where(allowed, own, NAN) for own, allowed in zip(extra, mask, strict=True)]
        assert_same(result, scene.call(assigner, form, extra_cost=in_form(merged, form, inputs)))


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "seed"])
def test_the_judge_finds_nothing_to_explain(preset, backend):
    scene, config = make_scene(140), SimOTAConfig.from_preset(preset)
    extra, mask = extras(scene)
    given = {"extra_cost": extra, "pair_mask": mask}
    result = scene.call(SimOTAAssigner(config, backend=backend), **given)
    args, kwargs = scene.inputs(config.score)
    verdict = judge(result, pack(config, *args, **kwargs, **given), config)
    assert verdict.unexplained == []
    assert verdict.positives > 0
    assert not torch.equal(result.gt_index, scene.call(SimOTAAssigner(config, backend=backend)).gt_index)


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
def test_nothing_extra_changes_nothing(backend):
    scene, assigner = make_scene(69), SimOTAAssigner("yolox", backend=backend)
    plain = scene.call(assigner)
    zeros = [torch.zeros(len(boxes), len(scene.priors), dtype=torch.float64) for boxes in scene.gt_boxes]
    assert_same(plain, scene.call(assigner, extra_cost=zeros))
    assert_same(plain, scene.call(assigner, pair_mask=[values == 0 for values in zeros]))


def test_a_huge_extra_cost_stays_a_cost():
    scene, assigner = make_scene(69), SimOTAAssigner("yolox", backend="torch")
    plain = scene.call(assigner)
    for value in (3.4e38, -3.4e38):
        result = scene.call(
            assigner,
            extra_cost=[torch.full((len(boxes), len(scene.priors)), value) for boxes in scene.gt_boxes],
        )
        assert torch.equal(result.dynamic_k, plain.dynamic_k)
        assert torch.equal(result.claims.sum(1), plain.claims.sum(1))


def test_backend_triton_stream_refuses_and_says_what_to_do(monkeypatch):
    scene = make_scene(69)
    mask = extras(scene)[1]
    message = (
        "extra_cost, pair_mask: backend 'triton-stream' forms no (gt, prior) matrix that they could be "
        "added to; use backend='triton', "
        "which takes memory for one, or backend='torch'"
    )
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        scene.call(SimOTAAssigner("rtmdet", backend="triton-stream"), pair_mask=mask)
    fast = torch.compile(
        SimOTAAssigner("rtmdet", backend="triton-stream"), fullgraph=True, backend="aot_eager"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        fast(*scene.inputs("logit")[0], pair_mask=mask)
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "triton-stream")
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        scene.call(SimOTAAssigner("rtmdet"), pair_mask=mask)


def test_auto_takes_a_backend_that_forms_a_matrix(monkeypatch):
    device = torch.device("cuda")
    monkeypatch.setattr(backends, "choose", lambda *_: ("triton-stream", "Triton on an NVIDIA GPU"))
    assert backends.choose_for_call("auto", device, pairs=True) == "triton"
    monkeypatch.setattr(backends, "choose", lambda *_: ("torch", "plain PyTorch"))
    assert backends.choose_for_call("auto", device, pairs=True) == "torch"


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
def test_it_compiles(backend):
    torch._dynamo.reset()
    scene, assigner = make_scene(69), SimOTAAssigner("rtmdet", backend=backend)
    extra, mask = extras(scene)
    args, _ = scene.inputs("logit")
    expected = assigner(*args, extra_cost=extra, pair_mask=mask)
    found = torch.compile(assigner, fullgraph=True, backend="aot_eager")(
        *args, extra_cost=extra, pair_mask=mask
    )
    assert_same(found, expected)
    torch._dynamo.reset()


def test_captured_batches_hold_it(tmp_path):
    scene, assigner = make_scene(69), SimOTAAssigner("rtmdet")
    extra, mask = extras(scene)
    with capture(tmp_path / "mine.batches"):
        expected = scene.call(assigner, extra_cost=extra, pair_mask=mask)
    ((batch,), _) = read_batches(tmp_path / "mine.batches")
    assert_same(SimOTAAssigner(batch.config)(**batch.inputs), expected)


def test_commands_leave_out_a_backend_that_does_not_take_it(tmp_path):
    scene, assigner = make_scene(69), SimOTAAssigner("rtmdet")
    extra, mask = extras(scene)
    for options in ({"extra_cost": extra}, {"pair_mask": mask}, {}):
        with capture(tmp_path / "mine.batches"):
            scene.call(assigner, **options)
    with_cost, with_mask, plain = read_batches(tmp_path / "mine.batches")[0]
    names, device = ["triton-stream", "torch"], torch.device("cpu")
    assert [next(iter(cases(batch, device, names))) for batch in (with_cost, with_mask, plain)] == [
        "torch",
        "torch",
        "triton-stream",
    ]
    for batches, status in (((with_cost, with_mask), "not run"), ((with_mask, plain), "passed")):
        (found,) = findings(Target("triton-stream", device, batches=batches), checks=["answers"])
        assert found.status == status, found.detail


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
@pytest.mark.parametrize("form", FORMS)
def test_match_has_the_parameters_of_the_assigner(preset, form):
    for seed in (3, 140):
        scene, assigner = make_scene(seed), SimOTAAssigner(preset, backend="reference")
        args, kwargs = scene.inputs(assigner.config.score, form)
        result = assigner(*args, **kwargs)
        mask = kwargs.get("gt_mask")
        matching = assigner.match(*assigner.cost_matrix(*args, **kwargs), gt_mask=mask)
        assert_same(matching, result, ("gt_index", "matched_iou", "claims"))
        if mask is not None:
            assert torch.equal(matching.dynamic_k, result.dynamic_k)


WRONG = [
    (
        "list",
        {"extra_cost": torch.zeros(2, 3)},
        TypeError,
        "extra_cost: expected a list of tensors, as gt_boxes, got Tensor",
    ),
    ("packed", {"extra_cost": torch.zeros(2, 3)}, ValueError, "extra_cost: expected [N, P] = "),
    ("padded", {"extra_cost": torch.zeros(2, 3)}, ValueError, "extra_cost: expected [B, G, P] = "),
    ("padded", {"pair_mask": torch.zeros(2, 3)}, ValueError, "pair_mask: expected [B, G, P] = "),
    ("padded", {"pair_mask": 3}, TypeError, "pair_mask: expected a torch.Tensor, got int"),
]


@pytest.mark.parametrize(("form", "given", "error", "message"), WRONG)
def test_other_shapes_are_refused(form, given, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        make_scene(69).call(SimOTAAssigner("rtmdet"), form, **given)


def test_other_dtypes_are_refused():
    scene, assigner = make_scene(69), SimOTAAssigner("rtmdet")
    mask = extras(scene)[1]
    for wrong, message in (
        (
            {"extra_cost": mask},
            "extra_cost: expected a floating dtype, got torch.bool; use extra_cost.float(), or pair_mask "
            "for a mask",
        ),
        (
            {"pair_mask": [values.float() for values in mask]},
            "pair_mask: expected torch.bool, True where the gt may take the prior, got torch.float32; use "
            "pair_mask.bool()",
        ),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            scene.call(assigner, **wrong)
