"""Update rules of samplers: noise that is each image's and step's own, and what a chain keeps."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from featvis.errors import InputError


class NoiseState(NamedTuple):
    """What `gaussian_noise` hands to its next step."""

    step: jax.Array


def gaussian_noise(sd: float | optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Adds normal noise to an update, another for each image and step.

    The last part of a chain makes Langevin dynamics of an ascent:
    `chain(sgd(0.01), gaussian_noise(0.005))`. Under `vmap` all images of a batch have the same
    noise from `optax.add_noise`, which draws from a seed of its own.

    Args:
        sd: standard deviation of the noise in the units of the parameters, at least 0; or an optax
            schedule of it.

    Raises:
        InputError: another number.
    """
    number = isinstance(sd, numbers.Real) and not isinstance(sd, bool)
    if not callable(sd) and not (number and math.isfinite(sd) and sd >= 0):
        raise InputError(f"sd must be a number of at least 0, or a schedule; got {sd!r}")

    def init(params: Any) -> NoiseState:
        return NoiseState(jnp.int32(0))

    def update(
        updates: Any, state: Any, params: Any = None, *, key: jax.Array, **more: Any
    ) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(updates)
        keys = jax.random.split(key, len(leaves))
        size = jnp.asarray(sd(state.step) if callable(sd) else sd, jnp.float32)
        noisy = [
            leaf + size * jax.random.normal(one, jnp.shape(leaf), jnp.float32)
            for leaf, one in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(structure, noisy), NoiseState(state.step + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def normalize_by_mean_abs() -> optax.GradientTransformation:
    """Divides each array of an update by the mean of its absolute values; zeros stay zeros.

    The step of DGN-AM and Plug & Play (Nguyen et al. 2016 and 2017), after which a rate is the mean
    change of a number. The authors' code divides before it looks for zeros, so that their code
    turns NaN where nothing pulls at it. What is large and small among the terms of the update stays
    so, and how large all of it was is lost: weights of terms are ratios.
    """

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def scaled(array: jax.Array) -> jax.Array:
        # By the largest first: the mean of the smallest numbers would be 0.
        largest = jnp.max(jnp.abs(array))
        array = jnp.where(largest > 0, array / jnp.where(largest > 0, largest, 1), 0)
        mean = jnp.mean(jnp.abs(array))
        return jnp.where(largest > 0, array / jnp.where(largest > 0, mean, 1), 0)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(scaled, updates), state

    return optax.GradientTransformation(init, update)


class KeepBestState(NamedTuple):
    """What `keep_best` hands to its next step."""

    step: jax.Array
    least: jax.Array  # value of the best parameters since the last return
    best: Any  # these parameters
    inner: Any


def keep_best(
    rule: optax.GradientTransformation, steps: int
) -> optax.GradientTransformationExtraArgs:
    """A rule that returns, at each step of so many, to where the score was highest since the last.

    A chain of 200 steps keeps the best of its codes by `keep_best(rule, 200)`; without, it keeps
    the last, as DGN-AM does, which is not the best. The code that the last step itself would lead
    to has no score yet and does not count.

    Args:
        rule: all that moves the parameters, its noise included.
        steps: from one return to the next, at least 1.

    Raises:
        InputError: another number of steps, or no rule.
    """
    if isinstance(steps, bool) or not isinstance(steps, numbers.Integral) or steps < 1:
        raise InputError(f"steps must be a whole number of at least 1; got {steps!r}")
    if not isinstance(rule, optax.GradientTransformation):
        raise InputError(f"keep_best takes a rule first, as sgd(1.0); got {rule!r}")
    around = optax.with_extra_args_support(rule)

    def init(params: Any) -> KeepBestState:
        highest = jnp.asarray(jnp.finfo(jnp.float32).max, jnp.float32)
        return KeepBestState(jnp.int32(0), highest, params, around.init(params))

    def update(
        updates: Any, state: Any, params: Any = None, *, value: jax.Array, **more: Any
    ) -> tuple[Any, Any]:
        moved, inner = around.update(updates, state.inner, params, value=value, **more)
        first = state.step % steps == 0
        better = first | (value < state.least)
        best, least = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (params, value), (state.best, state.least)
        )
        back = state.step % steps == steps - 1
        chosen = jax.tree.map(
            lambda one, kept, now: jnp.where(back, kept - now, one), moved, best, params
        )
        return chosen, KeepBestState(state.step + 1, least, best, inner)

    return optax.GradientTransformationExtraArgs(init, update)
