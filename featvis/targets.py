"""Targets: what a layer gives for images that others are to be like."""

from __future__ import annotations

import jax
import numpy as np
from jax.typing import ArrayLike

from featvis.errors import InputError
from featvis.models import Model
from objectives import NamedArray, Objective


class Target(NamedArray):
    """A layer's activations for images, and where they come from; made by `target`.

    A manifest keeps the images and the layer rather than the activations, which can be larger by
    far, and replay computes them anew.

    Attributes:
        layer: the layer.
        images: (n, h, w, c) in [0, 1].
        digest: of the network's weights.
    """

    layer: str
    images: np.ndarray
    digest: str


def target(model: Model, layer: str, images: ArrayLike, name: str = "target") -> Target:
    """A layer's activations for images, (n, ...), for `FeatureMatch` and `Caricature`.

    Args:
        model: the network.
        layer: a layer of it.
        images: (n, h, w, c) in [0, 1], or one of them.
        name: how the objective's text calls them; two in one objective need two names.

    Raises:
        InputError: images of a shape or range that the network does not take.
        UnknownLayer: no such layer.
    """
    # A copy, as of the activations.
    images = np.array(as_images(images, model))
    made = Target(np.asarray(model(images)[layer]), name)
    made.layer, made.images, made.digest = layer, images, model.digest
    return made


def as_images(images: ArrayLike, model: Model) -> np.ndarray:
    """Images (n, h, w, c) float32 in [0, 1] that a model takes, from one or several.

    Raises:
        InputError: no numbers, another shape, or values out of [0, 1].
    """
    try:
        array = np.asarray(images, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"images are an array of numbers in [0, 1]: {error}") from error
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or not len(array):
        raise InputError(
            f"images are (n, h, w, {model.input.channels}) or one of them; got an array "
            f"{np.shape(images)}"
        )
    model.check_image_shape(*array.shape[1:])
    # Written so that a NaN fails too.
    if not (array.min() >= 0 and array.max() <= 1):
        raise InputError(
            f"images are in [0, 1]; got values from {array.min():.3g} to {array.max():.3g}"
        )
    return array


def named_arrays(objective: Objective) -> dict[str, NamedArray]:
    """The arrays that an objective's text writes by name.

    Raises:
        InputError: two arrays of one name.
    """
    found: dict[str, NamedArray] = {}
    for leaf in jax.tree.leaves(objective):
        if not isinstance(leaf, NamedArray) or leaf.name is None:
            continue
        if found.setdefault(leaf.name, leaf) is not leaf:
            raise InputError(f"two arrays of the objective are called {leaf.name!r}: rename one")
    return found
