"""The natural images that drive a unit the most, or the least, cropped to what it sees of them."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from featvis import checks
from featvis.errors import printable
from featvis.files import output_path, write_file
from featvis.natural.units import Index, as_index
from featvis.pictures import address_of, grid, png_bytes, to_picture
from featvis.told import Told
from objectives import Objective

#: Pixels of a crop's longer side, on sheets.
_TILE = 128


@dataclass(frozen=True, eq=False)
class Top:
    """Images that drive a unit the most or the least, one entry an image.

    Attributes:
        unit: its text.
        scores: the map's maximum, or its mean, (n,).
        files: the images.
        places: of them in the index, (n,).
        positions: (y, x) of the maximum in the layer's map, or (token,), (n, 2) or (n, 1); (n, 0)
            of a layer without positions.
        boxes: top, left, bottom and right of the pixels that the unit depends on there, in the
            image as the network saw it, (n, 4); all of the image where the mean is asked for.
        crops: those pixels, (h, w, c) in [0, 1] each.
        field: height and width of a receptive field that no frame cuts off.
        by: "maximum" or "mean".
    """

    unit: str
    scores: np.ndarray
    files: tuple[Path, ...]
    places: np.ndarray
    positions: np.ndarray
    boxes: np.ndarray
    crops: tuple[np.ndarray, ...]
    field: tuple[int, int]
    by: str

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        shown = ", ".join(f"{path.name} {score:.4g}" for path, score in self._pairs()[:4])
        return f"Top({self.unit}, {len(self)}: {shown}{', …' if len(self) > 4 else ''})"

    def _pairs(self) -> list[tuple[Path, float]]:
        return list(zip(self.files, self.scores.tolist(), strict=True))

    def tiles(self, side: int = _TILE) -> list[Image.Image]:
        """The crops as pictures of one size, grey where the frame cuts off a receptive field.

        Args:
            side: of the picture in pixels, at least.
        """
        zoom = max(side / max(self.field), 1e-6)
        size = [max(1, round(zoom * length)) for length in self.field]
        found = []
        for crop, (top, left, bottom, right) in zip(self.crops, self.boxes.tolist(), strict=True):
            canvas = np.full((*self.field, crop.shape[-1]), 0.5, np.float32)
            # A field that begins at the frame was cut off there, others behind.
            y = self.field[0] - (bottom - top) if top == 0 else 0
            x = self.field[1] - (right - left) if left == 0 else 0
            canvas[y : y + bottom - top, x : x + right - left] = crop
            method = Image.Resampling.NEAREST if zoom >= 2 else Image.Resampling.BICUBIC
            found.append(to_picture(canvas).resize((size[1], size[0]), method))
        return found

    def sheet(self, columns: int | None = None) -> Image.Image:
        """The crops in one picture, with their scores and names.

        Args:
            columns: of the grid; by default as square as it goes.
        """
        labels = [f"{score:.3g} {path.stem}" for path, score in self._pairs()]
        return grid(self.tiles(), labels, columns=columns)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes the sheet as a PNG.

        Args:
            path: ends in .png, or has no suffix and gets it.
            force: write over an existing file.

        Returns:
            The path as it was written.

        Raises:
            InputError: another suffix.
            OutputError: it cannot be written.
        """
        return write_file(output_path(path), png_bytes(self.sheet()), force=force)

    def told(self, sheet: Path) -> Told:
        """What the command line says of the images.

        Args:
            sheet: where it was written.
        """
        rows = list(
            zip(
                self.files, self.scores.tolist(), self.positions.tolist(), self.boxes.tolist(),
                strict=True,
            )
        )  # fmt: skip
        images = [
            {"image": str(file), "score": score, "position": at, "box": box}
            for file, score, at, box in rows
        ]
        lines = []
        for file, score, at, _ in rows:
            where = f" at {','.join(map(str, at))}" if at and self.by == "maximum" else ""
            lines.append(f"{score:.4g}{where}  {printable(file)}")
        record = {"unit": self.unit, "by": self.by, "sheet": str(sheet), "images": images}
        return Told([record], [*lines, f"sheet  {printable(sheet)}"])

    def _repr_html_(self) -> str:
        """Crops, scores and names, as a notebook shows them."""
        cells = []
        for tile, (path, score) in zip(self.tiles(), self._pairs(), strict=True):
            data = address_of(tile)
            name = html.escape(path.name, quote=True)
            cells.append(
                '<figure style="display:inline-block;margin:4px">'
                f'<img alt="{name}" title="{name}" src="{data}">'
                f"<figcaption>{score:.4g}</figcaption></figure>"
            )
        return f"<div><code>{html.escape(self.unit)}</code><br>{''.join(cells)}</div>"


def top(
    index: Index | str | Path,
    unit: str | Objective,
    count: int = 9,
    *,
    by: str = "maximum",
    lowest: bool = False,
) -> Top:
    """Find the natural images of an index that drive a unit the most.

    Args:
        index: of `featvis.index`, or its folder.
        unit: a channel or a class, or its text, `"block8:3"`.
        count: how many images, at most all there are.
        by: "maximum", the largest activation of the map, with what it sees of the image; or
            "mean", that of the map, with whole images.
        lowest: those that drive the unit the least.

    Raises:
        InputError: no index, not one unit, no such measure, or an image that is no longer there.
        UnknownLayer: a layer that the index does not have.
    """
    index = as_index(index)
    count = checks.integer("top", "count", count, 1)
    layer, number = index.unit(unit)
    found = index.responses(unit)
    places = (found.lowest if lowest else found.highest)(count, by)
    extent = index.layers[layer][:-1]
    fields = index.field(layer)
    whole = (0, 0, *index.size)
    positions = found.position[places].astype(int)
    boxes = [whole if by == "mean" else fields.box(place) for place in positions]
    # Of what depends on no pixel there is nothing to cut out.
    boxes = [box if box[0] < box[2] and box[1] < box[3] else whole for box in boxes]
    images = [index.image(place) for place in places]
    crops = tuple(
        image[up:down, left:right]
        for image, (up, left, down, right) in zip(images, boxes, strict=True)
    )
    files = index.files
    return Top(
        unit=f"{layer}:{number}",
        scores=found.by(by)[places],
        files=tuple(files[place] for place in places),
        places=places,
        positions=np.stack(np.unravel_index(positions, extent), axis=1)
        if extent
        else np.zeros((len(places), 0), int),
        boxes=np.array(boxes),
        crops=crops,
        field=index.size if by == "mean" else fields.sides,
        by=by,
    )
