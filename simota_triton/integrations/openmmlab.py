"""What the integrations of OpenMMLab's packages share."""

from __future__ import annotations

from typing import Any


def check_iou_calculator(iou_calculator: Any) -> None:
    """Refuse IoUs that are not those of axis-aligned boxes in float32.

    Raises:
        ValueError: It names the calculator and what works.
    """
    options = dict(iou_calculator) if isinstance(iou_calculator, dict) else {"type": iou_calculator}
    kind = options.get("type")
    name = getattr(kind, "__name__", kind)
    if (
        not isinstance(name, str)
        or name.removeprefix("mmdet.") != "BboxOverlaps2D"
        or options.get("dtype") is not None
    ):
        raise ValueError(
            "iou_calculator: expected BboxOverlaps2D without a dtype (axis-aligned boxes, float32), "
            f"got {iou_calculator!r}; for other boxes keep the original assigner and do not import "
            "simota_triton.integrations"
        )
