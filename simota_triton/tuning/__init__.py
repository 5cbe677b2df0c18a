"""Launch parameters of the kernels, which decide how fast a call is and never what it answers."""

from .kernel_config import KernelConfig
from .stream_config import StreamConfig

__all__ = ["KernelConfig", "StreamConfig"]
