"""Activation atlases: what a layer sees, all over the space of its activations, as pictures.

Carter, Armstrong, Schubert, Johnson & Olah 2019, "Activation Atlas": activations of natural images,
one at a random position of each, are laid out in a plane, which is parted into cells, and of each
cell's mean a picture is made. Groups of neurons are parted by factors in place of a plane (Olah et
al. 2018, "The Building Blocks of Interpretability").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featvis import checks, loading
from featvis.errors import InputError
from featvis.gradients.contributions import lost_scores
from featvis.methods.layout import PROJECTIONS, cells_of, factors, lay_out, project
from featvis.models import Model
from featvis.natural import Index
from featvis.natural.units import as_index
from featvis.parameterizations import Parameterization
from featvis.pictures import to_picture
from featvis.results import Result
from featvis.results.run import as_parameterization, check_options, options_of_runs
from featvis.synthesis import synthesize
from objectives import Activations, Boundary, NamedArray, WhitenedDirection, precision

#: Of the cosine (Carter et al. 2019).
_POWER = 4.0
#: What one of the rim's cost (`Boundary`) counts to a score, which is 1 where all of the layer has
#: the tile's own activations; and the rim's width over the picture's side.
_BOUNDARY, _RIM = 1.0, 1 / 12
_STEPS, _SIZE = 128, (80, 80)
#: Images that go through the network together for the classes.
_BATCH = 32
#: Activations a cell that a plane has room for on average, where its side is not given.
_ROOMY = 16


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of a layer's activations, and its picture.

    Attributes:
        row: of the sheet, 0 at the top.
        column: of the sheet, 0 at the left.
        vector: the activations that the picture is of, (c,).
        members: places in the index of the images that are in it, the most typical first.
        share: of all activations that are in it.
        classes: those that it speaks for the most, as (class, score): what the class's score loses
            on average where an image's activations are taken away, beyond what it does in all of
            the index; the highest first. None of them of a network without class scores.
        result: the picture, as `synthesize` gives it; `replay` makes it again.
    """

    row: int
    column: int
    vector: np.ndarray
    members: np.ndarray
    share: float
    classes: tuple[tuple[int, float], ...]
    result: Result

    @property
    def image(self) -> np.ndarray:
        """The picture, (h, w, c) in [0, 1]."""
        return self.result.images[0]


@dataclass(frozen=True, eq=False)
class ActivationAtlas:
    """Tiles of a layer's activations; made by `featvis.activation_atlas` and `neuron_groups`.

    Attributes:
        model: the network.
        layer: its layer.
        index: of the natural images.
        parted: by "pca", "umap" or "groups".
        rows: of the sheet.
        columns: of the sheet.
        tiles: row by row.
        points: of all activations in the plane, (n, 2) in [0, 1], x to the right and y upwards;
            (n, 0) of groups.
        seed: of everything random.
    """

    model: Model
    layer: str
    index: Index
    parted: str
    rows: int
    columns: int
    tiles: tuple[Tile, ...]
    points: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.tiles)

    def crops(self, tile: Tile, count: int = 9) -> list[np.ndarray]:
        """What the layer sees of a tile's most typical images, (h, w, c) in [0, 1] each.

        Args:
            tile: one of the atlas.
            count: of images, at most all that there are.

        Raises:
            InputError: an image is gone, or another one now.
        """
        fields, positions = self.index.field(self.layer), self.index.positions(self.layer)
        found = []
        for place in tile.members[:count].tolist():
            top, left, bottom, right = fields.box(int(positions[place]))
            image = self.index.image(place)
            whole = top >= bottom or left >= right  # of what depends on no pixel
            found.append(image if whole else image[top:bottom, left:right])
        return found

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where the network has no names.

        Args:
            number: of the class.
        """
        labels = self.model.labels
        return labels[number] if labels else f"class {number}"

    def sheet(self) -> np.ndarray:
        """All pictures at their places, white between them, (h, w, c) in [0, 1]."""
        height, width, channels = self.tiles[0].image.shape
        whole = np.ones((self.rows * height, self.columns * width, channels), np.float32)
        for tile in self.tiles:
            top, left = tile.row * height, tile.column * width
            whole[top : top + height, left : left + width] = tile.image
        return whole

    def __repr__(self) -> str:
        return (
            f"ActivationAtlas({self.layer} of {self.model.name}, {len(self)} tiles of "
            f"{self.rows} x {self.columns} by {self.parted}, {len(self.index)} images)"
        )

    def _repr_png_(self) -> bytes | None:
        return to_picture(self.sheet())._repr_png_()


def activation_atlas(
    model: Model | str,
    layer: str,
    index: Index | str | Path,
    *,
    projection: str = "pca",
    side: int | None = None,
    least: int = 5,
    size: tuple[int, int] = _SIZE,
    attempts: int = 1,
    classes: int = 3,
    batch: int = 16,
    parameterization: Parameterization | str | None = None,
    seed: int = 0,
    **options: Any,
) -> ActivationAtlas:
    """Show what a layer sees, all over the space of its activations (Carter et al. 2019).

    The activations that the index has drawn, one position an image, are laid out in a plane, and
    of the mean of those in each cell a picture is made: the mean over positions of the whitened
    product with it, times the fourth power of the whitened cosine (`WhitenedDirection`), less what
    is at the picture's rim (`Boundary`), so that pictures do not run into each other.

    Args:
        model: the network of the index, or its name.
        layer: one of the index.
        index: of `featvis.index`, or its folder.
        projection: to the plane, "pca", or "umap", which needs the package umap-learn.
        side: cells along the plane's side; by default of 16 activations on average.
        least: activations of the smallest cell that has a picture.
        size: (height, width) of the pictures in pixels.
        attempts: pictures a cell, from other seeds, of which the one of the best score is kept.
        classes: how many a cell names, at most; 0 for none, which takes no pass over the images.
        batch: pictures that are made together.
        parameterization: how pictures are written; by default Fourier coefficients.
        seed: of everything random.
        **options: of the run, as `synthesize` takes them; 128 steps unless it says otherwise.

    Raises:
        InputError: an argument out of range, an index of another network, or no cell of so many
            activations.
        UnknownLayer: a layer that the index does not have.
        NonFiniteError: a picture did not stay finite.
        KeyboardInterrupt: Ctrl-C.
    """
    checks.choice("activation_atlas", "projection", projection, tuple(PROJECTIONS))
    pictures = _Pictures.of(
        "activation_atlas", model, layer, index, size, attempts, classes, batch, parameterization,
        seed, options,
    )  # fmt: skip
    codes, sharp = pictures.codes, pictures.sharp
    if side is None:
        side = max(1, round(math.sqrt(len(codes) / _ROOMY)))
    points = lay_out(project(codes, projection, seed))
    cells = cells_of(points, codes, side, least)
    aimed = cells.means.astype(np.float32) @ sharp
    # The most typical first, by the whitened cosine with the mean.
    lengths = np.sqrt(np.maximum(np.einsum("nd,nd->n", codes @ sharp, codes), 1e-30))
    members = [
        own[np.argsort(-(codes[own] @ aim) / lengths[own], kind="stable")]
        for own, aim in zip(cells.members, aimed, strict=True)
    ]
    tiles = pictures.of_tiles(cells.places, cells.means, members)
    return pictures.atlas(projection, side, side, tiles, points)


def neuron_groups(
    model: Model | str,
    layer: str,
    index: Index | str | Path,
    *,
    groups: int = 12,
    size: tuple[int, int] = _SIZE,
    attempts: int = 1,
    classes: int = 3,
    batch: int = 16,
    parameterization: Parameterization | str | None = None,
    seed: int = 0,
    **options: Any,
) -> ActivationAtlas:
    """Group a layer's neurons that are active together, a picture each (Olah et al. 2018).

    The activations that the index has drawn are written as sums of a few directions with weights
    that are not negative (`featvis.methods.layout.factors`). An image is in the group of which it
    has most, relative to the group's strongest; a group's picture is made as a cell's of
    `activation_atlas`.

    Args:
        model: the network of the index, or its name.
        layer: one of the index.
        index: of `featvis.index`, or its folder.
        groups: how many.
        size: (height, width) of the pictures in pixels.
        attempts: pictures a group, from other seeds, of which the one of the best score is kept.
        classes: how many a group names, at most; 0 for none, which takes no pass over the images.
        batch: pictures that are made together.
        parameterization: how pictures are written; by default Fourier coefficients.
        seed: of everything random.
        **options: of the run, as `synthesize` takes them; 128 steps unless it says otherwise.

    Raises:
        InputError: an argument out of range, an index of another network, or more groups than
            activations or channels.
        UnknownLayer: a layer that the index does not have.
        NonFiniteError: a picture did not stay finite.
        KeyboardInterrupt: Ctrl-C.
    """
    pictures = _Pictures.of(
        "neuron_groups", model, layer, index, size, attempts, classes, batch, parameterization,
        seed, options,
    )  # fmt: skip
    codes = pictures.codes
    groups = checks.integer("neuron_groups", "groups", groups, 1, min(codes.shape))
    weights, directions = factors(codes, groups, seed)
    strongest = weights.max(0)
    relative = weights / np.where(strongest > 0, strongest, 1)
    own = np.where(relative.any(1), relative.argmax(1), -1)
    members = [
        places[np.argsort(-relative[places, group], kind="stable")]
        for group in range(len(directions))
        for places in [np.flatnonzero(own == group)]
    ]
    columns = math.ceil(math.sqrt(len(directions)))
    places = np.stack(np.divmod(np.arange(len(directions)), columns), axis=1)
    # As long as what the strongest image has of it.
    vectors = directions * strongest[:, None]
    tiles = pictures.of_tiles(places, vectors, members)
    rows, none = -(-len(directions) // columns), np.zeros((len(codes), 0))
    return pictures.atlas("groups", rows, columns, tiles, none)


@dataclass(frozen=True, eq=False)
class _Pictures:
    """How the pictures of tiles are made, whatever parts a layer's activations into tiles.

    Attributes:
        model: the network.
        layer: its layer.
        index: of the natural images.
        codes: the activations that it has drawn of the layer, (n, c).
        sharp: their precision, (c, c).
        way: how pictures are written.
        attempts: pictures a tile.
        classes: that a tile names, at most.
        batch: pictures that are made together.
        seed: of everything random.
        options: of the run.
    """

    model: Model
    layer: str
    index: Index
    codes: np.ndarray
    sharp: np.ndarray
    way: Parameterization
    attempts: int
    classes: int
    batch: int
    seed: int
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        method: str,
        model: Model | str,
        layer: str,
        index: Index | str | Path,
        size: tuple[int, int],
        attempts: int,
        classes: int,
        batch: int,
        parameterization: Parameterization | str | None,
        seed: int,
        options: dict[str, Any],
    ) -> _Pictures:
        """What a method was given, checked; its name is for the messages.

        Raises:
            InputError: see `activation_atlas`.
            UnknownLayer: likewise.
        """
        check_options(method, options, options_of_runs())
        attempts = checks.integer(method, "attempts", attempts, 1)
        classes = checks.integer(method, "classes", classes, 0)
        batch = checks.integer(method, "batch", batch, 1, 4096)
        model = loading.as_model(model)
        index = as_index(index)
        index.check_model(model)
        Activations(index.layers)[layer]  # an unknown one says the nearest
        codes = np.concatenate(list(index.vectors(layer)))
        if not codes.any():
            raise InputError(f"{layer} is 0 at all positions that the index has drawn")
        way = as_parameterization(parameterization, size, model.input.channels)
        return cls(
            model, layer, index, codes, np.asarray(precision(codes)), way, attempts, classes, batch,
            seed, {"steps": _STEPS, **options},
        )  # fmt: skip

    def atlas(
        self, parted: str, rows: int, columns: int, tiles: tuple[Tile, ...], points: np.ndarray
    ) -> ActivationAtlas:
        """The atlas of tiles; see `ActivationAtlas` for each."""
        return ActivationAtlas(
            self.model, self.layer, self.index, parted, rows, columns, tiles, points, self.seed
        )

    def of_tiles(
        self, places: np.ndarray, vectors: np.ndarray, members: Sequence[np.ndarray]
    ) -> tuple[Tile, ...]:
        """Tiles with their pictures and classes.

        Args:
            places: row and column of each, (tiles, 2).
            vectors: that each picture is of, (tiles, c).
            members: places in the index of the images of each, the most typical first.
        """
        named = None
        if self.classes:
            named = _class_scores(self.model, self.layer, self.index, members)
        tiles = []
        for number, (result, (row, column)) in enumerate(
            zip(self._synthesized(vectors), places.tolist(), strict=True)
        ):
            scores = np.zeros(0) if named is None else named[number]
            best = np.argsort(-scores, kind="stable")[: self.classes]
            tiles.append(
                Tile(
                    row, column, vectors[number], members[number],
                    share=len(members[number]) / len(self.index),
                    classes=tuple(
                        (int(one), float(scores[one])) for one in best if scores[one] > 0
                    ),
                    result=result,
                )
            )  # fmt: skip
        return tuple(tiles)

    def _synthesized(self, vectors: np.ndarray) -> Iterator[Result]:
        """A picture of each direction, of the best of several attempts."""
        products = np.einsum("nd,nd->n", vectors @ self.sharp, vectors)
        aims = (vectors / np.maximum(products, 1e-30)[:, None]).astype(np.float32)
        rim = Boundary(max(1, round(min(self.way.size) * _RIM)))
        # Batches of one size are one program; the last goes on with some of the first.
        count = -(-len(aims) // -(-len(aims) // self.batch))
        for start in range(0, len(aims), count):
            some = np.resize(np.roll(aims, -start, axis=0), (count, aims.shape[1]))
            direction = WhitenedDirection(
                self.layer, NamedArray(some, "activations"), NamedArray(self.sharp, "precision"),
                _POWER,
            )  # fmt: skip
            made = [
                synthesize(
                    self.model, direction - _BOUNDARY * rim, self.way,
                    seed=[self.seed + attempt] * count, **self.options,
                )
                for attempt in range(self.attempts)
            ]  # fmt: skip
            for one in made:
                one.or_raise()
                if "interrupt" in one.stopped:
                    raise KeyboardInterrupt
            best = np.argmax([one.clean_scores for one in made], axis=0)
            for number in range(min(count, len(aims) - start)):
                yield made[best[number]][number]


def _class_scores(
    model: Model, layer: str, index: Index, members: Sequence[np.ndarray]
) -> np.ndarray | None:
    """What each class's score loses without the activations of a tile, beyond that of all.

    Returns:
        (tiles, classes); None of a network without class scores.
    """
    if "logits" not in model.layers(index.size):
        return None
    tile_of = np.full(len(index), len(members))
    for number, own in enumerate(members):
        tile_of[own] = number
    positions = index.positions(layer)
    sums = np.zeros((len(members) + 1, model.layers(index.size)["logits"][-1]))
    for start in range(0, len(index), _BATCH):
        places = np.arange(start, min(start + _BATCH, len(index)))
        images = np.stack([index.image(place) for place in places.tolist()])
        padded = np.resize(images, (_BATCH, *images.shape[1:]))
        lost = lost_scores(model, layer, padded, np.resize(positions[places], _BATCH))
        np.add.at(sums, tile_of[places], lost[: len(places)].astype(np.float64))
    counts = np.bincount(tile_of, minlength=len(members) + 1)
    means = sums[:-1] / np.maximum(counts[:-1], 1)[:, None]
    return means - sums.sum(0) / len(index)
