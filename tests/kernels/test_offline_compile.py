"""The kernels compiled for GPUs that are not here.

They are compiled in processes of their own, because this one may be in Triton's interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton

from bench.static_report import RESULTS, compare

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs a module without the interpreter, on a cache of its own, so that everything is compiled."""
    cache = {
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }

    def run(*arguments):
        environment = {
            name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"
        } | cache
        return subprocess.run(
            [sys.executable, "-m", *arguments], capture_output=True, text=True, env=environment, cwd=ROOT
        )

    return run


def test_kernels_compile_without_spills(python):
    # a sample: all cases of one GPU take four minutes, those of all GPUs a quarter of an hour
    result = python("tests.programs.offline", "--capability", "90", "--random", "4", "--every", "3")
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"Triton {triton.__version__}: " in result.stdout


def test_an_epoch_of_changing_sizes_compiles_few_binaries(python, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMOTA_TRITON_CONFIG_DIR", str(tmp_path))
    result = python("tests.programs.epoch")
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert result.stdout.count("binaries in 1000 steps") == 2


@pytest.mark.skipif(
    json.loads((RESULTS / "sm_90.json").read_text())["triton"] != triton.__version__,
    reason="the baseline is of another Triton",
)
def test_instructions_a_pair_have_not_grown(python):
    result = python("bench.static_report", "--check", "--capability", "90")
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_goal_of_the_pair_loop_is_met():
    for layout in ("maps", "flat"):
        numbers = json.loads((RESULTS / "sm_90.json").read_text())["kernels"][
            f"cost_pass, rtmdet, {layout}, float32"
        ]
        assert numbers["per_pair"]["all"] <= 62
        assert numbers["per_pair"].get("shared", 0) == numbers["local_bytes"] == 0


def test_a_baseline_that_is_missed_is_a_complaint():
    baseline = json.loads((RESULTS / "sm_90.json").read_text())["kernels"]
    assert compare(baseline, baseline) == []
    case = "cost_pass, rtmdet, maps, float32"

    def changed(part, name, value):
        spoiled = json.loads(json.dumps(baseline))
        (spoiled[case][part] if part else spoiled[case])[name] = value
        return compare(baseline, spoiled)

    before = baseline[case]["per_pair"]["all"]
    assert changed("per_pair", "all", before * 1.04) == []
    assert changed("per_pair", "all", before * 1.06) == [
        f"{case}: {before * 1.06:.1f} instructions per pair, {before:.1f} in the baseline"
    ]
    assert changed("per_pair", "shared", 1) == [f"{case}: shared memory or shuffles in the loop per pair"]
    assert changed(None, "local_bytes", 8) == [f"{case}: spills to local memory"]
    assert len(compare({}, baseline)) == len(baseline) == len(compare(baseline, {}))
