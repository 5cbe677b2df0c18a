"""How near the compiled terms come to the exact ones, on ordinary and on hard operands, with approximate
units as wrong as documented.

    python -m tests.compiled.maths

Prints a table, and exits with 1 if a term is farther off than it may be.
"""

from __future__ import annotations

import sys

import torch
import triton
import triton.language as tl
from torch import Tensor

from simota_triton.kernels import maths
from simota_triton.kernels.aligned_maths import arctangent
from simota_triton.kernels.host import OPTIONS

from .backends import gpu
from .emulator import Settings
from .engine import APPROXIMATIONS

N = 1 << 14
BLOCK = 1024

MOST = {
    "fraction": 1.0,
    "root": 1.0,
    "arctangent": 2.0,
    "sigmoid": 5.0,
    "softplus": 1.0,
    "minus_log_of_rest": 1e-6,
}
"""The error that each may have: fractions, roots and angles in float32 numbers between it and the nearest one
(0 is correctly rounded), sigmoid in max(1, |x|) ulp, softplus in 2^-20 max(1, |x|), the logarithm relative.
"""


@triton.jit
def terms(a, b, out, N: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x, y = tl.load(a + i), tl.load(b + i)
    tl.store(out + i, maths.fraction(x, y, True))
    tl.store(out + N + i, maths.root(x, True))
    tl.store(out + 2 * N + i, maths.minus_log_of_rest(x, True))
    softplus, _ = maths.softplus_and_sigmoid(y, True)
    tl.store(out + 3 * N + i, softplus)
    tl.store(out + 4 * N + i, maths.sigmoid(y, True))
    tl.store(out + 5 * N + i, arctangent(x, y, True))
    tl.store(out + 6 * N + i, arctangent(y, x, True))


def operands(kind: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of a kind, with a <= b but for "probabilities", where a is one and b a logit."""

    def uniform() -> Tensor:
        return torch.rand(N, generator=generator)

    if kind == "ious":
        b = uniform() * 1e5 + 1e-3
        return (b * uniform()).minimum(b), b
    if kind == "exponents":
        b = torch.exp2(torch.randint(-90, 120, (N,), generator=generator).float()) * (1 + uniform())
        return (b * torch.exp2(-20 * uniform() ** 3)).minimum(b), b
    if kind == "near one":
        b = uniform() * 1e4 + 1
        steps = torch.randint(0, 4, (N,), generator=generator).int()
        return (b.view(torch.int32) - steps).view(torch.float32), b
    if (
        kind == "hardest"
    ):  # a / b = m / 2^25 - k / (b 2^25), m odd: as near to the middle of two numbers as quotients come
        k = torch.tensor([1, -1, 3, -3, 5, -5, 7, -7])[torch.randint(0, 8, (64 * N,), generator=generator)]
        m = torch.randint(2**24, 2**25, (64 * N,), generator=generator) | 1
        inverse = m.clone()
        for _ in range(5):
            inverse = inverse * (2 - m * inverse) % 2**25
        b = k * inverse % 2**25
        a = (m * b - k) // 2**25
        good = (b >= 2**23) & (b < 2**24) & (a > 0)
        return a[good][:N].float(), b[good][:N].float()
    probability = torch.exp2(-75 * uniform() ** 2) * uniform()
    return probability.clamp(max=1.0), (uniform() - 0.5) * 60


KINDS = ("ious", "exponents", "near one", "hardest", "probabilities")


def errors(kind: str, approximation: str, capability: int = 90) -> dict[str, float]:
    """Term -> its largest error, see ``MOST``."""
    a, b = operands(kind, torch.Generator().manual_seed(KINDS.index(kind)))
    out = torch.zeros(7, N)
    with gpu(
        capability, Settings(approximation=approximation, order="forward", quantum=1000, races=False)
    ) as emulator:
        terms[(N // BLOCK,)](a, b, out, N=N, BLOCK=BLOCK, num_warps=4, **OPTIONS)
    assert not emulator.findings, emulator.summary()

    def steps(found: Tensor, exact: Tensor) -> float:
        return float((found.view(torch.int32).long() - exact.float().view(torch.int32)).abs().max())

    fraction, root, rest, softplus, sigmoid, flat, steep = out
    if kind != "probabilities":
        quotient = steps(fraction, a.double() / b.double())
        angles = torch.atan2(a.double(), b.double()), torch.atan2(b.double(), a.double())
        return {
            "arctangent": max(steps(flat, angles[0]), steps(steep, angles[1])),
            "fraction": quotient
            if bool((fraction[a == b] == 1.0).all()) and bool((fraction <= 1.0).all())
            else float("inf"),
        }
    logit, inside = b.double(), (a > 1e-30) & (a < 1)
    size = logit.abs().clamp(min=1)
    exact_rest, exact = -torch.log1p(-a[inside].double()), logit.sigmoid()
    return {
        "root": steps(root, a.double().sqrt()),
        "minus_log_of_rest": float(((rest[inside] - exact_rest) / exact_rest).abs().max()),
        "softplus": float(((softplus - torch.nn.functional.softplus(logit)).abs() / size).max() * 2**20),
        "sigmoid": float(((sigmoid - exact).abs() / torch.exp2(exact.log2().floor() - 23) / size).max()),
    }


def main() -> int:
    """Prints what is found; returns the exit code."""
    wrong = 0
    for kind in KINDS:
        for approximation in APPROXIMATIONS:
            found = errors(kind, approximation)
            wrong += sum(error > MOST[term] for term, error in found.items())
            print(
                f"{kind:14} {approximation:8} "
                f"{', '.join(f'{term} {error:.3g}' for term, error in found.items())}"
            )
    print(f"the terms as compiled: {wrong} farther off than they may be")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
