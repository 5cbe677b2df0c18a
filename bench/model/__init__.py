"""A model of the time that the streaming kernels take on an H100, from events counted on a CPU.

Nothing in it was measured. This folder goes, with ``tests/kernels/test_stream_model.py``, once the kernels
have been timed on a GPU.
"""
