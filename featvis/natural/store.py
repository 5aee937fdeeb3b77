"""The store of an index: arrays of Zarr v3, and the list of files that says what is in them.

A store is a folder, a Zarr group with an array (rows, units) each of `maximum`, `mean`, `position`
and `vector`, and (rows, layers) of `place`. A batch has rows of its own, whole chunks that are
written once. Then its files are added to `files.jsonl`, a line each, which makes the batch a part
of the index: rows that no line names are nothing. A process that is killed at any moment leaves
whole lines of whole rows, and perhaps the beginning of one more line, which is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featvis.errors import InputError, OutputError, printable
from featvis.stores import Place

#: Of the layout; another one is not read.
FORMAT = 1
#: Units of a chunk: a unit's column is read without those of all others.
_COLUMNS = 512
_KEY = "featvis_index"
_WHAT = "index"
_LIST = "files.jsonl"
#: Arrays by their name: their type, and whether they have a column a unit or a layer.
_ARRAYS = {
    "maximum": ("float32", "units"),
    "mean": ("float32", "units"),
    "position": ("uint32", "units"),
    "vector": ("float32", "units"),
    "place": ("uint32", "layers"),
}
#: Settings by their name: their kind.
_SETTINGS: dict[str, type] = {
    "model": str, "digest": str, "layers": dict, "size": list, "channels": int, "batch": int,
    "seed": int, "folder": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an index.

    Attributes:
        name: its path in the folder.
        bytes: its size.
        time: of its last change, in nanoseconds.
        sha256: of its bytes; "" where it could not be read.
        row: of the arrays; None of a file that was left out.
        left_out: why; None of one that is in.
    """

    name: str
    bytes: int
    time: int
    sha256: str = ""
    row: int | None = None
    left_out: str | None = None


class Store:
    """A folder of arrays with a row an image; open one with `create` or `read`.

    Attributes:
        place: the folder.
        settings: what the images were measured with, plain data.
        entries: the files that are in or were left out, in the order of their rows.
    """

    def __init__(self, place: Place, settings: Mapping[str, Any], entries: list[Entry]) -> None:
        self.place, self.settings, self.entries = place, settings, entries

    @property
    def path(self) -> Path:
        """The folder's path."""
        return self.place.path

    @classmethod
    def create(cls, path: Path, settings: Callable[[], Mapping[str, Any]]) -> Store:
        """A new store without images.

        Args:
            path: of a folder that is not there, or empty.
            settings: gives plain data, of them `batch`, rows of a chunk, and `layers`; called once
                the folder is there, as it takes long.

        Raises:
            InputError: zarr is not installed, or there is something else.
            OutputError: it cannot be written.
        """
        place = Place(path, _WHAT)
        place.make()
        found = settings()
        store = cls(place, found, [])
        store.set_settings(found)
        return store

    @classmethod
    def read(cls, path: Path) -> Store:
        """The store of a folder.

        Raises:
            InputError: there is none, it is damaged or of another layout, or zarr is not installed.
        """
        place = Place(path, _WHAT)
        settings = place.settings(_KEY, FORMAT) if is_index(path) else None
        if settings is None:
            raise InputError(
                f"{place} is no index: `featvis index MODEL FOLDER --out {place}` makes one"
            )
        try:
            # A line without its end was being written when its process was killed.
            lines = (place.read(_LIST) or b"").split(b"\n")[:-1]
            entries = [_entry(line) for line in lines if line]
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the index {place} is damaged: {printable(error)}") from error
        try:
            _check_settings(settings)
        except (LookupError, TypeError, ValueError) as error:
            raise place.damaged(error) from error
        return cls(place, settings, entries)

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes the settings, whole or not at all."""
        self.place.set_settings(_KEY, {"format": FORMAT, **settings})
        self.settings = settings

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other processes from writing.

        Raises:
            InputError: one does.
        """
        return self.place.locked()

    @property
    def images(self) -> list[Entry]:
        """The files that are in the index, in the order of their rows."""
        return [entry for entry in self.entries if entry.row is not None]

    def next_row(self) -> int:
        """The first row of the next batch."""
        used = max((entry.row + 1 for entry in self.entries if entry.row is not None), default=0)
        return -(-used // self.settings["batch"]) * int(self.settings["batch"])

    def append(self, entries: Sequence[Entry], found: Mapping[str, np.ndarray], start: int) -> None:
        """Adds a batch: its rows, then its files.

        Args:
            entries: of the batch, those that were left out too.
            found: by the names of the arrays, `batch` rows of each; what no entry names is ignored.
            start: the first of the rows, as `next_row` gave it.

        Raises:
            OutputError: it cannot be written.
        """
        if any(entry.row is not None for entry in entries):
            for name, (kind, _) in _ARRAYS.items():
                columns = self._width(name)
                chunk = [self.settings["batch"], min(_COLUMNS, columns)]
                self.place.grow(name, start + self.settings["batch"], [columns], kind, chunk)
                self.place.write_rows(name, start, found[name].astype(kind, copy=False))
        lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)
        try:
            with open(self.path / _LIST, "ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.place}: {error.strerror or error}") from error
        self.entries.extend(entries)

    def mend(self) -> None:
        """Cuts off the beginning of a line that was being written when its process was killed."""
        path = self.path / _LIST
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)

    def columns(self, name: str, start: int, stop: int) -> np.ndarray:
        """Columns of an array, (images, stop - start), in the order of the rows.

        Raises:
            InputError: there is no image yet, or the array is damaged.
        """
        rows = self._rows(name, start, stop)
        return self.place.read_rows(name, 0, self.next_row(), (slice(start, stop),))[rows]

    def blocks(self, name: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """The same in parts, (some images, stop - start), without all of it in the memory."""
        chunk = int(self.settings["batch"])
        rows = self._rows(name, start, stop)
        for first in range(0, self.next_row(), chunk):
            own = rows[(rows >= first) & (rows < first + chunk)] - first
            if len(own):
                columns = (slice(start, stop),)
                yield self.place.read_rows(name, first, first + chunk, columns)[own]

    def _rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """The images' rows, whose chunks are there: what is missing Zarr takes for zeros.

        Raises:
            InputError: there is no image yet, or a chunk is missing.
        """
        rows = np.array([entry.row for entry in self.images], int)
        if not len(rows):
            raise InputError(
                f"the index {self.place} has no image yet: the `featvis index` that made it goes on"
            )
        shape = self.place.array(name).shape
        if len(shape) != 2 or shape[0] <= rows.max() or shape[1] < stop:
            raise InputError(
                f"the index {self.place} is damaged: its array {name} is {shape}, and its files "
                f"have rows up to {rows.max()}: put a copy of both back, or index the images anew"
            )
        parts = range(start // _COLUMNS, (stop - 1) // _COLUMNS + 1)
        for number in np.unique(rows // self.settings["batch"]).tolist():
            for part in parts:
                if not (self.path / name / "c" / str(number) / str(part)).is_file():
                    raise InputError(
                        f"the index {self.place} is damaged: {name}/c/{number}/{part} is missing: "
                        "put a copy of it back, or index the images anew"
                    )
        return rows

    def _width(self, name: str) -> int:
        layers = self.settings["layers"]
        if _ARRAYS[name][1] == "layers":
            return len(layers)
        return sum(layer["shape"][-1] for layer in layers.values())


def _entry(line: bytes) -> Entry:
    """The file of a line.

    Raises:
        TypeError: other fields.
        ValueError: fields of other kinds.
    """
    entry = Entry(**json.loads(line))
    known = isinstance(entry.name, str) and isinstance(entry.sha256, str)
    known = known and isinstance(entry.bytes, int) and isinstance(entry.time, int)
    if entry.row is None:
        known = known and isinstance(entry.left_out, str)
    else:
        known = known and isinstance(entry.row, int) and entry.row >= 0
    if not known:
        raise ValueError(f"{_LIST} has a line that is no file's: {line[:80]!r}")
    return entry


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Checks that settings have what all that reads an index takes from them.

    Raises:
        LookupError: one is missing.
        TypeError: a layer is none.
        ValueError: one is of another kind.
    """
    for name, kind in _SETTINGS.items():
        if not isinstance(settings[name], kind):
            raise ValueError(f"{name} {settings[name]!r}")
    if settings["batch"] < 1 or len(settings["size"]) != 2:
        raise ValueError(f"batch {settings['batch']}, size {settings['size']}")
    for name, layer in settings["layers"].items():
        if not all(isinstance(side, int) for side in layer["shape"]) or not layer["shape"]:
            raise ValueError(f"{name} {layer['shape']!r}")
        _ = layer["field"]["rows"], layer["field"]["columns"], layer["field"]["tokens"]


def is_index(path: str | Path) -> bool:
    """Whether a folder is the store of an index."""
    try:
        record = json.loads((Path(path) / "zarr.json").read_bytes())
        return _KEY in record["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
