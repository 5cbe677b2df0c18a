"""Does the emulator compute what Triton means, and does it find what is wrong? Small kernels, right and
wrong, and PTX with its barriers taken out.

    python -m tests.compiled.selftest
"""

from __future__ import annotations

import re
import sys
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from simota_triton.config import SimOTAConfig
from simota_triton.tuning.kernel_config import KernelConfig
from simota_triton.verification.scenes import make_scene

from .backends import answer, gpu, packed, unexpected
from .emulator import Emulator, Settings


@triton.jit
def reduce_rows(x, total, largest, where, order, running, N: tl.constexpr, M: tl.constexpr):
    row = tl.program_id(0) * N + tl.arange(0, N)
    column = tl.arange(0, M)
    v = tl.load(x + row[:, None] * M + column[None, :])
    tl.store(total + row, tl.sum(v, 1))
    tl.store(largest + row, tl.max(v, 1))
    tl.store(where + row, tl.argmax(v, 1))
    tl.store(order + row[:, None] * M + column[None, :], tl.sort(v, 1))
    tl.store(running + row[:, None] * M + column[None, :], tl.cumsum(v, 1))


@triton.jit
def transpose(x, out, N: tl.constexpr):
    i, j = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    v = tl.load(x + i * N + j)
    tl.store(out + i * N + j, tl.trans(v))


@triton.jit
def integers(a, b, out, N: tl.constexpr):
    i = tl.arange(0, N)
    x, y = tl.load(a + i), tl.load(b + i)
    tl.store(out + i, x // y)
    tl.store(out + N + i, x % y)
    tl.store(out + 2 * N + i, (x >> 3) ^ (y << 2))
    tl.store(out + 3 * N + i, ((x.to(tl.int64) * y.to(tl.int64)) >> 16).to(tl.int32))
    tl.store(out + 4 * N + i, x.to(tl.float32).to(tl.int32, bitcast=True))
    tl.store(out + 5 * N + i, (x.to(tl.float32) / 3.0).to(tl.int32))
    tl.store(out + 6 * N + i, tl.minimum(x, y) * (x > y).to(tl.int32) + tl.abs(x))
    tl.store(out + 7 * N + i, ((x.to(tl.uint32) % 7) * 5 + x.to(tl.uint32) // 9).to(tl.int32))


@triton.jit
def count(bins, old, x, n, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    v = tl.load(x + i, mask=i < n, other=0)
    tl.store(old + i, tl.atomic_add(bins + v, 1, mask=i < n), mask=i < n)


@triton.jit
def no_mask(x, out, N: tl.constexpr):
    i = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + i, tl.load(x + i) + 1)


@triton.jit
def everybody(out, N: tl.constexpr):
    tl.store(out + tl.arange(0, N), tl.program_id(0))


@triton.jit
def uses_unwritten(x, out):
    if tl.load(x) > 0:
        tl.store(out, 1)
    else:
        tl.store(out, 2)


@triton.jit
def reads_unwritten_but_drops(x, out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    v = tl.load(x + i)
    tl.store(out + i, tl.where(i < n, v, 0.0))


@triton.jit
def handshake(flag, out):
    if tl.program_id(0) == 0:
        while tl.atomic_add(flag, 0) == 0:  # needs a program that comes later
            pass
        tl.store(out, 1)
    else:
        tl.atomic_add(flag, 1)


class Checks:
    """What was expected, and whether it came."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []

    def __call__(self, what: str, good: bool, note: object = "") -> None:
        if good:
            self.passed += 1
        else:
            self.failed.append(f"{what}: {note}")


def kinds(emulator: Emulator) -> set[str]:
    """Of its findings."""
    return {finding.kind for finding in emulator.findings.values()}


def rows_of(x: Tensor, warps: int) -> list[Tensor]:
    """Sums, maxima, where they are, sorted rows and running sums, by the kernel."""
    results = [
        torch.zeros(32),
        torch.zeros(32),
        torch.zeros(32, dtype=torch.int32),
        torch.zeros_like(x),
        torch.zeros_like(x),
    ]
    reduce_rows[(2,)](x, *results, 16, 64, num_warps=warps)
    return results


def check_arithmetic(check: Checks, capability: int) -> None:
    """Reductions, sorts, scans and transposes in one warp and in several."""
    for warps in (1, 4, 8):
        for lanes in ("converge", "scatter"):
            x, square, back = torch.randn(32, 64), torch.randn(64, 64), torch.zeros(64, 64)
            with Emulator(capability, Settings(seed=warps, lanes=lanes)) as emulator:
                total, largest, where, order, running = rows_of(x, warps)
                transpose[(1,)](square, back, 64, num_warps=warps)
            what = f"sm_{capability}, {warps} warps, {lanes}"
            check(f"{what}: sums", torch.allclose(total, x.sum(1), atol=1e-4))
            check(
                f"{what}: maxima", torch.equal(largest, x.amax(1)) and torch.equal(where.long(), x.argmax(1))
            )
            check(f"{what}: sorted", torch.equal(order, x.sort(1)[0]))
            check(f"{what}: running sums", torch.allclose(running, x.cumsum(1), atol=1e-4))
            check(f"{what}: transposed", torch.equal(back, square.T))
            serious = [str(f) for f in emulator.findings.values() if f.count != f.same]
            check(f"{what}: no findings", not serious, serious)


def check_integers(check: Checks, capability: int) -> None:
    """Integer instructions and conversions."""
    a = torch.randint(-(2**31), 2**31 - 1, (1024,), dtype=torch.int32)
    b = torch.randint(1, 5000, (1024,), dtype=torch.int32) * torch.where(torch.rand(1024) < 0.5, -1, 1).int()
    out = torch.zeros(8 * 1024, dtype=torch.int32)
    with Emulator(capability):
        integers[(1,)](a, b, out, 1024)
    found = out.view(8, 1024)
    quotient = torch.div(a.double(), b.double(), rounding_mode="trunc").long()
    unsigned = a.long() & 0xFFFFFFFF
    check(
        "division",
        torch.equal(found[0].long(), quotient) and torch.equal(found[1].long(), a.long() - quotient * b),
    )
    check("shifts", torch.equal(found[2], (a >> 3) ^ (b << 2)))
    check("wide product", torch.equal(found[3], ((a.long() * b.long()) >> 16).int()))
    check("integer to float", torch.equal(found[4], a.float().view(torch.int32)))
    check("float to integer", bool(((found[5].long() - (a.float() / 3).long()).abs() <= 64).all()))
    check("minimum and absolute value", torch.equal(found[6], torch.minimum(a, b) * (a > b).int() + a.abs()))
    check("unsigned division", torch.equal(found[7], (unsigned % 7 * 5 + unsigned // 9).int()))


def check_findings(check: Checks, capability: int) -> None:
    """What is wrong is found, what is right is not."""
    values = torch.randint(0, 7, (1000,), dtype=torch.int32)
    bins, old = torch.zeros(7, dtype=torch.int32), torch.full((1000,), -1, dtype=torch.int32)
    with Emulator(capability, Settings(seed=5)) as emulator:
        count[(8,)](bins, old, values, 1000, 128, num_warps=2)
    once = all(sorted(old[values == k].tolist()) == list(range(int(bins[k]))) for k in range(7))
    check(
        "atomics hand out every number once",
        once and torch.equal(bins.long(), values.bincount(minlength=7)),
        bins,
    )
    check("nothing is found of them", not emulator.findings, emulator.summary())

    def found(
        what: str, kind: str | tuple[str, ...], launch: Any, settings: Settings | None = None, **fields: Any
    ) -> Emulator:
        with Emulator(capability, settings or Settings(), **fields) as emulator:
            launch()
        expected = {kind} if isinstance(kind, str) else set(kind)
        check(what, bool(kinds(emulator) & expected) if kind else not emulator.findings, emulator.summary())
        return emulator

    emulator = found(
        "out of bounds", "out of bounds", lambda: no_mask[(8,)](torch.zeros(1000), torch.zeros(1000), 128)
    )
    check(
        "each access out of bounds", {f.count for f in emulator.findings.values()} == {24}, emulator.summary()
    )
    gaps = torch.zeros(64)[::2]
    found("gaps of a view", "out of bounds", lambda: no_mask[(1,)](torch.zeros(32), gaps, 32, num_warps=1))
    found("races", "race", lambda: everybody[(4,)](torch.zeros(32, dtype=torch.int32), 32))
    here = {"launchers": (__name__,)}
    # Triton may select instead of branching
    unwritten = (
        "branch or guard on memory nobody wrote",
        "stores what nobody wrote",
    )
    found("unwritten memory", unwritten, lambda: uses_unwritten[(1,)](torch.empty(1), torch.zeros(1)), **here)
    found(
        "dropped values",
        "",
        lambda: reads_unwritten_but_drops[(1,)](torch.empty(32), torch.zeros(32), 0, 32),
        **here,
    )
    out = torch.zeros(1)
    side_by_side = Settings(order="forward", inflight=2, max_steps=100000)
    found(
        "programs that meet",
        "",
        lambda: handshake[(2,)](torch.zeros(1, dtype=torch.int32), out),
        side_by_side,
    )
    check("what they computed", out.item() == 1)
    one_by_one = Settings(order="forward", inflight=1, max_steps=100000)
    found(
        "a later one",
        "too many steps",
        lambda: handshake[(2,)](torch.zeros(1, dtype=torch.int32), out),
        one_by_one,
    )


def check_barriers(check: Checks, capability: int) -> None:
    """PTX without its barriers: what depends on them is found, and with them nothing is."""
    for warps, barrier in ((4, r"bar\.sync[^;]*;"), (1, r"bar\.warp\.sync[^;]*;")):
        for seed in range(4):
            settings, found = Settings(seed=seed, lanes="scatter"), []
            for transform in (None, lambda text, barrier=barrier: re.sub(barrier, "", text)):
                with Emulator(capability, settings, transform=transform) as emulator:
                    if warps == 4:
                        transpose[(1,)](torch.randn(64, 64), torch.zeros(64, 64), 64, num_warps=4)
                    else:
                        rows_of(torch.randn(32, 64), 1)
                found.append(
                    any(f.kind == "shared race" and f.same < f.count for f in emulator.findings.values())
                )
            check(f"a missing barrier, {warps} warps, seed {seed}", found == [False, True], found)


def check_barriers_of_the_project(check: Checks, capability: int) -> None:
    """The same of ``prior_pass`` in several warps, the only kernel that shares memory between them."""
    config, kernels = SimOTAConfig.rtmdet(), KernelConfig(prior_warps=4)
    problem = packed(config, *make_scene(1).inputs(config.score))
    found = []
    for transform in (None, lambda text: re.sub(r"bar\.sync[^;]*;", "", text)):
        with gpu(capability, Settings(lanes="scatter"), transform) as emulator:
            answer("triton", problem, config, kernels)
        found.append({(finding.kernel, finding.kind) for finding in unexpected(emulator.findings.values())})
    check(
        "a missing barrier of prior_pass", not found[0] and ("prior_pass", "shared race") in found[1], found
    )


def main() -> int:
    """Runs all checks; returns the exit code."""
    torch.manual_seed(0)
    check = Checks()
    for capability in (80, 90, 100):
        check_arithmetic(check, capability)
    check_integers(check, 90)
    check_findings(check, 90)
    check_barriers(check, 90)
    check_barriers_of_the_project(check, 90)
    print(*check.failed, sep="\n", end="\n" if check.failed else "")
    print(f"the emulator itself: {check.passed} checks passed, {len(check.failed)} failed")
    return bool(check.failed)


if __name__ == "__main__":
    sys.exit(main())
