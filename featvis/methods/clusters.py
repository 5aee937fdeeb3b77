"""Groups of codes: principal components, k-means, and how many groups there are.

There is no t-SNE: k-means of the principal components finds the same groups, and finds them again
on another machine, which t-SNE does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Starts of k-means, of which the best is taken.
_RESTARTS = 10
_SWEEPS = 100
#: Codes without groups that a silhouette is compared with, and starts for each.
_DRAWN, _DRAWN_RESTARTS = 20, 3
#: Deviations by which the silhouette of real groups is above theirs.
_ABOVE = 4.0


@dataclass(frozen=True)
class Silhouette:
    """How well codes fall into groups, beside codes without groups that are as widely spread.

    Attributes:
        value: the mean silhouette (Rousseeuw 1987), from -1 to 1.
        chance: its mean for normal codes of the same variances, which have no groups.
        spread: the standard deviation of that.
    """

    value: float
    chance: float
    spread: float

    @property
    def above(self) -> float:
        """Standard deviations above chance."""
        return (self.value - self.chance) / max(self.spread, 1e-6)


def principal_components(codes: np.ndarray, count: int) -> np.ndarray:
    """Codes (n, d) about their mean, along their first principal components, (n, at most count).

    Components that have no variance are left out.
    """
    centred = np.asarray(codes, np.float64)
    centred = centred - centred.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(count, int(np.sum(sizes > 1e-9 * max(sizes[0], 1e-300))))
    scores = left[:, :kept] * sizes[:kept]
    # The sign of a component is the solver's whim: the largest entry is positive.
    largest = scores[np.abs(scores).argmax(0), np.arange(kept)] if kept else np.zeros(0)
    return scores * np.where(largest < 0, -1, 1)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of rows, (n, m)."""
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.maximum(squares, 0)


def k_means(codes: np.ndarray, count: int, seed: int, restarts: int = _RESTARTS) -> np.ndarray:
    """Groups of codes by Lloyd's algorithm from k-means++ (Arthur & Vassilvitskii 2007).

    Args:
        codes: (n, d).
        count: of groups, at most n.
        seed: of the starts.
        restarts: how many, of which that with the least sum of squares is taken.

    Returns:
        The group of each code, (n,), the largest group 0; some may be empty, which have no number.
    """
    rng = np.random.default_rng(seed)
    best, least = np.zeros(len(codes), int), np.inf
    for _ in range(restarts):
        centres = codes[rng.integers(len(codes))][None]
        while len(centres) < count:
            nearest = distances(codes, centres).min(1)
            total = nearest.sum()
            chances = nearest / total if total > 0 else None
            centres = np.concatenate([centres, codes[rng.choice(len(codes), p=chances)][None]])
        labels = np.full(len(codes), -1)
        for _ in range(_SWEEPS):
            squares = distances(codes, centres)
            before, labels = labels, squares.argmin(1)
            if np.array_equal(before, labels):
                break
            member = (labels[:, None] == np.arange(count)).astype(codes.dtype)
            sizes = member.sum(0)[:, None]
            # An empty group keeps its centre.
            centres = np.where(sizes > 0, member.T @ codes / np.maximum(sizes, 1), centres)
        inertia = distances(codes, centres)[np.arange(len(codes)), labels].sum()
        if inertia < least:
            best, least = labels, inertia
    sizes = np.bincount(best, minlength=count)
    # By size, and of equal ones by the first member, so that a seed does not name them.
    firsts = [int(np.argmax(best == group)) for group in range(count)]
    order = sorted(np.flatnonzero(sizes), key=lambda group: (-sizes[group], firsts[group]))
    names = np.zeros(count, int)
    names[order] = np.arange(len(order))
    return names[best]


def silhouette(codes: np.ndarray, labels: np.ndarray) -> float:
    """The mean silhouette of groups; 0 of a code that is alone in its group, or of one group."""
    groups = np.unique(labels)
    if len(groups) < 2:
        return 0.0
    apart = np.sqrt(distances(codes, codes))
    member = labels[:, None] == groups[None]
    sizes = member.sum(0)
    sums = apart @ member
    own = np.argmax(member, axis=1)
    rows = np.arange(len(codes))
    inside = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[rows, own] = np.inf
    outside = means.min(1)
    value = (outside - inside) / np.maximum(np.maximum(inside, outside), 1e-300)
    return float(np.where(sizes[own] > 1, value, 0).mean())


def groups_of(
    codes: np.ndarray, count: int | None, most: int, seed: int
) -> tuple[np.ndarray, dict[int, Silhouette]]:
    """The groups of codes: as many as are asked for, or as many as there are.

    There are as many as have the silhouette that is the farthest above that of codes without
    groups, normal ones of the same variances; and one, where none is clearly above them.

    Args:
        codes: (n, d), principal components.
        count: of groups; None: from 1 to `most`.
        most: groups that are looked for.
        seed: of everything random.

    Returns:
        The group of each code, (n,), and the silhouettes by the number of groups.
    """
    if count is not None:
        return k_means(codes, count, seed), {}
    found: dict[int, Silhouette] = {}
    labels = {1: np.zeros(len(codes), int)}
    spreads = codes.std(0)
    for number in range(2, most + 1):
        labels[number] = k_means(codes, number, seed)
        rng = np.random.default_rng([seed, number])
        drawn = [
            silhouette(made, k_means(made, number, seed, _DRAWN_RESTARTS))
            for made in (rng.normal(size=codes.shape) * spreads for _ in range(_DRAWN))
        ]
        found[number] = Silhouette(
            silhouette(codes, labels[number]), float(np.mean(drawn)), float(np.std(drawn, ddof=1))
        )
    clear = [number for number, one in found.items() if one.above > _ABOVE]
    best = max(clear, key=lambda number: found[number].value - found[number].chance, default=1)
    return labels[best], found
