"""A small generator of small images, and an autoencoder of its codes.

Trained by `experiments/train_generator.py` as the noiseless joint PPGN-h (Nguyen et al. 2017,
"Plug & Play Generative Networks", section 3.5): a code is what a classifier, which is the encoder,
makes of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from featvis.generators.entry import Alone, Part, generator_entry
from featvis.parameterizations import Codes
from featvis.zoo.architecture import Architecture
from featvis.zoo.layers import Convolution, Linear
from featvis.zoo.networks.mnist import LAYOUT, WEIGHTS, CodeClassifier


@dataclass(frozen=True)
class CodeGenerator(Architecture):
    """An image from a code: an affine map, and three convolutions with shuffles of pixels between.

    A call maps codes (n, code) to images (n, h, w, c) in [0, 1].

    Attributes:
        size: (height, width) of the images in pixels, multiples of 4.
        channels: of the images.
        code: width of the code.
        width: of the coarsest map, a multiple of 2; the finest has half as many channels.
    """

    size: tuple[int, int] = (28, 28)
    channels: int = 1
    code: int = 64
    width: int = 24

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Generator(self)


class _Generator(nnx.Module):
    def __init__(self, of: CodeGenerator):
        self.coarse = (of.size[0] // 4, of.size[1] // 4)
        self.start = Linear(of.code, of.width * self.coarse[0] * self.coarse[1])
        self.conv1 = Convolution(of.width, 4 * of.width, 3)
        self.conv2 = Convolution(of.width, 4 * (of.width // 2), 3)
        self.image = Convolution(of.width // 2, of.channels, 3)

    def __call__(self, code: jax.Array) -> jax.Array:
        x = nnx.leaky_relu(self.start(code), 0.1).reshape(len(code), *self.coarse, -1)
        x = nnx.leaky_relu(_shuffled(self.conv1(x)), 0.1)
        x = nnx.leaky_relu(_shuffled(self.conv2(x)), 0.1)
        return nnx.sigmoid(self.image(x))


def _shuffled(x: jax.Array) -> jax.Array:
    """Four channels of a pixel to four pixels of a channel: (n, h, w, 4c) to (n, 2h, 2w, c)."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


@dataclass(frozen=True)
class CodeEncoder(CodeClassifier):
    """The classifier up to its code: images (n, h, w, c) in [0, 1] to codes (n, code)."""

    def __call__(self, params: object, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """The codes of images."""
        return super().__call__(params, x)["code"]


@dataclass(frozen=True)
class CodeDenoiser(Architecture):
    """An autoencoder of codes (n, code), through a wider layer, trained on noisy ones.

    Attributes:
        code: width of the code.
        hidden: width of the layer between.
    """

    code: int = 64
    hidden: int = 256

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Denoiser(self)


class _Denoiser(nnx.Module):
    def __init__(self, of: CodeDenoiser):
        self.hidden = Linear(of.code, of.hidden)
        self.code = Linear(of.hidden, of.code)

    def __call__(self, code: jax.Array) -> jax.Array:
        return nnx.relu(self.code(nnx.leaky_relu(self.hidden(code), 0.1)))


def _codes(arrays: Mapping[str, np.ndarray]) -> Codes:
    network, prefix = CodeDenoiser(), "denoiser/"
    own = {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
    params = network.params_from(own, (LAYOUT,), "the autoencoder of codes")
    return Codes(
        mean=arrays["codes/mean"],
        sd=arrays["codes/deviation"],
        factor=arrays["codes/factor"],
        reconstruct=Alone(network),
        params=params,
    )


@generator_entry(
    decoder=Part(CodeGenerator(), (WEIGHTS,), (LAYOUT,)),
    encoder=Part(CodeEncoder(), (WEIGHTS,), (LAYOUT,)),
    code=(64,),
    codes=_codes,
    networks=("mnist_classifier", "mnist_judge"),
)
def mnist_ppgn() -> None:
    """Generator of MNIST's digits, with what Plug & Play samples need."""
