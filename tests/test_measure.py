"""The commands bench and compare, the curves, and what info tells of launch parameters and tools."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from simota_triton import SimOTAAssigner
from simota_triton.capture import capture
from simota_triton.cli import info, main, output
from simota_triton.cli.errors import CommandError
from simota_triton.measure import cases, scaling, timing
from simota_triton.measure.cases import BY_IMAGE, COMPILED, PLAIN, least_bytes
from simota_triton.measure.compare import changes
from simota_triton.measure.peak import peak_bytes
from simota_triton.tuning import store
from simota_triton.tuning.store import Gpu

from .test_capture import call

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def row(case, ms, spread=0.1, mb=10.0, workload="coco"):
    return {
        "workload": workload,
        "case": case,
        "median_ms": ms,
        "quartiles_ms": [ms - spread, ms + spread],
        "peak_mb": mb,
    }


def record(path, *rows, **machine):
    path.write_text(json.dumps({"machine": {"cpu": "x", "threads": 1, **machine}, "rows": rows}))
    return str(path)


def test_bench_times_ours_beside_plain_pytorch_and_keeps_the_record(tmp_path, capsys):
    out = tmp_path / "b.json"
    assert main(["bench", "--device", "cpu", "--batch-size", "1", "--rounds", "2", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    kept = json.loads(out.read_text())
    assert {row["case"] for row in kept["rows"]} == {"torch", "reference", PLAIN, BY_IMAGE}
    for one in kept["rows"]:
        assert one["differing_priors"] == 0
        assert one["quartiles_ms"][0] <= one["median_ms"] <= one["quartiles_ms"][1]
        assert one["case"] in text
        assert one["floor_ms"] > 0
    assert {"cpu", "threads", "torch", "triton"} <= set(kept["machine"])
    assert main(["compare", str(out), str(out)]) == 0
    assert "4 cases in both: 0 moved beyond noise" in capsys.readouterr().out


def test_bench_takes_captured_batches(tmp_path, capsys):
    with capture(tmp_path / "mine.batches"):
        call(200)
        call(60, config="yolox")
    out = tmp_path / "b.json"
    assert (
        main(
            [
                "bench",
                "--batches",
                str(tmp_path / "mine.batches"),
                "--device",
                "cpu",
                "--rounds",
                "1",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    rows = json.loads(out.read_text())["rows"]
    # the peers' rule is RTMDet's
    assert [r["case"] for r in rows] == [
        "torch",
        "reference",
        PLAIN,
        BY_IMAGE,
        "torch",
        "reference",
    ]
    assert {r["differing_priors"] for r in rows} == {0}
    assert "mine.batches b2-p256-g4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "holds no whole batch"), (b"weights", "no file of captured batches")],
)
def test_batches_that_cannot_be_used_are_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "mine.batches"
    if content is not None:
        path.write_bytes(content)
    assert main(["bench", "--batches", str(path), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("none/b.json", "there is no folder"),
        (".", "is no file"),
        ("/dev/null", "is no file"),
        ("b.json", "no room"),
    ],
)
@pytest.mark.parametrize("plot", [False, True])
def test_bench_says_what_it_cannot_write_before_it_measures(tmp_path, capsys, monkeypatch, out, told, plot):
    (tmp_path / "x-gts.png").mkdir()
    out = {".": "x.json"}.get(out, out) if plot else out
    monkeypatch.setattr(cases, "measure", lambda *args, **kwargs: pytest.fail("measured"))
    monkeypatch.setattr(scaling, "curve", lambda *args, **kwargs: pytest.fail("measured"))
    if told == "no room":
        monkeypatch.setattr(output.tempfile, "TemporaryFile", _no_room)
    elif plot and out == "/dev/null":
        pytest.skip("curves are written beside it")
    assert (
        main(["bench", "--device", "cpu", "--out", str(tmp_path / out), *(["--plot", "gts"] if plot else [])])
        == 2
    )
    assert told in capsys.readouterr().err


def _no_room(*args, **kwargs):
    raise OSError(28, "no room")


@pytest.mark.parametrize("elsewhere", [True, False])
def test_what_was_measured_is_kept_where_the_file_cannot_be_written(tmp_path, capsys, monkeypatch, elsewhere):
    write, asked = output.write_whole, tmp_path / "b.json"
    monkeypatch.setattr(
        output,
        "write_whole",
        lambda path, text: write(path, text) if elsewhere and path != asked else _no_room(),
    )
    monkeypatch.setattr(output.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    record = {"rows": [1, 2]}
    with pytest.raises(CommandError, match=r"b\.json cannot be written \(no room\); the record is ") as told:
        output.write_record(asked, record)
    text = (
        (tmp_path / str(told.value).rsplit(" in ", 1)[1]).read_text()
        if elsewhere
        else capsys.readouterr().out
    )
    assert json.loads(text) == record


def test_the_profiler_says_nothing():
    code = (
        "import torch; from simota_triton.measure.peak import peak_bytes; "
        "print(peak_bytes(lambda: torch.ones(1 << 20)))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"} | {
        "PYTHONPATH": str(ROOT)
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert (done.stdout, done.stderr) == ("4194304\n", "")


def test_compare_prints_what_moved_beyond_noise(tmp_path, capsys):
    before = record(
        tmp_path / "a.json",
        row("ours", 10),
        row("slower", 10),
        row("noisy", 10, 3),
        row("gone", 1),
        row("fat", 5),
    )
    after = record(
        tmp_path / "b.json",
        row("ours", 8),
        row("slower", 12),
        row("noisy", 12, 3),
        row("new", 1),
        row("fat", 5, mb=20.0),
    )
    assert main(["compare", before, after]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "coco, slower: 10 -> 12 ms (+20.0 %, slower)"
    assert out[1] == "coco, fat: 5 -> 5 ms (+0.0 %, within noise), 10.0 -> 20.0 MB"
    assert out[2] == "coco, ours: 10 -> 8 ms (-20.0 %, faster)"
    assert out[3] == "4 cases in both: 2 moved beyond noise, 2 did not; 1 in memory"
    assert out[4:] == ["only in A: coco, gone", "only in B: coco, new"]
    assert main(["compare", after, before]) == 1
    assert main(["compare", before, before, "--all"]) == 0


def test_compare_takes_curves_point_by_point(tmp_path, capsys):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, ms in zip(paths, (10, 20), strict=True):
        rows = [row("torch", ms) | {"value": value, "workload": None} for value in (3, 10)]
        path.write_text(json.dumps({"machine": {"cpu": "x", "threads": 1}, "axis": "gts", "rows": rows}))
    assert main(["compare", *map(str, paths)]) == 1
    assert "gts = 10, torch: 10 -> 20 ms (+100.0 %, slower)" in capsys.readouterr().out
    assert main(["compare", str(paths[0]), record(tmp_path / "c.json", row("torch", 10))]) == 2
    assert "no workload and case in common" in capsys.readouterr().err


def test_compare_reads_the_committed_cpu_table():
    kept = json.loads((ROOT / "bench" / "results" / "cpu" / "mid.json").read_text())
    both, gone, new = changes(kept, kept)
    assert len(both) == len(kept["rows"])
    assert not gone
    assert not new


def test_compare_says_when_machines_differ_or_files_are_none(tmp_path, capsys):
    a = record(tmp_path / "a.json", row("ours", 10))
    b = record(tmp_path / "b.json", row("ours", 10), gpu="NVIDIA Test")
    assert main(["compare", a, b]) == 0
    assert "two kinds of machine, x-1-thread and nvidia-test" in capsys.readouterr().err
    for text in (
        "",
        "{}",
        '{"rows": [{}], "machine": {}}',
        "[]",
        '{"machine": {"cpu": "x", "threads": 1}, "rows": [{"median_ms": -1}]}',
    ):
        (tmp_path / "c.json").write_text(text)
        assert main(["compare", a, str(tmp_path / "c.json")]) == 2
        assert "c.json is no record of simota-triton bench" in capsys.readouterr().err
    assert main(["compare", a, str(tmp_path / "none.json")]) == 2
    assert main(["compare", a, record(tmp_path / "d.json", row("other", 1))]) == 2


# curves


def test_a_point_of_a_curve_has_the_sizes_it_says():
    batch = scaling.make_batch(batch=3, priors=2100, classes=7, gts=5)
    assert batch.inputs["pred_boxes"].shape == (3, 2100, 4)
    assert batch.inputs["cls_logits"].shape == (3, 2100, 7)
    assert batch.inputs["gt_boxes"].shape == (3, 5, 4)
    points, boxes = batch.inputs["priors"][:, None, :2], batch.inputs["gt_boxes"]
    inside = [((points > own[:, :2]) & (points < own[:, 2:])).all(2).any(1).sum() for own in boxes]
    assert 0 < sum(inside) < 3 * 2100
    assert least_bytes(batch) == 2100 * 16 + 15 * 24 + sum(inside) * (4 * 4 + 7 * 4) + 3 * 2100 * 24
    for value in scaling.AXES["priors"].values:
        side = round((value / 21) ** 0.5)
        assert value == 21 * side * side  # a square image's priors


def test_a_curve_ends_a_case_that_is_too_slow_and_draws_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "HELD", {"batch": 1, "priors": 336, "classes": 3, "gts": 2})
    ticks = iter(range(10**9))
    # every call seems to take 10 s
    monkeypatch.setattr(scaling, "clock", lambda device: lambda: float(next(ticks)) * 10)
    rows = scaling.curve("gts", torch.device("cpu"), ["torch"], seconds=1.0, values=(1, 4))
    assert [(r["value"], r["case"]) for r in rows] == [(1, "torch"), (1, PLAIN), (1, BY_IMAGE)]
    monkeypatch.undo()
    rows = scaling.curve("gts", torch.device("cpu"), ["torch"], seconds=5.0, values=(1, 4))
    assert [r["value"] for r in rows if r["case"] == "torch"] == [1, 4]
    machine = {"cpu": "x", "threads": 1, "torch": "2", "date": "today"}
    scaling.draw({"machine": machine, "axis": "gts", "rows": rows}, tmp_path / "gts.png")
    assert (tmp_path / "gts.png").stat().st_size > 10_000


def test_a_picture_shows_the_fastest_peer_at_each_point():
    rows = [row(case, ms) | {"value": value} for value, case, ms in (
        (1, "torch", 9), (1, PLAIN, 2), (1, BY_IMAGE, 3),
        (10, BY_IMAGE, 5), (10, PLAIN, 6), (10, COMPILED, 4),
        (100, BY_IMAGE, 7),
    )]  # fmt: skip
    shown = [(one["value"], one["case"], one["median_ms"]) for one in scaling.with_best_peer(rows)]
    assert shown == [(1, "torch", 9), (1, scaling.BEST, 2), (10, scaling.BEST, 4), (100, scaling.BEST, 7)]


# info


def test_info_tells_where_launch_parameters_come_from(monkeypatch, tmp_path, capsys):
    gpu = Gpu("NVIDIA Test", (9, 0))
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(Gpu, "of", classmethod(lambda cls, device: gpu))
    assert ("cuda:0 triton", "the heuristic") in info.configurations()
    from simota_triton.tuning import KernelConfig

    from .test_tuning import entry

    store.save(store.user_file(gpu), gpu, "triton", {"b1-p1-g1": entry(KernelConfig())})
    path = store.user_file(gpu)
    assert ("cuda:0 triton", f"1 buckets of {path}; else the heuristic") in info.configurations()
    path.write_text("{")
    ((_, told), *_) = info.configurations()
    assert f"{path} is not used" in told


def test_info_tells_folders_the_compiler_and_versions_that_do_not_fit(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CC", "/no/such/compiler")
    versions = {"triton": "3.6.0", "numpy": "2.4.1"}
    monkeypatch.setattr(info, "_installed", versions.get)
    monkeypatch.setattr(info, "_partner", lambda: "3.5.0")
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'none'} (not there yet)" in out
    assert re.search(rf"Triton's binaries +{tmp_path}\n", out)
    assert "none: Triton builds its launcher with one; install gcc or clang, or set CC" in out
    assert "was released with Triton 3.5.0, 3.6.0 is installed: pip install triton==3.5.0" in out
    assert "does not work with numpy 2.4.1: pip install 'numpy<2.4'" in out
    versions["triton"] = "3.2.0"
    assert "older than 3.3" in info.misfits()[0]
    monkeypatch.setattr(info, "_installed", lambda _: None)
    assert info.misfits() == []


def test_peak_memory_is_of_the_call_alone():
    held = torch.zeros(1 << 20)
    assert 4 << 20 <= peak_bytes(lambda: held + 1) < (4 << 20) + 4096
    assert SimOTAAssigner("rtmdet").kernels is None


def test_a_capture_that_fails_leaves_neither_its_stream_nor_its_pool_to_the_next(monkeypatch):
    streams, pools, used = ["main"], iter(range(9)), []

    class Stream:
        def wait_stream(self, other):
            pass

    @contextlib.contextmanager
    def graph(made, pool):
        used.append(pool)
        streams.append("capturing")
        yield  # PyTorch leaves its stream alone unless the capture ends well
        streams.append("main")

    @contextlib.contextmanager
    def stream(entered):
        before = streams[-1]
        streams.append(entered)
        try:
            yield
        finally:
            streams.append(before)

    for name, value in {
        "graph_pool_handle": lambda: next(pools),
        "device": lambda device: contextlib.nullcontext(),
        "stream": stream,
        "current_stream": lambda device=None: Stream(),
        "Stream": Stream,
        "graph": graph,
        "CUDAGraph": lambda: types.SimpleNamespace(replay=lambda: None),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(timing, "L2_BYTES", 1)
    timer = timing.GraphTimer(torch.device("cpu"))
    calls = []

    def reads_on_the_host():
        calls.append(None)
        if len(calls) == 2:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        timer.prepare(reads_on_the_host)
    assert streams[-1] == "main"
    timer.prepare(lambda: None)
    timer.prepare(lambda: None)
    assert used == [0, 1, 1]


def test_peak_memory_on_a_gpu_is_what_is_asked_for_beyond_what_is_there(monkeypatch):
    counts = {
        "requested_bytes.all.current": 700,
        "requested_bytes.all.peak": 900,
        "allocated_bytes.all.peak": 1 << 20,
    }
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: counts)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: counts.update({"requested_bytes.all.peak": 700})
    )
    assert peak_bytes(lambda: counts.update({"requested_bytes.all.peak": 1000}), torch.device("cuda")) == 300
