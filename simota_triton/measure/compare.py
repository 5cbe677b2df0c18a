"""Two records of the same measurements: what changed beyond noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from .machine import machine_class

Key = tuple[str, str]
"""Workload and case."""


class Change(NamedTuple):
    """One case in both records.

    Attributes:
        workload: Its batch.
        case: What was measured.
        before_ms: Median.
        after_ms: Median.
        beyond_noise: The middle halves of the timings do not overlap.
        before_mb: Peak memory, None where it was not measured.
        after_mb: The same.
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
    """A record that ``simota-triton bench`` wrote; the points of a curve (``--plot``) are its workloads.

    Raises:
        ValueError: It is none; the message names the file.
        OSError: It cannot be read.
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
    """The cases of both records, and those that only the first or only the second has."""
    first, second = (
        {(row["workload"], row["case"]): row for row in record["rows"]} for record in (before, after)
    )
    both = [
        Change(
            *key, old["median_ms"], new["median_ms"],
            old["quartiles_ms"][1] < new["quartiles_ms"][0] or new["quartiles_ms"][1] < old["quartiles_ms"][0],
            old.get("peak_mb"), new.get("peak_mb"),
        )
        for key, old in first.items()
        if (new := second.get(key)) is not None
    ]  # fmt: skip
    return both, [key for key in first if key not in second], [key for key in second if key not in first]
