"""The streaming backend for NVIDIA GPUs: a handful of Triton kernels that never write a matrix over (gt,
prior) pairs.

Every pair that could matter is looked at, and no other: see ``kernels.stream``. Nothing waits for the host,
whatever the form of the gts. Assignments of SimOTA are those of backend "triton" to the bit.
"""

from __future__ import annotations

from ..config import SimOTAConfig, TaskAlignedConfig
from ..matching import Matching
from ..problem import Problem
from ..tuning.choice import configuration
from ..tuning.kernel_config import Shape
from ..tuning.stream_config import StreamConfig
from . import triton_refusal


def assign(
    problem: Problem, config: SimOTAConfig | TaskAlignedConfig, kernels: StreamConfig | None = None
) -> Matching:
    """The assignment of a batch, labels among it; see the module.

    Args:
        problem: The batch.
        config: The configuration.
        kernels: Launch parameters; None: those that ``tuning.choice`` picks for the GPU and the shape.

    Raises:
        RuntimeError: The kernels cannot run here; the message says why.
        torch.OutOfMemoryError: The scratch memory does not fit; the message says how much is needed.
    """
    device = problem.priors.device
    refusal = triton_refusal(device)
    if refusal is not None:
        raise RuntimeError(f"backend: 'triton-stream' cannot run on {device}: {refusal}; use backend='torch'")
    from ..kernels.stream import launch as stream

    if kernels is None:
        batch, num_priors, _ = problem.shape
        kernels = configuration("triton-stream", device, Shape(batch, num_priors, problem.gts.boxes.shape[0]))
    return stream.run(problem, config, kernels)
