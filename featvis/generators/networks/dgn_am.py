"""The generator of DGN-AM: from features of CaffeNet's layer fc6 to images of 227 x 227 pixels.

Architecture: Dosovitskiy & Brox, "Generating images with perceptual similarity metrics based on
deep networks" (2016), Table 1, as Nguyen et al. 2016 (DGN-AM) and 2017 (PPGN) have it: three dense
layers, then transposed convolutions, all with leaky ReLUs of slope 0.3 between them. Its images are
those that CaffeNet takes, blue first and less their mean; here they are turned into [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from featvis.generators.entry import Part, generator_entry
from featvis.weights.layouts import KeyLayout, Rule
from featvis.weights.sources import Local
from featvis.zoo.architecture import Architecture
from featvis.zoo.layers import Linear, along_last

#: Names, channels, side of the kernel and stride of the transposed convolutions.
_UP = (
    ("deconv5", 256, 4, 2),
    ("conv5_1", 512, 3, 1),
    ("deconv4", 256, 4, 2),
    ("conv4_1", 256, 3, 1),
    ("deconv3", 128, 4, 2),
    ("conv3_1", 128, 3, 1),
    ("deconv2", 64, 4, 2),
    ("deconv1", 32, 4, 2),
    ("deconv0", 3, 4, 2),
)

_SLOPE = 0.3

#: Of the maps that the last dense layer becomes; the padding of the transposed convolutions.
_FIRST, _PADDING = 4, 1

#: Red, green and blue of the mean that CaffeNet subtracts, of 255.
_MEAN = (123.0, 117.0, 104.0)


@dataclass(frozen=True)
class Deconvolutional(Architecture):
    """The architecture.

    Attributes:
        code: Numbers of a code.
        dense: Width of the dense layers but the last.
        divided: What all channels are divided by, but those of the image: 1, or more for tests.
        size: Of the image, which is the middle of the 256 x 256 pixels that the layers make.
    """

    code: int = 4096
    dense: int = 4096
    divided: int = 1
    size: int = 227

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network(self)


class _Transposed(nnx.Module):
    """A transposed convolution with a bias, as a convolution of the input with zeros between."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int) -> None:
        self.kernel = nnx.Param(jnp.zeros((side, side, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.side, self.stride = side, stride

    def __call__(self, x: jax.Array) -> jax.Array:
        pad = self.side - 1 - _PADDING
        x = lax.conv_general_dilated(
            x,
            self.kernel[...],
            (1, 1),
            [(pad, pad)] * 2,
            lhs_dilation=(self.stride, self.stride),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return x + along_last(self.bias, x)


class _Network(nnx.Module):
    def __init__(self, shape: Deconvolutional) -> None:
        self.shape, self.first = shape, _UP[0][1] // shape.divided
        self.defc7 = Linear(shape.code, shape.dense)
        self.defc6 = Linear(shape.dense, shape.dense)
        self.defc5 = Linear(shape.dense, self.first * _FIRST**2)
        inputs = self.first
        for name, outputs, side, stride in _UP:
            outputs = 3 if outputs == 3 else max(1, outputs // shape.divided)
            setattr(self, name, _Transposed(inputs, outputs, side, stride))
            inputs = outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        for name in ("defc7", "defc6", "defc5"):
            x = nnx.leaky_relu(getattr(self, name)(x), _SLOPE)
        # Channels first: the order of the numbers of defc5.
        x = jnp.moveaxis(x.reshape(-1, self.first, _FIRST, _FIRST), 1, -1)
        for name, *_ in _UP:
            x = getattr(self, name)(x)
            x = x if name == "deconv0" else nnx.leaky_relu(x, _SLOPE)
        top = (x.shape[1] - self.shape.size) // 2
        x = x[:, top : top + self.shape.size, top : top + self.shape.size]
        return (x[..., ::-1] + jnp.asarray(_MEAN).reshape(1, 1, 1, 3)) / 255


def _turned(kernel: np.ndarray) -> np.ndarray:
    """A transposed convolution's kernel as Caffe keeps it, (c, d, h, w), to (h, w, c, d)."""
    return kernel[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)


_CAFFE = KeyLayout(
    "Caffe",
    (
        Rule(r"(defc\d)/kernel", r"\1.weight", np.transpose),
        Rule(r"((?:de)?conv\d(?:_1)?)/kernel", r"\1.weight", _turned),
        Rule(r"(\w+)/bias", r"\1.bias"),
    ),
)

_FILE = Local(
    "dgn_am_fc6.npz",
    "the generator of DGN-AM for fc6, its blobs called defc7.weight, defc7.bias to deconv0.bias",
    licence="not known",
)


@generator_entry(decoder=Part(Deconvolutional(), (_FILE,), (_CAFFE,)), code=(4096,))
def dgn_am() -> None:
    """Deconvolutional generator of DGN-AM, from CaffeNet's fc6."""
