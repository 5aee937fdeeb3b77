"""What natural images do to one unit: the strongest and the weakest of them, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from featvis import checks
from featvis.errors import InputError

#: What an image's map is told by: its largest activation, and the mean of all.
MEASURES = ("maximum", "mean")


@dataclass(frozen=True)
class Responses:
    """The responses of a unit to all images of an index, in the order of the index.

    Attributes:
        maximum: the largest activation of each image's map, (n,).
        mean: the mean of each map, (n,).
        position: where the largest is, counted row by row, (n,); the first of equal ones.
    """

    maximum: np.ndarray
    mean: np.ndarray
    position: np.ndarray

    def __len__(self) -> int:
        return len(self.maximum)

    def by(self, measure: str) -> np.ndarray:
        """One of `MEASURES`, (n,).

        Raises:
            InputError: no such measure.
        """
        if measure not in MEASURES:
            raise InputError(f"images are ordered by {' or '.join(MEASURES)}; got {measure!r}")
        return self.maximum if measure == "maximum" else self.mean

    def highest(self, count: int, by: str = "maximum") -> np.ndarray:
        """Places of the images with the highest values, the highest first; ties in their order."""
        count = checks.integer("highest", "count", count, 1)
        return np.argsort(-self.by(by), kind="stable")[:count]

    def lowest(self, count: int, by: str = "maximum") -> np.ndarray:
        """Places of the images with the lowest values, the lowest first; ties in their order."""
        count = checks.integer("lowest", "count", count, 1)
        return np.argsort(self.by(by), kind="stable")[:count]

    def quantiles(self, shares: Sequence[float], by: str = "maximum") -> np.ndarray:
        """The values below which these shares of the images are, interpolated linearly."""
        return np.quantile(self.by(by), as_shares("quantiles", shares))

    def percentile(self, values: ArrayLike, by: str = "maximum") -> np.ndarray:
        """The share of the images below values, in percent, those equal to them by half."""
        return percentile(values, self.by(by))


def percentile(values: ArrayLike, among: np.ndarray) -> np.ndarray:
    """The share of numbers below values, in percent, those equal to them by half; NaN of NaN."""
    given, ordered = checks.real_array("values", values, np.float64), np.sort(among)
    below, up_to = (np.searchsorted(ordered, given, side) for side in ("left", "right"))
    return np.where(np.isnan(given), np.nan, 50 * (below + up_to) / len(ordered))


def as_shares(owner: str, shares: Sequence[float]) -> list[float]:
    """Shares of the images, each from 0 to 1.

    Args:
        owner: the function that was given them, for the message.
        shares: what it was given.

    Raises:
        InputError: not that.
    """
    if isinstance(shares, str) or not np.iterable(shares):
        raise checks.error(owner, "shares", "several numbers from 0 to 1", shares)
    return [checks.number(owner, "a share", one, 0, 1) for one in shares]
