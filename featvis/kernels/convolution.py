"""What XLA is slow at on a CPU, written so that it is fast: the kernels of a step.

Everywhere else they are XLA's own. All take images (n, h, w, c).

On two CPU cores (jax 0.10, the layers of EfficientNet-Lite0 at 4 x 160 x 160, forward and input
gradient) XLA's convolution with one group per channel takes 20 to 50 times as long as a sum of
k² shifted products, one with a 1 x 1 kernel 2 to 7 times as long as a matrix product, and the
gradient of a strided one 17 times as long as a matrix product whose columns are put back in place.

XLA merges what makes a value into each of its readers, however long it takes, and drops barriers
before it does. So the gradient of a ReLU6 made the convolution before it a second time, and a warp
its indices for each channel: twice the time of a step. What is `kept` is made once, in any program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from featvis.kernels.keeping import kept, on_cpu

Padding = str | int | tuple[tuple[int, int], tuple[int, int]]
"""Zeros around: "SAME", "VALID", as many on all sides, or ((top, bottom), (left, right))."""

Pads = tuple[tuple[int, int], tuple[int, int]]

Orders = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Where the axes of (n, h, w, c), (h, w, c, d) and (n, h, w, d) stand in three arrays."""

#: Of the images whose convolution is a matrix product of copied windows: above it, XLA's is faster.
_FEW_CHANNELS = 4

#: Sides of kernels up to which these ways were measured: the code grows with their square, and the
#: copied windows' memory too.
_MOST_TAPS, _LARGEST_WINDOW = 7, 11


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis so that the output has ceil(size / stride) positions.

    The rule of TensorFlow's `SAME`: as evenly as possible, the odd one after.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def resolve_padding(
    padding: Padding, shape: tuple[int, ...], kernel: tuple[int, int], stride: int
) -> Pads:
    """Zeros as ((top, bottom), (left, right)) for an image and a kernel of these (h, w)."""
    if padding == "SAME":
        rows, columns = (same_padding(*one, stride) for one in zip(shape, kernel, strict=True))
        return rows, columns
    if padding == "VALID":
        return (0, 0), (0, 0)
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    assert not isinstance(padding, str), padding
    return padding


def conv(
    x: Array, kernel: Array, stride: int = 1, padding: Padding = "SAME", groups: int = 1
) -> Array:
    """Convolution, by the fastest way for its shape.

    Args:
        x: (n, h, w, c).
        kernel: (kh, kw, c / groups, d).
        stride: In both directions.
        padding: See `Padding`.
        groups: Of channels that have kernels of their own; c for a depthwise convolution.

    Returns:
        (n, h2, w2, d), h2 = (h + top + bottom - kh) // stride + 1 and w2 likewise.
    """
    pads = resolve_padding(padding, x.shape[1:3], (kernel.shape[0], kernel.shape[1]), stride)
    way = _way(x.shape, kernel.shape, stride, pads, groups)
    return way(x, kernel) if way else _plain_conv(x, kernel, stride, pads, groups)


def _way(
    x: tuple[int, ...], kernel: tuple[int, ...], stride: int, pads: Pads, groups: int
) -> Callable[[Array, Array], Array] | None:
    """Ours for these shapes; None where it is XLA's, or what `dense` puts in its place."""
    rows, columns, inputs, filters = kernel
    if (rows, columns, groups) == (1, 1, 1) and pads == ((0, 0), (0, 0)):
        # Elsewhere too: a matrix product is what a convolution with a 1 x 1 kernel is.
        return lambda x, kernel: x[:, ::stride, ::stride] @ kernel[0, 0]
    if on_cpu() and rows == columns >= stride:
        if inputs == 1 and groups == filters == x[-1] and rows <= _MOST_TAPS:
            return lambda x, kernel: _depthwise(x, kernel[:, :, 0], stride, pads)
        if groups == 1 and inputs <= _FEW_CHANNELS and rows <= _LARGEST_WINDOW:
            return lambda x, kernel: _conv(x, kernel, stride, pads)
    return None


def conv_of_equation(eqn: Any, inputs: Sequence[Array]) -> list[Array] | None:
    """What a traced convolution of anyone's network gives, by `conv`; None where it is another.

    Args:
        eqn: an equation of a traced program.
        inputs: its inputs.
    """
    if not on_cpu() or eqn.primitive.name != "conv_general_dilated" or inputs[0].ndim != 4:
        return None
    (x, kernel), given = inputs, eqn.params
    if not (
        len(set(given["window_strides"])) == 1
        and {*given["lhs_dilation"], *given["rhs_dilation"], given["batch_group_count"]} == {1}
        and min(edge for pair in given["padding"] for edge in pair) >= 0
        and {x.dtype, kernel.dtype, eqn.outvars[0].aval.dtype} == {np.dtype("float32")}
    ):
        return None
    orders = orders_of(given["dimension_numbers"])
    images, taps = (
        tuple(one.shape[axis] for axis in order)
        for one, order in zip(inputs, orders[:2], strict=True)
    )
    rows, columns = (tuple(pair) for pair in given["padding"])
    groups, stride = given["feature_group_count"], given["window_strides"][0]
    way = _way(images, taps, stride, (rows, columns), groups)
    # Else as it stands, for what reads programs and for `dense`.
    return None if way is None else [in_orders(way, orders, x, kernel)]


def orders_of(numbers: Any) -> Orders:
    """Where the axes stand, by the dimension numbers of JAX."""
    (n, c, *image), (d, i, *sides), (b, f, *result) = numbers
    return (n, *image, c), (*sides, i, d), (b, *result, f)


def in_orders(
    way: Callable[[Array, Array], Array], orders: Orders, x: Array, kernel: Array
) -> Array:
    """A convolution of the usual layout, of images, a kernel and a result that have others."""
    images, taps, out = orders
    y = way(x.transpose(images), kernel.transpose(taps))
    return y.transpose([out.index(axis) for axis in range(4)])


def _plain_conv(x: Array, kernel: Array, stride: int, pads: Pads, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _plain_depthwise(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    return _plain_conv(x, kernel[:, :, None], stride, pads, groups=x.shape[-1])


def _outputs(size: int, pads: tuple[int, int], kernel: int, stride: int) -> int:
    return (size + sum(pads) - kernel) // stride + 1


def _sum(terms: Iterable[Array]) -> Array:
    return functools.reduce(lax.add, terms)


def _pad(x: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """Pads (or crops, where negative) and keeps the result out of the loops that read it.

    Fused into them, the bounds would be tested at each of the k² reads.
    """
    config = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
    return kept(lax.pad(x, jnp.zeros((), x.dtype), config))


def _weighted(window: Array, kernel: Array, i: int, j: int) -> Array:
    # Indexing and broadcasting with jnp would take most of the time of tracing a network.
    tap = lax.slice(kernel, (i, j, 0), (i + 1, j + 1, kernel.shape[2]))
    return lax.mul(window, lax.broadcast_in_dim(tap, window.shape, (1, 2, 3)))


def _window(x: Array, row: int, column: int, height: int, width: int, stride: int = 1) -> Array:
    n, _, _, c = x.shape
    end = (n, row + (height - 1) * stride + 1, column + (width - 1) * stride + 1, c)
    return lax.slice(x, (0, row, column, 0), end, (1, stride, stride, 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    return _depthwise_sums(x, kernel, stride, pads)


# A function of its own in a program, and one for all of a shape: half as long to trace and lower.
@functools.partial(jax.jit, static_argnums=(2, 3))
def _depthwise_sums(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    k = kernel.shape[0]
    height, width = (
        _outputs(size, pad, k, stride) for size, pad in zip(x.shape[1:3], pads, strict=True)
    )
    padded = _pad(x, *pads)
    return _sum(
        _weighted(_window(padded, i, j, height, width, stride), kernel, i, j)
        for i in range(k)
        for j in range(k)
    )


def _depthwise_fwd(
    x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, stride, pads), (x, kernel)


def _depthwise_bwd(
    stride: int, pads: Pads, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    x_gradient = _depthwise_transposed(gradient, kernel, stride, pads, x.shape[1:3])
    # XLA drops this when nobody asks for it; then it costs nothing.
    _, pullback = jax.vjp(lambda kernel: _plain_depthwise(x, kernel, stride, pads), kernel)
    return x_gradient, pullback(gradient)[0]


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _depthwise_transposed(
    gradient: Array, kernel: Array, stride: int, pads: Pads, size: tuple[int, ...]
) -> Array:
    """The gradient by images of a size (h, w) from that by their depthwise convolution."""
    k = kernel.shape[0]
    (top, _), (left, _) = pads
    height, width = -(-size[0] // stride), -(-size[1] // stride)

    def reads(remainder: int, before: int) -> list[tuple[int, int]]:
        # Input place stride·a + remainder was read by output (that + before - tap) / stride.
        place = remainder + before
        return [(tap, (place - tap) // stride) for tap in range(place % stride, k, stride)]

    def margins(before: int, length: int, outputs: int) -> tuple[int, int]:
        firsts = [first for r in range(stride) for _, first in reads(r, before)]
        return max(0, -min(firsts)), max(0, max(firsts) + length - outputs)

    above = margins(top, height, gradient.shape[1])
    aside = margins(left, width, gradient.shape[2])
    padded = _pad(gradient, above, aside)

    def phase(row: int, column: int) -> Array:
        return _sum(
            _weighted(
                _window(padded, above[0] + first, aside[0] + across, height, width), kernel, i, j
            )
            for i, first in reads(row, top)
            for j, across in reads(column, left)
        )

    phases = [[phase(row, column) for column in range(stride)] for row in range(stride)]
    return _interleave(phases)[:, : size[0], : size[1]]


def _interleave(phases: list[list[Array]]) -> Array:
    """Images from those of their rows and columns by remainder."""
    if len(phases) == 1:
        return phases[0][0]
    rows = [jnp.stack(columns, 3) for columns in phases]
    n, h, w, s, c = rows[0].shape
    return jnp.stack(rows, 2).reshape(n, h * s, w * s, c)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    k = kernel.shape[0]
    n, h, w, c = x.shape
    height, width = _outputs(h, pads[0], k, stride), _outputs(w, pads[1], k, stride)
    taps, top, left = -(-k // stride), pads[0][0], pads[1][0]
    rows, columns = (height - 1) * stride + k, (width + taps - 1) * stride
    padded = _pad(x, (top, rows - h - top), (left, columns - w - left))
    # `stride` neighbours in a row are one pixel of stride·c channels: no strided reads of few.
    padded = padded.reshape(n, rows, width + taps - 1, stride * c)
    windows = [
        lax.slice(
            padded,
            (0, i, j, 0),
            (n, i + (height - 1) * stride + 1, j + width, stride * c),
            (1, stride, 1, 1),
        )
        for i in range(k)
        for j in range(taps)
    ]
    return kept(jnp.concatenate(windows, -1)) @ _as_matrix(kernel, stride)


def _as_matrix(kernel: Array, stride: int) -> Array:
    """Kernel (k, k, c, d) to (k · taps · stride · c, d), columns filled with zeros."""
    k, filters = kernel.shape[0], kernel.shape[-1]
    spare = -k % stride
    return jnp.pad(kernel, ((0, 0), (0, spare), (0, 0), (0, 0))).reshape(-1, filters)


def _conv_fwd(
    x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, stride, pads), (x, kernel)


def _conv_bwd(
    stride: int, pads: Pads, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    k, _, c, _ = kernel.shape
    n, h, w, _ = x.shape
    _, height, width, _ = gradient.shape
    taps, top, left = -(-k // stride), pads[0][0], pads[1][0]
    windows = (gradient @ _as_matrix(kernel, stride).T).reshape(n, height, width, k, taps, -1)

    def shifted(window: Array, axis: int, by: int) -> Array:
        pads = [(0, 0, 0)] * window.ndim
        pads[axis] = (by, taps - 1 - by, 0)
        return lax.pad(window, jnp.zeros((), window.dtype), pads)

    def row(i: int) -> Array:
        return _sum(shifted(windows[:, :, :, i, j], 2, j) for j in range(taps))

    rows = [
        _sum(shifted(row(i), 1, e) for e, i in enumerate(range(phase, k, stride)))
        for phase in range(stride)
    ]
    image = jnp.stack(rows, 2).reshape(n, (height + taps - 1) * stride, -1, c)
    x_gradient = _pad(image, (-top, h + top - image.shape[1]), (-left, w + left - image.shape[2]))
    _, pullback = jax.vjp(lambda kernel: _plain_conv(x, kernel, stride, pads), kernel)
    return x_gradient, pullback(gradient)[0]


_conv.defvjp(_conv_fwd, _conv_bwd)
