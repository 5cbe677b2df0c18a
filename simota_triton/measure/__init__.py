"""Workloads, timers and records of measurements. Nothing that assigns imports it."""
