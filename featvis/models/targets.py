"""Targets: what a layer gives for images that others are to be like."""

from __future__ import annotations

import jax
import numpy as np

from featvis.errors import InputError
from featvis.images import Images
from featvis.models.model import Model
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


def target(
    model: Model,
    layer: str,
    images: Images,
    name: str = "target",
    *,
    size: tuple[int, int] | None = None,
) -> Target:
    """A layer's activations for images, (n, ...), for `FeatureMatch` and `Caricature`.

    Args:
        model: the network.
        layer: a layer of it.
        images: (n, h, w, c) in [0, 1] or of uint8, or one of them; or picture files.
        name: how the objective's text calls them; two in one objective need two names.
        size: of files, (height, width), that of the pictures to make; by default the network's own.

    Raises:
        InputError: images of a shape or range that the network does not take.
        UnknownLayer: no such layer.
    """
    # A copy, as of the activations.
    images = np.array(model.as_images(images, size))
    made = Target(np.asarray(model(images)[layer]), name)
    made.layer, made.images, made.digest = layer, images, model.digest
    return made


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
