"""The demo: COCO annotations in, simulated predictions, assignments out as tables and pictures."""

from .command import add_parser

__all__ = ["add_parser"]
