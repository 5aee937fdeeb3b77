"""The natural images that excite a unit, and their codes at a layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featvis.errors import InputError, printable
from featvis.images import Images, read_batches
from featvis.models import Model
from featvis.natural import Index
from featvis.natural.index import measure
from featvis.natural.store import is_index
from featvis.own_pictures import natural_files
from objectives import Activations, Channel, Logit, Objective, parse

_BATCH = 16


@dataclass(frozen=True, eq=False)
class Excited:
    """Images that excite a unit, the most exciting first.

    Attributes:
        images: (n, h, w, c) in [0, 1].
        scores: the largest activation of the unit in each, (n,).
        positions: where it is in the layer's map, counted row by row, (n,).
        codes: of the images, (n, d); of length 1, so that groups are of what is seen and not of
            how much there is of it.
        names: of the images.
        seen: how many were looked at.
    """

    images: np.ndarray
    scores: np.ndarray
    positions: np.ndarray
    codes: np.ndarray
    names: tuple[str, ...]
    seen: int

    def __len__(self) -> int:
        return len(self.images)


def unit_of(model: Model, unit: str | Objective, size: tuple[int, int]) -> tuple[str, int]:
    """The layer and the number of a channel or a class.

    Raises:
        InputError: another objective, or several.
        ObjectiveError: no such layer or unit.
    """
    given = parse(unit, model.layers) if isinstance(unit, str) else unit
    if not isinstance(given, (Channel, Logit)) or np.ndim(given.index):
        raise InputError(f"facets are of one channel or class, as block8:3; got {given}")
    shapes = model.layers(size)
    acts = {name: np.broadcast_to(np.float32(0), (1, *shape)) for name, shape in shapes.items()}
    given._check_node(Activations(acts))
    return given.layer, int(np.asarray(given.index))


def code_layer(model: Model, layer: str, size: tuple[int, int]) -> str:
    """The last vector that is no class score and not the unit's own layer; else the last of all."""
    shapes = model.layers(size)
    vectors = [name for name, shape in shapes.items() if len(shape) == 1]
    inner = [name for name in vectors if name not in ("logits", layer)]
    return (inner or vectors or list(shapes))[-1]


def exciting(
    model: Model,
    layer: str,
    number: int,
    code: str,
    images: Images | Index | Path,
    size: tuple[int, int],
    most: int,
) -> Excited:
    """The images that excite a unit, at most so many, and their codes.

    Args:
        model: the network.
        layer: of the unit.
        number: of the unit.
        code: a layer; of a map or of tokens the code is the mean.
        images: an index, its folder, a folder of images, or images.
        size: (height, width) that they are seen at.
        most: images that are kept.

    Raises:
        InputError: no image excites the unit: all have an activation of 0 or less.
    """
    kept: list[tuple[np.ndarray, ...]] = []
    names: list[str] = []
    seen, highest = 0, -math.inf
    for batch, batch_names in _batches(model, layer, number, images, size, most):
        found = _measured(model, layer, number, code, batch)
        seen += len(batch)
        highest = max(highest, float(found[0].max()))
        # Of all images until now the most exciting are kept, and no more.
        whole = (batch, *found)
        parts = (
            [np.concatenate(pair) for pair in zip(kept[0], whole, strict=True)] if kept else whole
        )
        names += batch_names
        order = np.argsort(-parts[1], kind="stable")[:most]
        order = order[parts[1][order] > 0]
        kept = [tuple(part[order] for part in parts)]
        names = [names[place] for place in order]
    if not seen:
        raise InputError("there is no image that can be read")
    if not names:
        raise InputError(
            f"none of {seen} images excites {layer}:{number}: its largest activation is "
            f"{highest:.3g}; it may be dead, or want other images"
        )
    pictures, scores, positions, codes = kept[0]
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    unit_codes = codes / np.where(lengths > 0, lengths, 1)
    if len(unit_codes) > 1 and np.allclose(unit_codes, unit_codes[0], atol=1e-6):
        raise InputError(
            f"the {len(unit_codes)} images that excite {layer}:{number} are one and the same to "
            f"{code}: facets are of different images"
        )
    return Excited(pictures, scores, positions, unit_codes, tuple(names), seen)


def codes_of(model: Model, code: str, images: np.ndarray) -> np.ndarray:
    """Codes of images, of length 1, (n, d)."""
    codes = _measured(model, code, 0, code, images)[2]
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    return codes / np.where(lengths > 0, lengths, 1)


def _measured(
    model: Model, layer: str, number: int, code: str, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each image the unit's largest activation, where it is, and the code."""
    names = tuple(name for name in model.layers(images.shape[1:3]) if name in (layer, code))
    shapes = model.layers(images.shape[1:3])
    starts = dict(zip(names, np.cumsum([0, *(shapes[name][-1] for name in names)]), strict=False))
    parts = []
    for start in range(0, len(images), _BATCH):
        some = images[start : start + _BATCH]
        padded = np.zeros((_BATCH, *images.shape[1:]), np.float32)
        padded[: len(some)] = some
        found = measure(model, names, padded, np.zeros((_BATCH, len(names)), np.uint32))
        column, first = starts[layer] + number, starts[code]
        parts.append(
            tuple(
                values[: len(some)]
                for values in (
                    found["maximum"][:, column],
                    found["position"][:, column],
                    found["mean"][:, first : first + shapes[code][-1]],
                )
            )
        )
    scores, positions, codes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return scores, positions, codes


def _batches(
    model: Model,
    layer: str,
    number: int,
    images: Images | Index | Path,
    size: tuple[int, int],
    most: int,
) -> Iterator[tuple[np.ndarray, Sequence[str]]]:
    """Images, and their names, some at a time; of an index those that it says excite the unit."""
    if isinstance(images, (str, Path)) and is_index(images):
        images = Index(images)
    if isinstance(images, Index):
        images.check_model(model)
        images.check_size(size)
        unit = Logit(number, layer) if layer == "logits" else Channel(layer, number)
        places = images.responses(unit).highest(most)
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            read = np.stack([images.image(int(place)) for place in some])
            yield read, [images.files[place].name for place in some]
        return
    if isinstance(images, (str, Path)) and not Path(images).is_file():
        files = natural_files(images)
        for batch, paths in read_batches(files, size, model.input.channels, _BATCH):
            yield batch, [path.name for path in paths]
        return
    array = model.as_images(images, size)
    if array.shape[1:3] != size:
        raise InputError(f"the images are {array.shape[1]}x{array.shape[2]}; expected {size}")
    names = [f"image {i}" for i in range(len(array))]
    if isinstance(images, (list, tuple)) and all(isinstance(one, (str, Path)) for one in images):
        names = [printable(Path(one).name) for one in images]
    for start in range(0, len(array), _BATCH):
        yield array[start : start + _BATCH], names[start : start + _BATCH]
