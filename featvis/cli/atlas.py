"""`featvis atlas`: every unit of some layers; and what is in the store of one."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable

import typer

from featvis.atlas import Atlas
from featvis.atlas import atlas as make_atlas
from featvis.atlas.driver import LOOP
from featvis.cli.command import JSON, NETWORK, QUIET, SIZE, command, option
from featvis.cli.drivers import Driver, several
from featvis.cli.network import network_of
from featvis.cli.output import SILENT, gone_on_with, tell, use_cache
from featvis.errors import InputError, printable
from featvis.pages.site import atlas_site
from featvis.told import Told

_ATLAS = Driver(make_atlas, runs=("seed", "param", *LOOP))
_OPTIONS = {
    **NETWORK,
    **SIZE,
    **option("out", str, "The folder of the atlas; or an address, as s3://units/a.", "-o", "--out"),
    **_ATLAS.options,
    **option("invariances", str, "Of export: folders of tables of `featvis invariance`, with "
             "commas between, to sort the sheets by."),
    **QUIET,
    **JSON,
}  # fmt: skip
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
    with gone_on_with(given.out):
        made = _ATLAS(given, network, layers, given.out)
    _tell(made, given)
    if made.silent:
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
    lines = [f"damaged: {printable(one)}" for one in damaged]
    lines.append(f"{len(found.store.batches)} batches are as they were written  {printable(store)}")
    if damaged:
        lines.append("what is struck out, the command that made the atlas makes again")
    tell(Told([{"atlas": store, "damaged": damaged}], lines), given)
    if damaged:
        raise typer.Exit(1)


def _export(store: str, site: str, given: Namespace) -> None:
    asked = given.invariances
    tables = [] if asked is None else several("--invariances", asked)
    page = atlas_site(store, site, invariances=tables, progress=not given.quiet)
    record = {"atlas": store, "site": str(page)}
    tell(Told([record], [f"site  {printable(page)}"]), given)


def _tell(made: Atlas, given: Namespace) -> None:
    tell(made.told(), given)
    if said := made.store.unread:
        warnings.warn(said, stacklevel=2)
