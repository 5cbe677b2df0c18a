"""The backends under the emulator, on CPU tensors, compiled and launched as on a GPU; and which findings are
meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from simota_triton import backends
from simota_triton.backends import triton_fused, triton_stream
from simota_triton.config import Config
from simota_triton.inputs import pack
from simota_triton.kernels.host import INTERPRETED
from simota_triton.kernels.races import RACES, Race
from simota_triton.matching import Matching
from simota_triton.problem import Problem
from simota_triton.tuning.families import FAMILIES

from .emulator import Emulator, Finding, Settings

BACKENDS = ("triton", "triton-stream")


@contextmanager
def gpu(
    capability: int, settings: Settings, transform: Callable[[str], str] | None = None
) -> Iterator[Emulator]:
    """The backends run as on a GPU of this capability, by PTX that ``transform`` may have changed."""
    if INTERPRETED:
        raise RuntimeError(
            "TRITON_INTERPRET: expected to be unset, since compiled kernels are executed; got 1; use a "
            "process of its own"
        )
    where = capability // 10, capability % 10

    def configuration(backend: str, device: Any, shape: Any) -> Any:
        return FAMILIES[backend].heuristic(where, shape)

    with ExitStack() as stack:
        for module in (triton_fused, triton_stream):
            stack.enter_context(mock.patch.object(module, "triton_refusal", return_value=None))
            stack.enter_context(mock.patch.object(module, "configuration", configuration))
        yield stack.enter_context(Emulator(capability, settings, transform=transform))


def packed(config: Config, args: Any, kwargs: Any) -> Problem:
    """A call's inputs as they are packed on a GPU: values are not looked at."""
    return pack(config, *args, **kwargs, validate=False)


def answer(backend: str, problem: Problem, config: Config, kernels: Any = None) -> Matching:
    """The matching with its labels."""
    matching = backends.assign(backend, problem, config, kernels)
    if matching.labels is not None:
        return matching
    return matching._replace(labels=labels_of(problem, matching.gt_index))


def labels_of(problem: Problem, gt_index: Tensor) -> Tensor:
    """The label of each prior's gt, C where it has none: [B, P] int64."""
    gts = problem.gts
    background = torch.full_like(gt_index, problem.shape[2])
    if not len(gts.labels):
        return background
    row = torch.where(gt_index >= 0, gts.offsets[:-1, None] + gt_index, 0)
    return torch.where(gt_index >= 0, gts.labels[row], background)


def differences(found: Matching, expected: Matching) -> dict[str, int]:
    """Field -> how many of its values are not the same."""
    wrong = {}
    for name, a, b in zip(Matching._fields, found, expected, strict=True):
        if a is not None or b is not None:
            wrong[name] = a.numel() if a.shape != b.shape else int((a != b).sum())
    return {name: count for name, count in wrong.items() if count}


def beyond_rounding(found: Matching, expected: Matching) -> dict[str, int]:
    """:func:`differences`, of floating values those alone that rounding does not explain."""
    near = found._asdict()
    for name, a in near.items():
        b = getattr(expected, name)
        if a is not None and a.is_floating_point() and a.shape == b.shape:
            near[name] = torch.where((a - b).abs() <= 1e-6 + 2e-5 * b.abs(), b, a)
    return differences(Matching(**near), expected)


def meant(finding: Finding) -> Race | None:
    """The entry of the table of races that a finding is an instance of, if any."""
    if (
        finding.kind != "race"
        or finding.between != "programs"
        or any(access.how == "atomic" for access in finding.accesses)
    ):
        return None
    writes = [access for access in finding.accesses if access.how == "write"]
    others = [access for access in finding.accesses if access.how == "read"] or writes[::-1]
    for race in RACES:
        if (race.kernel, race.tensor, race.other_writes) != (
            finding.kernel,
            finding.buffer,
            len(writes) == 2,
        ):
            continue
        if race.same_value and finding.same != finding.count:
            continue
        if any(
            (race.writer, race.other) == (w.function, o.function) for w, o in zip(writes, others, strict=True)
        ):
            return race
    return None


def harmless(finding: Finding) -> bool:
    """Whether threads of one program write the same value to one place, which is how Triton stores what
    several of them hold.
    """
    return (
        finding.between in ("warps", "lanes")
        and all(a.how == "write" for a in finding.accesses)
        and finding.same == finding.count
    )


def unexpected(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that no argument covers."""
    return [finding for finding in findings if not harmless(finding) and meant(finding) is None]
