"""Whether a map says what a network goes by: measures without a person's judgement, and controls.

Areas and figures are of one image each. A figure says something beside that of a map of noise, of a
map that is bright in the middle (`random_map`, `centre_map`), and never alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from featvis import checks
from featvis.attribution.localisation import Box
from featvis.attribution.masking import blurred, places_in_order, scored
from featvis.attribution.method import Probed
from featvis.errors import InputError
from featvis.evidence.metrics import centred_ranks

#: RISE's blur, which a picture appears from: pixels of the window, and of the deviation.
_BLUR = (11, 5.0)


# ---- taking pixels away and giving them back -----------------------------------------------


def deletion(
    given: Probed, ranked: ArrayLike, *, steps: int = 64, baseline: Any = "grey"
) -> np.ndarray:
    """The score while pixels are replaced, the highest of a map first: low is faithful.

    Petsiuk et al. 2018 (RISE), section 4, who replace 224 pixels at a step by the zero of a
    normalised image, which is about mid-grey.

    Args:
        given: the image and its score.
        ranked: the map, (h, w).
        steps: in which all pixels are replaced, at least 1.
        baseline: what replaces them, as `baselines` takes it.

    Returns:
        (steps + 1,): of the whole image first, of the baseline last.

    Raises:
        InputError: no step, or a map of another size.
    """
    return _curve(given, ranked, steps, baseline, vanishes=True)


def insertion(
    given: Probed, ranked: ArrayLike, *, steps: int = 64, baseline: Any = None
) -> np.ndarray:
    """The score while pixels appear in a blurred image, the highest of a map first: high is good.

    Petsiuk et al. 2018 (RISE), section 4.

    Args:
        given: the image and its score.
        ranked: the map, (h, w).
        steps: in which all pixels appear, at least 1.
        baseline: what they appear in, as `baselines` takes it; by default RISE's blur, of 5 pixels
            in a window of 11.

    Returns:
        (steps + 1,): of the baseline first, of the whole image last.

    Raises:
        InputError: no step, or a map of another size.
    """
    if baseline is None:
        baseline = blurred(jnp.asarray(given.image)[None], *_BLUR)[0]
    return _curve(given, ranked, steps, baseline, vanishes=False)


def area(curve: ArrayLike) -> np.ndarray:
    """The area under curves (..., steps + 1) over the share of pixels, by the trapezoidal rule."""
    values = np.asarray(curve, np.float64)
    ends = (values[..., 0] + values[..., -1]) / 2
    return (values[..., 1:-1].sum(axis=-1) + ends) / (values.shape[-1] - 1)


def _curve(
    given: Probed, ranked: ArrayLike, steps: int, baseline: Any, *, vanishes: bool
) -> np.ndarray:
    if steps < 1:
        raise InputError(f"steps must be an integer of at least 1; got {steps!r}")
    if np.shape(ranked) != given.image.shape[:2]:
        raise InputError(f"the map must be {given.image.shape[:2]}; got {np.shape(ranked)}")
    places = jnp.asarray(places_in_order(ranked))
    counts = np.ceil(np.arange(steps + 1) * places.size / steps).astype(np.int64)

    def masks(counts: jax.Array) -> jax.Array:
        reached = places < counts[:, None, None]
        return (~reached if vanishes else reached).astype(jnp.float32)

    return np.concatenate([scores for scores, _ in scored(given, baseline, counts, masks)])


# ---- where objects are ---------------------------------------------------------------------


def inside_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """The pixels in any of some boxes, (h, w) of bool.

    Args:
        boxes: in pixels, at least one.
        size: (h, w) of the image.

    Raises:
        InputError: no box, none with a pixel of the image, or what is no box.
    """
    mask = np.zeros(size, bool)
    sides = checks.real_array("boxes", boxes, np.float64)
    if sides.size and (sides.ndim != 2 or sides.shape[1] != 4 or not np.isfinite(sides).all()):
        raise InputError(
            f"boxes are (left, top, right, bottom) each, four finite numbers; got {boxes!r}"
        )
    for box in sides:
        left, top, right, bottom = (max(round(side), 0) for side in box.tolist())
        mask[top:bottom, left:right] = True
    if not mask.any():
        raise InputError(f"none of {len(boxes)} boxes has a pixel of the image {size}")
    return mask


def pointing(ranked: ArrayLike, inside: np.ndarray, tolerance: int = 15) -> float:
    """Whether the highest pixel of a map is on the object: the pointing game's 1 or 0.

    Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", section 4. Of several
    highest pixels it is the share that is on it, so that a flat map wins nothing.

    Args:
        ranked: the map, (h, w).
        inside: the object's pixels, (h, w) of bool.
        tolerance: pixels that it may be off, theirs 15.
    """
    values = np.asarray(ranked)
    highest = np.argwhere(values == values.max())
    near = np.argwhere(inside)
    hits = [np.min(np.sum((near - one) ** 2, axis=1)) <= tolerance**2 for one in highest]
    return float(np.mean(hits))


def rank_iou(ranked: ArrayLike, inside: np.ndarray) -> float:
    """IoU of the object and as many pixels, the highest of a map: 0 to 1, no threshold to choose.

    Args:
        ranked: the map, (h, w).
        inside: the object's pixels, (h, w) of bool.
    """
    count = int(inside.sum())
    shared = int((inside & (places_in_order(ranked) < count)).sum())
    return shared / (2 * count - shared)


def mass_inside(ranked: ArrayLike, inside: np.ndarray) -> float:
    """The share of a map's positive values that is on the object: the energy pointing game.

    Wang et al. 2020, "Score-CAM". 0 of a map without positive values.

    Args:
        ranked: the map, (h, w).
        inside: the object's pixels, (h, w) of bool.
    """
    positive = np.maximum(np.asarray(ranked, np.float64), 0)
    total = positive.sum()
    return float(positive[inside].sum() / total) if total > 0 else 0.0


# ---- sums, stability, agreement ------------------------------------------------------------


def completeness(maps: ArrayLike, scores: ArrayLike, baseline: ArrayLike) -> np.ndarray:
    """By how much the sums of maps miss the differences of scores, in proportion: 0 is complete.

    Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", proposition 1.

    Args:
        maps: (n, h, w).
        scores: (n,), of the images.
        baseline: (n,), of the baselines.

    Returns:
        (n,): |Σ map − difference| / |difference|; infinite for no difference.
    """
    difference = np.asarray(scores, np.float64) - np.asarray(baseline, np.float64)
    miss = np.abs(np.asarray(maps, np.float64).sum(axis=(1, 2)) - difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(miss == 0, 0.0, miss / np.abs(difference))


def max_sensitivity(
    explained: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """The largest change of a map, in proportion, under noise that nobody sees.

    Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations", equation 5, over draws
    of uniform noise; what leaves [0, 1] is cut off, as an image has no other values.

    Args:
        explained: maps (n, h, w) of images (n, h, w, c).
        images: (n, h, w, c) in [0, 1].
        radius: of the noise.
        samples: draws, at least 1.
        seed: of the draws.

    Returns:
        (n,): the largest ‖map′ − map‖ / ‖map‖; infinite for a map of zeros that changes.

    Raises:
        InputError: no draw, or a radius that is not above 0.
    """
    if samples < 1 or not radius > 0:
        raise InputError(
            f"samples must be at least 1 and radius above 0; got {samples!r} and {radius!r}"
        )
    random = np.random.default_rng(seed)
    own = np.asarray(explained(images), np.float64)
    most = np.zeros(len(images))
    for _ in range(samples):
        noise = random.uniform(-radius, radius, images.shape)
        seen = np.clip(images + noise, 0, 1).astype(np.float32)
        change = _norms(np.asarray(explained(seen), np.float64) - own)
        with np.errstate(divide="ignore", invalid="ignore"):
            most = np.maximum(most, np.where(change == 0, 0.0, change / _norms(own)))
    return most


def agreement(maps: Sequence[ArrayLike]) -> np.ndarray:
    """Rank correlation of every two methods' maps, the mean over images, (methods, methods).

    Args:
        maps: (n, h, w) of each method, of the same images.

    Raises:
        InputError: maps of several shapes, or values that are not finite.
    """
    shapes = {np.shape(one) for one in maps}
    if len(shapes) != 1:
        raise InputError(f"maps are to be of one shape (n, h, w); got {sorted(shapes)}")
    ranks = np.stack(
        [centred_ranks(np.reshape(one, (len(one), -1))) for one in map(np.asarray, maps)]
    )
    return np.einsum("and,bnd->ab", ranks, ranks) / ranks.shape[1]


# ---- controls ------------------------------------------------------------------------------


def random_map(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A map of noise that is as smooth as most maps are: what knows nothing, (h, w).

    Args:
        size: (h, w).
        seed: of the noise.
    """
    noise = np.random.default_rng(seed).normal(size=(1, *size, 1)).astype(np.float32)
    sigma = max(size) / 20
    return np.asarray(blurred(jnp.asarray(noise), 2 * math.ceil(3 * sigma) + 1, sigma))[0, ..., 0]


def centre_map(size: tuple[int, int]) -> np.ndarray:
    """A map from 1 in the middle to 0 in the corners: where photographers put things, (h, w).

    Args:
        size: (h, w).
    """
    down, across = (np.linspace(-1, 1, side) for side in size)
    return 1 - np.hypot(down[:, None], across[None]) / math.sqrt(2)


def edge_map(image: np.ndarray) -> np.ndarray:
    """The size of an image's own gradient, the mean over colours: edges, whatever the network.

    Adebayo et al. 2018 find that some maps are little else.

    Args:
        image: (h, w, c).
    """
    return np.mean([np.hypot(*np.gradient(image[..., c])) for c in range(image.shape[-1])], axis=0)


def _norms(maps: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(maps.reshape(len(maps), -1) ** 2, axis=1))
