"""Update rules of the natural pre-image papers, as optax transformations with a text form.

Mahendran & Vedaldi 2015 ("Understanding Deep Image Representations by Inverting Them", CVPR) and
2016 ("Visualizing Deep Convolutional Neural Networks Using Natural Pre-images", IJCV). Both rules
forget their momentum whenever the rate changes. The IJCV inversion, 300 iterations with jitter and
50 at a tenth of the rate, at h·w = 224², B = 80, alpha = 6::

    preimage_adagrad(stepwise_schedule((2.68e6, 2.68e5), (300, 50)))

The CVPR inversion of a network's layers, 100, 200 and 100 iterations::

    preimage_momentum(stepwise_schedule((0.004, 0.0004, 0.00004), (100, 200, 100)), 106.27)

Other published rules need nothing of ours. Model metamers (Feather et al. 2023): a step of L2
length 1 along the gradient, halved every 3000 iterations::

    chain(normalize_by_update_norm(), sgd(exponential_decay(1.0, 3000, 0.5, staircase=True)))
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from featvis.errors import InputError


class PreimageState(NamedTuple):
    """What a rule hands to its next step; the trees have the structure of the parameters."""

    step: jax.Array
    rate: jax.Array  # of the step before
    momentum: Any
    squares: Any  # decayed sums of squared gradients; None for the rule without them


def preimage_adagrad(
    learning_rate: float | optax.Schedule,
    momentum: float = 0.9,
    decay: float = 0.9,
    scale: float = 255.0,
) -> optax.GradientTransformation:
    """The "AdaGrad" of the natural pre-images (Mahendran & Vedaldi, IJCV 2016).

    With the gradient g of the energy by x: G ← decay·G + g², m ← momentum·m − g/(1/rate + √G),
    x ← x + m. Here x = scale·params: rate and energy are as in the paper, whose pixels are in
    units of 1/255 of ours, and the parameters take the very steps of the paper's.

    Args:
        learning_rate: above 0; the paper's is 0.05·h·w·B²/alpha (B = 80 and alpha = 6 are its
            colour range and norm). Or an optax schedule: where the rate differs from that of the
            step before, m starts again from 0 and G goes on.
        momentum: what is kept of m, from 0 to below 1.
        decay: what is kept of G, from 0 to 1.
        scale: units of the rule in one unit of the parameters, above 0.

    Raises:
        InputError: an argument out of range.
    """
    _check("decay", decay, "a number from 0 to 1", lambda value: 0 <= value <= 1)
    _check("scale", scale, "a number above 0", lambda value: value > 0)

    def accumulate(gradient: Any, squares: Any) -> Any:
        return jax.tree.map(lambda g, total: decay * total + (g / scale) ** 2, gradient, squares)

    def descent(gradient: Any, squares: Any, rate: jax.Array) -> Any:
        return jax.tree.map(
            lambda g, total: g / scale / (1 / rate + jnp.sqrt(total)) / scale, gradient, squares
        )

    return _resetting(learning_rate, momentum, _zeros, accumulate, descent)


def preimage_momentum(
    learning_rate: float | optax.Schedule, sigma: float, momentum: float = 0.9
) -> optax.GradientTransformation:
    """The momentum of the first natural pre-images (Mahendran & Vedaldi, CVPR 2015).

    With the gradient g of the energy: m ← momentum·m − rate·sigma²·g, x ← x + m. This is descent
    in images of unit norm, x/sigma.

    Args:
        learning_rate: above 0. Or an optax schedule: where the rate differs from that of the step
            before, m starts again from 0. The paper's is 0.004 times 1, 0.1 and 0.01.
        sigma: the Euclidean norm of a whole natural image without its mean, in units of the
            parameters, above 0. The paper's is 27098.1 for 227×227×3 pixels of [0, 255]: 106.27 in
            units of [0, 1], or 0.2703·√(h·w·c) at another size.
        momentum: what is kept of m, from 0 to below 1.

    Raises:
        InputError: an argument out of range.
    """
    _check("sigma", sigma, "a number above 0", lambda value: value > 0)

    def descent(gradient: Any, _: Any, rate: jax.Array) -> Any:
        return jax.tree.map(lambda g: rate * sigma**2 * g, gradient)

    return _resetting(learning_rate, momentum, lambda _: None, lambda *_: None, descent)


def stepwise_schedule(rates: Sequence[float], steps: Sequence[int]) -> optax.Schedule:
    """Each rate for its number of steps, one after the other; the last goes on for ever.

    Args:
        rates: at least one, each finite and at least 0.
        steps: one a rate, each at least 1.

    Raises:
        InputError: a rate or a number of steps out of range, or not as many of both.
    """
    if not (_listed(rates) and _listed(steps) and 0 < len(rates) == len(steps)):
        raise InputError(
            f"stepwise_schedule takes as many rates as numbers of steps; got {rates!r} and "
            f"{steps!r}"
        )
    for rate in rates:
        _check("rates", rate, "numbers of at least 0", lambda value: value >= 0)
    for count in steps:
        _check("steps", count, "integers above 0", _positive_integer)
    # No step is beyond int32. In numpy: a text's schedule outlives the trace that first reads it.
    ends = np.minimum(np.cumsum(steps[:-1]), np.iinfo(np.int32).max).astype(np.int32)
    values = np.asarray(rates, np.float32)
    return lambda step: jnp.asarray(values)[jnp.searchsorted(ends, step, side="right")]


def _resetting(
    learning_rate: float | optax.Schedule,
    momentum: float,
    first: Callable[[Any], Any],
    accumulate: Callable[[Any, Any], Any],
    descent: Callable[[Any, Any, jax.Array], Any],
) -> optax.GradientTransformation:
    """Momentum along minus `descent`, from 0 again at every step at which the rate is another."""
    if not callable(learning_rate):
        _check("learning_rate", learning_rate, "a number above 0, or a schedule", lambda v: v > 0)
    _check("momentum", momentum, "a number from 0 to below 1", lambda value: 0 <= value < 1)

    def rate_at(step: jax.Array) -> jax.Array:
        value = learning_rate(step) if callable(learning_rate) else learning_rate
        return jnp.asarray(value, jnp.float32)

    def init(params: Any) -> PreimageState:
        step = jnp.int32(0)
        return PreimageState(step, rate_at(step), _zeros(params), first(params))

    def update(gradient: Any, state: PreimageState, params: Any = None) -> tuple[Any, Any]:
        rate = rate_at(state.step)
        squares = accumulate(gradient, state.squares)
        kept = jnp.where(rate == state.rate, momentum, 0)
        updates = jax.tree.map(
            lambda m, step: kept * m - step, state.momentum, descent(gradient, squares, rate)
        )
        return updates, PreimageState(state.step + 1, rate, updates, squares)

    return optax.GradientTransformation(init, update)


def _zeros(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _positive_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and int(value) > 0


def _check(name: str, value: Any, expected: str, fits: Callable[[Any], bool]) -> None:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and fits(value)):
        raise InputError(f"{name} must be {expected}; got {value!r}")
