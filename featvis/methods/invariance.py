"""What a unit ignores: an invariance report.

Five parts: a diverse set of images that drive the unit; tuning curves along known transformations
of its best image; the shift test with a texture; the flattest directions at the best image; and how
many dimensions the set of images has that the unit takes for one. Cadena et al. 2018 is the model;
the control is a linear unit of the same best image, whose indices are `chance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featvis import checks, loading
from featvis.errors import InputError, printable
from featvis.evidence.curvature import LINEAR_ANGLE, Walk, flattest
from featvis.evidence.responses import responses
from featvis.evidence.textures import Texture, shift_texture
from featvis.evidence.variations import Tuning, tuning_curves
from featvis.images import Images
from featvis.methods.diversity import (
    Aim,
    beside,
    best_of,
    check_several,
    constrained,
    located,
    measures,
)
from featvis.methods.recipe import run_recipe, setting_of, with_measures
from featvis.models import Model, unrectified
from featvis.natural import Index
from featvis.natural.receptive import Field, receptive_field
from featvis.results import Result
from featvis.told import Told
from objectives import Channel, Logit, Neuron, Objective, check_number

#: Sides of a receptive field in pixels, below which nothing can be turned or moved in it.
_LEAST_SIDE = 3
#: Images of an index that are looked at for each crop that is taken.
_CANDIDATES = 4
#: Deviations over seeds, above which an index is more than chance.
_CLEAR = 2.0


class Ignored(NamedTuple):
    """How much a unit ignores a transformation, over its best images from several starts.

    Attributes:
        name: of the transformation.
        unit: of its amounts.
        value: mean index over the starts, in [0, 1].
        spread: standard deviation over the starts.
        chance: mean index of linear units of the same images.
        width: mean range of amounts with a response of a half at least.
        natural: mean index over the best natural images; NaN without them.
        natural_spread: its standard deviation.
    """

    name: str
    unit: str
    value: float
    spread: float
    chance: float
    width: float
    natural: float = math.nan
    natural_spread: float = math.nan

    @property
    def beyond_chance(self) -> bool:
        """Whether the index is above chance by more than two deviations over the starts."""
        return self.value - self.chance > max(_CLEAR * self.spread, 0.02)


class Invariance(NamedTuple):
    """What is known of what a unit ignores.

    Attributes:
        aim: the unit, its receptive field and its best images.
        size: (height, width) of the images.
        diverse: the most different images of at least `keep` of the best activation.
        keep: that share.
        curves: tuning curves of the best image of each start that is good, one list a start.
        natural: those of the best natural images; empty without them.
        indices: one a transformation.
        texture: the shift test.
        walks: along the flattest directions, the flattest first.
        dimension: of the diverse set: see `dimension_of`.
        dimension_error: its standard error, by leaving out one image at a time.
        flat: how many of the walks are flat: twice as long as those of a linear unit.
        notes: what a reader must know, in sentences.
    """

    aim: Aim
    size: tuple[int, int]
    diverse: Result
    keep: float
    curves: tuple[tuple[Tuning, ...], ...]
    natural: tuple[tuple[Tuning, ...], ...]
    indices: tuple[Ignored, ...]
    texture: Texture
    walks: tuple[Walk, ...]
    dimension: float
    dimension_error: float
    flat: int
    notes: tuple[str, ...]

    def told(self, unit: str, page: Path, seconds: float) -> Told:
        """What the command line says of the unit.

        Args:
            unit: as it was asked for.
            page: where the report was written.
            seconds: it took.
        """
        rows = {one.name: [one.value, one.chance] for one in self.indices}
        record = {"unit": unit, "page": str(page), "indices": rows}
        lines = [
            f"{one.name:12} {one.value:.2f} ± {one.spread:.2f}  chance {one.chance:.2f}"
            for one in self.indices
        ]
        lines += [printable(note, 400) for note in self.notes]
        return Told(
            [record | {"seconds": seconds}], [*lines, f"{seconds:.1f} s  {printable(page)}"]
        )


def invariance(
    model: Model | str,
    unit: Objective | str,
    *,
    n: int = 4,
    keep: float = 0.85,
    contrast: float = 0.125,
    steps: int = 250,
    natural: Images | Index | None = None,
    crops: int = 4,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    progress: bool = True,
) -> Invariance:
    """Measure what one unit ignores; `featvis.pages.invariance_page` writes it as a report.

    Args:
        model: a network, or the name of one.
        unit: one unit, or its text; a channel of a map is taken at the map's centre.
        n: images of the diverse set, and starts of the best image; at least 2.
        keep: the share of the best activation that the images keep.
        contrast: root mean square of the images' offsets from grey in the receptive field.
        steps: of each of the two runs; the texture has half as many.
        natural: whose best crops are transformed too: an index with the unit's layer, of which they
            are cut where they excite the unit; or images of the size, arrays (k, h, w, c) or files,
            of which they are cut where the unit looks; None: none.
        crops: how many of them.
        seed: of everything random.
        size: (height, width); by default 96 pixels a side where the network takes that.
        progress: show a progress bar.

    Raises:
        InputError: no unit, one that is dead or whose receptive field has no extent, n below 2, or
            an index of another network or of smaller images than the unit's receptive field.
        ObjectiveError: a share that is not above 0 and at most 1.
        KeyboardInterrupt: Ctrl-C.
    """
    check_several(n)
    check_number("keep", keep, above=0, at_most=1)
    crops = checks.integer("invariance", "crops", crops, 1)
    model = loading.as_model(model)
    found, size, own = located(model, unit, size)
    seeing = unrectified(model, own)
    field = receptive_field(seeing, found, size)
    check_extent(found, field.window)
    windows = None if natural is None else windows_of(natural, model, found, size, field, crops)
    at = replace(setting_of(model, own, size, steps), window=field.window)
    recipe = constrained(at, keep=keep, contrast=contrast)
    aim = best_of(seeing, found, own, field, recipe, n, seed, progress=progress)

    assert recipe.apart is not None
    assert recipe.noise is not None
    wanted = recipe.apart(aim.shared, aim.distance(None), own)
    start = beside(aim, n, recipe.noise, seed)
    diverse = run_recipe(
        seeing, wanted, recipe, own, init=start, seed=seed, batch=n, progress=progress
    )
    if "interrupt" in diverse.stopped:
        raise KeyboardInterrupt
    diverse = with_measures(diverse, lambda: measures(aim, diverse.images))

    curves = tuple(tuple(one) for one in curves_of(aim, aim.best, aim.activations))
    of_crops = tuple(tuple(one) for one in curves_of_crops(aim, windows, contrast, crops))
    norm = float(np.linalg.norm(aim.best[0] - 0.5))
    texture = shift_texture(
        seeing, found, (*size, model.input.channels), field.window, norm=norm, blank=aim.blank,
        gain=aim.gain, steps=max(1, steps // 2), seed=seed,
    )  # fmt: skip
    walks = tuple(flattest(seeing, found, aim.best[0], field.window, blank=aim.blank, seed=seed))
    dimension, error = dimension_of(diverse.images)
    flat = sum(walk.angle >= 2 * LINEAR_ANGLE for walk in walks)
    indices = tuple(index_over(curves, of_crops))
    made = Invariance(
        aim,
        size,
        diverse,
        keep,
        curves,
        of_crops,
        indices,
        texture,
        walks,
        dimension,
        error,
        flat,
        (),
    )
    return made._replace(notes=tuple(_notes(made)))


def curves_of(
    aim: Aim, images: np.ndarray, activations: np.ndarray, least: float = 0.5
) -> list[list[Tuning]]:
    """Tuning curves of images, without those of less than a share of the best activation.

    A start that ended at a low maximum shows what that maximum is about, and not the unit.
    """
    rectified = bool(np.min(aim.activations) >= aim.blank == 0)
    return [
        tuning_curves(
            aim.model, aim.unit, image, aim.field.window, blank=aim.blank, rectified=rectified
        )
        for image, activation in zip(images, activations, strict=True)
        if activation - aim.blank > least * aim.gain
    ]


def index_over(
    curves: Sequence[Sequence[Tuning]], natural: Sequence[Sequence[Tuning]] = ()
) -> list[Ignored]:
    """The indices of each transformation over several stimuli."""
    found = []
    for place, first in enumerate(curves[0]):
        own = [one[place] for one in curves]
        values = [one.value for one in own]
        other = [one[place].value for one in natural]
        found.append(
            Ignored(
                first.name,
                first.unit,
                float(np.mean(values)),
                float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
                float(np.mean([one.chance for one in own])),
                float(np.mean([one.width for one in own])),
                float(np.mean(other)) if other else math.nan,
                float(np.std(other, ddof=1)) if len(other) > 1 else math.nan,
            )
        )
    return found


def dimension_of(images: np.ndarray) -> tuple[float, float]:
    """The dimension of a set of images on the sphere of their norm, and its standard error.

    The participation ratio (Σp)²/Σp² of the eigenvalues of their cosines, less 1: 0 where all are
    alike, 1 where they are spread along a circle, and at most their number less 1. The error is
    from leaving out one image at a time.
    """

    def ratio(some: np.ndarray) -> float:
        cosines = some @ some.T
        return float(np.trace(cosines) ** 2 / np.sum(cosines**2)) - 1

    flat = np.asarray(images, np.float64).reshape(len(images), -1) - 0.5
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    count = len(flat)
    if count < 3:
        return ratio(flat), math.nan
    left_out = np.array([ratio(np.delete(flat, place, axis=0)) for place in range(count)])
    return ratio(flat), float(np.sqrt((count - 1) * np.var(left_out)))


def check_extent(unit: Objective, window: Sequence[int]) -> None:
    """Refuses a receptive field in which nothing can be moved or turned."""
    height, width = window[2:]
    if min(height, width) < _LEAST_SIDE:
        raise InputError(
            f"{unit} sees {height} x {width} pixels: in less than {_LEAST_SIDE} a side nothing "
            "can be shifted, turned or scaled; a report is of a unit with an extent"
        )


def windows_of(
    natural: Images | Index,
    model: Model,
    unit: Objective,
    size: tuple[int, int],
    field: Field,
    count: int,
) -> np.ndarray:
    """Natural images (k, h, w, c) as large as a unit's receptive field.

    Args:
        natural: an index, or images.
        model: the network.
        unit: one unit at one place.
        size: (height, width) of images of which the unit's own place is taken.
        field: where the unit looks.
        count: of crops that will be taken of them; of an index four times as many are looked at,
            as the response to a crop is not that to the image around it.

    Raises:
        InputError: images of another size, or an index of another network, of smaller images, or
            that has nothing of the unit.
        UnknownLayer: a layer that the index does not have.
    """
    top, left, height, width = field.window
    if not isinstance(natural, Index):
        images = model.as_images(natural, size)
        if images.shape[1:3] != size:
            raise InputError(f"the natural images are {images.shape[1:3]}; the report is of {size}")
        return images[:, top : top + height, left : left + width]
    natural.check_model(model)
    if not isinstance(unit, (Channel, Logit, Neuron)) or np.ndim(unit.index):
        raise InputError(f"an index has channels and classes, and nothing of {unit}")
    if natural.size[0] < height or natural.size[1] < width:
        raise InputError(
            f"{unit} sees {height} x {width} pixels, and the images of the index were seen at "
            f"{natural.size[0]} x {natural.size[1]}: index them larger"
        )
    found = natural.responses(Channel(unit.layer, int(np.asarray(unit.index))))
    boxes = natural.field(unit.layer)
    cut = []
    for place in found.highest(_CANDIDATES * count):
        up, to_left, bottom, right = boxes.box(int(found.position[place]))
        y, x = (
            int(np.clip((first + last - length) // 2, 0, side - length))
            for first, last, length, side in (
                (up, bottom, height, natural.size[0]),
                (to_left, right, width, natural.size[1]),
            )
        )
        cut.append(natural.image(int(place))[y : y + height, x : x + width])
    return np.stack(cut)


def curves_of_crops(
    aim: Aim, windows: np.ndarray | None, contrast: float, count: int
) -> list[list[Tuning]]:
    """Tuning curves of the crops that drive a unit most at the norm of its images; none of none.

    Crops that drive it no more than plain grey are left out.
    """
    if windows is None:
        return []
    top, left, height, width = aim.field.window
    shown = np.full((len(windows), *aim.best.shape[1:]), 0.5, np.float32)
    inside = windows - windows.mean(axis=(1, 2), keepdims=True)
    spread = np.sqrt(np.mean(inside**2, axis=(1, 2, 3), keepdims=True))
    shown[:, top : top + height, left : left + width] += (
        contrast * inside / np.maximum(spread, 1e-6)
    )
    shown = np.clip(shown, 0, 1)
    found = responses(aim.model, aim.unit, shown)
    order = np.argsort(-found, kind="stable")[:count]
    return curves_of(aim, shown[order], found[order], least=0.0)


def _notes(made: Invariance) -> list[str]:
    """What a reader must know of a report."""
    notes = []
    if made.aim.field.cut:
        notes.append(
            f"The receptive field reaches the border of the {made.size[0]} x {made.size[1]} pixels:"
            " the unit may look further than the image goes, and shifts move its stimulus out."
        )
    kept = made.diverse.evidence["activation"]
    missed = int(np.sum(kept < made.keep - 0.01))
    if missed:
        notes.append(
            f"{missed} of {len(kept)} images of the diverse set keep less than {made.keep:.0%} of "
            f"the best activation ({kept.min():.0%} at the least)."
        )
    skipped = len(made.aim.best) - len(made.curves)
    if skipped:
        notes.append(
            f"{skipped} of {len(made.aim.best)} starts ended below half of the best activation; "
            "their images are not transformed."
        )
    more = [one.name for one in made.indices if one.beyond_chance]
    if more:
        notes.append(f"Ignored more than by a linear unit of the same image: {', '.join(more)}.")
    else:
        notes.append(
            "No index is above that of a linear unit of the same image: what is ignored here is "
            "chance, as in a random network."
        )
    return notes
