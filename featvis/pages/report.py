"""Reports: a folder with a page of figures and pictures, and the facts of how they were made."""

from __future__ import annotations

import argparse
import html
import io
import json
import math
import re
import shlex
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from featvis import checks
from featvis.errors import InputError, OutputError
from featvis.files import output_path, write_file
from featvis.images import check_range
from featvis.pages.static import static
from featvis.pictures import grid, to_picture
from featvis.results import Result
from featvis.results.manifest import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = "\n" + static("page.css")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
<footer>
<h2>How this was made</h2>
<dl>
{facts}
</dl>
<p><a href="manifest.json">manifest.json</a> has all of this and every figure of the tables in full.
</p>
</footer>
</body>
</html>
"""


class Report:
    """A folder with an HTML page, its pictures and a manifest; every experiment writes one.

    What is added appears on the page in that order; `write` makes the page at the end. The folder
    belongs to the report: files of the same names, from an earlier report say, are overwritten,
    and others are left alone. The page has no scripts and needs nothing from outside the folder.

    ```python
    report = Report("out", "What do the first layers see?")
    report.table(["layer", "score"], [["block2", 3.21], ["block4", 5.02]])
    report.pictures("units", result.images, ["block2:1", "block4:7"])
    report.write(seed=0, seconds=12.5)
    ```
    """

    def __init__(self, folder: str | Path, title: str, summary: str = "") -> None:
        """Makes the folder, where it is not there yet.

        Args:
            folder: where the report goes.
            title: of the page, plain text.
            summary: a paragraph below the title, plain text.

        Raises:
            OutputError: the folder cannot be made.
        """
        self.folder = Path(folder)
        self.title = title
        self._body: list[str] = []
        self._names: set[str] = set()
        self._tables: list[dict[str, Any]] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
        if summary:
            self.text(summary)

    def heading(self, text: str) -> None:
        """Begins a section, with a line of plain `text` over it."""
        self._body.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, paragraph: str) -> None:
        """Adds a `paragraph` of plain text."""
        self._body.append(f"<p>{html.escape(paragraph)}</p>")

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[object]], caption: str = ""
    ) -> None:
        """Adds a table; the manifest has its values in full.

        Args:
            header: names of the columns; the first column names the rows.
            rows: of as many cells: text, or numbers, of which those that are no integers are shown
                with 4 significant digits (NaN and infinity as "not finite", in the manifest null).
            caption: plain text.

        Raises:
            InputError: no column, a row of another length, or a cell that is an array.
        """
        if not header:
            raise InputError("a table has at least one column; its header is empty")
        plain = []
        for number, row in enumerate(rows):
            if len(row) != len(header):
                raise InputError(
                    f"row {number} has {len(row)} cells; the header has {len(header)}: "
                    f"{', '.join(header)}"
                )
            plain.append([_plain(cell) for cell in row])
            for name, cell in zip(header, plain[-1], strict=True):
                if isinstance(cell, (list, dict)):
                    raise InputError(
                        f"row {number}, column {name!r}: a cell is one number or text, not {cell}"
                    )
        numeric = [
            bool(plain) and all(isinstance(row[i], (int, float, type(None))) for row in plain)
            for i in range(len(header))
        ]
        aligned = [' class="number"' if one else "" for one in numeric]
        head = "".join(
            f'<th scope="col"{kind}>{html.escape(name)}</th>'
            for name, kind in zip(header, aligned, strict=True)
        )
        lines = []
        for row in plain:
            first, *others = (html.escape(_shown(cell)) for cell in row)
            cells = [f'<th scope="row"{aligned[0]}>{first}</th>']
            cells += [
                f"<td{kind}>{cell}</td>" for cell, kind in zip(others, aligned[1:], strict=True)
            ]
            lines.append(f"<tr>{''.join(cells)}</tr>")
        label = html.escape(caption or f"table {len(self._tables) + 1}")
        self._body.append(
            f"<figure>{_caption(caption)}\n"
            # A box that scrolls takes the focus, or the keyboard could not scroll it.
            f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">\n'
            f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
            + "\n".join(lines)
            + "\n</tbody>\n</table>\n</div></figure>"
        )
        self._tables.append({"caption": caption, "header": list(header), "rows": _strict(plain)})

    def pictures(
        self,
        name: str,
        images: Sequence[np.ndarray],
        labels: Sequence[str] = (),
        *,
        columns: int | None = None,
        zoom: int = 1,
        caption: str = "",
    ) -> Path:
        """Adds images as one picture, side by side.

        Args:
            name: of the file without its suffix; letters, digits, `_`, `-` and `.`.
            images: at least one, all of one shape (h, w, c), values in [0, 1].
            labels: one line under each image; none for no labels.
            columns: of the grid, at least 1; by default as square as it goes.
            zoom: pixels of the picture along a pixel of the images, at least 1.
            caption: plain text.

        Returns:
            The path of the PNG.

        Raises:
            InputError: no images, of several shapes or out of [0, 1], another number of labels, or
                a name that is no plain file name or is already in the report.
            OutputError: it cannot be written.
        """
        zoom = checks.integer(self, "zoom", zoom, 1)
        if columns is not None:
            columns = checks.integer(self, "columns", columns, 1)
        arrays = _checked(name, images)
        pictures = [to_picture(image) for image in arrays]
        pictures = [
            p.resize((zoom * p.width, zoom * p.height), Image.Resampling.NEAREST) for p in pictures
        ]
        sheet = grid(pictures, labels, columns=columns)
        path = self._claim(name)
        count = "1 picture" if len(arrays) == 1 else f"{len(arrays)} pictures"
        alternative = f"{count}: {', '.join(labels) or name}"
        return self._add(path, _png(sheet), alternative, _caption(caption))

    def figure(self, name: str, figure: Figure, caption: str = "") -> Path:
        """Adds a matplotlib figure.

        Args:
            name: as of `pictures`.
            figure: drawn; its titles and the names of its axes become the alternative text.
            caption: plain text.

        Returns:
            The path of the PNG.

        Raises:
            InputError: a name that is no plain file name or is already in the report.
            OutputError: it cannot be written.
        """
        path = self._claim(name)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        words = [
            word
            for axes in figure.axes
            for word in (axes.get_title(), axes.get_ylabel(), axes.get_xlabel())
            if word
        ]
        alternative = f"plot: {', '.join(dict.fromkeys(words)) or name}"
        return self._add(path, buffer.getvalue(), alternative, _caption(caption))

    def result(
        self,
        name: str,
        result: Result,
        labels: Sequence[str] = (),
        *,
        columns: int | None = None,
        caption: str = "",
    ) -> Path:
        """Adds a result as `Result.save` writes it: `replay` makes it again from either file.

        Args:
            name: as of `pictures`.
            result: of one image or several.
            labels: one line under each image; none for no labels.
            columns: of the grid, at least 1; by default as square as it goes.
            caption: plain text.

        Returns:
            The path of the PNG, which holds the manifest; the JSON lies beside it.

        Raises:
            InputError: another number of labels, or a name that is no plain file name or is
                already in the report.
            OutputError: it cannot be written.
        """
        if columns is not None:
            columns = checks.integer(self, "columns", columns, 1)
        path = result.save(self._claim(name), labels=labels, columns=columns, force=True)
        record = path.with_suffix(".json")
        objective = str(result.run.objective)
        note = (
            f"<br><code>{html.escape(objective)}</code>, "
            f'<a href="{quote(record.name)}">how it was made</a>'
        )
        alternative = f"synthesized: {', '.join(labels) or objective}"
        self._show(path, alternative, _caption(caption, note))
        return path

    def write(self, **facts: object) -> Path:
        """Writes `manifest.json` and the page.

        The manifest has the title, the command, the facts, the versions of everything that the
        figures depend on, and the tables in full.

        Args:
            facts: what else makes the report again or judges it: the seed, the arguments, the
                seconds it took. Numbers, text, arrays, lists and mappings of these, and argparse's
                namespaces; others by their text.

        Returns:
            The path of `index.html`.

        Raises:
            OutputError: it cannot be written.
        """
        manifest = {
            "title": self.title,
            "command": shlex.join(["python", *sys.orig_argv[1:]]),
            "facts": facts,
            "versions": versions(),
        }
        _write_json(self.folder / "manifest.json", {**manifest, "tables": self._tables})
        shown = {"command": manifest["command"], **facts, "versions": manifest["versions"]}
        page = _PAGE.format(
            title=html.escape(self.title),
            style=_STYLE,
            body="\n".join(self._body),
            facts="\n".join(
                f"<dt>{html.escape(name.replace('_', ' '))}</dt>"
                f"<dd>{html.escape(_sentence(_plain(fact)))}</dd>"
                for name, fact in shown.items()
            ),
        )
        return write_file(self.folder / "index.html", page.encode("utf-8", "replace"), force=True)

    def _claim(self, name: str) -> Path:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise InputError(
                f"{name!r} is no plain file name: letters, digits, '_', '-' and '.', no '.' or '-' "
                "at its beginning"
            )
        # Some file systems take A.png and a.png, or two ways to write é, for one file.
        key = unicodedata.normalize("NFC", name).casefold()
        if key in self._names | {"manifest", "index"}:
            raise InputError(f"the report already has {name!r}; give each picture its own name")
        path = output_path(self.folder / f"{name}.png")
        self._names.add(key)
        return path

    def _add(self, path: Path, content: bytes, alternative: str, caption: str) -> Path:
        path = write_file(path, content, force=True)
        self._show(path, alternative, caption)
        return path

    def _show(self, path: Path, alternative: str, caption: str) -> None:
        with Image.open(path) as picture:
            width, height = picture.size
        self._body.append(
            f'<figure><a href="{quote(path.name)}"><img src="{quote(path.name)}" '
            f'width="{width}" height="{height}" alt="{html.escape(alternative)}"></a>'
            f"{caption}</figure>"
        )


def _checked(name: str, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    arrays = [np.asarray(image, np.float32) for image in images]
    if not arrays:
        raise InputError(f"{name}: there is no image")
    for i, array in enumerate(arrays):
        if array.ndim != 3 or array.shape != arrays[0].shape:
            raise InputError(
                f"{name}: images are (h, w, c), all of one shape; image {i} is {array.shape}"
                + (f" and image 0 {arrays[0].shape}" if i else "")
            )
        check_range(array, f"{name}: the values of image {i}")
    return arrays


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _caption(text: str, note: str = "") -> str:
    return f"<figcaption>{html.escape(text)}{note}</figcaption>" if text or note else ""


def _plain(value: Any) -> Any:
    """Numbers, text, None, and lists and dictionaries of these; other things by their text."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # an array or a scalar of numpy or JAX
        return value.tolist()
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def _strict(value: Any) -> Any:
    """As `_plain`, with null for NaN and infinity, which JSON does not have."""
    plain = _plain(value)
    if isinstance(plain, dict):
        return {key: _strict(one) for key, one in plain.items()}
    if isinstance(plain, list):
        return [_strict(one) for one in plain]
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(_strict(record), indent=1, allow_nan=False)
    write_file(path, (text + "\n").encode(), force=True)


def _shown(value: Any) -> str:
    """A cell as a reader wants it: 4 significant digits, or all those before the point."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value + 0.0:#.4g}"


def _sentence(value: Any) -> str:
    """A fact in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_sentence(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_sentence, value))
    return str(value)
