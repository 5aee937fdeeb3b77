"""Values that XLA is kept from making again on a CPU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir


def on_cpu() -> bool:
    """Whether to use the kernels of this file: the one place where this is decided."""
    return jax.default_backend() == "cpu"


def kept(values: Any) -> Any:
    """The same values, written to memory on a CPU: what reads them does not make them again.

    XLA would merge what makes them into each of its readers. It never merges anything into a loop;
    so the values go through one that hardly ever has a round, which XLA cannot know, and whose
    round changes nothing. Derivatives and `vmap` go through as if there was nothing.

    Args:
        values: any pytree of arrays.
    """
    leaves, tree = jax.tree.flatten(values)
    return jax.tree.unflatten(tree, _kept.bind(*leaves)) if leaves else values


_kept = core.Primitive("featvis_kept")
_kept.multiple_results = True
_kept.def_impl(lambda *values: list(values))
_kept.def_abstract_eval(lambda *values: list(values))
ad.primitive_jvps[_kept] = lambda values, tangents: (_kept.bind(*values), list(tangents))
batching.primitive_batchers[_kept] = lambda values, axes: (_kept.bind(*values), axes)


mlir.register_lowering(_kept, lambda context, *values: list(values))


def _out_of_a_loop(*values: Array) -> list[Array]:
    place = next((place for place, value in enumerate(values) if value.size), None)
    if place is None:
        return list(values)

    def goes_on(carry: tuple[Array, list[Array]]) -> Array:
        done, values = carry
        return ~done & (_first(values[place]).reshape(()) == _largest(values[place].dtype))

    def unchanged(carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        done, values = carry
        # Not done, in every round there is, which XLA cannot know either.
        return jnp.bool_(True), [_with_its_first(value, ~done) for value in values]

    return lax.while_loop(goes_on, unchanged, (jnp.bool_(False), list(values)))[1]


def _first(value: Array) -> Array:
    return lax.slice(value, [0] * value.ndim, [1] * value.ndim)


def _with_its_first(value: Array, same: Array) -> Array:
    """A value whose first number is written where it is: of all loops the least to compile."""
    if not value.size:
        return value
    first = _first(value)
    number = lax.select(lax.broadcast(same, first.shape), first, lax.full_like(first, 0))
    return lax.dynamic_update_slice(value, number, [jnp.int32(0)] * value.ndim)


mlir.register_lowering(_kept, mlir.lower_fun(_out_of_a_loop, multiple_results=True), platform="cpu")


def _largest(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, np.bool_):
        return True
    limits = jnp.iinfo if jnp.issubdtype(dtype, np.integer) else jnp.finfo
    return np.asarray(limits(dtype).max, dtype)
