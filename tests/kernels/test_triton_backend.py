"""The fused backend from end to end: assignments against the float64 definition, invariances and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig
from simota_triton.backends import triton_fused
from simota_triton.inputs import pack
from simota_triton.kernels.host import INTERPRETED
from simota_triton.problem import map_tensors
from simota_triton.tuning.kernel_config import KernelConfig, Shape, heuristic
from simota_triton.verification.judge import judge
from simota_triton.verification.scenes import FAMILIES, FORMS, LAYOUTS, make_scene
from simota_triton.verification.variants import config_of
from tests.support.kernels import DEVICE, PRESETS, ApproximateUnits, on_device, random_inputs, random_problem

ROOT = Path(__file__).parents[2]


def assign(problem, config, kernels=None):
    """The backend's matching, back on the CPU."""
    matching = triton_fused.assign(on_device(problem), config, kernels)
    return map_tensors(lambda value: value.cpu(), matching)


def explained(seed):
    """Holds a scene of the fuzz to the definition, in a form and layout of its own; counts positives."""
    config, scene = config_of(seed), make_scene(seed)
    problem = scene.problem(config, FORMS[seed % len(FORMS)], LAYOUTS[seed % len(LAYOUTS)])
    verdict = judge(assign(problem, config), problem, config)
    assert not verdict.unexplained, (seed, scene.family, config, verdict.unexplained[:3])
    return verdict.positives


# 61 shares no factor with the number of families: every one of them comes, under all presets and variants
SEEDS = range(0, 61 * 3 * len(FAMILIES), 61)


def test_every_answer_is_explained():
    assert len({config_of(seed).preset for seed in SEEDS}) == len(PRESETS)
    assert len({make_scene(seed).family for seed in SEEDS}) == len(FAMILIES)
    assert sum(map(explained, SEEDS)) > 20 * len(SEEDS)


@pytest.mark.skipif(not INTERPRETED, reason="a GPU has its own approximate units")
def test_every_answer_is_explained_with_the_approximate_units_of_a_gpu(monkeypatch):
    units = ApproximateUnits(monkeypatch)
    assert sum(explained(seed + 30) for seed in SEEDS) > 20 * len(SEEDS)
    assert units.calls > 1000


@pytest.mark.parametrize("preset", ["rtmdet", "mmdet_simota"])
def test_an_image_does_not_depend_on_its_batch(preset):
    config = SimOTAConfig.from_preset(preset)
    pred, cls, obj, priors, boxes, labels = random_inputs(300, [5, 0, 9, 2], 5)
    obj = obj if config.score == "joint" else None
    together = assign(pack(config, pred, cls, priors, boxes, labels, obj_logits=obj), config)
    start = 0
    for b, own in enumerate(boxes):
        one = slice(b, b + 1)
        alone = assign(
            pack(
                config,
                pred[one],
                cls[one],
                priors,
                boxes[one],
                labels[one],
                obj_logits=None if obj is None else obj[one],
            ),
            config,
        )
        for name in ("gt_index", "matched_iou", "claims"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[one])
        assert torch.equal(alone.dynamic_k, together.dynamic_k[start : start + len(own)])
        start += len(own)


def test_offsets_that_only_the_device_knows():
    config = SimOTAConfig.rtmdet()
    problem = random_problem(config, 200, [5, 0, 3], 4)
    expected = assign(problem, config)
    unknown = replace(problem, gts=replace(problem.gts, max_count=None))
    assert all(map(torch.equal, assign(unknown, config)[:4], expected[:4]))


def test_gts_that_cannot_be_used_take_no_part():
    config = SimOTAConfig.rtmdet()
    pred, cls, _, priors, (boxes,), (labels,) = random_inputs(200, [6], 4)
    for spoil in (
        lambda _, labels: labels.__setitem__(2, -1),
        lambda _, labels: labels.__setitem__(2, 1 << 40),
        lambda boxes, _: boxes.__setitem__((2, 1), torch.nan),
        lambda boxes, _: boxes.__setitem__(2, torch.tensor([-1e30, -1e30, 1e30, 1e30])),
    ):
        bad_boxes, bad_labels = boxes.clone(), labels.clone()
        spoil(bad_boxes, bad_labels)
        found = assign(pack(config, pred, cls, priors, [bad_boxes], [bad_labels], validate=False), config)
        kept = [i for i in range(6) if i != 2]
        expected = assign(pack(config, pred, cls, priors, [boxes[kept]], [labels[kept]]), config)
        renumbered = torch.tensor([*kept, -1])[expected.gt_index]
        assert torch.equal(found.gt_index, renumbered)
        assert found.dynamic_k[2] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    pred, cls, obj, priors, boxes, labels = (
        [v.to(DEVICE) for v in value] if isinstance(value, list) else value.to(DEVICE)
        for value in random_inputs(200, [5, 3], 4)
    )
    assigner = SimOTAAssigner("yolox", backend="triton")
    cls, obj = cls.to(dtype), obj.to(dtype)
    expected = assigner(pred, cls, priors, boxes, labels, obj_logits=obj)
    with torch.autocast(DEVICE.type, dtype):
        found = assigner(pred, cls, priors, boxes, labels, obj_logits=obj)
        matrices = assigner.cost_matrix(pred, cls, priors, boxes, labels, obj_logits=obj)
    assert torch.equal(found.gt_index, expected.gt_index)
    assert torch.equal(found.matched_iou, expected.matched_iou)
    assert matrices.cost.dtype == matrices.iou.dtype == torch.float32


def test_deterministic_algorithms_change_nothing():
    problem, config = random_problem(SimOTAConfig.rtmdet(), 300, [9, 4], 4), SimOTAConfig.rtmdet()
    before = torch.are_deterministic_algorithms_enabled()
    try:
        answers = []
        for enabled in (True, False):
            torch.use_deterministic_algorithms(enabled)
            answers.append(assign(problem, config)[:4])
    finally:
        torch.use_deterministic_algorithms(before)
    assert all(map(torch.equal, *answers))


def test_cost_matrices_for_looking_at():
    inputs = [
        [v.to(DEVICE) for v in value] if isinstance(value, list) else value.to(DEVICE)
        for value in random_inputs(100, [3, 1], 4)
    ]
    pred, cls, _, priors, boxes, labels = inputs
    fused, dense = (
        SimOTAAssigner("rtmdet", backend=name).cost_matrix(pred, cls, priors, boxes, labels)
        for name in ("triton", "reference")
    )
    plain = SimOTAAssigner("rtmdet", backend="torch").cost_matrix(pred, cls, priors, boxes, labels)
    assert fused.cost.shape == fused.iou.shape == (2, 3, 100)
    assert torch.equal(fused.cost.isinf(), dense.cost.isinf())
    finite = dense.cost < torch.inf
    assert torch.allclose(fused.cost[finite], dense.cost[finite], rtol=1e-4, atol=1e-5)
    assert torch.allclose(fused.iou, dense.iou)
    assert torch.equal(plain.cost, dense.cost)
    with pytest.raises(ValueError, match=r"pred_boxes: expected \[B, P, 4\]"):
        SimOTAAssigner("rtmdet").cost_matrix(pred[..., 0], cls, priors, boxes, labels)


def test_a_request_that_cannot_be_met_is_refused_with_a_remedy(monkeypatch):
    problem, config = on_device(random_problem(SimOTAConfig.rtmdet(), 20, [2], 3)), SimOTAConfig.rtmdet()
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(
        RuntimeError,
        match=r"^backend: 'triton' cannot run on .*: Triton is not installed; use backend='torch'$",
    ):
        triton_fused.assign(problem, config)


def test_cpu_tensors_are_refused_outside_the_interpreter():
    code = (
        "import torch; from simota_triton import SimOTAAssigner\n"
        "t = torch.zeros(1, 2, 4)\n"
        "SimOTAAssigner('rtmdet', backend='triton')(t, t, torch.ones(2, 4), [t[0] + 1], [torch.zeros(2, "
        "dtype=torch.int64)])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "PYTHONPATH": str(ROOT)
    }
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert result.returncode == 1
    assert "RuntimeError: backend: 'triton' cannot run on cpu: its tensors are not on a GPU" in result.stderr
    assert "set TRITON_INTERPRET=1 before Triton is imported); use backend='torch'" in result.stderr


def test_matrices_that_do_not_fit_are_named_with_a_remedy(monkeypatch):
    problem, config = on_device(random_problem(SimOTAConfig.rtmdet(), 500, [2, 4], 3)), SimOTAConfig.rtmdet()

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(
        torch.OutOfMemoryError,
        match=r"\[2, 4, 500\], which takes about 0.0 GB; use backend='torch'.*2.00 GiB",
    ):
        triton_fused.assign(problem, config)


def test_nothing_to_assign():
    config = SimOTAConfig.rtmdet()
    for num_priors, counts in ((0, [2, 1]), (5, [0, 0]), (0, [0])):
        found = assign(random_problem(config, num_priors, counts, 3), config)
        assert found.gt_index.shape == (len(counts), num_priors)
        assert (found.gt_index == -1).all()


# launch parameters


def test_the_heuristic_fills_every_gpu_it_knows_and_those_it_does_not():
    for capability in ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1), (13, 7)):
        for shape in (
            Shape(1, 100, 1),
            Shape(4, 21504, 1000),
            Shape(32, 8400, 100),
            Shape(128, 8400, 4967),
            Shape(0, 0, 0),
        ):
            kernels = heuristic(capability, shape)
            assert heuristic(capability, shape) == kernels
            assert kernels.gts_per_program >= 16
    few = heuristic((9, 0), Shape(4, 21504, 1000))
    assert 4 * (21504 / few.tile) * (1000 / few.gts_per_program) > 132 * 4
    assert heuristic((9, 0), Shape(32, 8400, 100)).gts_per_program > 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tile": 500}, "tile: expected a power of two, got 500"),
        ({"rows": 0}, "rows: expected a power of two, got 0"),
        ({"cost_warps": 32}, "tile: expected at least a prior a lane, 32 \\* cost_warps = 1024, got 512"),
        ({"gts_per_program": 0}, "gts_per_program: expected a positive integer, got 0"),
    ],
)
def test_launch_parameters_are_checked(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        KernelConfig(**fields)
