"""Convolutions with 3 x 3 kernels by fewer multiplications (Lavin & Gray 2016, after Winograd).

y = A'[(G g G') * (B' d B)]A: tiles of m x m outputs and m + 2 inputs a side are transformed, their
products are (m + 2)² matrix products over the channels, and what they give is transformed back.
F(2,3) takes 4/9 of a convolution's multiplications, F(4,3) 1/4, with more additions around them.

Inputs are transformed along one axis at a time, and what that makes is written once (`kept`): both
axes at once are twice the additions, and the compiler would make them again for each of their
readers. Kernels and outputs, which do not overlap, are transformed along both at once by a small
matrix product: as fast as loops, and no code of its own, which was half of the time of compiling.
Tiles in blocks that fit the caches were slower than all at once: twice the time for 4 images of
64 x 64 with 128 channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from featvis.kernels.convolution import Pads
from featvis.kernels.keeping import kept

#: By the side of a tile's outputs, the transforms of outputs, of inputs and of the kernel.
_A: dict[int, list[list[float]]] = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}
_B: dict[int, list[list[float]]] = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
}
_G: dict[int, list[list[float]]] = {
    2: [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}


def winograd(x: Array, kernel: Array, pads: Pads, m: int) -> Array:
    """A convolution of stride 1.

    Args:
        x: (n, h, w, c) of float32.
        kernel: (3, 3, c, d).
        pads: zeros around, ((top, bottom), (left, right)); negative ones crop.
        m: outputs of a tile, a side: 2 or 4.

    Returns:
        (n, h + top + bottom - 2, w + left + right - 2, d), within 1e-4 of the plain way for
        inputs of unit variance and outputs of about that.
    """
    n, h, w, c = x.shape
    d = kernel.shape[-1]
    height, width = h + sum(pads[0]) - 2, w + sum(pads[1]) - 2
    rows, columns = -(-height // m), -(-width // m)
    t, (top, _), (left, _) = m + 2, *pads
    bottom, right = rows * m + 2 - h - top, columns * m + 2 - w - left
    around = (0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)
    padded = kept(lax.pad(x, jnp.zeros((), x.dtype), around))
    # (i, n, rows, w, c), then (j, i, n, rows, columns, c).
    bands = _along(_B[m], [_every(padded, 1, a, rows, m) for a in range(t)])
    tiles = _along(_B[m], [_every(bands, 3, a, columns, m) for a in range(t)])
    tiles = tiles.reshape(t * t, n * rows * columns, c)
    products = lax.dot_general(tiles, transformed(kernel, m), (((2,), (1,)), ((0,), (0,))))
    # One small matrix for both axes: (l, k, n, rows, columns, d), then (n, rows, k, columns, l, d).
    outputs = jnp.matmul(_both_axes(_A[m]), products.reshape(t * t, -1))
    whole = outputs.reshape(m, m, n, rows, columns, d).transpose(2, 3, 1, 4, 0, 5)
    return whole.reshape(n, rows * m, columns * m, d)[:, :height, :width]


def transformed(kernel: Array, m: int) -> Array:
    """A kernel (3, 3, c, d) as `winograd` multiplies by it: (j · i, c, d), m + 2 of each.

    In a loop it is the same in each round, and XLA makes it once before it.
    """
    # The kernel's rows come first, the tiles' columns do.
    taps = _both_axes(_G[m]).reshape(-1, 3, 3).swapaxes(1, 2).reshape(-1, 9)
    return jnp.matmul(taps, kernel.reshape(9, -1)).reshape(-1, *kernel.shape[2:])


def _both_axes(matrix: Sequence[Sequence[float]]) -> np.ndarray:
    """A transform along one axis as one of two axes at once, columns before rows."""
    return np.kron(matrix, matrix).astype(np.float32)


def _every(x: Array, axis: int, first: int, count: int, step: int) -> Array:
    return lax.slice_in_dim(x, first, first + (count - 1) * step + 1, step, axis)


def _combined(factors: Sequence[float], parts: Sequence[Array]) -> Array:
    total = None
    for factor, part in zip(factors, parts, strict=True):
        if factor:
            term = part if factor == 1 else -part if factor == -1 else np.float32(factor) * part
            total = term if total is None else total + term
    assert total is not None
    return total


def _along(matrix: Sequence[Sequence[float]], parts: Sequence[Array]) -> Array:
    """The combinations of parts by each row of a matrix, along a new first axis."""
    return kept(jnp.stack([_combined(row, parts) for row in matrix]))
