"""Natural images: an index of what they do to every unit, and those that drive one the most."""

from featvis.natural.dissection import Dissection, dissect
from featvis.natural.index import index
from featvis.natural.receptive import Fields, receptive_fields
from featvis.natural.responses import MEASURES, Responses
from featvis.natural.top import Top, top
from featvis.natural.units import Index, as_index

__all__ = [
    "MEASURES",
    "Dissection",
    "Fields",
    "Index",
    "Responses",
    "Top",
    "as_index",
    "dissect",
    "index",
    "receptive_fields",
    "top",
]
