"""featvis: see what any unit of a network looks for, reproducibly and with evidence.

```python
import featvis as fv

model = fv.load("efficientnet_lite0")
result = fv.synthesize(model, "block8:3", fv.Fourier((160, 160)), steps=200)
result.save("unit.png")
```

Transforms are in `featvis.transforms`: some have the names of objectives (`Blur`).
"""

from importlib.metadata import version as _version

from featvis import methods, transforms
from featvis.attribution import localisation, saliency
from featvis.cache import enable_cache
from featvis.errors import (
    CheckpointError,
    FeatvisError,
    FetchError,
    GradientError,
    InputError,
    NonFiniteError,
    OutputError,
    TooLargeError,
    UnknownModel,
)
from featvis.evidence import compare_with_natural, metrics, vary_seed
from featvis.gradients.silence import SilenceWarning
from featvis.images import ConversionWarning, read_image, read_images
from featvis.jaxprs.taps import tap
from featvis.loading import available, fetch, load
from featvis.methods import (
    Facets,
    FacetWarning,
    accentuate,
    caricature,
    class_model,
    facets,
    invert,
)
from featvis.models import (
    Input,
    Model,
    batch_norm_prior,
    from_equinox,
    from_function,
    from_haiku,
    from_keras,
    from_linen,
    from_nnx,
    leaky,
    target,
)
from featvis.natural import Index, Top, index, top
from featvis.pages import Report, facet_report
from featvis.parameterizations import (
    CPPN,
    BoundedPixels,
    Fourier,
    Framed,
    FrozenChannels,
    MaCo,
    Parameterization,
    Pixels,
    Pyramid,
    Upsampled,
)
from featvis.pictures import grid
from featvis.replay import VersionWarning, replay
from featvis.results import Result
from featvis.results.run import Run
from featvis.synthesis import synthesize, synthesize_many
from featvis.weights.files import read_weights
from featvis.weights.layouts import Rule, convert, from_oihw
from objectives import (
    L1,
    L2,
    Activations,
    Alignment,
    AlphaNorm,
    BatchStatistics,
    Blur,
    Caricature,
    CenterBias,
    Change,
    Channel,
    Constant,
    Direction,
    DirectionNeuron,
    Diversity,
    FeatureMatch,
    Layer,
    Logit,
    LogProbability,
    MinDistance,
    NamedArray,
    Neuron,
    Objective,
    ObjectiveError,
    OnImages,
    ParseError,
    Prior,
    Probability,
    Scaled,
    Style,
    Sum,
    Tone,
    TotalVariation,
    UnknownLayer,
    check_number,
    gram,
    leaf,
    parse,
    stack,
    stack_key,
    static,
    units_of,
)

__version__ = _version("featvis")

__all__ = [
    "CPPN",
    "L1",
    "L2",
    "Activations",
    "Alignment",
    "AlphaNorm",
    "BatchStatistics",
    "Blur",
    "BoundedPixels",
    "Caricature",
    "CenterBias",
    "Change",
    "Channel",
    "CheckpointError",
    "Constant",
    "ConversionWarning",
    "Direction",
    "DirectionNeuron",
    "Diversity",
    "FacetWarning",
    "Facets",
    "FeatureMatch",
    "FeatvisError",
    "FetchError",
    "Fourier",
    "Framed",
    "FrozenChannels",
    "GradientError",
    "Index",
    "Input",
    "InputError",
    "Layer",
    "LogProbability",
    "Logit",
    "MaCo",
    "MinDistance",
    "Model",
    "NamedArray",
    "Neuron",
    "NonFiniteError",
    "Objective",
    "ObjectiveError",
    "OnImages",
    "OutputError",
    "Parameterization",
    "ParseError",
    "Pixels",
    "Prior",
    "Probability",
    "Pyramid",
    "Report",
    "Result",
    "Rule",
    "Run",
    "Scaled",
    "SilenceWarning",
    "Style",
    "Sum",
    "Tone",
    "TooLargeError",
    "Top",
    "TotalVariation",
    "UnknownLayer",
    "UnknownModel",
    "Upsampled",
    "VersionWarning",
    "accentuate",
    "available",
    "batch_norm_prior",
    "caricature",
    "check_number",
    "class_model",
    "compare_with_natural",
    "convert",
    "enable_cache",
    "facet_report",
    "facets",
    "fetch",
    "from_equinox",
    "from_function",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_oihw",
    "gram",
    "grid",
    "index",
    "invert",
    "leaf",
    "leaky",
    "load",
    "localisation",
    "methods",
    "metrics",
    "parse",
    "read_image",
    "read_images",
    "read_weights",
    "replay",
    "saliency",
    "stack",
    "stack_key",
    "static",
    "synthesize",
    "synthesize_many",
    "tap",
    "target",
    "top",
    "transforms",
    "units_of",
    "vary_seed",
]
