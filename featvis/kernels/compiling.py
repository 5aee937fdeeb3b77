"""Compiled programs: with our kernels, and options of XLA that a sweep has shown to be right."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
from jax.extend import core

from featvis.errors import NonFiniteError
from featvis.kernels.keeping import on_cpu
from featvis.kernels.replacing import replaced

Option = str | int | bool
"""What an option of XLA's is set to."""

#: Matrix products by Eigen in place of YNNPACK: as fast for many rows, a quarter faster for few,
#: but for those by a matrix that lies turned (`products`).
OPTIONS: dict[str, Option] = {"xla_cpu_experimental_ynn_fusion_type": ""}

#: Where `experiments/compiler_sweep.py` found the options right: jaxlib's version and `processor`.
SWEPT = {
    ("0.10.2", "x86_64 avx2"),
    ("0.10.2", "x86_64 avx512"),
    ("0.12.0.1", "x86_64 avx2"),
    ("0.12.0.1", "x86_64 avx512"),
}


def compiled(function: Callable[..., Any], static: Sequence[str] = (), plain: bool = False) -> Any:
    """`jax.jit` of what runs a network, with the kernels of this room and `compiler_options`.

    Args:
        function: to compile, at its first call: importing featvis starts no device.
        static: names of its arguments that are no arrays.
        plain: whether all operations are XLA's. Where it matters what is 0, they have to be: what
            our kernels give is within rounding, also next to where a gradient ends.
    """
    static_names = tuple(static)
    inner = jax.jit(function, static_argnames=static_names)

    @functools.wraps(function)
    def whole(*args: Any, **kwargs: Any) -> Any:
        if plain or not on_cpu():
            return function(*args, **kwargs)
        bound = inspect.signature(function).bind(*args, **kwargs)
        given = {name: bound.arguments[name] for name in {*bound.arguments} - {*static}}
        return _with_kernels(function, bound, given)

    @functools.cache
    def program(options: tuple[tuple[str, Option], ...]) -> Any:
        return jax.jit(whole, static_argnames=static_names, compiler_options=dict(options))

    def here() -> Any:
        return program(tuple(compiler_options().items()))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # A new array is abstract where a program is being traced.
        leaves = [jnp.zeros(()), *jax.tree.leaves((args, kwargs))]
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return inner(*args, **kwargs)  # Part of another's program, whose options it has.
        try:
            with _no_collection():
                return here()(*args, **kwargs)
        except FloatingPointError as error:  # Looked for by `jax_debug_nans`, `jax_debug_infs`.
            reason = str(error).strip().splitlines()[0]
            raise NonFiniteError(f"NaN or infinity in what the network gives: {reason}") from error

    begun = set[Any]()

    def ahead(*args: Any, **kwargs: Any) -> None:
        leaves, structure = jax.tree.flatten((args, kwargs))
        kind = here(), structure, tuple(map(jax.typeof, leaves))
        if kind not in begun:
            begun.add(kind)
            # Traced here, where this thread's settings of JAX hold.
            with _no_collection():
                lowered = here().lower(*args, **kwargs)
            threading.Thread(target=_tried, args=(lowered.compile,)).start()

    call.lower = lambda *args, **kwargs: here().lower(*args, **kwargs)  # type: ignore[attr-defined]
    call.ahead = ahead  # type: ignore[attr-defined]
    return call


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's search for garbage in cycles, a fifth of the time of tracing a program."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _tried(compile: Callable[[], Any]) -> None:
    """Compiles where nobody waits for it: the call that does compiles again, and fails aloud."""
    with contextlib.suppress(Exception):
        compile()


def _with_kernels(function: Any, bound: inspect.BoundArguments, given: dict[str, Any]) -> Any:
    """What a function gives for arguments, of which some are traced, with our kernels in it."""

    def call(given: dict[str, Any]) -> Any:
        # A copy: what is traced must not outlive its trace.
        own = inspect.BoundArguments(bound.signature, {**bound.arguments, **given})
        return function(*own.args, **own.kwargs)

    program, shape = jax.make_jaxpr(call, return_shape=True)(given)
    out = core.jaxpr_as_fun(replaced(program))(*jax.tree.leaves(given))
    return jax.tree.unflatten(jax.tree.structure(shape), out)


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
