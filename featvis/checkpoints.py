"""Weight files read with numpy alone, without ever running what they contain.

Safetensors and NumPy's archives hold arrays and nothing else. PyTorch's files do not:

A `.pth` file is a pickle, and unpickling is running a program. Here the program may name only
the few globals that a file of tensors needs; anything else ends in a `CheckpointError`. Both
formats are read: the zip archive of PyTorch ≥ 1.6 and the earlier stream of pickles.
"""

import hashlib
import io
import json
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from featvis.errors import CheckpointError

__all__ = [
    "Layout",
    "Rule",
    "assemble",
    "convert",
    "describe_differences",
    "file_digest",
    "from_oihw",
    "read_checkpoint",
    "read_weights",
]

_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# Bool is read as bytes and compared with zero: a numpy bool that is neither 0 nor 1 misbehaves.
_STORAGE_TYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "bool",
}
_RAW_TYPES = {"bf16": "u2", "bool": "u1"}

_SAFETENSORS_TYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "bf16",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "bool",
}

# An .npz may be compressed. Trained weights hardly shrink; an archive that unpacks to more than
# this many times its size, and to more than this many bytes, is no file of weights.
_MOST_EXPANSION = 20
_MOST_UNPACKED = 2**24

# What torch.save writes. The rest is not needed, and some of it (a memo index of four billion)
# makes the unpickler allocate without bound.
_OPCODES = frozenset(
    """
    PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 INT LONG LONG1
    FLOAT BINFLOAT BINUNICODE SHORT_BINUNICODE UNICODE BINSTRING SHORT_BINSTRING STRING BINBYTES
    SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT DICT
    SETITEM SETITEMS BINGET LONG_BINGET GET BINPUT LONG_BINPUT PUT MEMOIZE GLOBAL STACK_GLOBAL
    REDUCE BUILD BINPERSID
    """.split()  # noqa: SIM905
)

#: Lines of a list of differences that are shown.
_SHOWN = 30
# A tensor's description is a tuple of tuples.
_MOST_NESTED = 50


@dataclass(frozen=True, slots=True)
class _StorageType:
    code: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    code: str
    start: int  # of a view into the stored elements; 0 but in the oldest files
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _RebuildTensor:
    """Stands in for `torch._utils._rebuild_tensor*`; as an instance it has nothing to overwrite."""

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise CheckpointError("a tensor without a storage")
        if not _whole(offset) or not _all_whole(size) or not _all_whole(stride):
            raise CheckpointError("a tensor whose offset, size or stride is not whole numbers")
        return _Tensor(storage, offset, size, stride)


@dataclass(frozen=True, slots=True)
class _RebuildParameter:
    """Stands in for `torch._utils._rebuild_parameter`: the tensor of a trained parameter."""

    def __call__(self, tensor: Any, *rest: Any) -> _Tensor:
        if not isinstance(tensor, _Tensor):
            raise CheckpointError("a parameter that is not a tensor")
        return tensor


_GLOBALS: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{("torch", name): _StorageType(code) for name, code in _STORAGE_TYPES.items()},
}


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _all_whole(values: object) -> bool:
    return type(values) is tuple and len(values) <= 32 and all(map(_whole, values))


class _Unpickler(pickle.Unpickler):
    """Knows the globals of a file of tensors and nothing else."""

    storages: dict[str, _Storage]

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise CheckpointError(
                f"it asks for {module}.{name}, which a file of weights does not need; not loaded"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise CheckpointError("a storage in an unknown notation")
        _, kind, key, _, count = pid[:5]
        view = pid[5] if len(pid) == 6 else None
        if type(kind) is not _StorageType or type(key) is not str or not _whole(count):
            raise CheckpointError("a storage in an unknown notation")
        whole = _Storage(key, kind.code, 0, count)
        if self.storages.setdefault(key, whole) != whole:
            raise CheckpointError(f"storage {key} is declared twice, differently")
        if view is None:
            return whole
        if type(view) is not tuple or len(view) != 3 or not _all_whole(view[1:]):
            raise CheckpointError("a view of a storage in an unknown notation")
        return _Storage(key, kind.code, view[1], view[2])


class _Extent(NamedTuple):
    """How far a tuple reaches when it is hashed; anything else counts as one object."""

    objects: int = 1
    depth: int = 0


_OBJECT = _Extent()


def _scan(stream: io.BytesIO) -> None:
    """Refuses a pickle that could take more time or memory to load than its length warrants.

    A dictionary hashes its keys, and the hash of a tuple goes through all that is in it: without
    end where tuples share their parts, and out of the stack where they are nested deeply.
    """
    length = len(stream.getbuffer())
    shareable = length
    stack: list[_Extent] = []
    marks: list[int] = []  # places in the stack
    memo: dict[int, _Extent] = {}
    for opcode, argument, position in pickletools.genops(stream):
        name, before = opcode.name, opcode.stack_before
        if name not in _OPCODES:
            raise CheckpointError(f"pickle instruction {name} at byte {position}")
        if name == "MARK":
            marks.append(len(stack))
            continue
        # A slice down to a mark is of any length; the rest is listed one by one.
        first = len(stack) - len(before)
        if pickletools.markobject in before:
            first = marks.pop() - before.index(pickletools.markobject)
        stores = name in ("PUT", "BINPUT", "LONG_BINPUT")
        # These are listed as needing nothing, and store what lies on top.
        if first - stores < (marks[-1] if marks else 0):
            raise CheckpointError(f"pickle instruction {name} at byte {position} without operands")
        items = stack[first:]
        if stores:
            if int(argument) > max(length, 255):  # type: ignore[arg-type]
                raise CheckpointError(f"memo index {argument} at byte {position}")
            memo[int(argument)] = stack[-1]  # type: ignore[arg-type]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            found = memo[int(argument)]  # type: ignore[arg-type]
            shareable -= found.objects
            if shareable < 0:
                raise CheckpointError(f"tuples that share their parts, at byte {position}")
            stack.append(found)
        else:
            del stack[first:]
            if name in ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
                depth = 1 + max((item.depth for item in items), default=0)
                if depth > _MOST_NESTED:
                    raise CheckpointError(f"tuples nested too deeply, at byte {position}")
                stack.append(_Extent(1 + sum(item.objects for item in items), depth))
            else:
                stack += [_OBJECT] * len(opcode.stack_after)


def _unpickle(stream: io.BytesIO, storages: dict[str, _Storage]) -> Any:
    """Reads one pickle at the stream's position, leaving the stream behind it."""
    start = stream.tell()
    _scan(stream)
    stream.seek(start)
    unpickler = _Unpickler(stream, encoding="utf-8")
    unpickler.storages = storages
    return unpickler.load()


def _elements(raw: bytes | memoryview, storage: _Storage, byteorder: str) -> np.ndarray:
    """The stored elements as a flat, read-only array; bfloat16 widened to float32."""
    kind = np.dtype(byteorder + _RAW_TYPES.get(storage.code, storage.code))
    if len(raw) != storage.count * kind.itemsize:
        raise CheckpointError(
            f"storage {storage.key} holds {len(raw)} bytes, "
            f"{storage.count} elements of {kind.itemsize} bytes were announced"
        )
    values = np.frombuffer(raw, kind)
    if storage.code == "bf16":
        values = _widen(values)
    elif storage.code == "bool":
        values = values != 0
    else:
        values = values.astype(kind.newbyteorder("="), copy=False)
    values.flags.writeable = False
    return values


def _widen(values: np.ndarray) -> np.ndarray:
    """Float32 of bfloat16, which is its upper half."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _array(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    storage = tensor.storage
    if storage.start + storage.count > elements.size:
        raise CheckpointError(f"a view beyond the end of storage {storage.key}")
    if len(tensor.size) != len(tensor.stride):
        raise CheckpointError("a tensor whose size and stride differ in length")
    if 0 in tensor.size:
        return np.empty(tensor.size, elements.dtype)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.size, tensor.stride, strict=True))
    # The second condition refuses a stride of 0, by which few bytes pose as any number.
    if last >= storage.count or math.prod(tensor.size) > storage.count:
        raise CheckpointError(
            f"a tensor of size {tensor.size}, stride {tensor.stride} and offset {tensor.offset} "
            f"reaches outside its storage of {storage.count} elements"
        )
    return np.lib.stride_tricks.as_strided(
        elements[storage.start + tensor.offset :],
        tensor.size,
        tuple(s * elements.itemsize for s in tensor.stride),
        writeable=False,
    )


def _read_zip(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        budget = len(data)

        def read(name: str) -> bytes:
            nonlocal budget
            entry = entries.get(name)
            if entry is None:
                raise CheckpointError(f"the archive has no {name}")
            # Entries may be compressed or overlap, so that a small file unpacks to a huge one.
            budget -= entry.file_size
            if entry.compress_type != zipfile.ZIP_STORED or budget < 0:
                raise CheckpointError(f"{name} is larger than the archive it is in")
            return archive.read(entry)

        pickles = [n for n in entries if n == "data.pkl" or re.fullmatch(r"[^/]+/data\.pkl", n)]
        if len(pickles) != 1:
            raise CheckpointError("the archive is not one of PyTorch: it has no single data.pkl")
        prefix = pickles[0].removesuffix("data.pkl")
        order = read(prefix + "byteorder") if prefix + "byteorder" in entries else b"little"
        if order not in (b"little", b"big"):
            raise CheckpointError(f"unknown byte order {order[:20]!r}")
        storages: dict[str, _Storage] = {}
        content = _unpickle(io.BytesIO(read(pickles[0])), storages)
        sign = "<" if order == b"little" else ">"
        return content, {
            key: _elements(read(f"{prefix}data/{key}"), storage, sign)
            for key, storage in storages.items()
        }


def _read_legacy(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    stream, storages = io.BytesIO(data), dict[str, _Storage]()
    if _unpickle(stream, storages) != _LEGACY_MAGIC:
        raise CheckpointError("not a PyTorch checkpoint")
    if _unpickle(stream, storages) != _LEGACY_PROTOCOL:
        # Not what it is: the text of nested lists may be without end.
        raise CheckpointError(f"not of format version {_LEGACY_PROTOCOL}")
    _unpickle(stream, storages)  # sizes of C types on the machine that wrote it
    content = _unpickle(stream, storages)
    keys = _unpickle(stream, storages)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise CheckpointError("no list of storages")
    if sorted(keys) != sorted(storages):
        raise CheckpointError("its list of storages is not that of its tensors")
    elements = {}
    view, position = memoryview(data), stream.tell()
    for key in keys:
        storage = storages[key]
        # Count and elements are little-endian whatever the machine, says torch/csrc/serialization.
        count = int.from_bytes(view[position : position + 8], "little")
        if count != storage.count:
            raise CheckpointError(f"storage {key} has {count} elements, expected {storage.count}")
        start = position + 8
        position = start + count * np.dtype(_RAW_TYPES.get(storage.code, storage.code)).itemsize
        elements[key] = _elements(view[start:position], storage, "<")
    return content, elements


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch checkpoint, in either of its formats, without PyTorch.

    Only `collections.OrderedDict`, PyTorch's tensor rebuilding and its storage types are known
    to the reader, so a file cannot make it run anything else.

    Args:
        path: A `.pt`, `.pth` or `.th` file: a mapping of names to tensors, or a mapping
            that has one under the key `state_dict`.

    Returns:
        Read-only arrays by name, in the file's order; bfloat16 is widened to float32.

    Raises:
        CheckpointError: The file cannot be read, is truncated, is not such a checkpoint, asks
            for a forbidden global, or has a tensor that reaches outside its storage.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        content, elements = (_read_zip if data.startswith(_ZIP_START) else _read_legacy)(data)
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
        if not isinstance(content, dict):
            raise CheckpointError("it holds no mapping of names to tensors")
        tensors = {}
        for name, tensor in content.items():
            if type(name) is not str or type(tensor) is not _Tensor:
                raise CheckpointError(f"entry {str(name)[:40]!r} is not a tensor")
            tensors[name] = _array(tensor, elements[tensor.storage.key])
        return tensors
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    # A hostile or damaged pickle makes the unpickler raise nearly anything.
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable PyTorch checkpoint ({type(error).__name__}: {error})"
        ) from error


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a file of weights: `.safetensors`, `.npz`, or a PyTorch checkpoint by any other suffix.

    An archive that would unpack to more than 16 MiB and 20 times its own size is refused.

    Returns:
        Arrays by name, in the file's order; bfloat16 is widened to float32.

    Raises:
        CheckpointError: The file cannot be read, is truncated or is not what its suffix says.
    """
    path = Path(path)
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        return read_checkpoint(path)
    try:
        return reader(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or type(error).__name__})"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable {path.suffix} file, or truncated "
            f"({type(error).__name__}: {error})"
        ) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import deserialize

    data = path.read_bytes()
    # Checks every length and offset of the header; its tensors come in no order.
    tensors = dict(deserialize(data))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {
        name: _safetensor(name, tensors[name]["dtype"], tensors[name]["data"]).reshape(
            tensors[name]["shape"]
        )
        for name in header
        if name in tensors
    }


def _safetensor(name: str, code: str, raw: bytes) -> np.ndarray:
    if code not in _SAFETENSORS_TYPES:
        known = ", ".join(_SAFETENSORS_TYPES)
        raise ValueError(f"{name} has elements of type {code}; expected one of {known}")
    kind = _SAFETENSORS_TYPES[code]
    values = np.frombuffer(raw, "<" + _RAW_TYPES.get(kind, kind))
    if kind == "bf16":
        return _widen(values)
    return values != 0 if kind == "bool" else values


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        most = max(_MOST_UNPACKED, _MOST_EXPANSION * len(data))
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > most:
            raise ValueError(f"it unpacks to {unpacked} bytes, more than {most}")
        tensors = {}
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                raise ValueError(f"it holds {name}, which is not an array")
            with archive.open(entry) as member:
                # No more than announced: what it says of its size need not be true.
                tensors[name] = _array_of_npy(name, member.read(entry.file_size))
        return tensors


def _array_of_npy(name: str, data: bytes) -> np.ndarray:
    """The array of a `.npy` file, a view of its bytes: nothing is allocated for a false shape."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in headers:
        raise ValueError(f"{name} is of format version {version}")
    shape, columns_first, kind = headers[version](stream)
    if kind.kind not in "biuf":
        raise ValueError(f"{name} has elements of type {kind}; expected numbers")
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} is of shape {shape}")
    raw = np.dtype("u1") if kind.kind == "b" else kind
    values = np.frombuffer(data, raw, math.prod(shape), stream.tell())
    values = values != 0 if kind.kind == "b" else values.astype(kind.newbyteorder("="), copy=False)
    return values.reshape(shape, order="F" if columns_first else "C")


def from_oihw(kernel: np.ndarray) -> np.ndarray:
    """A convolution's kernel as PyTorch keeps it, (d, c, h, w), to (h, w, c, d)."""
    return kernel.transpose(2, 3, 1, 0)


class Rule(NamedTuple):
    r"""Where a checkpoint keeps the parameters whose path matches a pattern.

    Attributes:
        path: Regular expression for the whole of a parameter's path, as `block(\d+)/kernel`.
        source: Name in the checkpoint, with `\1` for the pattern's groups.
        transform: From the checkpoint's array to the parameter.
    """

    path: str
    source: str
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray


@dataclass(frozen=True)
class Layout:
    """Where one publisher's checkpoints keep the parameters of an architecture.

    Attributes:
        name: The publisher: torchvision, timm, transformers.
        rules: Tried in turn for each parameter.
        ignore: Regular expression for names in the checkpoint that nothing needs.
        folded: Whether batch normalisation is folded into the kernels and biases already.
    """

    name: str
    rules: tuple[Rule, ...]
    ignore: str = r"(?!)"
    folded: bool = False


def assemble(
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    layout: Layout,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Maps the tensors of a checkpoint to the parameters of an architecture.

    Args:
        tensors: What `read_weights` returned.
        expected: Shapes of the parameters by path.
        layout: Where the checkpoint keeps them.

    Returns:
        Arrays by path, in the order of `expected`; and one line per tensor that is missing (`-`)
        or not expected (`+`), of which one of a wrong shape is both. The arrays are good only
        where there is no such line.
    """
    wrong: list[str] = []
    found: dict[str, np.ndarray] = {}
    used: set[str] = set()
    for path, shape in expected.items():
        rule = _source(path, layout.rules)
        if rule is None:
            wrong.append(f"- no rule says where {path} {shape} is")
            continue
        source, transform = rule
        if source not in tensors:
            wrong.append(f"- {source} for {path} {shape}")
            continue
        used.add(source)
        array = tensors[source]
        try:
            found[path] = transform(array)
        except (ValueError, IndexError):  # the transform is for another number of axes
            found[path] = array
        # A transform of the user's own may raise anything.
        except Exception as error:
            raise CheckpointError(
                f"the rule for {path} fails on {source} {array.shape}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if found[path].shape != shape:
            wrong += [f"- {source} for {path} {shape}", f"+ {source} {array.shape}"]
    return found, wrong + _unexpected(tensors, used, layout.ignore)


def describe_differences(wrong: Sequence[str]) -> str:
    """The differences that `assemble` found as the end of a message: a line each, the first 30."""
    shown = [*wrong[:_SHOWN], *([f"… and {len(wrong) - _SHOWN} more"] if wrong[_SHOWN:] else [])]
    return "(- expected, + in the checkpoint):\n  " + "\n  ".join(shown)


def convert(path: str | Path, like: Any, rules: Sequence[Rule], *, ignore: str = r"(?!)") -> Any:
    """Reads the weights of one's own network from a checkpoint that was trained elsewhere.

    Args:
        path: A file that `read_weights` reads, of PyTorch say.
        like: The parameters as the network has them, a pytree of arrays such as Linen's variables
            or `nnx.state(module)`; a parameter's path is its keys with slashes between them, as
            `blocks/0/conv1/kernel`.
        rules: Tried in turn for each parameter: where the checkpoint keeps it.
        ignore: Regular expression for names in the checkpoint that nothing needs.

    Returns:
        The same pytree with the checkpoint's values in the types of `like`.

    Raises:
        CheckpointError: The file cannot be read, a parameter has no rule, or tensors are missing,
            left over or of another shape: a -/+ list of them.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    paths = [_parameter_path(keys) for keys, _ in leaves]
    expected = {name: tuple(leaf.shape) for name, (_, leaf) in zip(paths, leaves, strict=True)}
    layout = Layout("these rules", tuple(rules), ignore)
    found, wrong = assemble(read_weights(path), expected, layout)
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} differences {describe_differences(wrong)}")
    arrays = [jnp.asarray(found[n], leaf.dtype) for n, (_, leaf) in zip(paths, leaves, strict=True)]
    return jax.tree.unflatten(tree, arrays)


def _parameter_path(keys: Sequence[Any]) -> str:
    last = keys[-1] if keys else None
    if isinstance(last, jax.tree_util.GetAttrKey) and last.name == "value":
        keys = keys[:-1]  # the value of a variable of Flax NNX, whose path is the variable's
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def _source(
    path: str, rules: Iterable[Rule]
) -> tuple[str, Callable[[np.ndarray], np.ndarray]] | None:
    for rule in rules:
        try:
            if match := re.fullmatch(rule.path, path):
                return match.expand(rule.source), rule.transform
        except (re.error, IndexError) as error:
            raise CheckpointError(
                f"the rule {rule.path!r} to {rule.source!r} is no regular expression: {error}"
            ) from error
    return None


def _unexpected(tensors: Mapping[str, np.ndarray], used: set[str], ignore: str) -> list[str]:
    return [
        f"+ {name} {array.shape}"
        for name, array in tensors.items()
        if name not in used and not re.fullmatch(ignore, name)
    ]
