"""All channels of a layer as one labelled sheet, which can be stopped and gone on with."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featvis import loading
from featvis.atlas.driver import atlas
from featvis.atlas.reader import Atlas
from featvis.errors import InputError
from featvis.files import part_of_name, picture_name
from featvis.models import Model
from featvis.pictures import grid, to_picture
from featvis.results import Result
from objectives import Channel, Layer, Logit, Objective, parse


@dataclass(frozen=True, eq=False)
class Sheet:
    """The pictures of some units of a layer.

    Attributes:
        atlas: where they are.
        layer: of the units.
        units: their numbers, in order.
    """

    atlas: Atlas
    layer: str
    units: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.units)

    @property
    def labels(self) -> list[str]:
        """A line under each: the unit, the name of a class, and its clean score."""
        scores = self.atlas.table(self.layer)
        of_unit = dict(zip(scores["unit"].tolist(), scores["clean_score"].tolist(), strict=True))
        named = [self.atlas.label(self.layer, unit) for unit in self.units]
        return [
            f"{self.layer}:{unit}{f' {name}' if name else ''} {of_unit[unit]:.3g}"
            for unit, name in zip(self.units, named, strict=True)
        ]

    @property
    def images(self) -> np.ndarray:
        """The pictures, (n, h, w, c) uint8."""
        found: dict[int, np.ndarray] = {}
        for units, pictures in self.atlas.blocks(self.layer, objective="channel"):
            found |= zip(units.tolist(), pictures, strict=True)
        return np.stack([found[unit] for unit in self.units])

    @property
    def result(self) -> Result:
        """All as one result; `replay` makes them again."""
        found = [self.atlas.unit(self.layer, unit).picture for unit in self.units]
        return Result.join([one.result() for one in found if one is not None])

    def picture(self, columns: int | None = None) -> Image.Image:
        """The sheet.

        Args:
            columns: of the grid; by default as square as it goes.
        """
        pictures = [to_picture(image.astype(np.float32) / 255) for image in self.images]
        return grid(pictures, self.labels, columns=columns)

    def save(self, path: str | Path, *, columns: int | None = None, force: bool = False) -> Path:
        """Writes the sheet as a PNG, which `replay` makes again: see `Result.save`.

        Args:
            path: as for `Result.save`.
            columns: of the grid; by default as square as it goes.
            force: write over an existing file.

        Returns:
            The path as it was written.
        """
        return self.result.save(path, labels=self.labels, columns=columns, force=force)

    def _repr_png_(self) -> bytes:
        """The sheet, as a notebook shows it."""
        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        return buffer.getvalue()

    def __repr__(self) -> str:
        return f"Sheet({self.layer}, {len(self)} units, {str(self.atlas.store.place)!r})"


def sheet(
    model: Model | str,
    units: str | Objective,
    store: str | Path | None = None,
    **options: Any,
) -> Sheet:
    """Show all channels of a layer, or some of them, as one labelled sheet.

    `fv.sheet(model, "block5:*").save("block5.png")`. It is an atlas: the same call goes on after an
    interrupt or a kill, and one with more units makes only those.

    Args:
        model: the network, or the name of one.
        units: a layer and which of its units, as "block5:*" or "block5:0-31", or the layer alone.
        store: of the atlas; by default a folder of this one, named after the network and the layer.
        **options: as for `atlas`.

    Returns:
        The sheet, which a notebook shows.

    Raises:
        InputError: no units of one layer; and as `atlas`.
        UnknownLayer: no such layer.
    """
    model = loading.as_model(model)
    given = parse(units, model.layers, model.class_index) if isinstance(units, str) else units
    if not isinstance(given, (Channel, Logit, Layer)):
        raise InputError(f"a sheet is of units of a layer, as block5:*; got {given}")
    numbers = None if isinstance(given, Layer) else np.ravel(given.index).tolist()
    layer = given.layer
    place = store or f"{picture_name(model.name, part_of_name(layer))}.atlas"
    made = atlas(model, layer, place, units=numbers, **options)
    chosen = made.units(layer).tolist() if numbers is None else list(dict.fromkeys(numbers))
    return Sheet(made, layer, tuple(chosen))
