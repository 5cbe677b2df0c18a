"""Imports lead downwards: the layers of ``simota_triton/__init__.py``, held to what modules import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import simota_triton

ROOT = Path(simota_triton.__file__).parent
LAYERS = [
    line.strip().split(", ") for line in (simota_triton.__doc__ or "").splitlines() if line.startswith("    ")
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def place(path: Path) -> str:
    """Module or folder of the package that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of each module or folder of the package that a file imports, within functions too."""
    folder = path.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from ((node.lineno, name[1]) for name in names if name[0] == "simota_triton" and name[1:])
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                module = [*folder[: len(folder) - node.level + 1], *module]
            elif module[:1] == ["simota_triton"]:
                module = module[1:]
            else:
                continue
            yield from ((node.lineno, name) for name in (module[:1] or [alias.name for alias in node.names]))


def files() -> list[Path]:
    faces = (ROOT / "__init__.py", ROOT / "__main__.py")  # what users see stands above all layers
    return [path for path in sorted(ROOT.rglob("*.py")) if path not in faces]


def test_every_module_has_its_layer():
    assert sorted(LEVEL) == sorted({place(path) for path in files()})
    assert len(LEVEL) == sum(map(len, LAYERS))


def test_imports_lead_downwards():
    upwards = [
        f"{path.relative_to(ROOT)}, line {line}: {place(path)} imports {name}"
        for path in files()
        for line, name in imported(path)
        if name != place(path) and LEVEL[name] >= LEVEL[place(path)]
    ]
    assert not upwards, "\n".join(upwards)


def test_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "kernels/stream/x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from ... import env\nfrom ...config import a\nfrom .. import maths\nfrom . import y\nimport torch\n"
        "def f():\n    from simota_triton.op import b\n"
        "    import simota_triton.cli.main\n    from torch import c\n"
    )
    assert sorted(imported(file)) == [
        (1, "env"), (2, "config"), (3, "kernels"), (4, "kernels"), (7, "op"), (8, "cli"),
    ]  # fmt: skip


MOST_LINES, MOST_PARAMETERS = 100, 25
LAUNCHED = {
    "prior_pass", "cost_pass", "rescue_pass", "prepare", "sums_and_ious", "select", "resolve", "rescue",
    "select_aligned",
}  # fmt: skip
"""Kernels that the host launches: their parameters are all that they read and write."""


def test_functions_are_short():
    long = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or node.name in LAUNCHED:
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            arguments = node.args
            parameters = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
            if lines > MOST_LINES or parameters > MOST_PARAMETERS:
                where = f"{path.relative_to(ROOT)}, line {node.lineno}"
                long.append(f"{where}: {node.name} has {lines} lines and {parameters} parameters")
    assert not long, "\n".join(long)
