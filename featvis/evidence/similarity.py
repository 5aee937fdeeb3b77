"""How alike pictures are to the eye, and how different those of a set are from each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from featvis.errors import InputError

#: Of the scales, from the whole size on (Wang et al. 2003, section 3.2).
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
#: Pairs of a set that are compared at most, drawn evenly.
_MOST_PAIRS = 2000
#: Numbers that are filtered at once.
_AT_ONCE = 2**23


def ms_ssim(images: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Multi-scale structural similarity of each image with another (Wang et al. 2003).

    Windows of 11 x 11 pixels with a Gaussian of 1.5, inside the picture; each next scale has half
    the sides. Of the paper's five scales those are there that a window fits into, with their
    weights brought to the sum 1: two for 28 x 28 pixels, five from 176. A factor below 0, which
    has no root, counts as 0; colours count evenly.

    Args:
        images: (n, h, w, c) in [0, 1], sides of at least 11.
        others: (n, h, w, c).

    Returns:
        (n,) in [0, 1], 1 for equal images.

    Raises:
        InputError: not images of equal shapes, smaller ones, or values that are not finite.
    """
    x, y = (np.asarray(one, np.float64) for one in (images, others))
    if x.ndim != 4 or x.shape != y.shape or min(x.shape[1:3]) < _WINDOW:
        raise InputError(
            f"images (n, h, w, c) of equal shapes and sides of at least {_WINDOW} are expected; "
            f"got {np.shape(images)} and {np.shape(others)}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("images hold values that are not finite")
    scales = 1
    while scales < len(_WEIGHTS) and min(x.shape[1:3]) >> scales >= _WINDOW:
        scales += 1
    weights = np.array(_WEIGHTS[:scales]) / sum(_WEIGHTS[:scales])
    found = np.ones((len(x), x.shape[-1]))
    for scale, weight in enumerate(weights):
        if scale:
            x, y = _halved(x), _halved(y)
        light, structure = _ssim(x, y)
        factor = structure * light if scale == scales - 1 else structure
        found *= np.maximum(factor.mean((1, 2)), 0) ** weight
    return found.mean(1)


def _halved(x: np.ndarray) -> np.ndarray:
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def _ssim(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The terms of luminance, and of contrast and structure, at every window."""
    ax, ay = _blurred(x), _blurred(y)
    xx, yy, xy = _blurred(x * x) - ax**2, _blurred(y * y) - ay**2, _blurred(x * y) - ax * ay
    light = (2 * ax * ay + _C1) / (ax**2 + ay**2 + _C1)
    return light, (2 * xy + _C2) / (xx + yy + _C2)


def _blurred(x: np.ndarray) -> np.ndarray:
    """Means under a Gaussian window, of windows inside the picture."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    taps = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    taps /= taps.sum()
    h, w = (side - _WINDOW + 1 for side in x.shape[1:3])
    rows = sum(tap * x[:, place : place + h] for place, tap in enumerate(taps))
    found: np.ndarray = sum(tap * rows[:, :, p : p + w] for p, tap in enumerate(taps))
    return found


class Diversity(NamedTuple):
    """How different the pictures of a set are: means over its pairs.

    Attributes:
        ms_ssim: multi-scale structural similarity, 1 for equal pictures; NaN for those smaller
            than its window.
        distance: Euclidean distance of features; NaN without features.
        pairs: how many were compared.
    """

    ms_ssim: float
    distance: float
    pairs: int


def diversity(images: ArrayLike, features: ArrayLike | None = None) -> Diversity:
    """How different the pictures of a set are from each other.

    Args:
        images: (n, h, w, c) in [0, 1], n of at least 2.
        features: of the pictures, (n, ...), of a network that had no part in them.

    Raises:
        InputError: fewer than 2 pictures, or not as many features.
    """
    pictures = np.asarray(images, np.float64)
    if pictures.ndim != 4 or len(pictures) < 2:
        raise InputError(f"a set is of at least 2 images (n, h, w, c); got {pictures.shape}")
    first, second = np.triu_indices(len(pictures), 1)
    if len(first) > _MOST_PAIRS:
        some = np.random.default_rng(0).choice(len(first), _MOST_PAIRS, replace=False)
        first, second = first[some], second[some]
    alike = np.nan
    if min(pictures.shape[1:3]) >= _WINDOW:
        step = max(1, _AT_ONCE // pictures[0].size)
        parts = [
            ms_ssim(pictures[first[i : i + step]], pictures[second[i : i + step]])
            for i in range(0, len(first), step)
        ]
        alike = float(np.concatenate(parts).mean())
    apart = np.nan
    if features is not None:
        rows = np.asarray(features, np.float64)
        rows = rows.reshape(len(rows), -1)
        if len(rows) != len(pictures):
            raise InputError(f"features are of {len(rows)} pictures; there are {len(pictures)}")
        apart = float(np.linalg.norm(rows[first] - rows[second], axis=1).mean())
    return Diversity(alike, apart, len(first))
