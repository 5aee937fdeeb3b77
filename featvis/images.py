"""Photographs from files, as the float images that models and parameterizations take."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from featvis.errors import InputError, printable

#: Formats whose files can hold several pictures; those of MPO and PSD are previews and layers.
_OF_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")


class ConversionWarning(UserWarning):
    """A picture file is not seen as it is: something was lost or made up on the way."""


def read_image(
    path: str | Path, size: tuple[int, int] | None = None, channels: int = 3
) -> np.ndarray:
    """Reads a picture file, upright, as (h, w, channels) float32 in [0, 1].

    What loses nothing, and what was asked for, goes unsaid: the EXIF rotation is applied, palettes
    become RGB, 16 bits of grey become [0, 1] by their full range, one channel is the luma of
    Rec. 601, grey is repeated for three, a larger picture is scaled down and cropped. Colour
    profiles are not applied.

    Args:
        path: any format that Pillow reads.
        size: (height, width): scaled to cover it, keeping its proportions, then cropped about the
            centre. None: as it is.
        channels: 3, or 1 for grey.

    Raises:
        InputError: no such file, not a picture, damaged, of 32 bits, another size than (height,
            width), or other channels.

    Warns:
        ConversionWarning: transparency was laid over mid-grey, 16 bits of colour (of PNG, TIFF
            and netpbm) were read as 8, CMYK was converted to RGB, only the first of several frames
            was read, or the picture is smaller than `size` and was enlarged.
    """
    image, changes = _read(path, size, channels)
    _warn_of(changes, 1)
    return image


def read_images(
    paths: Sequence[str | Path], size: tuple[int, int] | None = None, channels: int = 3
) -> np.ndarray:
    """Reads several picture files as `read_image` does, (n, h, w, channels).

    Args:
        paths: at least one.
        size: as of `read_image`. None: they are all of one size.
        channels: 3, or 1 for grey.

    Raises:
        InputError: as `read_image`, no file, or files of several sizes; names the file.

    Warns:
        ConversionWarning: as `read_image`, once for all files; names the first.
    """
    if isinstance(paths, (str, Path)):
        raise InputError(f"paths are a list of files, not {str(paths)!r}; read_image reads one")
    images: list[np.ndarray] = []
    changed: list[str] = []
    for path in paths:
        image, changes = _read(path, size, channels)
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{printable(path)} is {image.shape[0]}x{image.shape[1]} and "
                f"{printable(paths[0])} is "
                f"{images[0].shape[0]}x{images[0].shape[1]} (height x width); give size="
            )
        images.append(image)
        changed += changes
    if not images:
        raise InputError("there is no file to read: paths is empty")
    _warn_of(changed, len(images))
    return np.stack(images)


def _warn_of(changed: list[str], count: int) -> None:
    """Warns once of what became of the changed ones among `count` files."""
    if changed:
        several = f"{len(changed)} of {count} pictures were converted; the first is "
        first = changed[0] if count == 1 else several + changed[0]
        warnings.warn(first, ConversionWarning, stacklevel=3)


def _read(
    path: str | Path, size: tuple[int, int] | None, channels: int
) -> tuple[np.ndarray, list[str]]:
    """The image, and a line that names the file and what was lost or made up, if anything was."""
    if channels not in (1, 3):
        raise InputError(f"a picture file gives 1 or 3 channels; {channels} were asked for")
    if size is not None and not (
        isinstance(size, (tuple, list))
        and len(size) == 2
        and all(isinstance(length, (int, np.integer)) and length >= 1 for length in size)
    ):
        raise InputError(f"size is (height, width), two positive integers, not {size!r}")
    try:
        picture, changes = _decoded(path, channels)
        if size is not None:
            height, width = size
            if picture.height < height or picture.width < width:
                changes.append(
                    f"enlarged from {picture.height}x{picture.width} to cover {height}x{width}"
                )
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
        # Bicubic overshoots where levels are not of 8 bits.
        array = np.clip(np.asarray(picture, np.float32) / 255, 0, 1)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {printable(path)}") from error
    except Exception as error:
        # Of a damaged file Pillow's plugins raise anything: SyntaxError, IndexError, MemoryError.
        reason = printable(error) or type(error).__name__
        raise InputError(
            f"{printable(path)} is not a picture that can be read: {reason}"
        ) from error
    if array.ndim == 2:
        array = np.repeat(array[..., None], channels, axis=-1)
    return array, [f"{printable(path)}: {', '.join(changes)}"] if changes else []


def _decoded(path: str | Path, channels: int) -> tuple[Image.Image, list[str]]:
    """A picture file, upright, in levels from 0 to 255 of so many channels, and what was changed.

    Raises:
        Exception: whatever Pillow raises.
    """
    changes = []
    with Image.open(path) as opened:
        # Pillow reads a netpbm file of 16 bits as 32, scaled to 65535.
        if opened.mode in ("I", "F") and (opened.mode, opened.format) != ("I", "PPM"):
            raise ValueError("32 bits a channel have no fixed range; save it with 8 or 16 bits")
        if opened.format in _OF_FRAMES and getattr(opened, "is_animated", False):
            changes.append("only the first of several frames read")
        if not opened.mode.startswith("I") and _has_16_bits(opened):
            changes.append("16 bits of colour read as 8")
        if opened.mode == "CMYK":
            changes.append("CMYK converted to RGB")
        opened.load()
        picture = _upright(opened)
        see_through = False
        if picture.mode.startswith("I"):
            picture, see_through = _grey_of_16_bits(picture)
        elif picture.has_transparency_data:
            picture, see_through = _over_grey(picture)
        if see_through:
            changes.append("transparency laid over mid-grey")
        if picture.mode != "F":
            picture = picture.convert("L" if channels == 1 else "RGB")
    return picture, changes


#: What undoes each EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(picture: Image.Image) -> Image.Image:
    """A decoded picture as its EXIF data turn it; data that cannot be read turn nothing."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        turn = None
    return picture if turn is None else picture.transpose(turn)


def levels_of(path: str | Path) -> np.ndarray:
    """The levels of a picture file as they are kept in it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture)
    except Exception as error:
        reason = printable(error) or type(error).__name__
        raise InputError(
            f"{printable(path)} is not a picture that can be read: {reason}"
        ) from error


def _has_16_bits(opened: ImageFile.ImageFile) -> bool:
    """Whether a file that was not decoded yet has 16 bits a channel: PNG, TIFF or netpbm."""
    if not opened.tile:
        return False
    codec, _, _, arguments = opened.tile[0]
    if codec.startswith("ppm") and isinstance(arguments, tuple):
        return arguments[1] > 255
    # Pillow's name of the layout: alone, or the first of several arguments.
    return ";16" in str(arguments)


def _grey_of_16_bits(picture: Image.Image) -> tuple[Image.Image, bool]:
    """From 0 to 255 in floating point, over mid-grey, and whether any of it shows through."""
    levels = np.asarray(picture, np.float32)
    clear = levels == picture.info.get("transparency")
    grey = np.where(clear, np.float32(128), levels / 65535 * 255)
    return Image.fromarray(grey), bool(np.any(clear))


def _over_grey(picture: Image.Image) -> tuple[Image.Image, bool]:
    """The picture over mid-grey, and whether any of the grey shows through."""
    layer = picture.convert("RGBA")
    grey = Image.new("RGBA", layer.size, (128, 128, 128, 255))
    return Image.alpha_composite(grey, layer), bool(np.asarray(layer)[..., 3].min() < 255)


def image_files(folder: str | Path) -> list[Path]:
    """The picture files of a folder and its subfolders, by suffix, sorted.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {printable(folder)}")
    known = Image.registered_extensions()
    # A folder that cannot be listed has none.
    files = sorted(
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in known and os.path.isfile(os.path.join(root, name))
    )
    if not files:
        raise InputError(f"there is no picture in {printable(folder)}")
    return files


def read_batches(
    files: list[Path], size: tuple[int, int], channels: int, batch: int
) -> Iterator[np.ndarray]:
    """Images of files in batches (batch, h, w, c), the last shorter.

    Warns:
        UserWarning: a file that cannot be read was left out.
        ConversionWarning: as `read_image`, once, after the last batch.
    """
    held: list[np.ndarray] = []
    changed: list[str] = []
    for path in files:
        try:
            image, changes = _read(path, size, channels)
        except InputError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        held.append(image)
        changed += changes
        if len(held) == batch:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)
    _warn_of(changed, len(files))
