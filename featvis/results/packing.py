"""The arrays of a manifest: packed by digest, and in the file that pictures share."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from featvis.digests import digest_of
from featvis.errors import InputError, printable
from featvis.files import open_file, write_file
from featvis.parameterizations import Parameterization
from featvis.parameterizations.component import data_of
from featvis.results.format import KEYWORD, is_whole
from featvis.text import NotHeld

#: Bytes of runs in a picture; longer ones are shared, or each picture of a batch had them all.
_RUNS_INSIDE = 2**16


_NAMED = re.compile(r"\bsha256(?:\(|=)'([0-9a-f]{64})'\)")

#: Types of the arrays that a manifest keeps: of pictures the first two.
KINDS = ("float32", "uint8", "float16", "float64", "int32", "int64", "bool")

#: Bytes of an array of a parameterization that is kept in the shared file.
_LARGEST_DATA = 2**22


def key_of_path(path: Any) -> str:
    """The path of a leaf in a pytree, as text."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def pack_array(array: Any) -> tuple[str, dict[str, Any]]:
    """The digest of an array and its plain data, float32 to the bit."""
    plain = np.asarray(array, np.float32)
    with np.errstate(invalid="ignore"):  # a NaN
        levels = np.round(np.clip(plain, 0, 1) * 255).astype(np.uint8)
    # An image that was read from a file of 8 bits is kept as such, in a quarter of the space.
    return pack(levels if np.array_equal(from_levels(levels), plain) else plain)


def pack(array: np.ndarray) -> tuple[str, dict[str, Any]]:
    """The digest of an array and its plain data."""
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return digest_of(array), {"shape": list(array.shape), str(array.dtype): data}


def packed_data(parameterization: Parameterization) -> dict[str, Any]:
    """The data of a parameterization that a manifest keeps, packed, by their digests.

    Those are single arrays that are small, as masks are; a generator's weights have a file already.
    """
    return {
        digest: pack(np.asarray(value))[1]
        for digest, value in data_of(parameterization).items()
        if isinstance(value, (np.ndarray, jax.Array))
        and str(value.dtype) in KINDS
        and value.nbytes <= _LARGEST_DATA
    }


def from_levels(levels: np.ndarray) -> np.ndarray:
    """Levels of 8 bits as float32 in [0, 1]."""
    return levels.astype(np.float32) / 255


def unpack(digest: str, packed: Any) -> np.ndarray:
    """An array as it is kept, of one of the types that are.

    Raises:
        InputError: damaged.
    """
    try:
        kind = next((kind for kind in KINDS if kind in packed), KINDS[0])
        raw = base64.b64decode(packed[kind], validate=True)
        shape = list(packed["shape"])
        if not all(is_whole(length, 0, 2**40) for length in shape):
            raise ValueError(f"its shape is {shape}")
        array = np.frombuffer(raw, kind).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the manifest holds a damaged array: {printable(error)}") from error
    if digest_of(array) != digest:
        raise InputError(f"the manifest holds a damaged array: {printable(digest)} is another's")
    return array


def array_of(manifest: Mapping[str, Any], digest: str) -> np.ndarray:
    """An array that a run of a manifest names, float32.

    Raises:
        InputError: it is missing or damaged.
    """
    if digest not in manifest["arrays"]:
        shared = shared_name(manifest) if "shared" in manifest else "the shared file"
        raise InputError(
            f"the array {digest[:12]}, which the picture was made from, is not there: put {shared} "
            "into the folder of the picture"
        )
    array = unpack(digest, manifest["arrays"][digest])
    if array.dtype not in (np.float32, np.uint8):
        raise InputError(f"the manifest holds a damaged array: {digest} is of {array.dtype}")
    return from_levels(array) if array.dtype == np.uint8 else array


def digests_in(text: str) -> list[str]:
    """The digests by which the text of a parameterization names its data."""
    return _NAMED.findall(text)


def data_reader(
    manifest: Mapping[str, Any], given: Parameterization | None
) -> Callable[[str], Any]:
    """What gives the data of a manifest's parameterizations by their digests.

    Args:
        manifest: keeps some of them.
        given: holds others.
    """
    held = {} if given is None else data_of(given)

    def read(digest: str) -> Any:
        if digest in held:
            return held[digest]
        if digest in manifest["arrays"]:
            return unpack(digest, manifest["arrays"][digest])
        shown = printable(digest)
        if given is not None:
            raise InputError(
                f"the picture was made with data of the digest {shown[:12]}; {given!r} holds "
                f"{', '.join(one[:12] for one in held) or 'none'}"
            )
        raise NotHeld(
            f"the picture was made with data of the digest {shown[:12]}, which it does not keep: "
            "pass parameterization= with them"
            + (f", or put {shared_name(manifest)} into its folder" if "shared" in manifest else "")
        )

    return read


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
    paths = [key_of_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted)]
    if set(packed["params"]) != set(paths):
        raise InputError(
            f"the manifest's parameters are not those of {parameterization}: expected {paths}"
        )
    leaves = [array_of(manifest, packed["params"][path]) for path in paths]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


def record_of(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a picture in a folder and its JSON hold; the rest is written into the shared file.

    Raises:
        OutputError: it cannot be written.
    """
    record = {name: value for name, value in manifest.items() if name not in ("arrays", "shared")}
    arrays = dict(manifest["arrays"])
    what = "joined" if "joined" in record else "runs"
    text = json.dumps(record[what]).encode()
    if len(text) > _RUNS_INSIDE:
        digest, packed = pack(np.frombuffer(text, np.uint8))
        arrays[digest], record[what] = packed, digest
    if arrays:
        record["shared"] = hashlib.sha256("".join(sorted(arrays)).encode()).hexdigest()
        path = folder / shared_name(record)
        if not _has_all(path, arrays):
            unpacked = {digest: unpack(digest, packed) for digest, packed in arrays.items()}
            write_file(path, safetensors.numpy.save(unpacked))
    return record


def png_of(picture: Image.Image, record: Mapping[str, Any], effort: int = 6) -> bytes:
    """A picture as PNG with what makes it again inside, as `record_of` gives it.

    Args:
        picture: it.
        record: plain data.
        effort: of the compression, 1 to 9.
    """
    info = PngInfo()
    info.add_itxt(KEYWORD, json.dumps(record), zip=True)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info, compress_level=effort)
    return buffer.getvalue()


def shared_name(record: Mapping[str, Any]) -> str:
    """The name of the file that the pictures of the same arrays share."""
    return f"featvis-{record['shared'][:32]}.safetensors"


def _has_all(path: Path, arrays: Mapping[str, Any]) -> bool:
    """Whether a file is a whole one of these arrays; what is in them is checked by its reader."""
    try:
        with open_file(path), safetensors.safe_open(path, "numpy") as file:
            return set(file.keys()) == set(arrays)
    except (InputError, OSError, safetensors.SafetensorError):
        return False
