"""Photographs from files and arrays, as the float images that models and parameterizations take."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from PIL import ExifTags, Image, ImageFile, ImageOps

from featvis.errors import InputError, printable

#: Formats whose files can hold several pictures; those of MPO and PSD are previews and layers.
_OF_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")


Images = (
    ArrayLike
    | str
    | Path
    | Image.Image
    | Sequence[str | Path | Image.Image | np.ndarray | ArrayLike]
)
"""Images as anybody has them: see `as_images`."""


class ConversionWarning(UserWarning):
    """A picture file was converted: something was lost or made up on the way."""


def read_image(
    path: str | Path, size: tuple[int, int] | None = None, *, channels: int = 3
) -> np.ndarray:
    """Read a picture file, upright, as (h, w, channels) float32 in [0, 1].

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
    image, changes = read_noted(path, size, channels)
    warn_of_changes(changes, 1)
    return image


def read_images(
    paths: Sequence[str | Path], size: tuple[int, int] | None = None, *, channels: int = 3
) -> np.ndarray:
    """Read several picture files as `read_image` does, (n, h, w, channels).

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
        image, changes = read_noted(path, size, channels)
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
    warn_of_changes(changed, len(images))
    return np.stack(images)


def warn_of_changes(changed: list[str], count: int) -> None:
    """Warns once of what became of the changed ones among `count` files."""
    if changed:
        several = f"{len(changed)} of {count} pictures were converted; the first is "
        first = changed[0] if count == 1 else several + changed[0]
        warnings.warn(first, ConversionWarning, stacklevel=3)


def _opened(path: str | Path | Image.Image) -> Any:
    return contextlib.nullcontext(path) if isinstance(path, Image.Image) else Image.open(path)


def read_noted(
    path: str | Path | Image.Image, size: tuple[int, int] | None, channels: int
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
    except IsADirectoryError as error:
        raise InputError(f"{printable(path)} is a folder; expected a picture file") from error
    except Exception as error:
        # Of a damaged file Pillow's plugins raise anything: SyntaxError, IndexError, MemoryError.
        reason = printable(error) or type(error).__name__
        raise InputError(
            f"{printable(path)} is not a picture that can be read: {reason}"
        ) from error
    if array.ndim == 2:
        array = np.repeat(array[..., None], channels, axis=-1)
    return array, [f"{printable(path)}: {', '.join(changes)}"] if changes else []


def _decoded(path: str | Path | Image.Image, channels: int) -> tuple[Image.Image, list[str]]:
    """A picture file, upright, in levels from 0 to 255 of so many channels, and what was changed.

    Raises:
        Exception: whatever Pillow raises.
    """
    changes = []
    with _opened(path) as opened:
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
    if not getattr(opened, "tile", None):
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
    if not isinstance(folder, (str, os.PathLike)) or not str(folder):
        raise InputError(f"a folder of pictures is a path; got {printable(repr(folder), 80)}")
    folder = Path(folder)
    if not os.path.isdir(folder):  # a name that is too long is none
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
) -> Iterator[tuple[np.ndarray, list[Path]]]:
    """Images of files in batches (batch, h, w, c), the last shorter, and their files.

    Warns:
        UserWarning: a file that cannot be read was left out.
        ConversionWarning: as `read_image`, once, after the last batch.
    """
    held: list[np.ndarray] = []
    of: list[Path] = []
    changed: list[str] = []
    for path in files:
        try:
            image, changes = read_noted(path, size, channels)
        except InputError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        held.append(image)
        of.append(path)
        changed += changes
        if len(held) == batch:
            yield np.stack(held), of
            held, of = [], []
    if held:
        yield np.stack(held), of
    warn_of_changes(changed, len(files))


# ---- images of any kind --------------------------------------------------------------------


def of_files(images: Images) -> bool:
    """Whether images are files or Pillow pictures, which are scaled and cropped to a size."""
    several = list(images) if isinstance(images, (list, tuple)) else [images]
    return bool(several) and all(isinstance(one, (str, Path, Image.Image)) for one in several)


def as_images(
    images: Images,
    channels: int,
    size: tuple[int, int] | None = None,
    *,
    what: str = "images",
    dtype: Any = np.float32,
) -> np.ndarray:
    """Images (n, h, w, c) in [0, 1] from whatever images are given as; one alone is n = 1.

    Every function of featvis that takes images takes them by this one.

    Args:
        images: floating numbers in [0, 1], or uint8 from 0 to 255, as an array of NumPy, JAX or
            PyTorch (n, h, w, c) or (h, w, c); the path of a picture file (`read_image`) or a
            Pillow picture; or a list of any of these.
        channels: that they should have.
        size: (height, width) that files and Pillow pictures are scaled and cropped to; arrays keep
            theirs. None: they are as they are.
        what: the argument's name, for messages.
        dtype: of the numbers.

    Raises:
        InputError: anything else; says what was given, what is expected and the likely mend.

    Warns:
        ConversionWarning: as `read_image`.
    """
    array = image_array(images, channels, size, what=what, dtype=dtype)
    return array[None] if array.ndim == 3 else array


def image_array(
    images: Images,
    channels: int,
    size: tuple[int, int] | None = None,
    *,
    what: str = "images",
    dtype: Any = np.float32,
) -> np.ndarray:
    """As `as_images`, but one image alone stays (h, w, c)."""
    if of_files(images):
        if not isinstance(images, (list, tuple)):
            return read_image(images, size, channels=channels).astype(dtype)  # type: ignore[arg-type]
        return read_images(images, size, channels=channels).astype(dtype)
    if isinstance(images, (list, tuple)) and any(_is_one(one) for one in images):
        each = [image_array(one, channels, size, what=what, dtype=dtype) for one in images]
        shapes = sorted({one.shape for one in each})
        if len(shapes) > 1 or len(shapes[0]) != 3:
            raise InputError(
                f"{what} in a list are (h, w, {channels}) each, of one size; got "
                f"{' and '.join(map(str, shapes))}"
            )
        return np.stack(each)
    try:
        # What NumPy makes of ragged lists it says in several lines.
        array = np.asarray(images)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{what} must be {_EXPECTED}; got {_kind(images)}: {reason}") from error
    check_numbers(array, what)
    _check_axes(array.shape, channels, what)
    if array.dtype == np.uint8:
        return array.astype(dtype) / np.asarray(255, dtype)
    check_range(array, what)
    return array.astype(dtype)


#: What images may be, for messages.
_EXPECTED = "an array of numbers in [0, 1], uint8 from 0 to 255, picture files, or a list of them"


def _is_one(value: Any) -> bool:
    """Whether a member of a list is an image, and not a row of one."""
    return isinstance(value, (str, Path, Image.Image)) or getattr(value, "ndim", 0) >= 3


def _kind(images: Any) -> str:
    shape = getattr(images, "shape", None)
    return type(images).__name__ if shape is None else f"{type(images).__name__} {tuple(shape)}"


def check_numbers(array: Any, what: str = "images") -> None:
    """Checks the type of an array of images; it may be traced.

    Raises:
        InputError: neither floating numbers nor uint8; says the likely mend.
    """
    kind = np.dtype(array.dtype)
    if kind == np.uint8 or jnp.issubdtype(kind, jnp.floating):
        return
    mend = ""
    if kind.kind == "b":
        mend = ": a mask as an image is .astype(numpy.float32)"
    elif kind == np.uint16:
        mend = ": divide 16 bits by 65535"
    elif kind.kind in "iu":
        mend = ": levels from 0 to 255 are .astype(numpy.uint8), or divide by 255"
    elif kind.kind == "c":
        mend = ": take the real part, or the magnitude"
    elif kind.kind in "US":
        mend = ": the paths of pictures are a list of str"
    elif kind.kind == "O" and array.ndim == 0:
        raise InputError(f"{what} must be {_EXPECTED}; got {printable(repr(array.item()), 80)}")
    raise InputError(f"{what} must be {_EXPECTED}; got an array {array.shape} of {kind}{mend}")


def _check_axes(shape: tuple[int, ...], channels: int, what: str) -> None:
    if len(shape) in (3, 4) and 0 not in shape:
        first = shape[-3]
        if shape[-1] == channels or first != channels:
            return
        raise InputError(
            f"{what} have their channels last, (n, h, w, {channels}) or one of them; got an array "
            f"{shape}: numpy.moveaxis({what}, -3, -1) puts them there"
        )
    mend = ""
    if len(shape) == 2 and channels == 1 and 0 not in shape:
        mend = f": one grey image is {what}[..., None]"
    elif len(shape) == 2 and 0 not in shape:
        mend = f": grey for {channels} channels is numpy.stack([{what}] * {channels}, -1)"
    raise InputError(
        f"{what} must be (n, h, w, {channels}) or one of them; got an array {shape}{mend}"
    )


#: How far a number may be out of [0, 1]: by the rounding of what computed it.
ROUNDING = 1e-6


def check_range(array: np.ndarray, what: str = "images") -> None:
    """Checks that numbers are in [0, 1], up to `ROUNDING`.

    Raises:
        InputError: some are not; says how far, and the likely mend.
    """
    # Written so that a NaN fails too.
    low, high = float(array.min()), float(array.max())
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return
    mend = ""
    if not np.isfinite(array).all():
        number = int(np.count_nonzero(~np.isfinite(array)))
        mend = f": {number} are not finite"
    elif low >= 0 and 1.5 < high <= 255:
        mend = ": divide by 255"
    elif low >= 0 and 255 < high <= 65535:
        mend = ": divide by 65535"
    elif low >= -1 and high <= 1:
        mend = f": from [-1, 1] they are ({what} + 1) / 2"
    elif low > -4 and high < 4:
        mend = (
            ": normalised ones need their mean and deviation undone, which is the model's own part"
        )
    raise InputError(f"{what} must be in [0, 1]; got values from {low:.3g} to {high:.3g}{mend}")
