"""Timers: one run of a call in ms, on the host's clock or on the GPU's as a replayed graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

L2_BYTES = 1 << 28
"""More than any GPU's L2 cache."""

OVERWRITTEN = 8
"""Times that the cache is overwritten before a replay: about half a millisecond of an H100, which the host
needs to queue a graph.
"""


class Timer(Protocol):
    """Prepares calls so that single runs can be timed, in any order."""

    def prepare(self, call: Callable[[], object]) -> Callable[[], float]:
        """A function that runs ``call`` once and returns ms."""
        ...


class WallTimer:
    """The host's clock, for calls that are done when they return."""

    def prepare(self, call: Callable[[], object]) -> Callable[[], float]:
        call()

        def run() -> float:
            start = time.perf_counter()
            call()
            return (time.perf_counter() - start) * 1e3

        return run


class GraphTimer:
    """Replays of a CUDA graph of the call, with the L2 cache overwritten before each.

    The overwriting is queued as often as it takes to keep the GPU busy until the host has queued the replay
    and both events, so that what lies between them is the GPU's time alone. Graphs share one pool of memory:
    none of them is to be read after another ran.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.scratch = torch.empty(L2_BYTES, dtype=torch.uint8, device=device)

    def prepare(self, call: Callable[[], object]) -> Callable[[], float]:
        # the current stream by name, because a capture that fails leaves its own in its place
        with torch.cuda.device(self.device), torch.cuda.stream(torch.cuda.current_stream(self.device)):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                call()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self.pool):
                    call()
            except BaseException:
                # no other capture may use the old one, which PyTorch takes to be in use
                self.pool = torch.cuda.graph_pool_handle()
                raise
            graph.replay()  # the first one uploads it

        def run() -> float:
            with torch.cuda.device(self.device):
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                for _ in range(OVERWRITTEN):
                    self.scratch.zero_()
                start.record()
                graph.replay()
                end.record()
                end.synchronize()
                return float(start.elapsed_time(end))

        return run
