"""`featvis facets`: the different things that one unit looks for."""

from __future__ import annotations

import json
import warnings
from argparse import Namespace
from pathlib import Path

import typer

from featvis import methods
from featvis.cli.command import FILES, INTERRUPTED, NETWORK, SIZE, command, option, run_options
from featvis.cli.network import network_of
from featvis.cli.output import SILENT, options_of, save, use_cache
from featvis.errors import InputError, printable
from featvis.files import output_path, part_of_name, picture_name
from featvis.pages.facets import facet_report

_FACETS = {
    **option("facets", int, "Their number.", shown="as many as are clearly apart"),
    **option("code", str, "The layer whose codes are grouped.", shown="the last vector"),
    **option("most", int, "Exciting images that are grouped.", default=60),
    **option("report", str, "A folder for a report, an HTML page."),
}


@command(
    "[MODEL] UNIT IMAGES",
    *(NETWORK, SIZE, _FACETS, run_options("facets"), FILES),
    examples=(
        "efficientnet_lite0 logits:285 photographs/",
        "efficientnet_lite0 block12:3 photographs.index --facets 3 --size 160 --report facets/",
    ),
)
def facets(given: Namespace) -> None:
    """Find what different images excite a unit, and synthesize a picture of each kind."""
    use_cache()
    network, (unit, images) = network_of(given)
    options = options_of(given, network)
    options.pop("snapshots")
    if given.animate is not None:
        raise InputError("facets writes no animation: leave out --animate")
    name = picture_name(network.name, part_of_name(f"facets {unit}"))
    path = output_path(given.output or "./", name=name)
    with warnings.catch_warnings():
        warnings.simplefilter("always", methods.FacetWarning)
        found = methods.facets(
            network, unit, Path(images), given.facets, code=given.code, most=given.most,
            preset=given.preset, **options,
        )  # fmt: skip
    written = save(found.save, path, given.force)
    page = facet_report(found, given.report) if given.report is not None else None
    if given.json:
        record = {"sheet": str(written), "report": page and str(page), **found.summary()}
        print(json.dumps(record))
    else:
        for number, (share, score, natural) in enumerate(
            zip(found.shares, found.scores, found.natural, strict=True)
        ):
            apart = "" if found.distinct[number] else ", not apart from another"
            print(
                f"facet {number}  {100 * share:.0f} % of the images, score {score:.4g} "
                f"(images {natural:.4g}){apart}"
            )
        print(f"sheet  {printable(written)}")
        if page is not None:
            print(f"report  {printable(page)}")
    if "interrupt" in found.result.stopped:
        raise typer.Exit(INTERRUPTED)
    if any(found.result.silent):
        raise typer.Exit(SILENT)
