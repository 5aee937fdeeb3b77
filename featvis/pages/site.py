"""An atlas as a site: a sheet a layer, a page a unit with all that is known of it."""

from __future__ import annotations

import functools
import html
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from featvis.atlas import Atlas, Natural, Picture, Unit
from featvis.errors import FeatvisError, InputError, printable
from featvis.evidence.variations import FAMILIES
from featvis.files import part_of_name
from featvis.images import read_image
from featvis.methods.invariance_table import Row, read_table
from featvis.pages.sheets import (
    Sheet,
    Thumbs,
    card,
    crops_list,
    figures_table,
    nav,
    page,
    picture_figure,
    recipe,
    shown,
    site_folder,
    walk,
    write,
)
from featvis.pictures import levels_picture, to_levels
from featvis.results.packing import png_of, record_of

#: Photographs at each end that a page shows.
_CROPS = 8
#: Manifests of batches, and photographs, that are kept.
_MANIFESTS, _PHOTOGRAPHS = 32, 4096
_WORDS = {
    "picture": ("raises it", "What raises it"),
    "negative": ("lowers it", "What lowers it"),
    "diverse": ("raises it, and differs from others", "What else raises it"),
    "facet": ("a facet", "Facets"),
}


def atlas_site(
    atlas: Atlas | str | Path,
    folder: str | Path,
    *,
    invariances: Sequence[str | Path] | str | Path = (),
    progress: bool = True,
) -> Path:
    """Writes an atlas as a site that any browser shows, from a disk or any web host.

    A page a layer with a sheet of all its units, to be searched, sorted and zoomed; a page a unit
    with all that the atlas knows of it. The same atlas gives the same bytes.

    Args:
        atlas: it, or its store.
        folder: of the site: none there yet, an empty one, or an earlier site, which is replaced
            when the new one is whole; what else is in its folder stays.
        invariances: folders of tables of what the units of a layer ignore
            (`featvis.invariance_table`), by which its sheet can then be sorted.
        progress: show a progress bar.

    Returns:
        The path of the first page.

    Raises:
        InputError: no atlas, one without pictures, a folder of something else, or a table of
            another network or of a layer that the atlas does not have.
        OutputError: the site cannot be written.

    Warns:
        UserWarning: photographs that the atlas names are not there: how many; or records of the
            atlas are damaged, whose pictures are left out.
    """
    atlas = atlas if isinstance(atlas, Atlas) else Atlas.open(atlas)
    if not len(atlas):
        raise InputError(f"the atlas {atlas.store.place} has no pictures yet")
    if said := atlas.store.unread:
        warnings.warn(said, stacklevel=2)
    ignored = _tables(atlas, invariances)
    with site_folder(folder) as draft:
        layers = _places(atlas)
        photographs = _Photographs(tuple(atlas.settings["size"]), atlas.settings["channels"])
        with tqdm(
            total=len(atlas), unit="unit", disable=None if progress else True, leave=False
        ) as bar:
            for layer, name in layers.items():
                (draft / name).mkdir()
                _Layer(atlas, layer, draft / name, photographs, ignored.get(layer, {})).write(
                    bar.update
                )
        write(draft / "index.html", _first(atlas, layers))
    if photographs.missing:
        first = next(iter(photographs.missing.values()))
        more = len(photographs.missing) - 1
        said = f"{first}" + (f"; and {more} more" if more else "")
        warnings.warn(f"photographs left out: {said}", stacklevel=2)
    return Path(folder) / "index.html"


def _tables(atlas: Atlas, folders: Sequence[str | Path] | str | Path) -> dict[str, dict[int, Row]]:
    """Rows of what units ignore, by layer and unit."""
    found: dict[str, dict[int, Row]] = {}
    for folder in [folders] if isinstance(folders, (str, Path)) else folders:
        settings, rows = read_table(folder)
        made = atlas.settings["model"]
        if settings.get("digest") != made["digest"]:
            raise InputError(
                f"the table in {printable(folder)} is of {settings.get('model')} with the weights "
                f"{str(settings.get('digest'))[:12]}; the atlas is of {made['name']} with "
                f"{made['digest'][:12]}"
            )
        layer = settings.get("layer")
        if layer not in atlas.layers:
            raise InputError(
                f"the table in {printable(folder)} is of {layer}; the atlas has "
                f"{', '.join(atlas.layers)}"
            )
        found[layer] = rows
    return found


def _places(atlas: Atlas) -> dict[str, str]:
    """Names of the layers' folders."""
    found: dict[str, str] = {}
    for layer in atlas.layers:
        if not len(atlas.units(layer)):
            continue
        name, number = part_of_name(layer), 1
        # Some file systems take a and A for one name.
        while name.casefold() in {one.casefold() for one in found.values()}:
            name, number = f"{part_of_name(layer)}-{number}", number + 1
        found[layer] = name
    return found


def _first(atlas: Atlas, layers: Mapping[str, str]) -> str:
    made = atlas.settings
    title = f"Atlas of {made['model']['name']}"
    cards = "".join(
        card(
            name,
            f"{atlas.units(layer)[0]}.jpg",
            layer,
            f"{len(atlas.units(layer))} of {atlas.layers[layer][-1]} units",
        )
        for layer, name in layers.items()
    )
    facts = [
        ("network", made["model"]["name"]),
        ("weights", made["model"]["digest"]),
        ("pictures", f"{made['size'][0]} x {made['size'][1]} pixels, {made['steps']} steps"),
        ("parameterization", made["parameterization"]),
        ("seed", made["seed"]),
        *made.get("versions", {}).items(),
    ]
    return page(
        title,
        f"<main>\n<h1>{html.escape(title)}</h1>\n<p>What each unit looks for: a picture that was "
        "made to raise it as far as it goes. It shows an input that the unit likes, not what the "
        f'unit is for.</p>\n<ul class="cards" role="list">{cards}</ul>\n</main>\n<footer>\n'
        f"<h2>How this was made</h2>\n{figures_table(facts)}\n</footer>",
    )


class _Photographs:
    """Photographs as the network saw them, in levels; those that are not there are noted."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        self.missing: dict[str, str] = {}

        @functools.lru_cache(_PHOTOGRAPHS)
        def read(path: str) -> np.ndarray | None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return to_levels(read_image(path, size, channels=channels))
            except FeatvisError as error:
                self.missing[path] = str(error)
                return None

        self.read: Callable[[str], np.ndarray | None] = read


class _Layer:
    """The pages of a layer."""

    def __init__(
        self,
        atlas: Atlas,
        layer: str,
        folder: Path,
        photographs: _Photographs,
        ignored: Mapping[int, Row],
    ) -> None:
        self.ignored = ignored
        self.atlas, self.layer, self.folder = atlas, layer, folder
        self.photographs = photographs
        self.units = atlas.units(layer).tolist()
        self.at = {unit: place for place, unit in enumerate(self.units)}
        self.manifest = functools.lru_cache(_MANIFESTS)(
            lambda row: atlas.store.manifest(self.batches[row])
        )
        self.batches = {batch.row: batch for batch in atlas.store.batches}
        self.title = f"{layer} of {atlas.settings['model']['name']}"

    def write(self, tell: Callable[[int], object]) -> None:
        height, width, channels = self.atlas.store.shape
        size = (width if channels == 3 else width * channels, height)
        thumbs = Thumbs(self.folder, size, len(self.units), channels != 3)
        full: list[str] = []
        seen: list[list[int]] = []
        nearest: list[list[int]] = []
        files: dict[str, int] = {}
        for place, number in enumerate(self.units):
            unit = self.atlas.unit(self.layer, number)
            names = {one: self._save(one) for one in unit.pictures}
            first = unit.picture or unit.pictures[0]
            thumbs.add(place, str(number), levels_picture(first.image))
            full.append(names[first])
            if unit.natural is not None:
                own = [unit.natural.files[p] for p in unit.natural.highest.tolist()]
                seen.append([files.setdefault(Path(one).stem, len(files)) for one in own])
                near = [int(one.rpartition(":")[2]) for one in unit.natural.nearest]
                nearest.append([self.at[one] for one in near if one in self.at])
            write(self.folder / f"{number}.html", self._page(unit, names, size))
            tell(1)
        table = self.atlas.table(self.layer)
        labels = [self.atlas.label(self.layer, unit) for unit in self.units]
        known = {
            "score": ("score", table["clean_score"]),
            "spread": ("spread over seeds", table["spread"]),
            "percentile": ("percentile among photographs", table["percentile"]),
        }
        for name in FAMILIES:
            indices = [self._index(unit, name) for unit in self.units]
            known[name.replace(" ", "-")] = (f"invariance to {name}", np.array(indices))
        whole = len(seen) == len(self.units)
        sheet = Sheet(
            self.title, f'<p class="about note">{len(self.units)} units.</p>',
            [str(unit) for unit in self.units], full, size, f"{self.layer}:",
            labels=labels if any(labels) else None,
            figures={k: v for k, v in known.items() if np.isfinite(v[1]).any()},
            files=list(files) if whole else (),
            seen=seen if whole else None,
            nearest=nearest if whole else None,
            likeness=walk(nearest) if whole else None,
            off=(table["dead"].tolist(), "dead") if table["dead"].any() else None,
        )  # fmt: skip
        sheet.write(self.folder, thumbs.finish(), nav([("../index.html", "All layers")]))

    def _index(self, unit: int, family: str) -> float:
        """How far a unit ignores a transformation, 0 to 1; NaN where nobody has measured it."""
        value = self.ignored.get(unit, {}).get(family.replace(" ", "_"))
        return float("nan") if value is None else float(value)

    def _save(self, one: Picture) -> str:
        """Writes a picture with its manifest; the name of its file."""
        record = record_of(self._manifest(one), self.folder)
        record["layout"] = {"shape": list(self.atlas.store.shape), "corners": [(0, 0)]}
        name = f"{one.name}.png"
        # A layer has thousands: quickly rather than small.
        write(self.folder / name, png_of(levels_picture(one.image), record, effort=1))
        return name

    def _manifest(self, one: Picture) -> dict[str, Any]:
        return {**self.manifest(one.batch.row), "member": one.lane}

    # ---- a unit's page ---------------------------------------------------------------------

    def _page(self, unit: Unit, names: Mapping[Picture, str], size: tuple[int, int]) -> str:
        place = self.at[unit.number]
        links = [("../index.html", "All layers"), ("index.html", self.layer)]
        if place:
            links.append((f"{self.units[place - 1]}.html", f"← {self.units[place - 1]}"))
        if place + 1 < len(self.units):
            links.append((f"{self.units[place + 1]}.html", f"{self.units[place + 1]} →"))
        heading = unit.text + (f": {unit.label}" if unit.label else "")
        parts = [nav(links), f"<h1>{html.escape(heading)}</h1>"]
        if unit.dead:
            why = unit.picture.silent if unit.picture and unit.picture.silent else ""
            why = why or "it is the same for all photographs"
            parts.append(f'<p class="note">This unit is dead: {html.escape(why)}.</p>')
        parts += self._pictures(unit, names, size)
        parts += ["<h2>Figures</h2>", figures_table(_figures(unit) + self._indices(unit))]
        if unit.natural is not None:
            parts += self._natural(unit.natural, unit.number)
        first = unit.picture or unit.pictures[0]
        parts += ["<h2>How it was made</h2>", recipe(first.command, self._manifest(first))]
        title = f"{heading} · {self.atlas.settings['model']['name']}"
        return page(title, "<main>\n" + "\n".join(parts) + "\n</main>", up="../")

    def _indices(self, unit: Unit) -> list[tuple[str, Any]]:
        found = {name: self._index(unit.number, name) for name in FAMILIES}
        return [(f"invariance to {name}", one) for name, one in found.items() if np.isfinite(one)]

    def _pictures(
        self, unit: Unit, names: Mapping[Picture, str], size: tuple[int, int]
    ) -> list[str]:
        parts, before = [], None
        for one in unit.pictures:
            if one.role != before:
                if before is not None:
                    parts.append("</div>")
                    parts.append(f"<h2>{_WORDS[one.role][1]}</h2>")
                shape = "figures main" if one is unit.picture else "figures"
                parts.append(f'<div class="{shape}">')
                before = one.role
            kind = "" if one.objective == "channel" else f" ({one.objective})"
            said = f"score {shown(one.clean_score)}{kind}" + (
                f", {one.failed}" if one.failed else ""
            )
            text = f"{unit.text}: a picture that {_WORDS[one.role][0]}"
            parts.append(picture_figure(names[one], size, text, said))
        return [*parts, "</div>"]

    def _natural(self, natural: Natural, number: int) -> list[str]:
        parts = ["<h2>Photographs</h2>"]
        for end, words in (("highest", "excites it the most"), ("lowest", "excites it the least")):
            crops = self._crops(natural, end, number)
            if crops:
                parts.append(f"<h3>What {words}</h3>{crops}")
        parts.append(_histogram(natural))
        if natural.nearest:
            listed = []
            for text, likeness in zip(natural.nearest, natural.correlations.tolist(), strict=True):
                near = int(text.rpartition(":")[2])
                if near in self.at:
                    listed.append(
                        f'<li><a href="{near}.html"><img src="{near}.jpg" width="96" height="96" '
                        f'alt="" loading="lazy">{html.escape(text)}</a><br>{shown(likeness)}</li>'
                    )
            if listed:
                parts.append(
                    "<h2>Nearest units</h2><p>By the correlation of their responses to the "
                    f'photographs; <a href="index.html#q=like%3A{number}">on the sheet</a>.</p>'
                    f'<ul class="nearest" role="list">{"".join(listed)}</ul>'
                )
        return parts

    def _crops(self, natural: Natural, end: str, number: int) -> str:
        """What the unit sees of the photographs at one end, one picture for all."""
        places = getattr(natural, end)[:_CROPS].tolist()
        boxes = getattr(natural, f"{end}_boxes").tolist()
        scores = getattr(natural, f"{end}_scores").tolist()
        crops, stems, figures = [], [], []
        for place, box, score in zip(places, boxes, scores, strict=False):
            image = self.photographs.read(natural.files[place])
            if image is not None:
                top, left, bottom, right = box
                part = image[top:bottom, left:right] if bottom > top and right > left else image
                crops.append(levels_picture(part))
                stems.append(Path(natural.files[place]).stem)
                figures.append(score)
        return crops_list(self.folder, f"{number}-{end}.jpg", crops, stems, figures)


def _figures(unit: Unit) -> list[tuple[str, Any]]:
    """What is known of a unit, by name."""
    first, natural = unit.picture, unit.natural
    rows: list[tuple[str, Any]] = []
    if first is not None:
        rows += [
            ("score of the clean picture", first.clean_score),
            ("under transforms", first.transformed_score),
            ("spread over seeds", unit.spread),
        ]
    if unit.negative is not None:
        rows.append(("score of the picture that lowers it", unit.negative.clean_score))
    if natural is not None:
        rows += [
            ("percentile among photographs", natural.percentile),
            ("mean over photographs", natural.mean),
            ("deviation over photographs", natural.sd),
            ("share of photographs where it is 0", natural.zeros),
            ("photographs", natural.images),
        ]
    if first is not None:
        rows += [("steps", first.steps), ("seconds", first.seconds)]
    return rows


def _histogram(natural: Natural) -> str:
    """How many photographs give which largest activation, as SVG."""
    width, height, foot = 480, 120, 18
    counts, edges = natural.histogram, natural.edges
    most = max(int(counts.max()), 1)
    step = width / len(counts)
    bars = "".join(
        f'<rect x="{i * step + 0.5:.1f}" y="{height - height * int(n) / most:.1f}" '
        f'width="{step - 1:.1f}" height="{height * int(n) / most:.1f}" fill="currentColor"/>'
        for i, n in enumerate(counts)
        if n
    )
    low, high = shown(float(edges[0])), shown(float(edges[-1]))
    said = (
        f"Histogram of the largest activation in each of {natural.images} photographs, from {low} "
        f"to {high}; the fullest of {len(counts)} bins has {most}"
    )
    return (
        f'<figure><svg class="histogram" viewBox="0 0 {width} {height + foot}" role="img" '
        f'aria-label="{html.escape(said)}">{bars}'
        f'<text x="0" y="{height + 13}">{low}</text>'
        f'<text x="{width}" y="{height + 13}" text-anchor="end">{high}</text></svg>'
        f"<figcaption>{html.escape(said)}.</figcaption></figure>"
    )
