"""The manifest: all that is needed to make a picture again, as JSON in the PNG and beside it."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import math
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
from featvis.redirect import leak_of
from featvis.targets import Target, named_arrays
from featvis.transforms import Transform
from objectives import NamedArray, Objective

#: The layout of the manifest; a reader refuses one it does not know.
FORMAT = 2
#: The PNG text chunk that holds it.
KEYWORD = "featvis"
#: A manifest larger than this, unpacked, is refused: a small file can unpack to any size.
_LARGEST = 256 * 2**20
#: What is a run's own, whatever run it goes on from.
_OWN = ("init", "snapshots")
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
    draws: int,
    patience: int | None,
    init: Any,
    before: Mapping[str, Any] | None,
    snapshots: Sequence[int],
) -> dict[str, Any]:
    """The manifest of a run, plain data that `json` writes.

    `steps` are those taken: a run stopped early is made again by as many steps. What has no text
    form (an optax transformation that was not given as text) is None, and `replay` asks for it.
    `before` is the manifest of the run that this one goes on from: kept as far as it differs.
    """
    described: dict[str, Any] = {
        "format": FORMAT,
        "model": {
            "name": model.name,
            "digest": model.digest,
            "origin": model.origin,
            "leak": leak_of(model),
        },
        "objective": str(objective),
        "targets": {name: _pack_named(a, model) for name, a in named_arrays(objective).items()},
        "parameterization": repr(parameterization),
        "transform": repr(transform),
        "optimizer": optimizer if isinstance(optimizer, str) else None,
        "seed": int(seed) if isinstance(seed, (int, np.integer)) else [int(s) for s in seed],
        "batch": batch,
        "steps": steps,
        "draws": int(draws),
        "patience": None if patience is None else int(patience),
        "snapshots": list(snapshots),
        "init": None if init is None else _pack(init),
        "versions": versions(),
    }
    if before is not None:
        differs = {
            key: value
            for key, value in before.items()
            if key in _OWN or key not in described or described[key] != value
        }
        described["init"] = {"run": differs}
    return described


def runs_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The whole manifests of a run and of those that it went on from, the first one first.

    Raises:
        InputError: an earlier run that is damaged.
    """
    runs = [dict(manifest)]
    while isinstance(init := runs[-1].get("init"), Mapping) and "run" in init:
        if not isinstance(init["run"], Mapping):
            raise InputError(f"the manifest's earlier run is damaged: {init['run']!r}")
        shared = {key: value for key, value in runs[-1].items() if key not in (*_OWN, "member")}
        runs.append({**shared, **init["run"]})
    return runs[::-1]


def _pack_named(array: NamedArray, model: Model) -> dict[str, Any]:
    # Of another network than the run's, it cannot be computed anew.
    if isinstance(array, Target) and array.digest == model.digest:
        return {"layer": array.layer, "images": _pack_array(array.images)}
    return {"values": _pack_array(array)}


def _pack(init: Any) -> dict[str, Any]:
    """An image, or the parameters of one, to the bit."""
    if isinstance(init, (np.ndarray, jax.Array)):
        return {"image": _pack_array(init)}
    leaves = jax.tree_util.tree_leaves_with_path(init)
    return {"params": {_key(path): _pack_array(leaf) for path, leaf in leaves}}


def _key(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _pack_array(array: Any) -> dict[str, Any]:
    plain = np.asarray(array, np.float32)
    with np.errstate(invalid="ignore"):  # a NaN
        levels = np.round(np.clip(plain, 0, 1) * 255).astype(np.uint8)
    # An image that was read from a file of 8 bits is kept as such, in a quarter of the space.
    kind = "uint8" if np.array_equal(_from_levels(levels), plain) else "float32"
    data = zlib.compress((levels if kind == "uint8" else plain).tobytes(), 6)
    return {"shape": list(plain.shape), kind: base64.b64encode(data).decode()}


def _from_levels(levels: np.ndarray) -> np.ndarray:
    return levels.astype(np.float32) / 255


def unpack_array(packed: Any) -> np.ndarray:
    """An array of a manifest, float32.

    Raises:
        InputError: damaged.
    """
    try:
        shape = tuple(int(length) for length in packed["shape"])
        kind = "uint8" if "uint8" in packed else "float32"
        if min(shape, default=1) < 0 or 4 * math.prod(shape) > _LARGEST:
            raise ValueError(f"an array of the shape {shape}")
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(packed[kind], validate=True), _LARGEST)
        array = np.frombuffer(raw, kind).reshape(shape)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"the manifest holds a damaged image: {error}") from error
    return _from_levels(array) if kind == "uint8" else array


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
        return unpack_array(packed["image"])
    wanted = jax.eval_shape(parameterization.init, jax.random.key(0))
    paths = [_key(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted)]
    stored = packed.get("params")
    if not isinstance(stored, Mapping) or set(stored) != set(paths):
        raise InputError(
            f"the manifest's parameters are not those of {parameterization}: expected {paths}"
        )
    leaves = [unpack_array(stored[path]) for path in paths]
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
