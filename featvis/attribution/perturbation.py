"""Attribution by hiding parts of an image: scores alone are needed, of any function of images.

Masks are made and scored in chunks of as many as go together best, so that memory does not grow
with their number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis.attribution.baselines import Baseline
from featvis.attribution.masking import rise_masks, scored
from featvis.attribution.method import Probed, method
from featvis.attribution.options import Range
from featvis.attribution.segments import segments_of
from featvis.errors import InputError


@method("occlusion", black_box=True)
def occlusion(
    given: Probed,
    *,
    window: Annotated[int, Range(1)] = 32,
    stride: Annotated[int, Range(1)] = 16,
    baseline: Baseline = "grey",
) -> np.ndarray:
    """How much the score falls where a window hides the image: the mean over windows on a pixel.

    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    Windows start at the multiples of the stride, the last ones reach up to the border or are cut
    off at it, and every pixel is below one at least.

    Args:
        given: the image and its score.
        window: side of the square in pixels.
        stride: pixels from one window to the next, at most the side.
        baseline: what is seen in the window.

    Raises:
        InputError: a stride that leaves pixels without a window, or a window that hides them all.
    """
    if stride > window:
        raise InputError(
            f"occlusion: windows of {window} pixels every {stride} leave pixels unseen; stride is "
            f"an integer from 1 to {window}"
        )
    size = given.image.shape[:2]
    if window >= max(size):
        raise InputError(
            f"occlusion: a window of {window} pixels hides all of an image of {size[0]}x{size[1]}; "
            f"window is an integer from 1 to {max(size) - 1}, as {max(1, max(size) // 7)}"
        )
    starts = [range(0, max(side - window, 0) + stride, stride) for side in size]
    corners = np.array([(top, left) for top in starts[0] for left in starts[1]])
    whole = given.score(given.image[None])[0]
    falls, times = jnp.zeros(size, jnp.float32), jnp.zeros(size, jnp.float32)
    for scores, kept in scored(given, baseline, corners, functools.partial(_outside, window, size)):
        falls += jnp.tensordot(whole - scores, 1 - kept, 1)
        times += jnp.sum(1 - kept, axis=0)
    return np.asarray(falls / times)


@method("rise", black_box=True)
def rise(
    given: Probed,
    *,
    masks: Annotated[int, Range(1)] = 4000,
    grid: Annotated[int, Range(1)] = 8,
    keep: Annotated[float, Range(0.001, 0.999)] = 0.1,
    baseline: Baseline = "grey",
) -> np.ndarray:
    """The mean of random masks weighted by the score of what they leave, over the share they leave.

    Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    equation 6: Σ f(x·m)·m / (N·p). Masks are coarse grids of zeros and ones, enlarged bilinearly
    and shifted at random.

    Args:
        given: the image and its score.
        masks: how many; the authors take 4,000 to 8,000.
        grid: cells of a mask along each side.
        keep: probability that a cell is kept, p.
        baseline: what is seen where a mask hides; the authors' 0 of a normalised image is about
            mid-grey.
    """
    size = given.image.shape[:2]
    draw = functools.partial(_drawn_grids, given.key, grid, jnp.float32(keep), size)
    return _weighted(given, baseline, masks, draw) / keep


@method("mfpp", black_box=True)
def mfpp(
    given: Probed,
    *,
    masks: Annotated[int, Range(1)] = 4000,
    scales: Annotated[int, Range(1, 8)] = 5,
    coarsest: Annotated[int, Range(2)] = 25,
    keep: Annotated[float, Range(0.001, 0.999)] = 0.5,
    baseline: Baseline = "grey",
) -> np.ndarray:
    """RISE with masks of segments, of several scales in turn, in place of grids.

    Yang et al. 2020, "MFPP: Morphological Fragmental Perturbation Pyramid for Black-Box Model
    Explanations". A mask keeps each segment of its scale with the same probability, and its edges
    are the segments' own.

    Args:
        given: the image and its score.
        masks: how many, of all scales together.
        scales: of segments; each has twice as many segments as the one before.
        coarsest: segments of the first scale, about.
        keep: probability that a segment is kept, p.
        baseline: what is seen where a mask hides.

    Raises:
        FeatvisError: scikit-image is not installed.
        InputError: fewer masks than scales.
    """
    if masks < scales:
        raise InputError(
            f"mfpp: {masks} masks are fewer than the {scales} scales, each of which takes one at "
            f"least: scales is an integer from 1 to {masks}"
        )
    pyramid = np.stack([segments_of(given.image, coarsest * 2**one) for one in range(scales)])
    draw = functools.partial(_drawn_segments, given.key, jnp.float32(keep), jnp.asarray(pyramid))
    return _weighted(given, baseline, masks, draw) / keep


def _weighted(
    given: Probed, baseline: Any, masks: int, draw: Callable[[jax.Array], jax.Array]
) -> np.ndarray:
    """The mean over so many masks of each times the score of what it leaves, (h, w)."""
    total = jnp.zeros(given.image.shape[:2], jnp.float32)
    for scores, kept in scored(given, baseline, range(masks), draw):
        total += jnp.tensordot(scores, kept, 1)
    return np.asarray(total / masks)


@functools.partial(jax.jit, static_argnums=(1, 3))
def _drawn_grids(
    key: jax.Array, grid: int, keep: jax.Array, size: tuple[int, int], numbers: jax.Array
) -> jax.Array:
    """RISE's masks of these numbers, (m, h, w), each drawn by its own key."""

    def draw(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        cells, shift = jax.random.split(jax.random.fold_in(key, number))
        ends = jnp.array([math.ceil(side / grid) for side in size], jnp.int32)
        return jax.random.bernoulli(cells, keep, (grid, grid)), jax.random.randint(
            shift, (2,), 0, ends, jnp.int32
        )

    grids, shifts = jax.vmap(draw)(numbers)
    return rise_masks(grids.astype(jnp.float32), shifts, size)


@jax.jit
def _drawn_segments(
    key: jax.Array, keep: jax.Array, pyramid: jax.Array, numbers: jax.Array
) -> jax.Array:
    """Masks of these numbers, (m, h, w): each of the next scale, its segments kept at random."""

    def draw(number: jax.Array) -> jax.Array:
        # As many as there can be segments, so that one program does for every image.
        kept = jax.random.bernoulli(jax.random.fold_in(key, number), keep, (pyramid[0].size,))
        return kept[pyramid[number % len(pyramid)]]

    return jax.vmap(draw)(numbers).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outside(window: int, size: tuple[int, int], corners: jax.Array) -> jax.Array:
    """1 outside and 0 inside the windows at these corners, (m, h, w)."""
    inside = []
    for axis, side in enumerate(size):
        start = corners[:, axis, None]
        place = jnp.arange(side, dtype=corners.dtype)[None]
        inside.append((place >= start) & (place < start + window))
    return (~(inside[0][:, :, None] & inside[1][:, None, :])).astype(jnp.float32)
