"""Compares two records of the same measurements: what changed by more than noise?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from .machine import machine_class

Key = tuple[str, str]
"""(workload, case)"""


class Change(NamedTuple):
    """One case that both records have.

    Attributes:
        workload: Name of the batch.
        case: Name of what was measured.
        before_ms: Median time in the first record.
        after_ms: Median time in the second record.
        beyond_noise: Whether the middle halves of the two series of times do not overlap.
        before_mb: Peak memory in the first record, None where it was not measured.
        after_mb: Peak memory in the second record.
    """

    workload: str
    case: str
    before_ms: float
    after_ms: float
    beyond_noise: bool
    before_mb: float | None
    after_mb: float | None

    @property
    def ratio(self) -> float:
        """Time after over time before."""
        return self.after_ms / self.before_ms


def read_record(path: Path) -> dict[str, Any]:
    """Read a record of ``simota-triton bench``. If it is one of a curve (``--plot``), each point of the curve
    is taken as a workload.

    Raises:
        ValueError: The file is no such record; the message names it.
        OSError: The file cannot be read.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for row in record["rows"]:
            if "axis" in record:
                row["workload"] = f"{record['axis']} = {row['value']}"
            low, high = row["quartiles_ms"]
            if not 0 < low <= row["median_ms"] <= high or not isinstance(row["workload"] + row["case"], str):
                raise ValueError(f"a row is out of order: {row}")
        machine_class(record["machine"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no record of simota-triton bench ({what})") from error
    return dict(record)


def changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[Change], list[Key], list[Key]]:
    """The cases that both records have, those that only the first has, and those that only the second has."""
    first, second = (
        {(row["workload"], row["case"]): row for row in record["rows"]} for record in (before, after)
    )
    both = []
    for key in first:
        if key in second:
            old, new = first[key], second[key]
            (old_low, old_high), (new_low, new_high) = old["quartiles_ms"], new["quartiles_ms"]
            apart = old_high < new_low or new_high < old_low
            medians = old["median_ms"], new["median_ms"]
            both.append(Change(*key, *medians, apart, old.get("peak_mb"), new.get("peak_mb")))
    return both, [key for key in first if key not in second], [key for key in second if key not in first]
