"""The environment variables of this package, all of them, read when they are needed."""

from __future__ import annotations

import os

VARIABLES = {
    "SIMOTA_TRITON_BACKEND": 'backend of every assigner built with backend="auto": '
    "auto, reference, torch, triton, triton-stream",
    "SIMOTA_TRITON_CONFIG_DIR": "folder of the configurations that simota-triton tune wrote; "
    "default: simota_triton in the cache folder",
    "SIMOTA_TRITON_CAPTURE": "file that assigners write some of their batches to, "
    "for simota-triton tune and bench",
    "SIMOTA_TRITON_PATCH": "packages that Python processes patch once they import them; "
    "simota-triton run and patch() set it",
}
"""Name -> what it sets."""


def backend() -> str:
    """SIMOTA_TRITON_BACKEND, "auto" where unset."""
    return os.environ.get("SIMOTA_TRITON_BACKEND", "auto") or "auto"


def config_dir() -> str:
    """SIMOTA_TRITON_CONFIG_DIR, empty where unset."""
    return os.environ.get("SIMOTA_TRITON_CONFIG_DIR", "")


def capture() -> str:
    """SIMOTA_TRITON_CAPTURE, empty where unset."""
    return os.environ.get("SIMOTA_TRITON_CAPTURE", "")


def patch() -> str:
    """SIMOTA_TRITON_PATCH, empty where unset."""
    return os.environ.get("SIMOTA_TRITON_PATCH", "")
