"""Pages to read: reports of figures and pictures."""

from featvis.pages.facets import facet_report
from featvis.pages.invariances import invariance_page, table_page
from featvis.pages.report import Report

__all__ = ["Report", "facet_report", "invariance_page", "table_page"]
