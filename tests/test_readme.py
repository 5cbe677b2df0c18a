"""What README says is run, or compared with what it speaks of."""

import json
import re
from pathlib import Path

import pytest
import torch

import simota_triton
from simota_triton import SimOTAConfig
from simota_triton.backends import CHOICES
from simota_triton.cli import main
from simota_triton.env import VARIABLES
from simota_triton.simulate import grid_priors

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict = {}
    exec(code, names)  # the reader's own words
    assert names["result"].gt_index.shape == (2, 8400)
    assert capsys.readouterr().out.startswith("1 gt, ")


def test_its_recipe_gives_what_losses_learn():
    (code,) = re.findall(r"```python recipe\n(.*?)```", README, re.S)
    names = {"SimOTAAssigner": simota_triton.SimOTAAssigner, "torch": torch}
    exec(code, names)  # the reader's own words
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, size, size) for size in (8, 4, 2)]
    corners = torch.rand(2, 84, 2) * 40
    gts = [torch.tensor([[4.0, 4.0, 40.0, 40.0]]), torch.zeros(0, 4)], [torch.tensor([2]), torch.zeros(0, dtype=torch.long)]
    boxes = torch.cat([corners, corners + 20], 2)
    image, prior, targets, quality, num_pos = names["targets"](maps, boxes, grid_priors(64), *gts)
    result = names["assigner"](boxes, maps, grid_priors(64), *gts)
    assert image.unique().tolist() == [0]
    assert len(prior) == num_pos == result.num_pos.sum() > 0
    assert torch.equal(targets, gts[0][0].expand(len(prior), 4))
    assert torch.equal(quality.sum(2), result.matched_iou)
    assert torch.equal(quality[image, prior, 2], result.matched_iou[image, prior])


def test_it_lists_every_preset_backend_and_variable():
    assert set(re.findall(r"^\| `(\w+)` \| ", README, re.M)) >= {*SimOTAConfig.presets(), *VARIABLES}
    assert set(re.findall(r'^\| `"([\w-]+)"` \| ', README, re.M)) == set(CHOICES)


def test_its_cpu_table_is_the_committed_measurement():
    rows = json.loads((ROOT / "bench" / "results" / "cpu" / "mid.json").read_text())["rows"]
    table = next(block for block in README.split("\n\n") if "simota_triton, `" in block)
    printed = [float(value.replace(",", "")) for value in re.findall(r"([\d,.]+) ms", table)]
    assert len(printed) == len(rows)
    assert sorted(printed) == pytest.approx(sorted(row["median_ms"] for row in rows), rel=5e-3)


def test_the_commands_it_names_exist():
    for module in re.findall(r"python -m (bench\.\w+|tests\.\w+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists() or (ROOT / module.replace(".", "/") / "__main__.py").exists(), module
    with pytest.raises(SystemExit) as exit_code:
        main(["demo", "--help"])
    assert exit_code.value.code == 0


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_its_links_lead_somewhere(link):
    assert (ROOT / link).exists()
