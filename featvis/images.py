"""Photographs from files, as the float images that models and parameterizations take."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from featvis.errors import InputError


def read_image(
    path: str | Path, size: tuple[int, int] | None = None, channels: int = 3
) -> np.ndarray:
    """Reads a picture file, upright, as (h, w, channels) float32 in [0, 1].

    EXIF rotation is applied. Transparency is laid over mid-grey, 16 bits become [0, 1] by their
    full range (colours of 16 bits are read as 8), palettes and CMYK become RGB; one channel is the
    luma of Rec. 601.

    Args:
        path: any format that Pillow reads.
        size: (height, width): scaled to cover it, keeping its proportions, then cropped about the
            centre. None: as it is.
        channels: 3, or 1 for grey.

    Raises:
        InputError: no such file, not a picture, damaged, of 32 bits, or other channels.
    """
    if channels not in (1, 3):
        raise InputError(f"a picture file gives 1 or 3 channels; {channels} were asked for")
    try:
        with Image.open(path) as opened:
            # Pillow reads a netpbm file of 16 bits as 32, scaled to 65535.
            if opened.mode in ("I", "F") and (opened.mode, opened.format) != ("I", "PPM"):
                raise ValueError("32 bits a channel have no fixed range; save it with 8 or 16 bits")
            picture = _as_8_bits(ImageOps.exif_transpose(opened))
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a picture that can be read: {error}") from error
    picture = picture.convert("L" if channels == 1 else "RGB")
    if size is not None:
        picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BICUBIC)
    array = np.asarray(picture, np.float32) / 255
    return array[..., None] if channels == 1 else array


def _as_8_bits(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        levels = np.asarray(picture, np.float64)
        return Image.fromarray(np.uint8(np.clip(levels / 65535, 0, 1) * 255 + 0.5))
    if picture.has_transparency_data:
        grey = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        return Image.alpha_composite(grey, picture.convert("RGBA"))
    return picture


def image_files(folder: str | Path) -> list[Path]:
    """The picture files of a folder and its subfolders, by suffix, sorted.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    known = Image.registered_extensions()
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in known and p.is_file())
    if not files:
        raise InputError(f"there is no picture in {folder}")
    return files


def read_batches(
    files: list[Path], size: tuple[int, int], channels: int, batch: int
) -> Iterator[np.ndarray]:
    """Images of files in batches (batch, h, w, c), the last shorter; warns of unreadable ones."""
    held: list[np.ndarray] = []
    for path in files:
        try:
            held.append(read_image(path, size, channels))
        except InputError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        if len(held) == batch:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)
