"""Pages to read: reports of figures and pictures."""

from featvis.pages.facets import facet_report
from featvis.pages.report import Report

__all__ = ["Report", "facet_report"]
