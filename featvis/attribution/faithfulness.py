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
from featvis.attribution.baselines import checked_baseline
from featvis.attribution.localisation import Box
from featvis.attribution.masking import blurred, places_in_order, scored
from featvis.attribution.method import Probed
from featvis.errors import InputError, NonFiniteError
from featvis.evidence.metrics import centred_ranks

#: RISE's blur, which a picture appears from: pixels of the window, and of the deviation.
_BLUR = (11, 5.0)

#: Steps of a curve: more than images have pixels that are looked at.
_MOST_STEPS = 10_000_000


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
        InputError: no step, a map of another size, or what is no baseline.
        NonFiniteError: a NaN or an infinity in the map.
    """
    baseline = checked_baseline("deletion", baseline, given.image)
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
        InputError: as `deletion`.
        NonFiniteError: likewise.
    """
    if baseline is None:
        baseline = blurred(jnp.asarray(given.image)[None], *_BLUR)[0]
    else:
        baseline = checked_baseline("insertion", baseline, given.image)
    return _curve(given, ranked, steps, baseline, vanishes=False)


def area(curve: ArrayLike) -> np.ndarray:
    """The area under curves (..., steps + 1) over the share of pixels, by the trapezoidal rule.

    Raises:
        InputError: no curve of at least one step.
    """
    values = checks.real_array("a curve", curve, np.float64)
    if not values.ndim or values.shape[-1] < 2:
        raise InputError(f"a curve is (..., steps + 1) of at least 1 step; got {values.shape}")
    ends = (values[..., 0] + values[..., -1]) / 2
    return (values[..., 1:-1].sum(axis=-1) + ends) / (values.shape[-1] - 1)


def _curve(
    given: Probed, ranked: ArrayLike, steps: int, baseline: Any, *, vanishes: bool
) -> np.ndarray:
    owner = "deletion" if vanishes else "insertion"
    steps = checks.integer(owner, "steps", steps, 1, _MOST_STEPS)
    places = jnp.asarray(places_in_order(_map(ranked, given.image.shape[:2])))
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
        InputError: no box, none with a pixel of the image, or what is no box or no size.
    """
    mask = np.zeros(checks.image_size("inside_boxes", "size", size), bool)
    sides = checks.real_array("boxes", boxes, np.float64)
    if sides.size and (sides.ndim != 2 or sides.shape[1] != 4 or not np.isfinite(sides).all()):
        raise InputError(
            f"boxes are (left, top, right, bottom) each, four finite numbers; got {boxes!r}"
        )
    for box in sides:
        left, top, right, bottom = (max(round(side), 0) for side in box.tolist())
        mask[top:bottom, left:right] = True
    if not mask.any():
        raise InputError(f"none of {len(sides)} boxes has a pixel of the image {size}")
    return mask


def pointing(ranked: ArrayLike, inside: np.ndarray, tolerance: float = 15) -> float:
    """Whether the highest pixel of a map is on the object: the pointing game's 1 or 0.

    Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", section 4. Of several
    highest pixels it is the share that is on it, so that a flat map wins nothing.

    Args:
        ranked: the map, (h, w).
        inside: the object's pixels, (h, w) of bool.
        tolerance: pixels that it may be off, theirs 15.

    Raises:
        InputError: a map and an object of different sizes, no object, or no number of pixels.
        NonFiniteError: a NaN or an infinity in the map.
    """
    tolerance = checks.number("pointing", "tolerance", tolerance, 0)
    values, inside = _with_object(ranked, inside)
    highest = np.argwhere(values == values.max())
    near = np.argwhere(inside)
    hits = [np.min(np.sum((near - one) ** 2, axis=1)) <= tolerance**2 for one in highest]
    return float(np.mean(hits))


def rank_iou(ranked: ArrayLike, inside: np.ndarray) -> float:
    """IoU of the object and as many pixels, the highest of a map: 0 to 1, no threshold to choose.

    Args:
        ranked: the map, (h, w).
        inside: the object's pixels, (h, w) of bool.

    Raises:
        InputError: as `pointing`.
        NonFiniteError: likewise.
    """
    values, inside = _with_object(ranked, inside)
    count = int(inside.sum())
    shared = int((inside & (places_in_order(values) < count)).sum())
    return shared / (2 * count - shared)


def mass_inside(ranked: ArrayLike, inside: np.ndarray) -> float:
    """The share of a map's positive values that is on the object: the energy pointing game.

    Wang et al. 2020, "Score-CAM". 0 of a map without positive values.

    Args:
        ranked: the map, (h, w).
        inside: the object's pixels, (h, w) of bool.

    Raises:
        InputError: as `pointing`.
        NonFiniteError: likewise.
    """
    values, inside = _with_object(ranked, inside)
    positive = np.maximum(values, 0)
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

    Raises:
        InputError: no maps, or scores of another number of images.
        NonFiniteError: a NaN or an infinity.
    """
    whole = as_maps(maps)
    count = len(whole)
    own = _finite("the scores", checks.real_array("the scores", scores, np.float64))
    least = _finite("the scores", checks.real_array("the baselines' scores", baseline, np.float64))
    if own.shape != (count,) or least.shape != (count,):
        raise InputError(
            f"scores of {count} maps and of their baselines are ({count},) each; got {own.shape} "
            f"and {least.shape}"
        )
    difference = own - least
    miss = np.abs(whole.sum(axis=(1, 2)) - difference)
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
        InputError: no draw, a radius that is not above 0, no seed, or maps of another number or
            size than the images.
        NonFiniteError: a NaN or an infinity in a map.
    """
    samples = checks.integer("max_sensitivity", "samples", samples, 1)
    radius = checks.positive("max_sensitivity", "radius", radius)
    random = np.random.default_rng(checks.seed("max_sensitivity", "seed", seed))

    def mapped(seen: np.ndarray) -> np.ndarray:
        return as_maps(explained(seen), images.shape[:3])

    own = mapped(images)
    most = np.zeros(len(images))
    for _ in range(samples):
        noise = random.uniform(-radius, radius, images.shape)
        seen = np.clip(images + noise, 0, 1).astype(np.float32)
        change = _norms(mapped(seen) - own)
        with np.errstate(divide="ignore", invalid="ignore"):
            most = np.maximum(most, np.where(change == 0, 0.0, change / _norms(own)))
    return most


def agreement(maps: Sequence[ArrayLike]) -> np.ndarray:
    """Rank correlation of every two methods' maps, the mean over images, (methods, methods).

    Args:
        maps: (n, h, w) of each method, of the same images.

    Raises:
        InputError: maps of several shapes, or what are no maps.
        NonFiniteError: a NaN or an infinity in a map.
    """
    several = [as_maps(one) for one in maps]
    shapes = {one.shape for one in several}
    if len(shapes) != 1:
        raise InputError(f"maps are to be of one shape (n, h, w); got {sorted(shapes)}")
    ranks = np.stack([centred_ranks(one.reshape(len(one), -1)) for one in several])
    return np.einsum("and,bnd->ab", ranks, ranks) / ranks.shape[1]


# ---- controls ------------------------------------------------------------------------------


def random_map(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A map of noise that is as smooth as most maps are: what knows nothing, (h, w).

    Args:
        size: (h, w).
        seed: of the noise.

    Raises:
        InputError: no size, or no seed.
    """
    size = checks.image_size("random_map", "size", size)
    seed = checks.seed("random_map", "seed", seed)
    noise = np.random.default_rng(seed).normal(size=(1, *size, 1)).astype(np.float32)
    sigma = max(size) / 20
    return np.asarray(blurred(jnp.asarray(noise), 2 * math.ceil(3 * sigma) + 1, sigma))[0, ..., 0]


def centre_map(size: tuple[int, int]) -> np.ndarray:
    """A map from 1 in the middle to 0 in the corners: where photographers put things, (h, w).

    Args:
        size: (h, w).

    Raises:
        InputError: no size.
    """
    size = checks.image_size("centre_map", "size", size)
    down, across = (np.linspace(-1, 1, side) for side in size)
    return 1 - np.hypot(down[:, None], across[None]) / math.sqrt(2)


def edge_map(image: np.ndarray) -> np.ndarray:
    """The size of an image's own gradient, the mean over colours: edges, whatever the network.

    Adebayo et al. 2018 find that some maps are little else.

    Args:
        image: (h, w, c), of two pixels at least each way.

    Raises:
        InputError: another shape or kind.
    """
    image = checks.real_array("an image", image, np.float64)
    if image.ndim != 3 or min(image.shape[:2]) < 2 or not image.shape[2]:
        raise InputError(f"an image is (h, w, c), of 2x2 pixels at least; got {image.shape}")
    return np.mean([np.hypot(*np.gradient(image[..., c])) for c in range(image.shape[-1])], axis=0)


# ---- what is given -------------------------------------------------------------------------


def _map(ranked: ArrayLike, size: tuple[int, ...]) -> np.ndarray:
    """A map (h, w) of a size, in float64.

    Raises:
        InputError: of another one, or of no real numbers.
        NonFiniteError: a NaN or an infinity.
    """
    values = checks.real_array("the map", ranked, np.float64)
    if values.shape != tuple(size):
        raise InputError(f"the map must be {tuple(size)}; got {values.shape}")
    return _finite("the map", values)


def as_maps(maps: ArrayLike, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Maps (n, h, w) in float64.

    Args:
        maps: of any real numbers.
        shape: that they are to have; None: any.

    Raises:
        InputError: another shape, or no real numbers.
        NonFiniteError: a NaN or an infinity.
    """
    values = checks.real_array("maps", maps, np.float64)
    if shape is not None and values.shape != shape:
        raise InputError(f"maps of these images are {shape}; got {values.shape}")
    if values.ndim != 3 or not values.size:
        raise InputError(f"maps are (n, h, w); got {values.shape}")
    return _finite("maps", values)


def _with_object(ranked: ArrayLike, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A map and an object's pixels (h, w), of one size; raises as `_map`."""
    pixels = np.asarray(inside)
    if pixels.ndim != 2 or pixels.dtype != bool or not pixels.any():
        raise InputError(
            "the object's pixels are (h, w) of bool, some of them True; got "
            f"{pixels.shape} of {pixels.dtype} with {np.count_nonzero(pixels)}"
        )
    return _map(ranked, pixels.shape), pixels


def _finite(what: str, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise NonFiniteError(f"NaN or infinity in {what}")
    return values


def _norms(maps: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(maps.reshape(len(maps), -1) ** 2, axis=1))
