"""Every backend against the float64 definition on a sample of the scenes that ``python -m tests.fuzz`` runs by the thousand."""

from dataclasses import replace

import pytest

from simota_triton.backends import BACKENDS

from . import fuzz

SAMPLE = {"reference": 400, "torch": 800}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_answer_is_explained(backend):
    total, complaints = fuzz.run(range(SAMPLE.get(backend, 8)), backend)
    assert not complaints, "\n".join(complaints[:10])
    assert total["positives"] > 20 * total["scenes"]
    assert total["excused"] < total["positives"] / 200  # near-ties are rare: a judge that excuses more has gone soft


def test_an_exception_is_a_complaint_with_its_seed(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of order")

    monkeypatch.setattr(fuzz, "judge", broken)
    total, complaints = fuzz.run(range(3), "reference")
    assert total["unexplained"] == 3
    assert complaints[2].startswith("seed 2: tiny, SimOTAConfig.seed(), list, flat: RuntimeError: out of order")


def test_the_command_fails_on_wrong_answers(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fuzz", "--scenes", "4", "--backend", "reference", "--workers", "1"])
    assert fuzz.main() == 0
    assert "reference: 4 scenes, 14 presets" in capsys.readouterr().out
    judge = fuzz.judge
    monkeypatch.setattr(fuzz, "judge", lambda result, *args: judge(replace(result, labels=result.labels + 1), *args))
    assert fuzz.main() == 1
    assert "seed 0: random, SimOTAConfig.seed(), list, flat: labels: image 0, prior 0" in capsys.readouterr().out
