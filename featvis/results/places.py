"""Where the pictures of a command go, tried before anything is computed."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from featvis.files import is_folder, name_limit, output_path, picture_name, shorten_name


class Places(NamedTuple):
    """Where several pictures go, in their order.

    Attributes:
        pictures: paths of the PNGs.
        sheet: of their grid; None for one picture.
        film: of the animation; None where there is none.
    """

    pictures: list[Path]
    sheet: Path | None
    film: Path | None


def places_for(
    model: str, names: Sequence[str], output: str | None, film: str | None = None
) -> Places:
    """Return where each picture goes, and make the folder.

    Args:
        model: the network's name, for pictures in a folder.
        names: what each picture shows, as parts of files' names.
        output: a file or a folder; None: this folder.
        film: the same of an animation; None for none.

    Raises:
        InputError: another suffix.
        OutputError: a folder is missing or cannot be written to.
    """
    if film is not None:
        named = picture_name(model, names[0] if len(names) == 1 else "way")
        reel = output_path(film, (".webp", ".gif"), name=named)
    else:
        reel = None
    output = output or "./"
    before = picture_name(model, "") if is_folder(output) else ""
    sheet = output_path(output, name=f"{before}grid")
    if len(names) == 1 and not before:
        return Places([sheet], None, reel)
    before = before or f"{sheet.stem}-"
    # Room for a number and for the longest suffix.
    room = name_limit(sheet.parent) - len("-9999.json")
    taken: set[str] = set()
    paths = []
    for name in names:
        stem, number = shorten_name(before + name, room), 1
        # Some file systems take a and A, or two ways to write é, for one name.
        while (key := unicodedata.normalize("NFC", stem).casefold()) in taken:
            tail = f"-{number}"
            stem, number = shorten_name(before + name, room - len(tail)) + tail, number + 1
        taken.add(key)
        paths.append(output_path(sheet.parent / f"{stem}.png"))
    return Places(paths, sheet if len(names) > 1 else None, reel)
