"""`featvis index`, `top`, `dissect`, `facets`, `activation-atlas`: what natural images tell."""

from __future__ import annotations

import inspect
import warnings
from argparse import Namespace
from pathlib import Path

from featvis import methods, natural
from featvis.cli.command import FILES, JSON, NETWORK, QUIET, SIZE, command, option
from featvis.cli.drivers import Driver
from featvis.cli.network import network_of
from featvis.cli.output import (
    gone_on_with,
    leave,
    place_of,
    report_folder,
    save,
    tell,
    use_cache,
)
from featvis.pages.activation_atlas import activation_site, told_site
from featvis.pages.facets import facet_report
from featvis.pages.sheets import check_site_folder

_INDEX = Driver(natural.index, out="-o --out")
_TOP = Driver(natural.top)
_DISSECT = Driver(natural.dissect)
_FACETS = Driver(methods.facets, presets="facets", n_facets="--facets")
_ATLAS = Driver(methods.activation_atlas)
_GROUPS = Driver(methods.neuron_groups)
_SITE = {
    **option(
        "out", str, "The folder of the site; an earlier site is replaced.", "-o", "--out",
        default=inspect.Parameter.empty,
    ),
    **option("groups", int, "Groups of neurons, on a sheet of their own; 0 for none.", default=12),
}  # fmt: skip


@command(
    "[MODEL] FOLDER",
    *(NETWORK, SIZE, _INDEX.options, QUIET, JSON),
    examples=(
        "efficientnet_lite0 photographs/ --out photographs.index",
        "efficientnet_lite0 photographs/ --layers block8,logits --size 160 --out photographs.index",
    ),
)
def index(given: Namespace) -> None:
    """Index what a folder of images does to every unit; the same command goes on with it."""
    use_cache()
    network, (folder,) = network_of(given)
    with gone_on_with(given.out):
        made = _INDEX(given, network, folder)
    tell(made.told(), given)


@command("INDEX UNIT", _TOP.options, FILES, examples=("photographs.index block8:3",))
def top(given: Namespace) -> None:
    """Show the natural images that drive a unit the most."""
    found = _TOP(given, None, *given.words)
    path = place_of(given, f"top {found.unit}")
    tell(found.told(save(found.save, path, given.force)), given)


@command(
    "[MODEL] DATASET",
    *(NETWORK, SIZE, _DISSECT.options, QUIET, JSON),
    examples=(
        "efficientnet_lite0 broden1_224/",
        "efficientnet_lite0 broden1_224/ --layers block4,block10 --json",
    ),
)
def dissect(given: Namespace) -> None:
    """Find the units that detect a concept outlined in a folder with Broden's layout."""
    use_cache()
    network, words = network_of(given)
    tell(_DISSECT(given, network, *words).told(), given)


@command(
    "[MODEL] UNIT IMAGES",
    *(NETWORK, SIZE, _FACETS.options, FILES),
    option("report", str, "A folder for a report, an HTML page."),
    examples=(
        "efficientnet_lite0 logits:285 photographs/",
        "efficientnet_lite0 block12:3 photographs.index --facets 3 --size 160 --report facets/",
    ),
)
def facets(given: Namespace) -> None:
    """Find what different images excite a unit, and synthesize a picture of each kind."""
    use_cache()
    network, (unit, images) = network_of(given)
    path = place_of(given, f"facets {unit}", network.name)
    report = None if given.report is None else report_folder(given.report)
    with warnings.catch_warnings():
        warnings.simplefilter("always", methods.FacetWarning)
        found = _FACETS(given, network, unit, Path(images))
    written = save(found.save, path, given.force)
    page = None if report is None else facet_report(found, report)
    tell(found.told(written, page), given)
    leave(found.result)


@command(
    "[MODEL] LAYER INDEX",
    *(NETWORK, SIZE, _ATLAS.options, QUIET, JSON),
    _SITE,
    examples=(
        "efficientnet_lite0 block8 photographs.index --out atlas/",
        "efficientnet_lite0 block8 photographs.index --projection umap --side 12 --out atlas/",
    ),
)
def activation_atlas(given: Namespace) -> None:
    """Show what a layer sees, all over the space of its activations (Carter et al. 2019)."""
    use_cache()
    network, (layer, store) = network_of(given)
    check_site_folder(given.out)
    made = [_ATLAS(given, network, layer, store)]
    if given.groups:
        made.append(_GROUPS(given, network, layer, store))
    tell(told_site(made, activation_site(made, given.out)), given)
