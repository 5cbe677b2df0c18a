"""YOLOX: Megvii's yolox 0.3 and pixeltable-yolox 0.4.

``get_losses`` of the head assigns image by image and empties the CUDA cache after each; where memory runs out
it goes on on the CPU. Here it assigns the batch in one call. Losses and ``num_fg`` are the head's.

Call ``patch()`` before ``launch``: the ranks that it spawns inherit it, as all Python processes do that are
started later. A patched class of your own, ``patch(head)``, they do not inherit: let it stand at the top
level of a module that each rank imports, such as your Exp file. ``simota-triton run --patch yolox -- python
train.py`` needs no line of code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .patching import Package, Patch, Replacement
from .yolox_family import BYPASSED, padded_losses, preset_of

PACKAGE = Package(
    "yolox",
    {"pixeltable-yolox": ("0.4",), "yolox": ("0.3",)},
    "pip install pixeltable-yolox==0.4.3, or pip install yolox==0.3.0",
)
_PATCH = Patch(PACKAGE)


def patch(head: type | None = None) -> Patch:
    """Make YOLOX's head assign the batch in one call.

    Args:
        head: The head's class, for forks that carry a copy of it, patched in this process alone. None: the
            installed package's, which processes started from here patch too.

    Returns:
        The patch, which is also a context manager that undoes it.

    Raises:
        ImportError: yolox is missing or of another version.
        AttributeError, TypeError: The head is not laid out as expected; names the attribute. A subclass that
            overrides ``get_assignments``, or what that calls, is refused when it computes its losses.

    Example:
        >>> import simota_triton.integrations.yolox
        >>> simota_triton.integrations.yolox.patch()  # doctest: +SKIP
    """
    installed = head is None
    if head is None:
        module = PACKAGE.load("yolox.models.yolo_head")
        head = PACKAGE.attribute(module, "YoloxHead" if hasattr(module, "YoloxHead") else "YOLOXHead")
    preset = preset_of(PACKAGE, head)
    return _PATCH.apply(
        [Replacement(head, "get_losses", _get_losses(preset), preset, BYPASSED)], in_children=installed
    )


def unpatch() -> None:
    """Put the heads back as they were."""
    _PATCH.undo()


def is_patched() -> bool:
    """Whether the heads of this process assign by simota_triton."""
    return _PATCH.applied


def calls() -> dict[str, int]:
    """How often each patched function was called in this process, by its name."""
    return dict(_PATCH.calls)


def _get_losses(preset: str) -> Callable[..., Any]:
    def get_losses(
        self: Any,
        imgs: Any,
        x_shifts: Any,
        y_shifts: Any,
        expanded_strides: Any,
        labels: Tensor,
        outputs: Tensor,
        origin_preds: Any,
        dtype: Any,
    ) -> tuple[Any, ...]:
        """Total, 5 * IoU, objectness, class and L1 loss, and positives per gt."""
        shifts = x_shifts, y_shifts, expanded_strides
        return padded_losses(self, preset, shifts, labels, outputs, origin_preds, lambda count: max(count, 1))

    return get_losses
