"""Files that `torch.save` wrote, read from memory without running anything."""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from featvis.errors import CheckpointError
from featvis.weights.archives import ZIP_START, Archive
from featvis.weights.parts import RAW_TYPES, Arrays, Part, values_of
from featvis.weights.pickles import Name, Thing, read_pickle

#: Elements of a tensor that is a repetition of fewer.
_MOST_REPEATED = 2**22


#: Of every protocol but the first two, whose instructions are text.
_PICKLE_START = b"\x80"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_LEGACY_PROTOCOL = 1001

#: Types of elements by storage; of those that are not read, the number of bytes.
_STORAGES: Mapping[str, str | int] = {
    "torch.FloatStorage": "f4",
    "torch.DoubleStorage": "f8",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "bf16",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": 8,
    "torch.ComplexDoubleStorage": 16,
    "torch.QInt8Storage": 1,
    "torch.QUInt8Storage": 1,
    "torch.QInt32Storage": 4,
    "torch.QUInt4x2Storage": 1,
    "torch.QUInt2x4Storage": 1,
    "torch.storage.UntypedStorage": 1,
}

# A file may hold itself, or one dictionary in a great many places.
_MOST_PARTS = 2**16

_MOST_NESTED = 8

_LONGEST_KEY = 200

#: Entries of a list that the whole file is, as `[epoch, model, optimizer]`.
_MOST_LISTED = 64


class _Storage(NamedTuple):
    key: str
    kind: str
    start: int  # of a view into the stored elements; 0 but in the oldest files
    length: int  # in elements


class _Tensor(NamedTuple):
    """What a file says of a tensor; nothing of it is checked before `_array` makes it."""

    storage: _Storage
    offset: Any
    size: Any
    stride: Any


def is_whole(value: object) -> bool:
    """Whether a value is an integer of at least 0."""
    return type(value) is int and 0 <= value < 2**62


def all_whole(values: object) -> bool:
    """Whether a value is a tuple of such integers."""
    return type(values) is tuple and len(values) <= 32 and all(map(is_whole, values))


def _rebuild_tensor(*arguments: object) -> object:
    if len(arguments) < 4 or type(arguments[0]) is not _Storage:
        return Thing("torch.Tensor")
    return _Tensor(*arguments[:4])  # type: ignore[arg-type]


def _rebuild_parameter(*arguments: object) -> object:
    found = arguments[0] if arguments else None
    return found if type(found) is _Tensor else Thing("torch.nn.Parameter")


def _rebuild_subclass(*arguments: object) -> object:
    # The function, the class that the tensor had, the function's arguments, attributes.
    function, inner = (*arguments, None, None, None)[:3:2]
    known = _CALLS.get(function.text) if type(function) is Name else None
    if known is None or known is _rebuild_subclass or type(inner) is not tuple:
        return Thing("torch.Tensor")
    return known(*inner)


def _ordered_dict(*arguments: object) -> object:
    pairs: object = arguments[0] if arguments else []
    if type(pairs) is not list:
        raise CheckpointError("a dictionary of what is no list of pairs")
    entries = []
    for pair in pairs:  # as Python 2 wrote them
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise CheckpointError("a dictionary of what is no list of pairs")
        entries.append((pair[0], pair[1]))
    return Thing("dict", entries)


_CALLS: Mapping[str, Callable[..., object]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
}


def _persistent(pid: object, storages: dict[str, _Storage]) -> object:
    if type(pid) is tuple and len(pid) == 4 and pid[0] == "module" and type(pid[1]) is Name:
        return pid[1]  # a class with its source, in the oldest files
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise CheckpointError("a storage in an unknown notation")
    _, kind, key, _, count = pid[:5]
    view = pid[5] if len(pid) == 6 else None
    if type(kind) is not Name or type(key) is not str or not is_whole(count):
        raise CheckpointError("a storage in an unknown notation")
    if kind.text not in _STORAGES:
        raise CheckpointError(f"a storage of the unknown type {kind.text!r:.80}")
    whole = _Storage(key, kind.text, 0, count)
    if storages.setdefault(key, whole) != whole:
        raise CheckpointError(f"storage {key!r:.80} is declared twice, differently")
    if view is None:
        return whole
    if type(view) is not tuple or len(view) != 3 or not all_whole(view[1:]):
        raise CheckpointError("a view of a storage in an unknown notation")
    return _Storage(key, kind.text, view[1], view[2])


def _unpickle(stream: io.BytesIO, storages: dict[str, _Storage]) -> object:
    return read_pickle(stream, _CALLS, functools.partial(_persistent, storages=storages))


def _itemsize(storage: _Storage) -> int:
    kind = _STORAGES[storage.kind]
    return kind if isinstance(kind, int) else np.dtype(RAW_TYPES.get(kind, kind)).itemsize


def _elements(
    raw: bytes | memoryview, storage: _Storage, byteorder: Literal["<", ">"]
) -> np.ndarray:
    kind = _STORAGES[storage.kind]
    if isinstance(kind, int):
        raise CheckpointError(f"a tensor of the type {storage.kind}, which is not read")
    if len(raw) != storage.length * _itemsize(storage):
        raise CheckpointError(
            f"storage {storage.key!r:.80} holds {len(raw)} bytes, "
            f"{storage.length} elements of {_itemsize(storage)} bytes were announced"
        )
    return values_of(raw, kind, byteorder)


def _array(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    """A view of stored elements: all that a file says of its place is checked here."""
    storage, offset, size, stride = tensor
    if not is_whole(offset) or not all_whole(size) or not all_whole(stride):
        raise CheckpointError("a tensor whose offset, size or stride is not whole numbers")
    if storage.start + storage.length > elements.size:
        raise CheckpointError(f"a view beyond the end of storage {storage.key!r:.80}")
    if len(size) != len(stride):
        raise CheckpointError("a tensor whose size and stride differ in length")
    if 0 in size:
        return np.empty(size, elements.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= storage.length:
        raise CheckpointError(
            f"a tensor of size {size}, stride {stride} and offset {offset} reaches outside its "
            f"storage of {storage.length} elements"
        )
    # As `torch.expand` does; but few bytes may not pose as any number.
    if math.prod(size) > max(storage.length, _MOST_REPEATED):
        raise CheckpointError(
            f"a tensor of size {size} and stride {stride} repeats the {storage.length} elements "
            f"of its storage, and has more than {_MOST_REPEATED}: save its .contiguous()"
        )
    # Along an axis of length 1 a stride may be any number, and is not used.
    steps = (s if n > 1 else 0 for n, s in zip(size, stride, strict=True))
    return np.lib.stride_tricks.as_strided(
        elements[storage.start + offset :],
        size,
        tuple(s * elements.itemsize for s in steps),
        writeable=False,
    )


def read_torch(data: bytes) -> list[Part]:
    """The state dicts of a PyTorch file: dictionaries with a tensor under a key that is text.

    Raises:
        CheckpointError: It is none, or damaged, or has an instruction that files of weights do not
            have.
    """
    content, read = (_read_zip if data.startswith(ZIP_START) else _read_legacy)(data)
    elements = functools.cache(read)

    def make(tensor: _Tensor) -> np.ndarray:
        return _array(tensor, elements(tensor.storage.key))

    parts = []
    for key, (tensors, others, _) in _tables(content).items():
        if tensors:
            makers = {name: functools.partial(make, one) for name, one in tensors.items()}
            parts.append(Part(key, Arrays(makers), others))
    if not parts:
        raise CheckpointError(f"it holds no mapping of names to tensors, but {_what(content)}")
    return parts


def _what(content: object) -> str:
    if type(content) is not Thing:
        return f"{type(content).__name__.lstrip('_').lower()}"
    if content.of != "dict":
        return f"an object of {content.of!r:.80}: save its state_dict() instead"
    keys = [f"{key!r:.40}" for key, _ in content.entries if type(key) is str]
    return f"a dictionary with the keys {', '.join(keys[:10])}" if keys else "a dictionary"


class _Table(NamedTuple):
    tensors: Mapping[str, _Tensor]
    others: Mapping[str, str]
    tables: Mapping[str, Thing]


def _tables(content: object) -> dict[str, _Table]:
    """All dictionaries within a file by their keys, those that hold others before these."""
    if type(content) in (list, tuple):  # and not a tensor, of which nothing is checked yet
        listed: Any = content
        content = Thing("dict", [(str(i), one) for i, one in enumerate(listed[:_MOST_LISTED])])
    if not isinstance(content, Thing):
        return {}
    sorted_out: dict[int, _Table] = {}
    found: dict[str, _Table] = {}
    waiting: list[tuple[str, Thing, int]] = [("", content, 0)]
    while waiting:
        key, thing, depth = waiting.pop()
        if id(thing) not in sorted_out:
            sorted_out[id(thing)] = _sort_out(thing)
        found[key] = table = sorted_out[id(thing)]
        if len(found) + len(waiting) + len(table.tables) > _MOST_PARTS:
            raise CheckpointError(f"more than {_MOST_PARTS} dictionaries within one another")
        if depth < _MOST_NESTED:
            inner = [(f"{key}/{k}" if key else k, t, depth + 1) for k, t in table.tables.items()]
            waiting += reversed(inner)
    return found


def _sort_out(thing: Thing) -> _Table:
    tensors: dict[str, _Tensor] = {}
    others: dict[str, str] = {}
    tables: dict[str, Thing] = {}
    # Of one key given twice the last counts.
    for key, value in {key: one for key, one in thing.entries if type(key) is str}.items():
        if isinstance(value, _Tensor):
            tensors[key] = value
        elif isinstance(value, Thing) and value.of.startswith("torch."):
            others[key] = value.of
        elif isinstance(value, Thing) and len(key) <= _LONGEST_KEY:
            tables[key] = value
    return _Table(tensors, others, tables)


def _read_zip(data: bytes) -> tuple[object, Callable[[str], np.ndarray]]:
    archive = Archive(data)
    pickles = [n for n in archive if n == "data.pkl" or re.fullmatch(r"[^/]+/data\.pkl", n)]
    if len(pickles) != 1:
        raise CheckpointError("the archive is not one of PyTorch: it has no single data.pkl")
    prefix = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(f"{prefix}code/") for name in archive):
        raise CheckpointError("it is a TorchScript program: save the network's state_dict()")
    order = bytes(archive.get(f"{prefix}byteorder", b"little"))
    if order not in (b"little", b"big"):
        raise CheckpointError(f"unknown byte order {order[:20]!r}")
    storages: dict[str, _Storage] = {}
    content = _unpickle(io.BytesIO(archive[pickles[0]]), storages)

    def read(key: str) -> np.ndarray:
        name = f"{prefix}data/{key}"
        if name not in archive:
            raise CheckpointError(f"the archive has no {name!r:.80}")
        return _elements(archive[name], storages[key], "<" if order == b"little" else ">")

    return content, read


def _read_legacy(data: bytes) -> tuple[object, Callable[[str], np.ndarray]]:
    stream, storages = io.BytesIO(data), dict[str, _Storage]()
    try:
        magic = _unpickle(stream, storages)
    except (CheckpointError, ValueError) as error:
        if data.startswith(_PICKLE_START):
            raise
        raise CheckpointError(
            "no file of weights: these are .safetensors, .npz, .msgpack, and PyTorch's by any "
            f"other suffix ({error})"
        ) from error
    if magic != _LEGACY_MAGIC:
        raise CheckpointError(
            "not a PyTorch checkpoint, but a pickle of Python's own (of Haiku, or NumPy's arrays): "
            "load it where it was made and write its arrays with numpy.savez"
        )
    if _unpickle(stream, storages) != _LEGACY_PROTOCOL:
        raise CheckpointError(f"not of format version {_LEGACY_PROTOCOL}")
    _unpickle(stream, storages)  # sizes of C types on the machine that wrote it
    content = _unpickle(stream, storages)
    keys = _unpickle(stream, storages)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise CheckpointError("no list of storages")
    if sorted(keys) != sorted(storages):
        raise CheckpointError("its list of storages is not that of its tensors")
    places: dict[str, slice] = {}
    view, position = memoryview(data), stream.tell()
    for key in keys:
        # Count and elements are little-endian whatever the machine, says torch/csrc/serialization.
        count = int.from_bytes(view[position : position + 8], "little")
        if count != storages[key].length:
            raise CheckpointError(
                f"storage {key!r:.80} has {count} elements, expected {storages[key].length}"
            )
        start = position + 8
        position = start + count * _itemsize(storages[key])
        if position > len(data):
            raise CheckpointError(f"truncated within storage {key!r:.80}")
        places[key] = slice(start, position)
    return content, lambda key: _elements(view[places[key]], storages[key], "<")
