"""Facets: the different things that one unit looks for, a picture each.

Nguyen, Yosinski & Clune 2016, "Multifaceted Feature Visualization": the images that excite a unit
fall into groups by what a late layer sees in them; the mean image of a group is where its picture
starts from, so that it stays with that group.
"""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featvis import checks, loading
from featvis.errors import InputError, printable
from featvis.files import output_path, write_file
from featvis.images import Images
from featvis.methods.clusters import Silhouette, distances, groups_of, principal_components
from featvis.methods.excited import Excited, code_layer, codes_of, exciting, unit_of
from featvis.methods.recipe import Recipe, Setting, Stage, chosen, preset, run_recipe, setting_of
from featvis.models import Model
from featvis.natural import Index
from featvis.natural.index import measure
from featvis.natural.store import is_index
from featvis.parameterizations import BoundedPixels, Fourier, Upsampled
from featvis.pictures import address_of, grid, png_bytes
from featvis.results import Result
from featvis.told import Told
from featvis.transforms import Compose, NormalCrop
from objectives import (
    Activations,
    Direction,
    FeatureMatch,
    Logit,
    NamedArray,
    Neuron,
    Objective,
)

#: Principal components that groups are looked for in (Nguyen et al. 2016).
_COMPONENTS = 50
#: Images of the smallest group that has a picture.
LEAST = 5
#: The most facets that are looked for where their number is not given.
_MOST_FACETS = 8


class FacetWarning(UserWarning):
    """Some facets are not apart, or some groups have no picture."""


@dataclass(frozen=True, eq=False)
class Facets:
    """The facets of a unit, the largest group first; `len` is their number.

    Attributes:
        unit: its text.
        code: the layer whose codes are grouped.
        result: the pictures, one a facet, as `synthesize` gives them; `replay` makes them again.
        excited: the images that excite the unit.
        groups: of each of them its facet, (n,); -1 in a group that was dropped.
        nearest: places of the images nearest each centroid, the nearest first.
        starts: the mean images that the pictures start from, (facets, h, w, c).
        shares: of the images, (facets,).
        scores: the largest activation of the unit in each picture, (facets,).
        natural: the median score of each group's 15 most exciting images, (facets,).
        closest: the facet whose centroid each picture's code is nearest to, (facets,).
        silhouettes: by the number of groups, where it was not given.
        dropped: sizes of groups that were too small.
    """

    unit: str
    code: str
    result: Result
    excited: Excited
    groups: np.ndarray
    nearest: tuple[np.ndarray, ...]
    starts: np.ndarray
    shares: np.ndarray
    scores: np.ndarray
    natural: np.ndarray
    closest: np.ndarray
    silhouettes: Mapping[int, Silhouette] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.result)

    @property
    def images(self) -> np.ndarray:
        """The pictures, (facets, h, w, c)."""
        return self.result.images

    @property
    def distinct(self) -> np.ndarray:
        """Whether each picture is nearest to its own group of all, to the layer of the codes."""
        own: np.ndarray = self.closest == np.arange(len(self))
        return own

    def sheet(self, nearest: int = 7) -> Image.Image:
        """A row a facet: the picture, and its group's images nearest the centroid, with scores.

        Args:
            nearest: how many of these images.
        """
        height, width, channels = self.images.shape[1:]
        shown, labels = [], []
        for i, (share, score, natural) in enumerate(
            zip(self.shares, self.scores, self.natural, strict=True)
        ):
            shown.append(self.images[i])
            apart = "" if self.distinct[i] else ", not apart"
            labels.append(f"{100 * share:.0f} %: {score:.3g} (images {natural:.3g}){apart}")
            places = list(self.nearest[i][:nearest])
            blank = np.ones((height, width, channels), np.float32)
            shown += [*self.excited.images[places], *[blank] * (nearest - len(places))]
            labels += [f"{self.excited.scores[p]:.3g}" for p in places]
            labels += [""] * (nearest - len(places))
        return grid(shown, labels, columns=1 + nearest)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes the sheet as a PNG, its figures beside it as JSON, and the pictures.

        The pictures are in a file of their own, `unit-pictures.png`, which holds their manifest, so
        that `replay` makes them again.

        Args:
            path: of the sheet; ends in .png, or has no suffix and gets it.
            force: write over existing files.

        Returns:
            The path of the sheet as it was written.

        Raises:
            InputError: another suffix.
            OutputError: it cannot be written.
        """
        path = output_path(path)
        text = json.dumps(self.summary(), indent=1) + "\n"
        beside = {".json": text.encode()}
        written = write_file(path, png_bytes(self.sheet()), beside=beside, force=force)
        pictures = written.with_name(f"{written.stem}-pictures.png")
        self.result.save(pictures, columns=len(self), force=force)
        return written

    def _repr_html_(self) -> str:
        """The sheet, as a notebook shows it."""
        data = address_of(self.sheet())
        alternative = html.escape(repr(self), quote=True)
        return (
            f"<div><code>{html.escape(repr(self))}</code><br>"
            f'<img alt="{alternative}" src="{data}"></div>'
        )

    def summary(self) -> dict[str, Any]:
        """What is known of the facets, plain data."""
        return {
            "unit": self.unit,
            "code": self.code,
            "images": {"seen": self.excited.seen, "exciting": len(self.excited)},
            "dropped": list(self.dropped),
            "silhouettes": {
                str(k): {"value": one.value, "chance": one.chance, "above": one.above}
                for k, one in self.silhouettes.items()
            },
            "facets": [
                {
                    "share": float(self.shares[i]),
                    "score": float(self.scores[i]),
                    "natural": float(self.natural[i]),
                    "distinct": bool(self.distinct[i]),
                    "nearest": [
                        {"image": self.excited.names[p], "score": float(self.excited.scores[p])}
                        for p in self.nearest[i]
                    ],
                }
                for i in range(len(self))
            ],
        }

    def told(self, sheet: Path, report: Path | None = None) -> Told:
        """What the command line says of the facets.

        Args:
            sheet: where it was written.
            report: its page; None where there is none.
        """
        lines = [
            f"facet {number}  {100 * share:.0f} % of the images, score {score:.4g} "
            f"(images {natural:.4g}){'' if distinct else ', not apart from another'}"
            for number, (share, score, natural, distinct) in enumerate(
                zip(self.shares, self.scores, self.natural, self.distinct, strict=True)
            )
        ]
        lines.append(f"sheet  {printable(sheet)}")
        if report is not None:
            lines.append(f"report  {printable(report)}")
        page = report and str(report)
        return Told([{"sheet": str(sheet), "report": page, **self.summary()}], lines)

    def __repr__(self) -> str:
        shares = ", ".join(f"{100 * share:.0f} %" for share in self.shares)
        return f"Facets({self.unit}, {len(self)}: {shares} of {len(self.excited)} images)"


def facets(
    model: Model | str,
    unit: str | Objective,
    images: Images | Index,
    n_facets: int | None = None,
    *,
    code: str | None = None,
    most: int = 60,
    nearest: int = 15,
    preset: str = "modern",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> Facets:
    """Find what different images excite a unit, and make a picture of each kind.

    Nguyen et al. 2016: codes of the images that excite the unit, 50 principal components, k-means,
    the mean of the images nearest each centroid, moved so that what excites the unit is in the
    middle; and one optimisation from each, all in one batch. Their t-SNE between is left out:
    k-means needs none, and its result depends on the machine.

    Args:
        model: the network, or the name of one.
        unit: a channel or a class, or its text. Of a map's channel the pictures are of the neuron
            in the middle.
        images: an index of images with the unit's layer (`featvis.index`), or its folder; a folder
            of images; or images.
        n_facets: their number; by default as many as there are groups that are clearly apart, at
            most 8, and one where there are none.
        code: the layer whose codes are grouped; by default the last vector before the class scores.
        most: exciting images that are grouped, the most exciting ones.
        nearest: images that a start is the mean of.
        preset: a recipe by name: `featvis.methods.presets("facets")` has them.
        seed: of the groups and of the pictures.
        size: of the pictures and of files, (height, width); by default the index's, or the model's.
        **options: as for `invert`.

    Returns:
        The facets.

    Raises:
        InputError: no image excites the unit, too few do for so many facets (says how many are
            needed), all are the same, or an index of another network.
        NonFiniteError: as `synthesize`; its `result` holds the pictures.
        UnknownLayer: no such layer, of the network or of the index.

    Warns:
        FacetWarning: groups that are too small for a picture, or pictures that are nearer to
            another group than to their own.
    """
    rule = chosen("facets", "facets", preset, options)
    model = loading.as_model(model)
    most = checks.integer("facets", "most", most, 2, 10**4)
    nearest = checks.integer("facets", "nearest", nearest, 1, most)
    seed = checks.integer("facets", "seed", seed, 0, 2**32 - 1)
    if n_facets is not None:
        n_facets = checks.integer("facets", "n_facets", n_facets, 1, most)
    if isinstance(images, (str, Path)) and is_index(images):
        images = Index(images)
    if size is None:
        size = images.size if isinstance(images, Index) else _own_size(images, model)
    size = checks.image_size("facets", "size", size)
    layer, number = unit_of(model, unit, size)
    at = setting_of(model, layer, size, options.pop("steps", None))
    code = code_layer(model, layer, size) if code is None else code
    shapes = Activations(model.layers(size))
    wide = len(shapes[code]) != 1
    excited = exciting(model, layer, number, code, images, size, most)
    needed = LEAST * (n_facets or 1)
    if len(excited) < needed:
        raise InputError(
            f"{n_facets or 1} facets need at least {needed} images that excite {layer}:{number}, "
            f"{LEAST} for each; {len(excited)} of {excited.seen} do"
        )
    components = principal_components(excited.codes, _COMPONENTS)
    limit = min(_MOST_FACETS, len(excited) // LEAST)
    labels, silhouettes = groups_of(components, n_facets, limit, seed)
    sizes = np.bincount(labels)
    kept = [group for group in range(len(sizes)) if sizes[group] >= LEAST]
    dropped = tuple(int(count) for count in sizes if count < LEAST)
    if dropped:
        warnings.warn(
            f"{len(dropped)} of {len(sizes)} groups have fewer than {LEAST} images and no picture "
            f"({', '.join(map(str, dropped))})",
            FacetWarning,
            stacklevel=2,
        )
    groups = np.full(len(labels), -1)
    close, centroids, natural = [], [], []
    for facet, group in enumerate(kept):
        members = np.flatnonzero(labels == group)
        groups[members] = facet
        centre = components[members].mean(0, keepdims=True)
        order = np.argsort(distances(components[members], centre)[:, 0], kind="stable")
        close.append(members[order][:nearest])
        centroids.append(excited.codes[members].mean(0))
        natural.append(np.median(np.sort(excited.scores[members])[::-1][:15]))
    aligned = _centred(excited, shapes[layer][:-1], size)
    starts = np.stack([aligned[places].mean(0) for places in close])

    recipe = rule(at)
    count, marks = len(kept), np.array(natural, np.float32)
    channels = np.full(count, number)
    wanted: Objective = (
        Neuron(layer, channels) if len(shapes[layer]) == 3 else Logit(channels, layer)
    )
    if recipe.pull:
        # As the unit's score is in units of a natural one, and a cosine is 1 at the target.
        middles, codes = np.stack(centroids), excited.codes
        away = np.clip(2 * middles - middles.mean(0), codes.min(0), codes.max(0))
        away = NamedArray(away, "centroids")
        likeness = (
            Direction(code, away, power=1.0) if wide else FeatureMatch(code, away, None, "cosine")
        )
        wanted = (1 / marks) * wanted + recipe.pull * likeness
    result = run_recipe(
        model, wanted, recipe, layer, init=starts, seed=seed, batch=count, **options
    )
    result.or_raise()
    found = measure(model, (layer,), result.images, np.zeros((count, 1), np.uint32))
    apart = distances(codes_of(model, code, result.images), np.stack(centroids))
    made = Facets(
        unit=f"{layer}:{number}", code=code, result=result, excited=excited, groups=groups,
        nearest=tuple(close), starts=starts, shares=sizes[kept] / len(excited),
        scores=found["maximum"][:, number], natural=marks, closest=apart.argmin(1),
        silhouettes=silhouettes, dropped=dropped,
    )  # fmt: skip
    if not made.distinct.all():
        which = ", ".join(str(i) for i in np.flatnonzero(~made.distinct))
        warnings.warn(
            f"facets of {made.unit} that are not apart: the pictures {which} are nearer to another "
            f"group than to their own at {code}",
            FacetWarning,
            stacklevel=2,
        )
    return made


def _own_size(images: Any, model: Model) -> tuple[int, int]:
    """The size of arrays; that of the model for files."""
    shape = tuple(getattr(images, "shape", ()))
    return (int(shape[-3]), int(shape[-2])) if len(shape) >= 3 else model.input.size


def _centred(excited: Excited, extent: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The images moved so that where they excite the unit is in the middle; edges go on.

    Only a map's positions have a place in the image.
    """
    if len(extent) != 2:
        return excited.images
    moved = []
    for image, position in zip(excited.images, excited.positions.tolist(), strict=True):
        place = np.unravel_index(position, tuple(extent))
        rows, columns = (
            np.clip(np.arange(side) + round((at - count // 2) * side / count), 0, side - 1)
            for at, count, side in zip(place, extent, size, strict=True)
        )
        moved.append(image[rows][:, columns])
    return np.stack(moved)


@preset("modern", "facets")
def modern_facets(at: Setting, *, pull: float = 50.0) -> Recipe:
    """Fourier coefficients from the mean image, and a term that pulls the code to the centroid.

    Ours: the defaults of `synthesize` with 128 steps. The unit's score is in units of the median of
    the group's most exciting images. The likeness is a cosine with the centroid, moved as far again
    from the mean of all of them as it is, for centroids have most in common, and no further than
    any image's code. `pull` is what one of it is worth: a score goes up to 20 times a natural one,
    a cosine to 1. Of class 207 of EfficientNet-Lite0 4 of 4 pictures end nearest to their own
    group, with the centroids themselves 2; and with a `pull` of 3 1 of 4 of class 285. With 0 the
    start alone holds them.

    A term for diversity does not do this. Of a unit that is the maximum of four orthogonal
    templates, four random starts reach 2, 3, 4, 2 and 2 of them in five runs, with a weight of
    `MinDistance` of 1 2, 2, 4, 2 and 2, and of 3 1, 2, 4, 0 and 1 (cosine above 0.99); the four
    facets reach 4 in each.

    Args:
        at: what it depends on.
        pull: what a cosine of 1 with the group's centroid is worth, in natural scores.
    """
    (steps,) = at.shares(128)
    return Recipe((Stage(Fourier(at.size, at.channels), steps),), pull=pull)


@preset("nguyen2016_mean", "facets")
def nguyen2016_mean(at: Setting) -> Recipe:
    """Nguyen et al. 2016 from mean images: four octaves of denoised ascent, and nothing else.

    Steps along the gradient over its mean size, of 1 to 2 levels of 255, and a denoising after each
    (`denoised_ascent`): 190 on a picture of 1/1.2 of the sides, magnified; and 150, 20 and 10 on
    the whole, seen in crops of 1/1.2 of its sides about the middle. The weights of the denoising
    are 0.4, 0.01 to 2, 0.1 to 2 and 0.4 to 2: in the authors' code a missing bracket leaves them
    near 2 all along, here they go from one to the other. Only the start holds a picture in its
    group, and on EfficientNet-Lite0 it does not: four pictures of class 407 at 160 x 160 are above
    all their images, and one of them nearest to its own group; so with `nguyen2016_centre`.
    """
    first, second, third, fourth = at.shares(190, 150, 20, 10)
    return _octaves(
        at,
        (first, f"linear_schedule(1.0, 2.0, {first})", "0.4"),
        (second, "1.0", f"linear_schedule(0.01, 2.0, {second})"),
        (third, "2.0", f"linear_schedule(0.1, 2.0, {third})"),
        (fourth, "2.0", f"linear_schedule(0.4, 2.0, {fourth})"),
    )


@preset("nguyen2016_centre", "facets")
def nguyen2016_centre(at: Setting) -> Recipe:
    """Nguyen et al. 2016 with a bias to the centre: longer steps first, seen about the middle.

    As `nguyen2016_mean`, with 190, 150, 150, 30 and 10 steps of 11, 6, 1, 3 and 6 to 3 levels, and
    weights of 0.001 to 0.05, 0.01 to 0.08, 0.01 to 2, 0.1 to 2 and 0.01 to 2. Two things differ.
    Theirs starts from bright noise, N(175, 8) of 255, which is of no facet: here it is the mean
    image. And theirs maximises the probability for the first two, here the score all along.
    """
    first, second, third, fourth, fifth = at.shares(190, 150, 150, 30, 10)
    return _octaves(
        at,
        (first, "11.0", f"linear_schedule(0.001, 0.05, {first})"),
        (second, "6.0", f"linear_schedule(0.01, 0.08, {second})"),
        (third, "1.0", f"linear_schedule(0.01, 2.0, {third})"),
        (fourth, "3.0", f"linear_schedule(0.1, 2.0, {fourth})"),
        (fifth, f"linear_schedule(6.0, 3.0, {fifth})", f"linear_schedule(0.01, 2.0, {fifth})"),
    )


def _octaves(at: Setting, *octaves: tuple[int, str, str]) -> Recipe:
    """Stages of (steps, length, weight): the first on a smaller picture, the others in crops."""
    height, width = (max(1, round(side / _OCTAVE)) for side in at.size)
    small = BoundedPixels((height, width), at.channels)
    stages = [
        Stage(
            BoundedPixels(at.size, at.channels) if number else Upsampled(at.size, of=small),
            steps,
            optimizer=f"denoised_ascent({length}, {weight})",
            transform=Compose((NormalCrop(1 / _OCTAVE, centre_sd=_SLACK),) if number else ()),
        )
        for number, (steps, length, weight) in enumerate(octaves)
    ]
    return Recipe(tuple(stages))


#: How much larger a picture is than what is seen of it, and how far the crops' middles spread.
_OCTAVE, _SLACK = 1.2, 0.05
