"""What README.md, the manual and the page of measurements say is run, or compared with what it speaks of."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

import simota_triton
from simota_triton import AssignResult, SimOTAConfig, TaskAlignedConfig, grid_priors
from simota_triton.backends import CHOICES
from simota_triton.cli import main
from simota_triton.config import FIELDS
from simota_triton.config.task_aligned import TAL_FIELDS
from simota_triton.env import VARIABLES

ROOT = Path(__file__).parents[1]
README, MANUAL, BENCH, ALIGNED = (
    (ROOT / path).read_text()
    for path in (
        "README.md",
        "simota_triton/README.md",
        "bench/README.md",
        "simota_triton/task_aligned/README.md",
    )
)


def test_its_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict = {}
    exec(code, names)  # the reader's own words
    assert names["result"].gt_index.shape == (2, 8400)
    assert capsys.readouterr().out.startswith("1 gt, ")


def test_the_example_of_the_task_aligned_rule_runs():
    (code,) = re.findall(r"```python\n(.*?)```", ALIGNED, re.S)
    names: dict = {}
    exec(code, names)  # the reader's own words
    assert names["result"].target_scores().shape == (2, 8400, 80)


def test_its_page_lists_every_preset_and_field():
    presets, fields = (
        ALIGNED.partition(f"## {name}\n")[2].partition("\n## ")[0] for name in ("Presets", "Configuration")
    )
    assert re.findall(r"^\| `(\w+)` \| ", presets, re.M) == list(TaskAlignedConfig.presets())
    for name in TaskAlignedConfig.presets():
        config = TaskAlignedConfig.from_preset(name)
        (row,) = (line.split(" | ") for line in presets.splitlines() if line.startswith(f"| `{name}` "))
        overlap = {"iou": "IoU", "ciou": "CIoU", "probiou": "ProbIoU"}[config.overlap]
        among = {"inside": "gts around the prior", "all": "all gts", "matched": "gts that selected it"}
        assert row[2] == overlap
        assert row[4] == (f"{config.topk}, then {config.topk2}" if config.topk2 else f"{config.topk}")
        assert row[5] == f"{config.alpha:g}, {config.beta:g}"
        assert row[6] == among[config.conflict] + " |"
    rows = [line.split("|")[1] for line in fields.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(TAL_FIELDS)


def recipe():
    """The names that the recipe defines."""
    (code,) = re.findall(r"```python recipe\n(.*?)```", README, re.S)
    names = {"SimOTAAssigner": simota_triton.SimOTAAssigner, "torch": torch}
    exec(code, names)  # the reader's own words
    return names


def predicted(dtype):
    """Maps, decoded boxes and priors as a head gives them that computes in a dtype."""
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, 3, size, size, generator=generator, dtype=torch.float32).to(dtype)
        for size in (8, 4, 2)
    ]
    corners = torch.rand(2, 84, 2, generator=generator, dtype=torch.float32) * 40
    return maps, torch.cat([corners, corners + 20], 2).to(dtype), grid_priors(64)


GTS = torch.tensor([[4.0, 4.0, 40.0, 40.0]]), torch.tensor([2])
NO_GTS = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def test_its_recipe_gives_what_losses_learn():
    names, (maps, boxes, priors) = recipe(), predicted(torch.float32)
    gts = [GTS[0], NO_GTS[0]], [GTS[1], NO_GTS[1]]
    image, prior, targets, quality, num_pos = names["targets"](maps, boxes, priors, *gts)
    result = names["assigner"](boxes, maps, priors, *gts)
    assert image.unique().tolist() == [0]
    assert len(prior) == num_pos == result.num_pos.sum() > 0
    assert torch.equal(targets, GTS[0].expand(len(prior), 4))
    assert torch.equal(quality.sum(2), result.matched_iou)
    assert torch.equal(quality[image, prior, 2], result.matched_iou[image, prior])


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gts", [GTS, NO_GTS], ids=["gts", "none"])
def test_losses_by_its_recipe_are_finite(default, autocast, dtype, gts):
    torch.set_default_dtype(default)
    try:
        maps, boxes, priors = predicted(dtype)
        maps, boxes = [level.requires_grad_() for level in maps], boxes.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            inputs = maps, boxes, priors.to(torch.float32), [gts[0]] * 2, [gts[1]] * 2
            image, prior, targets, quality, num_pos = recipe()["targets"](*inputs)
            logits = torch.cat([level.float().flatten(2).transpose(1, 2) for level in maps], 1)
            cls = (
                torch.nn.functional.binary_cross_entropy_with_logits(logits, quality, reduction="sum")
                / num_pos
            )
            box = (boxes[image, prior].float() - targets).abs().sum() / num_pos
            (cls + box).backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert (int(num_pos) == 1) == (len(prior) == 0) == (len(gts[0]) == 0)
    assert quality.dtype == targets.dtype == torch.float32
    assert all(bool(value.grad.isfinite().all()) for value in (*maps, boxes))
    assert bool((cls + box).isfinite())


def test_it_lists_every_preset_backend_and_variable():
    assert set(re.findall(r"^\| `(\w+)` \| ", MANUAL, re.M)) >= {*SimOTAConfig.presets(), *VARIABLES}
    assert set(re.findall(r'^\| `"([\w-]+)"` \| ', README, re.M)) == set(CHOICES)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ("mid", "| vectorised PyTorch, batched"),
        ("task_aligned_mid", "| ultralytics"),
        ("task_aligned_small", None),
    ],
)
def test_its_cpu_tables_are_the_committed_measurements(record, line):
    rows = json.loads((ROOT / "bench" / "results" / "cpu" / f"{record}.json").read_text())["rows"]
    if line is None:
        table = BENCH.partition("task_aligned_small.json")[2].split("\n\n")[1]
        rows = [row for row in rows if row["case"] == "simota_triton (torch)"]
    else:
        table = next(block for block in BENCH.split("\n\n") if line in block)
    printed = [float(value.replace(",", "")) for value in re.findall(r"([\d,.]+) ms", table)]
    assert len(printed) == len(rows)
    assert sorted(printed) == pytest.approx(sorted(row["median_ms"] for row in rows), rel=5e-3, abs=0.05)


def test_the_manual_lists_every_field_and_result():
    section = MANUAL.partition("## Configuration")[2].partition("## Priors")[0]
    fields = [names.split("|")[1] for names in section.splitlines() if names.startswith("| `")]
    listed = [name for names in fields for name in re.findall(r"`(\w+)`", names)]
    assert sorted(listed) == sorted(FIELDS)
    section = MANUAL.partition("## Results")[2].partition("## Backends")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    for name in (name for row in rows for name in re.findall(r"`(\w+)`", row)):
        assert hasattr(AssignResult, name) or name in {f.name for f in dataclasses.fields(AssignResult)}, name


def test_the_demo_is_a_command():
    with pytest.raises(SystemExit) as exit_code:
        main(["demo", "--help"])
    assert exit_code.value.code == 0


def test_it_is_one_page():
    assert len(README) < 6500
