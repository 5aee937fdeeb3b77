"""HOG, histograms of oriented gradients, as a network of fixed kernels.

Definition: the UoCTTI variant (Felzenszwalb et al., "Object Detection with Discriminatively Trained
Part-Based Models", 2010, section 6) as VLFeat's `vl_hog` computes it, taken apart as Mahendran &
Vedaldi (CVPR 2015, section 3.1, and the code of their experiments) do: derivatives, assignment to
directions, pooling to cells, normalisation by blocks, clamping.

Of VLFeat's 31 channels the 27 of their network are here: 18 directed and 9 undirected orientations.
The other 4, the texture channels, are left out as they leave them out: for each of the four blocks
that hold a cell, the sum of the cell's 9 undirected orientations under that block's norm, clamped,
times 1/√18.

Away from the border both are the same. At the border this is VLFeat's: the outermost pixels have no
gradient, and a block that reaches beyond the cells has the nearest cells' energy there. (Their
network pads the image with zeros, so that its frame is an edge, and leaves such blocks out.)
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis.models import Input
from featvis.weights.sources import NoWeights
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry

_ORIENTATIONS = 9

_DIRECTIONS = 2 * _ORIENTATIONS

#: Added to the energy of a block (VLFeat), for differences of intensities in [0, 1].
_ENERGY_FLOOR = 1e-4

_LARGEST = 0.2

#: A squared gradient below it counts as 0: a derivative divided by it would overflow.
_FLAT = 1e-30


@dataclass(frozen=True)
class HOG(Architecture):
    """HOG with a size of cells and a way to assign a gradient to directions.

    Attributes:
        cell: Side of a cell in pixels.
        soft: Whether a gradient is shared by the two nearest directions, in proportion to its
            angle to both (HOGb), rather than given to the nearest.
    """

    cell: int = 8
    soft: bool = False

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _HOG(self.cell, self.soft)


class _HOG(nnx.Module):
    def __init__(self, cell: int, soft: bool):
        self.cell, self.soft = cell, soft

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        rows, columns = (_cells(size, self.cell) for size in x.shape[1:3])
        out["gradients"] = x = differences(x)
        out["orientations"] = x = orient(x, _DIRECTIONS, soft=self.soft)
        out["cells"] = x = pool(x, rows, columns)
        out["blocks"] = x = _normalised(x)
        x = jnp.minimum(x, _LARGEST)
        out["features"] = 0.5 * x.reshape(*x.shape[:3], 4, -1).sum(3)
        return out


def differences(x: jax.Array) -> jax.Array:
    """Differences of each inner pixel's neighbours, right − left and lower − upper.

    Args:
        x: (n, h, w, 1).

    Returns:
        (n, h − 2, w − 2, 2): twice the derivatives by x (to the right) and y (downwards).
    """
    across = x[:, 1:-1, 2:] - x[:, 1:-1, :-2]
    down = x[:, 2:, 1:-1] - x[:, :-2, 1:-1]
    return jnp.concatenate([across, down], -1)


def orient(gradients: jax.Array, directions: int, *, soft: bool) -> jax.Array:
    """Magnitudes of gradients by direction: k is the angle 2πk / `directions` from x towards y.

    The gradient of the result is finite everywhere, and 0 where the image is flat.

    Args:
        gradients: (n, h, w, 2) by x and y.
        directions: their number.
        soft: share between the two nearest, in proportion to the angles; otherwise all to the
            nearest, the first of two as near, and then a change of angle alone changes nothing.

    Returns:
        (n, h, w, directions), at least 0; their sum is the magnitude.
    """
    square = (gradients * gradients).sum(-1, keepdims=True)
    flat = square < _FLAT
    # Twice `where`: what is not chosen must have a finite gradient too.
    magnitude = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, square)))
    across, down = gradients[..., :1], gradients[..., 1:]
    if soft:
        angle = jnp.arctan2(jnp.where(flat, 0, down), jnp.where(flat, 1, across))
        apart = angle * (directions / (2 * np.pi)) - _along_last(np.arange(directions))
        apart = apart - directions * jnp.round(apart / directions)
        share = jnp.maximum(0, 1 - jnp.abs(apart))
    else:
        angles = 2 * np.pi / directions * np.arange(directions)
        # As products and a sum, not a convolution: ties at right angles then are exact.
        along = across * _along_last(np.cos(angles)) + down * _along_last(np.sin(angles))
        share = jax.nn.one_hot(along.argmax(-1), directions, dtype=gradients.dtype)
    return magnitude * share


def _along_last(values: np.ndarray) -> np.ndarray:
    """Numbers (directions,) along the last axis of (n, h, w, directions), float32."""
    return values.astype(np.float32)[None, None, None]


def pool(x: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Sums over weighted rows and columns: (n, h, w, c) to (n, a, b, c) by (a, h) and (b, w)."""
    return jnp.einsum("ah,bw,nhwc->nabc", rows, columns, x, optimize="optimal")


def _cells(size: int, cell: int) -> np.ndarray:
    """Shares of the inner pixels of an axis in its cells, (cells, size − 2).

    The last cell lies in the image by at least a half. A pixel is shared by the two cells with the
    nearest centres, by its distances.
    """
    centres = cell * (np.arange((size + cell // 2) // cell) + 0.5)
    pixels = np.arange(1, size - 1) + 0.5
    return np.maximum(0, 1 - np.abs(pixels - centres[:, None]) / cell).astype(np.float32)


def _normalised(cells: jax.Array) -> jax.Array:
    """Directed cells (n, h, w, 18) to (n, h, w, 108).

    The 18 directed and 9 undirected orientations over the norm of the undirected in each block of
    2 x 2 cells that holds the cell: upper left, upper right, lower left, lower right.
    """
    _, height, width, _ = cells.shape
    undirected = cells[..., :_ORIENTATIONS] + cells[..., _ORIENTATIONS:]
    energy = (undirected * undirected).sum(-1, keepdims=True)
    energy = jnp.pad(energy, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    energy = energy[:, :-1] + energy[:, 1:]
    energy = energy[:, :, :-1] + energy[:, :, 1:]
    scale = jax.lax.rsqrt(energy + _ENERGY_FLOOR)
    channels = jnp.concatenate([cells, undirected], -1)
    blocks = [
        channels * scale[:, i : i + height, j : j + width] for i in range(2) for j in range(2)
    ]
    return jnp.concatenate(blocks, -1)


_entry = model_entry(
    parameters=0,
    input=Input(size=(96, 96), channels=1, min_size=HOG.cell),
    accuracy=None,
    sources=(NoWeights(version=1),),
    layouts=(),
)


@_entry
def hog() -> HOG:
    """HOG of the UoCTTI variant, 27 channels, grey; its definition, no weights."""
    return HOG()


@_entry
def hogb() -> HOG:
    """HOG that shares a gradient between two directions, grey; its definition, no weights."""
    return HOG(soft=True)
