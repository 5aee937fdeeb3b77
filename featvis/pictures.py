"""Pictures out: images as Pillow pictures, and grids of them with labels."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from featvis.errors import InputError, OutputError


def to_levels(image: np.ndarray) -> np.ndarray:
    """Images in [0, 1] in levels of 8 bits, as pictures have them."""
    levels: np.ndarray = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return levels


def to_picture(image: np.ndarray) -> Image.Image:
    """An image (h, w, c) in [0, 1] as a Pillow picture of 8 bits.

    One channel is grey, three are RGB; of any other number each channel is grey, one beside the
    other from left to right.
    """
    return levels_picture(to_levels(image))


def levels_picture(levels: np.ndarray) -> Image.Image:
    """As `to_picture`, of levels of 8 bits (h, w, c)."""
    if levels.shape[-1] == 3:
        return Image.fromarray(levels)
    return Image.fromarray(np.concatenate(np.moveaxis(levels, -1, 0), axis=1))


#: Characters of a label that are drawn: as many as a file's name can have.
_LABEL = 255


def grid(
    pictures: Sequence[Image.Image | np.ndarray],
    labels: Sequence[str] = (),
    *,
    columns: int | None = None,
) -> Image.Image:
    """Put pictures of one size side by side, with text under each.

    A label has as many lines as it needs. What the font does not have is written as Python
    escapes it, so that different labels look different; of more than 255 characters the middle is
    left out.

    Args:
        pictures: at least one; or images (h, w, c) in [0, 1].
        labels: as many as pictures, or none.
        columns: at least 1; by default as square as it goes.

    Raises:
        InputError: another number of labels, or no pictures.
    """
    if not len(pictures):
        raise InputError("a grid is of at least one picture; got none")
    drawn = [one if isinstance(one, Image.Image) else to_picture(one) for one in pictures]
    if labels and len(labels) != len(pictures):
        raise InputError(f"{len(pictures)} pictures have {len(labels)} labels")
    width, height = drawn[0].size
    corners, size, lines = _laid_out(len(drawn), drawn[0].size, labels, columns)
    font = _font_for(width)
    line = _line_height(font)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, (x, y)) in enumerate(zip(drawn, corners, strict=True)):
        sheet.paste(picture, (x, y))
        for number, text in enumerate(lines[i] if labels else ()):
            middle = (x + width / 2, y + height + line * (number + 0.5))
            draw.text(middle, text, "black", font, anchor="mm")
    return sheet


def corners_of(
    count: int, size: tuple[int, int], labels: Sequence[str] = (), columns: int | None = None
) -> list[tuple[int, int]]:
    """Where `grid` puts its pictures: the (x, y) of their upper left corners.

    Args:
        count: of pictures, at least 1.
        size: (width, height) of each.
        labels: as for `grid`.
        columns: as for `grid`.
    """
    return _laid_out(count, size, labels, columns)[0]


def _laid_out(
    count: int, size: tuple[int, int], labels: Sequence[str], columns: int | None
) -> tuple[list[tuple[int, int]], tuple[int, int], list[list[str]]]:
    """The corners of a grid's pictures, its own (width, height), and the lines of its labels."""
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    width, height = size
    gap = 4
    font = _font_for(width)
    lines = [_wrapped(label, font, width) for label in labels]
    tall = [
        _line_height(font) * max(map(len, lines[row * columns : (row + 1) * columns]), default=0)
        for row in range(rows)
    ]
    corners = [
        (gap + column * (width + gap), gap + row * (height + gap) + sum(tall[:row]))
        for row, column in (divmod(i, columns) for i in range(count))
    ]
    whole = columns * (width + gap) + gap, rows * (height + gap) + sum(tall) + gap
    return corners, whole, lines


def _font_for(width: int) -> ImageFont.FreeTypeFont:
    return _font(max(11, min(16, width // 10)))


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    return int(font.size * 1.5)


def from_picture(levels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The image (h, w, c) float32 that `to_picture` wrote, of levels of 8 bits.

    Args:
        levels: (h, w) or (h, w, 3), of three channels; of other numbers panels from left to right.
        shape: of the image, (h, w, c).
    """
    if shape[2] != 3:
        grey = levels if levels.ndim == 2 else levels[..., 0]
        levels = np.stack(np.split(grey, shape[2], axis=1), axis=-1)
    return levels.reshape(shape).astype(np.float32) / 255


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise OutputError("labels need a Pillow with FreeType")
    return font


@functools.lru_cache(2**14)
def _drawn(character: str, font: ImageFont.FreeTypeFont) -> tuple[str, float]:
    """How a character is drawn, and how wide that is."""
    text = character
    if character == "\\":
        text = r"\\"  # or an escape could be what a label says
    elif not character.isprintable() or (not character.isascii() and _is_missing(character, font)):
        text = ascii(character)[1:-1]
    return text, font.getlength(text)


def _is_missing(character: str, font: ImageFont.FreeTypeFont) -> bool:
    box, nothing = font.getmask(character), font.getmask("\U0010fffe")
    return box.size == nothing.size and bytes(box) == bytes(nothing)


def _wrapped(label: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The lines of a label, each at most as wide as the picture (or of one character)."""
    if len(label) > _LABEL:
        half = _LABEL // 2
        label = f"{label[:half]}…{label[-half:]}"
    lines: list[list[tuple[str, float]]] = [[]]
    for character in label:
        drawn = _drawn(character, font)
        while lines[-1] and sum(length for _, length in (*lines[-1], drawn)) > width:
            # Between words, where the line has two.
            spaces = [i + 1 for i, (text, _) in enumerate(lines[-1]) if text == " "]
            end = max(spaces, default=len(lines[-1]))
            lines[-1:] = [lines[-1][:end], lines[-1][end:]]
        lines[-1].append(drawn)
    return ["".join(text for text, _ in line) for line in lines]


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG without a manifest."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def address_of(picture: Image.Image) -> str:
    """A picture as an address that holds it, `data:image/png;base64,…`, for a notebook's page."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"
