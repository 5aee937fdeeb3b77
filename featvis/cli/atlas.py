"""`featvis atlas`: every unit of some layers; and what is in the store of one."""

from __future__ import annotations

import json
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable

import typer

from featvis.atlas import Atlas
from featvis.atlas import atlas as make_atlas
from featvis.atlas.driver import LOOP
from featvis.atlas.engine import ENGINES
from featvis.cli.command import (
    INTERRUPTED,
    JSON,
    NETWORK,
    QUIET,
    SIZE,
    command,
    option,
    run_options,
)
from featvis.cli.network import network_of, size_of
from featvis.cli.output import SILENT, use_cache
from featvis.errors import InputError, printable
from featvis.pages.site import atlas_site

_RUN = {name: one for name, one in run_options(None).items() if name in ("seed", "param", *LOOP)}
_ATLAS = {
    **option("out", str, "The folder of the atlas; or an address, as s3://units/a.", "-o", "--out"),
    **option("units", str, "Units of each layer, as 0-63,70.", shown="all"),
    **option("objective", str, "channel, neuron (of the middle) or both.", default="channel"),
    **option("seeds", int, "Pictures of each unit.", default=1),
    **option("negative", bool, "The picture that lowers each unit the most, too.", "--negative"),
    **option("diverse", int, "So many pictures of each unit that differ, too.", default=0),
    **option("facets", int, "So many facets of each unit, too; they need an index.", default=0),
    **option("index", str, "An index of natural images of the same size (see `featvis index`)."),
    **option("batch", int, "Pictures of a batch.", shown="as many as fit, at most 8 on a CPU"),
    **option("invariances", str, "Of export: folders of tables of `featvis invariance`, with "
             "commas between, to sort the sheets by."),
    **option("engine", str, f"Who makes them: {' or '.join(ENGINES)}.", default="local"),
    **option("address", str, "Of the Ray cluster, as auto.", shown="one that is started here"),
    **option("workers", int, "Of Ray.", shown="one an accelerator, or one every so many cores"),
    **option("cores", int, "Of each worker of Ray, without accelerators.", default=1),
}  # fmt: skip
_OPTIONS = {**NETWORK, **SIZE, **_ATLAS, **_RUN, **QUIET, **JSON}
#: What can be done with a store that is there, by the word: what it takes, and which options.
ACTIONS = {
    "status": ("STORE", ("json", "quiet")),
    "verify": ("STORE", ("json", "quiet")),
    "export": ("STORE SITE", ("invariances", "json", "quiet")),
}


@command(
    "[MODEL] LAYER...",
    _OPTIONS,
    examples=(
        "efficientnet_lite0 block8 --out block8.atlas",
        "efficientnet_lite0 block4 block8 --units 0-63 --size 128 --negative --out units.atlas",
        "efficientnet_lite0 block8 --out block8.atlas --engine ray --address auto",
        "status block8.atlas",
        "verify block8.atlas",
        "export block8.atlas site/",
    ),
    actions={name: takes for name, (takes, _) in ACTIONS.items()},
)
def atlas(given: Namespace) -> None:
    """Make pictures of every unit of some layers; the same command goes on with them.

    `featvis atlas status STORE` says what a store has; `featvis atlas verify STORE` finds what is
    damaged, and strikes it out for the command that made it to make it again; `featvis atlas export
    STORE SITE` writes it as a site that any browser shows, from a disk or any web host.
    """
    if given.model is None and given.words[0] in ACTIONS:
        action, *places = given.words
        _check_options(given, action)
        acts: dict[str, Callable[..., None]]
        acts = {"status": _status, "verify": _verify, "export": _export}
        acts[action](*places, given)
        return
    if given.invariances is not None:
        raise InputError("--invariances is of atlas export STORE SITE, whose sheets it sorts")
    use_cache()
    network, layers = network_of(given)
    if given.out is None:
        raise InputError("atlas takes --out too: the folder of the atlas")
    named = ("units", "objective", "seeds", "negative", "diverse", "facets", "index", "batch",
             "engine", "address", "workers", "cores", "seed", *LOOP)  # fmt: skip
    options = {name: v for name in named if (v := getattr(given, name)) is not None}
    try:
        made = make_atlas(
            network, layers, given.out, size=size_of(given.size, network),
            parameterization=given.param, progress=not given.quiet, **options,
        )  # fmt: skip
    except KeyboardInterrupt:
        print(f"interrupted: the same command goes on with {printable(given.out)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if _tell(made, given):
        raise typer.Exit(SILENT)


def _check_options(given: Namespace, action: str) -> None:
    """Refuses options that would do nothing.

    Raises:
        InputError: one was given that the action does not take.
    """
    _, takes = ACTIONS[action]
    for name, one in _OPTIONS.items():
        if name not in takes and getattr(given, name) != one.default:
            listed = ", ".join(f"--{taken}" for taken in takes)
            raise InputError(f"atlas {action} takes {listed}; got --{name}")


def _status(store: str, given: Namespace) -> None:
    _tell(Atlas.open(store), given)


def _verify(store: str, given: Namespace) -> None:
    """Strikes out what is damaged; exit code 1 where something was."""
    found = Atlas.open(store)
    damaged = found.verify()
    if given.json:
        print(json.dumps({"atlas": store, "damaged": damaged}))
    else:
        for one in damaged:
            print(f"damaged: {printable(one)}")
        whole = len(found.store.batches)
        print(f"{whole} batches are as they were written  {printable(store)}")
        if damaged:
            print("what is struck out, the command that made the atlas makes again")
    if damaged:
        raise typer.Exit(1)


def _export(store: str, site: str, given: Namespace) -> None:
    tables = [one.strip() for one in (given.invariances or "").split(",") if one.strip()]
    page = atlas_site(store, site, invariances=tables, progress=not given.quiet)
    if given.json:
        print(json.dumps({"atlas": store, "site": str(page)}))
    else:
        print(f"site  {printable(page)}")


def _tell(made: Atlas, given: Namespace) -> int:
    """What an atlas has, a line or a record a layer; and how many of its units are silent."""
    silent = 0
    for layer, shape in made.layers.items():
        table = made.table(layer)
        pictures = made.counts(layer)
        silent += int(table["silent"].sum())
        record = {
            "layer": layer,
            "units": len(table["unit"]),
            "of": shape[-1],
            "pictures": pictures,
            "silent": int(table["silent"].sum()),
            "dead": int(table["dead"].sum()),
        }
        if given.json:
            print(json.dumps(record))
            continue
        counted = ", ".join(f"{count} {role}" for role, count in pictures.items())
        more = "".join(f", {record[name]} {name}" for name in ("silent", "dead") if record[name])
        has = f"{record['units']} of {record['of']} units: {counted or 'nothing'}{more}"
        print(f"{printable(layer)}  {has}")
    if said := made.store.unread:
        warnings.warn(said, stacklevel=2)
    if not given.json:
        size = "x".join(map(str, made.settings["size"]))
        said = f"{len(made)} units of {printable(made.settings['model']['name'])} at {size}"
        print(f"{said}  {made.store.place}")
    return silent
