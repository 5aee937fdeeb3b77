"""Gathers whose gradient is as fast as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from featvis.kernels.keeping import on_cpu

#: Of a gather: its indices have 32 bits.
LARGEST_INDEX = 2**31 - 1


def take(values: Array, index: Array, offset: int = 0) -> Array:
    """`values` (m,) at `index + offset`, which is from 0 to m - 1 and not checked.

    Several at once (`jax.vmap`) are one gather of one long row: with an axis for the images, XLA's
    CPU code makes an array of coordinates first.

    Args:
        values: (m,).
        index: integers of any shape.
        offset: the same for all.
    """
    if not on_cpu():
        return values.at[index + offset].get(mode="promise_in_bounds")
    return _take(offset, values, index)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _take(offset: int, values: Array, index: Array) -> Array:
    return _gather(offset)(values, index)


@functools.cache
def _gather(offset: int) -> Callable[[Array, Array], Array]:
    @jax.custom_batching.custom_vmap
    def gather(values: Array, index: Array) -> Array:
        return values.at[index + offset].get(mode="promise_in_bounds")

    @gather.def_vmap
    def several(count: int, batched: list[bool], values: Array, index: Array) -> tuple[Array, bool]:
        if count * values.shape[-1] > LARGEST_INDEX:
            axes = [0 if has_axis else None for has_axis in batched]
            return jax.vmap(lambda v, i: v[i + offset], axes)(values, index), True
        return gather(*_in_one_row(count, batched, values, index)), True

    return gather


@functools.cache
def _scatter(offset: int) -> Callable[[Array, Array, Array], Array]:
    @jax.custom_batching.custom_vmap
    def scatter(zeros: Array, index: Array, gradient: Array) -> Array:
        return zeros.at[index + offset].add(gradient, mode="promise_in_bounds")

    @scatter.def_vmap
    def several(
        count: int, batched: list[bool], zeros: Array, index: Array, gradient: Array
    ) -> tuple[Array, bool]:
        if count * zeros.shape[-1] > LARGEST_INDEX:
            axes = [0 if has_axis else None for has_axis in batched]
            add = jax.vmap(lambda z, i, g: z.at[i + offset].add(g), axes)
            return add(zeros, index, gradient), True
        row, index = _in_one_row(count, batched[:2], zeros, index)
        if not batched[2]:
            gradient = jnp.broadcast_to(gradient, (count, *gradient.shape))
        return scatter(row, index, gradient).reshape(count, -1), True

    return scatter


def _in_one_row(count: int, batched: list[bool], row: Array, index: Array) -> tuple[Array, Array]:
    """Rows (count, m) as one (count·m,), and the indices into them."""
    row, index = (
        value if has_axis else jnp.broadcast_to(value, (count, *value.shape))
        for value, has_axis in zip((row, index), batched, strict=True)
    )
    firsts = row.shape[1] * jnp.arange(count, dtype=index.dtype)
    return row.reshape(-1), index + firsts.reshape(-1, *[1] * (index.ndim - 1))


def _take_fwd(offset: int, values: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
    return _take(offset, values, index), (jnp.zeros_like(values), index)


def _take_bwd(offset: int, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    return _scatter(offset)(*residuals, gradient), None


_take.defvjp(_take_fwd, _take_bwd)
