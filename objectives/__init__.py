"""The objective language: what a picture is to maximise, as immutable, printable pytrees."""

from objectives.activations import Activations
from objectives.batches import alone, separable, slice_images, stack, stack_key, units_of
from objectives.comparisons import (
    Alignment,
    BatchStatistics,
    Caricature,
    Comparison,
    Diversity,
    FeatureMatch,
    MinDistance,
    Style,
    gram,
)
from objectives.distributions import SortMatch
from objectives.errors import ObjectiveError, ParseError, UnknownLayer
from objectives.fields import NamedArray, check_number, leaf, static
from objectives.objective import Constant, Objective, OnImages, Scaled, Sum
from objectives.priors import (
    L1,
    L2,
    AlphaNorm,
    Blur,
    CenterBias,
    Change,
    Prior,
    Tone,
    TotalVariation,
)
from objectives.text import parse
from objectives.units import (
    Channel,
    Direction,
    DirectionNeuron,
    Layer,
    Logit,
    LogProbability,
    Neuron,
    Probability,
)

__all__ = [
    "L1",
    "L2",
    "Activations",
    "Alignment",
    "AlphaNorm",
    "BatchStatistics",
    "Blur",
    "Caricature",
    "CenterBias",
    "Change",
    "Channel",
    "Comparison",
    "Constant",
    "Direction",
    "DirectionNeuron",
    "Diversity",
    "FeatureMatch",
    "Layer",
    "LogProbability",
    "Logit",
    "MinDistance",
    "NamedArray",
    "Neuron",
    "Objective",
    "ObjectiveError",
    "OnImages",
    "ParseError",
    "Prior",
    "Probability",
    "Scaled",
    "SortMatch",
    "Style",
    "Sum",
    "Tone",
    "TotalVariation",
    "UnknownLayer",
    "alone",
    "check_number",
    "gram",
    "leaf",
    "parse",
    "separable",
    "slice_images",
    "stack",
    "stack_key",
    "static",
    "units_of",
]
