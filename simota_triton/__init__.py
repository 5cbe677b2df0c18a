"""Label assignment for anchor-free detectors, SimOTA and the task-aligned rule: every public variant of each
from one configuration, batched and exact.

Modules and folders in layers, of which each imports only from those before it:

    version, quiet, waits, env, files, checks, config
    boxes, priors
    rotated
    problem, matching
    terms, masks, ground_truth
    inputs, result, tuning
    task_aligned
    reference, kernels, capture, atss
    backends
    op
    assigners
    measure, integrations
    verification
    cli

What is computed is told by ``config``, ``terms``, ``reference`` and ``matching``; ``inputs`` makes a
``problem`` of what came, ``backends`` assign it, ``assigners`` hand out the ``result``. ``tuning`` says how
fast, and changes no answer. What assigns never imports what measures, verifies or shows.
"""

from . import quiet  # noqa: F401 - before all that imports torch
from .assigners import SimOTAAssigner, TaskAlignedAssigner, assign
from .atss import atss_assign
from .boxes import box_ciou, box_giou, box_iou, convert_boxes
from .config import SimOTAConfig, TaskAlignedConfig
from .masks import mask_centers
from .matching import dynamic_k_matching
from .priors import grid_priors
from .result import AssignResult, AssignSummary, ImageAssignment
from .rotated import box_probiou
from .task_aligned.matching import topk_matching
from .version import __version__ as __version__

__all__ = [
    "AssignResult",
    "AssignSummary",
    "ImageAssignment",
    "SimOTAAssigner",
    "SimOTAConfig",
    "TaskAlignedAssigner",
    "TaskAlignedConfig",
    "assign",
    "atss_assign",
    "box_ciou",
    "box_giou",
    "box_iou",
    "box_probiou",
    "convert_boxes",
    "dynamic_k_matching",
    "grid_priors",
    "mask_centers",
    "topk_matching",
]
