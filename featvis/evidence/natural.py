"""How a unit's response to a picture compares with natural images."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import kernels
from featvis.errors import InputError
from featvis.images import Images, as_images, read_batches
from featvis.models import Model
from featvis.natural import Index
from featvis.natural.responses import percentile
from featvis.natural.store import is_index
from featvis.own_pictures import natural_files
from featvis.results import Result
from featvis.results.joining import as_result
from objectives import (
    Activations,
    Channel,
    Logit,
    Objective,
    OnImages,
    Scaled,
    Sum,
    alone,
    separable,
    units_of,
)

_BATCH = 8


def compare_with_natural(result: Result, folder: str | Path | Images | Index) -> Result:
    """Say where each picture's clean score lies among those of natural images.

    The images are scaled and cropped to the pictures' size. Image priors and comparisons among
    the pictures are left out on both sides: they are not about the unit.

    Args:
        result: of `synthesize` or `replay`.
        folder: pictures, in it or its subfolders, of which those that featvis wrote are left out;
            or the images themselves, files, arrays in [0, 1] or of uint8 at the pictures' size, or
            a list of them; or an index of images, or its folder, which has what channels and
            classes give for them at its size.

    Returns:
        The result with, in `evidence`, for each image: `unit_score` (the clean score without
        priors), `percentile` (of the natural images, how many score lower, ties by half, 0 to
        100), `natural_max`, `natural_mean`, `natural_std`, and `natural_images`, their number.

    Raises:
        InputError: no such folder, no picture in it, an objective of priors alone, or an index of
            another network or size, or of an objective that it says nothing about.

    Warns:
        OwnPictureWarning: pictures that featvis wrote are left out.
    """
    result = as_result(result)
    if result.joined:
        return Result.join([compare_with_natural(part, folder) for part in result.joined])
    units = comparable(result.run.parts.objective)
    index = _as_index(folder)
    if index is not None:
        size = (result.images.shape[1], result.images.shape[2])
        scores = _indexed(index, result.run.parts.model, units, result.members, size)
    else:
        scores = np.concatenate([found for _, found in scored(result, units, folder)])  # type: ignore[arg-type]
    own = unit_scores(result, units, result.images)
    pairs = zip(own, scores.T, strict=True)
    return result.with_evidence(
        unit_score=own,
        percentile=np.array([float(percentile(one, among)) for one, among in pairs]),
        natural_max=scores.max(axis=0),
        natural_mean=scores.mean(axis=0),
        natural_std=scores.std(axis=0),
        natural_images=np.full(len(result), len(scores)),
    )


def scored(
    result: Result, units: Objective, folder: str | Path | Images
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Natural images at the pictures' size, and what the unit of each picture gives for them.

    Args:
        result: of which the pictures are.
        units: their objective without priors, as `comparable` gives it.
        folder: as for `compare_with_natural`.

    Yields:
        Some images (b, h, w, c) and their scores (b, n).

    Raises:
        InputError: as `compare_with_natural`.
    """
    model, count = result.run.parts.model, result.runs[-1].images
    height, width, channels = result.images.shape[1:]
    any_read = False
    for images in _natural(folder, (height, width), channels):
        any_read = True
        padding = _BATCH - len(images)
        padded = np.concatenate([images, np.zeros((padding, *images.shape[1:]), np.float32)])
        scores = _score_alone(model.apply, count, model.params, units, padded)
        yield images, np.asarray(scores)[: len(images), result.members]
    if not any_read:
        raise InputError(f"no picture in {folder!s} can be read")


def unit_scores(result: Result, units: Objective, images: np.ndarray) -> np.ndarray:
    """What the unit of each picture of a result gives for one image each, (n,).

    Args:
        result: whose units they are.
        units: its objective without priors, as `comparable` gives it.
        images: one for each picture, (n, h, w, c) in [0, 1].
    """
    model, count = result.run.parts.model, result.runs[-1].images
    scores = np.asarray(_score_alone(model.apply, count, model.params, units, images))
    return scores[np.arange(len(images)), result.members]


def _as_index(given: Any) -> Index | None:
    """The index that is given, itself or by its folder; None of what is none."""
    if isinstance(given, Index):
        return given
    return Index(given) if isinstance(given, (str, Path)) and is_index(given) else None


def _indexed(
    index: Index, model: Model, units: Objective, members: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """What each member would score with each image of an index, (images, members).

    Raises:
        InputError: an index of another network or size, or an objective that it says nothing about.
    """
    index.check_model(model)
    index.check_size(size)

    def of(objective: Objective) -> np.ndarray:
        if isinstance(objective, Sum):
            return np.sum([of(one) for one in objective.objectives], axis=0)
        if isinstance(objective, Scaled):
            return float(np.asarray(objective.weight)) * of(objective.objective)
        if isinstance(objective, Logit) or (isinstance(objective, Channel) and not objective.skip):
            return index.responses(objective).mean
        raise InputError(
            f"an index has what channels and classes give for images, and nothing of "
            f"{objective}: compare with the folder of the images"
        )

    apart = separable(units) and units.batch_size is not None
    each = [alone(units, int(place)) if apart else units for place in members]
    return np.stack([of(one) for one in each], axis=1)


def _natural(
    folder: str | Path | Images, size: tuple[int, int], channels: int
) -> Iterator[np.ndarray]:
    """The natural images in batches, the last shorter."""
    if isinstance(folder, (str, Path)) and not Path(folder).is_file():
        for batch, _ in read_batches(natural_files(folder), size, channels, _BATCH):
            yield batch
        return
    images = as_images(folder, channels, size)
    if images.shape[1:3] != size:
        raise InputError(
            f"the pictures are {size[0]}x{size[1]} (height x width); the images to compare with "
            f"are {images.shape[1]}x{images.shape[2]}"
        )
    yield from np.split(images, range(_BATCH, len(images), _BATCH))


@functools.partial(kernels.compiled, static=("apply", "count"))
def _score_alone(
    apply: Any, count: int, weights: Any, objective: Objective, images: jax.Array
) -> jax.Array:
    """What each of `count` members would score with each image, (images, count).

    The network sees each image once; its activations stand in for those of a whole batch.
    """
    acts = apply(weights, images)

    def one(acts: Any, image: jax.Array) -> jax.Array:
        repeated = {k: jnp.broadcast_to(a, (count, *a.shape)) for k, a in acts.items()}
        return objective(Activations(repeated), jnp.broadcast_to(image, (count, *image.shape)))

    return jax.vmap(one)(acts, images)


def comparable(objective: Objective) -> Objective:
    """The part of an objective that can be measured on a natural image alone.

    Raises:
        InputError: an objective that reads no activation, or parts of a batch (`on`).
    """
    units = units_of(objective)
    if units is None:
        raise InputError(f"{objective!r} reads no activation of one image: nothing to compare")
    if any(isinstance(node, OnImages) or node.couples_images for node in units.walk()):
        raise InputError(f"{units!r} is about some images of a batch; a natural image is alone")
    return units
