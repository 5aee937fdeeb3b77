"""Network Dissection: which units of a layer detect a concept that somebody has outlined.

Bau et al. 2017, "Network Dissection: Quantifying Interpretability of Deep Visual Representations":
a unit is on where it is above the value that it exceeds at 0.5 % of all places of all images, and
detects the concept with whose masks that has the largest intersection over union, if it is above
0.04. The folder has the layout of Broden, which came with the paper.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from featvis import checks, kernels, loading
from featvis.errors import InputError, printable
from featvis.files import open_file
from featvis.models import Model
from featvis.told import Told
from objectives import Activations

#: Columns of `index.csv` that are no categories.
_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")


class Detector(NamedTuple):
    """What a unit is nearest to.

    Attributes:
        unit: its channel.
        concept: the concept of the largest intersection over union.
        category: of the concept.
        iou: 0 to 1.
    """

    unit: int
    concept: str
    category: str
    iou: float


@dataclass(frozen=True)
class Dissection:
    """Intersections over union of the units of some layers with the concepts of a folder.

    Attributes:
        concepts: names and categories, (concepts, 2) texts.
        iou: by layer, (units, concepts); NaN where the unit was nowhere on and the concept nowhere.
        thresholds: by layer, what a unit is on above, (units,).
        images: how many were looked at.
        least: the intersection over union above which a unit is a detector.
    """

    concepts: tuple[tuple[str, str], ...]
    iou: Mapping[str, np.ndarray]
    thresholds: Mapping[str, np.ndarray]
    images: int
    least: float

    def best(self, layer: str) -> list[Detector]:
        """Each unit's concept of the largest intersection over union, whether it detects it or not.

        Args:
            layer: the name of one that was dissected.

        Raises:
            InputError: a layer that was not dissected; says which were.
        """
        if layer not in self.iou:
            raise InputError(f"{layer!r} was not dissected; these were: {', '.join(self.iou)}")
        scores = np.nan_to_num(self.iou[layer], nan=-1)
        return [
            Detector(unit, self.concepts[at][0], self.concepts[at][1], float(max(row[at], 0)))
            for unit, (row, at) in enumerate(zip(scores, scores.argmax(1), strict=True))
        ]

    def detectors(self, layer: str) -> list[Detector]:
        """The units that detect a concept, the largest intersection over union first.

        Args:
            layer: as for `best`.

        Raises:
            InputError: as `best`.
        """
        found = [one for one in self.best(layer) if one.iou > self.least]
        return sorted(found, key=lambda one: -one.iou)

    def told(self) -> Told:
        """What the command line says of the detectors."""
        table = self.table()
        units = {layer: [one._asdict() for one in self.detectors(layer)] for layer in table}
        lines = []
        for layer, counts in table.items():
            best = ", ".join(
                f"{one.unit} {one.concept} {one.iou:.2f}" for one in self.detectors(layer)[:4]
            )
            said = f"{counts['detectors']} of {counts['units']} units"
            said = f"{layer}  {said}, {counts['concepts']} concepts"
            lines.append(f"{said}: {best}" if best else said)
        return Told([{"images": self.images, "layers": table, "detectors": units}], lines)

    def table(self) -> dict[str, dict[str, int]]:
        """By layer: how many `units`, `detectors`, and `concepts` that are detected."""
        found = {layer: self.detectors(layer) for layer in self.iou}
        return {
            layer: {
                "units": len(self.iou[layer]),
                "detectors": len(some),
                "concepts": len({one.concept for one in some}),
            }
            for layer, some in found.items()
        }


def dissect(
    model: Model | str,
    folder: str | Path,
    *,
    layers: Sequence[str] | str | None = None,
    quantile: float = 0.005,
    least: float = 0.04,
    size: tuple[int, int] | None = None,
    batch: int = 16,
    progress: bool = True,
) -> Dissection:
    """Find the units that detect the concepts outlined in a folder.

    The folder is as Broden's: `index.csv` with the columns image, ih, iw, sh, sw and one a category
    (object, part, color, …), and `images/` with all files that it names. A cell of a category
    is empty where nobody has looked for it in the image, else numbers of concepts of the whole
    image and files of masks, with semicolons between. A mask's pixel is the number red + 256 green,
    0 for nothing; `label.csv` has number, name and category of each. Images and masks are scaled
    and cropped alike to what the network sees; masks and units meet at half of its pixels, units
    interpolated linearly, as in the paper. A concept is counted over the images in which its
    category was looked for.

    An index (`fv.index`) keeps one place of an image: it is of no use for a quantile of 0.5 % of
    all places, which takes a pass of its own.

    Args:
        model: the network, or the name of one.
        folder: with `index.csv`, `label.csv` and `images/`.
        layers: names of layers with maps (h, w, c); by default all without a slash.
        quantile: the share of all places at which a unit is on.
        least: the intersection over union above which a unit is a detector.
        size: (height, width) that the network sees images at; by default its own.
        batch: images that go through the network together.
        progress: show a progress bar.

    Raises:
        InputError: no such folder, one of another layout (says what is wrong with which line),
            layers without extent, or options out of range.
        UnknownLayer: no such layer.
    """
    model = loading.as_model(model)
    height, width = checks.image_size("dissect", "size", size or model.input.size)
    batch = checks.integer("dissect", "batch", batch, 1, 4096)
    for name, value in (("quantile", quantile), ("least", least)):
        if not 0 < checks.number("dissect", name, value) < 1:
            raise InputError(f"dissect: {name} is between 0 and 1; got {value!r}")
    model.check_image_shape(height, width, model.input.channels)
    shapes = Activations(model.layers((height, width)))
    if layers is None:
        layers = [name for name in shapes if "/" not in name and len(shapes[name]) == 3]
    if not isinstance(layers, (str, list, tuple)):
        raise InputError(f"dissect: layers are names, or one; got {printable(repr(layers), 80)}")
    wanted = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    flat = [name for name in wanted if len(shapes[name]) != 3]
    if flat or not wanted:
        maps = ", ".join(name for name in shapes if len(shapes[name]) == 3) or "none"
        said = f"{', '.join(flat)} has no extent" if flat else "there is no layer to look at"
        raise InputError(f"dissect: {said}; these have an extent: {maps}")
    data = _Broden.read(_folder(folder))
    grid = (max(height // 2, 1), max(width // 2, 1))

    def batches(what: str) -> Iterator[tuple[Sequence[_Row], dict[str, jax.Array]]]:
        bar = tqdm(total=len(data.rows), desc=what, disable=not progress, unit="image")
        for start in range(0, len(data.rows), batch):
            rows = data.rows[start : start + batch]
            seen = model.as_images([row.image for row in rows], (height, width))
            left = batch - len(rows)
            seen = np.concatenate([seen, np.zeros((left, *seen.shape[1:]), seen.dtype)])
            found = _maps(model.apply, model.params, seen, tuple(wanted))
            yield rows, {name: one[: len(rows)] for name, one in found.items()}
            bar.update(len(rows))
        bar.close()

    highest = {
        name: _Highest(math.ceil(quantile * len(data.rows) * math.prod(shapes[name][:2])))
        for name in wanted
    }
    for _, found in batches("thresholds"):
        for name, one in found.items():
            highest[name].add(np.asarray(one))
    thresholds = {name: one.least for name, one in highest.items()}
    counts = {name: _Counts.of(shapes[name][-1], data) for name in wanted}
    for rows, found in batches("masks"):
        masks = [data.masks(row, (height, width), grid) for row in rows]
        for name, one in found.items():
            on = np.asarray(_above(one, thresholds[name], grid))
            for i, row in enumerate(rows):
                counts[name].add(on[i], row, masks[i])
    return Dissection(
        tuple((one.name, one.category) for one in data.concepts),
        {name: one.iou(data) for name, one in counts.items()},
        thresholds,
        len(data.rows),
        float(least),
    )


def _places_above(maps: jax.Array, thresholds: jax.Array, grid: Any) -> jax.Array:
    """Where units are on, (n, places, units) of bool, at the places of a grid."""
    n, _, _, c = maps.shape
    size = (n, *grid, c)
    between = jax.image.resize(maps, size, "linear", antialias=False)
    return (between > thresholds).reshape(n, -1, c)


def _maps_of(apply: Any, params: Any, images: jax.Array, layers: Any) -> dict[str, jax.Array]:
    acts = apply(params, images)
    return {name: jnp.asarray(acts[name], jnp.float32) for name in layers}


_maps = kernels.compiled(_maps_of, static=("apply", "layers"))
_above = kernels.compiled(_places_above, static=("grid",))


class _Highest:
    """The highest values of each unit, of all that have been seen."""

    def __init__(self, count: int) -> None:
        self.count, self._kept = count, np.zeros((0, 0), np.float32)

    def add(self, maps: np.ndarray) -> None:
        values = maps.reshape(-1, maps.shape[-1])
        if self._kept.size:
            values = np.concatenate([self._kept, values])
        if len(values) > self.count:
            # One more than are above: the threshold is the value that is not.
            values = np.partition(values, len(values) - self.count - 1, 0)[-self.count - 1 :]
        self._kept = values

    @property
    def least(self) -> np.ndarray:
        return self._kept.min(0)


def _folder(given: Any) -> Path:
    """The folder, which has all that the layout is of."""
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"dissect: folder is a path; got {printable(repr(given), 80)}")
    folder = Path(given)
    if not folder.is_dir():
        raise InputError(f"there is no folder {printable(folder)}")
    for name in ("index.csv", "label.csv", "images"):
        if not (folder / name).exists():
            raise InputError(
                f"{printable(folder)} has no {name}: a folder with Broden's layout has index.csv, "
                "label.csv and images/"
            )
    return folder


class _Concept(NamedTuple):
    number: int
    name: str
    category: str
    others: tuple[str, ...]  # categories that it is of besides, in which it does not count


class _Row(NamedTuple):
    image: Path
    cells: Mapping[str, Sequence[str]]  # by category, where it was looked for


@dataclass(frozen=True)
class _Broden:
    """A folder of the layout."""

    folder: Path
    concepts: tuple[_Concept, ...]
    rows: tuple[_Row, ...]

    @functools.cached_property
    def by_number(self) -> Mapping[int, _Concept]:
        return {one.number: one for one in self.concepts}

    @functools.cached_property
    def categories(self) -> frozenset[str]:
        return frozenset(one.category for one in self.concepts)

    @classmethod
    def read(cls, folder: Path) -> _Broden:
        concepts: list[_Concept] = []
        for place, line in _lines(folder / "label.csv", ("number", "name", "category")):
            if not line["number"].isdecimal() or int(line["number"]) == 0:
                raise InputError(f"{place}: a concept's number is 1 or more: {line['number']!r}")
            number = int(line["number"])
            if number in (one.number for one in concepts):
                raise InputError(f"{place}: the number {number} is that of a concept before")
            first, *others = (one.partition("(")[0].strip() for one in line["category"].split(";"))
            concepts.append(_Concept(number, line["name"], first, tuple(others)))
        found = cls(folder, tuple(concepts), ())
        rows = []
        for place, line in _lines(folder / "index.csv", ("image",)):
            image = folder / "images" / line["image"]
            cells = {
                key: [part for part in value.split(";") if part]
                for key, value in line.items()
                if key not in _COLUMNS and value
            }
            parts = [part for several in cells.values() for part in several]
            for category, several in cells.items():
                numbers = [int(one) for one in several if one.isdecimal()]
                found.check_numbers(place, category, numbers)
            names = [line["image"], *(one for one in parts if not one.isdecimal())]
            missing = [name for name in names if not (folder / "images" / name).is_file()]
            if missing:
                raise InputError(f"{place}: there is no file images/{printable(missing[0])}")
            rows.append(_Row(image, cells))
        if not rows or not concepts:
            raise InputError(
                f"{printable(folder)} has {len(rows)} images, {len(concepts)} concepts"
            )
        told, looked_for = (
            {one.category for one in concepts},
            {c for row in rows for c in row.cells},
        )
        if not told & looked_for:
            raise InputError(
                f"{printable(folder)}: no image was looked at for a category of label.csv, "
                f"{', '.join(sorted(told))}; those of index.csv: "
                f"{', '.join(sorted(looked_for)) or 'none'}"
            )
        return dataclasses.replace(found, rows=tuple(rows))

    def check_numbers(self, place: str, category: str, numbers: Iterable[int]) -> None:
        """Checks that numbers in a category's column are of its concepts, or 0.

        A column of which there is no concept is of no use, and may have any.

        Raises:
            InputError: one is not; says where.
        """
        if category not in self.categories:
            return
        for number in numbers:
            one = self.by_number.get(number)
            if number and one is None:
                raise InputError(f"{place}: label.csv has no concept of the number {number}")
            if one is not None and category not in (one.category, *one.others):
                raise InputError(
                    f"{place}: the concept {number}, {printable(one.name, 60)}, is of the category "
                    f"{printable(one.category, 60)}, and stands under {printable(category, 60)}"
                )

    def masks(self, row: _Row, size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
        """Where each concept is in an image, (concepts, places) of bool."""
        numbers = [one.number for one in self.concepts]
        found = np.zeros((len(numbers), math.prod(grid)), bool)
        for category, cells in row.cells.items():
            own = [i for i, one in enumerate(self.concepts) if one.category == category]
            for cell in cells:
                if cell.isdecimal():
                    whole = [i for i in own if numbers[i] == int(cell)]
                    found[whole] = True
                    continue
                file = self.folder / "images" / cell
                labels = _labels(file, size, grid).reshape(-1)
                self.check_numbers(printable(file), category, np.unique(labels).tolist())
                for i in own:
                    found[i] |= labels == numbers[i]
        return found


def _lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a table by their columns, each with where it is for messages."""
    with open_file(path) as file:
        text = file.read().decode("utf-8-sig", "replace")
    table = csv.DictReader(text.splitlines())
    missing = [one for one in columns if one not in (table.fieldnames or ())]
    if missing:
        columns_there = ", ".join(printable(one, 40) for one in table.fieldnames or ()) or "none"
        raise InputError(
            f"{printable(path)} has no column {missing[0]!r}; its columns: {columns_there}"
        )
    try:
        for number, line in enumerate(table, 2):
            if None in line:
                raise InputError(f"{printable(path)}, line {number} has more cells than columns")
            known = {key: (v or "").strip() for key, v in line.items()}
            yield f"{printable(path)}, line {number}", known
    except csv.Error as error:
        raise InputError(f"{printable(path)} is no table: {error}") from error


def _labels(path: Path, size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Numbers of concepts at the places of a grid over what the network sees of a picture."""
    try:
        with Image.open(path) as picture:
            colours = np.asarray(picture.convert("RGB"), np.int64)
    except Exception as error:
        # Of a damaged file Pillow raises anything.
        raise InputError(f"{printable(path)} is no mask that can be read: {error}") from error
    rows, columns = colours.shape[:2]
    # The middle of the picture that has the network's proportions.
    scale = min(rows / size[0], columns / size[1])
    tall, wide = scale * size[0], scale * size[1]
    y = (rows - tall) / 2 + (np.arange(grid[0]) + 0.5) * tall / grid[0]
    x = (columns - wide) / 2 + (np.arange(grid[1]) + 0.5) * wide / grid[1]
    at = colours[np.ix_(y.astype(int).clip(0, rows - 1), x.astype(int).clip(0, columns - 1))]
    labels: np.ndarray = at[..., 0] + 256 * at[..., 1]
    return labels


@dataclass(frozen=True)
class _Counts:
    """Places counted so far: both, the unit's by category, the concept's."""

    both: np.ndarray  # (units, concepts)
    units: dict[str, np.ndarray]  # by category, (units,)
    concepts: np.ndarray  # (concepts,)

    @classmethod
    def of(cls, units: int, data: _Broden) -> _Counts:
        categories = {one.category for one in data.concepts}
        return cls(
            np.zeros((units, len(data.concepts)), np.int64),
            {one: np.zeros(units, np.int64) for one in categories},
            np.zeros(len(data.concepts), np.int64),
        )

    def add(self, on: np.ndarray, row: _Row, masks: np.ndarray) -> None:
        present = np.flatnonzero(masks.any(1))
        shared = on.T.astype(np.float32) @ masks[present].T.astype(np.float32)
        self.both[:, present] += shared.astype(np.int64)
        self.concepts[...] += masks.sum(1)
        for category in row.cells:
            if category in self.units:
                self.units[category] += on.sum(0)

    def iou(self, data: _Broden) -> np.ndarray:
        units = np.stack([self.units[one.category] for one in data.concepts], 1)
        union = units + self.concepts - self.both
        return np.where(union > 0, self.both / np.maximum(union, 1), np.nan)
