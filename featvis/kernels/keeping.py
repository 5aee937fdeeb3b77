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
        first = lax.slice(values[place], [0] * values[place].ndim, [1] * values[place].ndim)
        return (done < 1) & (first.reshape(()) == _largest(first.dtype))

    def unchanged(carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        done, values = carry
        kept = done < 1  # In every round there is, which XLA cannot know either.
        same = [
            lax.select(lax.broadcast(kept, value.shape), value, lax.full_like(value, 0))
            for value in values
        ]
        return done + 1, same

    return lax.while_loop(goes_on, unchanged, (jnp.int32(0), list(values)))[1]


mlir.register_lowering(_kept, mlir.lower_fun(_out_of_a_loop, multiple_results=True), platform="cpu")


def _largest(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, np.bool_):
        return True
    limits = jnp.iinfo if jnp.issubdtype(dtype, np.integer) else jnp.finfo
    return np.asarray(limits(dtype).max, dtype)
