"""Ascent between two denoisings, as Nguyen et al. 2016 draw facets.

Nguyen, Yosinski & Clune 2016, "Multifaceted Feature Visualization": each step goes along the
gradient over the mean of its absolute values, and then the picture's total variation is lowered.
The first octave of their schedule from mean images, 190 steps::

    denoised_ascent(linear_schedule(1.0, 2.0, 190), 0.4)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from featvis.errors import InputError

#: Steps of the denoising; theirs, which begins anew each time too, ends once it moves by less than
#: 0.001, which it soon does.
_SWEEPS = 2
#: Of the dual's gradient; the largest that converges (Chambolle 2004).
_RATE = 0.125


class AscentState(NamedTuple):
    """How many steps were taken."""

    step: jax.Array


def denoised_ascent(
    length: float | optax.Schedule, weight: float | optax.Schedule, scale: float = 255.0
) -> optax.GradientTransformation:
    """Steps x ← D(x − length·g/mean|g|), where D lowers the total variation of x.

    D takes two steps towards the least of TV(u) + weight·‖u − x‖², each colour by itself, in units
    of the parameters (Chambolle 2004, where the paper's code has split Bregman). So a larger weight
    smooths less. Parameters are images (h, w, c).

    Args:
        length: mean change of a number at a step, in units of the paper's, of 0 to 255; or an
            optax schedule.
        weight: of staying as it is, above 0; or an optax schedule.
        scale: units of the length in one unit of the parameters, above 0.

    Raises:
        InputError: an argument out of range.
    """
    for name, value in (("length", length), ("weight", weight), ("scale", scale)):
        number = isinstance(value, (int, float)) and math.isfinite(value) and value > 0
        if not number and not (callable(value) and name != "scale"):
            raise InputError(f"{name} must be a number above 0, or a schedule; got {value!r}")

    def at(value: Any, step: jax.Array) -> jax.Array:
        return jnp.asarray(value(step) if callable(value) else value, jnp.float32)

    def init(params: Any) -> AscentState:
        return AscentState(jnp.int32(0))

    def update(gradient: Any, state: AscentState, params: Any = None) -> tuple[Any, AscentState]:
        rate, kept = at(length, state.step) / scale, at(weight, state.step)

        def change(g: jax.Array, x: jax.Array) -> jax.Array:
            size = jnp.mean(jnp.abs(g))
            moved = x - rate * g / jnp.where(size > 0, size, 1)
            return denoised(moved, kept) - x

        return jax.tree.map(change, gradient, params), AscentState(state.step + 1)

    return optax.GradientTransformation(init, update)


def denoised(image: jax.Array, weight: jax.Array, sweeps: int = _SWEEPS) -> jax.Array:
    """Steps from an image (h, w, c) towards the least of TV(u) + weight·‖u − image‖²."""
    theta = 1 / (2 * weight)

    def slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        down = jnp.diff(x, axis=0, append=x[-1:])
        across = jnp.diff(x, axis=1, append=x[:, -1:])
        return down, across

    def divergence(down: jax.Array, across: jax.Array) -> jax.Array:
        # Minus the transpose of `slope`, whose last row and column are 0.
        rows = jnp.diff(down.at[-1].set(0), axis=0, prepend=jnp.zeros_like(down[:1]))
        columns = jnp.diff(across.at[:, -1].set(0), axis=1, prepend=jnp.zeros_like(across[:, :1]))
        return rows + columns

    down = across = jnp.zeros_like(image)
    for _ in range(sweeps):
        by_row, by_column = slope(divergence(down, across) - image / theta)
        size = 1 + _RATE * jnp.sqrt(by_row**2 + by_column**2)
        down, across = (down + _RATE * by_row) / size, (across + _RATE * by_column) / size
    return image - theta * divergence(down, across)
