"""Rectifiers with another gradient.

A ReLU whose inputs are all negative passes no gradient, and the optimisation cannot start. As in
lucid, where nothing gets through a rectifier for an image, the part of the gradient that would
bring its inputs back into range is let through instead: `redirected`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from featvis.jaxprs.rectifiers import Bound, Change, Function, Known, Rectifier, walk


def redirected(function: Callable[..., Any], dead: jax.Array) -> Callable[..., Any]:
    """`function` with redirected gradients for some images at every max(x, 0) and min(x, 6) in it.

    It is a transformation of the traced program, so that any network has it without edits.
    Rectifiers are those that `featvis.jaxprs.rectifiers` finds: `jax.nn.relu`, `relu6`,
    `hard_tanh`, `jnp.maximum`, `jnp.clip`, `lax.clamp`, `where(x > 0, x, 0)`, `x * (x > 0)`, and
    functions with a gradient of their own that do only this, also in `jit`, `remat`, `scan` and
    `cond`. The two bounds of one are redirected one by one. Left as they are: a rectifier whose
    bound is no number of the program (a weight, say), one in a `while_loop`, and one whose input's
    first axis is not as long as `dead`.

    Args:
        function: of arrays to arrays; the first axis of its rectifiers' inputs is the images'.
            Gradients must be of something that is maximised.
        dead: bool (n,). Images where it is False have the ordinary gradient of `function`.
    """

    def change(found: Rectifier) -> jax.Array | None:
        if found.x.value.shape[0] != len(dead):
            return None
        steps = tuple(zip(found.parts, found.bounds, strict=True))
        return _for_the_dead(found.plain, steps, found.x.value, dead)

    return functools.wraps(function)(with_rectifiers(function, change))


def with_rectifiers(function: Callable[..., Any], change: Change) -> Callable[..., Any]:
    """`function` with its rectifiers changed."""

    def changed(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = [Known(jnp.asarray(leaf)) for leaf in jax.tree.leaves(args)]
        out = walk(closed.jaxpr, closed.consts, leaves, change)
        return jax.tree.unflatten(jax.tree.structure(shape), [one.value for one in out])

    return changed


_Steps = tuple[tuple[Function, Bound], ...]
"""A rectifier bound by bound, the first applied first."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _for_the_dead(ordinary: Function, steps: _Steps, x: jax.Array, dead: jax.Array) -> jax.Array:
    return ordinary(x)


def _for_the_dead_backward(
    ordinary: Function, steps: _Steps, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, None]:
    x, dead = kept
    (plain,), turned = jax.vjp(ordinary, x)[1](g), _redirect(steps, x, g)
    return jnp.where(dead.reshape(-1, *[1] * (x.ndim - 1)), turned, plain), None


_for_the_dead.defvjp(
    lambda ordinary, steps, x, dead: (ordinary(x), (x, dead)), _for_the_dead_backward
)


def _redirect(steps: _Steps, x: jax.Array, g: jax.Array) -> jax.Array:
    """The gradient by `x`: where a bound lets nothing through, what would bring `x` back to it."""
    inputs = [x]
    for part, _ in steps[:-1]:
        inputs.append(part(inputs[-1]))
    for x_, (_, bound) in zip(reversed(inputs), reversed(steps), strict=True):
        open_ = x_ > bound.at if bound.lower else x_ < bound.at
        through = jnp.where(open_, g, 0)
        nothing = jnp.all(through == 0, axis=tuple(range(1, g.ndim)), keepdims=True)
        helps = ~open_ & (g > 0 if bound.lower else g < 0)
        g = jnp.where(nothing & helps, g, through)
    return g
