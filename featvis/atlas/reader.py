"""An atlas that is there: its layers, its units, and all that is known of each."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featvis.atlas.store import OBJECTIVES, ROLES, Batch, Store
from featvis.errors import InputError
from featvis.files import part_of_name, picture_name
from featvis.models import Model
from featvis.natural import Index
from featvis.pictures import from_picture
from featvis.results import Result
from featvis.results.history import SavedRuns
from objectives import Activations

#: What natural images do to the units of a layer, arrays whose first axis is all its units; of the
#: n images at each end, and the m nearest units.
NATURAL = {
    "highest": "places in the index of the images that excite it the most, (units, n)",
    "highest_scores": "the largest activations of their maps, (units, n)",
    "highest_boxes": "top, left, bottom, right of what it sees there, (units, n, 4)",
    "lowest": "places of those that excite it the least, (units, n)",
    "lowest_scores": "(units, n)",
    "lowest_boxes": "(units, n, 4)",
    "histogram": "images by the largest activation of their map, (units, bins)",
    "range": "the ends of the histogram, whose bins are equally wide, (units, 2)",
    "mean": "of the largest activations, (units,)",
    "sd": "of them, (units,)",
    "zeros": "the share of the images where it is exactly 0, (units,)",
    "dead": "whether it is the same for all images, (units,)",
    "nearest": "the units whose responses go with its own the most, (units, m); -1: none",
    "correlations": "of these, (units, m)",
    "percentiles": "of the channel's first picture among the images' means, (units,); NaN: none",
}


#: Batches of pictures that an atlas keeps: a unit's are of several.
_KEPT = 8

_Key = tuple[str, str, int]
"""Objective, role and place of a picture of a unit."""


def _in_order(item: tuple[_Key, Any]) -> tuple[int, int, int]:
    objective, role, place = item[0]
    return OBJECTIVES.index(objective), ROLES.index(role), place


@dataclass(frozen=True, eq=False)
class Picture:
    """A synthesized picture of a unit.

    Attributes:
        unit: its text, "block8:3".
        layer: its layer.
        number: of the unit in it.
        objective: "channel", the mean of its map, or "neuron", the middle of it.
        role: "picture"; "negative", the one that lowers it; "diverse" or "facet".
        place: which of several: seed, diverse picture or facet, from 0.
        clean_score: the unit's activation on the clean picture; NaN where it was not finite.
        transformed_score: its mean under the last step's transforms.
        steps: taken.
        silent: why the unit never gave a gradient, or None.
        failed: what was not finite, or None.
        batch: the record that it is of.
        lane: its place in the batch.
    """

    unit: str
    layer: str
    number: int
    objective: str
    role: str
    place: int
    clean_score: float
    transformed_score: float
    steps: int
    silent: str | None
    failed: str | None
    batch: Batch = field(repr=False)
    lane: int = field(repr=False)
    atlas: Atlas = field(repr=False)

    @property
    def image(self) -> np.ndarray:
        """The picture, (h, w, c) uint8."""
        return self.atlas.block(self.batch)[self.lane]

    @property
    def seconds(self) -> float:
        """That it took, its part of the batch."""
        return self.batch.seconds / len(self.batch)

    @property
    def manifest(self) -> dict[str, Any]:
        """All that makes it again, to the bit: what `featvis replay` reads."""
        return {**self.atlas.store.manifest(self.batch), "member": self.lane}

    @property
    def name(self) -> str:
        """Of its file, without suffix."""
        what = self.unit
        if self.objective != "channel":
            what += f" {self.objective}"
        if self.role != "picture":
            what += f" {self.role}"
        if self.place:
            what += f" {self.place}"
        return picture_name(self.atlas.settings["model"]["name"], part_of_name(what))

    @property
    def command(self) -> str:
        """What makes it again, where its file `<name>.png` (see `save`) is."""
        return f"featvis replay {self.name}.png"

    def result(self, model: Model | None = None) -> Result:
        """It as a result, with its figures; nothing is computed.

        Args:
            model: the network, where `featvis.load` does not know it.
        """
        height, width, channels = self.atlas.store.shape
        one = np.float32
        return Result(
            images=from_picture(self.image, (height, width, channels))[None],
            scores=np.zeros((0, 1), np.float32),
            clean_scores=np.array([self._signed(self.clean_score)], one),
            transformed_scores=np.array([self._signed(self.transformed_score)], one),
            params=None,
            sensitivity=np.full((1, height, width), np.nan, np.float32),
            snapshots={},
            runs=SavedRuns(self.manifest, model),
            steps=np.array([self.steps]),
            stopped=("non-finite" if self.failed else "steps",),
            failures=(self.failed,),
            silent=(self.silent,),
            seconds=self.seconds,
        )

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes it as a PNG that `featvis replay` makes again, as `Result.save` does."""
        return self.result().save(path, force=force)

    def _signed(self, score: float) -> float:
        return -score if self.role == "negative" else score


@dataclass(frozen=True, eq=False)
class Natural:
    """What natural images do to one unit; see `NATURAL` for each.

    Attributes:
        highest: places in the index, (n,), those that excite it the most first.
        highest_scores: (n,).
        highest_boxes: (n, 4), top, left, bottom and right of what it sees.
        lowest: places, those that excite it the least first.
        lowest_scores: (n,).
        lowest_boxes: (n, 4).
        histogram: images by the largest activation of their map, (bins,).
        edges: of the bins, (bins + 1,).
        mean: of the largest activations.
        sd: of them.
        zeros: the share of the images where it is exactly 0.
        dead: whether it is the same for all images.
        nearest: texts of the units whose responses go with its own the most.
        correlations: of these, (m,).
        percentile: of its first picture among the images, by the mean of the map, or NaN.
        files: the images' paths by their place, as far as they are named here.
        images: how many there are.
    """

    highest: np.ndarray
    highest_scores: np.ndarray
    highest_boxes: np.ndarray
    lowest: np.ndarray
    lowest_scores: np.ndarray
    lowest_boxes: np.ndarray
    histogram: np.ndarray
    edges: np.ndarray
    mean: float
    sd: float
    zeros: float
    dead: bool
    nearest: tuple[str, ...]
    correlations: np.ndarray
    percentile: float
    files: Mapping[int, str]
    images: int


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit of an atlas.

    Attributes:
        layer: its layer.
        number: in it.
        label: the name of the class, or "".
        pictures: all there are, in the order of `ROLES` and their places.
        natural: what natural images do to it, or None.
    """

    layer: str
    number: int
    label: str
    pictures: tuple[Picture, ...]
    natural: Natural | None

    @property
    def text(self) -> str:
        """As one writes it: "block8:3"."""
        return f"{self.layer}:{self.number}"

    def of(self, role: str, objective: str | None = None) -> tuple[Picture, ...]:
        """Its pictures of a role, of the first objective that there is where none is given."""
        found = [one for one in self.pictures if one.role == role]
        wanted = objective or next((one.objective for one in found), None)
        return tuple(one for one in found if one.objective == wanted)

    @property
    def picture(self) -> Picture | None:
        """Its first picture, of the first seed."""
        return next(iter(self.of("picture")), None)

    @property
    def negative(self) -> Picture | None:
        """The picture that lowers it the most."""
        return next(iter(self.of("negative")), None)

    @property
    def clean_score(self) -> float:
        """Of its first picture; NaN where there is none."""
        return self.picture.clean_score if self.picture else float("nan")

    @property
    def spread(self) -> float:
        """The deviation of the clean scores over the seeds (of a sample); NaN of fewer than two."""
        scores = [one.clean_score for one in self.of("picture")]
        return float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")

    @property
    def dead(self) -> bool:
        """Whether it is the same for all natural images, or its picture never got a gradient."""
        silent = self.picture is not None and self.picture.silent is not None
        return silent or (self.natural is not None and self.natural.dead)


class Atlas:
    """Pictures of all units of some layers; made by `featvis.atlas`.

    Attributes:
        store: its pictures and records.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._blocks: dict[int, np.ndarray] = {}
        self._natural_records: dict[str, dict[str, Any] | None] = {}

    @classmethod
    def open(cls, path: str | Path) -> Atlas:
        """The atlas of a folder or an address.

        Raises:
            InputError: there is none, it is damaged, or zarr is not installed.
        """
        return cls(Store.read(path))

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the pictures are made with, plain data."""
        return self.store.settings

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the layers' activations, without the images' axis, in forward order."""
        return {name: tuple(one["shape"]) for name, one in self.settings["layers"].items()}

    def label(self, layer: str, unit: int) -> str:
        """The class that a unit of a layer is of, or ""."""
        labels = self.settings["layers"][layer].get("labels")
        return labels[unit] if labels else ""

    @functools.cached_property
    def _found(self) -> dict[str, dict[int, dict[_Key, tuple[Batch, int]]]]:
        """Batch and lane of each picture, by layer and unit; of two of one picture the last."""
        found: dict[str, Any] = {layer: {} for layer in self.layers}
        for batch in self.store.batches:
            self._note(batch, found)
        return found

    def add(self, batch: Batch, pictures: np.ndarray, manifest: Mapping[str, Any]) -> None:
        """Adds a batch: see `Store.append`."""
        self._note(self.store.append(batch, pictures, manifest))

    def _note(self, batch: Batch, found: Any = None) -> None:
        of_layer = (self._found if found is None else found)[batch.layer]
        for lane, (unit, place) in enumerate(zip(batch.units, batch.numbers, strict=True)):
            of_layer.setdefault(unit, {})[batch.objective, batch.role, place] = batch, lane

    def refresh(self) -> None:
        """Reads the records again, which another process may have added to."""
        self.store.refresh()
        self.__dict__.pop("_found", None)
        self._natural_records.clear()

    def units(self, layer: str) -> np.ndarray:
        """The units of a layer that have a picture, in order.

        Raises:
            UnknownLayer: no such layer.
        """
        _ = Activations(self.layers)[layer]  # an unknown one says the nearest
        return np.array(sorted(self._found[layer]), int)

    def __len__(self) -> int:
        """The number of units that have a picture."""
        return sum(map(len, self._found.values()))

    def __iter__(self) -> Iterator[Unit]:
        for layer in self.layers:
            for unit in self.units(layer):
                yield self.unit(layer, int(unit))

    def has(self, layer: str, objective: str, role: str, unit: int, place: int = 0) -> bool:
        """Whether there is such a picture."""
        return (objective, role, place) in self._found.get(layer, {}).get(unit, {})

    def unit(self, layer: str, number: int) -> Unit:
        """All that is known of a unit.

        Raises:
            InputError: it has no picture.
            UnknownLayer: no such layer.
        """
        _ = Activations(self.layers)[layer]  # an unknown one says the nearest
        if number not in self._found[layer]:
            raise InputError(
                f"the atlas {self.store.place} has no picture of {layer}:{number}: "
                f"{self._listed(layer)}"
            )
        pictures = [
            self._picture(layer, number, *key, *where)
            for key, where in sorted(self._found[layer][number].items(), key=_in_order)
        ]
        return Unit(
            layer, number, self.label(layer, number), tuple(pictures), self._natural(layer, number)
        )

    def _listed(self, layer: str) -> str:
        units = self.units(layer)
        if not len(units):
            return "it has none of this layer"
        return f"it has {len(units)} of this layer, {units[0]} to {units[-1]}"

    def _picture(
        self,
        layer: str,
        unit: int,
        objective: str,
        role: str,
        place: int,
        batch: Batch,
        lane: int,
    ) -> Picture:
        def number(values: Sequence[float | None]) -> float:
            value = values[lane]
            return float("nan") if value is None else value

        return Picture(
            f"{layer}:{unit}", layer, unit, objective, role, place,
            number(batch.clean), number(batch.transformed), batch.steps[lane],
            batch.silent[lane], batch.failed[lane], batch, lane, self,
        )  # fmt: skip

    def block(self, batch: Batch) -> np.ndarray:
        """The pictures of a batch, (n, h, w, c) uint8; those of a few are kept.

        Raises:
            InputError: they are damaged.
        """
        found = self._blocks.pop(batch.row, None)
        self._blocks[batch.row] = found = self.store.pictures(batch) if found is None else found
        while len(self._blocks) > _KEPT:
            self._blocks.pop(next(iter(self._blocks)))
        return found

    def blocks(
        self, layer: str, role: str = "picture", objective: str | None = None, place: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pictures of the units of a layer, chunk by chunk, each of which is read once.

        Args:
            layer: its name.
            role: one of `ROLES`.
            objective: by default the first that there is.
            place: which of several.

        Yields:
            Units (n,) and their pictures (n, h, w, c) uint8; a unit once.
        """
        chosen = objective or self._first_objective(layer, role)
        wanted: dict[int, tuple[Batch, list[tuple[int, int]]]] = {}
        for unit, pictures in self._found[layer].items():
            if (where := pictures.get((chosen, role, place))) is not None:
                batch, lane = where
                wanted.setdefault(batch.row, (batch, []))[1].append((unit, lane))
        for batch, pairs in wanted.values():
            units, lanes = np.array(sorted(pairs)).T
            yield units, self.block(batch)[lanes]

    def _first_objective(self, layer: str, role: str = "picture") -> str:
        kinds = {key[:2] for pictures in self._found[layer].values() for key in pictures}
        return next((one for one in OBJECTIVES if (one, role) in kinds), OBJECTIVES[0])

    def table(self, layer: str) -> dict[str, np.ndarray]:
        """Figures of all units of a layer that have a picture, one array each, in their order.

        Returns:
            `unit`, `clean_score`, `spread`, `percentile`, `silent` and `dead`.
        """
        units, objective = self.units(layer), self._first_objective(layer)
        scores, silent = [], []
        for unit in units:
            pictures = self._found[layer][int(unit)]
            seeds = sorted(key for key in pictures if key[:2] == (objective, "picture"))
            found = [
                (one.clean[lane], one.silent[lane])
                for one, lane in map(pictures.__getitem__, seeds)
            ]
            scores.append([np.nan if score is None else score for score, _ in found])
            silent.append(bool(found) and found[0][1] is not None)
        natural, quiet = self._natural_of(layer), np.array(silent, bool)
        arrays = {} if natural is None else natural["arrays"]
        return {
            "unit": units,
            "clean_score": np.array([one[0] if one else np.nan for one in scores]),
            "spread": np.array([np.std(s, ddof=1) if len(s) > 1 else np.nan for s in scores]),
            "percentile": arrays["percentiles"][units] if arrays else np.full(len(units), np.nan),
            "silent": quiet,
            "dead": quiet | arrays["dead"][units] if arrays else quiet,
        }

    def describe(
        self, layer: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> None:
        """Adds what natural images do to a layer: see `Store.set_natural`."""
        self.store.set_natural(layer, arrays, facts)
        self._natural_records.clear()

    def counts(self, layer: str) -> dict[str, int]:
        """How many pictures of each role a layer has, of the roles that it has."""
        found = [key[1] for pictures in self._found[layer].values() for key in pictures]
        return {role: found.count(role) for role in ROLES if role in found}

    def verify(self) -> list[str]:
        """Finds what is not as it was written, and strikes it out, to be made again.

        Returns:
            What it was, one line each.

        Raises:
            InputError: somebody is writing into it.
            OutputError: something is damaged, and it cannot be struck out.
        """
        with self.store.place.locked():
            self.refresh()
            said = []
            for one in list(self.store.damaged()):
                if isinstance(one, str):
                    said.append(f"the natural images of {one}")
                    self.store.strike_natural(one)
                else:
                    units = f"{one.layer}:{min(one.units)}-{max(one.units)}"
                    said.append(f"the batch at row {one.row}, {one.role} of {units}")
                    self.store.strike(one)
            self.refresh()
        self._blocks.clear()
        return said

    def _natural_of(self, layer: str) -> dict[str, Any] | None:
        if layer not in self._natural_records:
            self._natural_records.clear()
            self._natural_records[layer] = self.store.natural(layer)
        return self._natural_records[layer]

    def _natural(self, layer: str, unit: int) -> Natural | None:
        record = self._natural_of(layer)
        if record is None:
            return None
        own = {name: values[unit] for name, values in record["arrays"].items()}
        low, high = own.pop("range")
        near = own.pop("nearest")
        kept = own.pop("correlations")[near >= 0]
        files = record["files"]
        named = {int(p) for p in (*own["highest"], *own["lowest"])}
        return Natural(
            **{k: v for k, v in own.items() if np.ndim(v)},
            edges=np.linspace(low, high, len(own["histogram"]) + 1),
            mean=float(own["mean"]),
            sd=float(own["sd"]),
            zeros=float(own["zeros"]),
            dead=bool(own["dead"]),
            percentile=float(own["percentiles"]),
            nearest=tuple(f"{layer}:{one}" for one in near if one >= 0),
            correlations=kept,
            files={place: files[str(place)] for place in named},
            images=record["images"],
        )

    def index(self) -> Index | None:
        """The index of natural images that the atlas was made with, where it still is; or None."""
        for layer in self.layers:
            record = self._natural_of(layer)
            if record is not None:
                return Index(record["index"])
        return None

    def __repr__(self) -> str:
        made = self.settings
        size = "x".join(map(str, made["size"]))
        return (
            f"Atlas({str(self.store.place)!r}, {len(self)} units of {len(self.layers)} layers of "
            f"{made['model']['name']} at {size})"
        )


__all__ = ["NATURAL", "Atlas", "Natural", "Picture", "Unit"]
