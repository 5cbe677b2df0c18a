"""Makes Triton's interpreter about twice as fast on kernels that call device functions.

It looks through all of ``triton.language`` at every such call, for functions to replace by its own; they are replaced already,
since the kernel was entered.
"""

from __future__ import annotations

from typing import Any


def speed_up() -> None:
    """Look once a kernel. Without effect where Triton is missing, or has another interpreter than is known here."""
    try:
        from triton.runtime import interpreter
    except ImportError:
        return

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
