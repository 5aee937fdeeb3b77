"""Sheets: a page of thousands of tiles, to be searched, sorted and zoomed, and a page a tile.

A sheet is a folder of files that any browser shows from a disk or any host: no server, and nothing
from elsewhere. Only the tiles in sight are in the page (`static/sheet.js`), which therefore stays
as quick with 10,000; they have small pictures of their own, and the smallest are in sprites.
"""

from __future__ import annotations

import html
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from featvis.errors import InputError, OutputError, printable
from featvis.pages.static import static

#: Pixels of the longer side of a tile's own small picture, of those in sprites, and of crops.
THUMB, _SPRITE, CROP = 96, 32, 96
#: Tiles along and in a sprite.
_ALONG, _IN_SPRITE = 32, 1024
_QUALITY = 82
#: What says that a folder is a site, which may be written anew, and what of the folder is its own.
_MARK = "site.json"
_FILES = ("page.css", "site.css", "sheet.js")
#: Nothing is loaded from anywhere else, and no script is in a page.
_POLICY = "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'"


def page(
    title: str, body: str, *, up: str = "", kind: str = "", scripts: Sequence[str] = ()
) -> str:
    """An HTML page of a site.

    Args:
        title: plain text.
        body: HTML.
        up: the way to the site's own folder, as "../".
        kind: class of the body.
        scripts: files that it runs, in their order.
    """
    run = "".join(f'<script src="{html.escape(one)}" defer></script>\n' for one in scripts)
    shape = f' class="{kind}"' if kind else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        f'<link rel="icon" href="data:,">\n<link rel="stylesheet" href="{up}page.css">\n'
        f'<link rel="stylesheet" href="{up}site.css">\n{run}</head>\n'
        f"<body{shape}>\n{body}\n</body>\n</html>\n"
    )


def shown(value: Any) -> str:
    """A figure in a page: 3 significant digits, all those before the point; a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        if value == 0:
            return "0"
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value + 0.0:#.3g}".rstrip(".")
    return str(value)


def figures_table(rows: Sequence[tuple[str, Any]]) -> str:
    """A table of names and figures, as HTML."""
    cells = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(shown(value))}</td></tr>'
        for name, value in rows
    )
    return f"<table><tbody>{cells}</tbody></table>"


def recipe(command: str, manifest: Mapping[str, Any]) -> str:
    """How a picture is made again, as HTML: the command, and the manifest to open."""
    kept = {k: v for k, v in manifest.items() if k not in ("arrays", "shared")}
    text = json.dumps(kept, indent=1)
    return (
        f"<p><code>{html.escape(command)}</code> makes the picture again, in the folder of this "
        "page or with its file in yours: the file holds the manifest.</p>"
        f'<details><summary>Manifest</summary><pre tabindex="0">{html.escape(text)}</pre>'
        "</details>"
    )


def nav(links: Sequence[tuple[str, str]]) -> str:
    """Links to other pages, (address, text) each, as HTML."""
    listed = "".join(f'<a href="{html.escape(to)}">{html.escape(text)}</a>' for to, text in links)
    return f'<nav aria-label="Pages">{listed}</nav>'


def card(folder: str, picture: str, title: str, text: str) -> str:
    """An entry of a list of sheets, as HTML: a picture of the sheet's folder, a title, a line."""
    return (
        f'<li><a href="{quote(folder)}/index.html"><img src="{quote(folder)}/{quote(picture)}" '
        f'width="{THUMB}" height="{THUMB}" alt=""><strong>{html.escape(title)}</strong><br>'
        f"{html.escape(text)}</a></li>"
    )


def picture_figure(file: str, size: tuple[int, int], alternative: str, caption: str) -> str:
    """A picture that opens its file, of (width, height), as HTML."""
    return (
        f'<figure><a href="{quote(file)}"><img src="{quote(file)}" width="{size[0]}" '
        f'height="{size[1]}" alt="{html.escape(alternative)}"></a>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def in_square(picture: Image.Image) -> Image.Image:
    """A picture within a square of `CROP` pixels, the rest of which is grey."""
    square = Image.new(picture.mode, (CROP, CROP), "grey")
    scale = CROP / max(picture.size)
    width, height = (max(1, round(scale * side)) for side in picture.size)
    # What is magnified much shows its pixels.
    method = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR
    small = picture.resize((width, height), method, reducing_gap=2.0)
    square.paste(small, ((CROP - width) // 2, (CROP - height) // 2))
    return square


def crops_list(
    folder: Path,
    name: str,
    crops: Sequence[Image.Image],
    stems: Sequence[str],
    figures: Sequence[float] = (),
) -> str:
    """Photographs with their names, as HTML; one file has them all.

    Args:
        folder: of the page.
        name: of the file.
        crops: at most 16.
        stems: names of the photographs' files, without suffix.
        figures: below each name; none for no figures.
    """
    if not crops:
        return ""
    strip = Image.new(crops[0].mode, (CROP * len(crops), CROP))
    for at, crop in enumerate(crops):
        strip.paste(in_square(crop), (CROP * at, 0))
    write(folder / name, jpeg(strip))
    listed = []
    for at, stem in enumerate(stems):
        said = html.escape(stem.replace("_", " "))
        figure = f"<br>{shown(figures[at])}" if figures else ""
        listed.append(
            f'<li><img class="crop-{at}" src="{name}" width="{CROP}" height="{CROP}" alt="" '
            f'loading="lazy">{said}{figure}</li>'
        )
    return f'<ul class="crops" role="list">{"".join(listed)}</ul>'


# ---- files ---------------------------------------------------------------------------------


def write(path: Path, content: bytes | str) -> None:
    """Writes a file of a site.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.write_bytes(
            content.encode("utf-8", "replace") if isinstance(content, str) else content
        )
    except OSError as error:
        raise OutputError(f"cannot write {printable(path)}: {error.strerror or error}") from error


def check_site_folder(path: str | Path) -> None:
    """Checks that a site may be written to a folder: there is none, an empty one, or a site.

    Raises:
        InputError: there is something else.
    """
    _not_of_site(Path(path))


def _not_of_site(path: Path) -> list[str]:
    """What is in the folder of an earlier site and not of it, as .git or CNAME.

    Raises:
        InputError: there is something, and it is no site.
    """
    if not os.path.exists(path):
        return []
    there = os.listdir(path) if path.is_dir() else [path.name]
    try:
        own = json.loads((path / _MARK).read_bytes())["names"]
    except (OSError, ValueError, KeyError, TypeError):
        own = None
    if there and not isinstance(own, list):
        raise InputError(f"{printable(path)} is no site, and not empty: give another folder")
    return sorted(one for one in there if one not in own)


@contextmanager
def site_folder(path: str | Path) -> Iterator[Path]:
    """A folder that becomes a site when all of it is there; until then what was there stays.

    Args:
        path: of the site: none there yet, an empty folder, or an earlier site, which it replaces;
            what else is beside an earlier site's own files and folders stays.

    Yields:
        The folder that is to be filled.

    Raises:
        InputError: there is something else.
        OutputError: it cannot be written.
    """
    path = Path(path)
    kept = _not_of_site(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write {printable(path)}: {error.strerror or error}") from error
    try:
        draft.chmod(0o755)
        for name in _FILES:
            write(draft / name, static(name))
        yield draft
        names = sorted([_MARK, *os.listdir(draft)])
        write(draft / _MARK, json.dumps({"featvis_site": 1, "names": names}) + "\n")
        for one in kept:
            if one in names:
                raise InputError(
                    f"{printable(path)} has {printable(one)}, which is not of its site: move it, "
                    "or give another folder"
                )
        if path.exists():
            old = draft.with_name(f"{draft.name}-before")
            path.rename(old)
            draft.rename(path)
            for one in kept:
                (old / one).rename(path / one)
            shutil.rmtree(old)
        else:
            draft.rename(path)
    except OSError as error:
        raise OutputError(f"cannot write {printable(path)}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def jpeg(picture: Image.Image) -> bytes:
    """A picture as JPEG, in full colour resolution."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


class Thumbs:
    """The small pictures of a sheet's tiles: a file each, and sprites.

    Args:
        folder: of the sheet.
        size: (width, height) of the tiles' pictures.
        count: of tiles.
        grey: whether they have no colours.
    """

    def __init__(self, folder: Path, size: tuple[int, int], count: int, grey: bool) -> None:
        self.folder, self.size = folder, size
        longest = max(size)
        self.thumb = self._within(min(THUMB, longest))
        self.small = self._within(_SPRITE)
        rows = -(-min(count, _IN_SPRITE) // _ALONG)
        sheet = (_ALONG * _SPRITE, rows * self.small[1])
        sprites = -(-count // _IN_SPRITE)
        self._sprites = [Image.new("L" if grey else "RGB", sheet, "grey") for _ in range(sprites)]

    def _within(self, side: int) -> tuple[int, int]:
        width, height = (max(1, round(side * length / max(self.size))) for length in self.size)
        return width, height

    def add(self, tile: int, name: str, picture: Image.Image) -> None:
        """Writes a tile's small picture, and puts it into its sprite.

        Args:
            tile: its place among the sheet's, from 0.
            name: of its page.
            picture: of the sheet's size.
        """
        thumb = picture.resize(self.thumb, Image.Resampling.BICUBIC, reducing_gap=2.0)
        write(self.folder / f"{name}.jpg", jpeg(thumb))
        at = tile % _IN_SPRITE
        corner = at % _ALONG * _SPRITE, at // _ALONG * self.small[1]
        small = thumb.resize(self.small, Image.Resampling.BOX)
        self._sprites[tile // _IN_SPRITE].paste(small, corner)

    def finish(self) -> dict[str, int]:
        """Writes the sprites; how they are laid out."""
        for number, sprite in enumerate(self._sprites):
            write(self.folder / f"sprite-{number}.jpg", jpeg(sprite))
        return {
            "side": _SPRITE, "height": self.small[1], "columns": _ALONG, "count": _IN_SPRITE,
        }  # fmt: skip


# ---- the page of a sheet -------------------------------------------------------------------


@dataclass
class Sheet:
    """What a sheet's page shows and how it is sorted; every list has an entry a tile.

    Attributes:
        title: plain text.
        about: HTML below it.
        names: of the tiles' pages, without suffix.
        full: names of the files of their pictures.
        size: (width, height) of these.
        prefix: what a name is written after, as "block8:".
        nouns: what one tile, and several, are called.
        labels: names of classes.
        figures: by a key, a title and the values, NaN where there is none.
        files: names that tiles can be found by.
        seen: places in `files` of each tile's.
        nearest: the tiles that are most like each.
        likeness: all tiles, each beside those like it.
        off: tiles that are shown faded, and why.
        places: (row, column) of each; None of a sheet that flows.
        extent: (rows, columns) of a sheet with places.
        photographs: whether each tile has a photograph, `<name>-photograph.jpg`.
        side: pixels of a tile at first.
    """

    title: str
    about: str
    names: Sequence[str]
    full: Sequence[str]
    size: tuple[int, int]
    prefix: str = ""
    nouns: tuple[str, str] = ("unit", "units")
    labels: Sequence[str] | None = None
    figures: Mapping[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    files: Sequence[str] = ()
    seen: Sequence[Sequence[int]] | None = None
    nearest: Sequence[Sequence[int]] | None = None
    likeness: Sequence[int] | None = None
    off: tuple[Sequence[bool], str] | None = None
    places: Sequence[tuple[int, int]] | None = None
    extent: tuple[int, int] = (0, 0)
    photographs: bool = False
    side: int = 96

    def write(self, folder: Path, sprite: Mapping[str, int], nav: str) -> None:
        """Writes the page and its data.

        Args:
            folder: of the sheet, in that of the site.
            sprite: as `Thumbs.finish` gives it.
            nav: HTML of links, before the title.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(self._data(sprite), separators=(",", ":"), allow_nan=False)
        # In a script of its own, where nothing ends it early.
        write(folder / "data.js", f"window.featvisSheet = {text};\n")
        body = (
            f"<main>\n{nav}\n<h1>{html.escape(self.title)}</h1>\n{self.about}\n{self._controls()}\n"
        )
        one, many = self.nouns
        body += (
            f'<p class="unseen" id="keys">Arrow keys move among the {many}, Enter opens one, / '
            "goes to the search, + and - change the size.</p>\n"
            f'<div id="sheet" role="region" aria-label="{html.escape(self.title)}" tabindex="-1">'
            f'<p class="none note" hidden>No {one} is found.</p>'
            f'<ul role="list" aria-describedby="keys"></ul></div>\n'
            f"<noscript><p>The sheet is drawn by a script; the {many} are "
            f'<a href="all.html">listed here</a> too.</p></noscript>\n</main>'
        )
        scripts = ("data.js", "../sheet.js")
        made = page(self.title, body, up="../", kind="sheet-page", scripts=scripts)
        write(folder / "index.html", made)
        listed = "".join(
            f'<li><a href="{html.escape(name)}.html">{html.escape(self._named(place))}</a></li>'
            for place, name in enumerate(self.names)
        )
        body = f"<main>\n{nav}\n<h1>{html.escape(self.title)}</h1>\n<ul>{listed}</ul>\n</main>"
        write(folder / "all.html", page(self.title, body, up="../"))

    def _named(self, place: int) -> str:
        label = self.labels[place] if self.labels else ""
        return f"{self.prefix}{self.names[place]}" + (f" {label}" if label else "")

    def _data(self, sprite: Mapping[str, int]) -> dict[str, Any]:
        data: dict[str, Any] = {
            "prefix": self.prefix, "names": list(self.names), "full": list(self.full),
            "size": list(self.size), "one": self.nouns[0], "many": self.nouns[1],
            "thumb": min(THUMB, max(self.size)), "sprite": dict(sprite), "side": str(self.side),
            "figures": {
                key: {"title": title, "of": _plain(values)}
                for key, (title, values) in self.figures.items()
            },
        }  # fmt: skip
        for key in ("labels", "seen", "nearest", "likeness", "places"):
            value = getattr(self, key)
            if value is not None:
                data[key] = [list(one) for one in value] if key in _PAIRS else list(value)
        if self.files:
            data["files"] = list(self.files)
        if self.off is not None:
            data |= {"off": [int(one) for one in self.off[0]], "offTitle": self.off[1]}
        if self.places is not None:
            data |= {"rows": self.extent[0], "columns": self.extent[1]}
        return data

    def _controls(self) -> str:
        parts = [
            '<label for="find">Find</label><input id="find" type="search" autocomplete="off" '
            f'placeholder="{html.escape(self._example())}">'
        ]
        if self.places is None:
            choices = [("number", "number")]
            choices += [("name", "name")] if self.labels else []
            choices += [(key, title) for key, (title, _) in self.figures.items()]
            choices += [("likeness", "likeness")] if self.likeness is not None else []
            listed = "".join(
                f'<option value="{html.escape(key)}">{html.escape(title)}</option>'
                for key, title in choices
            )
            parts.append(f'<label>Sort by <select id="sort">{listed}</select></label>')
            parts.append('<button id="down" type="button" aria-pressed="false">Descending</button>')
        if self.photographs:
            parts.append(
                '<label>Show <select id="show"><option value="">pictures</option>'
                '<option value="photograph">photographs</option></select></label>'
            )
        parts.append(
            '<span><button id="smaller" type="button" aria-label="Smaller tiles">−</button> '
            '<button id="larger" type="button" aria-label="Larger tiles">+</button></span>'
        )
        parts.append('<output id="told" role="status"></output>')
        return f'<div class="controls" role="search">{"".join(parts)}</div>'

    def _example(self) -> str:
        if self.labels and any(self.labels):
            first = next(label for label in self.labels if label)
            return re.split("[,;]", first)[0][:24]
        last = self.names[-1] if self.names else "0"
        return f"0-{last}" if self.files == () else f"0-{last}, or a photograph"


_PAIRS = ("seen", "nearest", "places")


def _plain(values: np.ndarray) -> list[float | int | None]:
    """Numbers of 5 significant digits, None where there is none."""
    found: list[float | int | None] = []
    for value in np.asarray(values, np.float64).tolist():
        if not math.isfinite(value):
            found.append(None)
        else:
            short = float(f"{value:.5g}")
            found.append(int(short) if short.is_integer() else short)
    return found


def walk(nearest: Sequence[Sequence[int]]) -> list[int]:
    """An order in which each is beside one that is like it, as far as that goes.

    From the first on always to the nearest one that has not been; where there is none, to the first
    that has not been.

    Args:
        nearest: of each its nearest ones, the nearest first.
    """
    been = [False] * len(nearest)
    found: list[int] = []
    first, at = 0, 0
    while len(found) < len(nearest):
        found.append(at)
        been[at] = True
        following = next((one for one in nearest[at] if not been[one]), None)
        while following is None and first < len(nearest):
            following = None if been[first] else first
            first += following is None
        at = following if following is not None else at
    return found
