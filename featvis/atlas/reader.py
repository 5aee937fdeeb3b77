"""An atlas that is there: its layers, its units, and all that is known of each."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from featvis.atlas.store import OBJECTIVES, ROLES, Batch, Store
from featvis.atlas.units import Natural, Picture, Unit
from featvis.errors import InputError, OutputError, printable
from featvis.natural import Index
from objectives import Activations

#: Batches of pictures that an atlas keeps: a unit's are of several.
_KEPT = 8

_Key = tuple[str, str, int]
"""Objective, role and place of a picture of a unit."""


def _in_order(item: tuple[_Key, Any]) -> tuple[int, int, int]:
    objective, role, place = item[0]
    return OBJECTIVES.index(objective), ROLES.index(role), place


def _said(damaged: Batch | str) -> str:
    if isinstance(damaged, str):
        return f"the natural images of {printable(damaged)}"
    units = f"{printable(damaged.layer)}:{min(damaged.units)}-{max(damaged.units)}"
    return f"the batch at row {damaged.row}, {damaged.role} of {units}"


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

        Args:
            path: the folder's, or the address.

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
        """The class that a unit of a layer is of, or "".

        Args:
            layer: its name.
            unit: its number.
        """
        _ = self._of(layer)
        labels = self.settings["layers"][layer].get("labels")
        return labels[unit] if labels else ""

    @functools.cached_property
    def _found(self) -> dict[str, dict[int, dict[_Key, tuple[Batch, int]]]]:
        """Batch and lane of each picture, by layer and unit; of two of one picture the last."""
        found: dict[str, Any] = {layer: {} for layer in self.layers}
        for batch in self.store.batches:
            self._note(batch, found)
        return found

    def _of(self, layer: str) -> dict[int, dict[_Key, tuple[Batch, int]]]:
        _ = Activations(self.layers)[layer]  # an unknown one says the nearest
        return self._found[layer]

    def add(self, batch: Batch, pictures: np.ndarray, manifest: Mapping[str, Any]) -> None:
        """Adds a batch: see `Store.append`.

        Args:
            batch: without its digests.
            pictures: of all rows, (batch, h, w, c) uint8.
            manifest: that makes all rows again.

        Raises:
            OutputError: it cannot be written.
        """
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

        Args:
            layer: its name.

        Raises:
            UnknownLayer: no such layer.
        """
        return np.array(sorted(self._of(layer)), int)

    def __len__(self) -> int:
        """The number of units that have a picture."""
        return sum(map(len, self._found.values()))

    def __iter__(self) -> Iterator[Unit]:
        for layer in self.layers:
            for unit in self.units(layer):
                yield self.unit(layer, int(unit))

    def has(self, layer: str, objective: str, role: str, unit: int, place: int = 0) -> bool:
        """Whether there is such a picture.

        Args:
            layer: its name.
            objective: one of `OBJECTIVES`.
            role: one of `ROLES`.
            unit: its number.
            place: which of several.
        """
        return (objective, role, place) in self._found.get(layer, {}).get(unit, {})

    def unit(self, layer: str, number: int) -> Unit:
        """All that is known of a unit.

        Args:
            layer: its name.
            number: of the unit in it.

        Raises:
            InputError: it has no picture.
            UnknownLayer: no such layer.
        """
        if number not in self._of(layer):
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

        Args:
            batch: one of the store's.

        Raises:
            InputError: they are damaged.
        """
        found = self._blocks.pop(batch.row, None)
        self._blocks[batch.row] = found = self.store.pictures(batch) if found is None else found
        while len(self._blocks) > _KEPT:
            self._blocks.pop(next(iter(self._blocks)))
        return found

    def blocks(
        self, layer: str, role: str = "picture", *, objective: str | None = None, place: int = 0
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
        for unit, pictures in self._of(layer).items():
            if (where := pictures.get((chosen, role, place))) is not None:
                batch, lane = where
                wanted.setdefault(batch.row, (batch, []))[1].append((unit, lane))
        for batch, pairs in wanted.values():
            units, lanes = np.array(sorted(pairs)).T
            yield units, self.block(batch)[lanes]

    def _first_objective(self, layer: str, role: str = "picture") -> str:
        kinds = {key[:2] for pictures in self._of(layer).values() for key in pictures}
        return next((one for one in OBJECTIVES if (one, role) in kinds), OBJECTIVES[0])

    def table(self, layer: str) -> dict[str, np.ndarray]:
        """Figures of all units of a layer that have a picture, one array each, in their order.

        Args:
            layer: its name.

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
        """Adds what natural images do to a layer: see `Store.set_natural`.

        Args:
            layer: its name.
            arrays: as `NATURAL` has them.
            facts: plain data: the index, how many images, and files by their places.

        Raises:
            OutputError: it cannot be written.
        """
        self.store.set_natural(layer, arrays, facts)
        self._natural_records.clear()

    def clean_scores(self, layer: str, objective: str = "channel") -> dict[int, float]:
        """The clean scores of the first pictures of a layer's units, as far as there are any.

        Args:
            layer: its name.
            objective: one of `OBJECTIVES`.
        """
        found = {}
        for unit, pictures in self._of(layer).items():
            if (where := pictures.get((objective, "picture", 0))) is not None:
                score = where[0].clean[where[1]]
                found[unit] = np.nan if score is None else score
        return found

    def counts(self, layer: str) -> dict[str, int]:
        """How many pictures of each role a layer has, of the roles that it has.

        Args:
            layer: its name.
        """
        found = [key[1] for pictures in self._of(layer).values() for key in pictures]
        return {role: found.count(role) for role in ROLES if role in found}

    def verify(self) -> list[str]:
        """Finds what is not as it was written, and strikes it out, to be made again.

        Returns:
            What it was, one line each.

        Raises:
            InputError: somebody is writing into it.
            OutputError: something is damaged, and it cannot be struck out.
        """
        store = self.store
        # Whoever may not write there can still look.
        with store.place.locked() if store.place.writable else nullcontext():
            self.refresh()
            torn = ["the settings"] if store.torn else []
            mended = store.mend() if store.place.writable else torn
            found = list(store.damaged())
            said = [f"the record {name}" for name in store.unreadable]
            said += [*map(_said, found), *mended]
            if said and not store.place.writable:
                raise OutputError(f"{store.place} is damaged, and read-only: {'; '.join(said)}")
            store.strike_unreadable()
            for one in found:
                if isinstance(one, str):
                    store.strike_natural(one)
                else:
                    store.strike(one)
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
