"""The command that finds the fastest launch parameters for a GPU."""

from .command import add_parser

__all__ = ["add_parser"]
