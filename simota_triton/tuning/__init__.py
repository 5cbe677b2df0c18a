"""How fast, never what: nothing in here may change an answer."""

from .kernel_config import KernelConfig
from .stream_config import StreamConfig

__all__ = ["KernelConfig", "StreamConfig"]
