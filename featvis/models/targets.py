"""Targets: what a layer gives for images that others are to be like."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from featvis.errors import InputError, printable
from featvis.images import Images
from featvis.models.model import Model
from objectives import BatchStatistics, NamedArray, Objective

#: Images that a network sees at a time.
_BATCH = 16


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
    """Return a layer's activations for images, (n, ...), for `FeatureMatch` and `Caricature`.

    Args:
        model: the network.
        layer: a layer of it.
        images: (n, h, w, c) in [0, 1] or of uint8, or one of them; or picture files.
        name: how the objective's text calls them; two in one objective need two names.
        size: of files, (height, width), that of the pictures to make; by default the network's own.

    Raises:
        InputError: no model, or images of a shape or range that it does not take.
        UnknownLayer: no such layer.
    """
    _check_model(model)
    # A copy, as of the activations.
    images = np.array(model.as_images(images, size))
    made = Target(np.asarray(model(images)[layer]), name)
    made.layer, made.images, made.digest = layer, images, model.digest
    return made


def sorted_activations(
    model: Model,
    layer: str,
    images: Images,
    name: str = "sorted",
    *,
    size: tuple[int, int] | None = None,
) -> NamedArray:
    """Return a layer's activations for natural images, each channel sorted, for `SortMatch`.

    The mean over the images of their sorted activations, which is the set of numbers whose summed
    distance to those of all images is the least.

    Args:
        model: the network.
        layer: a layer of it, with channels last.
        images: as for `target`; of one size, some ten or more of what the picture is to show.
        name: how the objective's text calls it.
        size: of files, (height, width), that of the pictures to make; by default the network's own.

    Returns:
        (positions, channels), ascending along the positions.

    Raises:
        InputError: no model, or images of a shape or range that it does not take.
        UnknownLayer: no such layer.
    """
    _check_model(model)
    shown = model.as_images(images, size)
    total = sum(np.sort(found, axis=1).sum(axis=0) for found in _channels(model, layer, shown))
    return NamedArray((total / len(shown)).astype(np.float32), name)


def natural_statistics(
    model: Model, layer: str, images: Images, *, size: tuple[int, int] | None = None
) -> BatchStatistics:
    """Make an objective that asks for the statistics of natural images at a layer.

    What DeepInversion takes from batch norms (`batch_norm_prior`), of any layer of any network, as
    of one whose batch norms are folded into its convolutions.

    Args:
        model: the network.
        layer: a layer of it, with channels last.
        images: as for `target`; some hundred for statistics that another hundred has too.
        size: of files, (height, width), that of the pictures to make; by default the network's own.

    Returns:
        `BatchStatistics` with each channel's mean and variance over images and positions.

    Raises:
        InputError: no model, or images of a shape or range that it does not take.
        UnknownLayer: no such layer.
    """
    _check_model(model)
    shown = model.as_images(images, size)
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    for found in _channels(model, layer, shown):
        values = found.reshape(-1, found.shape[-1])
        # Joined as Chan et al. 1983 do: the difference of two large sums would lose all digits.
        off, whole = values.mean(axis=0) - mean, count + len(values)
        squares = squares + ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        squares = squares + off**2 * (count * len(values) / whole)
        mean, count = mean + off * (len(values) / whole), whole
    variance = (squares / count).astype(np.float32)
    return BatchStatistics(layer, mean.astype(np.float32), variance)


def _check_model(model: object) -> None:
    if not isinstance(model, Model):
        raise InputError(
            f"model is a featvis.Model (featvis.load makes one of a name); got "
            f"{printable(repr(model), 80)}"
        )


def _channels(model: Model, layer: str, shown: np.ndarray) -> Iterator[np.ndarray]:
    """A layer's activations (n, positions, c) in float64, some images at a time."""
    for start in range(0, len(shown), _BATCH):
        found = np.asarray(model(shown[start : start + _BATCH])[layer], np.float64)
        yield found.reshape(len(found), -1, found.shape[-1])


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
