"""Manifests read from pictures and records, which are not trusted."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy

from featvis.digests import digest_of
from featvis.errors import InputError, printable
from featvis.files import open_file
from featvis.results.checks import check_outline, damaged, is_digest, named_digests
from featvis.results.format import BESIDE, FORMAT, KEYWORD, parts_of
from featvis.results.packing import KINDS, digests_in, pack, shared_name

#: Bytes of a text chunk, unpacked: the most that Pillow reads.
LARGEST_CHUNK = 2**20

_LARGEST_JSON = 2**23

#: Bytes of the table of contents of a shared file.
_LARGEST_TABLE = 2**20

#: Brackets, commas, quotes and backslashes of a JSON text: each can become 100 bytes of memory.
_MOST_MARKS = 2**19

_DEEPEST = 32

_MOST_CHUNKS = 10**5


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a PNG that featvis wrote, or of the JSON beside it.

    Where the shared file is not in the folder its arrays are left out, and `replay` asks for it.

    Raises:
        InputError: no such file, not one of ours, damaged, or of a layout from another version.
    """
    manifest = read_record(path)
    return {name: value for name, value in manifest.items() if name not in BESIDE}


def read_record(path: str | Path) -> dict[str, Any]:
    """The manifest as `read_manifest`, with the figures and the layout of the picture, unchecked.

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
    manifest = parsed_json(text, shown)
    if isinstance(manifest, dict) and "explanation" in manifest:
        raise InputError(f"{shown} was explained, and replay makes no maps: `featvis explain` does")
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise InputError(f"{shown} holds no featvis manifest")
    if manifest["format"] != FORMAT:
        raise InputError(
            f"{shown} has a manifest of format {printable(reprlib.repr(manifest['format']), 40)}; "
            f"expected {FORMAT}"
        )
    beside = {name: manifest.pop(name) for name in BESIDE if name in manifest}
    arrays = manifest.setdefault("arrays", {})
    shared = manifest.get("shared")
    if shared is not None:
        if not is_digest(shared):
            raise damaged("shared", "a SHA-256", shared)
        found = _read_shared(path.parent, shared_name(manifest))
        name = "joined" if "joined" in manifest else "runs"
        runs = manifest.get(name)
        if isinstance(runs, str):
            if runs not in found:
                raise InputError(
                    f"the manifest in {shown} goes on in {shared_name(manifest)}: put that into "
                    "its folder"
                )
            manifest[name] = parsed_json(found.pop(runs).tobytes(), shown)
        if isinstance(arrays, dict):
            arrays.update(pack(array) for array in found.values())
    check_outline(manifest)
    wanted = [
        digest
        for part in parts_of(manifest)
        for run in part["runs"]
        for digest in [*named_digests(run), *digests_in(str(run.get("parameterization", "")))]
    ]
    if all(digest in arrays for digest in wanted):
        manifest.pop("shared", None)
    return {**manifest, **beside}


def parsed_json(text: bytes, shown: str) -> Any:
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
        if length > LARGEST_CHUNK:
            raise InputError(f"the manifest in {shown} is larger than {LARGEST_CHUNK} bytes")
        body = file.read(length - len(name))
        inflate = zlib.decompressobj()
        try:
            if file.read(4) != struct.pack(">I", zlib.crc32(kind + name + body)):
                raise ValueError("its checksum is another")
            # After the keyword: compressed or not, method, language, translated keyword, text.
            text = body[2:].split(b"\0", 2)[2]
            if body[0]:
                text = inflate.decompress(text, LARGEST_CHUNK)
        except (zlib.error, IndexError, ValueError) as error:
            raise InputError(f"the manifest in {shown} is damaged: {error}") from error
        if inflate.unconsumed_tail:
            raise InputError(f"the manifest in {shown} is larger than {LARGEST_CHUNK} bytes")
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
            if str(array.dtype) in KINDS and digest_of(array) == digest:
                found[digest] = array
    return found
