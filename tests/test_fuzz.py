"""Every backend against the float64 definition, on a sample of the scenes that ``tests.programs.fuzz`` runs
by the thousand.
"""

from dataclasses import replace
from itertools import islice

import pytest

from simota_triton import SimOTAConfig
from simota_triton.backends import BACKENDS
from simota_triton.verification import cases
from simota_triton.verification.scenes import FAMILIES, FORMS, LAYOUTS
from tests.programs import fuzz

SAMPLE = {"reference": 300, "torch": 400}


@pytest.mark.parametrize(
    ("backend", "rule"),
    [(name, rule) for name in BACKENDS for rule in fuzz.RULES if rule in BACKENDS[name].load],
)
def test_every_answer_is_explained(backend, rule):
    total, complaints = fuzz.run(range(SAMPLE.get(backend, 8)), backend, rule=rule)
    assert not complaints, "\n".join(complaints[:10])
    assert total["positives"] > 20 * total["scenes"]
    # near-ties are rare: a judge that excuses more has gone soft
    assert total["excused"] < total["positives"] / 200


def test_an_exception_is_a_complaint_with_its_seed(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of order")

    monkeypatch.setattr(cases, "judge", broken)
    total, complaints = fuzz.run(range(3), "reference")
    assert total["unexplained"] == 3
    assert complaints[2].startswith(
        "seed 2: tiny, SimOTAConfig.seed(), list, flat: RuntimeError: out of order"
    )


def test_the_command_fails_on_wrong_answers(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fuzz", "--scenes", "4", "--backend", "reference", "--workers", "1"])
    assert fuzz.main() == 0
    out = capsys.readouterr().out
    assert "reference, simota: 4 scenes, 14 presets" in out
    assert "reference, task_aligned: 4 scenes, 13 presets" in out
    assert "reference, task_aligned_rotated: 4 scenes, 2 presets" in out
    judge = cases.judge
    monkeypatch.setattr(
        cases, "judge", lambda result, *args: judge(replace(result, labels=result.labels + 1), *args)
    )
    assert fuzz.main() == 1
    assert (
        "seed 0: random, SimOTAConfig.seed(), list, flat: labels: image 0, prior 0" in capsys.readouterr().out
    )


def test_seeds_that_vary_meet_everything_early_and_nothing_twice():
    seeds = list(islice(cases.varied_seeds(), 400))
    assert len(set(seeds)) == 400
    first = [cases.case_of(seed) for seed in seeds[:60]]
    assert {case.scene.family for case in first} == set(FAMILIES)
    assert {case.config.preset for case in first} == set(SimOTAConfig.presets())
    assert {case.form for case in first} == set(FORMS)
    assert {case.layout for case in first} == set(LAYOUTS)
    pairs = {cases.mixed(i, FORMS, LAYOUTS) for i in range(len(FORMS) * len(LAYOUTS))}
    assert len(pairs) == len(FORMS) * len(LAYOUTS)
