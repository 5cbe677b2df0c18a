"""README's commands can be followed: what they install is resolved against the ordinary index, and nothing
else.

``python -m tests.programs.install`` takes each ``pip install`` of README's fenced commands and lets a current
pip resolve it without any configuration of this machine (no files at hand, no other index, no constraint but
those of the command), on this Python; and the largest of them on every Python that the package's metadata
names. pip reads metadata alone, no package is downloaded. Exit code 1 if one cannot be resolved.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIP = "pip==26.3"
"""Its ``fast-deps`` reads a wheel's metadata by requests of a range of bytes where the index serves no
metadata of its own.
"""
KEPT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "PIP_CERT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
)
"""What of the environment says how the network is reached, and nothing of what is found there."""


def commands(readme: str) -> list[list[str]]:
    """What follows ``pip install`` in each command of README's that is run as it stands, the largest last."""
    found = [
        [word for word in shlex.split(arguments) if word != "-q"]
        for block in re.findall(r"```sh \w+\n(.*?)```", readme, re.S)
        for arguments in re.findall(r"pip install (.*?)(?:&&|$)", block, re.M)
    ]
    return sorted(found, key=lambda words: len(words[-1]))


def pythons(pyproject: str) -> list[str]:
    """Versions of Python that the package's classifiers name."""
    return re.findall(r"Programming Language :: Python :: (3\.\d+)", pyproject)


def environment() -> dict[str, str]:
    """A machine without any configuration of pip."""
    return {name: os.environ[name] for name in KEPT if name in os.environ} | {"PIP_CONFIG_FILE": os.devnull}


def resolve(pip: str, wheel: str, arguments: list[str], python: str | None) -> tuple[bool, str]:
    """Whether pip finds a set of versions, and a line that tells it or why not.

    Args:
        pip: The program.
        wheel: The package, built once, in the place of its folder: runs at the same time would build it in
            one place.
        arguments: What follows ``pip install``.
        python: A version of Python; None: this one.
    """
    other = [] if python is None else ["--python-version", python, "--only-binary=:all:"]
    # "." and ".[cli]", not ".ci/constraints.txt"
    named = [re.sub(r"^\.(?=\[|$)", wheel, word) for word in arguments if word != "-e"]
    command = [pip, "install", "--use-feature=fast-deps", "--dry-run", "--ignore-installed", *other, *named]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    name = f"pip install {shlex.join(arguments)}, Python {python or '.'.join(map(str, sys.version_info[:2]))}"
    if done.returncode:
        return False, f"{name}: {' '.join(done.stderr.split())[-600:]}"
    chosen = re.findall(r" ((?:torch|triton|numpy)-[\d.]+)", done.stdout.splitlines()[-1])
    return True, f"{name}: {', '.join(sorted(chosen))}"


def main() -> int:
    """Resolve all, a few at a time: most of it is waiting."""
    asked = commands((ROOT / "README.md").read_text())
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = str(Path(folder, "bin", "pip"))
        subprocess.run([pip, "install", "-q", PIP], env=environment(), check=True)
        subprocess.run(
            [pip, "wheel", "-q", "--no-deps", "-w", folder, "."], cwd=ROOT, env=environment(), check=True
        )
        (wheel,) = map(str, Path(folder).glob("*.whl"))
        runs: list[tuple[list[str], str | None]] = [(arguments, None) for arguments in asked]
        runs += [(asked[-1], python) for python in pythons((ROOT / "pyproject.toml").read_text())]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda run: resolve(pip, wheel, *run), runs))
    for sound, line in results:
        print("resolved" if sound else "CANNOT BE RESOLVED", line)
    return int(not all(sound for sound, _ in results))


if __name__ == "__main__":
    raise SystemExit(main())
