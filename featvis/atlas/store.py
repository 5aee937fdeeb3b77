"""The store of an atlas: pictures by rows, and a record a batch that says what is in its rows.

A store is a Zarr v3 group with one array, `pictures` (rows, h, w, c) of uint8, whose chunk is a
batch. Each batch has rows of its own, which are written once, and a manifest that makes them again;
then its record, a file of `batches/`, makes it a part of the atlas: rows that no record names are
nothing. So a process that is killed at any moment loses the batch under way and nothing else. What
natural images do to the units of a layer is in arrays of their own, `natural/<layer>/<version>/…`,
which `natural/<layer>/record.json` makes valid in the same way.

zarr-python rather than TensorStore: both rename a chunk into place, and 20 kills at random moments
left no half of one in either; neither has commits of several files, which the records are. A batch
of 8 pictures of 128 x 128 took zarr-python 11 to 19 ms (4 of the processor's) and TensorStore,
which waits for the disk, 19 to 23 (2 to 3), on two busy cores: nothing to the seconds of making it.
After a power cut, for which zarr-python does not wait, `verify` finds what never reached the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from featvis.errors import InputError, printable
from featvis.stores import Place, place_of

#: Of the layout; another one is not read.
FORMAT = 1
_KEY = "featvis_atlas"
_PICTURES = "pictures"
_BATCHES, _MANIFESTS = "batches", "manifests"
#: Of the settings, which zarr.json has: without them no picture says what it is of.
_COPY = "settings.json"
#: What a picture of a unit is.
ROLES = ("picture", "negative", "diverse", "facet")
#: What of a unit is driven: the mean of its map, or its activation in the middle of it.
OBJECTIVES = ("channel", "neuron")


@dataclass(frozen=True)
class Batch:
    """What the rows of a batch hold; the first ones, as the last of a layer's batches is padded.

    Attributes:
        row: the first of its rows.
        layer: of all its units.
        objective: one of `OBJECTIVES`.
        role: one of `ROLES`.
        units: of each row.
        numbers: of each row: which seed, which of the diverse pictures, which facet; from 0.
        clean: the unit's activation on the clean picture, in the objective's measure; None where
            it is not finite.
        transformed: its mean under the last step's transforms.
        steps: taken.
        silent: for each row None, or why its unit never gave a gradient.
        failed: for each row None, or what was not finite.
        seconds: that the batch took.
        digest: SHA-256 of all the rows of the batch.
        sealed: SHA-256 of the manifest that makes them again.
    """

    row: int
    layer: str
    objective: str
    role: str
    units: tuple[int, ...]
    numbers: tuple[int, ...]
    clean: tuple[float | None, ...]
    transformed: tuple[float | None, ...]
    steps: tuple[int, ...]
    silent: tuple[str | None, ...]
    failed: tuple[str | None, ...]
    seconds: float
    digest: str = field(default="", compare=False)
    sealed: str = field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.units)


class Store:
    """Pictures and records of an atlas; open one with `create` or `read`.

    Attributes:
        place: where it is.
        settings: what the pictures are made with, plain data: `model` (name, digest, origin),
            `size`, `channels`, `parameterization`, the options of the run, `seed`, `batch` and
            `layers` (by name, with `shape` and `labels`).
        batches: the records, in the order of their rows.
        unreadable: names of records that are damaged; their batches are made again.
        torn: whether zarr.json is damaged, and the settings are those of its copy.
    """

    def __init__(self, place: Place, settings: Mapping[str, Any], batches: list[Batch]) -> None:
        self.place, self.settings, self.batches = place, settings, batches
        self.unreadable: list[str] = []
        self.torn = False

    @classmethod
    def create(cls, path: str | Path, settings: Mapping[str, Any]) -> Store:
        """A new store without pictures.

        Args:
            path: of a folder that is not there, or empty; or an address.
            settings: plain data.

        Raises:
            InputError: zarr is not installed, or there is something else.
            OutputError: it cannot be written.
        """
        place = place_of(path, "atlas")
        place.make()
        store = cls(place, settings, [])
        store.set_settings(settings)
        return store

    @staticmethod
    def is_at(path: str | Path) -> bool:
        """Whether there is an atlas.

        Raises:
            InputError: a damaged one, or of another layout; or zarr is not installed.
        """
        return Store(place_of(path, "atlas"), {}, [])._read_settings()

    @classmethod
    def read(cls, path: str | Path) -> Store:
        """The store of a folder or an address.

        Raises:
            InputError: there is none, it is damaged or of another layout, or zarr is not installed.
        """
        store = cls(place_of(path, "atlas"), {}, [])
        store.refresh()
        return store

    def refresh(self) -> None:
        """Reads the settings and the records again, which another process may have added to.

        What is known of the arrays is forgotten: another process may have made them longer.

        Raises:
            InputError: there is no atlas, or its settings are damaged or of another layout.
        """
        self.place.forget()
        if not self._read_settings():
            at = self.place
            raise InputError(f"{at} is no atlas: `featvis atlas MODEL LAYER --out {at}` makes one")
        found, self.unreadable = [], []
        for name in self.place.names(_BATCHES):
            try:
                record = self._record(f"{_BATCHES}/{name}")
                values: dict[str, Any] = {
                    k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
                }
                found.append(Batch(**values))
            except (InputError, TypeError):
                self.unreadable.append(f"{_BATCHES}/{name}")
        self.batches = sorted(found, key=lambda batch: batch.row)

    def _record(self, name: str) -> dict[str, Any]:
        try:
            record = json.loads(self.place.read(name) or b"")
            if not isinstance(record, dict):
                raise ValueError("it is no record")
        except ValueError as error:
            raise InputError(
                f"the atlas {self.place} is damaged: {name}: {printable(error)}"
            ) from error
        return record

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes the settings, whole or not at all: a copy, and then those that count."""
        record = {"format": FORMAT, **{k: v for k, v in settings.items() if k != "format"}}
        sealed = {**record, "sealed": _seal(record)}
        self.place.write(_COPY, json.dumps(sealed).encode())
        self.place.set_settings(_KEY, sealed)
        self.settings, self.torn = record, False

    def _read_settings(self) -> bool:
        """Reads the settings, from their copy where zarr.json is damaged; whether there are any.

        Raises:
            InputError: both are damaged, or they are of another layout.
        """
        damage = None
        try:
            found = self.place.settings(_KEY, FORMAT)
        except InputError as error:
            found, damage = None, error
        self.torn = found is None or not _whole(found)
        if self.torn and (copy := self._copied()) is not None:
            found = copy
        elif damage is not None:
            raise damage
        elif found is not None and self.torn:
            raise self.place.damaged("they are others now")
        self.settings = {k: v for k, v in (found or {}).items() if k != "sealed"}
        return found is not None

    def _copied(self) -> dict[str, Any] | None:
        """The copy of the settings; None where there is none as it was written."""
        with suppress(InputError):
            found = self._record(_COPY)
            if found.get("format") == FORMAT and "sealed" in found and _whole(found):
                return found
        return None

    def next_row(self) -> int:
        """The first row of the next batch."""
        return max((batch.row for batch in self.batches), default=-self.rows) + self.rows

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return int(self.settings["batch"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture, (h, w, c)."""
        height, width = self.settings["size"]
        return height, width, self.settings["channels"]

    def append(self, batch: Batch, pictures: np.ndarray, manifest: Mapping[str, Any]) -> Batch:
        """Adds a batch: its rows, then its record.

        Args:
            batch: without its digest, at `next_row`.
            pictures: of all rows, (batch, h, w, c) uint8.
            manifest: that makes all rows again.

        Returns:
            The batch with its digest.

        Raises:
            OutputError: it cannot be written.
        """
        if pictures.shape != (self.rows, *self.shape) or pictures.dtype != np.uint8:
            raise InputError(
                f"a batch of this atlas is uint8 {(self.rows, *self.shape)}; got "
                f"{pictures.dtype} {pictures.shape}"
            )
        self._grow(batch.row + self.rows)
        self.place.write_rows(_PICTURES, batch.row, pictures)
        text = json.dumps(dict(manifest)).encode()
        digests = {"digest": _digest(pictures), "sealed": hashlib.sha256(text).hexdigest()}
        batch = Batch(**{**asdict(batch), **digests})
        self.place.write(self._name(batch, _MANIFESTS), text)
        self.place.write(self._name(batch), json.dumps(asdict(batch)).encode())
        self.batches.append(batch)
        return batch

    def pictures(self, batch: Batch) -> np.ndarray:
        """The pictures of a batch, (n, h, w, c) uint8, without what it was padded with.

        Raises:
            InputError: they are damaged.
        """
        found = None
        with suppress(InputError):
            found = self.place.read_rows(_PICTURES, batch.row, batch.row + self.rows)
        if found is None or _digest(found) != batch.digest:
            raise InputError(
                f"the atlas {self.place} is damaged: rows {batch.row} to "
                f"{batch.row + self.rows - 1}, of {batch.layer}: {self._help}"
            )
        return found[: len(batch)]

    def manifest(self, batch: Batch) -> dict[str, Any]:
        """The manifest that makes all rows of a batch again.

        Raises:
            InputError: it is damaged.
        """
        name = self._name(batch, _MANIFESTS)
        if hashlib.sha256(self.place.read(name) or b"").hexdigest() != batch.sealed:
            raise InputError(f"the atlas {self.place} is damaged: {name}: {self._help}")
        return self._record(name)

    @property
    def unread(self) -> str:
        """What to say of records, and of settings, that are damaged; nothing where none are."""
        said = []
        if self.torn:
            verify = f"`featvis atlas verify {self.place}`"
            said.append(f"damaged settings, of which the copy is read: {verify} writes them again")
        if count := len(self.unreadable):
            said.append(f"damaged records, whose pictures are left out: {count}; {self._help}")
        return "; ".join(said)

    def mend(self) -> list[str]:
        """Writes again what is damaged and known from elsewhere: no picture is lost with it.

        Returns:
            What was: the settings, of which there is a copy, and the description of the pictures'
            array, which follows from them.

        Raises:
            OutputError: the store cannot be written.
        """
        said = ["the settings, which are now written again from their copy"] if self.torn else []
        if self.torn or self._copied() is None:  # stores of before there were copies
            self.set_settings(self.settings)
        if self.batches and self._grow(self.next_row()):
            said.append("the description of the pictures' array, which is now written again")
        return said

    def _grow(self, rows: int) -> bool:
        chunk = (self.rows, *self.shape)
        return self.place.grow(_PICTURES, rows, self.shape, "uint8", chunk)

    def strike_unreadable(self) -> None:
        """Takes out the records that are damaged.

        Raises:
            OutputError: the store cannot be written.
        """
        for name in self.unreadable:
            self.place.remove(name)
        self.unreadable = []

    def strike(self, batch: Batch) -> None:
        """Takes a batch out, as if it had never been made.

        Raises:
            OutputError: the store cannot be written.
        """
        self.place.remove(self._name(batch))
        self.batches = [one for one in self.batches if one.row != batch.row]

    def _name(self, batch: Batch, folder: str = _BATCHES) -> str:
        return f"{folder}/{batch.row:010d}.json"

    @property
    def _help(self) -> str:
        return (
            f"`featvis atlas verify {self.place}` strikes out what is damaged, and the command "
            "that made the atlas makes it again"
        )

    # ---- natural images --------------------------------------------------------------------

    def set_natural(
        self, layer: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> None:
        """Writes what natural images do to the units of a layer: arrays, then their record."""
        folder = f"natural/{quote(layer, safe='')}"
        seal = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
        for name in sorted(arrays):
            seal.update(f"{name} {_digest(arrays[name])}".encode())
        version = seal.hexdigest()[:16]
        for name, values in arrays.items():
            self.place.put(f"{folder}/{version}/{name}", values)
        digests = {name: _digest(values) for name, values in arrays.items()}
        record = {"version": version, "arrays": digests, **facts}
        self.place.write(f"{folder}/record.json", json.dumps(record).encode())

    def natural(self, layer: str) -> dict[str, Any] | None:
        """The facts of `set_natural`, with `arrays`; None where nothing is known of a layer.

        Raises:
            InputError: damaged.
        """
        folder = f"natural/{quote(layer, safe='')}"
        if self.place.read(f"{folder}/record.json") is None:
            return None
        record = self._record(f"{folder}/record.json")
        arrays = {}
        try:
            for name, digest in record["arrays"].items():
                arrays[name] = self.place.read_rows(f"{folder}/{record['version']}/{name}")
                if _digest(arrays[name]) != digest:
                    raise InputError(f"{folder}/{name}")
        except (InputError, KeyError, AttributeError) as error:
            raise InputError(
                f"the atlas {self.place} is damaged: the natural images of {layer}: {self._help}"
            ) from error
        return {**record, "arrays": arrays}

    def strike_natural(self, layer: str) -> None:
        """Takes out what natural images do to a layer.

        Raises:
            OutputError: the store cannot be written.
        """
        self.place.remove(f"natural/{quote(layer, safe='')}/record.json")

    # ---- checks ----------------------------------------------------------------------------

    def damaged(self) -> Iterator[Batch | str]:
        """The batches, and the layers with natural images, that are not as they were written."""
        for batch in self.batches:
            try:
                self.pictures(batch)
                self.manifest(batch)
            except (InputError, KeyError):
                yield batch
        for layer in self.settings["layers"]:
            try:
                self.natural(layer)
            except (InputError, KeyError):
                yield layer


def _seal(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()


def _whole(settings: Mapping[str, Any]) -> bool:
    """Whether settings are as they were written; old ones, which have no seal, count as that."""
    own = {k: v for k, v in settings.items() if k != "sealed"}
    return settings.get("sealed") in (None, _seal(own))


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def difference(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What differs between the settings of a store and those asked for, one line each.

    None is an option of the run that was left out, and so each layer's own.
    """
    return [
        f"{name}: {_shown(made.get(name))} there, {_shown(value)} asked for"
        for name, value in asked.items()
        if made.get(name) != value
    ]


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "x".join(map(str, value))
    # Not "none", which is a transform's name.
    return printable(value if value is not None else "the default", 200)
