"""Pictures that featvis wrote, told from photographs by the manifest in them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from featvis.errors import InputError, printable
from featvis.files import open_file
from featvis.images import image_files

#: The PNG text chunk that holds the manifest of a picture that featvis wrote.
KEYWORD = "featvis"

_PNG = b"\x89PNG\r\n\x1a\n"


class OwnPictureWarning(UserWarning):
    """Pictures that featvis wrote are among natural images, and are left out."""


def natural_files(folder: str | Path) -> list[Path]:
    """The picture files of a folder as `image_files`, without those that featvis wrote.

    Raises:
        InputError: no such folder, or no picture of others in it.

    Warns:
        OwnPictureWarning: some are left out; says how many.
    """
    found = image_files(folder)
    files = [file for file in found if not is_own(file)]
    left = len(found) - len(files)
    shown = printable(folder)
    if not files:
        raise InputError(f"there is no picture in {shown} but {left} of featvis's own")
    if left:
        some = "1 picture" if left == 1 else f"{left} pictures"
        message = f"{some} of featvis's own in {shown} left out: no natural images"
        warnings.warn(message, OwnPictureWarning, stacklevel=2)
    return files


def is_own(path: str | Path) -> bool:
    """Whether a file is a PNG with a manifest: a picture that featvis wrote."""
    mark = KEYWORD.encode() + b"\0"
    try:
        with open_file(path) as file:
            if file.read(len(_PNG)) != _PNG:
                return False
            while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
                length = int.from_bytes(head[:4], "big")
                if head[4:] == b"iTXt" and file.read(len(mark)) == mark:
                    return True
                done = len(mark) if head[4:] == b"iTXt" else 0
                file.seek(length - done + 4, os.SEEK_CUR)
    except (InputError, OSError, ValueError):  # one that cannot be read is its reader's
        return False
    return False
