"""What a run gives, and the manifest that makes it again."""

from featvis.results.result import Result

__all__ = ["Result"]
