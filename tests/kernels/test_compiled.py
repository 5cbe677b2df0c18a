"""The kernels as Triton compiles them for GPUs, executed here, in processes of their own, because this one
may be in Triton's interpreter. See tests/compiled/README.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiled import engine

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(engine.missing() is not None, reason=str(engine.missing()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a module on a cache of its own: binaries name the files they were compiled from, which may be
    those of another clone.
    """
    cache = {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}

    def run_module(*arguments):
        environment = {
            name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"
        } | cache
        return subprocess.run(
            [sys.executable, "-m", *arguments], capture_output=True, text=True, env=environment, cwd=ROOT
        )

    return run_module


def test_the_emulator_computes_what_triton_means_and_finds_what_is_wrong(run):
    result = run("tests.compiled.selftest")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "0 failed" in result.stdout


def test_terms_are_as_near_as_documented(run):
    result = run("tests.compiled.maths")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "0 farther off" in result.stdout


def test_every_preset_and_form_without_a_fault_or_a_race_that_is_not_meant(run):
    result = run("tests.compiled", "--short")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "0 complaints" in result.stdout
