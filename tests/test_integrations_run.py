"""Patches reach every process: ``simota-triton run``, and ``patch()`` in the process that starts others. The
package is a stand-in.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simota_triton.cli import main
from simota_triton.integrations.children import STARTUP, reach, reached

ROOT = Path(__file__).parents[1]

HEAD = """
class YOLOXHead:
    def get_losses(self, imgs, x_shifts, y_shifts, expanded_strides, labels, outputs, origin_preds, dtype):
        return "theirs"
    def get_in_boxes_info(
        self, gt_bboxes_per_image, expanded_strides, x_shifts, y_shifts, total_num_anchors, num_gt
    ):
        pass
"""

PROGRAM = """
import importlib.util, multiprocessing, os, subprocess, sys

assert importlib.util.find_spec("yolox")  # looking is not importing

def report(who):
    early = "torch" in sys.modules or "simota_triton" in sys.modules
    from yolox.models import yolo_head
    import sitecustomize
    patched = hasattr(yolo_head.YOLOXHead.get_losses, "__wrapped__")
    words = "patched" if patched else "original", "early" if early else "late", os.environ.get("OWN", "no")
    print(f"{who}: {', '.join(words)} sitecustomize", flush=True)

if __name__ == "__main__":
    report("parent")
    if "patch" in sys.argv:
        from simota_triton.integrations import yolox
        patch = yolox.patch()
    process = multiprocessing.get_context("spawn").Process(target=report, args=("spawned",))
    process.start()
    process.join()
    child = "import runpy; runpy.run_path('program.py')['report']('subprocess')"
    again = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    subprocess.run([sys.executable, "-c", again], check=True)
    if "patch" in sys.argv:
        yolox.unpatch()
        subprocess.run([sys.executable, "-c", child.replace("subprocess'", "after'")], check=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with a package that looks like yolox 0.3, a program that starts others, and a sitecustomize of
    the user's.
    """
    files = {
        "packages/yolox/__init__.py": '__version__ = "0.3.0"\n',
        "packages/yolox/models/__init__.py": "",
        "packages/yolox/models/yolo_head.py": HEAD,
        "packages/sitecustomize.py": "import os\nos.environ['OWN'] = 'own'\n",
        "program.py": PROGRAM,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def output(folder: Path, *command: str, fails: bool = False) -> str:
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "packages")]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environ, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


def test_run_reaches_every_process_and_imports_nothing_early(program: Path) -> None:
    lines = output(
        program, "-m", "simota_triton", "run", "--patch", "yolox", "--", sys.executable, "program.py"
    ).splitlines()
    assert lines == [
        f"{who}: patched, late, own sitecustomize" for who in ("parent", "spawned", "subprocess")
    ]


def test_patch_reaches_what_is_started_after_it_until_unpatch(program: Path) -> None:
    states = {"parent": "original", "spawned": "patched", "subprocess": "patched", "after": "original"}
    lines = output(program, "program.py", "patch").splitlines()
    assert lines == [f"{who}: {state}, late, own sitecustomize" for who, state in states.items()]


def test_without_either_nothing_is_patched(program: Path) -> None:
    assert "patched" not in output(program, "program.py")


def test_a_package_that_cannot_be_patched_fails_where_it_is_imported(program: Path) -> None:
    (program / "packages/yolox/__init__.py").write_text('__version__ = "0.2.0"\n')
    text = output(
        program,
        "-m",
        "simota_triton",
        "run",
        "--patch",
        "yolox",
        "--",
        sys.executable,
        "program.py",
        fails=True,
    )
    assert "yolox 0.2.0 is installed; works with" in text


def test_the_commands_exit_code_and_options_are_its_own(program: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "simota_triton",
        "run",
        "--patch",
        "yolox",
        "--patch",
        "nanodet",
        "--",
        sys.executable,
        "-c",
    ]
    code = "import os, sys; print(os.environ['SIMOTA_TRITON_PATCH'], sys.argv[1:]); sys.exit(7)"
    done = subprocess.run(
        [*command, code, "--patch", "-d", "2"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 7
    assert done.stdout == "yolox,nanodet ['--patch', '-d', '2']\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "run: expected a command after --"),
        (["--", "no-such-program"], "no-such-program cannot be started (No such file or directory)"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    assert main(["run", "--patch", "yolox", *command]) == 2
    assert capsys.readouterr().err.startswith(f"simota-triton: {message}")


def test_a_package_without_a_patch_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--patch", "mmdet", "--", "true"])
    assert "invalid choice: 'mmdet'" in capsys.readouterr().err


def test_an_environment_keeps_what_it_had() -> None:
    environ = {"PYTHONPATH": os.pathsep.join(["", "/own"])}  # an empty entry is the working folder
    reach(["yolox"], environ)
    reach(["yolox", "nanodet"], environ)
    assert environ == {
        "PYTHONPATH": os.pathsep.join([STARTUP, "", "/own"]),
        "SIMOTA_TRITON_PATCH": "yolox,nanodet",
    }
    reach([], environ)
    assert environ == {"PYTHONPATH": os.pathsep.join(["", "/own"])}
    environ = {}
    reach(["yolox"], environ)
    assert environ["PYTHONPATH"] == STARTUP
    reach([], environ)
    assert environ == {}


def test_the_startup_folder_holds_one_module() -> None:
    """All in it is importable by its bare name in every process that is reached."""
    assert [path.name for path in Path(STARTUP).iterdir() if path.name != "__pycache__"] == [
        "sitecustomize.py"
    ]
    assert not reached()
