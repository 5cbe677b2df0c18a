"""The demo: it reads COCO annotations, simulates predictions, and shows what is assigned."""

from .command import add_parser

__all__ = ["add_parser"]
