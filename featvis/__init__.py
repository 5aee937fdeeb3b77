"""featvis: see what any unit of a network looks for, reproducibly and with evidence.

```python
import featvis as fv

model = fv.load("efficientnet_lite0")
result = fv.synthesize(model, "block8:3", fv.Fourier((160, 160)), steps=200)
result.save("unit.png")
```

Transforms are in `featvis.transforms`: some have the names of objectives (`Blur`).
"""

from featvis import transforms
from featvis.cache import enable_cache
from featvis.checkpoints import Rule, convert, from_oihw, read_weights
from featvis.errors import (
    CheckpointError,
    FeatvisError,
    InputError,
    NonFiniteError,
    OutputError,
    UnknownModel,
)
from featvis.evidence import compare_with_natural, vary_seed
from featvis.images import read_image
from featvis.models import Input, Model, available, from_function, from_linen, from_nnx, load, tap
from featvis.parameterizations import (
    CPPN,
    BoundedPixels,
    Fourier,
    FrozenChannels,
    MaCo,
    Parameterization,
    Pixels,
    Pyramid,
)
from featvis.replay import VersionWarning, replay
from featvis.result import Result
from featvis.synthesis import synthesize, synthesize_many
from objectives import (
    L1,
    L2,
    Activations,
    Alignment,
    AlphaNorm,
    Blur,
    Caricature,
    CenterBias,
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
    TotalVariation,
    UnknownLayer,
    check_number,
    gram,
    leaf,
    parse,
    signature,
    stack,
    static,
    units_of,
)

__all__ = [
    "CPPN",
    "L1",
    "L2",
    "Activations",
    "Alignment",
    "AlphaNorm",
    "Blur",
    "BoundedPixels",
    "Caricature",
    "CenterBias",
    "Channel",
    "CheckpointError",
    "Constant",
    "Direction",
    "DirectionNeuron",
    "Diversity",
    "FeatureMatch",
    "FeatvisError",
    "Fourier",
    "FrozenChannels",
    "Input",
    "InputError",
    "Layer",
    "LogProbability",
    "Logit",
    "MaCo",
    "MinDistance",
    "Model",
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
    "Result",
    "Rule",
    "Scaled",
    "Style",
    "Sum",
    "TotalVariation",
    "UnknownLayer",
    "UnknownModel",
    "VersionWarning",
    "available",
    "check_number",
    "compare_with_natural",
    "convert",
    "enable_cache",
    "from_function",
    "from_linen",
    "from_nnx",
    "from_oihw",
    "gram",
    "leaf",
    "load",
    "parse",
    "read_image",
    "read_weights",
    "replay",
    "signature",
    "stack",
    "static",
    "synthesize",
    "synthesize_many",
    "tap",
    "transforms",
    "units_of",
    "vary_seed",
]
