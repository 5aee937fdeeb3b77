"""Pages to read: reports of figures and pictures."""

from featvis.pages.report import Report

__all__ = ["Report"]
