"""A traced program with the operations that XLA is slow at on a CPU made by kernels of ours.

It is the last that happens to a program before it is compiled, after all derivatives were taken:
so every network has the kernels, whoever wrote it, and what reads programs sees JAX's own
operations. Nothing is traced again: an equation has another primitive, and that is all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import Array
from jax.extend import core
from jax.interpreters import mlir

from featvis.kernels.dense import dense
from featvis.kernels.pooling import pool, pool_gradient
from featvis.kernels.products import few_rows
from featvis.kernels.threefry import bits

Kernel = Callable[..., Array]
"""What gives an equation's result from its inputs; equal ones are lowered once a program."""

_kernel = core.Primitive("featvis_kernel")
_kernel.def_impl(lambda *inputs, kernel, like: kernel(*inputs))  # for `jax_debug_nans`
_kernel.def_abstract_eval(lambda *inputs, kernel, like: like)
mlir.register_lowering(
    _kernel,
    mlir.lower_fun(lambda *inputs, kernel, like: kernel(*inputs), multiple_results=False),
)

#: By the name of a primitive, the kernel for an equation and how often it runs, or None.
_RULES: dict[str, Callable[[Any, bool], Kernel | None]] = {
    "conv_general_dilated": dense,
    "dot_general": few_rows,
    "random_bits": bits,
    "reduce_window_max": pool,
    "select_and_scatter_add": pool_gradient,
}

#: What runs the programs in it many times.
_LOOPS = frozenset({"scan", "while"})


def replaced(program: Any, repeated: bool = False) -> Any:
    """A program, closed or not, with our kernels in it and in the programs inside.

    Args:
        program: of which all derivatives that there will be were taken.
        repeated: whether it is run many times with the same weights, as in a loop.
    """
    within = getattr(program, "jaxpr", program)
    if within is not program:  # A closed one; from jax 0.12 on both are one class.
        inner = replaced(within, repeated)
        return program if inner is within else program.replace(jaxpr=inner)
    eqns = [_replaced(eqn, repeated) for eqn in program.eqns]
    same = all(new is old for new, old in zip(eqns, program.eqns, strict=True))
    return program if same else program.replace(eqns=eqns)


def _replaced(eqn: Any, repeated: bool) -> Any:
    name = eqn.primitive.name
    kernel = _RULES[name](eqn, repeated) if name in _RULES else None
    if kernel is not None:
        like = eqn.outvars[0].aval
        return eqn.replace(primitive=_kernel, params={"kernel": kernel, "like": like})
    repeated = repeated or name in _LOOPS
    changed = {}
    for key, value in eqn.params.items():
        several = value if isinstance(value, tuple) else (value,)
        if not any(isinstance(one, (core.Jaxpr, core.ClosedJaxpr)) for one in several):
            continue
        new = tuple(
            replaced(one, repeated) if isinstance(one, (core.Jaxpr, core.ClosedJaxpr)) else one
            for one in several
        )
        if any(a is not b for a, b in zip(new, several, strict=True)):
            changed[key] = new if isinstance(value, tuple) else new[0]
    return eqn.replace(params={**eqn.params, **changed}) if changed else eqn
