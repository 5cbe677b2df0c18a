"""What the tests need of Triton's interpreter: about twice its speed, and an fma that rounds once in all of its versions."""

from __future__ import annotations

from typing import Any

import numpy as np


def prepare() -> None:
    """Without effect where Triton is missing, or has another interpreter than is known here."""
    try:
        from triton.runtime import interpreter
    except ImportError:
        return
    _look_once(interpreter)
    _fuse(interpreter)


def _fuse(interpreter: Any) -> None:
    """Up to Triton 3.6 an fma multiplies, rounds and adds: quotients are then not as a GPU rounds them."""
    compiled = getattr(interpreter, "_interpreter", None)
    if hasattr(compiled, "fma_fp32"):
        return

    def fma(_: Any, x: Any, y: Any, z: Any) -> Any:
        exact = np.multiply(x.data, y.data, dtype=np.float64) + z.data
        return interpreter.TensorHandle(exact.astype(z.data.dtype), z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = fma


def _look_once(interpreter: Any) -> None:
    """At every call of a device function it looks through all of ``triton.language`` for functions to replace by its own; they are
    replaced already, since the kernel was entered. Look once a kernel.
    """
    patch, scope_type = getattr(interpreter, "_patch_lang", None), getattr(interpreter, "_LangPatchScope", None)
    if patch is None or scope_type is None or getattr(patch, "once", False):
        return
    known: dict[str, set[str]] = {}
    nothing = scope_type()
    replaced: set[str] = set()  # spellings of triton.language whose functions are replaced in the kernel at hand

    def patch_once(function: Any) -> Any:
        module = function.__globals__["__name__"]
        if module not in known:
            values = function.__globals__.values()
            known[module] = {value.__name__ for value in values if getattr(value, "__package__", "") == "triton.language"}
        spellings = known[module]
        if replaced and spellings <= replaced:
            return nothing
        scope = patch(function)
        restore = scope.restore
        replaced.update(spellings)

        def leave() -> None:
            replaced.clear()
            restore()

        scope.restore = leave
        return scope

    patch_once.once = True
    interpreter._patch_lang = patch_once
