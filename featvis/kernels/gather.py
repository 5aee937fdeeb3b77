"""Gathers whose gradient is as fast as they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from featvis.kernels.keeping import on_cpu

#: Of a gather: its indices have 32 bits.
LARGEST_INDEX = 2**31 - 1


def take(values: Array, index: Array) -> Array:
    """`values` (m,) at an index, which is from 0 to m - 1 and not checked.

    Several at once (`jax.vmap`) are one gather of one long row: with an axis for the images, XLA's
    CPU code makes an array of coordinates first.

    Args:
        values: (m,).
        index: integers of any shape.
    """
    if not on_cpu():
        return values.at[index].get(mode="promise_in_bounds")
    return _traced_once(values, index)


def take_rows(values: Array, index: Array) -> Array:
    """The rows of `values` (m, c) at an index (k,) from 0 to m - 1, which is not checked: (k, c).

    For what has a derivative of its own: this has none.
    """
    if not on_cpu():
        return values.at[index].get(mode="promise_in_bounds")
    return _gather(values, index)


@jax.jit
def _traced_once(values: Array, index: Array) -> Array:
    """`_take`, traced and lowered once for all takes of one shape in a program."""
    return _take(values, index)


@jax.custom_vjp
def _take(values: Array, index: Array) -> Array:
    return _gather(values, index)


@jax.custom_batching.custom_vmap
def _gather(values: Array, index: Array) -> Array:
    return values.at[index].get(mode="promise_in_bounds")


@_gather.def_vmap
def _gather_several(
    count: int, batched: list[bool], values: Array, index: Array
) -> tuple[Array, bool]:
    if count * values.shape[1 if batched[0] else 0] > LARGEST_INDEX:
        axes = [0 if has_axis else None for has_axis in batched]
        return jax.vmap(lambda v, i: v[i], axes)(values, index), True
    return _gather(*_in_one_row(count, batched, values, index)), True


@jax.custom_batching.custom_vmap
def _scatter(zeros: Array, index: Array, gradient: Array) -> Array:
    return zeros.at[index].add(gradient, mode="promise_in_bounds")


@_scatter.def_vmap
def _scatter_several(
    count: int, batched: list[bool], zeros: Array, index: Array, gradient: Array
) -> tuple[Array, bool]:
    if count * zeros.shape[-1] > LARGEST_INDEX:
        axes = [0 if has_axis else None for has_axis in batched]
        add = jax.vmap(lambda z, i, g: z.at[i].add(g), axes)
        return add(zeros, index, gradient), True
    row, index = _in_one_row(count, batched[:2], zeros, index)
    if not batched[2]:
        gradient = jnp.broadcast_to(gradient, (count, *gradient.shape))
    return _scatter(row, index, gradient).reshape(count, -1), True


def _in_one_row(count: int, batched: list[bool], row: Array, index: Array) -> tuple[Array, Array]:
    """Rows (count, m, ...) as one (count·m, ...), and the indices into them."""
    row, index = (
        value if has_axis else jnp.broadcast_to(value, (count, *value.shape))
        for value, has_axis in zip((row, index), batched, strict=True)
    )
    firsts = row.shape[1] * jnp.arange(count, dtype=index.dtype)
    return row.reshape(-1, *row.shape[2:]), index + firsts.reshape(-1, *[1] * (index.ndim - 1))


def _take_fwd(values: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
    return _gather(values, index), (jnp.zeros_like(values), index)


def _take_bwd(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    return _scatter(*residuals, gradient), None


_take.defvjp(_take_fwd, _take_bwd)
