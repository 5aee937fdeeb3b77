"""Pages to read: reports of figures and pictures."""

from featvis.pages.invariances import invariance_page, table_page
from featvis.pages.report import Report

__all__ = ["Report", "invariance_page", "table_page"]
