"""The manifest: all that is needed to make a picture again, as JSON in the PNG and beside it.

It is a list of runs, each going on from the one before, and the arrays that they name by digest:

    {"format": 3, "runs": [{...}, ...], "member": 2, "arrays": {"<SHA-256>": {...}, ...}}

The first run is whole, each other is what differs from the one before it; `member` is the place of
a picture that is one of a batch. Files keep it in two parts, so that a picture stays small and
opens everywhere: the PNG and the JSON have the runs; a file in the same folder, which all pictures
of the same arrays share, has the arrays, and runs that are too long for a picture. That file is
called `featvis-<digest>.safetensors`, with the digest that is `shared` in the PNG and the JSON.

What comes from a file is not trusted. Reading it takes at most 100 MB and a few seconds, beyond
some four times the size of the shared file, in which nothing is compressed; and every field is
checked before it is used.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import reprlib
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
import safetensors
import safetensors.numpy

from featvis.errors import InputError, printable
from featvis.files import open_file, write_file
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.redirect import leak_of
from featvis.targets import Target, named_arrays
from featvis.transforms import Transform
from objectives import NamedArray, Objective

#: The layout of the manifest; a reader refuses one it does not know.
FORMAT = 3
#: The PNG text chunk that holds it.
KEYWORD = "featvis"
#: The largest numbers of a run: what `synthesize` takes, `replay` makes again.
LARGEST: Mapping[str, int] = {
    "steps": 10**6,
    "batch": 2**16,
    "draws": 2**10,
    "patience": 2**31 - 1,
    "seed": 2**32 - 1,
}
#: Bytes of runs in a picture; longer ones are shared, or each picture of a batch had them all.
_RUNS_INSIDE = 2**16
#: Bytes of a text chunk, unpacked: the most that Pillow reads.
_LARGEST_CHUNK = 2**20
_LARGEST_JSON = 2**23
#: Bytes of the table of contents of a shared file.
_LARGEST_TABLE = 2**20
#: Brackets, commas, quotes and backslashes of a JSON text: each can become 100 bytes of memory.
_MOST_MARKS = 2**19
_DEEPEST = 32
_MOST_CHUNKS = 10**5
_MOST_TARGETS = 256
_PACKAGES = ("featvis", "jax", "jaxlib", "optax", "flax", "numpy", "pillow")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def versions() -> dict[str, str]:
    """Versions of what a picture depends on to the bit: packages, Python and the processor."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    device = jax.devices()[0]
    return {
        **found,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform} {device.device_kind}",
        "processor": _processor(),
    }


def _processor() -> str:
    """The processor's model: compiled code differs between them in its last bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe_run(
    *,
    model: Model,
    objective: Objective,
    parameterization: Parameterization,
    transform: Transform,
    optimizer: Any,
    seed: int | Sequence[int],
    batch: int,
    steps: int,
    draws: int,
    patience: int | None,
    init: Any,
    before: Mapping[str, Any] | None,
    snapshots: Sequence[int],
) -> dict[str, Any]:
    """The manifest of a run, plain data that `json` writes.

    `steps` are those taken: a run stopped early is made again by as many steps. What has no text
    form (an optax transformation that was not given as text) is None, and `replay` asks for it.
    `before` is the manifest of the run that this one goes on from.
    """
    arrays: dict[str, Any] = {} if before is None else dict(before["arrays"])

    def keep(array: Any) -> str:
        digest, packed = pack_array(array)
        arrays.setdefault(digest, packed)
        return digest

    def keep_named(array: NamedArray) -> dict[str, Any]:
        # Of another network than the run's, it cannot be computed anew.
        if isinstance(array, Target) and array.digest == model.digest:
            return {"layer": array.layer, "images": keep(array.images)}
        return {"values": keep(array)}

    run: dict[str, Any] = {
        "model": {
            "name": model.name,
            "digest": model.digest,
            "origin": model.origin,
            "leak": leak_of(model),
        },
        "objective": str(objective),
        "targets": {name: keep_named(array) for name, array in named_arrays(objective).items()},
        "parameterization": repr(parameterization),
        "transform": repr(transform),
        "optimizer": optimizer if isinstance(optimizer, str) else None,
        "seed": int(seed) if isinstance(seed, (int, np.integer)) else [int(s) for s in seed],
        "batch": batch,
        "steps": steps,
        "draws": int(draws),
        "patience": None if patience is None else int(patience),
        "snapshots": list(snapshots),
        "init": None,
        "member": None,  # the one image of this run that the next one goes on from
        "versions": versions(),
    }
    if isinstance(init, (np.ndarray, jax.Array)):
        run["init"] = {"image": keep(init)}
    elif init is not None:
        leaves = jax.tree_util.tree_leaves_with_path(init)
        run["init"] = {"params": {_key(path): keep(leaf) for path, leaf in leaves}}
    runs = [run]
    if before is not None:
        *others, last = before["runs"]
        earlier = [*others, {**last, "member": before.get("member")}]
        whole = runs_of({"runs": earlier})[-1]
        differs = {name: value for name, value in run.items() if whole[name] != value}
        runs = [*earlier, differs]
    return {"format": FORMAT, "runs": runs, "arrays": arrays}


def runs_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All runs of a manifest, each of them whole, the first one first."""
    runs: list[dict[str, Any]] = []
    for run in manifest["runs"]:
        runs.append({**runs[-1], **run} if runs else dict(run))
    return runs


def last_run(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The whole run that made the picture, after those that it went on from."""
    return runs_of(manifest)[-1]


# ---- arrays --------------------------------------------------------------------------------


def _key(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def pack_array(array: Any) -> tuple[str, dict[str, Any]]:
    """The digest of an array and its plain data, float32 to the bit."""
    plain = np.asarray(array, np.float32)
    with np.errstate(invalid="ignore"):  # a NaN
        levels = np.round(np.clip(plain, 0, 1) * 255).astype(np.uint8)
    # An image that was read from a file of 8 bits is kept as such, in a quarter of the space.
    return _pack(levels if np.array_equal(_from_levels(levels), plain) else plain)


def _pack(array: np.ndarray) -> tuple[str, dict[str, Any]]:
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return _digest(array), {"shape": list(array.shape), str(array.dtype): data}


def _digest(array: np.ndarray) -> str:
    seal = hashlib.sha256(f"{array.dtype} {list(array.shape)} ".encode())
    seal.update(array.tobytes())
    return seal.hexdigest()


def _from_levels(levels: np.ndarray) -> np.ndarray:
    return levels.astype(np.float32) / 255


def _unpack(digest: str, packed: Any) -> np.ndarray:
    """An array as it is kept, uint8 or float32.

    Raises:
        InputError: damaged.
    """
    try:
        kind = "uint8" if "uint8" in packed else "float32"
        raw = base64.b64decode(packed[kind], validate=True)
        shape = list(packed["shape"])
        if not all(_is_whole(length, 0, 2**40) for length in shape):
            raise ValueError(f"its shape is {shape}")
        array = np.frombuffer(raw, kind).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the manifest holds a damaged array: {printable(error)}") from error
    if _digest(array) != digest:
        raise InputError(f"the manifest holds a damaged array: {printable(digest)} is another's")
    return array


def array_of(manifest: Mapping[str, Any], digest: str) -> np.ndarray:
    """An array that a run of a manifest names, float32.

    Raises:
        InputError: it is missing or damaged.
    """
    if digest not in manifest["arrays"]:
        shared = _shared_name(manifest) if "shared" in manifest else "the shared file"
        raise InputError(
            f"the array {digest[:12]}, which the picture was made from, is not there: put {shared} "
            "into the folder of the picture"
        )
    array = _unpack(digest, manifest["arrays"][digest])
    return _from_levels(array) if array.dtype == np.uint8 else array


def unpack_init(
    manifest: Mapping[str, Any], run: Mapping[str, Any], parameterization: Parameterization
) -> Any:
    """What a run of a manifest started from: None, an image or several, or parameters.

    Raises:
        InputError: damaged, or parameters of another parameterization.
    """
    packed = run["init"]
    if packed is None:
        return None
    if "image" in packed:
        return array_of(manifest, packed["image"])
    wanted = jax.eval_shape(parameterization.init, jax.random.key(0))
    paths = [_key(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted)]
    if set(packed["params"]) != set(paths):
        raise InputError(
            f"the manifest's parameters are not those of {parameterization}: expected {paths}"
        )
    leaves = [array_of(manifest, packed["params"][path]) for path in paths]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


# ---- writing -------------------------------------------------------------------------------


def record_of(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a picture in a folder and its JSON hold; the rest is written into the shared file.

    Raises:
        OutputError: it cannot be written.
    """
    record = {name: value for name, value in manifest.items() if name not in ("arrays", "shared")}
    arrays = dict(manifest["arrays"])
    text = json.dumps(record["runs"]).encode()
    if len(text) > _RUNS_INSIDE:
        digest, packed = _pack(np.frombuffer(text, np.uint8))
        arrays[digest], record["runs"] = packed, digest
    if arrays:
        record["shared"] = hashlib.sha256("".join(sorted(arrays)).encode()).hexdigest()
        path = folder / _shared_name(record)
        if not _has_all(path, arrays):
            unpacked = {digest: _unpack(digest, packed) for digest, packed in arrays.items()}
            write_file(path, safetensors.numpy.save(unpacked))
    return record


def _shared_name(record: Mapping[str, Any]) -> str:
    return f"featvis-{record['shared'][:32]}.safetensors"


def _has_all(path: Path, arrays: Mapping[str, Any]) -> bool:
    """Whether a file is a whole one of these arrays; what is in them is checked by its reader."""
    try:
        with open_file(path), safetensors.safe_open(path, "numpy") as file:
            return set(file.keys()) == set(arrays)
    except (InputError, OSError, safetensors.SafetensorError):
        return False


# ---- reading -------------------------------------------------------------------------------


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a PNG that featvis wrote, or of the JSON beside it.

    Where the shared file is not in the folder its arrays are left out, and `replay` asks for it.

    Raises:
        InputError: no such file, not one of ours, damaged, or of a layout from another version.
    """
    path = Path(path)
    shown = printable(path)
    with open_file(path) as file:
        try:
            if file.read(len(_PNG)) == _PNG:
                text = _png_text(file, shown)
            else:
                file.seek(0)
                text = file.read(_LARGEST_JSON + 1)
        except OSError as error:
            raise InputError(f"cannot read {shown}: {printable(error.strerror)}") from error
    if len(text) > _LARGEST_JSON:
        raise InputError(f"{shown} holds no featvis manifest: it is larger than {_LARGEST_JSON}")
    manifest = _parsed(text, shown)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise InputError(f"{shown} holds no featvis manifest")
    if manifest["format"] != FORMAT:
        raise InputError(
            f"{shown} has a manifest of format {printable(reprlib.repr(manifest['format']), 40)}; "
            f"expected {FORMAT}"
        )
    manifest.pop("result", None)  # the figures, in the JSON
    arrays = manifest.setdefault("arrays", {})
    shared = manifest.get("shared")
    if shared is not None:
        if not _is_digest(shared):
            raise _damaged("shared", "a SHA-256", shared)
        found = _read_shared(path.parent, _shared_name(manifest))
        runs = manifest.get("runs")
        if isinstance(runs, str):
            if runs not in found:
                raise InputError(
                    f"the manifest in {shown} goes on in {_shared_name(manifest)}: put that into "
                    "its folder"
                )
            manifest["runs"] = _parsed(found.pop(runs).tobytes(), shown)
        if isinstance(arrays, dict):
            arrays.update(_pack(array) for array in found.values())
    _check_outline(manifest)
    if all(digest in arrays for run in manifest["runs"] for digest in _named_digests(run)):
        manifest.pop("shared", None)
    return manifest


def _parsed(text: bytes, shown: str) -> Any:
    """The value of a JSON text, after a look at how much there is of it.

    Raises:
        InputError: no JSON, too much structure, or a number that is not finite.
    """
    if sum(text.count(mark) for mark in (b"[", b"{", b",", b'"', b"\\")) > _MOST_MARKS:
        raise InputError(f"{shown} holds no featvis manifest: it has too many parts")
    depth = 0
    for token in re.finditer(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', text, re.DOTALL):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > _DEEPEST:
            raise InputError(f"{shown} holds no featvis manifest: it is nested too deeply")

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(f"{number:.20} is no finite number")
        return float(number)

    try:
        return json.loads(text, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown} holds no featvis manifest: {printable(error)}") from error


_PNG = b"\x89PNG\r\n\x1a\n"


def _png_text(file: BinaryIO, shown: str) -> bytes:
    """The manifest's text chunk of a PNG, after its first bytes; nothing else is unpacked."""
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        name = file.read(min(length, len(KEYWORD) + 1)) if kind == b"iTXt" else b""
        if name != KEYWORD.encode() + b"\0":
            file.seek(length - len(name) + 4, os.SEEK_CUR)
            continue
        if length > _LARGEST_CHUNK:
            raise InputError(f"the manifest in {shown} is larger than {_LARGEST_CHUNK} bytes")
        body = file.read(length - len(name))
        inflate = zlib.decompressobj()
        try:
            if file.read(4) != struct.pack(">I", zlib.crc32(kind + name + body)):
                raise ValueError("its checksum is another")
            # After the keyword: compressed or not, method, language, translated keyword, text.
            text = body[2:].split(b"\0", 2)[2]
            if body[0]:
                text = inflate.decompress(text, _LARGEST_CHUNK)
        except (zlib.error, IndexError, ValueError) as error:
            raise InputError(f"the manifest in {shown} is damaged: {error}") from error
        if inflate.unconsumed_tail:
            raise InputError(f"the manifest in {shown} is larger than {_LARGEST_CHUNK} bytes")
        return text
    raise InputError(f"{shown} is a PNG without a featvis manifest")


def _read_shared(folder: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a shared file by their digests; none where there is no such file."""
    found: dict[str, np.ndarray] = {}
    stem, suffix = os.path.splitext(name)
    # Where another file had its name, it has a number.
    for path in sorted(folder.glob(f"{stem}*{suffix}")):
        try:
            with open_file(path) as file:
                head = file.read(8)
                if int.from_bytes(head, "little") > _LARGEST_TABLE:
                    continue
                arrays = safetensors.numpy.load(head + file.read())
        except Exception:  # a damaged one is as good as none
            continue
        for digest, array in arrays.items():
            if array.dtype in (np.uint8, np.float32) and _digest(array) == digest:
                found[digest] = array
    return found


# ---- checks --------------------------------------------------------------------------------


def check_manifest(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs of a manifest, each of them whole, after every field of them was checked.

    The last one's `member` is the manifest's.

    Raises:
        InputError: a field that is missing, unknown, of another kind or out of its range; an array
            that is not there.
    """
    _check_outline(manifest)
    runs = runs_of(manifest)
    if runs[-1].get("member") is not None:
        raise _damaged("member of the last run", "none", runs[-1]["member"])
    if "member" in runs[-1]:
        runs[-1]["member"] = manifest.get("member")
    for run in runs:
        for name in sorted(set(run) - set(_FIELDS)):
            raise InputError(f"the manifest is damaged: it has a {printable(repr(name), 60)}")
        for name, (expected, fits) in _FIELDS.items():
            if name not in run:
                raise InputError(f"the manifest is damaged: it lacks {name}")
            if not fits(run[name]):
                raise _damaged(name, expected, run[name])
        if any(step > run["steps"] for step in run["snapshots"]):
            raise _damaged("snapshots", f"steps up to {run['steps']}", run["snapshots"])
        for digest in _named_digests(run):
            if digest not in manifest["arrays"]:
                array_of(manifest, digest)  # says what is missing
    return runs


def _check_outline(manifest: Mapping[str, Any]) -> None:
    """Checks that there are runs and arrays, and nothing unknown.

    Raises:
        InputError: something else.
    """
    outline: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "format": (str(FORMAT), lambda v: type(v) is int and v == FORMAT),
        "runs": ("a list of runs", _are_runs),
        "arrays": ("arrays by their digests", _is_dict),
        "member": ("the place of an image", _is_member),
        "shared": ("a SHA-256", lambda v: v is None or _is_digest(v)),
    }
    for name in sorted(set(map(str, manifest)) - set(outline)):
        raise InputError(f"the manifest is damaged: it has a {printable(repr(name), 60)}")
    for name, (expected, fits) in outline.items():
        if not fits(manifest.get(name)):
            raise _damaged(name, expected, manifest.get(name))


def _named_digests(run: Mapping[str, Any]) -> list[str]:
    """The digests of the arrays that a run names, as far as it is whole and right."""
    targets, init = run.get("targets"), run.get("init")
    found = [
        one.get("images", one.get("values"))
        for one in (targets.values() if isinstance(targets, Mapping) else ())
        if isinstance(one, Mapping)
    ]
    if isinstance(init, Mapping):
        params = init.get("params")
        found += params.values() if isinstance(params, Mapping) else [init.get("image")]
    return list(filter(_is_digest, found))


def _damaged(name: str, expected: str, value: Any) -> InputError:
    shown = printable(reprlib.repr(value), 60)
    return InputError(f"the manifest is damaged: {name} is {expected}, not {shown}")


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _are_runs(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(_is_dict, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_member(value: Any) -> bool:
    return value is None or _is_whole(value, 0, LARGEST["batch"])


def _is_model(value: Any) -> bool:
    if not isinstance(value, Mapping) or set(value) != {"name", "digest", "origin", "leak"}:
        return False
    named = all(map(_is_text, (value["name"], value["digest"], value["origin"])))
    leak = value["leak"]
    if isinstance(leak, list):  # of one layer alone
        return named and len(leak) == 2 and _is_slope(leak[0]) and _is_text(leak[1])
    return named and (leak is None or _is_slope(leak))


def _is_slope(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_target(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    if set(value) == {"values"}:
        return _is_digest(value["values"])
    kept = set(value) == {"layer", "images"}
    return kept and _is_text(value["layer"]) and _is_digest(value["images"])


def _is_init(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping) or set(value) not in ({"image"}, {"params"}):
        return False
    if "image" in value:
        return _is_digest(value["image"])
    return _is_dict(value["params"]) and all(map(_is_digest, value["params"].values()))


def _are_seeds(value: Any) -> bool:
    seeds = value if isinstance(value, list) else [value]
    return 1 <= len(seeds) <= LARGEST["batch"] and all(
        _is_whole(seed, 0, LARGEST["seed"]) for seed in seeds
    )


def _whole(name: str, low: int = 1) -> tuple[str, Callable[[Any], bool]]:
    high = LARGEST[name]
    return f"a whole number from {low} to {high}", lambda value: _is_whole(value, low, high)


#: What each field of a run is in words, and whether a value is that.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("a name, a digest, an origin and a leak", _is_model),
    "objective": ("a text", _is_text),
    "targets": (
        f"at most {_MOST_TARGETS} arrays by name",
        lambda v: _is_dict(v) and len(v) <= _MOST_TARGETS and all(map(_is_target, v.values())),
    ),
    "parameterization": ("a text", _is_text),
    "transform": ("a text", _is_text),
    "optimizer": ("a text", lambda v: v is None or _is_text(v)),
    "seed": (f"whole numbers from 0 to {LARGEST['seed']}", _are_seeds),
    "batch": _whole("batch"),
    "steps": _whole("steps", 0),
    "draws": _whole("draws"),
    "patience": (
        f"a whole number from 1 to {LARGEST['patience']}",
        lambda v: v is None or _is_whole(v, 1, LARGEST["patience"]),
    ),
    "snapshots": (
        "a list of steps",
        lambda v: isinstance(v, list) and all(_is_whole(s, 1, LARGEST["steps"]) for s in v),
    ),
    "init": ("an image or parameters, by digest", _is_init),
    "member": ("the place of an image", _is_member),
    "versions": (
        "versions by name",
        lambda v: _is_dict(v) and len(v) <= 64 and all(map(_is_text, v.values())),
    ),
}
