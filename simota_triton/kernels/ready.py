"""What Triton does once in a process before its first launch, whatever the arguments. Done ahead, it is no
part of a trainer's first step.
"""

from __future__ import annotations

import contextlib
import importlib
from types import ModuleType

from triton import JITFunction


def make_ready(module: ModuleType) -> None:
    """Let Triton do ahead what needs neither a GPU nor arguments.

    It hashes itself, a library of some 100 MB (0.25 s), and the kernels of the module (0.04 s), both for the
    names of binaries in its cache, and it imports what it looks for among arguments (0.05 s). The first is a
    function that versions of Triton keep in one place or another.

    Args:
        module: One that holds kernels.
    """
    # in Triton's interpreter there are none
    kernels = [value for value in vars(module).values() if isinstance(value, JITFunction)]
    if not kernels:
        return
    for name in ("triton.runtime.cache", "triton.compiler.compiler"):
        hash_of_triton = getattr(importlib.import_module(name), "triton_key", None)
        if hash_of_triton is not None:
            hash_of_triton()
    with contextlib.suppress(ImportError):
        importlib.import_module("triton.experimental.gluon")
    for kernel in kernels:
        kernel.cache_key  # noqa: B018 - a property that keeps what it computes
