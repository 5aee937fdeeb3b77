"""Small classifiers of small images, trained by us on MNIST (LeCun et al. 1998).

One is the encoder and the condition of the generator `mnist_ppgn`; the other, of another
architecture and seed and never used when a sample is drawn, judges what came out. Both were trained
by `experiments/train_generator.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
from flax import nnx

from featvis.models import Input
from featvis.weights.layouts import KeyLayout, Rule
from featvis.weights.sources import Package
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, Linear, max_pool

#: Of the generator, its classifier and its judge.
WEIGHTS = Package(
    "featvis",
    "featvis",
    "generators/weights/mnist_ppgn.safetensors",
    "c101e8709fc772f416b2a6583d6ca1f9f2498f5fe6e665376a569b23e1d6ed20",
    licence="Apache-2.0",
)
#: Each network is behind a prefix of its own, by which it is found.
LAYOUT = KeyLayout("train_generator", (Rule(r"(.+)", r"\1"),))
_INPUT = Input(size=(28, 28), channels=1, fixed_size=True)


def _digits(path: Path | None) -> tuple[str, ...]:
    return tuple("0123456789")


@dataclass(frozen=True)
class CodeClassifier(Architecture):
    """Two strided convolutions, a code of rectified units, and the scores of the classes.

    Attributes:
        size: (height, width) of the images in pixels, multiples of 4.
        channels: of the images.
        classes: their number.
        code: width of the code.
    """

    size: tuple[int, int] = (28, 28)
    channels: int = 1
    classes: int = 10
    code: int = 64

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _CodeNetwork(self)


class _CodeNetwork(nnx.Module):
    def __init__(self, of: CodeClassifier):
        places = (of.size[0] // 4) * (of.size[1] // 4)
        self.conv1 = Convolution(of.channels, 16, 5, 2)
        self.conv2 = Convolution(16, 32, 3, 2)
        self.code = Linear(32 * places, of.code)
        self.logits = Linear(of.code, of.classes)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        out["conv1"] = x = nnx.relu(self.conv1(x))
        out["conv2"] = x = nnx.relu(self.conv2(x))
        out["code"] = x = nnx.relu(self.code(x.reshape(len(x), -1)))
        out["logits"] = self.logits(x)
        return out


@dataclass(frozen=True)
class PooledClassifier(Architecture):
    """Three convolutions of every pixel with maxima between them, and means over the picture.

    Attributes:
        channels: of the images, of any size of at least 4.
        classes: their number.
    """

    channels: int = 1
    classes: int = 10

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _PooledNetwork(self)


class _PooledNetwork(nnx.Module):
    def __init__(self, of: PooledClassifier):
        self.conv1 = Convolution(of.channels, 12, 3)
        self.conv2 = Convolution(12, 24, 3)
        self.conv3 = Convolution(24, 48, 3)
        self.logits = Linear(48, of.classes)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        out["conv1"] = x = nnx.elu(self.conv1(x))
        out["conv2"] = x = nnx.elu(self.conv2(max_pool(x, 2, 2)))
        out["conv3"] = x = nnx.elu(self.conv3(max_pool(x, 2, 2)))
        out["pool"] = x = x.mean((1, 2))
        out["logits"] = self.logits(x)
        return out


@model_entry(
    parameters=106_122,
    input=_INPUT,
    accuracy=0.9901,
    sources=(WEIGHTS,),
    layouts=(LAYOUT,),
    labels=_digits,
)
def mnist_classifier() -> CodeClassifier:
    """Classifier of MNIST's digits, the encoder of the generator mnist_ppgn."""
    return CodeClassifier()


@model_entry(
    parameters=13_642,
    input=_INPUT,
    accuracy=0.9836,
    sources=(WEIGHTS,),
    layouts=(LAYOUT,),
    labels=_digits,
)
def mnist_judge() -> PooledClassifier:
    """Classifier of MNIST's digits that judges samples and never conditions them."""
    return PooledClassifier()
