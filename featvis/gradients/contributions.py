"""Through which channels of which layers a score comes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from featvis import kernels
from featvis.jaxprs.evaluate import bind, evaluate
from featvis.jaxprs.liveness import pruned
from featvis.models import Model
from objectives import Activations, Objective


class Way(NamedTuple):
    """How images go through one layer on the way to a score.

    Attributes:
        contributions: of each channel to the score, (n, channels).
        activations: means over positions, (n, channels).
    """

    contributions: np.ndarray
    activations: np.ndarray


def ways(model: Model, objective: Objective, images: np.ndarray) -> dict[str, Way]:
    """What each channel contributes to each image's score, to first order, and how active it is.

    A channel's contribution is the product of its activations and the score's derivatives by
    them, summed over positions: its part of the score to the number, in a layer from which the
    score is linear (the one before the class scores).

    Args:
        model: the network.
        objective: the score of one image; whatever is read of others, or of its place among them,
            is read of none.
        images: (n, h, w, c) in [0, 1].

    Returns:
        By layer, in forward order. Left out are the layers that the objective reads itself, which
        say nothing of the way to it, those without channels, and those through which the score of
        no image comes.
    """
    read: list[str] = []
    shapes = jax.eval_shape(model.apply, model.params, images[:1])
    jax.eval_shape(lambda acts, x: objective(_Noting(acts, read), x), shapes, images[:1])
    order = model.layers(images.shape[1:3])
    names = tuple(name for name, shape in order.items() if shape and name not in read)
    # One at a time: one program for any number of them, and the memory of one.
    found = [_way(model.apply, names, model.params, objective, image[None]) for image in images]
    layers = {
        name: Way(
            *(np.stack([np.asarray(one) for one in part]) for part in zip(*each, strict=True))
        )
        for name, *each in zip(names, *found, strict=True)
    }
    return {name: way for name, way in layers.items() if way.contributions.any()}


def lost_scores(model: Model, layer: str, images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What the class scores of images lose where a layer's activations at one position are 0.

    Where the scores are linear from the layer on, it is what the activations there contribute.

    Args:
        model: the network; its layer `logits` has the class scores.
        layer: whose activations are taken away.
        images: (n, h, w, c) in [0, 1].
        places: the position in each image's map, counted row by row, (n,).

    Returns:
        (n, classes), in units of the scores.
    """
    return np.asarray(_lost(model.apply, layer, model.params, images, places.astype(np.int32)))


@functools.partial(kernels.compiled, static=("apply", "layer"))
def _lost(apply: Any, layer: str, weights: Any, images: jax.Array, places: jax.Array) -> jax.Array:
    shifted, _ = _shifted(apply, (layer,), weights, images)
    layers = apply(weights, images)
    a = layers[layer]
    order = jnp.arange(np.prod(a.shape[1:-1], dtype=int), dtype=jnp.int32).reshape(
        1, *a.shape[1:-1], 1
    )
    here = order == places.reshape(-1, *(1,) * (a.ndim - 1))
    return layers["logits"] - shifted([jnp.where(here, -a, 0)])["logits"]


@functools.partial(kernels.compiled, static=("apply", "names"))
def _way(
    apply: Any, names: tuple[str, ...], weights: Any, objective: Objective, image: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    """The contributions and mean activations of one image in each layer."""
    shifted, shapes = _shifted(apply, names, weights, image)

    def total(shifts: list[jax.Array]) -> jax.Array:
        return jnp.sum(objective(Activations(shifted(shifts)), image))

    slopes = jax.grad(pruned(total))([jnp.zeros(one.shape, one.dtype) for one in shapes])
    layers = apply(weights, image)
    found = []
    for name, slope in zip(names, slopes, strict=True):
        rows, slopes_ = (
            one.reshape(-1, one.shape[-1]).astype(jnp.float32) for one in (layers[name], slope)
        )
        found.append((jnp.sum(rows * slopes_, axis=0), jnp.mean(rows, axis=0)))
    return found


def _shifted(
    apply: Any, names: tuple[str, ...], weights: Any, image: jax.Array
) -> tuple[Callable[[list[jax.Array]], dict[str, jax.Array]], list[Any]]:
    """The network as a function of what is added to some of its layers, and their shapes."""

    def listed(weights: Any, image: jax.Array) -> tuple[list[jax.Array], dict[str, jax.Array]]:
        layers = apply(weights, image)
        return [layers[name] for name in names], layers

    closed, shapes = jax.make_jaxpr(listed, return_shape=True)(weights, image)
    made = {variable: eqn for eqn in closed.jaxpr.eqns for variable in eqn.outvars}
    places: dict[Any, tuple[int, tuple[int, ...]]] = {}
    for place, variable in enumerate(closed.jaxpr.outvars[: len(names)]):
        axes = tuple(range(variable.aval.ndim))
        while variable in made and made[variable].primitive.name == "transpose":
            # Channels first, turned round: what is turned is on the way.
            eqn = made[variable]
            axes, variable = tuple(eqn.params["permutation"][axis] for axis in axes), eqn.invars[0]
        places.setdefault(variable, (place, axes))  # a layer by two names counts once

    def shift(shifts: list[jax.Array], variable: Any) -> jax.Array:
        place, axes = places[variable]
        return jnp.transpose(shifts[place], np.argsort(axes).tolist())

    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves((weights, image))]

    def call(shifts: list[jax.Array]) -> dict[str, jax.Array]:
        def rule(eqn: Any, inputs: Any) -> list[Any]:
            return [
                value + shift(shifts, variable) if variable in places else value
                for variable, value in zip(eqn.outvars, bind(eqn, inputs), strict=True)
            ]

        values = evaluate(closed.jaxpr, closed.consts, leaves, rule)
        layers: dict[str, jax.Array] = jax.tree.unflatten(jax.tree.structure(shapes), values)[1]
        return layers

    return call, shapes[0]


class _Noting(Activations):
    """Activations that note which of them are read."""

    def __init__(self, layers: Any, read: list[str]) -> None:
        super().__init__(layers)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        self._read.append(name)
        return super().__getitem__(name)
