"""Peak memory of a call: how much more memory PyTorch's allocator holds during the call than before it."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


def peak_bytes(call: Callable[[], object], device: torch.device | None = None) -> int:
    """The largest number of bytes that ``call`` has allocated at one time, including temporaries inside of
    operators and of compiled code.

    On a GPU these are the bytes that are asked for. The allocator's blocks may be up to a megabyte larger,
    depending on what was freed before.

    Args:
        call: The call to measure.
        device: The GPU that it allocates on. None, or another device: the CPU.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
        result = call()
        torch.cuda.synchronize(device)
        del result
        return int(torch.cuda.memory_stats(device)["requested_bytes.all.peak"] - before)
    # at every lower level the profiler prints on stderr that it starts and stops
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
