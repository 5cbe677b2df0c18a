"""Every backend on what detectors predicted in real trainings: before, after 50 and after 300 steps."""

from __future__ import annotations

import pytest
import torch

from simota_triton import SimOTAConfig, backends
from simota_triton.inputs import pack
from simota_triton.problem import map_tensors
from simota_triton.verification.judge import judge
from tests.support.captured import FOLDER, captured, preset_of

FILES = sorted(FOLDER.glob("*.npz"))


def test_every_detector_and_phase_is_there():
    assert {path.stem for path in FILES} == {
        f"{detector}_{phase}"
        for detector in ("libreyolo_rtmdet", "pixeltable_yolox", "libreyolo_yolox")
        for phase in ("untrained", "early", "late")
    }
    assert sum(path.stat().st_size for path in FILES) < 3e6


@pytest.mark.parametrize("name", backends.BACKENDS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_backend_is_right_on_captured_predictions(path, name):
    config = SimOTAConfig.from_preset(preset_of(path))
    inputs = captured(path)
    if name == "triton" and torch.cuda.is_available():
        inputs = {key: value.cuda() for key, value in inputs.items()}
    result = backends.assign(name, pack(config, **inputs), config)
    result = map_tensors(lambda tensor: tensor.cpu(), result)
    verdict = judge(result, pack(config, **captured(path)), config)
    assert verdict.unexplained == []
    assert verdict.positives > 0
