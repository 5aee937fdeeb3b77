"""An index of what natural images do to every unit of some layers, made in one pass over them."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from featvis import checks, kernels, loading
from featvis.errors import InputError, printable
from featvis.files import open_file
from featvis.images import read_noted, warn_of_changes
from featvis.models import Model
from featvis.natural.receptive import receptive_fields
from featvis.natural.store import Entry, Store, is_index
from featvis.natural.units import Index
from featvis.own_pictures import natural_files
from objectives import Activations

#: Files that a message names of many.
_NAMED = 3
#: Threads that read and decode files, while the batch before is in the network.
_READERS = 2
#: Parts of a map that are combined at a time.
_WAYS = 8


def index(
    model: Model | str,
    folder: str | Path,
    *,
    layers: Sequence[str] | str | None = None,
    out: str | Path,
    size: tuple[int, int] | None = None,
    batch: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> Index:
    """Index a folder of images: what each does to every unit of some layers.

    One pass, whose memory does not grow with the number of images. Of each image and unit the
    store keeps the largest activation of the map and its position, and the map's mean; of each
    image and layer the activations at one position that is drawn by the image alone, whatever its
    place among the others (a sample as activation atlases take, Carter et al. 2019). The images
    stay where they are. A file that cannot be read is left out, and listed.

    Called again, it goes on: after an interrupt or a kill with the images that were under way, and
    with images that are new in the folder. Index and folder must agree otherwise.

    Args:
        model: the network, or the name of one.
        folder: of pictures, in it and its subfolders. They are scaled and cropped to `size`.
        layers: names of those whose units are indexed; by default all without a slash.
        out: the folder of the index.
        size: (height, width) that the network sees images at; by default its own.
        batch: images that go through the network together. A kill loses at most those that are
            being written and those that are in the network.
        seed: of the positions that are drawn.
        progress: show a progress bar.

    Returns:
        The index. After Ctrl-C there is what there was; the same call goes on.

    Raises:
        InputError: no such folder, no picture in it that can be read, an index that was made with
            other settings or of other files (says which differ), or zarr is not installed.
        UnknownLayer: no such layer.
        OutputError: the index cannot be written.

    Warns:
        UserWarning: files were left out: how many, and the first.
        ConversionWarning: as `read_images`.
    """
    model = loading.as_model(model)
    height, width = checks.image_size("index", "size", model.input.size if size is None else size)
    batch = checks.integer("index", "batch", batch, 1, 4096)
    seed = checks.integer("index", "seed", seed, 0, 2**32 - 1)
    model.check_image_shape(height, width, model.input.channels)
    shapes = Activations(model.layers((height, width)))
    extents = {name: tuple(shapes[name]) for name in shapes}
    wanted = _layers(layers, shapes)
    out = checks.path("index", "out", out)
    files = natural_files(folder)
    asked = {
        "digest": model.digest, "size": [height, width], "layers": wanted, "seed": seed,
        "batch": batch,
    }  # fmt: skip
    if is_index(out):
        store = Store.read(out)
        _agree(store, asked, model)
    else:

        def settings() -> dict[str, Any]:
            fields = receptive_fields(model, wanted, (height, width))
            described = {
                name: {"shape": list(extents[name]), "field": asdict(field)}
                for name, field in zip(wanted, fields, strict=True)
            }
            return {
                **asked, "model": model.name, "origin": model.origin, "layers": described,
                "channels": model.input.channels, "folder": os.path.abspath(folder),
            }  # fmt: skip

        store = Store.create(out, settings)
    with store.locked():
        store.mend()
        new = _new_files(store, Path(folder), files)
        if store.settings["folder"] != os.path.abspath(folder):
            store.set_settings({**store.settings, "folder": os.path.abspath(folder)})
        _add(store, model, Path(folder), new, progress)
    if not store.images:
        first = next(entry for entry in store.entries)
        raise InputError(
            f"no picture in {printable(folder)} can be read; the first: {first.left_out}"
        )
    return Index(store)


def _layers(layers: Sequence[str] | str | None, shapes: Mapping[str, Any]) -> list[str]:
    """The layers that are asked for, in forward order, by default all without a slash."""
    if layers is None:
        return [name for name in shapes if "/" not in name]
    if not isinstance(layers, (str, Sequence)):
        raise InputError(f"layers are names, as ['{next(iter(shapes))}']; got {layers!r}")
    wanted = [layers] if isinstance(layers, str) else list(layers)
    if not wanted:
        raise InputError(f"an index is of at least one layer; got none of {', '.join(shapes)}")
    for name in wanted:
        _ = shapes[name]  # an unknown one says the nearest
    return [name for name in shapes if name in wanted]


def _agree(store: Store, asked: dict[str, Any], model: Model) -> None:
    """Checks that an index was made with the same settings.

    Raises:
        InputError: it was not; says what differs.
    """
    made = {**store.settings, "layers": list(store.settings["layers"])}
    names = {"digest": "weights"}
    differ = [
        f"{names.get(name, name)} {_shown(made[name])}, not {_shown(value)}"
        for name, value in asked.items()
        if made[name] != value
    ]
    if differ:
        raise InputError(
            f"the index {printable(store.path)}, of {made['model']}, was made with "
            f"{'; '.join(differ)}: give the same, or another place for a new index"
        )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value[:12]
    if not isinstance(value, list):
        return str(value)
    return (" " if isinstance(value[0], str) else "x").join(map(str, value))


def _new_files(store: Store, folder: Path, files: list[Path]) -> list[Path]:
    """The files of a folder that an index does not have yet.

    Raises:
        InputError: a file that it has is gone, or another one now; says which.
    """
    here = {os.path.relpath(path, folder): path for path in files}
    gone, changed = [], []
    done = set()
    for entry in store.entries:
        path = here.get(entry.name)
        same = path is not None and _same(entry, path)
        if entry.row is None:
            # What was broken, and has been mended since, is new.
            if same:
                done.add(entry.name)
            continue
        done.add(entry.name)
        if path is None:
            gone.append(entry.name)
        elif not same:
            changed.append(entry.name)
    if gone or changed:
        said = [
            f"{len(names)} {what} ({_some(names)})"
            for names, what in ((gone, "gone"), (changed, "changed"))
            if names
        ]
        raise InputError(
            f"{printable(folder)} is not what the index {printable(store.path)} is of: of its "
            f"{len(store.images)} images {' and '.join(said)}: give another place for a new index"
        )
    return [path for name, path in here.items() if name not in done]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(map(printable, names[:_NAMED])) + (f" and {more} more" if more > 0 else "")


def _same(entry: Entry, path: Path) -> bool:
    """Whether a file is as it was; one that was only touched is, by its digest."""
    stat = path.stat()
    if stat.st_size != entry.bytes:
        return False
    return stat.st_mtime_ns == entry.time or (entry.sha256 != "" and _digest(path) == entry.sha256)


def _digest(path: Path) -> str:
    seal = hashlib.sha256()
    with open_file(path) as file:
        while part := file.read(2**20):
            seal.update(part)
    return seal.hexdigest()


# ---- the pass ------------------------------------------------------------------------------


def _add(store: Store, model: Model, folder: Path, files: list[Path], progress: bool) -> None:
    """Measures files and adds them to a store, batch by batch."""
    layers = {name: layer["shape"] for name, layer in store.settings["layers"].items()}
    size, batch = tuple(store.settings["size"]), store.settings["batch"]
    shape = (batch, *size, model.input.channels)
    changes: list[str] = []
    left_out: list[str] = []
    bar = tqdm(total=len(files), unit="image", disable=None if progress else True, leave=False)
    row = store.next_row()

    def keep(entries: list[Entry], measured: Mapping[str, jax.Array]) -> None:
        nonlocal row
        found = {name: np.asarray(values) for name, values in measured.items()}
        placed = _placed(entries, found, row)
        store.append(placed, found, row)
        left_out.extend(str(entry.left_out) for entry in placed if entry.row is None)
        row += batch if any(entry.row is not None for entry in placed) else 0
        bar.update(len(entries))

    under_way: tuple[list[Entry], Mapping[str, jax.Array]] | None = None
    with bar:
        for read in _read_ahead(files, folder, size, model.input.channels, batch):
            images = np.zeros(shape, np.float32)
            places = np.zeros((batch, len(layers)), np.uint32)
            entries: list[Entry] = []
            taken = 0
            for entry, image, changed in read:
                if image is not None:
                    images[taken] = image
                    places[taken] = _drawn(entry.sha256, store.settings["seed"], layers)
                    taken += 1
                entries.append(entry)
                changes += changed
            before = under_way
            # The network sees the next batch while the one before is written.
            under_way = entries, _measuring(model, tuple(layers), images, places) if taken else {}
            if before is not None:
                keep(*before)
        if under_way is not None:
            keep(*under_way)
    if left_out:
        more = f"; and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        warnings.warn(f"left out: {left_out[0]}{more}", stacklevel=3)
    warn_of_changes(changes, len(files))


def _placed(entries: list[Entry], found: dict[str, np.ndarray], row: int) -> list[Entry]:
    """A batch's files with their rows; without one where the activations are not finite."""
    placed, taken = [], 0
    for entry in entries:
        if entry.left_out is None:
            if np.isfinite(found["mean"][taken]).all():
                entry = Entry(**{**asdict(entry), "row": row + taken})
            else:
                why = f"{printable(entry.name)}: its activations are not finite"
                entry = Entry(**{**asdict(entry), "left_out": why})
            taken += 1
        placed.append(entry)
    return placed


_Read = tuple[Entry, np.ndarray | None, list[str]]


def _read_ahead(
    files: list[Path], folder: Path, size: Any, channels: int, batch: int
) -> Iterator[list[_Read]]:
    """Files in batches, of which the next is being read while one is used."""

    def read(path: Path) -> _Read:
        stat = path.stat()
        name = os.path.relpath(path, folder)
        entry = Entry(name, stat.st_size, stat.st_mtime_ns)
        try:
            image, changes = read_noted(path, size, channels)
            return Entry(name, stat.st_size, stat.st_mtime_ns, _digest(path)), image, changes
        except InputError as error:
            return Entry(**{**asdict(entry), "left_out": str(error)}), None, []

    with ThreadPoolExecutor(_READERS) as readers:
        starts = range(0, len(files), batch)
        try:
            waiting = [readers.submit(read, path) for path in files[:batch]]
            for start in starts:
                following = files[start + batch : start + 2 * batch]
                coming = [readers.submit(read, path) for path in following]
                yield [one.result() for one in waiting]
                waiting = coming
        finally:
            readers.shutdown(cancel_futures=True)


def _drawn(digest: str, seed: int, layers: dict[str, list[int]]) -> list[int]:
    """A position of each layer, drawn by an image's bytes and a seed."""
    found = []
    for name, shape in layers.items():
        drawn = hashlib.sha256(f"{seed} {name} {digest}".encode()).digest()
        found.append(int.from_bytes(drawn[:8], "big") % math.prod(shape[:-1]))
    return found


def measure(
    model: Model, layers: tuple[str, ...], images: np.ndarray, places: np.ndarray
) -> dict[str, np.ndarray]:
    """What images do to the units of layers, one layer's units beside the other's.

    Args:
        model: the network.
        layers: their names, in forward order.
        images: (n, h, w, c) in [0, 1].
        places: a position in each layer, (n, layers).

    Returns:
        `maximum`, `mean`, `position` of the maximum (the first of equal ones) and `vector`, the
        activations at the given positions, each (n, units); and `place`, the positions.
    """
    found = _measuring(model, layers, images, places)
    return {name: np.asarray(values) for name, values in found.items()}


def _measuring(
    model: Model, layers: tuple[str, ...], images: np.ndarray, places: np.ndarray
) -> dict[str, Any]:
    """As `measure`; arrays that the device is still computing."""
    found = _measured(model.apply, layers, model.params, images, places.astype(np.int32))
    return {**found, "place": places}


@functools.partial(kernels.compiled, static=("apply", "layers"))
def _measured(
    apply: Any, layers: tuple[str, ...], params: Any, images: jax.Array, places: jax.Array
) -> dict[str, jax.Array]:
    acts = Activations(apply(params, images))
    parts: dict[str, list[jax.Array]] = {}
    for number, layer in enumerate(layers):
        a = acts[layer].reshape(acts[layer].shape[0], -1, acts[layer].shape[-1])
        order = jax.lax.broadcasted_iota(jnp.int32, a.shape, 1)
        highest, first = _over_positions((a, order), _earlier_of_higher)
        (total,) = _over_positions((a,), lambda one, other: (one[0] + other[0],))
        drawn = jnp.take_along_axis(a, places[:, number, None, None], axis=1)[:, 0]
        of_layer = {
            "maximum": highest, "mean": total / a.shape[1], "position": first, "vector": drawn,
        }  # fmt: skip
        for name, values in of_layer.items():
            parts.setdefault(name, []).append(values)
    return {name: jnp.concatenate(values, axis=1) for name, values in parts.items()}


_Arrays = tuple[jax.Array, ...]


def _over_positions(
    arrays: _Arrays, combined: Callable[[_Arrays, _Arrays], _Arrays]
) -> tuple[jax.Array, ...]:
    """Arrays (n, positions, c) combined over their positions, (n, c).

    As `jax.lax.reduce`, which XLA does one number at a time on a CPU: here a few parts at a time,
    whole arrays of them.

    Args:
        arrays: as `combined` takes them.
        combined: of two of them elementwise; in whatever order.
    """
    count = arrays[0].shape[1]
    if count == 1:
        return tuple(one[:, 0] for one in arrays)
    ways = min(_WAYS, count)
    length = count // ways
    parts = [
        tuple(one[:, way * length : (way + 1) * length] for one in arrays) for way in range(ways)
    ]
    found = _over_positions(functools.reduce(combined, parts), combined)
    if ways * length == count:
        return found
    left = tuple(one[:, ways * length :] for one in arrays)
    return combined(found, _over_positions(left, combined))


def _earlier_of_higher(one: _Arrays, other: _Arrays) -> _Arrays:
    """Of two values, each with its place, the higher; of equal ones the place that is first."""
    (a, i), (b, j) = one, other
    return jnp.maximum(a, b), jnp.where((b > a) | ((b == a) & (j < i)), j, i)
