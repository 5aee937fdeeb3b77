"""`featvis dissect`: which units detect a concept that somebody has outlined."""

from __future__ import annotations

import json
from argparse import Namespace

from featvis import natural
from featvis.cli.command import JSON, NETWORK, QUIET, SIZE, command, option
from featvis.cli.network import network_of, size_of
from featvis.cli.output import use_cache

_OPTIONS = {
    **option("layers", str, "Layers, with commas between.", shown="all without a slash"),
    **option("quantile", float, "The share of all places at which a unit is on.", default=0.005),
    **option("least", float, "The IoU above which a unit is a detector.", default=0.04),
    **option("batch", int, "Images that go through the network together.", default=16),
}


@command(
    "[MODEL] DATASET",
    *(NETWORK, SIZE, _OPTIONS, QUIET, JSON),
    examples=(
        "efficientnet_lite0 broden1_224/",
        "efficientnet_lite0 broden1_224/ --layers block4,block10 --json",
    ),
)
def dissect(given: Namespace) -> None:
    """Find the units that detect a concept outlined in a folder with Broden's layout."""
    use_cache()
    network, (folder,) = network_of(given)
    layers = given.layers
    found = natural.dissect(
        network,
        folder,
        layers=[one.strip() for one in layers.split(",")] if layers is not None else None,
        quantile=given.quantile,
        least=given.least,
        size=size_of(given.size, network),
        batch=given.batch,
        progress=not given.quiet,
    )
    table = found.table()
    if given.json:
        units = {layer: [one._asdict() for one in found.detectors(layer)] for layer in table}
        print(json.dumps({"images": found.images, "layers": table, "detectors": units}))
        return
    for layer, counts in table.items():
        best = ", ".join(
            f"{one.unit} {one.concept} {one.iou:.2f}" for one in found.detectors(layer)[:4]
        )
        said = f"{counts['detectors']} of {counts['units']} units, {counts['concepts']} concepts"
        print(f"{layer}  {said}" + (f": {best}" if best else ""))
