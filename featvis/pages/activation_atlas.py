"""Activation atlases as a site: a sheet of tiles at their places, and a page a tile."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from featvis.errors import InputError, printable
from featvis.files import part_of_name, picture_name
from featvis.methods import ActivationAtlas, Tile
from featvis.pages.sheets import (
    CROP,
    Sheet,
    Thumbs,
    card,
    crops_list,
    figures_table,
    in_square,
    jpeg,
    nav,
    page,
    picture_figure,
    recipe,
    shown,
    site_folder,
    write,
)
from featvis.pictures import to_picture
from featvis.results.history import replay_command
from featvis.results.manifest import versions
from featvis.results.packing import png_of, record_of
from featvis.told import Told

#: Photographs and neurons of a tile's page.
_PHOTOGRAPHS, _NEURONS = 12, 8


def activation_site(made: Sequence[ActivationAtlas], folder: str | Path) -> Path:
    """Write activation atlases, and groups of neurons, as a site that any browser shows.

    Args:
        made: of `featvis.activation_atlas` and `featvis.neuron_groups`, of one network.
        folder: of the site: none there yet, an empty one, or an earlier site, which is replaced
            when the new one is whole.

    Returns:
        The path of the first page.

    Raises:
        InputError: nothing to write, a photograph that is gone, or a folder of something else.
        OutputError: the site cannot be written.
    """
    if not made:
        raise InputError("a site is of at least one activation atlas; got none")
    with site_folder(folder) as draft:
        cards = []
        for place, atlas in enumerate(made):
            name = f"{place}-{part_of_name(atlas.layer)}-{atlas.parted}"
            (draft / name).mkdir()
            _Pages(atlas, draft / name).write()
            first = _name(atlas, 0)
            cards.append(card(name, f"{first}.jpg", _title(atlas), _counted(atlas)))
        model = made[0].model
        title = f"Activations of {model.name}"
        facts = [
            ("network", model.name), ("weights", model.digest),
            ("photographs", len(made[0].index)), ("seed", made[0].seed), *versions().items(),
        ]  # fmt: skip
        body = (
            f"<main>\n<h1>{html.escape(title)}</h1>\n<p>Pictures of what a layer sees, all over "
            "the space of its activations (Carter et al. 2019), and of neurons that are active "
            f'together.</p>\n<ul class="cards" role="list">{"".join(cards)}</ul>\n</main>\n<footer>'
            f"\n<h2>How this was made</h2>\n{figures_table(facts)}\n</footer>"
        )
        write(draft / "index.html", page(title, body))
    return Path(folder) / "index.html"


def told_site(made: Sequence[ActivationAtlas], page: Path) -> Told:
    """What the command line says of a site.

    Args:
        made: as for `activation_site`, of one layer.
        page: where it was written.
    """
    layer, lines = made[0].layer, []
    tiles = {one.parted: [_record(one, tile) for tile in one.tiles] for one in made}
    for one in made:
        what = "groups of neurons" if one.parted == "groups" else f"cells by {one.parted}"
        lines.append(f"{len(one)} {what} of {printable(layer)}")
    record = {"site": str(page), "layer": layer, "tiles": tiles}
    return Told([record], [*lines, f"site  {printable(page)}"])


def _record(atlas: ActivationAtlas, tile: Tile) -> dict[str, object]:
    classes = {atlas.class_name(one): value for one, value in tile.classes}
    score = float(tile.result.clean_scores[0])
    place = {"row": tile.row, "column": tile.column}
    return {**place, "share": tile.share, "clean_score": score, "classes": classes}


def _title(atlas: ActivationAtlas) -> str:
    if atlas.parted == "groups":
        return f"Groups of neurons of {atlas.layer}"
    return f"Activation atlas of {atlas.layer}"


def _counted(atlas: ActivationAtlas) -> str:
    what = "groups" if atlas.parted == "groups" else f"cells by {atlas.parted}"
    return f"{len(atlas)} {what}, {len(atlas.index)} photographs"


def _name(atlas: ActivationAtlas, number: int) -> str:
    """Of a tile's page, without suffix."""
    tile = atlas.tiles[number]
    return str(number) if atlas.parted == "groups" else f"{tile.row}-{tile.column}"


class _Pages:
    """The pages of an atlas."""

    def __init__(self, atlas: ActivationAtlas, folder: Path) -> None:
        self.atlas, self.folder = atlas, folder
        self.names = [_name(atlas, number) for number in range(len(atlas))]
        self.size = to_picture(atlas.tiles[0].image).size
        self.grouped = atlas.parted == "groups"
        self.prefix = "group " if self.grouped else "cell "

    def write(self) -> None:
        atlas = self.atlas
        grey = to_picture(atlas.tiles[0].image).mode == "L"
        thumbs = Thumbs(self.folder, self.size, len(atlas), grey)
        full = []
        for number, (name, tile) in enumerate(zip(self.names, atlas.tiles, strict=True)):
            picture = to_picture(tile.image)
            thumbs.add(number, name, picture)
            full.append(self._save(name, tile, picture))
            crops = [to_picture(crop) for crop in atlas.crops(tile, _PHOTOGRAPHS)]
            photograph = in_square(crops[0]) if crops else Image.new("L", (CROP, CROP), "grey")
            write(self.folder / f"{name}-photograph.jpg", jpeg(photograph))
            write(self.folder / f"{name}.html", self._page(number, tile, full[-1], crops))
        labels = [
            "; ".join(_short(atlas.class_name(one)) for one, _ in tile.classes)
            for tile in atlas.tiles
        ]
        about = (
            "Each picture is of activations that the layer has together."
            if self.grouped
            else "Activations that are alike are near each other. Each picture is of the mean of a "
            "cell's."
        )
        sheet = Sheet(
            _title(atlas),
            f'<p class="about note">{html.escape(_counted(atlas))}. {about}</p>',
            self.names, full, self.size, self.prefix,
            ("group", "groups") if self.grouped else ("cell", "cells"),
            labels=labels if any(labels) else None,
            figures={"share": ("share", np.array([tile.share for tile in atlas.tiles]))},
            places=None if self.grouped else [(tile.row, tile.column) for tile in atlas.tiles],
            extent=(atlas.rows, atlas.columns),
            photographs=True,
            side=96 if self.grouped else 64,
        )  # fmt: skip
        sheet.write(self.folder, thumbs.finish(), nav([("../index.html", "All sheets")]))

    def _save(self, name: str, tile: Tile, picture: Image.Image) -> str:
        record = record_of(tile.result.manifest, self.folder)
        record["layout"] = {"shape": list(tile.image.shape), "corners": [(0, 0)]}
        what = part_of_name(f"{self.atlas.layer} {self.atlas.parted} {name}")
        file = f"{picture_name(self.atlas.model.name, what)}.png"
        write(self.folder / file, png_of(picture, record))
        return file

    def _page(self, number: int, tile: Tile, file: str, crops: Sequence[Image.Image]) -> str:
        atlas, name = self.atlas, self.names[number]
        links = [("../index.html", "All sheets"), ("index.html", _title(atlas))]
        if number:
            links.append((f"{self.names[number - 1]}.html", f"← {self.names[number - 1]}"))
        if number + 1 < len(self.names):
            links.append((f"{self.names[number + 1]}.html", f"{self.names[number + 1]} →"))
        heading = f"{self.prefix}{name} of {atlas.layer}"
        heading = heading[0].upper() + heading[1:]
        clean = float(tile.result.clean_scores[0])
        said = f"score {shown(clean)}; 1 is what its own activations everywhere would have"
        parts = [
            nav(links), f"<h1>{html.escape(heading)}</h1>",
            f'<div class="figures main">{picture_figure(file, self.size, heading, said)}</div>',
        ]  # fmt: skip
        if tile.classes:
            rows = [(atlas.class_name(one), value) for one, value in tile.classes]
            parts += [
                "<h2>Classes it speaks for</h2>",
                "<p>What their scores lose where a photograph's activations at the position are "
                "taken away, beyond what they lose in all photographs.</p>",
                figures_table(rows),
            ]
        stems = [atlas.index.files[place].stem for place in tile.members[: len(crops)]]
        written = crops_list(self.folder, f"{name}-crops.jpg", crops, stems)
        share = f"{len(tile.members)} of {len(atlas.index)} photographs"
        parts += [f"<h2>Photographs</h2><p>{share}, the most typical first.</p>", written]
        most = np.argsort(-np.abs(tile.vector), kind="stable")[:_NEURONS].tolist()
        neurons = [(f"{atlas.layer}:{one}", float(tile.vector[one])) for one in most]
        command = replay_command(file, atlas.model.name)
        parts += [
            "<h2>Strongest neurons</h2>", figures_table(neurons),
            "<h2>How it was made</h2>", recipe(command, tile.result.manifest),
        ]  # fmt: skip
        title = f"{heading} · {atlas.model.name}"
        return page(title, "<main>\n" + "\n".join(parts) + "\n</main>", up="../")


def _short(label: str) -> str:
    """The first of a class's names."""
    return label.partition(",")[0]
