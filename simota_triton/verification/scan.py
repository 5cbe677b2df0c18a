"""Many seeds for a while, in one process or several."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from .cases import Outcome, case_of, judged

T = TypeVar("T")


def check_seed(
    seed: int, backend: str, device: str, twin: str | None = None, rule: str = "simota"
) -> tuple[int, Outcome]:
    """The seed, and what the judge says of its call by an assigner of the rule."""
    return seed, judged(case_of(seed, rule).batch(), backend, torch.device(device), twin=twin)


def scan(
    check: Callable[[int], T], seeds: Iterator[int], workers: int = 1, seconds: float = float("inf")
) -> Iterator[T]:
    """What ``check`` gives for each seed, in order, until there are no more or time is up.

    Args:
        check: Can be pickled if there are several workers.
        seeds: May be endless if ``seconds`` is not.
        workers: Processes; 1: this one.
        seconds: After so many, no seed is begun; one is always.
    """
    end = time.monotonic() + seconds
    if workers == 1:
        for seed in seeds:
            yield check(seed)
            if time.monotonic() >= end:
                return
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread) as pool:
        begun: deque[Future[T]] = deque(pool.submit(check, seed) for seed in islice(seeds, 2 * workers))
        try:
            while begun:
                yield begun.popleft().result()
                if time.monotonic() < end:
                    begun.extend(pool.submit(check, seed) for seed in islice(seeds, 1))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    torch.set_num_threads(1)


def processes() -> int:
    """Processes that help: most of the time goes into compiling, or into a backend that computes on one
    thread.
    """
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
