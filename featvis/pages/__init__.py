"""Pages to read: reports of figures and pictures."""

from featvis.pages.activation_atlas import activation_site
from featvis.pages.facets import facet_report
from featvis.pages.invariances import invariance_page, table_page
from featvis.pages.report import Report
from featvis.pages.site import atlas_site

__all__ = [
    "Report",
    "activation_site",
    "atlas_site",
    "facet_report",
    "invariance_page",
    "table_page",
]
