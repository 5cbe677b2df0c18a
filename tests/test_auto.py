"""What "auto" takes on a stand-in for a GPU: right kernels, and every way in which they cannot be used."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
import types
import warnings

import pytest
import torch

from simota_triton import SimOTAConfig, backends, reference
from simota_triton.backends import auto, known, verdicts
from simota_triton.boxes import box_ciou
from simota_triton.inputs import pack
from simota_triton.task_aligned import reference as aligned
from simota_triton.task_aligned.reference import metric_matrix
from simota_triton.verification.judge.simota import SUM_ERROR, cost_intervals

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
STREAM = ("triton-stream", "Triton on an NVIDIA GPU; it gave the known answers there")


@pytest.fixture(autouse=True)
def gpu(monkeypatch, tmp_path):
    """A GPU that is not there, where nothing was decided; no verdict is kept."""
    properties = types.SimpleNamespace(name="NVIDIA Test", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(verdicts, "driver_version", lambda: "570.1")
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", str(tmp_path / "kept"))
    auto.forget()
    yield properties
    auto.forget()


@pytest.fixture
def checks(monkeypatch):
    """What checks find, one after the other (a difference or an exception); the last stays. Emptied of what
    was asked for.
    """
    found = [None]

    def check(device):
        assert device == GPU
        answer = found.pop(0) if len(found) > 1 else found[0]
        check.count += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer

    check.count = 0
    monkeypatch.setattr(auto, "check", check)
    check.found = found
    return check


def kept():
    return json.loads(verdicts.file().read_text())["verdicts"]


def test_right_kernels_are_taken_and_checked_once(checks, caplog):
    assert backends.choose("auto", GPU) == backends.choose("auto", GPU) == STREAM
    auto.forget()  # as another process would find it
    assert backends.choose("auto", GPU) == STREAM
    assert checks.count == 1
    (entry,) = kept()
    assert entry["difference"] is None
    assert (entry["gpu"], entry["capability"], entry["driver"]) == ("NVIDIA Test", [9, 0], "570.1")
    assert not caplog.records


@pytest.mark.parametrize(
    "part", ["driver_version", "triton_version", "__version__", "_hash_of_sources", "name"]
)
def test_a_verdict_is_about_one_gpu_and_one_set_of_versions(checks, monkeypatch, gpu, part):
    backends.choose("auto", GPU)
    auto.forget()
    if part == "name":
        gpu.name = "NVIDIA Other"
    else:
        monkeypatch.setattr(verdicts, part, "9.9" if part == "__version__" else lambda: "9.9")
    checks.found[:] = ["another answer"]
    assert backends.choose("auto", GPU)[0] == "torch"
    assert checks.count == len(kept()) == 2


def wrong_answer():
    """A check on the CPU of a backend that gives one prior to another gt."""

    def run(config, inputs):
        matching = known.runner("torch")(config, inputs)
        b, p = (matching.gt_index == 1).nonzero()[0].tolist()
        matching.gt_index[b, p] = 0
        return matching

    return known.difference(run, CPU)


class CompilationError(Exception):
    """Named as Triton's."""


CAUSES = {
    "no compiler": (
        RuntimeError("Failed to find C compiler. Please specify via CC"),
        "there is no C compiler, which Triton builds",
    ),
    "compile error": (
        CompilationError("\nat 3:4:\n  tl.nonsense()"),
        "the kernels cannot run there (CompilationError: at 3:4:)",
    ),
    "a Triton that does not fit": (
        AttributeError("no attribute 'constexpr'"),
        "AttributeError: no attribute 'constexpr'",
    ),
    "unknown capability": (
        RuntimeError("ptxas fatal: Value 'sm_130' is not defined"),
        "Value 'sm_130' is not defined",
    ),
    "CUDA error": (
        RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors"),
        "CUDA error: unspecified launch failure",
    ),
    "wrong answer": (wrong_answer, "the kernels give a wrong answer there (rtmdet: gt_index[0, "),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_is_one_warning_and_plain_pytorch(checks, monkeypatch, gpu, caplog, cause):
    answer, told = CAUSES[cause]
    checks.found[:] = [answer() if callable(answer) else answer]
    if cause == "no compiler":
        monkeypatch.setenv("CC", "/no/such/compiler")
    if cause == "unknown capability":
        gpu.major, gpu.minor = 13, 0
    for _ in range(3):
        name, reason = backends.choose("auto", GPU)
        assert name == "torch"
        assert told in reason
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("simota_triton", logging.WARNING)
    assert told in record.getMessage()
    assert "`simota-triton verify`" in record.getMessage()
    assert "cuda:0" in record.getMessage()
    assert checks.count == 1
    # what can be mended is found out again by the next process
    assert verdicts.file().exists() == (cause == "wrong answer")
    auto.forget()
    checks.found[:] = [None]
    assert (backends.choose("auto", GPU)[0] == "torch") == (cause == "wrong answer")


@pytest.mark.parametrize("missing", [True, False])
def test_a_triton_that_cannot_be_imported_is_a_cause_too(checks, monkeypatch, caplog, missing):
    if missing:
        monkeypatch.setitem(sys.modules, "triton", None)
    else:
        monkeypatch.delitem(sys.modules, "triton", raising=False)
        finder = types.SimpleNamespace(find_spec=lambda name, path, target=None: broken(name))
        monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])

    def broken(name):
        if name == "triton":
            raise ImportError("undefined symbol: _Z3foo")

    told = "Triton is not installed" if missing else "Triton's import fails (undefined symbol: _Z3foo)"
    for _ in range(2):
        assert backends.choose("auto", GPU) == ("torch", f"plain PyTorch: {told}")
    (record,) = caplog.records
    assert told in record.getMessage()
    assert not checks.count


def test_gpus_that_the_kernels_are_not_made_for_are_no_warning(checks, monkeypatch, gpu, caplog):
    gpu.major, gpu.minor = 7, 5
    assert backends.choose("auto", GPU) == ("torch", "plain PyTorch: compute capability 7.5 is below 8.0")
    gpu.major = 8
    auto.forget()
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert backends.choose("auto", GPU) == ("torch", "plain PyTorch: the kernels are for NVIDIA GPUs")
    assert not caplog.records
    assert not checks.count


@pytest.mark.parametrize("name", ["triton", "triton-stream"])
def test_a_backend_asked_for_by_name_is_never_replaced(checks, monkeypatch, name):
    checks.found[:] = [RuntimeError("cannot run")]
    assert backends.choose("auto", GPU)[0] == "torch"
    assert backends.choose(name, GPU)[0] == name
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", name)
    assert backends.choose("auto", GPU)[0] == name


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_running_out_of_memory_decides_nothing(checks, caplog, error):
    checks.found[:] = [error, None]
    name, reason = backends.choose("auto", GPU)
    assert name == "triton-stream"
    assert "ran out of memory" in reason
    assert not verdicts.file().exists()
    assert backends.choose("auto", GPU) == STREAM
    assert checks.count == 2
    assert not caplog.records


@pytest.mark.parametrize("compiled", [True, False])
def test_nothing_is_checked_in_a_capture_or_a_compiled_step(checks, monkeypatch, compiled):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: not compiled)
    for _ in range(2):
        assert backends.choose("auto", GPU, may_check=not compiled) == (
            "triton-stream",
            "Triton on an NVIDIA GPU; not checked there yet",
        )
    assert not checks.count
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    checks.found[:] = ["a wrong answer"]
    assert backends.choose("auto", GPU)[0] == "torch"  # the first call that may check decides
    assert backends.choose("auto", GPU, may_check=False)[0] == "torch"
    auto.forget()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert backends.choose("auto", GPU)[0] == "torch"  # the verdict is on disk


def test_processes_that_start_at_once_check_once(checks, monkeypatch):
    slow = lambda device: (time.sleep(0.3), checks(device))[1]  # noqa: E731
    monkeypatch.setattr(auto, "check", slow)
    about = verdicts.subject(GPU)
    found = []
    ranks = [threading.Thread(target=lambda: found.append(auto.check_once(GPU, about))) for _ in range(8)]
    for rank in ranks:  # files are locked by open file, not by process
        rank.start()
    for rank in ranks:
        rank.join()
    assert found == [verdicts.Verdict(None)] * 8
    assert checks.count == 1


def test_nobody_waits_for_a_process_that_died_or_hangs(tmp_path):
    path = verdicts.file()
    path.parent.mkdir()
    lock = path.with_name(f".{path.name}.check")
    hold = (
        f"import fcntl, time; f = open({str(lock)!r}, 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('held', "
        "flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"held\n"
        start = time.monotonic()
        with verdicts.turn(patience=0.3):  # it hangs
            assert 0.3 <= time.monotonic() - start < 5
        owner.kill()
        start = time.monotonic()
        with verdicts.turn(patience=60):  # it died
            assert time.monotonic() - start < 5


def test_a_folder_that_cannot_be_written_and_a_damaged_file_are_no_error(checks, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", str(tmp_path / "file" / "below"))
    assert backends.choose("auto", GPU) == STREAM
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", str(tmp_path))
    for content in (
        "{",
        "[]",
        '{"schema": 2, "verdicts": 3}',
        '{"schema": 1, "verdicts": [{"difference": 3}, 4]}',
        '{"schema": 1}',
    ):
        verdicts.file().write_text(content)
        auto.forget()
        checks.count = 0
        assert backends.choose("auto", GPU) == STREAM
        assert checks.count == len(kept()) == 1, content


def test_a_verdict_replaces_one_about_the_same_alone(checks):
    about = verdicts.subject(GPU)
    other = about | {"gpu": "NVIDIA Other"}
    verdicts.keep(other, verdicts.Verdict(None))
    verdicts.keep(about, verdicts.Verdict("wrong"))
    verdicts.keep(about, verdicts.Verdict(None))
    assert [entry["gpu"] for entry in kept()] == ["NVIDIA Other", "NVIDIA Test"]
    assert verdicts.find(about) == verdicts.find(other) == verdicts.Verdict(None)
    assert not [name for name in os.listdir(verdicts.file().parent) if name.endswith(".tmp")]


def test_the_check_waits_for_the_gpu_whatever_debug_mode_is_on(monkeypatch):
    modes = [2]

    def set_mode(mode):
        # as PyTorch
        warnings.warn(
            "Synchronization debug mode is a prototype feature and does not", UserWarning, stacklevel=1
        )
        modes.append(mode)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with contextlib.suppress(KeyError), auto._may_wait(GPU):
        assert modes == [2, "default"]
        raise KeyError
    assert modes == [2, "default", 2]
    modes[:] = [0]
    with auto._may_wait(GPU):
        pass
    assert modes == [0]  # a mode that nobody has changed is not touched: PyTorch would warn


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_every_backend_gives_the_known_answers(backend):
    device = (
        torch.device("cuda")
        if backend.startswith("triton") and not os.environ.get("TRITON_INTERPRET")
        else CPU
    )
    assert known.difference(known.runner(backend), device, known.presets_of(backend)) is None


def test_the_kernels_that_auto_takes_are_asked_of_every_rule():
    assert known.presets_of(auto.KERNELS) == list(known.PRESETS)


@pytest.mark.parametrize("field", ["gt_index", "dynamic_k", "claims", "labels", "matched_iou", "scores"])
@pytest.mark.parametrize("preset", known.PRESETS)
def test_one_wrong_value_is_found(field, preset):
    def run(config, inputs):
        matching = known.runner("reference")(config, inputs)
        # the label of gt g is g
        labels = torch.where(matching.gt_index >= 0, matching.gt_index, known.NUM_CLASSES)
        matching = matching._replace(labels=labels)
        if config.preset == preset:
            getattr(matching, field)[0, 1] += {"matched_iou": 3e-6, "scores": 3e-5}.get(field, 1)
        return matching

    if field == "scores" and preset in known.SIMOTA:
        pytest.skip("SimOTA has none")
    told = {"matched_iou": "a matched_iou", "scores": "a score"}.get(field, field)
    assert known.difference(run, CPU).startswith(f"{preset}: {told}")


@pytest.mark.parametrize("preset", known.SIMOTA)
def test_no_rounding_changes_a_known_answer(preset):
    config = SimOTAConfig.from_preset(preset)
    problem = pack(config, **known.problem(config, CPU), validate=False)
    cost, iou, gt_mask = reference.cost_matrix(problem, config, torch.float64)
    found = reference.assign(problem, config, dtype=torch.float64)
    low, high, _ = cost_intervals(problem, config, cost)
    sums = iou.topk(config.candidate_topk, dim=2).values.clamp(min=0).sum(2)
    assert torch.equal((sums - 2 * SUM_ERROR).floor()[gt_mask], (sums + 2 * SUM_ERROR).floor()[gt_mask])
    assert (found.claims > 1).any()
    for b, g in gt_mask.nonzero().tolist():
        order = cost[b, g].argsort()
        k = int(found.dynamic_k[b, g])
        assert k > 1
        assert high[b, g, order[:k]].max() < low[b, g, order[k:]].min()
    for b, p in (found.claims > 1).nonzero().tolist():
        (first, second), winner = low[b, :, p].topk(2, largest=False).values, found.gt_index[b, p]
        assert low[b, winner, p] == first
        assert high[b, winner, p] < second


def test_no_rounding_changes_a_known_answer_of_the_task_aligned_rule():
    (preset,) = set(known.PRESETS) - set(known.SIMOTA)
    config = known.config_of(preset)
    problem = pack(config, **known.problem(config, CPU), validate=False)
    metric, overlap, inside, gt_mask = metric_matrix(problem, config, torch.float64)
    found = aligned.assign(problem, config, dtype=torch.float64)
    assert (found.claims > 1).any()
    for b, g in gt_mask.nonzero().tolist():
        ranked = torch.where(inside, metric, 0.0)[b, g].sort(descending=True).values
        assert ranked[config.topk - 1] > 1.001 * ranked[config.topk] or ranked[config.topk] == 0
    ciou = box_ciou(problem.gts.boxes.view(2, -1, 1, 4).double(), problem.pred_boxes[:, None].double())
    assert not (inside & (ciou != 0) & (ciou.abs() < 1e-5)).any()  # nor do metrics begin or cease to be 0
    for b, p in (found.claims > 1).nonzero().tolist():
        first, second = torch.where(inside, overlap, -1.0)[b, :, p].topk(2).values
        assert first > second + 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_check_makes_its_tensors_whatever_the_caller_has_set(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"), torch.inference_mode():
            assert known.difference(known.runner("torch"), CPU) is None
    finally:
        torch.set_default_dtype(before)
