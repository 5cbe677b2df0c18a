"""The benchmarks compute what they claim to time."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import aligned, gpu
from bench.cases import ours, peer
from bench.cpu import table
from simota_triton.measure.peak import peak_bytes
from simota_triton.measure.workloads import WORKLOADS, gt_counts, make_batch

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_has_the_gts_it_says(name):
    workload = WORKLOADS[name]
    counts = gt_counts(workload, torch.Generator().manual_seed(0))
    assert sum(counts) == workload.num_gts
    assert max(counts) <= workload.most
    assert len(counts) == workload.batch


@pytest.mark.parametrize("phase", ["untrained", "mid", "trained"])
@pytest.mark.parametrize("name", ["plain, by image", "plain, batched", "loop"])
def test_peers_assign_as_the_reference_does(name, phase):
    workload = dataclasses.replace(WORKLOADS["coco"].with_batch(2), image_size=320, num_classes=11)
    batch = make_batch(workload, phase, seed=3)
    expected = ours(batch, "reference")()
    assert (expected >= 0).sum() > 10
    assert torch.equal(peer(name, batch, workload)(), expected)


def test_cases_of_the_task_aligned_rule_assign_as_the_reference_does():
    workload = dataclasses.replace(aligned.XVIEW, image_size=320, num_gts=60, padded=40, most=40)
    cases, expected = aligned.calls(workload, "mid")
    assert (expected >= 0).sum() > 50
    assert {aligned.OURS, aligned.DENSE} <= set(cases)
    for case in cases.values():
        assert torch.equal(aligned.gt_index(case()), expected)


def test_positives_that_a_loss_weights_with_nothing_are_background():
    labels, scores = torch.tensor([[1, 0, 2]]), torch.tensor([[[0.0, 0.5], [0.0, 0.3], [0.0, 0.0]]])
    found = labels, None, scores, torch.tensor([[True, True, False]]), torch.tensor([[4, 3, 0]])
    assert aligned.gt_index(found).tolist() == [[4, -1, -1]]


def test_the_same_seed_gives_the_same_batch_and_another_gives_another():
    workload = WORKLOADS["coco"].with_batch(1)
    first, again, other = (make_batch(workload, "mid", seed=seed).pred_boxes for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_peak_memory_counts_what_is_alive_at_once():
    def call():
        first = torch.ones(1 << 20, dtype=torch.uint8)
        del first
        second, third = torch.ones(1 << 21, dtype=torch.uint8), torch.ones(1 << 20, dtype=torch.uint8)
        return second, third

    assert 3 << 20 <= peak_bytes(call) < (3 << 20) + 4096


def test_the_table_has_a_line_for_each_case_and_a_column_for_each_workload():
    rows = [
        {"workload": w, "batch": 2, "case": c, "median_ms": 1.25, "peak_mb": 3.0}
        for w in ("coco", "o365")
        for c in ("ours", "loop")
    ]
    lines = table(rows).splitlines()
    assert lines[0] == "| | coco (B = 2) | o365 (B = 2) |"
    assert lines[2:] == ["| ours | 1.2 ms, 3 MB | 1.2 ms, 3 MB |", "| loop | 1.2 ms, 3 MB | 1.2 ms, 3 MB |"]


def test_what_no_graph_can_hold_is_not_captured():
    class Graphs:
        def prepare(self, call):
            call()
            return lambda: 5.0

    timer = gpu.Timer("cpu", rounds=2)
    timer.graphs, calls = Graphs(), []
    assert timer.device([lambda: calls.append(None)] * 5) == ([1.0, 1.0], "graph")
    assert timer.device([lambda: calls.append(None)] * 5, eager=True)[1] == "eager"
    assert len(calls) == 5 + 2


@pytest.mark.interpreter
def test_the_gpu_run_tries_out_on_a_cpu(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [
        sys.executable,
        "-m",
        "bench.gpu",
        "--device",
        "cpu",
        "--scenes",
        "2",
        "--workers",
        "1",
        "--rounds",
        "1",
        "--out",
    ]
    subprocess.run([*command, str(tmp_path)], check=True, cwd=ROOT, env=environment, capture_output=True)
    checked = json.loads((tmp_path / "correctness.json").read_text())
    assert checked["passed"]
    details = {(finding["backend"], finding["check"]): finding["detail"] for finding in checked["findings"]}
    assert details["triton-stream", "answers"].startswith("2 scenes")
    assert details["triton", "answers"].startswith("2 scenes")
    assert details["triton-stream", "bits of 'triton'"].startswith("1 scenes")
    rows = json.loads((tmp_path / "times.json").read_text())["rows"]
    stream = {f"stream{part}, {layout}" for part in ("", " kernels") for layout in ("maps", "flat")}
    assert {row["case"] for row in rows if row["workload"] == "xview"} == stream | {"stream list, maps"}
    coco = {row["case"] for row in rows if row["workload"] == "coco"}
    assert coco == stream | {"stream list, maps", "stream padded, maps"} | {
        case.replace("stream", "fused") for case in stream
    } | {
        "matching",
        "batched",
        "batched, compiled",
        "loop",
    }
    assert set(gpu.EAGER) < coco
    assert all(row["differing_priors"] in (0, None) for row in rows)


@pytest.mark.parametrize("backend", ["triton", "triton-stream"])
def test_the_first_call_of_a_process_takes_less_than_50_ms_of_the_host_beyond_the_kernels(backend, tmp_path):
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "TRITON_CACHE_DIR": str(tmp_path)
    }
    command = [sys.executable, "-m", "bench.overhead", "--part", "first", backend]
    cold, warm = (
        json.loads(
            subprocess.run(command, check=True, env=environment, cwd=ROOT, stdout=subprocess.PIPE).stdout
        )
        for _ in range(2)
    )
    assert cold["the call"] > 5 * warm["the call"]  # it compiles
    assert warm["the call"] < 50


def test_of_the_tests_bench_imports_what_they_share_and_the_original_that_it_times():
    imports = [
        (path.name, line)
        for path in (ROOT / "bench").rglob("*.py")
        for line in path.read_text().splitlines()
        if "import" in line and "tests" in line
    ]
    assert imports
    others = {name for name, line in imports if not line.startswith("from tests.support.")}
    assert others == {"aligned.py"}
