"""The races that are meant: programs of one launch that touch the same memory, at least one of them by a plain write, in an order
that nothing settles. Each stands here with the argument why it cannot change an answer; any other is a fault. The tests execute
the compiled kernels and hold every race that occurs to this table.
"""

from __future__ import annotations

from typing import NamedTuple


class Race(NamedTuple):
    """Two accesses of different programs to one tensor.

    Attributes:
        kernel: The kernel that is launched.
        tensor: The parameter.
        writer: The function whose line writes, or one that it was inlined into.
        other: The same of the other access.
        other_writes: Whether the other access writes as well, rather than reads.
        same_value: Whether both write the same value; whoever is later then finds it there.
        harmless: Why it cannot change an answer.
    """

    kernel: str
    tensor: str
    writer: str
    other: str
    other_writes: bool
    same_value: bool
    harmless: str


_EVERY_CLAIMANT = (
    "Each gt that claims a prior writes its own value. Where there are two, the second one's atomic on claims notes the prior as "
    "contested, and resolve, a later launch, overwrites all three outputs by its own rule. It reads gt_index before, where it needs "
    "any one of the claimants, and nothing of the other two."
)

RACES = (
    Race("select", "gt_index_ptr", "select", "select", True, False, _EVERY_CLAIMANT),
    Race("select", "matched_iou_ptr", "select", "select", True, False, _EVERY_CLAIMANT),
    Race("select", "labels_ptr", "select", "select", True, False, _EVERY_CLAIMANT),
    Race(
        "survey", "slots_ptr", "class_sums", "largest_ious", False, False,
        "class_sums takes the box of a prior that it loses away while programs of gts may read it, so a list may hold that prior, or "
        "a box of which some corners are gone. It writes lost for the image as well, and select, a later launch, forms the lists of "
        "such an image again from boxes that nobody writes any more. Whatever is read, no address follows from it.",
    ),
    Race("survey", "lost_ptr", "class_sums", "class_sums", True, True, "Whoever writes, writes 1; nobody reads it in this launch."),
)  # fmt: skip
"""All of them."""
