"""The package's named workloads, and how many of their images are taken on a CPU."""

from simota_triton.measure.workloads import WORKLOADS, Batch, Workload, gt_counts, make_batch

__all__ = ["CPU_BATCH", "WORKLOADS", "Batch", "Workload", "gt_counts", "make_batch"]

CPU_BATCH = {"coco": 8, "mosaic": 8, "o365": 2}
"""Workload -> number of images on a CPU."""
