"""A plane of codes: projected to two axes, laid out in a unit square, and parted into cells.

Of x and y, in [0, 1] both, x grows to the right and y upwards, as in a plot; row 0 of the cells is
at the top and column 0 at the left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from featvis import checks
from featvis.errors import InputError
from featvis.methods.clusters import principal_components

#: UMAP as lucid's atlases have it (Carter et al. 2019): neighbours, least distance, metric.
_NEIGHBOURS, _LEAST_DISTANCE, _METRIC = 50, 0.05, "cosine"
#: The percentiles along an axis between which codes are laid out, and the margin about them.
_PERCENTILES, _MARGIN = (1.0, 99.0), 0.1


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of a plane and the codes in each.

    Attributes:
        rows: of the whole plane.
        columns: of the whole plane.
        places: (row, column) of each cell that is kept, (cells, 2), row by row from the top left.
        members: places of the codes in each of them.
        means: the mean code of each, (cells, d).
    """

    rows: int
    columns: int
    places: np.ndarray
    members: tuple[np.ndarray, ...]
    means: np.ndarray


def _pca(codes: np.ndarray, seed: int) -> np.ndarray:
    found = principal_components(codes, 2)
    # Codes that lie on a line, or in a point, have one axis or none.
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _umap(codes: np.ndarray, seed: int) -> np.ndarray:
    try:
        import umap
    except ImportError as error:
        raise InputError(
            "the projection umap needs the package umap-learn: pip install 'featvis[umap]'; the "
            "projection pca needs nothing"
        ) from error
    made = umap.UMAP(
        n_components=2,
        n_neighbors=min(_NEIGHBOURS, len(codes) - 1),
        min_dist=_LEAST_DISTANCE,
        metric=_METRIC,
        random_state=seed,
        n_jobs=1,
    )
    return np.asarray(made.fit_transform(codes), np.float64)


#: What takes codes (n, d) and a seed to the plane, (n, 2).
PROJECTIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"pca": _pca, "umap": _umap}


def project(codes: np.ndarray, projection: str = "pca", seed: int = 0) -> np.ndarray:
    """Codes in a plane, (n, 2), in units of their own.

    Args:
        codes: (n, d), n at least 3.
        projection: "pca", the first two principal components; or "umap" (McInnes et al. 2018),
            which needs the package umap-learn.
        seed: of UMAP.

    Raises:
        InputError: another projection, UMAP is not installed, or fewer than 3 codes.
    """
    checks.choice("layout", "projection", projection, tuple(PROJECTIONS))
    if len(codes) < 3:
        raise InputError(f"a plane is of at least 3 codes; got {len(codes)}")
    return PROJECTIONS[projection](codes, seed)


def lay_out(plane: np.ndarray) -> np.ndarray:
    """Points (n, 2) scaled along each axis into the unit square.

    The 1st to the 99th percentile of an axis, and a tenth of their distance on either side, become
    0 to 1 (as lucid has it, which takes the upper margin of a distance that the lower one has
    already made longer). The few points beyond are put onto the square's rim.
    """
    low, high = np.percentile(plane, _PERCENTILES, axis=0)
    margin = _MARGIN * (high - low)
    low, high = low - margin, high + margin
    extent = np.where(high > low, high - low, 1)
    # Points that all have one place along an axis are in its middle.
    scaled = np.where(high > low, (plane - low) / extent, 0.5)
    return np.asarray(np.clip(scaled, 0, 1))


def cells_of(points: np.ndarray, codes: np.ndarray, side: int, least: int) -> Cells:
    """Cells of the unit square, and the codes in each.

    Args:
        points: (n, 2) in [0, 1], as `lay_out` gives them.
        codes: (n, d), whose means are taken.
        side: cells along the square's side.
        least: codes of the smallest cell that is kept.

    Raises:
        InputError: no cell has so many codes; says how many the fullest has.
    """
    side = checks.integer("layout", "side", side, 1, 1000)
    least = checks.integer("layout", "least", least, 1)
    across, up = np.minimum((points * side).astype(int), side - 1).T
    number = (side - 1 - up) * side + across
    counts = np.bincount(number, minlength=side * side)
    kept = np.flatnonzero(counts >= least)
    if not len(kept):
        raise InputError(
            f"no cell of {side} x {side} has {least} of the {len(codes)} activations; the fullest "
            f"has {counts.max()}: take a coarser grid, or fewer activations a cell"
        )
    members = tuple(np.flatnonzero(number == cell) for cell in kept)
    means = np.stack([codes[places].mean(0, dtype=np.float64) for places in members])
    return Cells(side, side, np.stack(np.divmod(kept, side), axis=1), members, means)


def factors(
    codes: np.ndarray, count: int, seed: int = 0, sweeps: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    """Codes as sums of a few directions with weights that are not negative.

    Non-negative matrix factorization by alternating least squares, a column at a time (Cichocki &
    Phan 2009), as activations are parted into groups of neurons (Olah et al. 2018, "The Building
    Blocks of Interpretability"). Where activations are negative too, their negative part counts as
    channels of its own, and a direction is the difference of both.

    Args:
        codes: (n, d).
        count: of directions, at most n and d.
        seed: of the start.
        sweeps: through all columns.

    Returns:
        Weights (n, count) and directions (count, d), each of length 1, by their share of the codes'
        sum of squares, the greatest first.

    Raises:
        InputError: more directions than codes or channels, or codes that are all 0.
    """
    n, d = codes.shape
    count = checks.integer("factors", "count", count, 1, min(n, d))
    codes = np.asarray(codes, np.float64)
    both = np.concatenate([np.maximum(codes, 0), np.maximum(-codes, 0)], axis=1)
    living = both.any(0)
    target = both[:, living]
    if not target.size:
        raise InputError("activations that are all 0 have no groups of neurons")
    rng = np.random.default_rng(seed)
    scale = np.sqrt(target.mean() / count)
    weights = scale * (0.5 + rng.random((n, count)))
    parts = scale * (0.5 + rng.random((count, target.shape[1])))
    for _ in range(sweeps):
        _sweep(target.T, parts.T, weights.T)
        _sweep(target, weights, parts)
    whole = np.zeros((count, 2 * d))
    whole[:, living] = parts
    directions = whole[:, :d] - whole[:, d:]
    lengths = np.linalg.norm(directions, axis=1)
    weights = weights * lengths
    directions = directions / np.where(lengths > 0, lengths, 1)[:, None]
    order = np.argsort(-np.square(weights).sum(0), kind="stable")
    return weights[:, order], directions[order]


def _sweep(target: Any, fixed: np.ndarray, moved: np.ndarray) -> None:
    """Makes each row of `moved` (k, m) the best for target (n, m) = fixed (n, k) @ moved."""
    squares, products = fixed.T @ fixed, fixed.T @ target
    for k in range(len(moved)):
        if squares[k, k] > 0:
            change = (products[k] - squares[k] @ moved) / squares[k, k]
            moved[k] = np.maximum(moved[k] + change, 0)
