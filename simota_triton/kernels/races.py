"""The races that are meant: programs of one launch that touch the same memory, at least one of them by a
plain write, in an order that nothing settles. Each stands here with the argument why it cannot change an
answer; any other is a fault. The tests execute the compiled kernels and hold every race that occurs to this
table.
"""

from __future__ import annotations

from typing import NamedTuple


class Race(NamedTuple):
    """Two accesses of different programs to one tensor.

    Attributes:
        kernel: The kernel that is launched.
        tensor: The parameter.
        writer: The function whose line writes.
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
    "Each gt that claims a prior writes its own value. Where there are two, the atomic of the second one "
    "on claims tells it to add the prior to the list of conflicts, and resolve, a later launch, "
    "overwrites all three outputs by its own rule. The gt_index that it starts from is any of the "
    "claimants, and is replaced: the pair whose cost was noted is among those that it looks at again."
)

_EVERY_SELECTOR = (
    "As of select, but that resolve_aligned reads matched_iou, which may be any claimant's overlap: all "
    "claimants may win, so each of their overlaps is a lower bound of the winner's, and what it rules out "
    "cannot win, whoever wrote it."
)

_UNREADABLE_BOX = (
    "class_sums takes the box of an unreadable prior away while programs of gts may load it, so their "
    "lists may hold that prior, or a box of which some corners are gone. It sets unreadable for the image "
    "too, and select, a later launch, forms the lists of such an image again, from boxes that nobody "
    "writes any more. No address follows from a box."
)

_SAME_FLAG = "Whoever writes, writes 1, and nobody reads it in this launch."

RACES = (
    Race("select", "gt_index_ptr", "_write_claims", "_write_claims", True, False, _EVERY_CLAIMANT),
    Race("select", "matched_iou_ptr", "_write_claims", "_write_claims", True, False, _EVERY_CLAIMANT),
    Race("select", "labels_ptr", "_write_claims", "_write_claims", True, False, _EVERY_CLAIMANT),
    Race("select_aligned", "gt_index_ptr", "_write_claims", "_write_claims", True, False, _EVERY_SELECTOR),
    Race("select_aligned", "matched_iou_ptr", "_write_claims", "_write_claims", True, False, _EVERY_SELECTOR),
    Race("select_aligned", "scores_ptr", "_write_claims", "_write_claims", True, False, _EVERY_SELECTOR),
    Race("sums_and_ious", "slots_ptr", "class_sums", "load_four", False, False, _UNREADABLE_BOX),
    Race("sums_and_ious", "unreadable_ptr", "class_sums", "class_sums", True, True, _SAME_FLAG),
)
"""All of them."""
