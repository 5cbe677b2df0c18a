"""Peak memory of a call: what PyTorch's allocator is asked for at most beyond what it held before."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


def peak_bytes(call: Callable[[], object], device: torch.device | None = None) -> int:
    """Largest number of bytes that ``call`` has allocated at once, temporaries inside operators and compiled
    code included.

    On a GPU these are bytes as they are asked for: a block of the allocator may be up to a megabyte larger,
    depending on what was freed before.

    Args:
        call: What is measured.
        device: A GPU; None or another device: the CPU.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
        result = call()
        torch.cuda.synchronize(device)
        del result
        return int(torch.cuda.memory_stats(device)["requested_bytes.all.peak"] - before)
    # the profiler tells on stderr that it starts and stops, at every level below
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        result = call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = peak = 0
    for event in events:
        held += event.nbytes()
        peak = max(peak, held)
    del result
    return peak
