"""`featvis facets`: the different things that one unit looks for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from featvis import methods
from featvis.cli.command import FILES, NETWORK, RUN, SIZE, command, run_options
from featvis.cli.network import network_of, size_of
from featvis.cli.output import (
    INTERRUPTED,
    SILENT,
    file_name,
    save,
    slug,
    use_cache,
)
from featvis.errors import InputError, printable
from featvis.files import output_path
from featvis.methods import presets
from featvis.pages.facets import facet_report


@command(NETWORK, SIZE, RUN, FILES, preset=tuple(presets("facets")))
def facets(
    given: Any,
    model_unit_folder: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] UNIT FOLDER",
            help="A network's name, unless --model says which; a unit, as block8:3; and an index, "
            "or a folder of images.",
        ),
    ] = None,
    facets: Annotated[
        int | None,
        typer.Option(
            help="Their number; by default as many as are clearly apart.", show_default=False
        ),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(help="The layer whose codes are grouped; by default the last vector."),
    ] = None,
    most: Annotated[int, typer.Option(help="Exciting images that are grouped.")] = 60,
    report: Annotated[
        Path | None, typer.Option(help="A folder for a report, an HTML page.")
    ] = None,
) -> None:
    """Find what different images excite a unit, and synthesize a picture of each kind."""
    use_cache()
    if len(model_unit_folder or []) != (2 if given.place else 3):
        raise InputError(
            "facets takes a network, a unit and images, as in: featvis facets efficientnet_lite0 "
            f"logits:285 photographs; got {' '.join(model_unit_folder or []) or 'nothing'}"
        )
    network, (unit, images) = network_of(model_unit_folder or [], given.place, given.weights)
    if given.steps is not None and given.steps < 1:
        raise InputError(f"--steps must be 1 or more; got {given.steps}")
    name = f"{file_name(network.name)}_{slug(f'facets {unit}')}.png"
    path = output_path(given.output or Path(name))
    with warnings.catch_warnings():
        warnings.simplefilter("always", methods.FacetWarning)
        found = methods.facets(
            network,
            unit,
            Path(images),
            facets,
            code=code,
            most=most,
            preset=given.preset,
            size=size_of(given.size, network),
            parameterization=given.param,
            progress=not given.quiet,
            **run_options(given),
        )
    written = save(found.save, path, given.force)
    page = facet_report(found, report) if report is not None else None
    if given.as_json:
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
