"""The layers of a network as a table: shapes, and how their units are written."""

from __future__ import annotations

import numpy as np

from featvis.models.model import Model
from featvis.told import Told
from objectives import Channel, Logit, Neuron


def listing(network: Model, size: tuple[int, int] | None = None) -> Told:
    """What the command line says of the layers of a network.

    Args:
        network: with its weights, or an outline.
        size: (height, width) of the images; None: the network's own.
    """
    rows, records, lines = [], [], []
    for name, shape in network.layers(size).items():
        kind, units, neurons = _units(name, shape)
        drawn = name in network.drawn
        facts = {"layer": name, "shape": list(shape), "kind": kind, "units": units}
        facts |= {"neurons": neurons} if neurons else {}
        records.append(facts | ({"drawn": True} if drawn else {}))
        text = f"{units}, {neurons}".rstrip(", ") + ("  (drawn at a fixed seed)" if drawn else "")
        rows.append((name, kind, "x".join(map(str, shape)), text))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[3]]))
    for name, reason in network.left_out.items():
        records.append({"left_out": name, "reason": reason})
        lines.append(f"{name}  no layer: {reason}")
    return Told(records, lines)


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
