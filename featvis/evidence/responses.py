"""What one unit at one place gives for images, and its gradients there."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import kernels
from featvis.errors import InputError
from featvis.models import Model
from objectives import Activations, Channel, Layer, Neuron, Objective, units_of

#: Images that go through the network together: one program for any number of them.
_BATCH = 16


def central_unit(model: Model, unit: Objective, size: tuple[int, int]) -> Objective:
    """One unit at one place: a channel of a map is taken at the map's centre.

    A mean over positions, as `Channel` is one, ignores shifts by the way it is made.

    Args:
        model: the network.
        unit: an objective of one image.
        size: (height, width) of the images.

    Raises:
        InputError: an objective that reads no activation, or is about several images or units.
        ObjectiveError: one that does not fit the network.
    """
    if units_of(unit) != unit or any(node.couples_images for node in unit.walk()):
        raise InputError(f"{unit!r} is no unit: name what is read of one image, as block4:3")
    if isinstance(unit, Layer):
        raise InputError(
            f"{unit.layer} is a whole layer: name one of its units, as {unit.layer}:0; "
            "invariance_table is about all of them"
        )
    if (unit.batch_size or 1) != 1:
        raise InputError(
            f"{unit!r} are {unit.batch_size} units; one at a time, or the summary of a layer"
        )
    shapes = model.layers(size)
    if isinstance(unit, Channel) and not unit.skip and len(shapes.get(unit.layer, ())) == 3:
        unit = Neuron(unit.layer, unit.index)
    unit.check(
        {name: jax.ShapeDtypeStruct((1, *shape), np.float32) for name, shape in shapes.items()},
        (1, *size, model.input.channels),
    )
    return unit


def responses(model: Model, unit: Objective, images: np.ndarray) -> np.ndarray:
    """A unit's scores for images (n, h, w, c) in [0, 1], without transforms, (n,).

    One program serves all units of a layer and any number of images.
    """
    found = []
    for start in range(0, len(images), _BATCH):
        part = np.asarray(images[start : start + _BATCH], np.float32)
        filled = np.concatenate([part, np.repeat(part[-1:], _BATCH - len(part), axis=0)])
        scores = _scores(model.apply, model.params, _arrays(unit), filled)
        found.append(np.asarray(scores)[: len(part)])
    return np.concatenate(found)


def gradients(model: Model, unit: Objective, images: np.ndarray) -> np.ndarray:
    """A unit's gradients at images (n, h, w, c), of the same shape; n is part of the program."""
    given = jnp.asarray(images, jnp.float32)
    return np.asarray(_gradients(model.apply, model.params, _arrays(unit), given))


def _arrays(objective: Objective) -> Objective:
    """The objective with arrays for its numbers: another unit is the same program."""
    return jax.tree.map(jnp.asarray, objective)


@functools.partial(kernels.compiled, static=("apply",))
def _scores(apply: Any, weights: Any, objective: Objective, images: jax.Array) -> jax.Array:
    found: jax.Array = objective(Activations(apply(weights, images)), images)
    return found


@functools.partial(kernels.compiled, static=("apply",))
def _gradients(apply: Any, weights: Any, objective: Objective, images: jax.Array) -> jax.Array:
    def total(images: jax.Array) -> jax.Array:
        return jnp.sum(objective(Activations(apply(weights, images)), images))

    found: jax.Array = jax.grad(total)(images)
    return found
