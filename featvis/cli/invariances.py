"""`featvis diverse` and `featvis invariance`: images that differ, and what a unit ignores."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from featvis import methods
from featvis.cli.command import (
    FILES,
    JSON,
    NETWORK,
    QUIET,
    SIZE,
    command,
    option,
    run_options,
)
from featvis.cli.network import network_of, size_of
from featvis.cli.output import SILENT, options_of, report, save, use_cache
from featvis.errors import InputError, printable
from featvis.files import output_path, part_of_name, picture_name
from featvis.methods.diversity import TradeOff
from featvis.methods.invariance_table import TABLE
from featvis.models import Model
from featvis.natural import Index
from featvis.natural.store import is_index
from featvis.own_pictures import natural_files
from featvis.pages import Report, invariance_page, table_page
from featvis.pages.invariances import plots
from featvis.results import Result
from objectives import Channel, Layer, Logit, Objective, parse

_DIVERSE = {
    **option("images", int, "Images that differ, at least 2.", "-n", "--images", default=6),
    **option("layer", str, "Where images are to differ.", shown="their pixels"),
    **option("keep", float, "Of the best activation, what 'constrained' keeps.", shown="0.85"),
    **option("weight", float, "Of the difference, for the other presets.", shown="the preset's"),
    **option("sweep", bool, "Trace activation against distance over weights.", "--sweep"),
}
_INVARIANCE = {
    **option(
        "images", int, "Images that differ, and starts.", "-n", "--images", shown="4; of a table 3"
    ),
    **option("keep", float, "Of the best activation, what they keep.", default=0.85),
    **option("steps", int, "Of each run.", shown="250; of a table 80"),
    **option(
        "natural",
        str,
        "Photographs, for the best crops of a unit: an index (see `featvis index`) "
        "or, of one unit, a folder.",
    ),
    **option("seed", int, "Drives everything random.", default=0),
    **option("output", str, "The folder of the report.", "-o", "--output"),
}


@command(
    "[MODEL] UNIT",
    *(NETWORK, SIZE, _DIVERSE, run_options("diversity"), FILES),
    examples=(
        "efficientnet_lite0 block4:3",
        "efficientnet_lite0 block4:3 -n 9 --keep 0.9 -o differ/",
        "efficientnet_lite0 block4:3 --sweep -o curve/",
    ),
)
def diverse(given: Namespace) -> None:
    """Drive a unit with images that differ (Cadena et al. 2018)."""
    network, (unit,) = network_of(given)
    options = options_of(given, network) | {"n": given.images, "layer": given.layer}
    options.pop("snapshots")
    if options["parameterization"] is None:
        del options["parameterization"]
    if given.animate is not None:
        raise InputError("diverse writes no animation: leave out --animate")
    use_cache()
    if given.sweep:
        if given.keep is not None or given.weight is not None:
            raise InputError("--sweep goes over weights of its own: leave out --keep and --weight")
        _tell_sweep(methods.trade_off(network, unit, **options), network, unit, given)
        return
    options |= {
        one: said for one in ("keep", "weight") if (said := getattr(given, one)) is not None
    }
    name = picture_name(network.name, f"diverse-{part_of_name(unit)}")
    path = output_path(given.output or "./", name=name)
    result: Result = methods.diverse(network, unit, preset=given.preset, **options)
    # As replay compares it: without labels.
    report(result, unit, save(result.save, path, given.force), given.seed, given.json)
    if any(result.silent):
        raise typer.Exit(SILENT)


@command(
    "[MODEL] UNIT|LAYER",
    *(NETWORK, SIZE, _INVARIANCE, QUIET, JSON),
    examples=(
        "efficientnet_lite0 block4:3",
        "efficientnet_lite0 block4:3 --size 96 --natural photographs/ -o report/",
        "efficientnet_lite0 block4:0-31 --size 64 --natural photographs.index -o table/",
    ),
)
def invariance(given: Namespace) -> None:
    """Report what a unit ignores; or tabulate all units of a layer, which can be resumed."""
    network, (text,) = network_of(given)
    unit = parse(text, network.layers, network.class_index)
    folder = Path(given.output or picture_name(network.name, f"invariance-{part_of_name(text)}"))
    options: dict[str, Any] = {"keep": given.keep, "seed": given.seed}
    options["size"] = size_of(given.size, network)
    several = {"n": given.images, "steps": given.steps}
    options |= {name: value for name, value in several.items() if value is not None}
    use_cache()
    started = time.perf_counter()
    if _is_table(unit):
        _table(network, unit, folder, options, given, started)
        return
    natural: Any = None
    if given.natural is not None:
        indexed = is_index(given.natural)
        natural = Index(given.natural) if indexed else natural_files(given.natural)
    found = methods.invariance(network, unit, natural=natural, progress=not given.quiet, **options)
    seconds = round(time.perf_counter() - started, 1)
    page = invariance_page(found, folder, seed=given.seed, seconds=seconds)
    if given.json:
        rows = {one.name: [one.value, one.chance] for one in found.indices}
        print(json.dumps({"unit": text, "page": str(page), "indices": rows, "seconds": seconds}))
        return
    for one in found.indices:
        print(f"{one.name:12} {one.value:.2f} ± {one.spread:.2f}  chance {one.chance:.2f}")
    for note in found.notes:
        print(printable(note, 400))
    print(f"{seconds:.1f} s  {printable(page)}")


def _is_table(unit: Objective) -> bool:
    return isinstance(unit, Layer) or (
        isinstance(unit, (Channel, Logit)) and np.ndim(unit.index) > 0
    )


def _table(
    network: Model,
    unit: Any,
    folder: Path,
    options: dict[str, Any],
    given: Namespace,
    started: float,
) -> None:
    """A layer's table and its page; after a Ctrl-C what was done is in the folder."""
    reached = [0, 0]

    def tell(done: int, count: int) -> None:
        reached[:] = [done, count]
        if not given.quiet:
            print(f"{done} of {count} units", file=sys.stderr)

    units = None if isinstance(unit, Layer) else np.asarray(unit.index).tolist()
    try:
        rows = methods.invariance_table(
            network, unit.layer, units, folder=folder, natural=given.natural, tell=tell, **options
        )
    except KeyboardInterrupt:
        if reached[0]:
            said = f"{reached[0]} of {reached[1]} units are in {printable(folder / TABLE)}"
            print(f"{said}; the same command goes on", file=sys.stderr)
        raise
    seconds = round(time.perf_counter() - started, 1)
    page = table_page(rows, unit.layer, network.name, folder, seconds=seconds, **options)
    if given.json:
        for row in rows:
            print(json.dumps(row))
        return
    dead = sum(not row["alive"] for row in rows)
    print(f"{len(rows)} units, {dead} dead, {seconds:.1f} s  {printable(page)}")


def _tell_sweep(curve: TradeOff, network: Model, unit: str, given: Namespace) -> None:
    """Writes the curve and the images of each weight as a report."""
    folder = Path(given.output or picture_name(network.name, f"diverse-{part_of_name(unit)}"))
    if folder.suffix:
        raise InputError(f"--sweep writes a folder; got {printable(folder)}")
    page = Report(folder, f"Activation against distance: {unit} of {network.name}")
    knee = float(curve.weights[curve.knee])
    page.text(f"The curve bends most at the weight {knee:g}.")
    rows = [
        [float(w), float(a), float(d), "knee" if i == curve.knee else ""]
        for i, (w, a, d) in enumerate(
            zip(curve.weights, curve.activation, curve.distance, strict=True)
        )
    ]
    page.table(["weight", "activation", "distance", ""], rows)
    if plots():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 4), layout="constrained")
        axis = figure.subplots()
        axis.plot(curve.distance, curve.activation, "o-")
        axis.plot(curve.distance[curve.knee], curve.activation[curve.knee], "s", markersize=10)
        axis.set_xlabel("smallest distance, in norms")
        axis.set_ylabel("share of the best activation")
        page.figure("curve", figure)
    n = len(curve.result) // len(curve.weights)
    page.result("images", curve.result, columns=n, caption=f"A row of {n} images a weight.")
    path = page.write(seed=given.seed, weights=curve.weights, knee=knee)
    if given.json:
        print(json.dumps({"page": str(path), "knee": knee, "rows": [row[:3] for row in rows]}))
        return
    for row in rows:
        print(f"weight {row[0]:<6g} activation {row[1]:.3f} distance {row[2]:.3f} {row[3]}")
    print(f"knee at the weight {knee:g}  {printable(path)}")
