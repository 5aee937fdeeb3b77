"""Networks: what they are to featvis, those known by name, and one's own."""

from featvis.models.input import Input
from featvis.models.loading import available, load, outline
from featvis.models.model import Apply, Model, Prepared

__all__ = ["Apply", "Input", "Model", "Prepared", "available", "load", "outline"]
