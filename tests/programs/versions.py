"""Both Triton backends under other Tritons than the installed one: every preset, in the interpreter.

``python -m tests.programs.versions`` installs each Triton of ``TRITONS`` into a folder of its own, behind
which everything else is as installed, and holds the backends there against the float64 definition. ``--here``
does the latter with what is installed: for environments with another torch. Exit code 1 if an answer is
unexplained.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

from simota_triton import backends
from simota_triton.verification.variants import SCENES, config_of
from tests.programs.fuzz import run

ROOT = Path(__file__).parents[2]
TRITONS = {"3.9.0": (), "3.6.0": ("numpy<2.4",)}
"""Version -> what has to be installed beside it. The newest, and the oldest whose interpreter runs all of the
kernels.
"""
BACKENDS = ("triton", "triton-stream")
SEEDS = {
    rule: {config_of(seed, rule).preset: seed for seed in reversed(range(0, 61 * 3 * len(families), 61))}
    for rule, families in SCENES.items()
}
"""Of each rule a scene of each preset, of several families."""


def install(folder: Path, triton: str) -> Path:
    """The folder of a Triton."""
    target = folder / triton
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(target),
        f"triton=={triton}",
        *TRITONS[triton],
    ]
    subprocess.run(command, check=True)
    return target


def there(task: tuple[str, str], folder: Path) -> tuple[bool, str]:
    """Whether a backend is right under a Triton, and what it printed."""
    triton, backend = task
    path = os.pathsep.join((str(ROOT), str(folder / triton)))
    environment = os.environ | {"PYTHONPATH": path, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs.versions", "--here", backend],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def here(backend: str) -> int:
    """Hold a backend to the definition with what is installed."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "triton", "numpy"))
    unexplained = 0
    for rule, all_seeds in SEEDS.items():
        seeds = [
            seed
            for seed in all_seeds.values()
            if config_of(seed, rule).variety in backends.BACKENDS[backend].load
        ]
        if not seeds:
            continue
        total, complaints = run(seeds, backend, rule=rule)
        print(*complaints[:5], sep="\n", end="\n" if complaints else "")
        found = ", ".join(f"{number} {name}" for name, number in total.items())
        print(f"{versions}: {backend}: {len(seeds)} presets of {rule}, {found}")
        unexplained += total["unexplained"]
    return int(unexplained > 0)


def main() -> int:
    """Install and run, two at a time."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs.versions", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "tritons", nargs="*", metavar="VERSION", help=f"of {', '.join(TRITONS)}; default: all"
    )
    parser.add_argument(
        "--here",
        choices=("torch", *BACKENDS),
        metavar="BACKEND",
        help="this backend, with the Triton that is installed",
    )
    options = parser.parse_args()
    if options.here:
        return here(options.here)
    tritons = options.tritons or list(TRITONS)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(install, Path(folder)), tritons))
        results = list(
            pool.map(
                partial(there, folder=Path(folder)),
                [(triton, backend) for triton in tritons for backend in BACKENDS],
            )
        )
    print(*(text for _, text in results), sep="\n")
    return int(not all(sound for sound, _ in results))


if __name__ == "__main__":
    raise SystemExit(main())
