"""Which way pictures go through the layers to a unit: through the channels of photographs?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featvis.errors import InputError
from featvis.evidence.metrics import centred_ranks
from featvis.evidence.natural import comparable, scored
from featvis.gradients.contributions import Way, ways
from featvis.images import Images
from featvis.results import Result
from featvis.results.joining import as_result
from objectives import Objective, alone

#: Photographs taken at random: what any two have in common.
_RANDOM = 24
#: Correlation by which photographs that excite a unit are more alike than any: below, by chance.
_ALIKE = 0.05
#: Share of the contributions of one in a layer, below which the other passes the layer by.
_PASSED_BY = 0.01


class Photographs(NamedTuple):
    """Photographs to compare n pictures with.

    Attributes:
        images: those that are needed, by their places in the whole, each (h, w, c).
        best: places of those that excite each picture's unit most, (top, n), the best first.
        random: places of some, the same for all units, (r,).
        median: the median photograph's score for each unit, (n,).
    """

    images: Mapping[int, np.ndarray]
    best: np.ndarray
    random: np.ndarray
    median: np.ndarray

    def at(self, places: np.ndarray) -> np.ndarray:
        """Those at some places, (k, h, w, c)."""
        return np.stack([self.images[int(place)] for place in places])


class Paths(NamedTuple):
    """How a picture, and the photographs that excite its unit most, go through the layers.

    Attributes:
        layers: on the way to the unit, in forward order.
        overlap: of the picture with the photographs (`overlaps`), (layers,).
        natural: of each of the photographs with the others, (layers, top).
        similarity: Spearman's correlation of channels: of the picture with the photographs, of
            these with each other, and of random photographs with them, (layers, 3).
    """

    layers: tuple[str, ...]
    overlap: np.ndarray
    natural: np.ndarray
    similarity: np.ndarray

    def normalised(self) -> float:
        """The similarity, 1 as the photographs have with each other and 0 as any have with them.

        Both differences are summed over the layers in which the photographs are more alike than
        any by at least `_ALIKE`: in others nothing is to be seen. NaN where there is none.
        """
        picture, best, random = self.similarity.T
        told = best - random >= _ALIKE
        if not told.any():
            return float("nan")
        return float((picture - random)[told].sum() / (best - random)[told].sum())


def paths(result: Result, images: str | Path | Images, *, top: int = 8) -> list[Paths]:
    """How each picture goes through the layers to its unit, beside the photographs that excite it.

    Args:
        result: of `synthesize` or `replay`, or of a method.
        images: photographs, as `compare_with_natural` takes them: at least twice `top`.
        top: photographs that excite the unit most, at least 3.

    Raises:
        InputError: as `trust`.
    """
    found = photographs(as_result(result), images, top)
    return [
        path_of(ways_of(result, i, unit, found), top, len(found.random))
        for i, unit in enumerate(units_of_images(result))
    ]


def units_of_images(result: Result) -> list[Objective]:
    """The unit of each picture of a result, without priors.

    Raises:
        InputError: an objective without a unit, or one that is about several images.
    """
    units = comparable(result.run.parts.objective)
    if result.runs[-1].images == 1:
        return [units]
    return [alone(units, int(member)) for member in result.members]


def checked_top(top: Any) -> int:
    """How many photographs are kept.

    Raises:
        InputError: no integer of at least 3.
    """
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 3:
        raise InputError(f"top must be an integer of at least 3; got {top!r}")
    return int(top)


def photographs(result: Result, images: str | Path | Images, top: int) -> Photographs:
    """The photographs to compare a result's pictures with.

    Args:
        result: of which the pictures are.
        images: as `compare_with_natural` takes them.
        top: how many to keep of those that excite a unit most, at least 3.

    Raises:
        InputError: a number out of range, no photograph, fewer than twice `top`, fewer than `top`
            that excite a unit more than the median photograph does, or images of another size.
    """
    top = checked_top(top)
    units = comparable(result.run.parts.objective)
    rng = np.random.default_rng(0)
    seen: list[np.ndarray] = []
    kept: dict[int, np.ndarray] = {}
    places, held, lots = np.empty(0, int), np.empty((0, len(result))), np.empty(0)
    for batch, scores in scored(result, units, images):
        new = sum(map(len, seen)) + np.arange(len(batch))
        seen.append(scores)
        kept |= dict(zip(new.tolist(), batch, strict=True))
        places, held = np.r_[places, new], np.concatenate([held, scores])
        lots = np.r_[lots, rng.random(len(batch))]
        best, random = np.argsort(-held, axis=0, kind="stable")[:top], np.argsort(lots)[:_RANDOM]
        needed = np.union1d(best, random)
        best, random = places[best], places[random]
        places, held, lots = places[needed], held[needed], lots[needed]
        kept = {place: kept[place] for place in places.tolist()}
    whole = np.concatenate(seen)
    if len(whole) < 2 * top:
        raise InputError(
            f"{len(whole)} photographs are too few: {2 * top} are needed for the {top} that excite "
            "a unit most to differ from the others; give more, or a smaller top"
        )
    median = np.median(whole, axis=0)
    excited = (whole > median).sum(axis=0)
    if (excited < top).any():
        place = int(np.argmin(excited))
        raise InputError(
            f"{units_of_images(result)[place]} is excited by {excited[place]} of the {len(whole)} "
            f"photographs (more than by the median one); {top} are needed: give photographs of "
            "what it responds to, or a smaller top"
        )
    return Photographs(kept, best, random, median)


def ways_of(
    result: Result, place: int, unit: Objective, found: Photographs, more: Sequence[np.ndarray] = ()
) -> dict[str, Way]:
    """The ways of a picture, of the photographs that excite its unit, of random ones, and of more.

    Args:
        result: of which the picture is.
        place: of the picture in it.
        unit: the picture's.
        found: the photographs.
        more: pictures (k, h, w, c) to follow.
    """
    own = result.images[place : place + 1]
    shown = [own, found.at(found.best[:, place]), found.at(found.random), *more]
    return ways(result.run.parts.model, unit, np.concatenate(shown))


def path_of(layers: Mapping[str, Way], top: int, random: int) -> Paths:
    """A picture's path: of the ways first of it, then of `top` photographs, then of random ones."""
    best = list(range(1, top + 1))
    natural = [overlaps(layers, [one], [other for other in best if other != one]) for one in best]
    similarity = []
    for way in layers.values():
        ranks = centred_ranks(way.activations[: 1 + top + random].astype(np.float64))
        own, those, any_ = ranks[0], ranks[best], ranks[1 + top :]
        among = (those @ those.T)[np.triu_indices(top, 1)]
        similarity.append([(those @ own).mean(), among.mean(), (any_ @ those.T).mean()])
    return Paths(
        tuple(layers),
        overlaps(layers, [0], best),
        np.stack(natural, axis=1),
        np.array(similarity).reshape(-1, 3),
    )


def overlaps(layers: Mapping[str, Way], some: Sequence[int], group: Sequence[int]) -> np.ndarray:
    """How far some images reach the unit through the channels of a group of images, by layer.

    The sizes of the channels' contributions in a layer, divided by their sum, are an image's
    shares. The overlap of two is the sum of the smaller shares. Of some images with the mean of
    the group, over that of each of the group with the mean of the others.

    Args:
        layers: ways of all images.
        some: which of them.
        group: which of them, at least two.

    Returns:
        (layers,): 1 is as within the group, 0 where no channel is common, or where less than a
        hundredth of what comes through the layer in the one comes through it in the other; NaN
        where the group has nothing in common.
    """
    sizes = [np.abs(way.contributions.astype(np.float64)) for way in layers.values()]
    whole = sum(size.sum(axis=1) for size in sizes)
    return np.array([_overlap(size, whole, some, group) for size in sizes])


def _overlap(
    size: np.ndarray, whole: np.ndarray, some: Sequence[int], group: Sequence[int]
) -> float:
    amount = size.sum(axis=1)
    shares = size / np.where(amount > 0, amount, 1)[:, None]
    part = amount / np.where(whole > 0, whole, 1)
    a, b = part[some].mean(), part[group].mean()
    if min(a, b) < _PASSED_BY * max(a, b):
        return 0.0
    within = np.mean(
        [
            np.minimum(shares[one], shares[[o for o in group if o != one]].mean(axis=0)).sum()
            for one in group
        ]
    )
    between = np.minimum(shares[some], shares[group].mean(axis=0)).sum(axis=1).mean()
    return float(between / within) if within > 0 else float("nan")
