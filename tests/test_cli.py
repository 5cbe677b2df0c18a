"""The command line: what it prints, what it writes, and what it says when it cannot."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

import simota_triton
from simota_triton import SimOTAAssigner, TaskAlignedAssigner, backends, env, grid_priors
from simota_triton.cli import COMMANDS, main
from simota_triton.cli import arguments as cli_arguments
from simota_triton.cli.demo import run as demo_run
from simota_triton.cli.demo.coco import read_coco
from simota_triton.cli.demo.scene import SHIPPED, load_scene
from simota_triton.cli.info import VARIETIES
from simota_triton.measure.simulate import simulate_predictions

from .test_demo import COCO80, annotation, needs_coco, write_coco

ROOT = Path(__file__).parents[1]


def one_line(text):
    """The single line that stderr holds."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("simota-triton: ")
    return lines[0]


def rows_of(output):
    """Table rows as lists of cells: gt, class, box, preset, k, stride 8, 16, 32, priors, mean IoU; blanks
    filled from above.
    """
    rows, head = [], []
    for line in output.splitlines():
        found = re.fullmatch(
            r"(?:\s*(\d+|all)\s\s+(.*?))?\s+(\w+)\s+(\d+)\s+([\d-]+)\s+([\d-]+)\s+([\d-]+)\s+(\d+|none)\s+([\d.]+|-)\s*",
            line,
        )
        if found:
            head = [found[1], found[2].strip()] if found[1] else head
            rows.append([*head, *found.groups()[2:]])
    return rows


# info


def test_info_tells_versions_devices_settings_and_the_choice(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: pytest.fail("CUDA touched"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("CUDA touched"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    lines = {
        re.split(r"\s{2,}", line.strip())[0]: line for line in output.splitlines() if line.startswith("  ")
    }
    assert lines["simota-triton"].endswith(f"  {simota_triton.__version__}")
    assert lines["torch"].split()[1].startswith(torch.__version__)
    assert re.search(r"^  cpu +7 threads of \d+ processors$", output, re.MULTILINE)
    assert lines["cuda"].endswith("not available")
    assert lines["SIMOTA_TRITON_BACKEND"].endswith("not set")
    values = {line.index(line.split()[1]) for name, line in lines.items() if " " not in name}
    assert len(values) == 1, "values are not aligned"


def test_info_gives_the_backend_of_each_device_and_why(monkeypatch, capsys):
    assert main(["info"]) == 0
    name, reason = backends.choose("auto", torch.device("cpu"))
    assert f"{name} ({reason})" in capsys.readouterr().out
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "reference")
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    assert "reference (SIMOTA_TRITON_BACKEND)" in output
    assert re.search(r"SIMOTA_TRITON_BACKEND +'reference'", output)


def test_info_names_every_rule_with_the_backend_that_computes_it(monkeypatch, capsys):
    assert set(VARIETIES) == {variety for backend in backends.BACKENDS.values() for variety in backend.load}
    monkeypatch.setattr(backends, "triton_refusal", lambda device: None)
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "triton")
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"cpu +SimOTA: triton \(SIMOTA_TRITON_BACKEND\)$", output, re.MULTILINE)
    assert re.search(r"^ +task-aligned: none: SIMOTA_TRITON_BACKEND: expected one of 'auto'", output, re.M)


def test_info_survives_a_setting_that_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "quantum")
    assert main(["info"]) == 0
    assert "none: SIMOTA_TRITON_BACKEND: expected one of 'auto'" in capsys.readouterr().out


def test_a_backend_that_cannot_run_here_is_told_with_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backends, "triton_refusal", lambda device: f"{device} is no GPU")
    monkeypatch.setattr(cli_arguments, "triton_refusal", lambda device: f"{device} is no GPU")
    for command in ("demo", "bench"):
        assert main([command, "--backend", "triton", "--device", "cpu", "--out", str(tmp_path / "out")]) == 2
        assert one_line(capsys.readouterr().err).endswith("backend triton cannot run on cpu: cpu is no GPU")
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "triton")
    assert main(["info"]) == 0
    assert "triton (SIMOTA_TRITON_BACKEND), which cannot run here: cpu is no GPU" in capsys.readouterr().out


def test_info_lists_every_variable_the_package_reads(capsys):
    package = Path(simota_triton.__file__).parent
    read = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r"\bSIMOTA_TRITON_[A-Z_]+\b", path.read_text())
    }
    assert set(env.VARIABLES) == read
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in env.VARIABLES)


def test_info_describes_gpus(monkeypatch, capsys):
    gpu = types.SimpleNamespace(name="NVIDIA Test", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    assert output.count("NVIDIA Test, capability 9.0, 80.0 GiB") == 2
    assert re.search(
        rf"cuda:1 +SimOTA: {backends.choose('auto', torch.device('cuda:1'), may_check=False)[0]} \(", output
    )
    assert output.count("  task-aligned, rotated boxes: torch (plain PyTorch: there are no kernels") == 2


def test_info_says_so_where_triton_is_missing_or_broken(monkeypatch, capsys):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else real(name))
    assert main(["info"]) == 0
    assert re.search(r"triton +not installed", capsys.readouterr().out)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "triton", None)
    assert main(["info"]) == 0
    assert re.search(r"triton +installed, but its import fails: ", capsys.readouterr().out)


def test_the_module_runs_as_a_program():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "simota_triton", "info"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert simota_triton.__version__ in done.stdout
    assert done.stderr == ""


def test_the_demo_leaves_pyplot_alone_and_takes_any_stdout(tmp_path):
    code = (
        "import sys; from simota_triton.cli import main; "
        "sys.exit(main(sys.argv[1:]) or 9 * ('matplotlib.pyplot' in sys.modules))"
    )
    path = write_coco(tmp_path, [annotation([20, 20, 60, 60])], categories=[{"id": 10, "name": "Würfel"}])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [
        sys.executable,
        "-c",
        code,
        "demo",
        "--coco",
        str(path),
        "--out",
        str(tmp_path / "out"),
        "--preset",
        "yolox",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "W?rfel" in done.stdout


# demo: what it prints and writes


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_tables_numbers_are_the_assignments(tmp_path, capsys, backend):
    assert (
        main(["demo", "--out", str(tmp_path), "--backend", backend, "--phase", "trained", "--seed", "4"]) == 0
    )
    rows = rows_of(capsys.readouterr().out)
    dataset = read_coco(SHIPPED)
    scene = load_scene(dataset.images[0], dataset.classes, None, 640)
    expected = []
    for preset, offset in (("rtmdet", 0.0), ("yolox", 0.5)):
        priors = grid_priors(640, offset=offset)
        simulated = simulate_predictions(
            [scene.gt_boxes], [scene.gt_labels], priors, 7, "trained", torch.Generator().manual_seed(4)
        )
        result = SimOTAAssigner(preset, backend="reference")(
            simulated.pred_boxes, simulated.cls_logits, priors, [scene.gt_boxes], [scene.gt_labels],
            obj_logits=simulated.obj_logits if preset == "yolox" else None,
        )  # fmt: skip
        matrix, iou = result.matching_matrix()[0], result.matched_iou[0]
        for gt in [*range(len(scene.gt_boxes)), None]:
            mine = matrix.any(1) if gt is None else matrix[:, gt]
            by_stride = [int(mine[priors[:, 2] == stride].sum()) for stride in (8, 16, 32)]
            number = int(mine.sum())
            mean = f"{float(iou[mine].mean()):.3f}" if number else "-"
            if gt is None:
                expected.append(
                    [
                        "all",
                        "",
                        preset,
                        str(int(result.dynamic_k.sum())),
                        *map(str, by_stride),
                        str(number),
                        mean,
                    ]
                )
                continue
            box = [round(v) for v in (scene.gt_boxes[gt, 2:] - scene.gt_boxes[gt, :2]).tolist()]
            head = [
                str(gt),
                f"{scene.classes[int(scene.gt_labels[gt])]} {box[0]} x {box[1]}",
                preset,
                str(int(result.dynamic_k[gt])),
            ]
            expected.append(
                [*head, *(str(n) if n else "-" for n in by_stride), str(number) if number else "none", mean]
            )
    found = [[re.sub(r"\s{2,}", " ", cell) for cell in row] for row in rows]
    assert sorted(found) == sorted(expected)
    assert any(row[7] == "none" for row in found)


def test_the_tables_of_both_rules_hold_topk_and_scores(tmp_path, capsys):
    options = ["--preset", "rtmdet", "--preset", "tal", "--out", str(tmp_path)]
    assert main(["demo", *options]) == 0
    output = capsys.readouterr().out
    dataset = read_coco(SHIPPED)
    scene = load_scene(dataset.images[0], dataset.classes, None, 640)
    priors = grid_priors(640, offset=0.5)
    simulated = simulate_predictions(
        [scene.gt_boxes], [scene.gt_labels], priors, 7, "mid", torch.Generator().manual_seed(0)
    )
    result = TaskAlignedAssigner("tal", backend="reference")(
        simulated.pred_boxes, simulated.cls_logits, priors, [scene.gt_boxes], [scene.gt_labels]
    )
    # preset, k, stride 8, 16, 32, priors, mean IoU, mean score
    found = re.findall(r"\btal +(\d+) +[\d-]+ +[\d-]+ +[\d-]+ +(\d+) +([\d.]+) +([\d.]+) *$", output, re.M)
    expected = []
    for gt in [*range(len(scene.gt_boxes)), None]:
        mine = result.fg_mask[0] if gt is None else result.gt_index[0] == gt
        means = (f"{float(values[0][mine].mean()):.3f}" for values in (result.matched_iou, result.scores))
        asked = 10 * len(scene.gt_boxes) if gt is None else 10
        expected.append((str(asked), str(int(mine.sum())), *means))
    assert found == expected
    assert re.search(r"\brtmdet +\d+ +\d+ +\d+ +\d+ +\d+ +[\d.]+ *$", output, re.MULTILINE)  # no score
    assert "score" in output
    assert main(["demo", "--preset", "rtmdet", "--out", str(tmp_path)]) == 0
    assert "score" not in capsys.readouterr().out


@pytest.mark.parametrize("source", ["--backend", "SIMOTA_TRITON_BACKEND"])
def test_a_backend_without_the_rule_of_a_preset_is_refused_in_a_line(source, tmp_path, capsys, monkeypatch):
    options = ["--backend", "triton"] if source == "--backend" else []
    if not options:
        monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "triton")
    assert main(["demo", "--preset", "tal", *options, "--out", str(tmp_path / "out")]) == 2
    line = one_line(capsys.readouterr().err)
    assert f"{source}: expected one of 'auto', 'reference', 'torch'" in line
    assert "which compute the rule 'task_aligned', got 'triton'" in line
    assert not (tmp_path / "out").exists()


def test_a_workload_is_timed_by_a_task_aligned_preset(tmp_path, capsys):
    out = tmp_path / "found.json"
    options = ["--workload", "coco", "--batch-size", "1", "--rounds", "1", "--device", "cpu"]
    assert main(["bench", "--preset", "tal", *options, "--out", str(out)]) == 0
    assert "coco, B = 1, float32, tal on cpu" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows] == ["torch", "reference"]
    assert {row["differing_priors"] for row in rows} == {0}


def test_presets_of_both_rules_are_offered_where_both_are_taken(capsys):
    assert {"rtmdet", "yolox", "tal", "tood"} < set(cli_arguments.PRESETS)
    assert "tal_obb" not in cli_arguments.PRESETS  # whose boxes are not those of scenes and workloads
    for command, presets in (
        ("demo", cli_arguments.PRESETS), ("bench", cli_arguments.PRESETS), ("tune", ("rtmdet", "yolox")),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            main([command, "--help"])
        output = capsys.readouterr().out
        assert all(re.search(rf"\b{name}\b", output) for name in presets)
        assert (command == "tune") == (re.search(r"\btal\b", output) is None)


def test_the_demo_writes_a_picture_for_each_preset_and_sums_up(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert main(["demo", "--out", str(out), "--preset", "all", "--image-size", "320"]) == 0
    output = capsys.readouterr().out
    names = cli_arguments.PRESETS
    assert sorted(path.name for path in out.iterdir()) == sorted(f"street_{name}_mid.png" for name in names)
    with Image.open(out / "street_yolox_mid.png") as picture:
        assert picture.format == "PNG"
        assert picture.size > (900, 600)
    assert f"{len(names)} pictures in {out}" in output
    assert "simulated predictions (mid)" in output
    for name in names:
        assert re.search(
            rf"^  {name} +8 gts, \d+ positives, \d+ conflicts?, \d+ gts? left empty$", output, re.MULTILINE
        )
    assert "\x1b" not in output  # no colours and no bar in a file
    assert "image 1/1: street.png" in output


def test_the_last_lines_sum_over_all_images(tmp_path, capsys):
    images = [{"id": i, "file_name": f"{i}.png", "width": 300, "height": 200} for i in range(3)]
    entries = [annotation([20 + 50 * i, 20, 90, 90], image_id=i) for i in range(3)] + [
        annotation([150.5, 130.5, 3, 3], image_id=1)
    ]
    assert (
        main(
            [
                "demo",
                "--coco",
                str(write_coco(tmp_path, entries, images)),
                "--out",
                str(tmp_path),
                "--preset",
                "yolox",
            ]
        )
        == 0
    )
    output = capsys.readouterr().out
    rows = rows_of(output)
    positives = sum(int(row[7]) for row in rows if row[0] == "all")
    assert f"  yolox  4 gts, {positives} positives" in output
    assert "3 images, simulated predictions (mid), backend torch (plain PyTorch on cpu)" in output
    assert f"3 pictures in {tmp_path}" in output


def test_limit_takes_the_first_images(tmp_path, capsys):
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(5)]
    path = write_coco(tmp_path, [], images)
    assert (
        main(
            ["demo", "--coco", str(path), "--out", str(tmp_path / "out"), "--limit", "2", "--preset", "seed"]
        )
        == 0
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0_seed_mid.png", "1_seed_mid.png"]
    assert "2 images" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_a_bar_and_a_file_gets_lines(tmp_path, terminal):
    options = demo_run.Options(
        coco=None, images=None, limit=None, image_size=64, presets=["yolox"], phase="mid", seed=0,
        backend="auto", device=torch.device("cpu"), out=tmp_path,
    )  # fmt: skip
    stream = io.StringIO()
    assert demo_run.run(options, Console(file=stream, force_terminal=terminal, width=100)) == 0
    assert ("1/1" in re.sub(r"\x1b\[[\d;?]*\w", "", stream.getvalue())) is True
    assert ("\x1b[2K" in stream.getvalue()) is terminal
    assert ("image 1/1: street.png" in stream.getvalue()) is not terminal


def test_a_rule_lies_between_gts_and_before_the_sums_alone(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:1] in " "]
    first = next(number for number, line in enumerate(lines) if re.match(r" +0 ", line))
    assert [not line.strip() for line in lines[first : first + 27]] == [
        False,
        False,
        True,
    ] * 9  # 8 gts and the sums, two presets each


def test_a_class_name_is_no_markup(tmp_path, capsys):
    path = write_coco(tmp_path, [annotation([10, 10, 50, 50])], categories=[{"id": 10, "name": "[red]x[/]"}])
    assert main(["demo", "--coco", str(path), "--out", str(tmp_path), "--preset", "seed"]) == 0
    assert "[red]x[/]" in capsys.readouterr().out


@needs_coco
def test_coco_photos_run_and_their_pictures_show_them(tmp_path, capsys):
    arguments = [
        "demo",
        "--coco",
        str(COCO80 / "instances.json"),
        "--images",
        str(COCO80 / "images"),
        "--limit",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    dataset = read_coco(COCO80 / "instances.json")
    sizes = [len([a for a in image.annotations if not a.is_crowd]) for image in dataset.images[:2]]
    rows = rows_of(captured.out)
    assert len(rows) == 2 * (sum(sizes) + 2)
    assert {row[1].rsplit("  ", 1)[0].strip() for row in rows if row[0] != "all"} <= {
        f"{dataset.classes[a.label]}" for image in dataset.images[:2] for a in image.annotations
    }
    assert len(list(tmp_path.glob("*.png"))) == 4
    for picture in tmp_path.glob("*.png"):
        with Image.open(picture) as image:
            assert len(image.convert("RGB").getcolors(2**24)) > 5000


# demo: what cannot be met


def test_an_image_that_cannot_be_used_is_told_and_the_others_are_done(tmp_path, capsys):
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(5)]
    path = write_coco(tmp_path, [annotation([10, 10, 40, 40], image_id=i) for i in range(5)], images)
    (tmp_path / "1.png").write_bytes(b"no picture")
    for i, size in ((2, 64), (3, 32), (4, 64)):
        Image.effect_noise((size, size), 50).convert("RGB").save(tmp_path / f"{i}.png")
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[: len(whole) // 2])
    assert (
        main(
            [
                "demo",
                "--coco",
                str(path),
                "--images",
                str(tmp_path),
                "--out",
                str(tmp_path / "out"),
                "--preset",
                "yolox",
            ]
        )
        == 2
    )
    captured = capsys.readouterr()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["2_yolox_mid.png"]
    lines = captured.err.splitlines()
    assert len(lines) == 5
    assert f"{tmp_path / '0.png'}: no such image" in lines[0]
    assert f"{tmp_path / '1.png'}: is no readable image" in lines[1]
    assert "expected 64 x 64 pixels, as the annotations say, got 32 x 32" in lines[2]
    assert f"{tmp_path / '4.png'}: is no readable image" in lines[3]
    assert "4 images of 5 could not be used" in lines[4]
    assert "1 image, simulated" in captured.out


def test_annotations_left_out_are_one_line(tmp_path, capsys):
    path = write_coco(
        tmp_path,
        [annotation([10, 10, 40, 40]), annotation([1, 1, 0, 5]), annotation([1, 1, 5, 5], category_id=4)],
    )
    assert main(["demo", "--coco", str(path), "--out", str(tmp_path), "--preset", "yolox"]) == 0
    line = one_line(capsys.readouterr().err)
    assert (
        "annotations left out: 2 (1 with a box that is empty, not finite or absurdly large, "
        "1 with an unknown category)" in line
    )


@pytest.mark.parametrize(
    "content",
    [None, "{", '{"images": 3}', '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}'],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, capsys, content):
    path = tmp_path / "instances.json"
    if content is not None:
        path.write_text(content)
    assert main(["demo", "--coco", str(path), "--out", str(tmp_path / "out")]) == 2
    assert str(path) in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_of_images_is_one_line(tmp_path, capsys):
    path = write_coco(tmp_path, [])
    assert (
        main(
            [
                "demo",
                "--coco",
                str(path),
                "--images",
                str(tmp_path / "nowhere"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert f"{tmp_path / 'nowhere'}: no such folder" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("blocked", ["file", "below a file", "picture"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys, blocked):
    out = tmp_path / "out"
    if blocked == "picture":
        (out / "street_yolox_mid.png").mkdir(parents=True)
    else:
        out.write_text("")
    assert (
        main(
            ["demo", "--out", str(out / "deeper" if blocked == "below a file" else out), "--preset", "yolox"]
        )
        == 2
    )
    line = one_line(capsys.readouterr().err)
    assert str(out) in line
    assert "cannot be written" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--preset", "yolov3"], cli_arguments.PRESETS),
        (["--phase", "asleep"], ("untrained", "mid", "trained")),
        (["--backend", "quantum"], backends.CHOICES),
        (["--limit", "0"], ("whole number from 1", "'0'")),
        (["--limit", "many"], ("whole number", "'many'")),
        (["--image-size", "8"], ("from 32 to 4096", "'8'")),
        (["--device", "abacus"], ("cpu, cuda or cuda:N", "'abacus'")),
        (["--device", "meta"], ("cpu, cuda or cuda:N",)),
        (["--device", "cuda:99"], ("cuda:99",)),
        (["--images", "somewhere"], ("needs --coco",)),
        (["--limit", "3"], ("needs --coco",)),
    ],
)
def test_a_wrong_argument_is_refused_with_what_would_be_right(capsys, arguments, named):
    with pytest.raises(SystemExit) as stop:
        main(["demo", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert arguments[0] in error
    assert all(name in error for name in named), error


def test_a_wrong_setting_of_the_backend_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "quantum")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "SIMOTA_TRITON_BACKEND: expected one of 'auto'" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("module", "package"), [("rich", "rich"), ("matplotlib", "matplotlib"), ("PIL", "pillow")]
)
def test_a_missing_package_is_one_line_with_the_remedy(tmp_path, monkeypatch, capsys, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    line = one_line(capsys.readouterr().err)
    assert f" {package} is not installed" in line
    assert 'pip install "simota-triton[cli]"' in line
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_without_a_traceback(tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_run, "run_presets", interrupt)
    assert main(["demo", "--out", str(tmp_path)]) == 130
    assert one_line(capsys.readouterr().err).endswith("interrupted")


@pytest.mark.parametrize(
    ("command", "arguments", "refused"),
    [
        *(("bench", ["--batches", "some.batches", *option], option[0]) for option in (
            ("--workload", "coco"), ("--batch-size", "3"), ("--dtype", "float32"), ("--preset", "rtmdet"),
        )),
        *(("bench", ["--plot", "gts", *option], option[0]) for option in (
            ("--batches", "some.batches"), ("--workload", "coco"), ("--batch-size", "3"),
            ("--dtype", "float32"), ("--preset", "rtmdet"), ("--rounds", "15"),
        )),
        ("tune", ["--batches", "some.batches", "--batch-size", "3"], "--batch-size"),
        *(("tune", ["--dry-run", *option], option[0]) for option in (
            ("--device", "cuda"), ("--keep", "32"), ("--rounds", "15"), ("--out", "folder"),
        )),
        ("tune", ["--capability", "90"], "--capability"),
        ("tune", ["--device", "cpu", "--workload", "coco"], "--workload"),
        ("tune", ["--device", "cpu", "--batch-size", "2"], "--batch-size"),
    ],
)  # fmt: skip
def test_an_option_that_would_be_ignored_is_refused(capsys, command, arguments, refused):
    with pytest.raises(SystemExit) as stop:
        main([command, *arguments])
    assert stop.value.code == 2
    assert f"error: argument {refused}: " in capsys.readouterr().err.splitlines()[-1]


def test_a_program_without_arguments_helps(capsys):
    assert main([]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("usage: simota-triton")
    assert captured.err == ""


def test_no_help_shows_an_escape(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command.__name__.rsplit(".", 1)[1], "--help"])
        assert "%" not in capsys.readouterr().out.replace(" 1 %.", "")


def test_a_reader_that_stops_and_a_missing_numpy_are_no_noise(tmp_path):
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ModuleNotFoundError('planted')\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "PYTHONUNBUFFERED": "1",
    }
    command = [
        sys.executable,
        "-c",
        "import sys; print('sync', flush=True); sys.stdin.read(1); "
        "from simota_triton.cli import main; sys.exit(main(['info']))",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"sync\n"
        process.stdout.close()
        process.stdin.write(b"x")
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("sent", ["SIGINT", "SIGKILL"])
def test_the_workers_of_tune_end_with_it_and_say_nothing(tmp_path, sent):
    pytest.importorskip("triton")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    arguments = [
        "tune",
        "--dry-run",
        "--capability",
        "90",
        "--workers",
        "1",
        "--limit",
        "1",
        "--workload",
        "coco",
        "--batch-size",
        "1",
    ]
    command = [sys.executable, "-m", "simota_triton", *arguments]
    # what a shell starts in the background ignores Ctrl-C
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options = {
        "stderr": subprocess.PIPE,
        "text": True,
        "env": environment,
        "cwd": tmp_path,
        "start_new_session": True,
    }
    with subprocess.Popen(command, preexec_fn=heeded, **options) as process:
        while len(workers := children(process.pid)) < 2:  # multiprocessing's resource tracker is one of them
            time.sleep(0.02)
        if sent == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        _, error = process.communicate(timeout=60)  # the end of stderr: nobody holds it any more
    deadline = time.monotonic() + 20
    while any(map(runs, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if sent == "SIGINT":
        assert process.returncode == 130
        assert one_line(error).endswith("interrupted")


def children(parent):
    found = [
        Path(f"/proc/{parent}/task/{task}/children").read_text().split()
        for task in os.listdir(f"/proc/{parent}/task")
    ]
    return [int(child) for own in found for child in own]


def runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_help_teaches(capsys):
    for arguments, words in (
        (["--help"], ("info", "demo", "which prior learns which ground-truth box")),
        (
            ["demo", "--help"],
            ("examples:", "--coco", "simulated", "dynamic k", "topk", *cli_arguments.PRESETS),
        ),
        (["info", "--help"], ("versions", "backend")),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        output = capsys.readouterr().out
        assert all(word in output for word in words)


def test_the_shipped_scene_lies_in_the_package_which_the_wheel_carries_whole():
    assert json.loads(SHIPPED.read_text())["images"]
    assert SHIPPED.is_relative_to(Path(simota_triton.__file__).parent)
