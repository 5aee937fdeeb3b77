"""An index that is there: its files, its layers, and what they say of a unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featvis import checks
from featvis.errors import InputError, printable
from featvis.images import read_noted
from featvis.models import Model
from featvis.natural.receptive import Fields
from featvis.natural.responses import MEASURES, Responses, as_shares
from featvis.natural.store import Store
from featvis.told import Told
from objectives import Activations, Channel, Logit, Objective, ObjectiveError, parse

#: Units whose correlations with all others are in the memory at a time.
_BLOCK = 512


class Index:
    """What natural images do to the units of some layers; made by `featvis.index`.

    Attributes:
        store: its arrays and files.
    """

    def __init__(self, store: Store | str | Path) -> None:
        """Opens an index.

        Args:
            store: it, or its folder.

        Raises:
            InputError: there is no index, or a damaged one.
        """
        self.store = store if isinstance(store, Store) else Store.read(Path(store))

    def __len__(self) -> int:
        """The number of images that are in."""
        return len(self.store.images)

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the layers' activations, without the images' axis."""
        return {name: tuple(one["shape"]) for name, one in self.store.settings["layers"].items()}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the network saw the images at."""
        height, width = self.store.settings["size"]
        return height, width

    @property
    def files(self) -> list[Path]:
        """The images' paths, in the order of everything else."""
        return [Path(self.store.settings["folder"], entry.name) for entry in self.store.images]

    @property
    def left_out(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        last = {entry.name: entry for entry in self.store.entries}
        return {name: str(one.left_out) for name, one in last.items() if one.row is None}

    def told(self) -> Told:
        """What the command line says of the index."""
        layers, place = self.layers, str(self.store.path)
        lost = f", {len(self.left_out)} left out" if self.left_out else ""
        units = sum(shape[-1] for shape in layers.values())
        line = f"{len(self)} images{lost}, {units} units of {len(layers)} layers"
        record = {"index": place, "images": len(self), "left_out": self.left_out}
        shapes = {name: list(shape) for name, shape in layers.items()}
        return Told([record | {"layers": shapes}], [f"{line}  {printable(place)}"])

    def check_model(self, model: Model) -> None:
        """Checks that the index is of a network.

        Args:
            model: the network.

        Raises:
            InputError: it is of another one, or of other weights.
        """
        self.check_digest(model.digest, model.name)

    def check_digest(self, digest: str, name: str = "that") -> None:
        """As `check_model`, by the digest of the weights.

        Args:
            digest: of the network's weights.
            name: of the network, for the message.

        Raises:
            InputError: the index is of other weights.
        """
        made = self.store.settings
        if made["digest"] != digest:
            raise InputError(
                f"the index {printable(self.store.path)} is of {printable(made['model'])} with the "
                f"weights {made['digest'][:12]}; the network is {name} with {digest[:12]}: index "
                "the images with it, or give the network of the index"
            )

    def check_size(self, size: tuple[int, int]) -> None:
        """Checks that the images were seen at the size of pictures.

        Args:
            size: (height, width) of the pictures.

        Raises:
            InputError: they were seen at another.
        """
        if self.size != size:
            wanted, seen = ("x".join(map(str, one)) for one in (size, self.size))
            raise InputError(
                f"the pictures are {wanted} (height x width) and the images of the index were seen "
                f"at {seen}: index them at the size of the pictures, or make the pictures at that"
            )

    def unit(self, unit: str | Objective) -> tuple[str, int]:
        """The layer and the number of a unit.

        Args:
            unit: a channel or a class, or its text, `"block8:3"`.

        Raises:
            InputError: not one unit.
            UnknownLayer: a layer that the index does not have.
            ObjectiveError: no such unit in the layer.
        """
        given = parse(unit, lambda: self.layers) if isinstance(unit, str) else unit
        if not isinstance(given, (Channel, Logit)) or np.ndim(given.index):
            raise InputError(
                f"an index is asked about one channel or class at a time, as block8:3; got {given}"
            )
        acts = {
            name: np.broadcast_to(np.float32(0), (1, *shape)) for name, shape in self.layers.items()
        }
        try:
            given._check_node(Activations(acts))
        except ObjectiveError as error:
            if given.layer in acts:
                raise
            raise type(error)(f"the index {printable(self.store.path)}: {error}") from error
        return given.layer, int(np.asarray(given.index))

    def responses(self, unit: str | Objective) -> Responses:
        """What all images do to a unit.

        Args:
            unit: as `unit` takes it.

        Raises:
            InputError: not one unit.
            UnknownLayer: a layer that the index does not have.
            ObjectiveError: no such unit in the layer.
        """
        layer, number = self.unit(unit)
        start = self._start(layer) + number
        found = {
            name: self.store.columns(name, start, start + 1)[:, 0]
            for name in (*MEASURES, "position")
        }
        return Responses(**found)

    def statistics(
        self, layer: str, by: str = "maximum", *, quantiles: Sequence[float] = (0.01, 0.5, 0.99)
    ) -> dict[str, np.ndarray]:
        """What the images do to each unit of a layer.

        Args:
            layer: its name.
            by: of the map's "maximum" or its "mean".
            quantiles: shares of the images.

        Returns:
            `mean`, `sd` (over all images, not a sample's), `zeros`, the share of images where it is
            exactly 0, and for each quantile `quantile_0.01`; arrays (units,).

        Raises:
            InputError: another `by`.
            UnknownLayer: a layer that the index does not have.
        """
        values, shares = self._values(layer, by), as_shares("statistics", quantiles)
        found = {
            "mean": values.mean(0, np.float64),
            "sd": values.std(0, np.float64),
            "zeros": (values == 0).mean(0),
        }
        levels = np.quantile(values, shares, axis=0)
        return found | {f"quantile_{q:g}": v for q, v in zip(shares, levels, strict=True)}

    def extremes(self, layer: str, count: int, by: str = "maximum") -> dict[str, np.ndarray]:
        """The images that drive each unit of a layer the most and the least.

        Args:
            layer: its name.
            count: of images at each end.
            by: of the map's "maximum" or its "mean".

        Returns:
            `highest` and `lowest`, places among the files, (count, units), the most extreme first
            and ties in the order of the files; `position` and `lowest_position`, where the maximum
            of each is; and `highest_values` and `lowest_values`.

        Raises:
            InputError: another `by`.
            UnknownLayer: a layer that the index does not have.
        """
        count = checks.integer("extremes", "count", count, 1)
        values = self._values(layer, by)
        highest, lowest = (
            np.argsort(signed, axis=0, kind="stable")[:count] for signed in (-values, values)
        )
        start = self._start(layer)
        positions = self.store.columns("position", start, start + values.shape[1])

        def at(of: np.ndarray, places: np.ndarray) -> np.ndarray:
            return np.take_along_axis(of, places, axis=0)

        return {
            "highest": highest,
            "lowest": lowest,
            "position": at(positions, highest),
            "lowest_position": at(positions, lowest),
            "highest_values": at(values, highest),
            "lowest_values": at(values, lowest),
        }

    def histogram(
        self, layer: str, bins: int = 32, *, by: str = "maximum"
    ) -> tuple[np.ndarray, np.ndarray]:
        """How many images drive each unit of a layer how much, in equal parts of its own range.

        Args:
            layer: its name.
            bins: parts of each unit's range, at least 1.
            by: of the map's "maximum" or its "mean".

        Returns:
            Numbers of images (units, bins), and the ends of each range, (units, 2).

        Raises:
            InputError: another `by`, or fewer bins.
            UnknownLayer: a layer that the index does not have.
        """
        bins = checks.integer("histogram", "bins", bins, 1, 2**16)
        values = self._values(layer, by)
        low, high = values.min(0), values.max(0)
        spread = np.where(high > low, high - low, 1).astype(np.float64)
        place = np.minimum((bins * ((values - low) / spread)).astype(np.int64), bins - 1)
        units = values.shape[1]
        counts = np.bincount((place + bins * np.arange(units)).ravel(), minlength=bins * units)
        return counts.reshape(units, bins), np.stack([low, high], axis=1)

    def nearest(
        self, layer: str, count: int = 8, *, by: str = "maximum"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The units of a layer whose responses to the images go with each unit's own the most.

        Args:
            layer: its name.
            count: of units, at most.
            by: of the map's "maximum" or its "mean".

        Returns:
            Units (units, n), the nearest first, and their correlations (Pearson's); -1 and 0 where
            a unit is the same for all images, and for such a unit.

        Raises:
            InputError: another `by`.
            UnknownLayer: a layer that the index does not have.
        """
        count = checks.integer("nearest", "count", count, 1)
        values = self._values(layer, by).astype(np.float64)
        values -= values.mean(0)
        norms = np.linalg.norm(values, axis=0)
        alive = norms > 0
        values /= np.where(alive, norms, 1)
        units = len(norms)
        count = min(count, units - 1)
        found, how = np.full((units, count), -1), np.zeros((units, count), np.float32)
        for start in range(0, units, _BLOCK):
            block = slice(start, start + _BLOCK)
            correlations = values[:, block].T @ values
            rows = np.arange(len(correlations))
            correlations[rows, start + rows] = -np.inf
            correlations[:, ~alive] = -np.inf
            order = np.argsort(-correlations, axis=1, kind="stable")[:, :count]
            close = np.take_along_axis(correlations, order, axis=1)
            fine = np.isfinite(close) & alive[block, None]
            found[block], how[block] = np.where(fine, order, -1), np.where(fine, close, 0)
        return found, how

    def vectors(self, layer: str) -> Iterator[np.ndarray]:
        """Activations at the positions that were drawn, one an image, in parts (some, channels).

        Args:
            layer: its name.

        Raises:
            UnknownLayer: a layer that the index does not have.
        """
        start = self._start(layer)
        yield from self.store.blocks("vector", start, start + self.layers[layer][-1])

    def positions(self, layer: str) -> np.ndarray:
        """The positions that were drawn, counted row by row, (n,).

        Args:
            layer: its name.

        Raises:
            UnknownLayer: a layer that the index does not have.
        """
        shapes = Activations(self.layers)
        _ = shapes[layer]  # an unknown one says the nearest
        place = list(shapes).index(layer)
        return self.store.columns("place", place, place + 1)[:, 0]

    def second_moment(self, layer: str) -> np.ndarray:
        """E[a aᵀ] of a layer over the vectors that were drawn, (channels, channels) float64.

        Its inverse whitens directions (Carter et al. 2019).

        Args:
            layer: its name.

        Raises:
            UnknownLayer: a layer that the index does not have.
        """
        width = Activations(self.layers)[layer][-1]
        total = np.zeros((width, width))
        for part in self.vectors(layer):
            total += part.T.astype(np.float64) @ part
        return total / max(len(self), 1)

    def field(self, layer: str) -> Fields:
        """The receptive fields of a layer's positions.

        Args:
            layer: its name.

        Raises:
            UnknownLayer: a layer that the index does not have.
        """
        Activations(self.layers)[layer]
        kept = self.store.settings["layers"][layer]["field"]
        rows, columns = (tuple(map(tuple, kept[name])) for name in ("rows", "columns"))
        return Fields(rows, columns, kept["tokens"])

    def image(self, place: int) -> np.ndarray:
        """An image as the network saw it, (h, w, c) in [0, 1].

        Args:
            place: among the files, from 0.

        Raises:
            InputError: no such place; the file is gone, or another one now.
        """
        place = checks.integer("image", "place", place, 0, len(self) - 1)
        entry = self.store.images[place]
        path = Path(self.store.settings["folder"], entry.name)
        try:
            stat = path.stat()
        except OSError as error:
            raise InputError(
                f"{printable(path)} was indexed and is gone: index the folder where it is now"
            ) from error
        if stat.st_size != entry.bytes:
            raise InputError(f"{printable(path)} has changed since it was indexed")
        return read_noted(path, self.size, self.store.settings["channels"])[0]

    def span(self, layer: str) -> tuple[int, int]:
        """The first of a layer's columns among those of all units, and the one after its last.

        Args:
            layer: its name.

        Raises:
            UnknownLayer: a layer that the index does not have.
        """
        start = self._start(layer)
        return start, start + self.layers[layer][-1]

    def _start(self, layer: str) -> int:
        shapes = Activations(self.layers)
        _ = shapes[layer]  # an unknown one says the nearest
        names = list(shapes)
        return sum(shapes[name][-1] for name in names[: names.index(layer)])

    def _values(self, layer: str, by: str) -> np.ndarray:
        if by not in MEASURES:
            raise InputError(f"images are ordered by {' or '.join(MEASURES)}; got {by!r}")
        return self.store.columns(by, *self.span(layer))

    def __repr__(self) -> str:
        made = self.store.settings
        units = sum(shape[-1] for shape in self.layers.values())
        return (
            f"Index({str(self.store.path)!r}, {len(self)} images at "
            f"{'x'.join(map(str, self.size))}, {units} units of {made['model']})"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{name}</code></td><td>{shape[-1]}</td>"
            f"<td>{math.prod(shape[:-1])}</td><td>{'x'.join(map(str, self.field(name).sides))}</td>"
            "</tr>"
            for name, shape in self.layers.items()
        )
        head = "<tr><th>layer</th><th>units</th><th>positions</th><th>receptive field</th></tr>"
        return f"<div><code>{self!r}</code><table>{head}{rows}</table></div>"


def as_index(given: Any) -> Index:
    """An index, or the one in a folder."""
    return given if isinstance(given, Index) else Index(checks.path("index", "its folder", given))
