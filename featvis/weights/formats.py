"""The formats of files of weights, read from memory without running anything.

Safetensors, NumPy's archives and Flax's MessagePack hold arrays and nothing else. A `.pth` file is
a pickle, which is a program: `featvis.weights.pickles` reads it as data. Both of PyTorch's formats
are read, the zip archive of PyTorch ≥ 1.6 and the earlier stream of pickles.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from featvis.weights.archives import Archive
from featvis.weights.parts import RAW_TYPES, Part, values_of
from featvis.weights.torch_format import is_whole

_SAFETENSORS_TYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "bf16",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "bool",
}


def read_safetensors(data: bytes) -> list[Part]:
    """The tensors of a safetensors file."""
    from safetensors import deserialize

    # Checks every length and offset of the header; its tensors come in no order.
    tensors = dict(deserialize(data))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found = {}
    for name in header:
        if name in tensors:
            code = tensors[name]["dtype"]
            if code not in _SAFETENSORS_TYPES:
                known = ", ".join(_SAFETENSORS_TYPES)
                raise ValueError(f"{name!r:.80} has elements of type {code}; expected {known}")
            values = values_of(tensors[name]["data"], _SAFETENSORS_TYPES[code])
            found[name] = values.reshape(tensors[name]["shape"])
    return [Part("", found)]


# Numpy reads no longer one.
_MOST_NPY_HEADER = 2**14


def read_npz(data: bytes) -> list[Part]:
    """The arrays of an `.npz` archive."""
    archive = Archive(data)
    found = {}
    for member in archive:
        name = member.removesuffix(".npy")
        if name == member:
            raise ValueError(f"it holds {name!r:.80}, which is not an array")
        shown = name if name.isprintable() else ascii(name)
        found[name] = _array_of_npy(shown[:80], archive[member])
    return [Part("", found)]


def _array_of_npy(shown: str, data: bytes | memoryview) -> np.ndarray:
    """The array of a `.npy` file, a view of its bytes: nothing is allocated for a false shape."""
    stream = io.BytesIO(data[:_MOST_NPY_HEADER])
    version = np.lib.format.read_magic(stream)
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in headers:
        raise ValueError(f"{shown} is of format version {version}")
    shape, columns_first, kind = headers[version](stream)
    if not all(map(is_whole, shape)):
        raise ValueError(f"{shown} is of shape {shape}")
    # What numpy writes of a bfloat16, which it does not know: two bytes.
    plain = kind.names is None and kind.subdtype is None
    code = "bf16" if kind.kind == "V" and kind.itemsize == 2 and plain else kind.str[1:]
    if kind.kind not in "biuf" and code != "bf16":
        raise ValueError(f"{shown} has elements of type {kind}; expected numbers")
    start, count = stream.tell(), math.prod(shape)
    if start + count * kind.itemsize > len(data):
        raise ValueError(f"{shown} is truncated")
    raw = memoryview(data)[start : start + count * kind.itemsize]
    code = "bool" if kind.kind == "b" else code
    values = values_of(raw, code, ">" if kind.str[0] == ">" else "<")
    return values.reshape(shape, order="F" if columns_first else "C")


#: Dictionaries and their entries in a file of Flax.
_MOST_NODES = 2**18

_MOST_ENTRIES = 2**12

_MSGPACK_ARRAY, _MSGPACK_SCALAR = 1, 3


def read_msgpack(data: bytes) -> list[Part]:
    """The arrays of what `flax.serialization.to_bytes` wrote, by their keys joined by slashes."""
    import msgpack

    nodes = 0

    def table(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal nodes
        # A list where msgpack is compiled, and an iterator where it is Python.
        entries = list(pairs)
        nodes += 1 + len(entries)
        if nodes > _MOST_NODES:
            raise ValueError(f"a file of more than {_MOST_NODES} entries")
        for name, _ in entries:
            if not isinstance(name, str):  # earlier versions let it pass
                raise ValueError(f"the key {name!r:.40} is no text")
        return dict(entries)

    def extension(code: int, packed: bytes) -> np.ndarray | None:
        if code not in (_MSGPACK_ARRAY, _MSGPACK_SCALAR):
            return None
        shape, kind, raw = msgpack.unpackb(packed, max_array_len=64, raw=False)
        if not all(map(is_whole, shape)):
            raise ValueError(f"an array of shape {shape}")
        code_of = "bf16" if kind == "bfloat16" else "bool" if kind == "bool" else np.dtype(kind).str
        if code_of not in RAW_TYPES and np.dtype(kind).kind not in "iuf":
            raise ValueError(f"an array of type {kind!r:.80}; expected numbers")
        return values_of(raw, code_of.lstrip("<>|=")).reshape(shape)

    content = msgpack.unpackb(
        data,
        raw=False,
        object_pairs_hook=table,
        ext_hook=extension,
        max_map_len=_MOST_ENTRIES,
        max_array_len=_MOST_ENTRIES,
    )
    if not isinstance(content, dict):
        raise ValueError("it holds no dictionary")
    found: dict[str, np.ndarray] = {}
    waiting = [("", content)]
    while waiting:
        path, inner = waiting.pop()
        if "__msgpack_chunked_array__" in inner:
            raise ValueError(f"{path!r:.80} is an array of more than 1 GiB, in pieces")
        deeper = []
        for name, value in inner.items():
            where = f"{path}/{name}" if path else name
            if isinstance(value, np.ndarray):
                found[where] = value
            elif isinstance(value, dict):
                deeper.append((where, value))
        waiting += reversed(deeper)
    return [Part("", found)]


def foreign(name: str, start: bytes) -> str | None:
    """What a file is that is not read, and what to do with it; None where it is none of these.

    Args:
        name: Its name, in lower case.
        start: Its first bytes.
    """
    export = "and export the weights with numpy.savez or safetensors"
    if start.startswith(b"\x89HDF\r\n\x1a\n") or name.endswith((".h5", ".hdf5", ".keras")):
        return f"a file of Keras (HDF5): load it with Keras {export}"
    if name.endswith((".onnx", ".tflite", ".pb", ".gguf", ".caffemodel", ".mat")):
        return f"a file of another framework: load it there {export}"
    if name.endswith((".pt2", ".mlmodel")):
        return "a program of PyTorch: save the network's state_dict() instead"
    if start.startswith(b"\x93NUMPY"):
        return "a single array of NumPy: give several by name, with numpy.savez"
    return None
