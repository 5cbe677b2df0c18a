"""Batches captured from a training: what is kept, when, and what a file that is damaged says."""

from __future__ import annotations

import logging

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig, TaskAlignedAssigner, TaskAlignedConfig
from simota_triton import capture as module
from simota_triton.capture import MAGIC, Recorder, capture, read_batches
from tests.support.kernels import random_inputs


@pytest.fixture(autouse=True)
def _nothing_captured(monkeypatch):
    monkeypatch.delenv("SIMOTA_TRITON_CAPTURE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    module._of_environment.cache_clear()
    yield
    module._of_environment.cache_clear()


def call(num_priors=60, counts=(3, 2), seed=0, config="rtmdet"):
    pred, cls, obj, priors, boxes, labels = random_inputs(num_priors, list(counts), 4, seed)
    more = {"obj_logits": obj} if SimOTAConfig.from_preset(config).score == "joint" else {}
    return SimOTAAssigner(config)(pred, cls, priors, boxes, labels, **more)


def test_a_captured_batch_gives_the_same_assignment(tmp_path):
    path = tmp_path / "mine.batches"
    with capture(path):
        expected = call(config="yolox")
    ((batch,), trouble) = read_batches(path)
    assert trouble is None
    assert batch.config == SimOTAConfig.yolox()
    again = SimOTAAssigner(batch.config)(**batch.inputs)
    assert torch.equal(again.gt_index, expected.gt_index)
    assert batch.problem(torch.device("cpu")).shape == (2, 60, 4)


@pytest.mark.parametrize("preset", ["tal", "tood", "yolo9_mit", "tal_obb"])
def test_a_captured_batch_of_the_task_aligned_rule_gives_the_same_assignment(tmp_path, preset):
    path = tmp_path / "mine.batches"
    pred, cls, _, priors, boxes, labels = random_inputs(60, [3, 2], 4)
    config = TaskAlignedConfig.from_preset(preset, topk=4)
    if config.boxes == "rotated":
        pred, *boxes = (
            torch.cat([(b[..., :2] + b[..., 2:]) / 2, (b[..., 2:] - b[..., :2]).abs(), b[..., :1] / 99], -1)
            for b in (pred, *boxes)
        )
    points = priors if config.asks_for_strides else priors[:, :2]
    with capture(path):
        expected = TaskAlignedAssigner(config)(pred, cls, points, boxes, labels)
    ((batch,), trouble) = read_batches(path)
    assert trouble is None
    assert batch.config == config
    assert batch.inputs["priors"].shape == points.shape
    assert TaskAlignedAssigner(batch.config)(**batch.inputs) == expected
    assert int(expected.num_pos.sum()) > 0
    assert batch.problem(torch.device("cpu")).shape == (2, 60, 4)


def test_the_heads_of_a_detector_that_assigns_twice_are_both_kept(tmp_path):
    path = tmp_path / "mine.batches"
    pred, cls, _, priors, boxes, labels = random_inputs(60, [3, 2], 4)
    with capture(path):
        for _ in range(3):
            for preset in ("tal", "tal_o2o"):
                TaskAlignedAssigner(preset)(pred, cls, priors, boxes, labels)
            SimOTAAssigner("rtmdet")(pred, cls, priors, boxes, labels)
    names = [batch.name for batch in read_batches(path)[0]]
    assert names == [f"mine.batches b2-p64-g4, {preset}" for preset in ("tal", "tal_o2o", "rtmdet")]


def test_maps_masks_and_level_shapes_are_kept(tmp_path):
    path = tmp_path / "mine.batches"
    maps = [torch.randn(2, 3, 4, 6), torch.randn(2, 3, 2, 3)]
    pred, priors = torch.rand(2, 30, 4).cumsum(-1) * 8, torch.rand(30, 3) * 8 + 1
    gts, labels = torch.rand(2, 5, 4).cumsum(-1) * 8, torch.zeros(2, 5, dtype=torch.int64)
    mask = torch.rand(2, 5) > 0.3
    with capture(path):
        SimOTAAssigner("rtmdet")(pred, maps, priors, gts, labels, gt_mask=mask, level_shapes=[(4, 6), (2, 3)])
    problem = read_batches(path)[0][0].problem(torch.device("cpu"))
    assert problem.cells == ((4, 6), (2, 3))
    assert torch.equal(problem.cls_logits.levels[0], maps[0].flatten(2).transpose(1, 2))
    assert problem.gts.padded_shape == (2, 5)


def test_one_batch_of_each_bucket_up_to_the_limit(tmp_path):
    path = tmp_path / "mine.batches"
    with capture(path, limit=3):
        for num_priors in (60, 61, 200, 60, 400, 1000, 2000):
            call(num_priors)
    assert [batch.inputs["priors"].shape[0] for batch in read_batches(path)[0]] == [60, 200, 400]
    with capture(path, limit=4):
        call(3000)
        call(5000)
    assert len(read_batches(path)[0]) == 4


def test_a_view_is_kept_without_what_it_is_a_view_of(tmp_path):
    path = tmp_path / "mine.batches"
    pred, cls, _, priors, boxes, labels = random_inputs(60, [3], 4)
    wide = torch.zeros(1, 60, 4000)
    wide[..., :4] = cls
    with capture(path):
        SimOTAAssigner("rtmdet")(pred, wide[..., :4], priors, boxes, labels)
    assert path.stat().st_size < 20_000


def test_the_variable_captures_in_rank_0_alone(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "mine.batches"
    monkeypatch.setenv("SIMOTA_TRITON_CAPTURE", str(path))
    monkeypatch.setenv("RANK", "3")
    call()
    assert not path.exists()
    module._of_environment.cache_clear()
    monkeypatch.setenv("RANK", "0")
    call()
    call(100)
    assert len(read_batches(path)[0]) == 2


def test_nothing_is_captured_outside_the_block(tmp_path):
    with capture(tmp_path / "mine.batches"):
        pass
    call()
    assert not (tmp_path / "mine.batches").exists()


@pytest.mark.parametrize("cut", [1, 100, 3000])
def test_a_truncated_file_gives_its_whole_batches_and_says_so(tmp_path, cut):
    path = tmp_path / "mine.batches"
    with capture(path):
        call()
        call(200)
    text = path.read_bytes()
    path.write_bytes(text[:-cut])
    found, trouble = read_batches(path)
    assert len(found) == 1
    assert trouble == f"{path} ends in the middle of batch 1; the 1 before it are used"
    with capture(path):  # what is added replaces the end that was cut off
        call(200)
    found, trouble = read_batches(path)
    assert (len(found), trouble) == (2, None)
    assert path.read_bytes()[: len(text) // 2] == text[: len(text) // 2]


def test_a_file_of_something_else_is_refused_and_kept(tmp_path, monkeypatch, caplog):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights of a month of training")
    with pytest.raises(ValueError, match="no file of captured batches"), capture(path):
        pass
    monkeypatch.setenv("SIMOTA_TRITON_CAPTURE", str(path))
    assert (call().gt_index >= 0).any()
    assert "Nothing is captured" in caplog.text
    assert path.read_bytes() == b"weights of a month of training"


def test_damage_inside_a_batch_is_named(tmp_path):
    path = tmp_path / "mine.batches"
    with capture(path):
        call()
    text = bytearray(path.read_bytes())
    text[len(MAGIC) + 8 : len(MAGIC) + 40] = b"?" * 32
    path.write_bytes(text)
    with pytest.raises(ValueError, match="batch 0 cannot be read"):
        read_batches(path)


def test_a_full_disk_is_one_warning_and_training_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        Recorder, "append", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with capture(tmp_path / "mine.batches"):
        for num_priors in (60, 200, 400):
            assert (call(num_priors).gt_index >= 0).any()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "no more batches are captured" in caplog.text


def test_a_folder_that_cannot_be_made_is_a_warning_too(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with capture(tmp_path / "file" / "mine.batches"):
        call()
    assert "cannot be written" in caplog.text
