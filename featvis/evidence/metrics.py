"""Metrics: how good a pre-image is, by its activations and by its pixels.

Everything here is plain NumPy on results, one figure an image; nothing is differentiated. `found`
are the activations y of the pre-images, `target` those y₀ of the originals, of any shape (n, ...).

Sources: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them" (CVPR
2015) and "Visualizing Deep Convolutional Neural Networks Using Natural Pre-images" (IJCV 2016);
Feather et al., "Model metamers reveal divergent invariances between biological and artificial
neural networks" (Nature Neuroscience 2023).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from featvis.errors import InputError
from featvis.images import check_numbers, check_range

_BINS = 18

#: Rec. 601.
_LUMA = np.array([0.299, 0.587, 0.114])

#: Side of the windows of `checkerboard` in pixels.
_WINDOW = 8

_IMAGES = ("images", "originals")


def relative_error(found: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Normalised reconstruction error √(‖y − y₀‖² / ‖y₀‖²) of each image.

    The error of IJCV 2016 (table 2 and the figure of the layers), which reports its mean over
    images and 1.96 standard errors (`mean_interval`).

    Args:
        found: activations of the pre-images, (n, ...).
        target: activations of the originals, (n, ...).

    Returns:
        (n,), 0 at a perfect match, 1 for activations of zero.

    Raises:
        InputError: unequal shapes, no axis of images, values that are not finite, or a target that
            is all zero.
    """
    y, y0 = _both(found, target)
    return np.sqrt(_energy(y - y0) / _energy_of_target(y0))


def pairwise_error(found: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Squared error ‖y − y₀‖² of each image over the mean of ‖y₀ᵢ − y₀ⱼ‖² over pairs i ≠ j.

    The error of CVPR 2015 (section 5), which reports its mean and standard deviation over images:
    1 is how far two different images are. (Their code counts the n zeros of i = j in the mean
    too, which makes the errors n/(n − 1) times these.)

    Args:
        found: activations of the pre-images, (n, ...), n ≥ 2.
        target: activations of the originals, (n, ...).

    Returns:
        (n,), 0 at a perfect match.

    Raises:
        InputError: as `relative_error`, but for targets of zero; fewer than 2 images; or targets
            that are all the same.
    """
    y, y0 = _both(found, target)
    if len(y0) < 2:
        raise InputError("the pairwise error compares different targets: at least 2 are needed")
    # The mean of a squared difference is twice the variance.
    apart = 2 * y0.var(axis=0, ddof=1).sum()
    if apart == 0:
        raise InputError("the targets are all the same: their mean pairwise distance is 0")
    return _energy(y - y0) / apart


def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval, 1.96 standard errors s/√n (s with n − 1).

    The ± of IJCV 2016.

    Args:
        values: (n,), n ≥ 2, one for each image.

    Raises:
        InputError: not (n,), fewer than 2, or not finite.
    """
    v = np.asarray(values, np.float64)
    if v.ndim != 1 or len(v) < 2:
        raise InputError(f"values (n,) of at least 2 images are expected; got shape {v.shape}")
    _check_finite("values", v)
    return float(v.mean()), float(1.96 * v.std(ddof=1) / np.sqrt(len(v)))


def psnr(images: ArrayLike, originals: ArrayLike) -> np.ndarray:
    """Peak signal-to-noise ratio −10 log₁₀ of the mean squared difference, for a peak of 1.

    Args:
        images: (n, h, w, c), in [0, 1].
        originals: (n, h, w, c).

    Returns:
        (n,) in decibels, infinite for identical images.

    Raises:
        InputError: not images of equal shapes, or values that are not finite.
    """
    if np.ndim(images) != 4:
        raise InputError(f"images (n, h, w, c) are expected; got shape {np.shape(images)}")
    x, x0 = _both(_pixels(images, "images"), _pixels(originals, "originals"), _IMAGES)
    return _decibels(1.0, _energy(x - x0) / x.shape[1])


def checkerboard(images: ArrayLike, originals: ArrayLike) -> np.ndarray:
    """Amplitude of what alternates from pixel to pixel where the originals are smooth, in levels.

    Of patterns of the signs (−1)^(x+y), (−1)^x and (−1)^y, the checkerboard and stripes of single
    pixels that strided convolutions leave in gradients: their amplitudes are measured in windows of
    8 x 8 pixels, of which the quarter with the least deviation in the original counts, and summed
    in squares. A ramp has none, and noise averages out, as the square is the product of what both
    halves of a window show. Of 24 ImageNet photographs at 160 x 160 the median is 0.07 and the
    most, of one that is smooth nowhere, 0.8.

    Args:
        images: (n, h, w, c) in [0, 1], h and w at least 10.
        originals: (n, h, w, c), in which smooth windows are looked for.

    Returns:
        (n,) in levels of 1/255, the root of the mean over windows and colours: a for an image that
        is smooth but for a pattern ±a.

    Raises:
        InputError: not images of equal shapes, smaller ones, or values that are not finite.
    """
    shape = np.shape(images)
    if len(shape) != 4 or min(shape[1:3]) < _WINDOW + 2:
        raise InputError(
            f"images (n, h, w, c) of at least {_WINDOW + 2} x {_WINDOW + 2} are expected;"
            f" got shape {shape}"
        )
    x, x0 = (
        255 * rows.reshape(shape)
        for rows in _both(_pixels(images, "images"), _pixels(originals, "originals"), _IMAGES)
    )
    across, down = _alternating(x, 2), _alternating(x, 1)
    patterns = (_alternating(across, 1), _smoothed(across, 1), _smoothed(down, 2))
    upper, lower = np.split(_windows(np.stack(patterns, axis=-1)), 2, axis=2)
    squares = (upper.mean((2, 4)) * lower.mean((2, 4))).sum(-1).mean(-1).reshape(len(x), -1)
    rough = _windows(x0[:, 1:-1, 1:-1]).std((2, 4)).mean(-1).reshape(len(x), -1)
    smooth = np.argsort(rough, axis=1, kind="stable")[:, : math.ceil(rough.shape[1] / 4)]
    energy = np.take_along_axis(squares, smooth, axis=1).mean(1)
    # Of noise alone the mean of the products may be below 0.
    return np.sqrt(np.maximum(energy, 0))


def gradient_histogram(images: ArrayLike) -> np.ndarray:
    """Shares of the gradient's magnitude in 18 directions, over the whole of each image.

    As the code of IJCV 2016 measures pictures from files: grey (Rec. 601) in steps of 1/255, the
    Sobel gradient with the border's pixels repeated outwards, and its magnitude summed over the
    pixels whose angle, counterclockwise from the right, is in ((k − 9)·20°, (k − 8)·20°] for bin
    k = 0, ..., 17. So a gradient exactly to the right, 0°, is at the edge of bin 8.

    Args:
        images: (n, h, w, c), in [0, 1], c = 1 or 3.

    Returns:
        (n, 18), at least 0; the sum is 1, or 0 for a flat image, which has no gradient.

    Raises:
        InputError: other shapes, or values that are not finite.
    """
    x = _pixels(images, "images")
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or not x.size:
        raise InputError(f"images (n, h, w, 1 or 3) are expected; got shape {x.shape}")
    # In whole levels a gradient along an axis is exactly so, and its bin no matter of rounding.
    levels = np.rint(255 * x)
    grey = np.rint(levels @ _LUMA) if levels.shape[-1] == 3 else levels[..., 0]
    grey = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    beside = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    above = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    right = beside[:, :, 2:] - beside[:, :, :-2]
    up = above[:, :-2] - above[:, 2:]
    angle = np.degrees(np.arctan2(up, right))
    bins = np.ceil(angle * _BINS / 360).astype(int) + _BINS // 2 - 1
    places = np.arange(len(grey))[:, None, None] * _BINS + bins
    sums = np.bincount(places.ravel(), np.hypot(right, up).ravel(), len(grey) * _BINS)
    sums = sums.reshape(-1, _BINS)
    # One gradient in whole levels is at least 1: only the 0 of a flat image is below.
    return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1)


def naturalness(images: ArrayLike, reference: ArrayLike) -> np.ndarray:
    """Intersection Σₖ min(hₖ, gₖ) of each image's gradient histogram h with a reference g.

    IJCV 2016 compares each pre-image with its own original: give the originals. The mean histogram
    of many photographs as the reference, `gradient_histogram(photographs).mean(0)`, is ours: it
    asks for the directions of natural images, whatever the original. Both see directions alone,
    not contrast nor scale nor smoothness: white noise, whose directions are even, is nearer to the
    mean of 800 photographs (0.90 at 160 x 160) than a photograph is (0.85).

    Args:
        images: (n, h, w, c), in [0, 1], c = 1 or 3.
        reference: originals (n, h', w', c'), or histograms (18,) for all or (n, 18) for each.

    Returns:
        (n,) in [0, 1]; 1 for equal histograms, 0 for a flat image.

    Raises:
        InputError: other shapes, values that are not finite, or a histogram that is not one.
    """
    own = gradient_histogram(images)
    if np.ndim(reference) == 4:
        other = gradient_histogram(reference)
    else:
        other = np.asarray(reference, np.float64)
    if other.shape not in ((_BINS,), own.shape):
        raise InputError(
            f"the reference is {len(own)} originals (n, h, w, c), or histograms (18,) or"
            f" {own.shape}; got shape {np.shape(reference)}"
        )
    # The mean of histograms of which some are empty, of flat images, has a sum below 1.
    if not (np.all(other >= 0) and np.all(other.sum(-1) < 1 + 1e-6)):
        raise InputError("the reference histograms must be shares, at least 0 and of sum 1")
    return np.minimum(own, other).sum(axis=1)


def same_class(found_logits: ArrayLike, target_logits: ArrayLike) -> np.ndarray:
    """Whether the network's first class for the pre-image is that for the original.

    Its mean is the classification consistency of IJCV 2016.

    Args:
        found_logits: (n, classes), logits or probabilities.
        target_logits: (n, classes).

    Returns:
        (n,) bool; of equal largest values the first counts.

    Raises:
        InputError: not (n, classes) of equal shapes, or values that are not finite.
    """
    if np.ndim(found_logits) != 2:
        raise InputError(f"logits (n, classes) are expected; got shape {np.shape(found_logits)}")
    y, y0 = _both(found_logits, target_logits, ("found_logits", "target_logits"))
    return y.argmax(axis=1) == y0.argmax(axis=1)


def spearman(found: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Spearman's rank correlation ρ of the activations of each image with its target's.

    The correlation of ranks over all units and positions; ties, as the zeros after a ReLU, have
    the mean of their ranks. Feather et al. 2023 judge metamers by it, against `null_pairs`.

    Args:
        found: activations of the pre-images, (n, ...).
        target: activations of the originals, (n, ...).

    Returns:
        (n,) in [−1, 1]; 0 where all activations of either are equal, which ranks nothing.

    Raises:
        InputError: unequal shapes, no axis of images, or values that are not finite.
    """
    y, y0 = _both(found, target)
    return (centred_ranks(y) * centred_ranks(y0)).sum(axis=1)


def centred_ranks(rows: ArrayLike) -> np.ndarray:
    """Ranks in each row (n, d), ties at their mean, centred and of norm 1; 0 where all are equal.

    The products of two rows are Spearman's correlation.

    Args:
        rows: (n, d), of d ≥ 1 values.

    Raises:
        InputError: no rows, or values that are not finite.
    """
    given = _rows("rows", rows)
    ranks = np.empty(given.shape)
    for row, out in zip(given, ranks, strict=True):
        _, place, count = np.unique(row, return_inverse=True, return_counts=True)
        out[:] = (count.cumsum() - (count - 1) / 2)[place]
    ranks -= (given.shape[1] + 1) / 2
    # Ranks that differ have an energy of at least 0.5.
    return ranks / np.sqrt(np.maximum(_energy(ranks), 0.5))[:, None]


def cosine(found: ArrayLike, target: ArrayLike) -> np.ndarray:
    """True cosine of activations with the target's, both norms divided out.

    Args:
        found: activations of the pictures, (n, ...).
        target: activations of the originals, (n, ...).

    Returns:
        (n,) in [−1, 1]; 0 for activations of zero.

    Raises:
        InputError: unequal shapes, no axis of images, values that are not finite, or a target that
            is all zero.
    """
    y, y0 = _both(found, target)
    norm = np.sqrt(_energy(y))
    return (y * y0).sum(1) / np.where(norm > 0, norm, 1) / np.sqrt(_energy_of_target(y0))


def projection(found: ArrayLike, target: ArrayLike) -> np.ndarray:
    """How far activations go along the target's, ⟨y, y₀⟩ / ‖y₀‖²: 1 is as far as the original.

    Args:
        found: activations of the pictures, (n, ...).
        target: activations of the originals, (n, ...).

    Returns:
        (n,).

    Raises:
        InputError: unequal shapes, no axis of images, values that are not finite, or a target that
            is all zero.
    """
    y, y0 = _both(found, target)
    return (y * y0).sum(1) / _energy_of_target(y0)


def signal_to_noise(found: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Signal-to-noise ratio 10 log₁₀(‖y₀‖² / ‖y − y₀‖²) of each image, in decibels.

    That is −20 log₁₀ of `relative_error`. Feather et al. 2023 judge metamers by it, against
    `null_pairs`; their code takes the norms without the squares, which halves the decibels.

    Args:
        found: activations of the pre-images, (n, ...).
        target: activations of the originals, (n, ...).

    Returns:
        (n,), infinite at a perfect match, 0 for activations of zero.

    Raises:
        InputError: as `relative_error`.
    """
    y, y0 = _both(found, target)
    return _decibels(_energy_of_target(y0), _energy(y - y0))


class NullPairs(NamedTuple):
    """How alike the activations of two different images are, for each of many pairs.

    Attributes:
        spearman: (pairs,), as `spearman`.
        signal_to_noise: (pairs,) in decibels, as `signal_to_noise`.
    """

    spearman: np.ndarray
    signal_to_noise: np.ndarray


def null_pairs(activations: ArrayLike, pairs: int | None = None, *, seed: int = 0) -> NullPairs:
    """Null distributions of `spearman` and `signal_to_noise`: random pairs of natural images.

    A pre-image that is no nearer to its target than another photograph has not matched it. In
    Feather et al. 2023 there are a million pairs, of images that each occur once; here an image
    occurs in several pairs, but no pair twice. Which of the two is the target is drawn too.

    Args:
        activations: of n ≥ 2 different natural images, (n, ...).
        pairs: their number, at most n(n − 1)/2. None: all.
        seed: of the draw.

    Raises:
        InputError: no axis of images, fewer than 2, an image whose activations are all zero,
            values that are not finite, or a number of pairs that there is not.
    """
    y = _rows("activations", activations)
    first, second = np.triu_indices(len(y), 1)
    if len(y) < 2 or (pairs is not None and not 1 <= pairs <= len(first)):
        raise InputError(
            f"{len(y)} images have {len(first)} pairs; at least 1 is needed"
            + ("" if pairs is None else f", and {pairs} are asked for")
        )
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(first))[:pairs]
    couples = rng.permuted(np.stack([first, second], axis=1)[drawn], axis=1)
    ranks, energies = centred_ranks(y), _energy_of_target(y, "activations")
    # One pair at a time: the activations of all pairs at once would not fit.
    rho = np.array([ranks[i] @ ranks[j] for i, j in couples])
    noise = np.array([_energy((y[i] - y[j])[None])[0] for i, j in couples])
    return NullPairs(rho, _decibels(energies[couples[:, 1]], noise))


def null_p_value(found: ArrayLike, null: ArrayLike) -> np.ndarray:
    """Share of a null distribution that is at least as large as each value, (1 + #) / (1 + m).

    The ones count the value itself, so that no p-value is 0 (Phipson & Smyth 2010, "Permutation
    P-values Should Never Be Zero"): 1/(1 + m), the smallest, is a value above all of the null.
    Ask for a small one of both measures: activations that are merely near 0 have 0 dB, above all
    pairs of photographs in EfficientNet-Lite0 (about −2.6 dB, at most −1), but no correlation.

    Args:
        found: (n,), of `spearman` or `signal_to_noise`.
        null: (m,), the same of `null_pairs`.

    Returns:
        (n,) in (0, 1].

    Raises:
        InputError: not (n,) and (m,), an empty null, or not a number.
    """
    values, drawn = np.asarray(found, np.float64), np.asarray(null, np.float64)
    if values.ndim != 1 or drawn.ndim != 1 or not len(drawn):
        raise InputError(
            f"found (n,) and null (m,) are expected; got shapes {values.shape} and {drawn.shape}"
        )
    if np.isnan(values).any() or np.isnan(drawn).any():
        raise InputError("found and null must be numbers; some are NaN")
    at_least = len(drawn) - np.searchsorted(np.sort(drawn), values)
    return (1 + at_least) / (1 + len(drawn))


def _alternating(x: np.ndarray, axis: int) -> np.ndarray:
    """Amplitude at the inner places of an axis of what has the signs (−1)^i; a ramp has none."""
    x = np.moveaxis(x, axis, -1)
    signs = np.where(np.arange(1, x.shape[-1] - 1) % 2, -1, 1)
    found = signs * (2 * x[..., 1:-1] - x[..., :-2] - x[..., 2:]) / 4
    return np.moveaxis(found, -1, axis)


def _smoothed(x: np.ndarray, axis: int) -> np.ndarray:
    """What does not alternate at the inner places of an axis."""
    x = np.moveaxis(x, axis, -1)
    return np.moveaxis((2 * x[..., 1:-1] + x[..., :-2] + x[..., 2:]) / 4, -1, axis)


def _windows(x: np.ndarray) -> np.ndarray:
    """(n, h, w, ...) as windows (n, rows, 8, columns, 8, ...), without what is left over."""
    rows, columns = x.shape[1] // _WINDOW, x.shape[2] // _WINDOW
    whole = x[:, : rows * _WINDOW, : columns * _WINDOW]
    return whole.reshape(len(x), rows, _WINDOW, columns, _WINDOW, *x.shape[3:])


def _both(
    a: ArrayLike, b: ArrayLike, names: tuple[str, str] = ("found", "target")
) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of one shape (n, ...) as float64 (n, d)."""
    if np.shape(a) != np.shape(b):
        raise InputError(
            f"{names[0]} and {names[1]} must have one shape; got {np.shape(a)} and {np.shape(b)}"
        )
    return _rows(names[0], a), _rows(names[1], b)


def _rows(name: str, values: ArrayLike) -> np.ndarray:
    """An array (n, ...) as float64 (n, d)."""
    v = np.asarray(values, np.float64)
    if v.ndim < 2 or not v.size:
        raise InputError(f"{name} (n, ...) of n images is expected; got shape {v.shape}")
    _check_finite(name, v)
    return v.reshape(len(v), -1)


def _pixels(images: ArrayLike, name: str) -> np.ndarray:
    """Images as float64 in [0, 1], up to rounding; those of uint8 are from 0 to 255."""
    array = np.asarray(images)
    check_numbers(array, name)
    if array.dtype == np.uint8:
        return array / 255
    if array.size:
        check_range(array, name)
    return array.astype(np.float64)


def _check_finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be finite; some are NaN or infinite")


def _energy(rows: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", rows, rows)


def _energy_of_target(rows: np.ndarray, name: str = "target") -> np.ndarray:
    energy = _energy(rows)
    if not energy.all():
        raise InputError(f"{name} {int(energy.argmin())} is all zero: there is no signal to match")
    return energy


def _decibels(signal: float | np.ndarray, noise: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 10 * np.log10(signal / noise)
