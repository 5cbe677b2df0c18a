"""Markdown files name what is there: files and headings that they link to, modules, tests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".github", "bench", "simota_triton", "tests")
PAPERS = [
    ROOT / "README.md",
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)#]*)#?([^)]*)\)")


def named(path):
    """Files that a paper names, from where it names them."""
    text = path.read_text()
    for link, _ in LINK.findall(text):
        if "://" not in link:
            yield path.parent / link
    for module in re.findall(r"(?:python -m |`)((?:bench|tests)(?:\.\w+)+)", text):
        place = ROOT / module.replace(".", "/")
        yield place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    if path == ROOT / "tests/README.md":
        for name in re.findall(r"`((?:\w+/)?\w+\*?\w*\.py)`", text):
            yield next((ROOT / "tests").glob(name), ROOT / "tests" / name)


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_paper_names_is_there(path):
    assert [str(file) for file in named(path) if not file.exists()] == []


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_headings_that_it_links_to_are_there(path):
    for link, heading in LINK.findall(path.read_text()):
        if heading and "://" not in link:
            text = (path.parent / link if link else path).read_text()
            headings = [words.lower().replace(" ", "-") for words in re.findall(r"^#+ (.*)$", text, re.M)]
            assert heading in headings


def test_names_are_found():
    names = {file.name for path in PAPERS for file in named(path)}
    assert {"__init__.py", "fuzz.py", "__main__.py", "test_terms.py", "README.md"} <= names
