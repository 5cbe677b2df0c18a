"""Workloads, timers, memory, records, machine code: all that measures. Nothing that assigns imports it."""
