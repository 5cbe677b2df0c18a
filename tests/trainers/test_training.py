"""``tests.trainers.train`` at a tiny size: the original and ours agree beside each other, and RTMDet's losses
are equal without and with ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simota_triton import SimOTAConfig
from simota_triton.inputs import pack
from tests.peers.loading import Missing, site
from tests.support.captured import captured, preset_of

COCO = os.environ.get("SIMOTA_TRITON_COCO")


@pytest.mark.skipif(not COCO, reason="SIMOTA_TRITON_COCO names no folder of photos")
def test_three_steps_of_each_detector(tmp_path: Path) -> None:
    for package in (("libreyolo", "1.6.0"), ("pixeltable-yolox", "0.4.3")):
        try:
            site(*package)
        except Missing as reason:
            pytest.skip(str(reason))
    options = [
        "--steps",
        "3",
        "--size",
        "96",
        "--batch",
        "4",
        "--out",
        str(tmp_path),
        "--capture",
        str(tmp_path),
        "--captured",
        "2",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainers.train", *options],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert len(reports) == 6
    for name, report in reports.items():
        assert len(report["loss"]) == 4, name
        if report["mode"] == "shadow":
            assert report["unexplained"] == [], name
            assert report["positives"] > 20
            assert report["largest_iou_difference"] < 1e-5
    assert reports["libreyolo_rtmdet_swap"]["loss"] == reports["libreyolo_rtmdet_shadow"]["loss"]
    assert "libreyolo_rtmdet: losses with ours and the original's: equal over 4 steps" in done.stdout
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) == 6, "untrained and late; 50 steps were not made"
    for path in files:
        assert pack(SimOTAConfig.from_preset(preset_of(path)), **captured(path)).shape == (2, 189, 80)
