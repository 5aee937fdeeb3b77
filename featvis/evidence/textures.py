"""The shift test of Cadena et al. 2018: a texture of which every crop drives the unit.

A unit that ignores shifts has a texture, larger than its receptive field, of which it likes all
crops alike. The texture is (2h − 1) x (2w − 1) for a field of h x w; crops fade to their rim by
exp(−(r/σ)⁴) with σ = side/2.4, and have on average the norm of the unit's best image.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from featvis import kernels, text
from featvis.evidence.responses import responses
from featvis.models import Model
from featvis.optimizers import whiten_gradient
from objectives import Activations, Objective

#: Crops of a step, at places drawn anew.
_CROPS = 16
#: Places along a side at the end, at most.
_PLACES = 16


class Texture(NamedTuple):
    """A texture and what a unit makes of its crops.

    Attributes:
        image: (2h − 1, 2w − 1, c) in [0, 1].
        mean: of the crops' shares of the best activation.
        lowest: the smallest of them.
        crops: how many places were looked at.
    """

    image: np.ndarray
    mean: float
    lowest: float
    crops: int


def shift_texture(
    model: Model,
    unit: Objective,
    shape: tuple[int, int, int],
    window: Sequence[int],
    *,
    norm: float,
    blank: float,
    gain: float,
    weight: float = 0.0,
    steps: int = 120,
    seed: int = 0,
) -> Texture:
    """The texture that drives a unit most, wherever a crop is taken.

    It maximises (1 − weight) · mean + weight · minimum over 16 crops at places drawn anew in each
    step; the paper has all crops, Adam of the rate 0.1 and 700 steps.

    Args:
        model: the network.
        unit: one unit at one place.
        shape: (h, w, c) of the images.
        window: (top, left, height, width), the unit's receptive field.
        norm: of a crop's offsets from grey, on average.
        blank: the unit's activation for plain grey.
        gain: its best activation less that.
        weight: of the smallest activation against the mean, from 0 to 1.
        steps: of Adam.
        seed: of the first texture and of the places.
    """
    top, left, height, width = window
    mask = _mask(height, width)
    setting = _Setting(tuple(shape), (top, left, height, width))
    scale = jnp.float32(1 / gain)
    raw = np.asarray(
        _optimised(
            model.apply, setting, model.params, jax.tree.map(jnp.asarray, unit),
            jax.random.key(seed), jnp.int32(steps), scale, jnp.float32(norm), jnp.float32(weight),
        )
    )  # fmt: skip
    texture = raw * float(_factor(raw, mask, norm))
    rows, columns = (
        np.unique(np.linspace(0, side - 1, min(side, _PLACES)).round().astype(int))
        for side in (height, width)
    )
    images = np.full((len(rows) * len(columns), *shape), 0.5, np.float32)
    crops = [texture[y : y + height, x : x + width] for y in rows for x in columns]
    images[:, top : top + height, left : left + width] += np.stack(crops) * mask[..., None]
    shares = (responses(model, unit, np.clip(images, 0, 1)) - blank) / gain
    shown = np.clip(0.5 + texture, 0, 1).astype(np.float32)
    return Texture(shown, float(shares.mean()), float(shares.min()), len(images))


class _Setting(NamedTuple):
    """What is part of the program."""

    shape: tuple[int, ...]
    window: tuple[int, int, int, int]


def _mask(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(float)
    radius = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    return np.exp(-((radius / (min(height, width) / 2.4)) ** 4)).astype(np.float32)


def _factor(raw: Any, mask: np.ndarray, norm: Any) -> Any:
    """What makes the root mean square over all crops of their norms the one that is asked for."""
    height, width = mask.shape
    # How often, and under which weight, a pixel of the texture is in a crop.
    rows = np.zeros((2 * height - 1, 2 * width - 1), np.float32)
    squares = mask**2
    sums = np.cumsum(np.cumsum(np.pad(squares, ((1, 0), (1, 0))), axis=0), axis=1)
    for y in range(2 * height - 1):
        low, high = max(0, y - height + 1), min(height, y + 1)
        columns = np.arange(2 * width - 1)
        first, last = np.maximum(0, columns - width + 1), np.minimum(width, columns + 1)
        rows[y] = sums[high, last] - sums[low, last] - sums[high, first] + sums[low, first]
    weights = rows / (height * width)
    total = jnp.sum(jnp.asarray(raw) ** 2 * jnp.asarray(weights[..., None], jnp.float32))
    return norm / jnp.sqrt(jnp.maximum(total, jnp.finfo(jnp.float32).tiny))


@functools.partial(kernels.compiled, static=("apply", "setting"))
def _optimised(
    apply: Any,
    setting: _Setting,
    weights: Any,
    unit: Objective,
    key: jax.Array,
    steps: jax.Array,
    scale: jax.Array,
    norm: jax.Array,
    weight: jax.Array,
) -> jax.Array:
    top, left, height, width = setting.window
    channels, mask = setting.shape[2], _mask(height, width)
    rule = text.optimizer(optax.chain(whiten_gradient(), optax.adam(0.1)))

    def score(params: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        texture = params["pixels"] * _factor(params["pixels"], mask, norm)
        limits = jnp.array([[height, width]], jnp.float32)
        places = (jax.random.uniform(key, (_CROPS, 2), jnp.float32) * limits).astype(jnp.int32)

        def crop(place: jax.Array) -> jax.Array:
            start = (place[0], place[1], jnp.int32(0))
            cut = jax.lax.dynamic_slice(texture, start, (height, width, channels))
            return jax.lax.dynamic_update_slice(
                jnp.full(setting.shape, 0.5, jnp.float32),
                0.5 + cut * mask[..., None],
                (top, left, 0),
            )

        images = jax.vmap(crop)(places)
        shares = scale * unit(Activations(apply(weights, images)), images)
        return (1 - weight) * jnp.mean(shares) + weight * jnp.min(shares)

    first = {
        "pixels": jax.random.normal(key, (2 * height - 1, 2 * width - 1, channels), jnp.float32)
    }

    def step(place: jax.Array, carry: Any) -> Any:
        params, state = carry
        gradient = jax.grad(score)(params, jax.random.fold_in(key, place))
        descent = jax.tree.map(jnp.negative, gradient)
        updates, state = rule.update(descent, state, params)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, steps, step, (first, rule.init(first)))
    found: jax.Array = params["pixels"]
    return found
