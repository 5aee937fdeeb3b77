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

from featvis.programs import bind, evaluate

_Function = Callable[[jax.Array], jax.Array]


def redirected(function: Callable[..., Any], dead: jax.Array) -> Callable[..., Any]:
    """`function` with redirected gradients for some images at every max(x, 0) and min(x, 6) in it.

    It is a transformation of the traced program, so that any network has it without edits. A
    rectifier is a `max` with the constant 0 or a `min` with the constant 6, the constant on either
    side: `jax.nn.relu`, `jax.nn.relu6`, `jnp.maximum`, `jnp.minimum` and `jnp.clip`. The bounds of
    a ReLU6 are redirected one by one. Left as they are: rectifiers written otherwise
    (`where(x > 0, x, 0)`, `jax.lax.clamp`, `maximum(x, zeros_like(x))`), those inside scans,
    conditionals and functions with a gradient of their own, and those whose input's first axis is
    not as long as `dead`.

    Args:
        function: of arrays to arrays; the first axis of its rectifiers' inputs is the images'.
            Gradients must be of something that is maximised.
        dead: bool (n,). Images where it is False have the ordinary gradient of `function`.
    """

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        # As JAX arrays: what is none is a constant of the program.
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(args)]
        out = _evaluate(closed.jaxpr, closed.consts, leaves, dead)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return wrapped


def _evaluate(
    jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], dead: jax.Array | None
) -> list[Any]:
    """Evaluates a program with redirected rectifiers; for all images where `dead` is None."""

    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
        name = eqn.primitive.name
        found = _rectifier(eqn, inputs)
        if found is not None:
            x, redirect = found
            if dead is None:
                return [redirect(x)]
            if x.shape[0] == len(dead):
                return [_for_the_dead(_ordinary(eqn, inputs, x), redirect, x, dead)]
        elif name == "jit":
            inner = eqn.params["jaxpr"]
            return _evaluate(inner.jaxpr, inner.consts, inputs, dead)
        elif name == "convert_element_type" and _is_constant(inputs[0]):
            # Kept a constant: `jnp.clip` converts its bounds so.
            return [np.asarray(inputs[0], eqn.params["new_dtype"])]
        return None

    return evaluate(jaxpr, consts, args, rule)


def _is_constant(value: Any) -> bool:
    return not isinstance(value, jax.Array) and np.ndim(value) == 0


def _ordinary(eqn: Any, inputs: Sequence[Any], x: jax.Array) -> _Function:
    """The equation as a function of `x`, which is one of its inputs."""
    return lambda new: bind(eqn, [new if value is x else value for value in inputs])[0]


def _rectifier(eqn: Any, inputs: Sequence[Any]) -> tuple[jax.Array, _Function] | None:
    """The input of a rectifier and the redirected rectifier; None for another equation."""
    if eqn.primitive.name == "custom_jvp_call":
        inner = eqn.params["call_jaxpr"]
        if len(inputs) != 1 or not inputs[0].ndim or not _only_rectifies(inner.jaxpr):
            return None
        return inputs[0], lambda x: _evaluate(inner.jaxpr, inner.consts, [x], None)[0]
    if eqn.primitive.name not in ("max", "min"):
        return None
    x, bound = inputs if _is_constant(inputs[1]) else inputs[::-1]
    if _is_constant(x) or not _is_constant(bound) or not x.ndim:
        return None
    rule = {("max", 0.0): _from_zero, ("min", 6.0): _up_to_six}
    found = rule.get((eqn.primitive.name, float(bound)))
    return None if found is None else (x, found)


def _only_rectifies(jaxpr: Any) -> bool:
    """Whether a program with a gradient rule of its own is a ReLU or a ReLU6."""
    return bool(jaxpr.eqns) and all(
        _only_rectifies(eqn.params["jaxpr"].jaxpr)
        if eqn.primitive.name == "jit"
        else _rectifier(eqn, [getattr(v, "val", v.aval) for v in eqn.invars]) is not None
        for eqn in jaxpr.eqns
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _for_the_dead(ordinary: _Function, rule: _Function, x: jax.Array, dead: jax.Array) -> jax.Array:
    return ordinary(x)


def _for_the_dead_backward(
    ordinary: _Function, rule: _Function, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, None]:
    x, dead = kept
    (plain,), (turned,) = jax.vjp(ordinary, x)[1](g), jax.vjp(rule, x)[1](g)
    return jnp.where(dead.reshape(-1, *[1] * (x.ndim - 1)), turned, plain), None


_for_the_dead.defvjp(
    lambda ordinary, rule, x, dead: (ordinary(x), (x, dead)), _for_the_dead_backward
)


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
