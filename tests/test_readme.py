"""What README says is run, or compared with what it speaks of."""

import json
import re
from pathlib import Path

import pytest

from simota_triton import SimOTAConfig
from simota_triton.backends import CHOICES
from simota_triton.cli import main
from simota_triton.env import VARIABLES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict = {}
    exec(code, names)  # the reader's own words
    assert names["result"].gt_index.shape == (2, 8400)
    assert capsys.readouterr().out.startswith("1 gt, ")


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
