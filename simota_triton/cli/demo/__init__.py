"""The demo: it reads COCO annotations, simulates predictions, and shows the assignments in tables and
pictures.
"""

from .command import add_parser

__all__ = ["add_parser"]
