"""Files of weights: read once, without running what they contain, and fitted to a network.

A training script writes more than a state dict, and a wrapper of the network adds a prefix to every
name. `fit` finds the part of a file and the prefix that give a network all of its parameters; where
several do, the user names one after a `#`, as in `run.pth#ema`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from featvis.errors import CheckpointError, InputError, printable
from featvis.weights import formats, torch_format
from featvis.weights.parts import Arrays, Part, WeightsFile, choose_part, named_file, shown_key


def read_file(
    path: str | Path, sha256: str | None = None, shards: Mapping[str, Path] | None = None
) -> WeightsFile:
    """Reads a file of weights, once: what is hashed is what is read.

    Args:
        path: `.safetensors`, `.npz`, Flax's `.msgpack`, an index of several files
            (`.index.json`), or a PyTorch checkpoint by any other suffix. After a `#` may stand
            which part of it is meant: the keys of its dictionaries with slashes between, or what
            the names of the part begin with. A file whose whole name is this is taken as it is.
        sha256: That the file must have, or the first digits of it; None: not known.
        shards: Where the files of an index are, by the names in it; None: beside it.

    Raises:
        CheckpointError: The file cannot be read, is another one, is truncated, is not what its
            suffix says, or has no such part.
    """
    path, asked = split_part(path)
    if is_index(path):
        digest, parts = _read_index(path, shards)
    else:
        data = _bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if sha256 is not None and not digest.startswith(sha256):
            raise CheckpointError(
                f"{shown_key(path)}: damaged or another file: its SHA-256 is "
                f"{digest[: len(sha256)]}, expected {sha256}"
            )
        parts = _parts(path, data)
    file = WeightsFile(path, digest, tuple(parts), asked)
    file.meant()  # so that a mistake is told here
    return file


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file of weights: see `read_file` for its formats, and for the `#`.

    Of several parts it is the one under a usual key (state_dict, model and the like), averages
    (ema) and what belongs to an optimizer set aside. An archive that would unpack to more than
    16 MiB and 20 times its own size is refused.

    Args:
        path: the file; after a `#` the part of it that is meant.

    Returns:
        Read-only arrays by name, in the file's order; bfloat16 is widened to float32.

    Raises:
        CheckpointError: The file cannot be read, is truncated, is not what its suffix says, has a
            tensor that reaches outside its storage, or several parts none of which is the usual.
    """
    return arrays_of(read_file(path))


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a PyTorch checkpoint, whatever its suffix; else as `read_weights`."""
    path, asked = split_part(path)
    return arrays_of(WeightsFile(path, "", tuple(_parts(path, _bytes(path), ".pth")), asked))


def arrays_of(file: WeightsFile) -> dict[str, np.ndarray]:
    """The arrays of the part of a file that is meant."""
    part = choose_part(file, {part.key: part for part in file.meant()})
    with named_file(file):
        return dict(part.arrays)


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_named(weights: object) -> str:
    """The text of what is given as a file of weights.

    Raises:
        InputError: it is no text and no path.
    """
    if not isinstance(weights, (str, os.PathLike)):
        raise InputError(
            "weights are a file's name or path, or hf://owner/repository@revision/path; got "
            f"{printable(repr(weights), 80)}"
        )
    return os.fspath(weights)


def split_part(path: str | Path) -> tuple[Path, str]:
    """A file, and the part of it that is named after a `#`."""
    text = file_named(path)
    if not os.path.exists(text):
        for at in reversed([match.start() for match in re.finditer("#", text)]):
            if os.path.exists(text[:at]) and not os.path.isdir(text[:at]):
                if not (asked := text[at + 1 :].strip("/")):
                    raise CheckpointError(f"{shown_key(text)} names no part after the #")
                return Path(text[:at]), asked
    return Path(text), ""


#: A pipe that nobody writes to is opened at once.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

_ORBAX = {"_CHECKPOINT_METADATA", "_METADATA", "_sharding", "manifest.ocdbt", "ocdbt.process_0"}


def _bytes(path: Path) -> bytes:
    shown = shown_key(path)
    try:
        if not stat.S_ISREG(mode := os.stat(path).st_mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "no file")
            raise CheckpointError(f"{shown}: cannot be read: it is {kind}{_of_folder(path)}")
        with open(os.open(path, _READ), "rb") as file:
            # No more than there is now, and no device that has taken the file's place.
            status = os.fstat(file.fileno())
            data = file.read(status.st_size) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CheckpointError(f"{shown}: cannot be read ({reason})") from error
    except ValueError as error:  # a name that no file can have
        raise CheckpointError(f"{shown}: cannot be read ({error})") from error
    except (MemoryError, OverflowError) as error:
        raise CheckpointError(f"{shown}: does not fit into the memory") from error
    if not data:
        raise CheckpointError(f"{shown}: cannot be read: it is empty, or truncated to nothing")
    return data


def _of_folder(path: Path) -> str:
    names = set(os.listdir(path)) if os.path.isdir(path) else set()
    export = "and write its arrays with numpy.savez or safetensors"
    if names & _ORBAX:
        return f" of Orbax: restore it with orbax.checkpoint {export}"
    if "saved_model.pb" in names:
        return f" of TensorFlow: load it there {export}"
    return ", not a file of weights"


_READERS: Mapping[str, Callable[[bytes], list[Part]]] = {
    ".safetensors": formats.read_safetensors,
    ".npz": formats.read_npz,
    ".msgpack": formats.read_msgpack,
}


def _parts(path: Path, data: bytes, suffix: str | None = None) -> list[Part]:
    suffix, shown = path.suffix.lower() if suffix is None else suffix, shown_key(path)
    if (what := formats.foreign(path.name.lower(), data[:16])) is not None:
        raise CheckpointError(f"{shown}: is {what}")
    try:
        return _READERS.get(suffix, torch_format.read_torch)(data)
    except CheckpointError as error:
        raise CheckpointError(f"{shown}: {shown_key(error)}") from error.__cause__
    # A hostile or damaged file makes its reader raise nearly anything.
    except Exception as error:
        kind = f"{suffix} file" if suffix in _READERS else "PyTorch checkpoint"
        raise CheckpointError(
            f"{shown}: not a readable {kind}, or truncated "
            f"({type(error).__name__}: {shown_key(error)})"
        ) from error


#: Of an index: beyond this it names no network's tensors.
_LARGEST_INDEX = 2**24

_MOST_FILES = 1000


def is_index(path: Path) -> bool:
    """Whether a file says by its name that it is an index of several files of weights."""
    # In the cache of the hub's files %2E stands for the last dot.
    return path.name.lower().endswith((".index.json", ".index%2ejson"))


def files_of_index(path: Path) -> list[str]:
    """The names of the files that an index names.

    Raises:
        CheckpointError: It is no readable index.
    """
    return _index(path)[1]


def _index(path: Path) -> tuple[dict[str, str], list[str], bytes]:
    """An index: the file of each tensor, the files, and its bytes."""
    data, shown = _bytes(path), shown_key(path)
    try:
        if len(data) > _LARGEST_INDEX:
            raise ValueError(f"it has {len(data)} bytes, more than {_LARGEST_INDEX}")
        places = json.loads(data)["weight_map"]
        names = sorted({*places.values()})
        if not names or len(names) > _MOST_FILES:
            raise ValueError(f"it names {len(names)} files; expected 1 to {_MOST_FILES}")
        for name in names:
            if name in ("", ".", "..") or {*name} & {*"/\\"}:
                raise ValueError(f"{name!r:.80} is no file beside it")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{shown}: not a readable index of weights ({type(error).__name__}: {shown_key(error)})"
        ) from error
    return places, names, data


def _read_index(path: Path, shards: Mapping[str, Path] | None) -> tuple[str, list[Part]]:
    """The tensors of several files, which an index names."""
    places, names, data = _index(path)
    shown, digest = shown_key(path), hashlib.sha256(data)
    makers: dict[str, Callable[[], np.ndarray]] = {}
    for name in names:
        place = path.with_name(name) if shards is None else shards[name]
        content = _bytes(place)
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
        found: dict[str, Mapping[str, np.ndarray]] = {}
        for part in _parts(place, content):
            found |= dict.fromkeys(part.arrays, part.arrays)
        for key in (key for key, file in places.items() if file == name):
            if key not in found:
                raise CheckpointError(f"{shown}: {shown_key(key)} is not in {shown_key(name)}")
            makers[key] = functools.partial(found[key].__getitem__, key)
    # In the index's order.
    return digest.hexdigest(), [Part("", Arrays({key: makers[key] for key in places}))]
