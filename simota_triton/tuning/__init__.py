"""Launch parameters of the kernels: where a call takes them from. They decide how fast it is, never its
answer.
"""

from .kernel_config import KernelConfig
from .stream_config import StreamConfig

__all__ = ["KernelConfig", "StreamConfig"]
