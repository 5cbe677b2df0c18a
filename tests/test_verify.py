"""``simota-triton verify``: what it says of right backends, of wrong ones, and of what cannot be run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import types
from dataclasses import replace
from functools import partial

import pytest
import torch

from simota_triton import backends
from simota_triton.assigners import assigner_of
from simota_triton.capture import Recorded, Recorder, read_batches
from simota_triton.cli import arguments, main, verify
from simota_triton.measure.workloads import TINY, recorded
from simota_triton.verification import cases, scan, suite

CPU = torch.device("cpu")
INTERPRETED = pytest.mark.skipif(
    not os.environ.get("TRITON_INTERPRET"), reason="a stand-in for a GPU needs Triton's interpreter"
)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Workloads of a size for a test."""
    monkeypatch.setattr(suite, "FULL_SIZE", TINY)
    monkeypatch.setattr(suite, "SMALL", TINY)
    monkeypatch.setattr(suite, "WORKLOADS", {"coco": TINY})


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command: its exit code, its lines, its record and the batch that it wrote."""

    def verify(*options, out="found.json"):
        path = tmp_path / out
        workers = [] if "--batches" in options else ["--workers", "1"]
        code = main(
            ["verify", "--device", "cpu", "--backend", "torch", *workers, "--out", str(path), *options]
        )
        lines = capsys.readouterr().out.splitlines()
        repro = path.with_suffix(".batches")
        return code, lines, json.loads(path.read_text()), repro if repro.exists() else None

    return verify


def row(lines, check, backend="torch"):
    (found,) = [line for line in lines if re.split(r"\s{2,}", line)[:2] == [backend, check]]
    return found


def plant(monkeypatch, change, preset=None):
    """Backends whose matching ``change`` spoils, in all calls or those of a preset."""
    right = backends.assign

    def wrong(name, problem, config, kernels=None):
        matching = right(name, problem, config, kernels)
        return matching if preset not in (None, config.preset) else change(matching)

    monkeypatch.setattr(backends, "assign", wrong)


def lose_a_prior(matching):
    taken = (matching.gt_index >= 0).nonzero()
    if len(taken):
        matching.gt_index[tuple(taken[0])] = -1
    return matching


def test_a_right_backend_passes_and_the_record_says_on_what(run):
    code, lines, found, repro = run("--scenes", "30")
    assert code == 0
    assert repro is None
    assert "30 scenes" in row(lines, "answers")
    assert "0 unexplained" in row(lines, "answers")
    assert "plain PyTorch" in row(lines, "times")
    assert lines[-2] == "6 passed, 5 not run"
    assert found["passed"] is True
    assert {"torch", "triton", "simota_triton", "cpu", "python", "device", "date"} <= set(found["machine"])
    assert found["settings"]["scenes"] == 30
    assert [finding["check"] for finding in found["findings"]] == list(suite.CHECKS)
    assert found["findings"][-1]["rows"][0]["case"] == "torch"


def test_scenes_and_batches_of_the_task_aligned_rule_are_judged(run, tmp_path, monkeypatch):
    batch = recorded(TINY, "tal")
    path = tmp_path / "mine.batches"
    Recorder(path, 1).append(batch)
    code, lines, _, _ = run("--scenes", "6")
    assert code == 0
    assert "2 scenes" in row(lines, "answers, task-aligned")
    code, lines, _, _ = run("--batches", str(path))
    assert code == 0
    assert "1 batches" in row(lines, "answers")
    plant(monkeypatch, lose_a_prior, "tal")
    code, lines, _, repro = run("--batches", str(path))
    assert code == 1
    assert "failed" in row(lines, "answers")
    assert read_batches(repro)[0][0].config == batch.config


def test_a_planted_fault_of_the_task_aligned_rule_is_found_in_scenes(run, monkeypatch):
    right = backends.assign

    def wrong(name, problem, config, kernels=None):
        matching = right(name, problem, config, kernels)
        return lose_a_prior(matching) if config.rule == "task_aligned" else matching

    monkeypatch.setattr(backends, "assign", wrong)
    code, lines, _, repro = run("--scenes", "30")
    assert code == 1
    assert "failed" in row(lines, "answers, task-aligned")
    assert "failed" in row(lines, "full size")
    assert "passed" in row(lines, "answers")
    assert read_batches(repro)[0][0].config.rule == "task_aligned"


def test_a_backend_without_the_rule_is_not_asked_for_it():
    target = suite.Target("triton", CPU, scenes=1)
    (found,) = suite.findings(target, checks=["answers, task-aligned"])
    assert (found.status, found.detail) == (suite.NOT_RUN, "backend 'triton' does not compute the rule")
    batches = [recorded(TINY, "tal")]
    (found,) = suite.findings(suite.Target("triton", CPU, batches=batches), checks=["answers"])
    assert (found.status, found.detail[:32]) == (suite.NOT_RUN, "it computes none of the batches:")
    (found,) = suite.findings(
        suite.Target("triton-stream", CPU, batches=batches), checks=["bits of 'triton'"]
    )
    assert (found.status, found.detail) == (suite.NOT_RUN, "backend 'triton' computes none of the batches")


def test_what_needs_a_gpu_is_listed_as_not_run_with_the_reason(run):
    _, lines, found, _ = run("--scenes", "1")
    for check in ("nothing waits", "graph replays", "second GPU", "memory"):
        assert "not run" in row(lines, check)
        assert "it needs a GPU" in row(lines, check)
    assert {finding["status"] for finding in found["findings"]} == {"passed", "not run"}


def test_a_planted_fault_is_exit_code_1_and_a_batch_that_repeats_it(run, monkeypatch):
    with monkeypatch.context() as planted:
        plant(planted, lose_a_prior, preset="picodet")
        code, lines, found, repro = run("--scenes", "60")
        assert code == 1
        assert "failed" in row(lines, "answers")
        assert "picodet" in row(lines, "answers")
        assert found["passed"] is False
        ((batch,), trouble) = read_batches(repro)
        assert trouble is None
        assert batch.config.preset == "picodet"
        code, lines, found, again = run("--batches", str(repro), out="again.json")
        assert code == 1
        assert [finding["check"] for finding in found["findings"]] == list(suite.OF_BATCHES)
        assert "picodet" in row(lines, "answers")
        assert read_batches(again)[0][0].config == batch.config
        assert run("--batches", str(repro))[0] == 1  # the file that is read is never the one that is written
        assert read_batches(repro)[0][0].name == f"{repro.name} {batch.name.partition(' ')[2]}"
    assert run("--batches", str(repro), out="mended.json")[0] == 0


def failing(matching):
    raise RuntimeError("an illegal memory access")


FAULTS = {
    "gt_index": lose_a_prior,
    "dynamic_k": lambda matching: matching._replace(dynamic_k=matching.dynamic_k + 1),
    "claims": lambda matching: matching._replace(claims=matching.claims + 1),
    "matched_iou": lambda matching: matching._replace(matched_iou=matching.matched_iou + 3e-6),
    "an exception": failing,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_fault_fails_every_check_of_answers(fault, monkeypatch):
    plant(monkeypatch, FAULTS[fault])
    found = list(
        suite.findings(
            suite.Target("torch", CPU, scenes=20), checks=("known answers", "answers", "full size")
        )
    )
    assert [finding.status for finding in found] == ["failed"] * 3
    assert found[0].batch is None
    assert isinstance(found[1].batch, Recorded)


def test_bits_that_change_from_run_to_run_are_found(run, monkeypatch):
    calls = []

    def drift(matching):
        calls.append(None)
        return matching._replace(matched_iou=matching.matched_iou * (1 + 2.0**-23 * (len(calls) % 7 == 0)))

    plant(monkeypatch, drift)
    code, lines, _, repro = run("--scenes", "1")
    assert code == 1
    assert "matched_iou has other bits than the first time" in row(lines, "same bits each time")
    code, lines, _, _ = run("--batches", str(repro), out="again.json")
    assert code == 1
    assert "failed" in row(lines, "same bits each time")


def test_several_processes_find_what_one_finds():
    check = partial(scan.check_seed, backend="torch", device="cpu")
    assert list(scan.scan(check, iter(range(9)), workers=2)) == list(scan.scan(check, iter(range(9))))


def test_time_ends_a_scan_after_one_seed_at_least():
    assert list(scan.scan(lambda seed: seed, cases.varied_seeds(), seconds=0.0)) == [0]
    assert len(list(scan.scan(lambda seed: seed, cases.varied_seeds(), seconds=0.05))) > 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "/no/such/folder/a.json"], "--out: there is no folder /no/such/folder"),
        (["--batches", "/no/such.batches"], "/no/such.batches cannot be read"),
        (["--backend", "triton"], "backend triton cannot run on cpu: it has a cold"),
    ],
)
def test_requests_that_cannot_be_met(options, told, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arguments, "triton_refusal", lambda device: "it has a cold")
    assert main(["verify", "--device", "cpu", *options]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_backends_that_are_checked_if_none_is_asked_for(monkeypatch, capsys):
    gpu = torch.device("cuda")
    monkeypatch.setattr(verify, "triton_refusal", lambda device: None)
    assert verify.backends(None, gpu) == ["triton-stream", "triton"]
    monkeypatch.setattr(verify, "triton_refusal", lambda device: "too old")
    assert verify.backends(None, gpu) == ["torch"]
    assert "the kernels are not checked: too old" in capsys.readouterr().err
    assert verify.backends(["reference"], gpu) == ["reference"]


def test_a_moved_batch_keeps_its_gaps():
    wide = torch.randn(2, 6, 9)
    batch = Recorded(
        "", cases.case_of(0).config, {"a": wide[..., 2:5], "b": [wide.transpose(1, 2)], "c": wide[1]}
    )
    moved = batch.on(torch.device("meta"))
    assert moved["a"].stride() == (54, 9, 1)
    assert moved["a"].storage_offset() == 2
    assert moved["b"][0].stride() == (54, 1, 9)
    assert moved["c"].shape == (6, 9)


# Checks that need a GPU, on the CPU with stand-ins for what PyTorch does there


class FakeGraph:
    """Replays the call that was captured."""

    idle = False

    def replay(self):
        if not self.idle:
            assigner, inputs, result = self.captured
            again = cases.tensors_of(assigner(**inputs))
            for name, value in cases.tensors_of(result).items():
                value.copy_(again[name])


@pytest.fixture
def stand_in(monkeypatch):
    """A GPU's stand-in: modes that were set, and the last call of an assigner."""
    seen = {"modes": [0], "call": None}

    def watched(config, **options):
        assigner = assigner_of(config, **options)

        def call(**inputs):
            result = assigner(**inputs)
            seen["call"] = assigner, inputs, result
            return result

        return call

    @contextlib.contextmanager
    def capture(graph):
        yield
        assigner, inputs, result = seen["call"]
        graph.captured = (lambda **again: assigner(**again)), inputs, result

    def nothing(*args):
        return contextlib.nullcontext()

    class Stream:
        def wait_stream(self, other):
            pass

    monkeypatch.setattr(suite, "assigner_of", watched)
    monkeypatch.setattr(suite.Target, "need_gpu", lambda target: None)
    for name, value in {
        "get_sync_debug_mode": lambda: seen["modes"][-1],
        "set_sync_debug_mode": seen["modes"].append,
        "device": nothing,
        "stream": nothing,
        "Stream": Stream,
        "current_stream": Stream,
        "CUDAGraph": FakeGraph,
        "graph": capture,
        "current_device": lambda: 0,
        "device_count": lambda: 3,
        "get_device_properties": lambda gpu: types.SimpleNamespace(name="ABA"[gpu.index], major=9, minor=0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return seen


@INTERPRETED
def test_nothing_waits_asks_pytorch_in_every_form(stand_in):
    assert suite.nothing_waits(suite.Target("triton-stream", CPU)) == "2 presets, gts padded, list, packed"
    assert stand_in["modes"] == [0, *["error", 0] * 6]
    with pytest.raises(suite.NotRun):
        suite.nothing_waits(suite.Target("torch", CPU))


@INTERPRETED
def test_a_graph_that_replays_nothing_is_found(stand_in, monkeypatch):
    target = suite.Target("triton", CPU)
    assert "3 replays each" in suite.graph_replays(target)
    monkeypatch.setattr(FakeGraph, "idle", True)
    with pytest.raises(suite.Wrong, match=r"^rtmdet: .* differs from an eager call's$") as found:
        suite.graph_replays(target)
    assert found.value.batch is not None


def test_a_second_gpu_that_answers_otherwise_is_found(stand_in, monkeypatch):
    devices = []
    monkeypatch.setattr(Recorded, "on", lambda batch, device: devices.append(device) or batch.inputs)
    target = suite.Target("torch", CPU)
    assert suite.second_gpu(target) == "cuda:2 while cuda:0 is current"  # cuda:1 is another model
    assert devices == [torch.device("cuda", 0), torch.device("cuda", 2)]
    plant(monkeypatch, lambda matching: lose_a_prior(matching) if len(devices) == 4 else matching)
    with pytest.raises(suite.Wrong, match="gt_index on cuda:2 differs from cuda:0"):
        suite.second_gpu(target)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(suite.NotRun, match="a second GPU like the first"):
        suite.second_gpu(target)


@pytest.mark.parametrize("check", ["graph replays", "memory"])
def test_what_needs_cached_memory_is_not_run_without(stand_in, monkeypatch, check):
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
    with pytest.raises(suite.NotRun, match="PYTORCH_NO_CUDA_MEMORY_CACHING is set"):
        suite.CHECKS[check](suite.Target("triton", CPU))


@INTERPRETED
@pytest.mark.parametrize("backend", ["triton-stream", "triton"])
def test_memory_beyond_what_is_promised_is_found(stand_in, monkeypatch, backend):
    target = suite.Target(backend, CPU)
    batch = suite.recorded(TINY, "rtmdet", seed=0)
    problem = batch.problem(CPU)
    promised = suite._outputs(problem) + (
        suite._stream_scratch if backend == "triton-stream" else suite._matrices
    )(problem, batch.config)
    for peak, right in ((promised, True), (promised + 1, False)):
        monkeypatch.setattr(suite, "peak_bytes", lambda call, device, peak=peak: peak)
        with contextlib.nullcontext() if right else pytest.raises(suite.Wrong, match="are promised"):
            suite.memory(target)


def failing_to_write(*verdict):
    raise PermissionError("a folder of somebody else's")


def test_the_verdict_of_auto_is_renewed(monkeypatch):
    kept = []
    monkeypatch.setattr(suite.known, "difference", lambda *_: None)
    monkeypatch.setattr(suite.verdicts, "subject", lambda device: {"gpu": "a"})
    monkeypatch.setattr(suite.verdicts, "keep", lambda *verdict: kept.append(verdict))
    suite.known_answers(suite.Target("triton-stream", torch.device("cuda")))
    suite.known_answers(suite.Target("triton", torch.device("cuda")))
    suite.known_answers(suite.Target("triton-stream", CPU))
    assert kept == [({"gpu": "a"}, suite.verdicts.Verdict(None))]
    monkeypatch.setattr(suite.verdicts, "keep", failing_to_write)
    assert suite.known_answers(suite.Target("triton-stream", torch.device("cuda"))) == "4 problems"
    assert replace(suite.Target("torch", CPU), seed=3).of("triton").seed == 3
