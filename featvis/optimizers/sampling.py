"""Update rules that draw: each image and step has noise of its own, from the seed of the run."""

from __future__ import annotations

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import optax

from featvis.errors import InputError


def gaussian_noise(sd: float) -> optax.GradientTransformationExtraArgs:
    """Adds normal noise to an update, another for each image and step.

    The last part of a chain makes Langevin dynamics of an ascent:
    `chain(sgd(0.01), gaussian_noise(0.005))`. Under `vmap` all images of a batch have the same
    noise from `optax.add_noise`, which draws from a seed of its own.

    Args:
        sd: standard deviation of the noise in the units of the parameters, at least 0.

    Raises:
        InputError: another number.
    """
    number = isinstance(sd, numbers.Real) and not isinstance(sd, bool)
    if not (number and math.isfinite(sd) and sd >= 0):
        raise InputError(f"sd must be a number of at least 0; got {sd!r}")

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(
        updates: Any, state: Any, params: Any = None, *, key: jax.Array, **more: Any
    ) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(updates)
        keys = jax.random.split(key, len(leaves))
        noisy = [
            leaf + sd * jax.random.normal(one, jnp.shape(leaf), jnp.float32)
            for leaf, one in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(structure, noisy), state

    return optax.GradientTransformationExtraArgs(init, update)
