"""An image as a small network from coordinates to colours."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.errors import InputError
from featvis.parameterizations.parameterization import Parameterization, Params, draw_normal


class CPPN(Parameterization):
    """A compositional pattern-producing network: coordinates to colours, then a sigmoid.

    The longer side runs from -sqrt(3) to sqrt(3). Each hidden layer is followed by the pair
    `atan(z) / 0.67, atan(z)**2 / 0.6`, and the last layer begins at zero, so the first image is
    mid-grey. The parameters are `kernel0`, (inputs, outputs), and `bias0`, (outputs,), and so on to
    `kernel{layers}`; they decode at any size. A photograph is out of its reach: with the
    defaults it comes no nearer than its smooth outline. Use a small learning rate, about 0.005.

    Source: Stanley, 2007; Mordvintsev et al., "Differentiable Image Parameterizations", Distill
    2018, and lucid's `cppn`, whose constants these are.

    Args:
        size: (height, width) in pixels, two positive ints.
        channels: number of channels, at least 1.
        hidden: units of each hidden layer, at least 1.
        layers: number of hidden layers, 1 to 256.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    hidden: int = 24
    layers: int = 8

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        checks.set_fields(
            self,
            hidden=checks.integer(self, "hidden", self.hidden, 1),
            layers=checks.integer(self, "layers", self.layers, 1, 256),
        )

    def init(self, key: jax.Array) -> Params:
        """Draw normal kernels of variance 1 / inputs; biases and the last kernel are zero."""
        # A hidden layer hands on two values a unit.
        inputs = [2] + [2 * self.hidden] * self.layers
        outputs = [self.hidden] * self.layers + [self.channels]
        shapes = list(zip(inputs, outputs, strict=True))
        kernels = [k / math.sqrt(len(k)) for k in draw_normal(key, shapes)]
        kernels[-1] = jnp.zeros_like(kernels[-1])
        biases = [jnp.zeros(kernel.shape[1], jnp.float32) for kernel in kernels]
        return {f"kernel{i}": kernel for i, kernel in enumerate(kernels)} | {
            f"bias{i}": bias for i, bias in enumerate(biases)
        }

    def decode(self, params: Params) -> jax.Array:
        """Evaluate the network at every pixel: one image, (h, w, c) float32 in [0, 1]."""
        values = jnp.asarray(self._coordinates(), jnp.float32)
        for layer in range(self.layers):
            bent = jnp.arctan(_dense(params, layer, values))
            values = jnp.concatenate([bent / 0.67, bent**2 / 0.6], axis=-1)
        return jax.nn.sigmoid(_dense(params, self.layers, values)).reshape(self.shape)

    def encode(self, image: jax.Array) -> Params:
        """Raise InputError: no closed form gives the network of an image.

        Raises:
            InputError: always; fit `decode` to the image by gradient descent instead.
        """
        raise InputError(
            "CPPN: encode has no closed form; begin from a key, or use Fourier, Pixels or Pyramid"
            " to begin from an image"
        )

    def _coordinates(self) -> np.ndarray:
        """(h * w, 2) places of the pixels' centres, (y, x)."""
        longest = max(1, *(side - 1 for side in self.size))
        axes = [math.sqrt(3) * (2 * np.arange(side) - (side - 1)) / longest for side in self.size]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def _dense(params: Params, layer: int, values: jax.Array) -> jax.Array:
    """Apply one layer to (pixels, inputs)."""
    return values @ params[f"kernel{layer}"] + params[f"bias{layer}"][None]
