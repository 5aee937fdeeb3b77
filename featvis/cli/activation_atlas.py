"""`featvis activation-atlas`: what a layer sees, all over the space of its activations."""

from __future__ import annotations

import inspect
import json
from argparse import Namespace

from featvis import methods
from featvis.cli.command import JSON, NETWORK, QUIET, SIZE, command, option, run_options
from featvis.cli.network import network_of
from featvis.cli.output import options_of, use_cache
from featvis.errors import InputError, printable
from featvis.pages.activation_atlas import activation_site
from featvis.pages.sheets import check_site_folder

_ATLAS = {
    **option(
        "out", str, "The folder of the site; an earlier site is replaced.", "-o", "--out",
        default=inspect.Parameter.empty,
    ),
    **option("projection", str, "To the plane: pca, or umap.", default="pca"),
    **option("side", int, "Cells along the plane's side.", shown="16 photographs a cell"),
    **option("least", int, "Photographs of the smallest cell that has a picture.", default=5),
    **option("groups", int, "Groups of neurons, on a sheet of their own; 0 for none.", default=12),
    **option("attempts", int, "Pictures a tile, of which the best is kept.", default=1),
    **option("classes", int, "Classes that a tile names at most.", default=3),
}  # fmt: skip


@command(
    "[MODEL] LAYER INDEX",
    *(NETWORK, SIZE, _ATLAS, run_options(None), QUIET, JSON),
    examples=(
        "efficientnet_lite0 block8 photographs.index --out atlas/",
        "efficientnet_lite0 block8 photographs.index --projection umap --side 12 --out atlas/",
    ),
)
def activation_atlas(given: Namespace) -> None:
    """Show what a layer sees, all over the space of its activations (Carter et al. 2019)."""
    use_cache()
    network, (layer, index) = network_of(given)
    options = options_of(given, network)
    options.pop("snapshots")
    if given.animate is not None:
        raise InputError("activation-atlas writes no animation: leave out --animate")
    check_site_folder(given.out)
    if options.get("size") is None:
        options.pop("size")
    shared = {**options, "attempts": given.attempts, "classes": given.classes}
    made = [
        methods.activation_atlas(
            network, layer, index, projection=given.projection, side=given.side,
            least=given.least, **shared,
        )
    ]  # fmt: skip
    if given.groups:
        made.append(methods.neuron_groups(network, layer, index, groups=given.groups, **shared))
    page = activation_site(made, given.out)
    if given.json:
        tiles = {one.parted: [_record(one, tile) for tile in one.tiles] for one in made}
        print(json.dumps({"site": str(page), "layer": layer, "tiles": tiles}))
        return
    for one in made:
        what = "groups of neurons" if one.parted == "groups" else f"cells by {one.parted}"
        print(f"{len(one)} {what} of {printable(layer)}")
    print(f"site  {printable(page)}")


def _record(made: methods.ActivationAtlas, tile: methods.Tile) -> dict[str, object]:
    classes = {made.class_name(one): value for one, value in tile.classes}
    score = float(tile.result.clean_scores[0])
    place = {"row": tile.row, "column": tile.column}
    return {**place, "share": tile.share, "clean_score": score, "classes": classes}
