"""Everything that measures: workloads, timers, memory, records, compiling without a GPU. Nothing that assigns
imports it.
"""
