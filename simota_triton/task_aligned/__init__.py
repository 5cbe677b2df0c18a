"""The task-aligned rule: its ``terms``, the ``matching`` of their matrices, and the ``reference``, which is
its definition.
"""
