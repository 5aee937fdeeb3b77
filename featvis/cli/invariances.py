"""`featvis diverse` and `featvis invariance`: images that differ, and what a unit ignores."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer

from featvis import methods
from featvis.cli.command import JSON, NETWORK, QUIET, RUN, SIZE, command, run_options
from featvis.cli.network import network_of, size_of
from featvis.cli.output import SILENT, file_name, report, save, slug, use_cache
from featvis.errors import InputError, printable
from featvis.files import output_path
from featvis.methods import presets
from featvis.methods.diversity import TradeOff
from featvis.methods.invariance_table import TABLE
from featvis.models import Model
from featvis.pages import Report, invariance_page, table_page
from featvis.pages.invariances import plots
from objectives import Channel, Layer, Logit, Objective, parse

_Subject = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL] UNIT",
        help="A network's name, unless --model says which; and a unit, as block4:3.",
    ),
]
_Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Where the picture goes, or a folder.")
]
_Images = Annotated[int, typer.Option("-n", "--images", help="Images that differ, at least 2.")]


@command(NETWORK, SIZE, RUN, QUIET, JSON, preset=tuple(presets("diversity")))
def diverse(
    given: Any,
    model_unit: _Subject = None,
    images: _Images = 6,
    layer: Annotated[
        str | None, typer.Option(help="Where images are to differ; by default in their pixels.")
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help="Of the best activation, what 'constrained' keeps: 0.85.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="Of the difference, for the other presets.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Trace activation against distance over weights.")
    ] = False,
    output: _Output = None,
    force: Annotated[bool, typer.Option("--force", help="Write over existing files.")] = False,
) -> None:
    """Different images that all drive a unit (Cadena et al. 2018)."""
    network, unit = _unit_of(model_unit, given, "diverse")
    options: dict[str, Any] = {
        "n": images,
        "layer": layer,
        "size": size_of(given.size, network),
        "progress": not given.quiet,
        **({} if given.param is None else {"parameterization": given.param}),
        **run_options(given),
    }
    use_cache()
    if sweep:
        if keep is not None or weight is not None:
            raise InputError("--sweep goes over weights of its own: leave out --keep and --weight")
        _tell_sweep(methods.trade_off(network, unit, **options), network, unit, output, given)
        return
    own = (("keep", keep), ("weight", weight))
    options |= {name: value for name, value in own if value is not None}
    if output is None or not output.suffix:
        folder = output or Path()
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / f"{file_name(network.name)}_diverse-{slug(unit)}.png"
    path = output_path(output)
    result = methods.diverse(network, unit, preset=given.preset, **options)
    # Without labels: `featvis replay` compares the whole picture.
    report(result, unit, save(result.save, path, force), given.seed, given.as_json)
    if any(result.silent):
        raise typer.Exit(SILENT)


@command(NETWORK, SIZE, QUIET, JSON)
def invariance(
    given: Any,
    model_unit: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] UNIT|LAYER",
            help="A network's name, unless --model says which; and a unit, as block4:3, or a layer "
            "or several units of it, as block4 or block4:0-31, for a table.",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option("-n", "--images", help="Images that differ, and starts: 4; 3.")
    ] = None,
    keep: Annotated[float, typer.Option(help="Of the best activation, what they keep.")] = 0.85,
    steps: Annotated[int | None, typer.Option(help="Of each run: 250, of a table 80.")] = None,
    natural: Annotated[
        Path | None, typer.Option(help="A folder of photographs, for the best crops of a unit.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Drives everything random.")] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder of the report.")
    ] = None,
) -> None:
    """What a unit ignores, as a report; or all units of a layer, as a table that can be resumed."""
    network, text = _unit_of(model_unit, given, "invariance")
    unit = parse(text, network.layers)
    folder = output or Path(f"{file_name(network.name)}_invariance-{slug(text)}")
    options: dict[str, Any] = {"keep": keep, "seed": seed, "size": size_of(given.size, network)}
    options |= {k: v for k, v in (("n", images), ("steps", steps)) if v is not None}
    use_cache()
    started = time.perf_counter()
    if _is_table(unit):
        if natural is not None:
            raise InputError("--natural is for one unit; a table has none")
        _table(network, unit, folder, options, given, started)
        return
    found = methods.invariance(
        network, unit, natural=None if natural is None else _pictures(natural),
        progress=not given.quiet, **options,
    )  # fmt: skip
    seconds = round(time.perf_counter() - started, 1)
    page = invariance_page(found, folder, seed=seed, seconds=seconds)
    if given.as_json:
        rows = {one.name: [one.value, one.chance] for one in found.indices}
        print(json.dumps({"unit": text, "page": str(page), "indices": rows, "seconds": seconds}))
        return
    for one in found.indices:
        print(f"{one.name:12} {one.value:.2f} ± {one.spread:.2f}  chance {one.chance:.2f}")
    for note in found.notes:
        print(printable(note, 400))
    print(f"{seconds:.1f} s  {printable(page)}")


def _unit_of(
    arguments: list[str] | None, given: SimpleNamespace, command: str
) -> tuple[Model, str]:
    """The network and the text of the unit."""
    words = list(arguments or [])
    if len(words) != (1 if given.place else 2):
        raise InputError(
            f"{command} takes a network and a unit, as in: featvis {command} efficientnet_lite0 "
            f"block4:3; got {' '.join(words) or 'nothing'}"
        )
    network, (text,) = network_of(words, given.place, given.weights)
    return network, text


def _is_table(unit: Objective) -> bool:
    return isinstance(unit, Layer) or (
        isinstance(unit, (Channel, Logit)) and np.ndim(unit.index) > 0
    )


def _table(
    network: Model,
    unit: Any,
    folder: Path,
    options: dict[str, Any],
    given: SimpleNamespace,
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
            network, unit.layer, units, folder=folder, tell=tell, **options
        )
    except KeyboardInterrupt:
        if reached[0]:
            said = f"{reached[0]} of {reached[1]} units are in {printable(folder / TABLE)}"
            print(f"{said}; the same command goes on", file=sys.stderr)
        raise
    seconds = round(time.perf_counter() - started, 1)
    page = table_page(rows, unit.layer, network.name, folder, seconds=seconds, **options)
    if given.as_json:
        for row in rows:
            print(json.dumps(row))
        return
    dead = sum(not row["alive"] for row in rows)
    print(f"{len(rows)} units, {dead} dead, {seconds:.1f} s  {printable(page)}")


def _pictures(folder: Path) -> list[Any]:
    from featvis.images import image_files

    return list(image_files(folder))


def _tell_sweep(
    curve: TradeOff, network: Model, unit: str, output: Path | None, given: SimpleNamespace
) -> None:
    """Writes the curve and the images of each weight as a report."""
    folder = output or Path(f"{file_name(network.name)}_diverse-{slug(unit)}")
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
    if given.as_json:
        print(json.dumps({"page": str(path), "knee": knee, "rows": [row[:3] for row in rows]}))
        return
    for row in rows:
        print(f"weight {row[0]:<6g} activation {row[1]:.3f} distance {row[2]:.3f} {row[3]}")
    print(f"knee at the weight {knee:g}  {printable(path)}")
