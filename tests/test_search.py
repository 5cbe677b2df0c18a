"""The tuner: what it prunes, throws out, picks, keeps and says, on made-up kernels, and once on real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig, TaskAlignedAssigner
from simota_triton.capture import capture
from simota_triton.cli import main
from simota_triton.cli.tune import model, search, stream
from simota_triton.cli.tune.families import TUNABLE, Tunable
from simota_triton.cli.tune.journal import Journal
from simota_triton.cli.tune.model import Static, launch_cycles
from simota_triton.cli.tune.search import TOGETHER, Task, prune, sweep
from simota_triton.tuning import store
from simota_triton.tuning.kernel_config import Shape
from simota_triton.tuning.store import Gpu, read
from simota_triton.tuning.stream_config import StreamConfig
from tests.programs.configurations import compare, scene, space
from tests.support import interpreter
from tests.support.kernels import random_inputs

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Made:
    """Made-up launch parameters."""

    width: int = 4
    depth: int = 4


class OutOfResources(Exception):
    """Of the base that Triton's has."""


class Kernels:
    """Made-up kernels with a time for each configuration, and some that do wrong."""

    def __init__(self, wrong=(), failing=(), ms=None):
        self.wrong, self.failing = set(wrong), set(failing)
        self.ms = ms or (lambda made: 1.0 + abs(made.width - 16) / 40 + abs(made.depth - 2) / 40)
        self.launched, self.timed = Counter(), Counter()
        axes = tuple({name: (1, 2, 4, 8, 16, 32)} for name in ("width", "depth"))
        self.family = Tunable(
            backend="made",
            config=Made,
            heuristic=lambda *_: Made(),
            interpreter=Made(),
            stages=axes,
            shape=lambda _: Shape(1, 1, 1),
            launch=self.launch,
            instructions=lambda *_: 1.0,
        )
        self.candidates = self.family.space(Made())
        self.stop_after = None

    def launch(self, problem, config, made):
        self.launched[made] += 1
        self.last = made
        if made in self.failing:
            raise OutOfResources("out of resources")
        return [torch.tensor([1.0, 2.0 + (made in self.wrong)])]

    def prepare(self, call):
        call()
        made = self.last

        def run():
            self.timed[made] += 1
            if self.stop_after is not None and sum(self.timed.values()) > self.stop_after:
                raise KeyboardInterrupt
            return self.ms(made)

        return run

    def sweep(self, journal=None, rounds=3, candidates=None):
        self.told = []
        task = Task("made", None, None)
        return sweep(
            task, self.family, candidates or self.candidates, self, journal or Journal(None, {}), rounds,
            lambda at: self.told.append((at.done, at.total, at.best)),
        )  # fmt: skip


def test_the_best_of_every_stage_is_combined_and_wins():
    kernels = Kernels()
    outcome = kernels.sweep()
    assert Made(16, 2) not in kernels.candidates  # each stage alone varies one field
    assert outcome.winner == Made(16, 2)
    assert outcome.default == Made()
    assert outcome.speed_up == pytest.approx(kernels.ms(Made()) / kernels.ms(Made(16, 2)))
    assert outcome.measured == len(kernels.candidates) - 1
    assert kernels.told[-1][:2] == (10, 10)


def test_what_differs_or_fails_is_thrown_out_however_fast():
    wrong, failing = Made(16, 4), Made(4, 2)
    kernels = Kernels([wrong], [failing])
    outcome = kernels.sweep()
    assert outcome.differing == {
        wrong: "gave other bits than the default",
        failing: "failed: out of resources",
    }
    assert kernels.timed[wrong] == kernels.timed[failing] == 0
    assert outcome.winner == Made(8, 1)


def test_a_combination_that_differs_is_thrown_out_too():
    kernels = Kernels([Made(16, 2)])
    assert kernels.sweep().winner == Made(16, 4)
    assert kernels.timed[Made(16, 2)] == 0


def test_the_default_stays_where_nothing_is_faster_than_noise():
    outcome = Kernels(ms=lambda made: 1.0 - 0.015 * (made.width == 8)).sweep()
    assert outcome.winner == Made()
    assert outcome.speed_up == 1.0


def test_candidates_take_turns_with_the_default_so_that_drift_is_shared():
    clock = iter(range(10**6))
    # everything slows down all the time
    kernels = Kernels(ms=lambda made: (1.0 if made == Made(8, 4) else 1.1) * (1 + next(clock) / 50))
    assert kernels.sweep(rounds=15).winner == Made(8, 4)
    assert kernels.timed[Made()] >= 15 * -(-10 // TOGETHER)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    path, header = tmp_path / "run.jsonl", {"gpu": "x"}
    kernels = Kernels()
    kernels.stop_after = 3 * (TOGETHER + 1)  # the second chunk does not come to its end
    with pytest.raises(KeyboardInterrupt), Journal(path, header).opened() as journal:
        kernels.sweep(journal)
    again = Kernels()
    with Journal(path, header).opened() as journal:
        assert len(journal.records) == TOGETHER
        outcome = again.sweep(journal)
    assert again.told[0][0] == TOGETHER
    assert outcome.winner == Made(16, 2)
    assert Made(1, 4) in kernels.candidates[: TOGETHER + 1]
    assert again.launched[Made(1, 4)] == 0  # measured before, and no finalist


@pytest.mark.parametrize("cut", [2, 10, 30])
def test_a_journal_that_was_cut_off_loses_its_last_record_alone(tmp_path, cut):
    path, header = tmp_path / "run.jsonl", {"gpu": "x"}
    with Journal(path, header).opened() as journal:
        Kernels().sweep(journal)
    lines = path.read_text()
    path.write_text(lines[:-cut])
    with Journal(path, header).opened() as journal:
        assert len(journal.records) == 9
        assert Kernels().sweep(journal).winner == Made(16, 2)
    assert len(path.read_text().splitlines()) == 11


def test_records_of_another_run_are_left_behind(tmp_path):
    path = tmp_path / "run.jsonl"
    with Journal(path, {"triton": "3.9.0"}).opened() as journal:
        journal.add({"config": {}, "ratio": 0.1})
    with Journal(path, {"triton": "4.0.0"}).opened() as journal:
        assert journal.records == []


def test_a_full_disk_ends_the_journal_and_not_the_run(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "run.jsonl", {})
    with journal.opened():
        monkeypatch.setattr(
            "builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        outcome = Kernels().sweep(journal)
        monkeypatch.undo()
    assert outcome.winner == Made(16, 2)
    assert "No space left on device" in journal.trouble
    assert "goes on" in journal.trouble


def test_two_tuners_of_the_same_batch_do_not_run_at_once(tmp_path):
    with (
        Journal(tmp_path / "run.jsonl", {}).opened(),
        pytest.raises(BlockingIOError),
        Journal(tmp_path / "run.jsonl", {}).opened(),
    ):
        pass
    with Journal(tmp_path / "run.jsonl", {}).opened():
        pass


# the static model


def report(cycles, code=None, spills=0.0, error=None):
    return Static({"k": 40}, {"k": spills}, cycles, (code,) if code else (cycles,), error)


def test_pruning_drops_what_spills_does_not_compile_repeats_or_ranks_low():
    kernels = Kernels()
    default, *rest = kernels.candidates
    width, depth = rest[:5], rest[5:]
    reports = {default: report(10.0, spills=0.04), **{made: report(20.0 + i) for i, made in enumerate(rest)}}
    reports[width[0]] = report(1.0, spills=0.06)
    reports[width[1]] = report(None, error="does not compile: PTXASError: too much")
    reports[width[2]] = report(10.0, code=10.0)
    kept, pruned = prune(
        kernels.family, kernels.candidates, [reports[made] for made in kernels.candidates], 2, lambda: None
    )
    assert kept == [default, width[3], width[4], depth[0], depth[1]]
    assert pruned[width[0]] == "k: registers spill to memory"
    assert pruned[width[1]] == "does not compile: PTXASError: too much"
    assert pruned[width[2]] == f"the same machine code as {default}"
    assert {pruned[made] for made in depth[2:]} == {"not among the 2 best of the static model"}


def test_modelled_cycles_grow_with_work_and_with_registers_that_keep_warps_out():
    def cycles(programs=10_000, warps=4, registers=64, instructions=1000):
        return launch_cycles((9, 0), programs, warps, registers, instructions)

    assert cycles() == pytest.approx(10_000 * 4 * 1000 / 4 / 132, rel=0.1)
    assert cycles(instructions=2000) == pytest.approx(2 * cycles())
    # 8 warps, half of what saturates
    assert cycles(registers=255, warps=4) == pytest.approx(2 * cycles(registers=64, warps=4), rel=0.1)
    assert cycles(programs=1) == cycles(programs=132) < cycles(programs=133 * 40)
    assert launch_cycles((13, 0), 10, 1, 32, 10.0) > 0


def test_the_outline_of_a_batch_holds_no_memory_and_all_shapes():
    problem, _ = scene(0)
    hollow = model.outline(problem)
    for name in ("pred_boxes", "priors"):
        ours, theirs = getattr(hollow, name), getattr(problem, name)
        assert ours.is_meta
        assert (ours.shape, ours.stride(), ours.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)
    assert hollow.shape == problem.shape
    assert hollow.gts.boxes.is_meta
    for family in TUNABLE.values():
        assert family.shape(hollow) == family.shape(problem)


class MadeCensus:
    """A census of a kernel that holds nothing but a loop of ten instructions."""

    straight = 100.0
    loops = ()

    def innermost(self):
        return [SimpleNamespace(total=10.0)]


@pytest.mark.parametrize(
    ("preset", "most"), [("picodet", 64), ("super_gradients_fast", 128), ("rtmdet", 512)]
)
def test_parameters_count_as_they_are_launched(preset, most):
    """What a configuration has no registers for is launched as less, and makes no other candidate."""
    problem, _ = scene(0)
    config = SimOTAConfig.from_preset(preset)
    counted = {
        bounds: stream.instructions("select", MadeCensus(), problem, config, StreamConfig(bounds=bounds))
        for bounds in (32, 64, 128, 256, 512)
    }
    assert len(set(counted.values())) == 1 + [64, 128, 256, 512].index(most) + 1
    assert counted[most] == counted[512] < counted[32]


# the real kernels


@pytest.mark.parametrize("family", TUNABLE.values(), ids=TUNABLE)
def test_configurations_change_no_bit(family):
    for seed in range(3):
        problem, config = scene(seed)
        found = compare(family, problem, config, space(family, problem)[1 + seed :: 7])
        assert found.configurations >= 29
        assert found.differing == []


@pytest.mark.parametrize("family", TUNABLE.values(), ids=TUNABLE)
def test_a_launch_that_is_remembered_gives_what_it_gave(family):
    problem, config = scene(1)
    candidates = space(family, problem)[::90]
    plain = [family.launch(problem, config, kernels) for kernels in candidates]
    with interpreter.remembering() as counts:
        for _ in range(2):
            for kernels, expected in zip(candidates, plain, strict=True):
                assert all(map(torch.equal, family.launch(problem, config, kernels), expected))
        assert counts["computed"] <= counts["launches"] // 2
        moved = replace(problem, pred_boxes=problem.pred_boxes + 1)
        found = family.launch(moved, config, candidates[0])
    expected = family.launch(moved, config, candidates[0])
    assert all(map(torch.equal, found, expected))
    assert not all(map(torch.equal, found, plain[0]))


def test_a_configuration_that_changes_a_bit_is_found():
    problem, config = scene(0)
    kernels = Kernels([Made(2, 4)])
    assert compare(kernels.family, problem, config, kernels.candidates).differing == [Made(2, 4)]


# the command


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Runs the command in the interpreter, with made-up static reports in place of compilations."""

    def examine(backend, problem, config, capability, candidates, workers=2):
        return [report(float(i), spills=float(i == 3)) for i, _ in enumerate(candidates)]

    monkeypatch.setattr(model, "examine", examine)
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", str(tmp_path / "user"))

    def run(*more):
        return main(
            ["tune", "--device", "cpu", "--backend", "triton", "--limit", "4", "--rounds", "1", *more]
        )

    return run


@pytest.mark.skipif(not os.environ.get("TRITON_INTERPRET"), reason="needs Triton's interpreter")
class TestCommand:
    def test_it_writes_the_file_and_says_how_to_pin_the_result(self, tried, tmp_path, capsys):
        assert tried("--out", str(tmp_path)) == 0
        out, err = capsys.readouterr()
        assert "bucket b1-p128-g4: " in out
        assert "1 pruned" in out
        assert "no times of a GPU" in out
        assert "kernels=KernelConfig(rows=" in out
        assert "timing: 2/2" in err
        gpu = Gpu("Triton's interpreter", (9, 0))
        path = tmp_path / f"{gpu.slug}.json"
        assert str(path) in out
        entry = json.loads(path.read_text())["kernels"]["triton"]["b1-p128-g4"]
        assert read(path, gpu)["triton"]["b1-p128-g4"] == TUNABLE["triton"].config(**entry["config"])
        assert {"triton", "torch", "simota_triton", "workload", "date"} <= set(entry["measured"])
        assert not [p for p in (tmp_path / "unfinished").iterdir() if p.suffix == ".jsonl"]

    def test_what_the_interpreter_measured_is_kept_from_assigners(self, tried, tmp_path):
        assert tried() == 0
        assert not (tmp_path / "user").exists()

    def test_a_full_disk_at_the_end_loses_nothing(self, tried, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(
            store, "write_whole", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        assert tried("--out", str(tmp_path)) == 2
        out, err = capsys.readouterr()
        assert "kernels=KernelConfig(" in out
        assert "cannot be written (No space left on device)" in err
        (kept,) = [p for p in (tmp_path / "unfinished").iterdir() if p.suffix == ".jsonl"]
        assert len(kept.read_text().splitlines()) == 3
        monkeypatch.undo()

    def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(self, tried, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert tried("--out", str(tmp_path / "file" / "below")) == 2
        assert "cannot be written" in capsys.readouterr().err

    def test_a_second_tuner_is_refused(self, tried, tmp_path, capsys):
        path = tmp_path / "unfinished" / "triton-s-interpreter.triton.b1-p128-g4.jsonl"
        with Journal(path, {}).opened():
            assert tried("--out", str(tmp_path)) == 2
        assert "another simota-triton tune is measuring this" in capsys.readouterr().err

    def test_interrupted_it_says_what_is_kept(self, tried, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(search, "interleaved", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert tried("--out", str(tmp_path)) == 130
        err = capsys.readouterr().err
        assert "0 candidates are measured; the same command goes on from there" in err


@pytest.mark.parametrize("rules", ["task-aligned", "both"])
def test_batches_of_the_task_aligned_rule_are_left_out(rules, tmp_path, capsys, monkeypatch):
    def examine(backend, problem, config, capability, candidates, workers=2):
        return [report(1.0) for _ in candidates]

    monkeypatch.setattr(model, "examine", examine)
    path = tmp_path / "mine.batches"
    pred, cls, _, priors, boxes, labels = random_inputs(60, [3, 2], 4)
    with capture(path):
        TaskAlignedAssigner("tal")(pred, cls, priors, boxes, labels)
        if rules == "both":
            SimOTAAssigner("rtmdet")(pred, cls, priors, boxes, labels)
    code = main(["tune", "--dry-run", "--batches", str(path), "--backend", "triton", "--limit", "2"])
    out, err = capsys.readouterr()
    left_out = "tuning measures SimOTA's kernels; those of the task-aligned rule take the same launch"
    assert f"triton, mine.batches b2-p64-g4, tal: left out, {left_out}" in err
    assert code == (2 if rules == "task-aligned" else 0)
    assert (f"{path} holds nothing to tune: {left_out}" in err) == (rules == "task-aligned")
    assert ("triton, mine.batches b2-p64-g4, rtmdet, sm_90: 2 candidates" in out) == (rules == "both")


def test_without_a_gpu_the_command_says_what_can_be_done(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["tune"]) == 2
    assert "--dry-run ranks candidates without one" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["tune", "--capability", "90"])
    with pytest.raises(SystemExit):
        main(["tune", "--dry-run", "--capability", "75"])
    assert "expected one of 80, 86, 89, 90, 100, 120, got '75'" in capsys.readouterr().err


@pytest.mark.interpreter
def test_a_dry_run_ranks_candidates_without_a_gpu(tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "error"}
    command = [
        sys.executable,
        "-m",
        "simota_triton",
        "tune",
        "--dry-run",
        "--workload",
        "coco",
        "--batch-size",
        "1",
        "--limit",
        "4",
    ]
    done = subprocess.run(
        [*command, "--backend", "triton", "--capability", "80"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    head, note, *rows = done.stdout.splitlines()
    assert head.startswith("triton, coco, B = 1, float32, rtmdet, sm_80: 4 candidates")
    assert "not a measurement" in note
    assert len(rows) == 4
    assert sum("default: " in row for row in rows) == 1
    ratios = [float(row.split()[0]) for row in rows]
    assert ratios == sorted(ratios)
    assert all("cost_pass" in row for row in rows)
