"""`featvis models`, `generators`, `fetch`, `layers`: what there is by name, and what is in it."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np

from featvis import generators, loading
from featvis.cli.command import JSON, NETWORK, QUIET, SIZE, command
from featvis.cli.network import network_of, size_of
from objectives import Channel, Logit, Neuron


@command("", JSON, name="models", examples=("", "--json"))
def list_models(given: Namespace) -> None:
    """List the networks that can be loaded by name, and where their weights come from."""
    for entry in loading.available():
        if given.json:
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


@command("", JSON, name="generators", examples=("", "--json"))
def list_generators(given: Namespace) -> None:
    """List the generators that can be loaded by name, and where their weights come from."""
    for entry in generators.available():
        if given.json:
            print(json.dumps(entry.as_dict()))
            continue
        code = "x".join(map(str, (*(("h", "w") if entry.stride else ()), *entry.code)))
        here = "here" if entry.available else "not here"
        source = entry.decoder.sources[-1]
        print(f"{entry.name:12} {code:10} {here:9} {source} ({source.licence})  {entry.summary}")


@command("MODEL", QUIET, JSON, examples=("resnet18", "taef2"))
def fetch(given: Namespace) -> None:
    """Download the weights of a network or generator, check them, and keep them in the cache."""
    (model,) = given.words
    if model in {entry.name for entry in generators.available()}:
        paths = generators.fetch(model, progress=not given.quiet)
    else:
        paths = [loading.fetch(model, progress=not given.quiet)]
    for path in paths:
        print(json.dumps({"model": model, "weights": str(path)}) if given.json else path)


@command("[MODEL]", NETWORK, SIZE, JSON, examples=("efficientnet_lite0", "vgg16 --size 160x224"))
def layers(given: Namespace) -> None:
    """List the layers of a network, their shapes, and how their units are written."""
    network, _ = network_of(given, outline=True)
    rows = []
    for name, shape in network.layers(size_of(given.size, network)).items():
        kind, units, neurons = _units(name, shape)
        if given.json:
            facts = {"layer": name, "shape": list(shape), "kind": kind, "units": units}
            facts |= {"neurons": neurons} if neurons else {}
            print(json.dumps(facts | ({"drawn": True} if name in network.drawn else {})))
        drawn = "  (drawn at a fixed seed)" if name in network.drawn else ""
        text = f"{units}, {neurons}".rstrip(", ") + drawn
        rows.append((name, kind, "x".join(map(str, shape)), text))
    if not given.json:
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            print("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]))
    for name, reason in network.left_out.items():
        record = json.dumps({"left_out": name, "reason": reason})
        print(record if given.json else f"{name}  no layer: {reason}")


def _units(layer: str, shape: tuple[int, ...]) -> tuple[str, str, str]:
    """Kind of a layer's activations, and how its units and its neurons are written."""
    last = shape[-1] - 1
    if layer == "logits" and len(shape) == 1:
        return "vector", f"{Logit(0)} to {Logit(last)}", ""
    units = f"{Channel(layer, 0)} to {Channel(layer, last)}"
    kind = {1: "vector", 2: "tokens", 3: "map"}.get(len(shape), "array")
    if kind not in ("tokens", "map"):
        return kind, units, ""
    first, end = (np.array(at) for at in ([0] * (len(shape) - 1), np.array(shape[:-1]) - 1))
    return kind, units, f"{Neuron(layer, 0, first)} to {Neuron(layer, last, end)}"
