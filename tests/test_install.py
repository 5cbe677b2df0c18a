"""``tests.programs.install`` resolves what README and the metadata say."""

import re

from tests.programs.install import ROOT, commands, environment, pythons


def test_readmes_commands_are_found_with_their_constraints():
    assert commands((ROOT / "README.md").read_text()) == [
        ["-c", ".ci/constraints.txt", "-e", extras] for extras in (".[cli]", ".[cli,test]")
    ]


def test_the_metadata_names_every_python_from_the_lowest_on():
    text = (ROOT / "pyproject.toml").read_text()
    (lowest,) = re.findall(r'requires-python = ">=3\.(\d+)"', text)
    minors = [int(version.split(".")[1]) for version in pythons(text)]
    assert minors == list(range(int(lowest), int(lowest) + len(minors)))
    assert len(minors) > 1


def test_nothing_of_this_machines_pip_is_passed_on(monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "somewhere")
    monkeypatch.setenv("PIP_CONFIG_FILE", "something")
    assert not {"PIP_FIND_LINKS", "PIP_CONSTRAINT"} & set(environment())
    assert environment()["PIP_CONFIG_FILE"] == "/dev/null"
