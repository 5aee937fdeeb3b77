"""Rectifiers with another gradient.

A ReLU whose inputs are all negative passes no gradient, and the optimisation cannot start. As in
lucid, where nothing gets through a rectifier for an image, the part of the gradient that would
bring its inputs back into range is let through instead: `redirected`.

A picture of what made a score high lets a ReLU pass the gradients that are positive, those at
positive values, or both: `deconvolved`, the gradient itself, and `guided`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from featvis.errors import InputError
from featvis.jaxprs.evaluate import bind, evaluate
from featvis.jaxprs.liveness import pruned
from featvis.jaxprs.rectifiers import Bound, Change, Function, Known, Rectifier, walk
from featvis.jaxprs.taps import REMATS


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


def deconvolved(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the gradient of a DeconvNet: a ReLU passes what is positive of a gradient.

    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks": whatever went into
    the ReLU. A bound above (ReLU6) and max pools keep their gradient. Rectifiers are those of
    `redirected`.

    Raises:
        InputError: when called, there is no rectifier on the way to what it gives.
    """
    return _lawful(function, _deconvolved)


def guided(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with guided gradients: an open ReLU passes what is positive of one.

    Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional Net", section 3.4.
    Otherwise as `deconvolved`.
    """
    return _lawful(function, _guided)


def guided_everywhere(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with guided gradients, of which max pools too pass what is positive alone.

    Pools are maxima over axes, over windows and of two arrays, in `jit` and `remat` too, not in
    loops and branches.
    """

    def changed(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(args)]
        out = _with_pools(closed.jaxpr, closed.consts, leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return guided(changed)


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
    return _by_law(_redirected, steps, x, g)


_Law = Callable[[jax.Array, Bound, jax.Array], jax.Array]
"""(where a bound is open, the bound, the gradient after it) to the gradient before it."""


def _redirected(open_: jax.Array, bound: Bound, g: jax.Array) -> jax.Array:
    through = jnp.where(open_, g, 0)
    nothing = jnp.all(through == 0, axis=tuple(range(1, g.ndim)), keepdims=True)
    helps = ~open_ & (g > 0 if bound.lower else g < 0)
    return jnp.where(nothing & helps, g, through)


def _deconvolved(open_: jax.Array, bound: Bound, g: jax.Array) -> jax.Array:
    return jnp.maximum(g, 0) if bound.lower else jnp.where(open_, g, 0)


def _guided(open_: jax.Array, bound: Bound, g: jax.Array) -> jax.Array:
    return jnp.where(open_, jnp.maximum(g, 0) if bound.lower else g, 0)


def _by_law(law: _Law, steps: _Steps, x: jax.Array, g: jax.Array) -> jax.Array:
    """The gradient by `x`, bound by bound."""
    inputs = [x]
    for part, _ in steps[:-1]:
        inputs.append(part(inputs[-1]))
    for x_, (_, bound) in zip(reversed(inputs), reversed(steps), strict=True):
        g = law(x_ > bound.at if bound.lower else x_ < bound.at, bound, g)
    return g


def _lawful(function: Callable[..., Any], law: _Law) -> Callable[..., Any]:
    """`function` whose rectifiers all have the gradient of a law."""
    found: list[Rectifier] = []

    def change(one: Rectifier) -> jax.Array:
        found.append(one)
        steps = tuple(zip(one.parts, one.bounds, strict=True))
        return _with_law(one.plain, steps, law, one.x.value)

    def changed(*args: Any) -> Any:
        found.clear()
        out = with_rectifiers(pruned(function), change)(*args)
        if not found:
            raise InputError(
                "DeconvNet's and guided gradients are those of other ReLUs, and there is none "
                "between the image and the score: gradients (integrated_gradients) or relevance "
                "(lrp_epsilon) go through any function"
            )
        return out

    return functools.wraps(function)(changed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _with_law(ordinary: Function, steps: _Steps, law: _Law, x: jax.Array) -> jax.Array:
    return ordinary(x)


_with_law.defvjp(
    lambda ordinary, steps, law, x: (ordinary(x), x),
    lambda ordinary, steps, law, x, g: (_by_law(law, steps, x, g),),
)


@jax.custom_vjp
def _positive(x: jax.Array) -> jax.Array:
    """The same, with what is positive of its gradient."""
    return x


_positive.defvjp(lambda x: (x, None), lambda _, g: (jnp.maximum(g, 0),))


def _with_pools(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
        name = eqn.primitive.name
        if name == "jit":
            return _with_pools(eqn.params["jaxpr"].jaxpr, eqn.params["jaxpr"].consts, inputs)
        if name in REMATS:
            return _with_pools(eqn.params["jaxpr"], (), inputs)
        if name in ("max", "reduce_max", "reduce_window_max"):
            return [_positive(one) for one in bind(eqn, inputs)]
        return None

    return evaluate(jaxpr, consts, args, rule)
