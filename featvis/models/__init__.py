"""Networks: what they are to featvis, those known by name, and one's own."""

from featvis.models.batch_norm import batch_norm_prior
from featvis.models.flax_modules import from_linen, from_nnx
from featvis.models.input import Input
from featvis.models.loading import available, entry, fetch, is_place, load, outline
from featvis.models.model import Apply, Model, Prepared
from featvis.models.other_libraries import from_equinox, from_haiku, from_keras
from featvis.models.own import from_function
from featvis.models.taps import tap

__all__ = [
    "Apply",
    "Input",
    "Model",
    "Prepared",
    "available",
    "batch_norm_prior",
    "entry",
    "fetch",
    "from_equinox",
    "from_function",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "is_place",
    "load",
    "outline",
    "tap",
]
