"""Redirected rectifiers: a gradient for units that are off everywhere in the first picture.

A ReLU whose inputs are all negative passes no gradient, and the optimisation cannot start. As in
lucid, where nothing gets through a rectifier for an image, the part of the gradient that would
bring its inputs back into range is let through instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core


def redirected(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with redirected gradients at every max(x, 0) and min(x, 6) in it.

    It is a transformation of the traced program, so that any network has it without edits. The
    first axis of each rectifier's input is the images'. Rectifiers inside scans, conditionals and
    functions with a gradient of their own are left as they are. Gradients must be of something
    that is maximised.
    """

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        out = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return wrapped


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        inner = _inlined(eqn)
        rectifier = _rectifier(eqn)
        if rectifier is not None:
            outputs = [rectifier(inputs[0])]
        elif inner is not None:
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs)
        else:
            params = eqn.primitive.get_bind_params(eqn.params)
            outputs = eqn.primitive.bind(*inputs, **params)
            outputs = outputs if eqn.primitive.multiple_results else [outputs]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _inlined(eqn: Any) -> Any:
    """The program inside an equation, where evaluating it in place means the same."""
    if eqn.primitive.name in ("jit", "pjit"):
        return eqn.params["jaxpr"]
    if eqn.primitive.name == "custom_jvp_call":
        inner = eqn.params["call_jaxpr"]
        return inner if _only_rectifies(inner.jaxpr) else None
    return None


def _only_rectifies(jaxpr: Any) -> bool:
    """Whether a program with a gradient rule of its own is a ReLU or a ReLU6."""
    inner = [_inlined(eqn) for eqn in jaxpr.eqns]
    return bool(jaxpr.eqns) and all(
        _rectifier(eqn) is not None or (program is not None and _only_rectifies(program.jaxpr))
        for eqn, program in zip(jaxpr.eqns, inner, strict=True)
    )


def _rectifier(eqn: Any) -> Callable[[jax.Array], jax.Array] | None:
    name = eqn.primitive.name
    if name not in ("max", "min") or not isinstance(eqn.invars[1], core.Literal):
        return None
    bound = np.asarray(eqn.invars[1].val)
    if bound.ndim or not eqn.invars[0].aval.ndim:
        return None
    if name == "max" and bound == 0:
        return _from_zero
    return _up_to_six if name == "min" and bound == 6 else None


@jax.custom_vjp
def _from_zero(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


@jax.custom_vjp
def _up_to_six(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, 6)


def _redirect(open_: jax.Array, helps: jax.Array, g: jax.Array) -> jax.Array:
    through = jnp.where(open_, g, 0)
    nothing = jnp.all(through == 0, axis=tuple(range(1, g.ndim)), keepdims=True)
    return jnp.where(nothing & helps, g, through)


_from_zero.defvjp(
    lambda x: (jnp.maximum(x, 0), x), lambda x, g: (_redirect(x > 0, (x <= 0) & (g > 0), g),)
)
_up_to_six.defvjp(
    lambda x: (jnp.minimum(x, 6), x), lambda x, g: (_redirect(x < 6, (x >= 6) & (g < 0), g),)
)
