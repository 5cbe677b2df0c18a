"""Launch parameters: where they come from, what a file may do to them, and that they change nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from simota_triton import SimOTAAssigner
from simota_triton.cli.tune import model
from simota_triton.cli.tune.families import TUNABLE
from simota_triton.tuning import choice, store
from simota_triton.tuning.choice import choose
from simota_triton.tuning.families import FAMILIES
from simota_triton.tuning.kernel_config import PROCESSORS, KernelConfig, Shape, bucket
from simota_triton.tuning.store import SCHEMA, Gpu, StoreError, packaged_file, read, save, user_file
from simota_triton.tuning.stream_config import StreamConfig

ROOT = Path(__file__).parents[1]
GPU = Gpu("NVIDIA Test 80GB", (9, 0))
SHAPE = Shape(32, 8400, 40)
CHOSEN = KernelConfig(rows=16, tile=256, gts_per_program=8)
INPUTS = (
    torch.rand(1, 4, 4).cumsum(2),
    torch.rand(1, 4, 3),
    torch.ones(4, 4),
    [torch.rand(1, 4).cumsum(1)],
    [torch.tensor([0])],
)
FAMILY = pytest.mark.parametrize("family", TUNABLE.values(), ids=TUNABLE)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The user's folder, empty, and an empty package folder."""
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", str(tmp_path / "user"))
    monkeypatch.setattr(store, "PACKAGED", tmp_path / "packaged")
    choice.forget()
    choice._read_once.cache_clear()
    yield tmp_path / "user"
    choice.forget()
    choice._read_once.cache_clear()


def entry(kernels=CHOSEN):
    return {"config": asdict(kernels), "median_ms": 1.0, "default_ms": 1.5, "measured": {"workload": "coco"}}


def write(path, **changes):
    """A file of one bucket, some of its keys replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "schema": SCHEMA,
        "gpu": GPU.name,
        "capability": [9, 0],
        "kernels": {"triton": {bucket(SHAPE): entry()}},
    }
    path.write_text(json.dumps(data | changes))


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# precedence


def test_the_users_file_comes_before_the_packages_and_both_before_the_heuristic(caplog):
    heuristic = FAMILIES["triton"].heuristic(GPU.capability, SHAPE)
    assert choose("triton", GPU, SHAPE) == (heuristic, "heuristic")
    packaged = replace(CHOSEN, tile=128)
    write(
        packaged_file(GPU), gpu="another of its family", kernels={"triton": {bucket(SHAPE): entry(packaged)}}
    )
    assert choose("triton", GPU, SHAPE) == (packaged, f"{packaged_file(GPU)}, bucket b32-p16384-g64")
    write(user_file(GPU))
    assert choose("triton", GPU, SHAPE) == (CHOSEN, f"{user_file(GPU)}, bucket b32-p16384-g64")
    assert not warnings_of(caplog)


def test_outside_the_tuned_buckets_the_heuristic_decides():
    write(user_file(GPU))
    for shape, tuned in (
        (Shape(17, 8193, 33), True),
        (Shape(32, 16384, 64), True),
        (Shape(16, 8400, 40), False),
        (Shape(32, 8192, 40), False),
        (Shape(32, 8400, 65), False),
    ):
        assert (choose("triton", GPU, shape).source != "heuristic") == tuned, shape
    assert choose("triton", Gpu("another", (8, 0)), SHAPE).source == "heuristic"


@FAMILY
def test_an_unknown_gpu_gets_a_configuration(family):
    for capability in ((1, 0), (8, 7), (13, 1)):
        assert isinstance(choose(family.backend, Gpu("none such", capability), SHAPE).kernels, family.config)


@pytest.mark.parametrize("method", ["__call__", "cost_matrix"])
def test_an_argument_comes_before_everything(method, monkeypatch):
    from simota_triton.backends import triton_fused

    seen = []

    def computed(problem, config, kernels=None):
        seen.append(kernels)
        raise KeyError

    for name in ("assign", "cost_matrix"):
        monkeypatch.setattr(triton_fused, name, computed)
    for kernels in (CHOSEN, None):
        with pytest.raises(KeyError):
            getattr(SimOTAAssigner("rtmdet", backend="triton", kernels=kernels), method)(*INPUTS)
    assert seen == [CHOSEN, None]


def test_cost_matrices_of_a_backend_that_forms_none_are_those_of_the_one_with_its_bits():
    pinned, dense = (
        SimOTAAssigner("rtmdet", kernels=StreamConfig()),
        SimOTAAssigner("rtmdet", backend="triton"),
    )
    assert all(map(torch.equal, pinned.cost_matrix(*INPUTS), dense.cost_matrix(*INPUTS)))


def test_the_arguments_type_picks_the_backend():
    assert SimOTAAssigner("rtmdet", kernels=CHOSEN).backend == "triton"
    with pytest.raises(
        ValueError,
        match=r"kernels: KernelConfig is for backend 'triton', got backend 'torch'; leave one of the two out",
    ):
        SimOTAAssigner("rtmdet", backend="torch", kernels=CHOSEN)
    with pytest.raises(TypeError, match=r"kernels: expected a KernelConfig.* or None, got dict"):
        SimOTAAssigner("rtmdet", kernels=asdict(CHOSEN))


def test_a_pinned_configuration_gives_the_same_answer_compiled_too():
    if not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("its tensors are on the CPU")
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 60, 2, generator=generator) * 60
    pred = torch.cat([corner, corner + 20], -1)
    priors = torch.cat([torch.rand(60, 2, generator=generator) * 64, torch.full((60, 2), 8.0)], 1)
    gts = torch.tensor([[[4.0, 4, 40, 50], [20, 10, 60, 60]]] * 2)
    inputs = pred, torch.randn(2, 60, 3, generator=generator), priors, gts, torch.tensor([[0, 2]] * 2)
    expected = SimOTAAssigner("rtmdet", backend="triton")(*inputs).gt_index
    assert (expected >= 0).any()
    pinned = SimOTAAssigner("rtmdet", kernels=replace(CHOSEN, gts_per_program=1))
    assert torch.equal(pinned(*inputs).gt_index, expected)
    compiled = torch.compile(pinned, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*inputs).gt_index, expected)


def test_a_call_reads_no_file_once_its_gpu_is_known(monkeypatch):
    monkeypatch.setattr(Gpu, "of", classmethod(lambda cls, device: GPU))
    write(user_file(GPU))
    device = torch.device("cuda", 0)
    assert choice.configuration("triton", device, SHAPE) == CHOSEN
    monkeypatch.setattr(choice, "choose", lambda *_: pytest.fail("looked up again"))
    assert choice.configuration("triton", device, SHAPE) == CHOSEN


def test_a_file_that_changed_is_read_again_after_forgetting():
    write(user_file(GPU))
    assert choose("triton", GPU, SHAPE).kernels == CHOSEN
    write(user_file(GPU), kernels={"triton": {bucket(SHAPE): entry(replace(CHOSEN, tile=64, cost_warps=1))}})
    os.utime(user_file(GPU), ns=(1, 1))
    assert choose("triton", GPU, SHAPE).kernels.tile == 64


# files that cannot be used


def instead(old, new):
    """A change of a file's text: one piece of it is replaced."""
    return lambda text: text.replace(old, new)


SPOILED = {
    "truncated": (lambda text: text[: len(text) // 2], "is not used: "),
    "empty": (lambda text: "", "is not used: "),
    "no JSON": (lambda text: "tile = 512", "is not used: "),
    "not UTF-8": (lambda text: b"\xff\xfe" + text.encode(), "is not used: "),
    "a list": (lambda text: "[]", "it is no file of measured configurations"),
    "newer": (instead('"schema": 1', '"schema": 2'), "its schema 2 is newer than this package's, 1"),
    "another GPU": (instead("80GB", "40GB"), "it was measured on NVIDIA Test 40GB"),
    "another capability": (instead("[9, 0]", "[8, 0]"), "it was measured on NVIDIA Test 80GB ((8, 0))"),
    "no kernels": (instead("kernels", "colonels"), "'kernels' is missing"),
    "kernels of no kind": (instead('"config"', '"confi"'), "'config' is missing"),
    "an unknown field": (instead('"tile"', '"tiles"'), "expected the fields rows, prior_warps"),
    "a huge tile": (
        instead('"tile": 256', f'"tile": {1 << 30}'),
        "tile: expected an integer from 64 to 1024",
    ),
    "a negative number": (instead('"tile": 256', '"tile": -256'), "an integer from 64 to 1024, got -256"),
    "no power of two": (instead('"tile": 256', '"tile": 300'), "tile: expected a power of two, got 300"),
    "a string": (instead('"tile": 256', '"tile": "256"'), "an integer from 64 to 1024, got '256'"),
    "a truth value": (instead('"prior_warps": 1', '"prior_warps": true'), "prior_warps: expected an integer"),
    "null": (instead('"tile": 256', '"tile": null'), "tile: expected an integer"),
    "NaN": (instead('"tile": 256', '"tile": NaN'), "tile: expected an integer"),
    "fields that do not fit": (
        instead('"tile": 256', '"tile": 64'),
        "tile: expected at least a prior a lane",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_file_that_cannot_be_used_is_one_warning_and_the_heuristic(what, caplog):
    spoil, message = SPOILED[what]
    write(user_file(GPU))
    before = user_file(GPU).read_text()
    after = spoil(before)
    assert after != before
    user_file(GPU).write_bytes(after if isinstance(after, bytes) else after.encode())
    for shape in (SHAPE, Shape(1, 100, 1), SHAPE):
        assert choose("triton", GPU, shape) == (
            FAMILIES["triton"].heuristic(GPU.capability, shape),
            "heuristic",
        )
    (warning,) = warnings_of(caplog)
    assert str(user_file(GPU)) in warning
    assert message in warning
    assert "simota-triton tune" in warning


def test_a_file_that_may_not_be_read_is_a_warning_too(caplog, monkeypatch):
    write(user_file(GPU))
    monkeypatch.setattr(
        Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    assert choose("triton", GPU, SHAPE).source == "heuristic"
    assert "cannot be read (Permission denied)" in warnings_of(caplog)[0]


def test_no_home_and_no_folder_are_no_error(monkeypatch, caplog):
    monkeypatch.delenv("SIMOTA_TRITON_CONFIG_DIR")
    monkeypatch.setenv("HOME", "/nowhere/at/all")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert str(user_file(GPU)) == "/nowhere/at/all/.cache/simota_triton/nvidia-test-80gb.json"
    assert choose("triton", GPU, SHAPE).source == "heuristic"
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", "~nobody-of-this-name/kept")
    assert str(user_file(GPU)) == "~nobody-of-this-name/kept/nvidia-test-80gb.json"
    assert choose("triton", GPU, SHAPE).source == "heuristic"
    assert not warnings_of(caplog)


# writing


def test_what_is_saved_is_read_and_the_rest_of_the_file_stays():
    path = user_file(GPU)
    assert save(path, GPU, "triton", {"b1-p1-g1": entry()}) is None
    save(path, GPU, "triton", {"b2-p1-g1": entry(replace(CHOSEN, tile=128))})
    found = read(path, GPU)["triton"]
    assert found == {"b1-p1-g1": CHOSEN, "b2-p1-g1": replace(CHOSEN, tile=128)}
    data = json.loads(path.read_text())
    data["kernels"]["a backend to come"] = {"x": 1}
    path.write_text(json.dumps(data))
    save(path, GPU, "triton", {"b2-p1-g1": entry()})
    assert json.loads(path.read_text())["kernels"]["a backend to come"] == {"x": 1}
    assert read(path, GPU)["triton"]["b2-p1-g1"] == CHOSEN


def test_a_file_that_is_not_understood_is_kept_aside():
    path = user_file(GPU)
    write(path, schema=9)
    text = path.read_text()
    kept = save(path, GPU, "triton", {"b1-p1-g1": entry()})
    assert kept.read_text() == text
    assert read(path, GPU)["triton"] == {"b1-p1-g1": CHOSEN}


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_file_as_it_was(step, error, monkeypatch):
    path = user_file(GPU)
    save(path, GPU, "triton", {"b1-p1-g1": entry()})
    text = path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(os, step, lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            save(path, GPU, "triton", {"b2-p1-g1": entry()})
    assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir() if p.name.endswith(".tmp")] == []


def test_a_process_killed_while_it_writes_loses_nothing(folder):
    save(user_file(GPU), GPU, "triton", {"b1-p1-g1": entry()})
    text = user_file(GPU).read_text()
    code = (
        "import os, signal\n"
        "from simota_triton.tuning.store import Gpu, save, user_file\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"gpu = Gpu({GPU.name!r}, (9, 0))\n"
        "save(user_file(gpu), gpu, 'triton', {'b2-p1-g1': {}})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert user_file(GPU).read_text() == text
    save(user_file(GPU), GPU, "triton", {"b2-p1-g1": entry()})  # its lock went with it
    assert len(read(user_file(GPU), GPU)["triton"]) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_eight_processes_that_write_at_once_lose_nothing(folder):
    children = []
    for i in range(8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the child touches no thread
            child = os.fork()
        if child:
            children.append(child)
            continue
        status = 1
        try:
            for j in range(20):
                save(user_file(GPU), GPU, "triton", {f"b{i}-p{j}-g1": entry()})
                assert read(user_file(GPU), GPU)["triton"][f"b{i}-p{j}-g1"] == CHOSEN
            status = 0
        finally:
            os._exit(status)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert set(read(user_file(GPU), GPU)["triton"]) == {f"b{i}-p{j}-g1" for i in range(8) for j in range(20)}
    assert [path.name for path in folder.iterdir() if path.name.endswith((".tmp", ".unread"))] == []


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(folder):
    folder.write_text("a file is in the way")
    with pytest.raises(OSError, match="user"):
        save(user_file(GPU), GPU, "triton", {"b1-p1-g1": entry()})
    assert choose("triton", GPU, SHAPE).source == "heuristic"


# the space


@FAMILY
def test_a_space_holds_its_base_first_and_nothing_twice(family):
    base = family.heuristic((9, 0), SHAPE)
    space = family.space(base)
    assert space[0] == base
    assert len(space) == len(set(space)) >= 200
    assert {name for axes in family.stages for name in axes} == {
        field.name for field in fields(family.config)
    }


@FAMILY
def test_what_the_heuristic_and_the_space_give_may_stand_in_a_file(family):
    shapes = Shape(1, 100, 1), Shape(4, 21504, 1000), Shape(32, 8400, 100), Shape(128, 8400, 10_000)
    for capability in PROCESSORS:
        for shape in shapes:
            for kernels in family.space(family.heuristic(capability, shape)):
                assert family.read(asdict(kernels)) == kernels


def test_reading_a_file_for_another_gpu_says_which(folder):
    write(user_file(GPU))
    with pytest.raises(
        StoreError, match=r"measured on NVIDIA Test 80GB \(\(9, 0\)\), this is NVIDIA Test 80GB \(\(9, 1\)\)"
    ):
        read(user_file(GPU), GPU._replace(capability=(9, 1)))


def test_an_interrupt_waits_until_the_workers_are_started():
    """Other threads of the process, which do not block the signal, are given it."""
    event, steps = threading.Event(), []
    waiting = threading.Thread(target=event.wait, daemon=True)
    waiting.start()

    def interrupted():
        with model._interrupts_wait():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            steps.append("the block goes on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert steps
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
        event.set()
        waiting.join()
