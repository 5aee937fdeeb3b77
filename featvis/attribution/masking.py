"""Masks over images: how they are enlarged, what is put in place of what they hide, blurring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from featvis.attribution.baselines import baselines
from featvis.attribution.method import Probed

Matrix = jax.Array | np.ndarray


def composed(images: jax.Array, fill: jax.Array, masks: jax.Array) -> jax.Array:
    """The images where a mask is 1 and what replaces them where it is 0: x·m + b·(1 − m).

    Args:
        images: (..., h, w, c).
        fill: of a shape that broadcasts with them.
        masks: (..., h, w), from 0 to 1.
    """
    kept = masks[..., None]
    rank = max(images.ndim, fill.ndim, kept.ndim)
    # As many axes of each, as the strict promotion of ranks asks.
    images, fill, kept = (jnp.expand_dims(a, range(rank - a.ndim)) for a in (images, fill, kept))
    return images * kept + fill * (1 - kept)


_composed = jax.jit(composed)


def scored(
    given: Probed, baseline: Any, rows: np.ndarray | range, masks: Callable[[jax.Array], jax.Array]
) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """The scores of an image below masks, and the masks, in chunks that go together best.

    Memory is that of a chunk, however many masks there are.

    Args:
        given: the image and its score.
        baseline: what is seen where a mask is 0, as `baselines` takes it; of several the mean score
            is taken.
        rows: (m, ...), what each mask is made of; a range where that is its number.
        masks: from rows to masks (k, h, w); it is asked for as many each time, so that one
            program does, of which the last chunk takes fewer.

    Yields:
        Scores (k,) and masks (k, h, w).
    """
    own = baseline if isinstance(baseline, str) else np.asarray(baseline)[None]
    fills = baselines(jnp.asarray(given.image)[None], given.key[None], own)[:, 0]
    together = min(given.batch, len(rows))
    for start in range(0, len(rows), together):
        count = min(together, len(rows) - start)
        # Rows again from the start fill the last chunk, and are not scored.
        chosen = np.arange(start, start + together) % len(rows)
        kept = masks(jnp.asarray(chosen if isinstance(rows, range) else rows[chosen]))
        seen = (_composed(given.image, fill, kept)[:count] for fill in fills)
        yield np.mean([given.score(one) for one in seen], axis=0), kept[:count]


def enlarge(masks: jax.Array, size: Sequence[int]) -> jax.Array:
    """Enlarges masks (..., s, t) bilinearly to (..., h, w), corner on corner.

    The authors' of I-GOS and of meaningful perturbations (PyTorch's `UpsamplingBilinear2d`).

    Args:
        masks: of any number.
        size: (h, w).
    """
    rows, columns = (
        _tent(np.linspace(0, few - 1, many), few)
        for few, many in zip(masks.shape[-2:], size, strict=True)
    )
    return _separable(rows, columns, masks)


def rise_masks(grids: jax.Array, shifts: jax.Array, size: tuple[int, int]) -> jax.Array:
    """RISE's masks: grids enlarged bilinearly by a cell too much, and cut out at random shifts.

    Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    section 3.2, as in the authors' code: a grid of s cells becomes s + 1 cells of ⌈h/s⌉ pixels,
    with mirrored borders.

    Args:
        grids: (m, s, s), from 0 to 1.
        shifts: (m, 2), down and right, each less than ⌈h/s⌉ and ⌈w/s⌉.
        size: (h, w).

    Returns:
        (m, h, w).
    """
    few = grids.shape[-1]

    def windows(shift: jax.Array, side: int) -> jax.Array:
        many = (few + 1) * math.ceil(side / few)
        # A place beyond the outer centres is mirrored at them.
        places = np.abs((np.arange(many) + 0.5) * few / many - 0.5)
        weights = jnp.asarray(_tent(few - 1 - np.abs(few - 1 - places), few))
        return jax.vmap(lambda one: jax.lax.dynamic_slice_in_dim(weights, one, side))(shift)

    rows, columns = (windows(shifts[:, axis], size[axis]) for axis in (0, 1))
    return _separable(rows, columns, grids)


def blurred(images: jax.Array, size: int, sigma: float) -> jax.Array:
    """Blurs images (n, h, w, c) by a Gaussian cut off beyond its window; borders are mirrored.

    Args:
        images: of any number and size, also smaller than the window.
        size: pixels of the window, odd.
        sigma: of the Gaussian, in pixels.
    """
    rows, columns = (_blurring(side, size, sigma) for side in images.shape[1:3])
    moved = jnp.moveaxis(images, -1, 1)
    return jnp.moveaxis(_separable(rows, columns, moved), 1, -1)


def places_in_order(ranked: ArrayLike, seed: int = 0) -> np.ndarray:
    """The place of each pixel in the order of descending values, (h, w) from 0.

    Pixels of one value, as where a map is 0, come in an order drawn once for the size: that of the
    rows would take the picture away from one side.

    Args:
        ranked: (h, w).
        seed: of the order of equal ones.
    """
    values = np.asarray(ranked, np.float64)
    drawn = np.random.default_rng(seed).permutation(values.size)
    order = drawn[np.argsort(-values.ravel()[drawn], kind="stable")]
    places = np.empty(values.size, np.int64)
    places[order] = np.arange(values.size)
    return places.reshape(values.shape)


def _tent(places: np.ndarray, count: int) -> np.ndarray:
    """(outputs, inputs) weights of linear interpolation at places among so many inputs."""
    distance = np.abs(places[:, None] - np.arange(count))
    return np.maximum(0, 1 - distance).astype(np.float32)


def _blurring(side: int, size: int, sigma: float) -> np.ndarray:
    """(side, side): a Gaussian about each pixel, mirrored at the outer ones."""
    offsets = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    places = np.arange(side)[:, None] + offsets
    period = max(2 * (side - 1), 1)
    inside = (side - 1) - np.abs((side - 1) - places % period)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], inside), weights / weights.sum())
    return matrix.astype(np.float32)


def _separable(rows: Matrix, columns: Matrix, values: jax.Array) -> jax.Array:
    """Rows · values · columnsᵀ over the last two axes."""
    exact = jax.lax.Precision.HIGHEST
    tall = jnp.matmul(rows, values, precision=exact)
    return jnp.matmul(tall, jnp.swapaxes(jnp.asarray(columns), -1, -2), precision=exact)
