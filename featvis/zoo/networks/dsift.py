"""Dense SIFT as a network of fixed kernels.

Definition: the network of Mahendran & Vedaldi (CVPR 2015, section 3.1, and the code of their
experiments), which is VLFeat's `vl_dsift` with a flat window, made simpler: the centre of a bin is
between two pixels and not on one; the window weights a bin by the Gaussian (σ = 1.5 bins) at its
centre and not by its mean over the bin (σ = 2); gradients of inner pixels and whole bins alone
count; neighbouring descriptors share a row or column of bins, where VLFeat takes any step; and
nothing is normalised again after the clamping, so that a descriptor's norm is at most 1. On
photographs its cosine with `vl_dsift`'s own, under the Gaussian window, is 0.97 or more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis.models import Input
from featvis.weights.sources import NoWeights
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import ModelEntry, model_entry
from featvis.zoo.networks.hog import differences, orient, pool

_DIRECTIONS = 8

#: Bins along each side of a descriptor.
_SIDE = 4

#: Bins from one descriptor to the next.
_STEP = 3

#: Of the Gaussian over a descriptor's bins, in bins.
_SIGMA = 1.5

#: Added to the squared norm of a descriptor, for derivatives of intensities in [0, 1].
_ENERGY_FLOOR = 1e-6

_LARGEST = 0.2


@dataclass(frozen=True)
class DSIFT(Architecture):
    """Dense SIFT with a size of bins.

    Attributes:
        bin: Side of a bin in pixels.
    """

    bin: int

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _DSIFT(self.bin)


class _DSIFT(nnx.Module):
    def __init__(self, bin: int):
        self.bin = bin

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        rows, columns = (_bins(size - 2, self.bin) for size in x.shape[1:3])
        out["gradients"] = x = 0.5 * differences(x)
        out["orientations"] = x = orient(x, _DIRECTIONS, soft=True)
        out["cells"] = x = pool(x, rows, columns)
        x = _descriptors(x)
        energy = (x * x).sum(-1, keepdims=True)
        out["blocks"] = x = x * jax.lax.rsqrt(energy + _ENERGY_FLOOR)
        out["features"] = jnp.minimum(x, _LARGEST)
        return out


def _bins(size: int, side: int) -> np.ndarray:
    """Shares of an axis's pixels in its bins, (bins, size): triangles of 2 · `side` pixels."""
    centres = side * np.arange(1, size // side)
    pixels = np.arange(size) + 0.5
    return np.maximum(0, 1 - np.abs(pixels - centres[:, None]) / side).astype(np.float32)


def _descriptors(cells: jax.Array) -> jax.Array:
    """Bins (n, h, w, 8) to squares of 4 x 4 of them under the window, (n, a, b, 128).

    Channel (4 · row + column) · 8 + direction of a descriptor.
    """
    spans = [(size - _SIDE) // _STEP * _STEP + 1 for size in cells.shape[1:3]]
    offsets = np.arange(_SIDE) - (_SIDE - 1) / 2
    window = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    squares = [
        np.float32(window[i] * window[j])
        * cells[:, i : i + spans[0] : _STEP, j : j + spans[1] : _STEP]
        for i in range(_SIDE)
        for j in range(_SIDE)
    ]
    return jnp.concatenate(squares, -1)


def _entry(side: int) -> Callable[[Callable[[], Architecture]], ModelEntry]:
    return model_entry(
        parameters=0,
        input=Input(size=(96, 96), channels=1, min_size=2 + (_SIDE + 1) * side),
        accuracy=None,
        sources=(NoWeights(version=1),),
        layouts=(),
    )


@_entry(5)
def dsift() -> DSIFT:
    """Dense SIFT with bins of 5 pixels, grey; its definition, no weights."""
    return DSIFT(bin=5)


@_entry(8)
def dsift8() -> DSIFT:
    """Dense SIFT with bins of 8 pixels, grey; its definition, no weights."""
    return DSIFT(bin=8)
