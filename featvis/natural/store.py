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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from featvis.errors import InputError, OutputError, printable
from featvis.files import open_file, write_file

#: Of the layout; another one is not read.
FORMAT = 1
#: Units of a chunk: a unit's column is read without those of all others.
_COLUMNS = 512
_KEY = "featvis_index"
_LIST = "files.jsonl"
#: Arrays by their name: their type, and whether they have a column a unit or a layer.
_ARRAYS = {
    "maximum": ("float32", "units"),
    "mean": ("float32", "units"),
    "position": ("uint32", "units"),
    "vector": ("float32", "units"),
    "place": ("uint32", "layers"),
}


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
        path: the folder.
        settings: what the images were measured with, plain data.
        entries: the files that are in or were left out, in the order of their rows.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], entries: list[Entry]) -> None:
        self.path, self.settings, self.entries = path, settings, entries
        self._arrays: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any]) -> Store:
        """A new store without images.

        Args:
            path: of a folder that is not there, or empty.
            settings: plain data; of them `batch`, rows of a chunk, and `layers`.

        Raises:
            InputError: zarr is not installed, or there is something else.
            OutputError: it cannot be written.
        """
        _zarr()
        shown = printable(path)
        try:
            # What begins with a dot was being written when another process was killed.
            if path.exists() and any(one.name[0] != "." for one in path.iterdir()):
                raise InputError(f"{shown} is no index, and not empty: give it another place")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {shown}: {error.strerror or error}") from error
        store = cls(path, settings, [])
        store.set_settings(settings)
        return store

    @classmethod
    def read(cls, path: Path) -> Store:
        """The store of a folder.

        Raises:
            InputError: there is none, it is damaged or of another layout, or zarr is not installed.
        """
        _zarr()
        shown = printable(path)
        if not is_index(path):
            raise InputError(
                f"{shown} is no index: `featvis index MODEL FOLDER --out {shown}` makes one"
            )
        try:
            with open_file(path / "zarr.json") as file:
                settings = json.loads(file.read())["attributes"][_KEY]
            if settings["format"] != FORMAT:
                raise InputError(
                    f"{shown} is an index of format {settings['format']}; expected {FORMAT}"
                )
            lines: list[bytes] = []
            if (path / _LIST).exists():
                with open_file(path / _LIST) as file:
                    # A line without its end was being written when its process was killed.
                    lines = file.read().split(b"\n")[:-1]
            entries = [Entry(**json.loads(line)) for line in lines if line]
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the index {shown} is damaged: {printable(error)}") from error
        return cls(path, settings, entries)

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes the settings, whole or not at all."""
        record = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {_KEY: {"format": FORMAT, **settings}},
        }
        write_file(self.path / "zarr.json", json.dumps(record, indent=1).encode(), force=True)
        self.settings = settings

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing.

        Raises:
            InputError: one does.
        """
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise InputError(
                f"somebody else is writing into the index {printable(self.path)}"
            ) from error

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
        try:
            if any(entry.row is not None for entry in entries):
                end = start + self.settings["batch"]
                for name, (kind, _) in _ARRAYS.items():
                    self._grow(name, end)
                    self._array(name)[start:end] = found[name].astype(kind, copy=False)
            lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)
            with open(self.path / _LIST, "ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            shown = printable(self.path)
            raise OutputError(f"cannot write {shown}: {error.strerror or error}") from error
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
        """Columns of an array, (images, stop - start), in the order of the rows."""
        rows = self._rows()
        if not len(rows):
            return np.zeros((0, stop - start), _ARRAYS[name][0])
        return np.asarray(self._array(name)[: self.next_row(), start:stop])[rows]

    def blocks(self, name: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """The same in parts, (some images, stop - start), without all of it in the memory."""
        chunk = int(self.settings["batch"])
        rows = self._rows()
        for first in range(0, self.next_row(), chunk):
            own = rows[(rows >= first) & (rows < first + chunk)] - first
            if len(own):
                yield np.asarray(self._array(name)[first : first + chunk, start:stop])[own]

    def _rows(self) -> np.ndarray:
        return np.array([entry.row for entry in self.images], int)

    def _width(self, name: str) -> int:
        layers = self.settings["layers"]
        if _ARRAYS[name][1] == "layers":
            return len(layers)
        return sum(layer["shape"][-1] for layer in layers.values())

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            zarr = _zarr()
            mode = "r+" if os.access(self.path, os.W_OK) else "r"
            try:
                self._arrays[name] = zarr.open_array(
                    zarr.storage.LocalStore(self.path / name), mode=mode, zarr_format=3
                )
            except (OSError, ValueError) as error:
                raise InputError(
                    f"the index {printable(self.path)} is damaged: its array {name} is missing"
                ) from error
        return self._arrays[name]

    def _grow(self, name: str, rows: int) -> None:
        """Makes room for rows, by a file that is replaced whole, which zarr's own is not."""
        path, columns = self.path / name / "zarr.json", self._width(name)
        had = self._array(name).shape[0] if path.exists() else 0
        if had >= rows:
            return
        kind, axis = _ARRAYS[name]
        chunk = [self.settings["batch"], min(_COLUMNS, columns)]
        record = {
            "zarr_format": 3,
            "node_type": "array",
            # Twice as many each time: reading what the array is costs more than writing a batch.
            "shape": [max(rows, 2 * had), columns],
            "data_type": kind,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": 1, "checksum": True}},
            ],
            "dimension_names": ["row", axis[:-1]],
            "attributes": {},
        }
        path.parent.mkdir(exist_ok=True)
        write_file(path, json.dumps(record, indent=1).encode(), force=True)
        self._arrays.pop(name, None)


def is_index(path: str | Path) -> bool:
    """Whether a folder is the store of an index."""
    try:
        record = json.loads((Path(path) / "zarr.json").read_bytes())
        return _KEY in record["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _zarr() -> Any:
    """The package, which takes half a second to import.

    Raises:
        InputError: it is not installed.
    """
    try:
        import zarr
        import zarr.storage
    except ImportError as error:
        raise InputError("an index needs the package zarr: pip install 'featvis[index]'") from error
    return zarr
