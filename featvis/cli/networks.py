"""`featvis models`, `fetch` and `layers`: which networks there are, and what is in them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from featvis import loading
from featvis.cli.command import JSON, NETWORK, QUIET, SIZE, command
from featvis.cli.network import network_of, size_of, units_of_layer
from featvis.errors import InputError


@command(JSON, name="models")
def list_models(given: Any) -> None:
    """The networks that can be loaded by name."""
    for entry in loading.available():
        if given.as_json:
            print(json.dumps(entry.as_dict()))
            continue
        size = f"{entry.input.size[0]}x{entry.input.size[1]}"
        here = "here" if entry.available else "not here"
        found = entry.find()
        source = found[0] if found else entry.sources[0]
        accuracy = "" if entry.accuracy is None else f"top-1 {100 * entry.accuracy:.1f}%"
        print(
            f"{entry.name:28} {entry.parameters / 1e6:6.1f}M  {size:9} {accuracy:12} "
            f"{here:9} {source} ({source.licence})"
        )


@command(QUIET, JSON)
def fetch(
    model: Annotated[str, typer.Argument(help="A network's name: see `featvis models`.")],
    given: Any,
) -> None:
    """Download the weights of a network, check them, and keep them in the cache folder."""
    path = loading.fetch(model, progress=not given.quiet)
    print(json.dumps({"model": model, "weights": str(path)}) if given.as_json else path)


@command(NETWORK, SIZE, JSON)
def layers(
    given: Any,
    model: Annotated[
        str | None, typer.Argument(help="A network's name: see `featvis models`.")
    ] = None,
) -> None:
    """The layers of a network, their shapes at a size, and how their units are written."""
    network, rest = network_of([model] if model else [], given.place, given.weights, outline=True)
    if rest:
        raise InputError(f"--model names the network already; got {model!r} too")
    shapes = network.layers(size_of(given.size, network))
    rows = []
    for name, shape in shapes.items():
        kind, units, neurons = units_of_layer(name, shape)
        if given.as_json:
            facts = {"layer": name, "shape": list(shape), "kind": kind, "units": units}
            facts |= {"neurons": neurons} if neurons else {}
            print(json.dumps(facts | ({"drawn": True} if name in network.drawn else {})))
        drawn = "  (drawn at a fixed seed)" if name in network.drawn else ""
        text = f"{units}, {neurons}".rstrip(", ") + drawn
        rows.append((name, kind, "x".join(map(str, shape)), text))
    if not given.as_json:
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            print("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]))
    for name, reason in network.left_out.items():
        record = json.dumps({"left_out": name, "reason": reason})
        print(record if given.as_json else f"{name}  no layer: {reason}")
