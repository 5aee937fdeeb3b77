"""Stores: Zarr v3 groups with settings, arrays that grow by rows, and small files beside them.

A store is a folder, or an address that fsspec knows (s3://, gs://, memory://). Whatever is written
is written whole or not at all: files of ours are renamed into place, and so are zarr's chunks; an
object store does as much by itself.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from featvis.errors import FeatvisError, InputError, OutputError, printable
from featvis.files import open_file, write_file

#: The lock of a folder, which the system lets go when its process ends, however it ends.
_LOCK = ".lock"
_GROUP = "zarr.json"
#: How hard zstd tries.
_LEVEL = 1
#: What zarr raises where a file of an array is not as it was written.
_DAMAGED = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)


def zarr(what: str) -> Any:
    """The package, which takes half a second to import.

    Args:
        what: needs it, as messages call it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import zarr
        import zarr.storage
    except ImportError as error:
        raise InputError(
            f"an {what} needs the package zarr: pip install 'featvis[index]'"
        ) from error
    return zarr


class Place:
    """Where a store is: a folder.

    Attributes:
        what: is kept there, as messages call it: "index".
        path: the folder's path, or the address.
    """

    def __init__(self, path: str | Path, what: str) -> None:
        self.what, self.path = what, Path(path)
        self._zarr = zarr(what)
        self._arrays: dict[str, Any] = {}
        self._chunks: dict[str, tuple[int, ...]] = {}

    def __str__(self) -> str:
        return printable(self.path)

    @property
    def writable(self) -> bool:
        """Whether this process may write there."""
        return os.access(self.path, os.W_OK)

    def make(self) -> None:
        """Makes the folder, which is not there, or empty.

        Raises:
            InputError: there is something else.
            OutputError: it cannot be made.
        """
        with self._written():
            # What begins with a dot was being written when another process was killed.
            if os.path.exists(self.path) and (
                not self.path.is_dir() or any(one.name[0] != "." for one in self.path.iterdir())
            ):
                raise InputError(f"{self} is no {self.what}, and not empty: give another place")
            self.path.mkdir(parents=True, exist_ok=True)

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder of it, in order."""
        try:
            found = os.listdir(self.path / folder)
        except OSError:
            return []
        return sorted(name for name in found if name[0] != ".")

    def read(self, name: str) -> bytes | None:
        """What a file of it holds; None where there is none."""
        path = self.path / name
        if not os.path.exists(path):  # a name that is too long, or has a zero in it, is nowhere
            return None
        with open_file(path) as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of it, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.path / name
        with self._written():
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content, force=True)

    def remove(self, name: str) -> None:
        """Removes a file of it.

        Raises:
            OutputError: it cannot be removed.
        """
        with self._written():
            (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing, as long as this one lives.

        Raises:
            InputError: one does.
            OutputError: nobody may write there.
        """
        lock = FileLock(self.path / _LOCK, timeout=0)
        with self._written():
            try:
                lock.acquire()
            except Timeout as error:
                raise InputError(f"somebody else is writing into {self}") from error
        try:
            yield
        finally:
            lock.release()

    # ---- Zarr ------------------------------------------------------------------------------

    def settings(self, key: str, format: int) -> dict[str, Any] | None:
        """The settings of the group under a key; None where there is no such group.

        Raises:
            InputError: damaged, or of another format.
        """
        content = self.read(_GROUP)
        try:
            found = json.loads(content or b"{}").get("attributes", {}).get(key)
        except (ValueError, AttributeError) as error:
            raise self.damaged(error) from error
        if found is None:
            return None
        if not isinstance(found, dict) or found.get("format") != format:
            had = found.get("format") if isinstance(found, dict) else None
            raise InputError(f"{self} is an {self.what} of format {had}; expected {format}")
        return found

    def damaged(self, why: object) -> InputError:
        """What to raise where the settings are damaged.

        Args:
            why: says what is wrong with them.
        """
        return InputError(
            f"{self} is damaged: {_GROUP}, which has its settings, is not as it was written "
            f"({printable(why)}): put a copy of it back, or give another place"
        )

    def set_settings(self, key: str, settings: Mapping[str, Any]) -> None:
        """Writes the settings of the group, whole or not at all."""
        record = {"zarr_format": 3, "node_type": "group", "attributes": {key: dict(settings)}}
        self.write(_GROUP, json.dumps(record, indent=1).encode())

    def forget(self) -> None:
        """Forgets how long arrays were, which another process may have made longer."""
        self._arrays.clear()

    def array(self, name: str) -> Any:
        """An array of it.

        Raises:
            InputError: it is missing or damaged.
        """
        if name not in self._arrays:
            try:
                self._arrays[name] = self._zarr.open_array(
                    self._storage(), path=name, mode="r+" if self.writable else "r", zarr_format=3
                )
            except _DAMAGED as error:
                raise InputError(
                    f"{self} is damaged: its array {name} is missing or not as it was written"
                ) from error
        return self._arrays[name]

    def read_rows(
        self,
        name: str,
        start: int = 0,
        stop: int | None = None,
        columns: tuple[slice, ...] = (),
    ) -> np.ndarray:
        """Rows of an array, by default all.

        Args:
            name: of the array.
            start: the first row.
            stop: the one after the last.
            columns: of the other axes, what is read.

        Raises:
            InputError: it is missing or damaged.
        """
        try:
            return np.asarray(self.array(name)[(slice(start, stop), *columns)])
        except InputError:
            raise
        except _DAMAGED as error:
            raise InputError(
                f"{self} is damaged: rows {start} to {stop} of {name}: {printable(error)}"
            ) from error

    def write_rows(self, name: str, start: int, values: np.ndarray) -> None:
        """Writes rows of an array, which there is room for.

        Raises:
            OutputError: they cannot be written.
        """
        with self._written():
            if not self._write_chunks(name, start, values):
                self.array(name)[start : start + len(values)] = values

    def _write_chunks(self, name: str, start: int, values: np.ndarray) -> bool:
        """Writes rows that are one row of whole chunks: zarr takes four times as long for them.

        Returns:
            Whether they are that, of an array that `grow` has made room in.
        """
        chunk = self._chunks.get(name, ())
        if len(chunk) != 2 or start % chunk[0] or len(values) != chunk[0]:
            return False
        from numcodecs import zstd  # zarr's own

        folder = self.path / name / "c" / str(start // chunk[0])
        folder.mkdir(parents=True, exist_ok=True)
        for number, first in enumerate(range(0, values.shape[1], chunk[1])):
            part = values[:, first : first + chunk[1]]
            # A chunk at the edge is as large as the others.
            whole = np.zeros(chunk, values.dtype.newbyteorder("<"))
            whole[:, : part.shape[1]] = part
            draft = folder / f"{number}.{os.getpid()}.partial"
            draft.write_bytes(zstd.compress(whole, _LEVEL, True))
            draft.replace(folder / str(number))
        return True

    def grow(
        self, name: str, rows: int, tail: Sequence[int], kind: str, chunk: Sequence[int]
    ) -> bool:
        """Makes room for rows, by a file that is replaced whole, which zarr's own is not.

        One that is not as this wrote it is damaged, and is written again: the rows are elsewhere.

        Args:
            name: of the array, which is made where there is none.
            rows: that there are to be, at least.
            tail: the shape of a row.
            kind: the type, as "float32".
            chunk: its shape.

        Returns:
            Whether it was written.
        """
        self._chunks[name] = tuple(chunk)
        record: dict[str, Any] = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *tail],
            "data_type": kind,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}}
                if np.dtype(kind).itemsize > 1
                else {"name": "bytes"},
                {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": True}},
            ],
            "attributes": {},
        }
        try:
            there = json.loads(self.read(f"{name}/{_GROUP}") or b"{}")
            had = int(there["shape"][0])
            had *= there == {**record, "shape": [had, *tail]}
        except (ValueError, LookupError, TypeError):
            had = 0
        if had >= rows:
            return False
        # Twice as many each time: reading what the array is costs more than writing a batch.
        record["shape"][0] = max(rows, 2 * had)
        self.write(f"{name}/{_GROUP}", json.dumps(record, indent=1).encode())
        self._arrays.pop(name, None)
        return True

    def put(self, name: str, values: np.ndarray) -> None:
        """Writes an array that does not grow, in one chunk; with the file that says so last."""
        shape = values.shape
        self._arrays.pop(name, None)
        self.grow(name, shape[0], shape[1:], str(values.dtype), [max(1, n) for n in shape])
        if math.prod(shape):
            self.write_rows(name, 0, values)

    def _storage(self) -> Any:
        return self._zarr.storage.LocalStore(self.path)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except FeatvisError:
            raise
        except (OSError, ValueError) as error:  # the latter of a name with a zero in it
            said = getattr(error, "strerror", None) or error
            raise OutputError(f"cannot write {self}: {printable(said)}") from error


class RemotePlace(Place):
    """A place in an object store, by an address that fsspec knows.

    It has no lock: whoever starts two that write there loses what one of them did.
    """

    def __init__(self, address: str, what: str) -> None:
        super().__init__(address, what)
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise InputError(f"an {what} at {printable(address)}: {printable(error)}") from error
        self._address = address.rstrip("/")

    def __str__(self) -> str:
        return printable(self._address)

    @property
    def writable(self) -> bool:
        """Whether this process may write there: only writing tells."""
        return True

    def make(self) -> None:
        """Nothing: an object store has no folders.

        Raises:
            InputError: there is something else.
        """
        if self._files.find(self._root):
            raise InputError(f"{self} is no {self.what}, and not empty: give another place")

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder of it, in order."""
        try:
            self._files.invalidate_cache()
            found = self._files.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def read(self, name: str) -> bytes | None:
        """What a file of it holds; None where there is none."""
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"cannot read {self}: {printable(error)}") from error

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of it, whole or not at all."""
        with self._written():
            self._files.pipe_file(f"{self._root}/{name}", content)

    def remove(self, name: str) -> None:
        """Removes a file of it."""
        with self._written():
            self._files.rm_file(f"{self._root}/{name}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nothing: an object store has no locks."""
        yield

    def _write_chunks(self, name: str, start: int, values: np.ndarray) -> bool:
        """Nothing: zarr writes what is not in a folder."""
        return False

    def _storage(self) -> Any:
        return self._zarr.storage.FsspecStore.from_url(self._address)


def place_of(path: str | Path, what: str) -> Place:
    """The place of a store, a folder or an address.

    Args:
        path: of the folder, or the address, with "://".
        what: is kept there, as messages call it.

    Raises:
        InputError: no path, or an empty one; an address that fsspec does not know; zarr is not
            installed.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise InputError(f"an {what} is in a folder or at an address; got {path!r}")
    remote = isinstance(path, str) and "://" in path
    return RemotePlace(str(path), what) if remote else Place(path, what)
