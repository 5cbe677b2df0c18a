"""What the tests need of Triton's interpreter: about twice its speed, an fma that rounds once in all of its
versions, and a memory of what it computed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

QUICK = ("reference", "torch")
"""Backends that take any number of scenes. The others run in Triton's interpreter where there is no GPU: a
second a scene.
"""

SMALL = (69, 140)
"""Seeds of scenes for those."""


def prepare() -> None:
    """Without effect where Triton is missing, or has another interpreter than is known here."""
    try:
        from triton.runtime import interpreter
    except ImportError:
        return
    _look_once(interpreter)
    _fuse(interpreter)
    _refuse_constants_on_the_left()
    _skip_what_cannot_run(interpreter)


def _skip_what_cannot_run(interpreter: Any) -> None:
    """The interpreter of Triton 3.3 has no variables of type int1 across branches, which all streaming
    kernels but ``prepare`` need.
    """
    if hasattr(interpreter.InterpreterBuilder, "get_int1_ty"):
        return
    import pytest
    import triton

    def skip(_: Any) -> Any:
        pytest.skip(
            f"the interpreter of Triton {triton.__version__} cannot run this kernel: it has no int1 across "
            "branches"
        )

    interpreter.InterpreterBuilder.get_int1_ty = skip


def _refuse_constants_on_the_left() -> None:
    """A constant times a tensor is a constant that holds a tensor, on which some functions fail under Triton
    3.7 and 3.8.
    """
    import triton.language as tl

    def guarded(name: str) -> Any:
        operator = getattr(tl.constexpr, name)

        def apply(self: Any, other: Any) -> Any:
            if isinstance(other, tl.tensor):
                raise TypeError(f"{self}.{name}(tensor): write the tensor on the left")
            return operator(self, other)

        return apply

    for name in (
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "and",
        "or",
        "xor",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
    ):
        setattr(tl.constexpr, f"__{name}__", guarded(f"__{name}__"))


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
    """At every call of a device function it looks through all of ``triton.language`` for functions to replace
    by its own; they are replaced already, since the kernel was entered. Look once a kernel.
    """
    patch, scope_type = (
        getattr(interpreter, "_patch_lang", None),
        getattr(interpreter, "_LangPatchScope", None),
    )
    if patch is None or scope_type is None or getattr(patch, "once", False):
        return
    known: dict[str, set[str]] = {}
    nothing = scope_type()
    # spellings of triton.language whose functions are replaced in the kernel at hand
    replaced: set[str] = set()

    def patch_once(function: Any) -> Any:
        module = function.__globals__["__name__"]
        if module not in known:
            values = function.__globals__.values()
            known[module] = {
                value.__name__ for value in values if getattr(value, "__package__", "") == "triton.language"
            }
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


@contextmanager
def remembering() -> Iterator[Counter[str]]:
    """In its block a launch that has been computed before - the same kernel, grid and arguments, every byte
    of every tensor - gets the tensors that it left then: what the interpreter computes is a function of these
    alone. Arguments that kernels do not have, such as the number of warps, do not count. Yields the numbers
    of "launches" and of those that were "computed".

    Memory that nothing has written has to hold the same bytes each time, as under
    ``torch.use_deterministic_algorithms``.
    """
    from triton.runtime.interpreter import GridExecutor

    compute = GridExecutor.__call__
    left: dict[Any, list[tuple[int, Tensor]]] = {}
    counts = Counter(launches=0, computed=0)

    def recall(self: Any, *args: Any, **kwargs: Any) -> None:
        leaves = list(_leaves((args, [(name, kwargs[name]) for name in self.arg_names if name in kwargs])))
        before = list(map(_identity, leaves))
        key = self.fn.__name__, self.grid, tuple(before)
        counts["launches"] += 1
        if key not in left:
            counts["computed"] += 1
            compute(self, *args, **kwargs)
            changed = [
                i
                for i, leaf in enumerate(leaves)
                if isinstance(leaf, Tensor) and _identity(leaf) != before[i]
            ]
            left[key] = [(i, leaves[i].clone()) for i in changed]
        for i, value in left[key]:
            leaves[i].copy_(value)

    GridExecutor.__call__ = recall
    try:
        yield counts
    finally:
        GridExecutor.__call__ = compute


def _leaves(value: Any) -> Iterator[Any]:
    """What nested tuples and lists hold, with their lengths, which tell how they nest."""
    if isinstance(value, (tuple, list)):
        yield len(value)
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _identity(value: Any) -> Any:
    """Equal for equal values of one type, and for tensors that hold the same bytes in the same places."""
    if isinstance(value, Tensor):
        content = value.contiguous().view(-1).view(torch.uint8).numpy()
        return value.dtype, value.shape, value.stride(), hashlib.sha256(content).digest()
    return type(value), value
