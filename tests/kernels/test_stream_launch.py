"""The host side of the streaming backend: scratch memory, operators issued, launch parameters, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from simota_triton import SimOTAConfig, grid_priors
from simota_triton.backends import triton_stream
from simota_triton.backends.known import config_of
from simota_triton.config import TaskAlignedConfig
from simota_triton.inputs import pack
from simota_triton.kernels.fused import launch as fused
from simota_triton.kernels.stream import common
from simota_triton.kernels.stream import launch as stream
from simota_triton.kernels.stream.grid import find_grid, guess_cells
from simota_triton.kernels.stream.scratch import allocate, scratch_bytes, scratch_parts
from simota_triton.measure.workloads import WORKLOADS
from simota_triton.tuning.kernel_config import KernelConfig, Shape
from simota_triton.tuning.stream_config import MAX_SPLITS, StreamConfig, stream_heuristic
from tests.support.kernels import PRESETS, on_device, random_inputs, random_problem

ROOT = Path(__file__).parents[2]
KERNELS = ("prepare", "sums_and_ious", "select", "resolve")
ALIGNED = ("prepare", "select_aligned", "resolve_aligned", "rank_owned", "largest_owned", "write_targets")
"""Those of the task-aligned rule, of which ``rank_owned`` is launched ``topk2`` times."""
TAL_MEGABYTES = {"coco": 5.05, "xview": 26.0}
"""What the README says of preset tal."""

ALIGNED_PRESETS = [name for name in TaskAlignedConfig.presets() if "obb" not in name]
CAPABILITIES = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (13, 7))


@pytest.fixture
def launches(monkeypatch):
    """Names and grids of the kernels, which do nothing."""
    found = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            return lambda *args, **kwargs: found.append((self.name, grid))

    of_simota = (common, KERNELS[:1]), (stream, KERNELS[1:])
    of_aligned = (stream.aligned, ALIGNED[1:])
    for module, names in (*of_simota, of_aligned, (fused, ("prior_pass", "cost_pass"))):
        for name in names:
            monkeypatch.setattr(module, name, Recorder(name))
    return found


# scratch memory


def bytes_needed(batch, num_priors, num_gts, config, kernels):
    grid = find_grid((), kernels.tile, (num_priors,))
    return scratch_bytes(scratch_parts(batch, num_priors, num_gts, config, grid, kernels))


@pytest.mark.parametrize(("name", "megabytes"), [("coco", 10), ("o365", 12), ("xview", 60)])
def test_scratch_of_the_named_workloads(name, megabytes):
    workload = WORKLOADS[name]
    num_priors = len(grid_priors(workload.image_size))
    rows = workload.num_gts if workload.padded is None else workload.batch * workload.padded
    for capability in CAPABILITIES:
        kernels = stream_heuristic(capability, Shape(workload.batch, num_priors, rows))
        for preset in (*PRESETS, *ALIGNED_PRESETS):
            needed = bytes_needed(workload.batch, num_priors, rows, config_of(preset), kernels)
            assert needed <= megabytes * 1e6, (capability, preset)
        if name in TAL_MEGABYTES:
            needed = bytes_needed(workload.batch, num_priors, rows, TaskAlignedConfig.tal(), kernels)
            assert needed <= TAL_MEGABYTES[name] * 1e6


@pytest.mark.parametrize(
    "preset", ["rtmdet", "yolox", "super_gradients_fast", "seed", "tal", "tal_o2o", "yolo9_mit"]
)
def test_nothing_is_allocated_besides_scratch_and_outputs(preset, launches, monkeypatch):
    config, kernels = config_of(preset), StreamConfig(splits=4)
    allocated = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if "empty" in str(function):
                allocated.append(result.numel() * result.element_size())
            return result

    problem = on_device(random_problem(config, 333, [5, 0, 4], 3))
    with Counting():
        matching = stream.run(problem, config, kernels)
    matching = [value for value in matching if value is not None]
    outputs = sum(value.numel() * value.element_size() for value in matching)
    assert sum(allocated) - outputs == bytes_needed(3, 333, 9, config, kernels)
    assert len(allocated) == len(matching) + 1  # the scratch memory is one allocation


def test_every_part_of_the_scratch_memory_is_aligned_and_its_own():
    for preset, number in (
        ("rtmdet", 10), ("super_gradients_fast", 11), ("tal", 8), ("tal_o2o", 8), ("tood", 9),
    ):  # fmt: skip
        config, kernels = config_of(preset), StreamConfig(splits=4)
        grid = find_grid((), kernels.tile, (333,))
        needed = scratch_parts(3, 333, 7, config, grid, kernels)
        parts = [part for part in allocate(needed, torch.device("cpu")) if part is not None]
        ranges = sorted(
            (part.data_ptr(), part.data_ptr() + part.numel() * part.element_size()) for part in parts
        )
        assert not any(part.data_ptr() % 16 for part in parts)
        assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
        assert len(parts) == number


def test_contested_priors_always_find_room():
    """Two claims make a contested prior: there are at most half as many as claims, and as many as priors."""
    config = SimOTAConfig.rtmdet()
    for batch, num_priors, num_gts in ((2, 333, 7), (1, 5, 1000), (1, 1, 1), (3, 100, 1)):
        grid = find_grid((), 64, (num_priors,))
        parts = scratch_parts(batch, num_priors, num_gts, config, grid, StreamConfig())
        assert parts["conflicts"][1] == parts["conflict_costs"][1]
        assert parts["conflicts"][1] >= min(batch * num_priors, num_gts * 13 // 2)


# what is issued


ALLOWED = ("empty", "view", "split", "slice", "expand", "detach", "alias", "transpose", "as_strided")


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "seed", "tal_o2o", "tood"])
def test_no_operator_but_allocation_and_views(preset, launches, monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    config = config_of(preset)
    pred, cls, obj, *rest = random_inputs(252, [4, 2], 5)
    maps = [
        level.transpose(1, 2).reshape(2, 5, side, -1).half()
        for side, level in zip((12, 6, 3), cls.split([192, 48, 12], 1), strict=True)
    ]
    for logits in (cls, maps):
        problem = pack(
            config,
            pred,
            logits,
            *rest,
            obj_logits=obj if config.score == "joint" else None,
            validate=False,
        )
        issued = []

        class Recording(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None, issued=issued):
                issued.append(function._schema.name)
                return function(*args, **(kwargs or {}))

        problem = on_device(problem)
        with Recording():
            triton_stream.assign(problem, config, StreamConfig())
        others = [name for name in issued if not any(allowed in name for allowed in ALLOWED)]
        assert not others


def test_four_launches(launches):
    for preset in PRESETS:
        config = SimOTAConfig.from_preset(preset)
        stream.run(
            random_problem(config, 333, [5, 0, 4], 3), config, StreamConfig(splits=2, rows=16, resolvers=7)
        )
        assert tuple(name for name, _ in launches) == KERNELS
        grids = dict(launches)
        (tiles,) = grids["prepare"]  # of all images
        assert tiles % 3 == 0
        assert grids["sums_and_ious"] == (9 * 2 + (tiles * 64 // 16 if config.cls_classes == "all" else 0),)
        assert grids["select"] == (9,)
        assert grids["resolve"] == (7,)
        launches.clear()
    stream.run(random_problem(config, 5, [0, 0], 3), config, StreamConfig())
    assert not launches


@pytest.mark.parametrize(("preset", "ranks"), [("tal", 0), ("tal_o2o", 1), ("tood", 0)])
def test_five_launches_and_one_for_each_rank(preset, ranks, launches):
    config, expected = config_of(preset), [*ALIGNED[:3], *ALIGNED[3:4] * ranks, *ALIGNED[4:]]
    stream.run(random_problem(config, 333, [5, 0, 4], 3), config, StreamConfig(resolvers=7))
    assert [name for name, _ in launches] == expected
    grids = dict(launches)
    assert grids["select_aligned"] == (9,)
    assert grids["resolve_aligned"] == (7,)
    assert grids["write_targets"] == grids["largest_owned"] == (3 * -(-333 // stream.aligned.BLOCK),)
    launches.clear()
    stream.run(random_problem(config, 5, [0, 0], 3), config, StreamConfig())
    assert not launches


def test_batches_of_any_size_lie_on_the_axis_of_a_grid_that_holds_them(launches):
    config, batch = SimOTAConfig.rtmdet(), 70_000
    offsets = torch.arange(batch + 1)
    problem = pack(
        config,
        torch.zeros(batch, 2, 4),
        torch.zeros(batch, 2, 3),
        torch.ones(2, 4),
        torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(batch, 1),
        torch.zeros(batch, dtype=torch.int64),
        gt_offsets=offsets,
    )
    problem = on_device(problem)
    stream.run(problem, config, StreamConfig())
    fused.run(problem, config, KernelConfig(), 1)
    assert [name for name, _ in launches] == [*KERNELS, "prior_pass", "cost_pass"]
    for name, grid in launches:
        assert all(size <= 65_535 for size in grid[1:]), name
        assert name == "resolve" or grid[0] >= batch


def test_gts_of_an_image_fit_their_axis_and_priors_that_do_not_are_refused(launches):
    config, kernels = SimOTAConfig.rtmdet(), KernelConfig(gts_per_program=1)

    def problem(num_gts, num_priors):
        boxes, labels = (
            [torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(num_gts, 1)],
            [torch.zeros(num_gts, dtype=torch.int64)],
        )
        shape = 1, num_priors
        return on_device(
            pack(
                config,
                torch.zeros(*shape, 4),
                torch.zeros(*shape, 1),
                torch.ones(num_priors, 4),
                boxes,
                labels,
            )
        )

    for num_gts, expected in ((65_535, 65_535), (65_536, 32_768)):
        fused.run(problem(num_gts, 2), config, kernels, num_gts)
        assert launches.pop() == ("cost_pass", (1, 1, expected))
    most = 65_535 * kernels.tile
    fused.run(problem(1, most), config, kernels, 1)
    assert launches.pop() == ("cost_pass", (1, 65_535, 1))
    with pytest.raises(
        ValueError,
        match=f"^pred_boxes: expected at most {most} priors for backend 'triton', got {most + 1}; use "
        "'triton-stream'",
    ):
        fused.run(problem(1, most + 1), config, kernels, 1)


# grids and launch parameters


def test_square_pyramids_are_recognised():
    for size in (64, 96, 320, 416, 640, 1024, 1280):
        for strides in ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (8, 16, 32, 64, 128)):
            cells = guess_cells(len(grid_priors(size, strides)))
            assert sum(rows * columns for rows, columns in cells) == len(grid_priors(size, strides))
    assert guess_cells(8400) == ((80, 80), (40, 40), (20, 20))
    assert guess_cells(8399) == ()
    assert find_grid((), 64, (8399,)).widths == (8,)  # rows as wide as a tile


def test_levels_without_cells_and_shapes_that_do_not_fit_are_left_out():
    grid = find_grid(((0, 5), (4, 6), (2, 3)), 32, (24, 6))
    assert grid.starts == (0, 24, 30)
    assert grid.widths == (6, 3)
    other = find_grid(((2, 3), (4, 6)), 32, (24, 6))  # of other sizes than the maps: not taken
    assert other.starts == (0, 24, 30)
    assert other.widths == (8, 8)


def test_the_heuristic_splits_only_while_few_gts_leave_a_gpu_idle():
    for capability in CAPABILITIES:
        splits = [
            stream_heuristic(capability, Shape(1, 8400, num_gts)).splits
            for num_gts in (1, 100, 2000, 5000, 10**5)
        ]
        assert splits == sorted(splits, reverse=True)
        assert splits[0] == MAX_SPLITS
        assert splits[-1] == 1
        assert stream_heuristic(capability, Shape(0, 0, 0)).splits == MAX_SPLITS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tile": 48}, "tile: expected a power of two of at least 32, got 48"),
        ({"tile": 16}, "tile: expected a power of two of at least 32, got 16"),
        ({"bounds": 16}, "bounds: expected a power of two of at least 32, got 16"),
        ({"iou_bounds": 33}, "iou_bounds: expected a power of two of at least 32, got 33"),
        ({"gts": 0}, "gts: expected a power of two of at least 32, got 0"),
        ({"rows": 4}, "rows: expected a power of two of at least 8, got 4"),
        ({"rows": 128}, "rows: expected at most the priors of a tile, 64, got 128"),
        ({"splits": 16}, "splits: expected at most 8, got 16"),
        ({"splits": 3}, "splits: expected a power of two, got 3"),
        ({"resolvers": 1.5}, "resolvers: expected a positive integer, got 1.5"),
    ],
)
def test_launch_parameters_are_checked(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        StreamConfig(**fields)


# refusals


def test_a_request_that_cannot_be_met_is_refused_with_a_remedy(monkeypatch):
    problem = types.SimpleNamespace(priors=types.SimpleNamespace(device=torch.device("cuda", 0)))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(major=7, minor=5)
    )
    refusal = r"^backend: 'triton-stream' cannot run on cuda:0: {}; use backend='torch'$"
    with pytest.raises(RuntimeError, match=refusal.format(r"compute capability 7\.5 is below 8\.0")):
        triton_stream.assign(problem, SimOTAConfig.rtmdet())
    monkeypatch.setattr(torch.version, "hip", "6.2")
    with pytest.raises(RuntimeError, match=refusal.format("the kernels are for NVIDIA GPUs")):
        triton_stream.assign(problem, SimOTAConfig.rtmdet())
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(RuntimeError, match=refusal.format("Triton is not installed")):
        triton_stream.assign(problem, SimOTAConfig.rtmdet())


def test_cpu_tensors_are_refused_outside_the_interpreter():
    code = (
        "import torch; from simota_triton import SimOTAAssigner\n"
        "t = torch.zeros(1, 2, 4)\n"
        "SimOTAAssigner('rtmdet', backend='triton-stream')(t, t, torch.ones(2, 4), [t[0] + 1], "
        "[torch.zeros(2, dtype=torch.int64)])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "PYTHONPATH": str(ROOT)
    }
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert result.returncode == 1
    assert (
        "RuntimeError: backend: 'triton-stream' cannot run on cpu: its tensors are not on a GPU"
        in result.stderr
    )
    assert "set TRITON_INTERPRET=1 before Triton is imported); use backend='torch'" in result.stderr


def test_scratch_that_cannot_be_allocated_is_named(monkeypatch):
    config = SimOTAConfig.rtmdet()
    problem = on_device(random_problem(config, 5000, [2, 4], 3))

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch, "empty", full)
    needed = bytes_needed(2, 5000, 6, config, StreamConfig()) / 1e6
    assert needed > 0.3
    with pytest.raises(
        torch.OutOfMemoryError,
        match=rf"^backend: 'triton-stream' needs {needed:.1f} MB of scratch memory for this batch; .*2\.00 "
        r"GiB",
    ):
        triton_stream.assign(problem, config, StreamConfig())
