"""`featvis index` and `featvis top`: what natural images do to the units of a network."""

from __future__ import annotations

import inspect
import json
from argparse import Namespace

import typer

from featvis import natural
from featvis.cli.command import (
    FILES,
    INTERRUPTED,
    JSON,
    NETWORK,
    QUIET,
    SIZE,
    command,
    option,
)
from featvis.cli.network import network_of, size_of
from featvis.cli.output import save, use_cache
from featvis.errors import printable
from featvis.files import output_path, part_of_name

_INDEX = {
    **option(
        "out", str, "The folder of the index.", "-o", "--out", default=inspect.Parameter.empty
    ),
    **option("layers", str, "Layers, with commas between.", shown="all without a slash"),
    **option("batch", int, "Images that go through the network together.", default=32),
    **option("seed", int, "Of the position drawn in each image.", default=0),
}
_TOP = {
    **option("count", int, "How many images.", default=9),
    **option(
        "by", str, "maximum, of the map, cropped to what it sees; or mean.", default="maximum"
    ),
    **option("lowest", bool, "Those that drive the unit the least.", "--lowest"),
}


@command(
    "[MODEL] FOLDER",
    *(NETWORK, SIZE, _INDEX, QUIET, JSON),
    examples=(
        "efficientnet_lite0 photographs/ --out photographs.index",
        "efficientnet_lite0 photographs/ --layers block8,logits --size 160 --out photographs.index",
    ),
)
def index(given: Namespace) -> None:
    """Index what a folder of images does to every unit; the same command goes on with it."""
    use_cache()
    network, (folder,) = network_of(given)
    layers = given.layers
    try:
        made = natural.index(
            network,
            folder,
            layers=[one.strip() for one in layers.split(",")] if layers is not None else None,
            out=given.out,
            size=size_of(given.size, network),
            batch=given.batch,
            seed=given.seed,
            progress=not given.quiet,
        )
    except KeyboardInterrupt:
        print(f"interrupted: the same command goes on with {printable(given.out)}")
        raise typer.Exit(INTERRUPTED) from None
    if given.json:
        record = {"index": given.out, "images": len(made), "left_out": made.left_out}
        print(json.dumps({**record, "layers": {k: list(v) for k, v in made.layers.items()}}))
        return
    lost = f", {len(made.left_out)} left out" if made.left_out else ""
    units = sum(shape[-1] for shape in made.layers.values())
    said = f"{len(made)} images{lost}, {units} units of {len(made.layers)} layers"
    print(f"{said}  {printable(given.out)}")


@command("INDEX UNIT", *(_TOP, FILES), examples=("photographs.index block8:3",))
def top(given: Namespace) -> None:
    """Show the natural images that drive a unit the most."""
    store, unit = given.words
    found = natural.top(store, unit, given.count, by=given.by, lowest=given.lowest)
    path = output_path(given.output or "./", name=part_of_name(f"top {found.unit}"))
    written = save(found.save, path, given.force)
    lines = zip(found.files, found.scores.tolist(), found.positions.tolist(), strict=True)
    if given.json:
        images = [
            {"image": str(file), "score": score, "position": at, "box": box}
            for (file, score, at), box in zip(lines, found.boxes.tolist(), strict=True)
        ]
        record = {"unit": found.unit, "by": given.by, "sheet": str(written), "images": images}
        print(json.dumps(record))
        return
    for file, score, at in lines:
        where = f" at {','.join(map(str, at))}" if at and given.by == "maximum" else ""
        print(f"{score:.4g}{where}  {printable(file)}")
    print(f"sheet  {printable(written)}")
