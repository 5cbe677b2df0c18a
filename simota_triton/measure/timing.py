"""Timers of single runs of a call: on the host's clock, or as a CUDA graph on the GPU's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

L2_BYTES = 1 << 28
"""Bytes that are overwritten to empty the L2 cache: more than that of any GPU."""

OVERWRITTEN = 8
"""How many times the L2 cache is overwritten before each replay. It keeps an H100 busy for about half a
millisecond, in which the host queues the graph.
"""


class Timer(Protocol):
    """Prepares calls, whose single runs can then be timed in any order."""

    def prepare(self, call: Callable[[], object]) -> Callable[[], float]:
        """A function that runs ``call`` once and returns the time in ms."""
        ...


class WallTimer:
    """Times by the host's clock, for calls that have finished when they return."""

    def prepare(self, call: Callable[[], object]) -> Callable[[], float]:
        call()

        def run() -> float:
            start = time.perf_counter()
            call()
            return (time.perf_counter() - start) * 1e3

        return run


class GraphTimer:
    """Captures a call as a CUDA graph and times its replays by the GPU's clock, each with an empty L2 cache.

    Overwriting the cache also keeps the GPU busy until the host has queued the replay and the events around
    it, so that the time between the events is the GPU's alone. All graphs share one pool of memory: the
    outputs of one are lost once another has run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.scratch = torch.empty(L2_BYTES, dtype=torch.uint8, device=device)

    def prepare(self, call: Callable[[], object]) -> Callable[[], float]:
        # A capture that fails leaves its own stream as the current one, so the present one is set explicitly.
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
                # PyTorch takes the pool of a failed capture to be in use, and refuses it to the next one.
                self.pool = torch.cuda.graph_pool_handle()
                raise
            graph.replay()  # the first replay uploads the graph

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
