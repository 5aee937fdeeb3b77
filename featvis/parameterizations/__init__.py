"""Parameterizations: how the numbers that are optimised become an image."""

from featvis.parameterizations.code_priors import (
    CodePrior,
    Consistency,
    NormalPrior,
    Reconstruction,
)
from featvis.parameterizations.codes import Codes
from featvis.parameterizations.component import Component
from featvis.parameterizations.cppn import CPPN
from featvis.parameterizations.figure import Figure
from featvis.parameterizations.fourier import Fourier
from featvis.parameterizations.framed import Framed
from featvis.parameterizations.frozen import FrozenChannels
from featvis.parameterizations.generator import Generator
from featvis.parameterizations.latent import Latent
from featvis.parameterizations.maco import MaCo
from featvis.parameterizations.parameterization import Parameterization
from featvis.parameterizations.phases import Phases
from featvis.parameterizations.pixels import BoundedPixels, Pixels
from featvis.parameterizations.plug_and_play import Autoencoded, Inpainted
from featvis.parameterizations.pyramid import Pyramid
from featvis.parameterizations.region import Region
from featvis.parameterizations.shared import Shared
from featvis.parameterizations.sphere import FixedNorm
from featvis.parameterizations.upsampled import Upsampled

__all__ = [
    "CPPN",
    "Autoencoded",
    "BoundedPixels",
    "CodePrior",
    "Codes",
    "Component",
    "Consistency",
    "Figure",
    "FixedNorm",
    "Fourier",
    "Framed",
    "FrozenChannels",
    "Generator",
    "Inpainted",
    "Latent",
    "MaCo",
    "NormalPrior",
    "Parameterization",
    "Phases",
    "Pixels",
    "Pyramid",
    "Reconstruction",
    "Region",
    "Shared",
    "Upsampled",
]
