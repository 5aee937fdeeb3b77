"""What an index of natural images says of the units of an atlas."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from featvis.atlas.reader import Atlas
from featvis.errors import InputError
from featvis.models import Model
from featvis.natural import Index, as_index
from featvis.natural.responses import percentile

#: Natural images at each end, bins of a histogram, and nearest units.
_COUNT, _BINS, _NEAREST = 9, 32, 8


def checked_index(given: Index | str | Path, model: Model, size: tuple[int, int]) -> Index:
    """An index, once it is known that it is of this network at this size.

    Raises:
        InputError: there is none, or it is of another network or size.
    """
    index = as_index(given)
    index.check_model(model)
    index.check_size(size)
    return index


def described(atlas: Atlas, index: Index, layer: str) -> bool:
    """Whether what an index says of a layer is in an atlas, as it was written."""
    try:
        had = atlas.store.natural(layer)
    except InputError:  # a damaged one is made again
        return False
    return had is not None and had["of"] == _seal(atlas, index, layer)


def _seal(atlas: Atlas, index: Index, layer: str) -> str:
    """What is written depends on: of the same images and pictures it is the same."""
    pictures = sorted(atlas.clean_scores(layer).items())
    of = f"{index.store.path.resolve()} {len(index)} {pictures}"
    return hashlib.sha256(of.encode()).hexdigest()


def describe(atlas: Atlas, index: Index, layer: str) -> None:
    """Writes into an atlas what an index says of a layer; nothing where it is there already.

    Raises:
        UnknownLayer: a layer that the index does not have.
        OutputError: the atlas cannot be written.
    """
    if described(atlas, index, layer):
        return
    pictures = atlas.clean_scores(layer)
    facts: dict[str, Any] = {
        "index": str(index.store.path.resolve()),
        "images": len(index),
        "of": _seal(atlas, index, layer),
    }
    found = index.extremes(layer, _COUNT)
    field, whole = index.field(layer), (0, 0, *index.size)

    def boxes(positions: np.ndarray) -> np.ndarray:
        distinct, where = np.unique(positions, return_inverse=True)
        each = [field.box(int(place)) for place in distinct]
        # Of what depends on no pixel there is nothing to cut out.
        each = [box if box[0] < box[2] and box[1] < box[3] else whole for box in each]
        return np.array(each, np.int32)[where].reshape(*positions.shape, 4)

    histogram, ends = index.histogram(layer, _BINS)
    nearest, correlations = index.nearest(layer, _NEAREST)
    figures = index.statistics(layer)
    means = index.store.columns("mean", *index.span(layer))
    percentiles = np.full(means.shape[1], np.nan, np.float32)
    for unit, score in pictures.items():
        if np.isfinite(score):
            percentiles[unit] = percentile(score, means[:, unit])
    arrays = {
        "highest": found["highest"].T.astype(np.int32),
        "highest_scores": found["highest_values"].T,
        "highest_boxes": boxes(found["position"].T),
        "lowest": found["lowest"].T.astype(np.int32),
        "lowest_scores": found["lowest_values"].T,
        "lowest_boxes": boxes(found["lowest_position"].T),
        "histogram": histogram.astype(np.uint32),
        "range": ends,
        "mean": figures["mean"].astype(np.float32),
        "sd": figures["sd"].astype(np.float32),
        "zeros": figures["zeros"].astype(np.float32),
        "dead": ends[:, 0] == ends[:, 1],
        "nearest": nearest.astype(np.int32),
        "correlations": correlations,
        "percentiles": percentiles,
    }
    files = index.files
    named = np.union1d(arrays["highest"], arrays["lowest"])
    facts["files"] = {str(one): str(files[one]) for one in named}
    facts["size"] = list(index.size)
    atlas.describe(layer, arrays, facts)
