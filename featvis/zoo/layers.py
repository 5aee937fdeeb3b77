"""The layers that the networks of the zoo are made of, as modules of Flax NNX."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from featvis import kernels
from featvis.kernels import Padding

__all__ = [
    "Convolution",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "adaptive_average_pool",
    "along_last",
    "average_pool",
    "max_pool",
    "relu6",
]


class Convolution(nnx.Module):
    """Convolution with a bias, and the batch normalisation after it folded into both.

    Args:
        inputs: channels of its input.
        outputs: channels of its output.
        kernel: side, or (height, width).
        stride: in both directions.
        padding: "SAME" (as TensorFlow), or zeros on all sides (as PyTorch); see `kernels.Padding`.
        groups: of channels with kernels of their own; `inputs` for a depthwise convolution.
        norm: epsilon of the batch normalisation that follows; None where there is none.
        bias: whether there is a bias where there is no normalisation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: Padding = "SAME",
        *,
        groups: int = 1,
        norm: float | None = None,
        bias: bool = True,
    ):
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.kernel = nnx.Param(jnp.zeros((height, width, inputs // groups, outputs)))
        if bias or norm is not None:
            self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride, self.padding, self.groups = stride, padding, groups
        self.norm = norm

    def __call__(self, x: jax.Array) -> jax.Array:
        """(n, h, w, inputs) to (n, h2, w2, outputs)."""
        x = kernels.conv(x, self.kernel[...], self.stride, self.padding, self.groups)
        return x + along_last(self.bias, x) if hasattr(self, "bias") else x


class Linear(nnx.Module):
    """An affine map of the last axis."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True):
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        if bias:
            self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., inputs) to (..., outputs)."""
        x = x @ self.kernel[...]
        return x + along_last(self.bias, x) if hasattr(self, "bias") else x


class LayerNorm(nnx.Module):
    """Normalisation of the last axis (Ba et al. 2016)."""

    def __init__(self, features: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., features) to the same."""
        x = x - x.mean(-1, keepdims=True)
        variance = jnp.mean(x * x, -1, keepdims=True)
        x = x * lax.rsqrt(variance + self.epsilon)
        return x * along_last(self.scale, x) + along_last(self.bias, x)


class GroupNorm(nnx.Module):
    """Normalisation over all positions and a group of channels (Wu & He 2018).

    Args:
        features: channels.
        groups: of as many channels each.
        epsilon: added to the variance.
    """

    def __init__(self, features: int, groups: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.groups, self.epsilon = groups, epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """(n, h, w, features) to the same."""
        n, h, w, features = x.shape
        grouped = x.reshape(n, h * w, self.groups, features // self.groups)
        grouped = grouped - grouped.mean((1, 3), keepdims=True)
        variance = jnp.mean(grouped * grouped, (1, 3), keepdims=True)
        x = (grouped * lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return x * along_last(self.scale, x) + along_last(self.bias, x)


def along_last(values: nnx.Param, x: jax.Array) -> jax.Array:
    """One number a channel (c,) with as many axes as `x`, (..., c): ranks may be kept strictly."""
    return lax.expand_dims(values[...], range(x.ndim - 1))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def relu6(x: jax.Array, keep: bool = False) -> jax.Array:
    """min(max(x, 0), 6), whose gradient is read off the result; 0 at 0 and at 6.

    Args:
        x: of any shape.
        keep: whether the result is one to keep (`kernels.kept`): of a depthwise convolution, which
            takes longer to make again than to read.
    """
    return jnp.minimum(jnp.maximum(x, 0), 6)


@relu6.defjvp
def _relu6_jvp(keep: bool, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> Any:
    y = relu6(*primals, keep)
    y = kernels.kept(y) if keep else y
    return y, lax.select((y > 0) & (y < 6), *tangents, jnp.zeros_like(y))


def max_pool(
    x: jax.Array, window: int, stride: int, padding: Padding = "VALID", *, ceil: bool = False
) -> jax.Array:
    """Maximum over windows, the padding never being it.

    The first place of a window that has its maximum has its gradient, as in PyTorch.

    Args:
        x: (n, h, w, c).
        window: side.
        stride: in both directions.
        padding: see `kernels.Padding`.
        ceil: whether a last window that reaches beyond the image counts, as PyTorch's ceil_mode.
    """
    pads = kernels.resolve_padding(padding, x.shape[1:3], (window, window), stride)
    if ceil:
        pads = tuple(  # type: ignore[assignment]
            _reach(size, one, window, stride) for size, one in zip(x.shape[1:3], pads, strict=True)
        )
    lowest = np.asarray(-np.inf, x.dtype)
    sides, steps = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, lowest, lax.max, sides, steps, ((0, 0), *pads, (0, 0)))


def _reach(size: int, pads: tuple[int, int], window: int, stride: int) -> tuple[int, int]:
    before, after = pads
    outputs = -(-(size + before + after - window) // stride) + 1
    # PyTorch: the last window starts inside the image or the padding before it.
    if (outputs - 1) * stride >= size + before:
        outputs -= 1
    return before, max(after, (outputs - 1) * stride + window - size - before)


def average_pool(x: jax.Array, window: int, padding: Padding = "VALID") -> jax.Array:
    """Mean over windows at every place; the zeros of the padding count as pixels.

    Args:
        x: (n, h, w, c).
        window: side.
        padding: see `kernels.Padding`.
    """
    pads = kernels.resolve_padding(padding, x.shape[1:3], (window, window), 1)
    rows, columns = (
        _window_means(size, one, window) for size, one in zip(x.shape[1:3], pads, strict=True)
    )
    return _along_axes(x, rows, columns)


def adaptive_average_pool(x: jax.Array, outputs: tuple[int, int]) -> jax.Array:
    """Mean over as many windows as asked for, PyTorch's AdaptiveAvgPool2d: (n, h, w, c) to it."""
    if x.shape[1:3] == outputs:
        return x
    rows, columns = (
        _adaptive_means(size, count) for size, count in zip(x.shape[1:3], outputs, strict=True)
    )
    return _along_axes(x, rows, columns)


def _along_axes(x: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    # As products with matrices of means, whose gradients are products too.
    matrices = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
    return jnp.einsum("ah,bw,nhwc->nabc", *matrices, x, optimize="optimal")


def _window_means(size: int, pads: tuple[int, int], window: int) -> np.ndarray:
    starts = np.arange(size + sum(pads) - window + 1)[:, None] - pads[0]
    places = np.arange(size)[None]
    inside = (places >= starts) & (places < starts + window)
    return (inside / window).astype(np.float32)


def _adaptive_means(size: int, outputs: int) -> np.ndarray:
    cells = np.arange(outputs)[:, None]
    starts, ends = cells * size // outputs, -(-(cells + 1) * size // outputs)
    places = np.arange(size)[None]
    inside = (places >= starts) & (places < ends)
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
