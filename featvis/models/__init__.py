"""Networks: what they are to featvis, and one's own."""

from featvis.models.attributed import attributed
from featvis.models.batch_norm import batch_norm_prior
from featvis.models.captions import Captioner
from featvis.models.flax_modules import from_linen, from_nnx
from featvis.models.function import from_function
from featvis.models.input import Input
from featvis.models.joined import join
from featvis.models.leaky import leaky, unrectified
from featvis.models.model import Apply, Model, Prepared
from featvis.models.other_libraries import from_equinox, from_haiku, from_keras
from featvis.models.targets import Target, natural_statistics, sorted_activations, target

__all__ = [
    "Apply",
    "Captioner",
    "Input",
    "Model",
    "Prepared",
    "Target",
    "attributed",
    "batch_norm_prior",
    "from_equinox",
    "from_function",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "join",
    "leaky",
    "natural_statistics",
    "sorted_activations",
    "target",
    "unrectified",
]
