"""The manifest: all that is needed to make a picture again, as JSON in the PNG and beside it."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import platform
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from featvis.errors import InputError
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.transforms import Transform
from objectives import Objective

#: The layout of the manifest; a reader refuses one it does not know.
FORMAT = 1
#: The PNG text chunk that holds it.
KEYWORD = "featvis"
#: A manifest larger than this, unpacked, is refused: a small file can unpack to any size.
_LARGEST = 256 * 2**20
_PACKAGES = ("featvis", "jax", "jaxlib", "optax", "flax", "numpy", "pillow")


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
    patience: int | None,
    init: Any,
    snapshots: Sequence[int],
) -> dict[str, Any]:
    """The manifest of a run, plain data that `json` writes.

    `steps` are those taken: a run stopped early is made again by as many steps. What has no text
    form (an optax transformation that was not given as text) is None, and `replay` asks for it.
    """
    return {
        "format": FORMAT,
        "model": {"name": model.name, "digest": model.digest, "origin": model.origin},
        "objective": str(objective),
        "parameterization": repr(parameterization),
        "transform": repr(transform),
        "optimizer": optimizer if isinstance(optimizer, str) else None,
        "seed": int(seed) if isinstance(seed, (int, np.integer)) else [int(s) for s in seed],
        "batch": batch,
        "steps": steps,
        "patience": patience,
        "snapshots": list(snapshots),
        "init": None if init is None else _pack(init),
        "versions": versions(),
    }


def _pack(init: Any) -> dict[str, Any]:
    """An image, or the parameters of one, to the bit."""
    if isinstance(init, (np.ndarray, jax.Array)):
        return {"image": _pack_array(init)}
    leaves = jax.tree_util.tree_leaves_with_path(init)
    return {"params": {_key(path): _pack_array(leaf) for path, leaf in leaves}}


def _key(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _pack_array(array: Any) -> dict[str, Any]:
    plain = np.ascontiguousarray(array, np.float32)
    data = base64.b64encode(zlib.compress(plain.tobytes(), 6)).decode()
    return {"shape": list(plain.shape), "float32": data}


def _unpack_array(packed: Any) -> np.ndarray:
    try:
        shape = tuple(int(length) for length in packed["shape"])
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(packed["float32"], validate=True), _LARGEST)
        return np.frombuffer(raw, np.float32).reshape(shape)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"the manifest's initial image is damaged: {error}") from error


def unpack_init(manifest: Mapping[str, Any], parameterization: Parameterization) -> Any:
    """What the run started from: None, an image or several, or parameters.

    Raises:
        InputError: damaged, or parameters of another parameterization.
    """
    packed = manifest.get("init")
    if packed is None:
        return None
    if not isinstance(packed, Mapping):
        raise InputError(f"the manifest's initial image is damaged: {packed!r}")
    if "image" in packed:
        return _unpack_array(packed["image"])
    wanted = jax.eval_shape(parameterization.init, jax.random.key(0))
    paths = [_key(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted)]
    stored = packed.get("params")
    if not isinstance(stored, Mapping) or set(stored) != set(paths):
        raise InputError(
            f"the manifest's parameters are not those of {parameterization}: expected {paths}"
        )
    leaves = [_unpack_array(stored[path]) for path in paths]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


# ---- files ---------------------------------------------------------------------------------


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a PNG that featvis wrote, or of the JSON beside it.

    Raises:
        InputError: no such file, not one of ours, damaged, or of a layout from another version.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    text = _png_text(raw, path) if raw.startswith(_PNG) else raw
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds no featvis manifest: {error}") from error
    if not isinstance(manifest, dict) or "objective" not in manifest:
        raise InputError(f"{path} holds no featvis manifest")
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path} has a manifest of format {manifest.get('format')!r}; expected {FORMAT}"
        )
    return manifest


_PNG = b"\x89PNG\r\n\x1a\n"


def _png_text(raw: bytes, path: Path) -> bytes:
    """The text chunk of a PNG; read here because Pillow's limit on text is a global setting."""
    at = len(_PNG)
    while at + 8 <= len(raw):
        length, kind = struct.unpack_from(">I4s", raw, at)
        body = raw[at + 8 : at + 8 + length]
        if len(body) < length:
            break
        if kind == b"iTXt" and body.startswith(KEYWORD.encode() + b"\0"):
            inflate = zlib.decompressobj()
            try:
                # After the keyword: compressed or not, method, language, translated keyword, text.
                compressed = body[len(KEYWORD) + 1]
                text = body[len(KEYWORD) + 3 :].split(b"\0", 2)[2]
                if not compressed:
                    return text
                text = inflate.decompress(text, _LARGEST)
            except (zlib.error, IndexError, ValueError) as error:
                raise InputError(f"the manifest in {path} is damaged: {error}") from error
            if inflate.unconsumed_tail:
                raise InputError(f"the manifest in {path} is larger than {_LARGEST} bytes")
            return text
        at += length + 12
    raise InputError(f"{path} is a PNG without a featvis manifest")
