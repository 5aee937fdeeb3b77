"""`featvis index` and `featvis top`: what natural images do to the units of a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from featvis import natural
from featvis.cli.command import FILES, JSON, NETWORK, QUIET, SIZE, command
from featvis.cli.network import network_of, size_of
from featvis.cli.output import INTERRUPTED, save, slug, use_cache
from featvis.errors import InputError, printable
from featvis.files import output_path


@command(NETWORK, SIZE, QUIET, JSON)
def index(
    given: Any,
    model_and_folder: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] FOLDER",
            help="A network's name, unless --model says which; and a folder of images.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The folder of the index (required).")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Layers, with commas between; by default all without a slash."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images that go through the network together.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the position drawn in each image.")] = 0,
) -> None:
    """Index what a folder of images does to every unit; the same command goes on with it."""
    use_cache()
    wanted = 1 if given.place else 2
    if len(model_and_folder or []) != wanted:
        raise InputError(
            "index takes a network and a folder of images, as in: featvis index "
            f"efficientnet_lite0 photographs --out photographs.index; got "
            f"{' '.join(model_and_folder or []) or 'nothing'}"
        )
    if out is None:
        raise InputError("index takes --out, the folder that the index goes into")
    network, (folder,) = network_of(model_and_folder or [], given.place, given.weights)
    names = [one.strip() for one in layers.split(",")] if layers is not None else None
    try:
        made = natural.index(
            network,
            folder,
            layers=names,
            out=out,
            size=size_of(given.size, network),
            batch=batch,
            seed=seed,
            progress=not given.quiet,
        )
    except KeyboardInterrupt:
        print(f"interrupted: the same command goes on with {printable(out)}")
        raise typer.Exit(INTERRUPTED) from None
    if given.as_json:
        record = {"index": str(out), "images": len(made), "left_out": made.left_out}
        print(json.dumps({**record, "layers": {k: list(v) for k, v in made.layers.items()}}))
        return
    lost = f", {len(made.left_out)} left out" if made.left_out else ""
    units = sum(shape[-1] for shape in made.layers.values())
    print(f"{len(made)} images{lost}, {units} units of {len(made.layers)} layers  {printable(out)}")


@command(FILES)
def top(
    given: Any,
    store: Annotated[Path, typer.Argument(help="The folder of an index.")],
    unit: Annotated[str, typer.Argument(help="A channel or a class of it, as block8:3.")],
    count: Annotated[int, typer.Option(help="How many images.")] = 9,
    by: Annotated[
        str, typer.Option(help="maximum: of the map, cropped to what it sees; or mean.")
    ] = "maximum",
    lowest: Annotated[
        bool, typer.Option("--lowest", help="Those that drive the unit the least.")
    ] = False,
) -> None:
    """Show the natural images that drive a unit the most."""
    found = natural.top(store, unit, count, by=by, lowest=lowest)
    path = given.output or Path(f"{slug(f'top {found.unit}')}.png")
    written = save(found.save, output_path(path), given.force)
    lines = zip(found.files, found.scores.tolist(), found.positions.tolist(), strict=True)
    if given.as_json:
        images = [
            {"image": str(file), "score": score, "position": at, "box": box}
            for (file, score, at), box in zip(lines, found.boxes.tolist(), strict=True)
        ]
        print(json.dumps({"unit": found.unit, "by": by, "sheet": str(written), "images": images}))
        return
    for file, score, at in lines:
        where = f" at {','.join(map(str, at))}" if at and by == "maximum" else ""
        print(f"{score:.4g}{where}  {printable(file)}")
    print(f"sheet  {printable(written)}")
