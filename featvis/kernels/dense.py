"""Dense convolutions, as any program has them, by the way that was measured to be fastest.

The gradient of a convolution by its input is one too, with the kernel turned and, where it was
strided, zeros between the pixels; so nothing here knows about derivatives. That by the kernel has
windows as large as the image, and stays XLA's.

Measured with jax 0.10.2 on two cores with AVX2 (no AVX-512), where matrix products reach 160
GFLOP/s; milliseconds of a convolution with its input gradient in a loop (least of three rounds, on
a machine that was not quite quiet; PyTorch's are oneDNN's):

    images, side, channels          XLA   F(4,3)  F(2,3)  PyTorch
    4, 128, 64 and 64               112     47      117     68
    4, 64, 128 and 128               97     29      114     85
    4, 32, 64 and 64                8.6     3.3     7.6     4.3
    4, 16, 128 and 128              5.6     4.0     8.5     4.4
    4, 16, 96 and 208               6.4     3.3     6.5     4.4
    4, 8, 256 and 256               5.1     4.1     4.6     4.4
    4, 8, 512 and 512                24     16       12     33
    4, 4, 512 and 512               6.2     5.4     4.5     8.4
    1, 128, 64 and 64                23     12       26     14
    forward alone, 4, 32, 16        0.3     0.5     0.6
    4, 16, 16 and 48                0.4     0.3     0.4
    4, 8, 32 and 128                0.3     0.1     0.3

    of stride 2, forward, 3 x 3       XLA   windows          PyTorch
    4, 32, 64, 128                    2.0     1.5             1.1
    4, 16, 128, 256                   1.1     1.3             1.1
    4, 8, 256, 512                    1.3     1.4             1.5
    and its gradient                  XLA   product, sums    PyTorch
    4, 32, 64, 128                    1.4     1.4             1.3
    4, 16, 128, 256                   1.7     1.2             1.3
    4, 8, 256, 512                    4.0     1.5             1.5

With AVX-512, where matrix products reach 410 GFLOP/s, other kernels than 3 x 3, and the gradient:

    images, side, channels, kernel        XLA   taps    windows  PyTorch
    4, 27, 64 and 192, 5 x 5              9.7   7.8     9.7      6.7
    4, 35, 48 and 64, 5 x 5               4.8   4.2     5.6      2.7
    4, 28, 16 and 32, 5 x 5               1.8   0.5     0.5      0.4
    4, 56, 64 and 64, 5 x 5               16    15      21       9.7
    1, 27, 64 and 192, 5 x 5              2.5   1.4     1.5      1.7
    4, 17, 128 and 128, 1 x 7             1.2   0.8     0.8      1.0
    4, 17, 192 and 192, 1 x 7             2.8   1.6     1.7      2.3
    4, 8, 384 and 384, 3 x 1              1.1   0.8     0.8      1.0
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from featvis.kernels.convolution import Orders, Pads, in_orders, orders_of
from featvis.kernels.keeping import kept
from featvis.kernels.winograd import winograd

Pair = tuple[int, int]

#: Channels of either side, and products of both, below which XLA's way was not found slower.
_LEAST_CHANNELS, _LEAST_PRODUCT = 16, 1024

#: Products of channels from which the transformed kernels of F(4,3) no longer fit the caches, so
#: that F(2,3), whose are half as large, is faster with few tiles.
_WIDE, _FEW_TILES = 512 * 512, 32

#: Channels of a strided convolution up to which a matrix product of copied windows is faster.
_COPIED_CHANNELS = 64

#: Places of a kernel up to which one product a tap is faster; the code grows with them.
_MOST_TAPS = 25

#: Taps whose products are in memory together.
_TAPS_TOGETHER = 7

#: Sides of a kernel up to which strided convolutions were measured.
_LARGEST_SIDE = 3


@dataclass(frozen=True)
class Convolution:
    """A convolution of float32 over two axes.

    Attributes:
        orders: of the axes of the images, of the kernel and of the result (`orders_of`).
        stride: down and right.
        pads: zeros around; negative ones crop.
        spread: distances of the image's pixels, down and right, with zeros between them.
        tile: outputs of a tile of `winograd`, a side, where that is the way.
    """

    orders: Orders
    stride: Pair
    pads: Pads
    spread: Pair
    tile: int

    def __call__(self, x: Array, kernel: Array) -> Array:
        """The result, from the images and the kernel, each in its order."""
        return in_orders(self._in_order, self.orders, x, kernel)

    def _in_order(self, x: Array, kernel: Array) -> Array:
        if self.tile:
            return winograd(x, kernel, self.pads, self.tile)
        if self.spread != (1, 1):
            return _spread(x, kernel, self.pads, self.spread)
        if self.stride == (1, 1) and kernel.shape[:2] != (1, 1):
            return _of_taps(x, kernel, self.pads)
        return _of_windows(x, kernel, self.pads, self.stride)


def dense(eqn: Any, repeated: bool) -> Convolution | None:
    """Our kernel for a traced convolution; None where XLA's own is as fast, or it is another.

    A convolution that is run once stays XLA's: little can be won, and what a network is said to
    compute has the rounding of the program that its author runs.

    Args:
        eqn: an equation of a traced program.
        repeated: whether it is run many times with the same kernel.
    """
    if not repeated:
        return None
    given, (x, kernel), out = eqn.params, (v.aval for v in eqn.invars), eqn.outvars[0].aval
    if not (
        x.ndim == 4
        and given["rhs_dilation"] == (1, 1)
        and given["feature_group_count"] == given["batch_group_count"] == 1
        and given["precision"] in (None, (lax.Precision.DEFAULT,) * 2)
        and {x.dtype, kernel.dtype, out.dtype} == {np.dtype("float32")}
        and 0 not in (*x.shape, *kernel.shape, *out.shape)
    ):
        return None
    orders = orders_of(given["dimension_numbers"])
    taps = tuple(kernel.shape[axis] for axis in orders[1])
    sizes = tuple(out.shape[axis] for axis in orders[2])
    stride, spread = tuple(given["window_strides"]), tuple(given["lhs_dilation"])
    rows, columns = (tuple(pair) for pair in given["padding"])
    tile = 0
    if stride == spread == (1, 1):
        tile = best_tile(sizes, taps)
        pixels = taps[:2] == (1, 1) and (rows, columns) == ((0, 0), (0, 0))
        if not (tile or pixels or _is_sum_of_taps(taps)):
            return None
    elif (1, 1) not in (stride, spread) or not _is_faster(taps, spread):
        return None
    return Convolution(orders, stride, (rows, columns), spread, tile)


def transformed_bytes(eqn: Any, images: int) -> int:
    """Bytes of the kernels that a traced convolution and its gradient by the images multiply by.

    Args:
        eqn: an equation of a traced program, forward.
        images: that it is for, whatever their number in the program.
    """
    way = dense(eqn, True) if eqn.primitive.name == "conv_general_dilated" else None
    if way is None or not way.tile:
        return 0
    arrays = (v.aval for v in (*eqn.invars, *eqn.outvars))
    x, (*taps, c, d), out = (
        tuple(array.shape[axis] for axis in order)
        for array, order in zip(arrays, way.orders, strict=True)
    )
    tiles = best_tile((images, *out[1:]), (*taps, c, d)), best_tile((images, *x[1:]), (*taps, d, c))
    return sum((m + 2) ** 2 for m in tiles) * c * d * np.dtype("float32").itemsize


def best_tile(result: tuple[int, ...], kernel: tuple[int, ...]) -> int:
    """The outputs of a tile of `winograd`, a side; 0 where XLA's convolution is as fast.

    Args:
        result: its shape (n, h, w, d).
        kernel: its shape (kh, kw, c, d).
    """
    n, height, width, _ = result
    rows, columns, inputs, outputs = kernel
    if (rows, columns) != (3, 3) or min(inputs, outputs) < _LEAST_CHANNELS:
        return 0
    if inputs * outputs < _LEAST_PRODUCT:
        return 0
    tiles = n * -(-height // 4) * -(-width // 4)
    return 2 if inputs * outputs >= _WIDE and tiles < _FEW_TILES else 4


def _is_faster(kernel: tuple[int, ...], spread: Pair) -> bool:
    rows, columns, inputs, outputs = kernel
    if max(rows, columns) > _LARGEST_SIDE or min(inputs, outputs) < _LEAST_CHANNELS:
        return False
    if (rows, columns) == (1, 1):
        return True
    if spread == (1, 1):
        return inputs <= _COPIED_CHANNELS
    return rows >= spread[0] and columns >= spread[1]


def _is_sum_of_taps(kernel: tuple[int, ...]) -> bool:
    rows, columns, inputs, outputs = kernel
    # Of 3 x 3 kernels and those of one place what is not made otherwise is as fast by XLA.
    other = (rows, columns) not in ((1, 1), (3, 3)) and rows * columns <= _MOST_TAPS
    return other and min(inputs, outputs) >= _LEAST_CHANNELS


def _padded(x: Array, pads: Pads) -> Array:
    if pads == ((0, 0), (0, 0)):
        return x
    return kept(
        lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)])
    )


def _of_windows(x: Array, kernel: Array, pads: Pads, stride: Pair) -> Array:
    """A convolution as a matrix product of copied windows; of the pixels for a kernel of one."""
    rows, columns, c, d = kernel.shape
    x = _padded(x, pads)
    n, h, w, _ = x.shape
    height, width = (h - rows) // stride[0] + 1, (w - columns) // stride[1] + 1
    windows = [
        lax.slice(
            x,
            (0, i, j, 0),
            (n, i + (height - 1) * stride[0] + 1, j + (width - 1) * stride[1] + 1, c),
            (1, *stride, 1),
        )
        for i in range(rows)
        for j in range(columns)
    ]
    whole = windows[0] if len(windows) == 1 else kept(jnp.concatenate(windows, -1))
    return (whole.reshape(-1, whole.shape[-1]) @ kernel.reshape(-1, d)).reshape(n, height, width, d)


def _of_taps(x: Array, kernel: Array, pads: Pads) -> Array:
    """A convolution of stride 1 as the sum of one matrix product a tap, a few at a time.

    What a few add is kept, or the products of all taps would be in memory at once.
    """
    rows, columns, c, d = kernel.shape
    x = _padded(x, pads)
    n, h, w, _ = x.shape
    height, width = h - rows + 1, w - columns + 1

    def product(tap: Pair) -> Array:
        i, j = tap
        seen = lax.slice(x, (0, i, j, 0), (n, i + height, j + width, c))
        return seen.reshape(-1, c) @ kernel[i, j]

    taps = list(itertools.product(range(rows), range(columns)))
    total: list[Array] = []
    for start in range(0, len(taps), _TAPS_TOGETHER):
        terms = [*total, *map(product, taps[start : start + _TAPS_TOGETHER])]
        total = [kept(functools.reduce(lax.add, terms))]
    return total[0].reshape(n, height, width, d)


def _spread(x: Array, kernel: Array, pads: Pads, spread: Pair) -> Array:
    """A convolution of pixels with zeros between them, the gradient of a strided one.

    Each pixel times the whole kernel, in one matrix product, and for each result the sum of what
    it meets. Those of one remainder meet the same taps; so they are made together, and no zero is.
    """
    n, *image, _ = x.shape
    *taps, c, d = kernel.shape
    products = x.reshape(-1, c) @ kernel.transpose(2, 0, 1, 3).reshape(c, -1)
    products = kept(products).reshape(n, *image, *taps, d)
    sizes = [
        (edge - 1) * s + 2 + sum(pad) - tap
        for edge, s, pad, tap in zip(image, spread, pads, taps, strict=True)
    ]
    counts = [-(-size // s) for size, s in zip(sizes, spread, strict=True)]

    def meetings(axis: int, place: int) -> list[Pair]:
        # Result s·a + place is of pixel a + (place + tap - before) / s by each tap that meets one.
        before, s = pads[axis][0], spread[axis]
        return [
            (tap, (place + tap - before) // s) for tap in range((before - place) % s, taps[axis], s)
        ]

    def shifted(tap: Pair, by: Pair) -> Array:
        margins = [
            (-first, first + count - edge, 0)
            for first, count, edge in zip(by, counts, image, strict=True)
        ]
        part = products[:, :, :, tap[0], tap[1]]
        return lax.pad(part, jnp.zeros((), x.dtype), [(0, 0, 0), *margins, (0, 0, 0)])

    def phase(row: int, column: int) -> Array:
        terms = [
            shifted((i, j), (down, right))
            for i, down in meetings(0, row)
            for j, right in meetings(1, column)
        ]
        nothing = jnp.zeros((n, *counts, d), x.dtype)
        return functools.reduce(lax.add, terms) if terms else nothing

    rows = [
        jnp.stack([phase(row, column) for column in range(spread[1])], 3)
        for row in range(spread[0])
    ]
    whole = kept(jnp.stack(rows, 2))
    whole = whole.reshape(n, counts[0] * spread[0], counts[1] * spread[1], d)
    return whole[:, : sizes[0], : sizes[1]]
