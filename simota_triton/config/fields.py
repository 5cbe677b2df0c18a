"""What the configurations of all rules have in common: frozen, checked, named after the preset they began
with.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

SCORES = ("logit", "sigmoid", "joint", "prob")
UNION_RULES = ("none", "add", "max")

MAX_TOPK = 32
"""Largest ``candidate_topk``, ``dynamic_k`` and ``topk``: the width of the lists a backend keeps for each
gt.
"""

FLOAT32_RANGE = (2.0**-126, (2 - 2.0**-23) * 2.0**127)
"""Smallest and largest normal float32: what is computed from the numbers of a configuration is float32."""

SomeConfig = TypeVar("SomeConfig", bound="Config")


@dataclass(frozen=True)
class Fields:
    """What the fields of a configuration may be.

    Attributes:
        choices: Names that a field may have as its value.
        non_negative: Numbers of 0 and above.
        positive: Numbers above 0.
        finite: Numbers of either sign.
        booleans: True or False.
        integers: Least and largest value of each.
        optional: Fields that may be None.
    """

    choices: Mapping[str, tuple[str, ...]]
    non_negative: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    finite: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    integers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config:
    """The mathematics of one variant of a rule. What it is of, a subclass says.

    Attributes:
        preset: Name of the preset this configuration started from; not part of its identity.
    """

    preset: str | None = field(default=None, compare=False)

    if TYPE_CHECKING:  # fields of every rule, each of which has its own place and default for them
        score: str = "sigmoid"
        prior_offset: float = 0.5

    rule: ClassVar[str]
    """Which definition it is of."""
    assigner: ClassVar[str]
    """The class that assigns by it, as messages name it."""
    checks: ClassVar[Fields]
    known_presets: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        known, checks = self.known_presets, self.checks
        if self.preset is not None and self.preset not in known:
            raise ValueError(f"preset: expected None or one of {listed(known)}, got {self.preset!r}")
        for name, choices in checks.choices.items():
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(
                    f"{name}: expected one of {listed(choices)}, got {value!r} of type {kind(value)}"
                )
            if value not in choices:
                raise ValueError(f"{name}: expected one of {listed(choices)}, got {value!r}")
        for name in (*checks.non_negative, *checks.positive, *checks.finite):
            if not self._is_left_out(name):
                object.__setattr__(self, name, self._checked_number(name))
        for name in checks.booleans:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        for name, (least, most) in checks.integers.items():
            value = getattr(self, name)
            if self._is_left_out(name):
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: expected an integer, got {value!r}")
            if not least <= value <= most:
                raise ValueError(f"{name}: expected {least} to {most}, got {value}")
        self._check_combinations()

    def _is_left_out(self, name: str) -> bool:
        return name in self.checks.optional and getattr(self, name) is None

    def _checked_number(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name}: expected a number, got {value!r} of type {kind(value)}")
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}")
        if value and not FLOAT32_RANGE[0] <= abs(value) <= FLOAT32_RANGE[1]:
            raise ValueError(
                f"{name}: expected 0 or a size that float32 holds, 1.2e-38 to 3.4e38, got {value}"
            )
        if name in self.checks.non_negative and value < 0:
            raise ValueError(f"{name}: expected a number >= 0, got {value}")
        if name in self.checks.positive and value <= 0:
            raise ValueError(f"{name}: expected a number > 0, got {value}")
        return float(value)

    def _check_combinations(self) -> None:
        """Refuse fields that contradict each other."""

    @property
    def boxes(self) -> str:
        """The format of all boxes: ``"xyxy"``, or ``"rotated"``, which is (cx, cy, w, h, angle)."""
        return "xyxy"

    @property
    def variety(self) -> str:
        """What a backend computes or does not: the rule, and the format of boxes that are not xyxy."""
        return self.rule if self.boxes == "xyxy" else f"{self.rule}_{self.boxes}"

    @property
    def asks_for_strides(self) -> bool:
        """Whether priors need strides, or may be points [P, 2]."""
        return True

    def replace(self: SomeConfig, **overrides: Any) -> SomeConfig:
        """A copy with some fields changed, validated again.

        Example:
            >>> from simota_triton import SimOTAConfig
            >>> SimOTAConfig.yolox().replace(center_radius=1.5).center_radius
            1.5
        """
        names = fields_of(type(self))
        unknown = sorted(set(overrides) - set(names))
        if unknown:
            raise TypeError(
                f"{unknown[0]}: no such field of {kind(self)}; known fields: {listed(names)}"
                f"{suggestion(unknown[0], names)}"
            )
        return dataclasses.replace(self, **overrides)

    @classmethod
    def from_preset(cls: type[SomeConfig], name: str, **overrides: Any) -> SomeConfig:
        """The preset called ``name``, with some fields changed. ``presets()`` lists the names."""
        known = cls.known_presets
        if not isinstance(name, str):
            raise TypeError(f"preset: expected a name, one of {listed(known)}, got {kind(name)}")
        if name not in known:
            for other in Config.__subclasses__():
                if name in other.known_presets:
                    raise ValueError(
                        f"preset: expected one of {listed(known)}, got {name!r}, a preset of "
                        f"{other.__name__}; use {other.assigner}({name!r})"
                    )
            raise ValueError(
                f"preset: expected one of {listed(known)}, got {name!r}{suggestion(name, known)}"
            )
        config: SomeConfig = getattr(cls, name)(**overrides)
        return config

    @classmethod
    def presets(cls) -> tuple[str, ...]:
        """Names of all presets."""
        return cls.known_presets

    @classmethod
    def _preset(cls: type[SomeConfig], name: str, overrides: dict[str, Any], **fields: Any) -> SomeConfig:
        return cls(**fields, preset=name).replace(**overrides)

    def __repr__(self) -> str:
        base = type(self)() if self.preset is None else self.from_preset(self.preset)
        changed = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in fields_of(type(self))
            if getattr(self, name) != getattr(base, name)
        )
        return f"{kind(self)}{'.' + self.preset if self.preset else ''}({changed})"


def fields_of(config: type[Config]) -> tuple[str, ...]:
    """Names of the fields that say what is computed."""
    return tuple(entry.name for entry in dataclasses.fields(config) if entry.name != "preset")


def nearest(name: str, names: tuple[str, ...]) -> str | None:
    """The known name that an unknown one is most like.

    Example:
        >>> nearest("topk", ("candidate_topk", "center_radius"))
        'candidate_topk'
    """
    plain = {known.replace("_", "").replace("-", ""): known for known in names}
    wanted = name.lower().replace("_", "").replace("-", "")
    found = difflib.get_close_matches(wanted, plain, 1) or [
        key for key in plain if len(wanted) > 2 and wanted in key
    ]
    return plain[found[0]] if found else None


def suggestion(name: str, names: tuple[str, ...]) -> str:
    """The question whether :func:`nearest` was meant, as the end of a message."""
    near = nearest(name, names)
    return f"; did you mean {near!r}?" if near else ""


def listed(names: tuple[str, ...]) -> str:
    """Names as a message lists them."""
    return ", ".join(repr(name) for name in names)


def kind(value: object) -> str:
    """The type of a value, by name."""
    return type(value).__name__
