"""The command line."""

from featvis.cli.app import main

__all__ = ["main"]
