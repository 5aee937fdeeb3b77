"""Compiled programs: options of XLA that a sweep has shown to be right, and values kept."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import Array, lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from featvis.errors import NonFiniteError

Option = str | int | bool
"""What an option of XLA's is set to."""

#: Matrix products by Eigen in place of YNNPACK: as fast for many rows, a quarter faster for few.
OPTIONS: dict[str, Option] = {"xla_cpu_experimental_ynn_fusion_type": ""}

#: Where `experiments/compiler_sweep.py` found the options right: jaxlib's version and `processor`.
SWEPT = {
    ("0.10.2", "x86_64 avx2"),
    ("0.10.2", "x86_64 avx512"),
    ("0.12.0.1", "x86_64 avx2"),
    ("0.12.0.1", "x86_64 avx512"),
}


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


def compiled(function: Callable[..., Any], static: Sequence[str] = ()) -> Any:
    """`jax.jit` of what runs a network, with `compiler_options`.

    Args:
        function: to compile, at its first call: importing featvis starts no device.
        static: names of its arguments that are no arrays.
    """
    static_names = tuple(static)
    inner = jax.jit(function, static_argnames=static_names)

    @functools.cache
    def program(options: tuple[tuple[str, Option], ...]) -> Any:
        return jax.jit(function, static_argnames=static_names, compiler_options=dict(options))

    def here() -> Any:
        return program(tuple(compiler_options().items()))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # A new array is abstract where a program is being traced.
        leaves = [jnp.zeros(()), *jax.tree.leaves((args, kwargs))]
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return inner(*args, **kwargs)  # Part of another's program, whose options it has.
        try:
            return here()(*args, **kwargs)
        except FloatingPointError as error:  # Looked for by `jax_debug_nans`, `jax_debug_infs`.
            reason = str(error).strip().splitlines()[0]
            raise NonFiniteError(f"NaN or infinity in what the network gives: {reason}") from error

    call.lower = lambda *args, **kwargs: here().lower(*args, **kwargs)  # type: ignore[attr-defined]
    return call


def compiler_options() -> dict[str, Option]:
    """XLA's options for programs that run a network: where a sweep has found them right, or none.

    An option of XLA that is right in one version miscompiles or crashes in the next; without any,
    programs are a little slower and right.
    """
    if on_cpu() and (jaxlib.__version__, processor()) in SWEPT:
        return dict(OPTIONS)
    return {}


@functools.cache
def processor() -> str:
    """What XLA writes code for: the machine's kind, and the widest vectors of an x86-64."""
    machine = platform.machine()
    flags = Path("/proc/cpuinfo")
    if machine == "x86_64" and flags.exists():
        words = set(flags.read_text(errors="replace").split())
        widest = next((name for name in ("avx512", "avx2") if words & {name, f"{name}f"}), "")
        return f"{machine} {widest}".strip()
    return machine
