"""`featvis models`, `generators`, `fetch`, `layers`: what there is by name, and what is in it."""

from __future__ import annotations

from argparse import Namespace

from featvis import generators, loading
from featvis.cli.command import JSON, NETWORK, QUIET, SIZE, command
from featvis.cli.network import network_of, size_of
from featvis.cli.output import tell
from featvis.models.listing import listing
from featvis.told import Told


@command("", JSON, name="models", examples=("", "--json"))
def list_models(given: Namespace) -> None:
    """List the networks that can be loaded by name, and where their weights come from."""
    for entry in loading.available():
        tell(entry.told(), given)


@command("", JSON, name="generators", examples=("", "--json"))
def list_generators(given: Namespace) -> None:
    """List the generators that can be loaded by name, and where their weights come from."""
    for entry in generators.available():
        tell(entry.told(), given)


@command("MODEL", QUIET, JSON, examples=("resnet18", "taef2"))
def fetch(given: Namespace) -> None:
    """Download the weights of a network or generator, check them, and keep them in the cache."""
    (model,) = given.words
    if model in {entry.name for entry in generators.available()}:
        paths = generators.fetch(model, progress=not given.quiet)
    else:
        paths = [loading.fetch(model, progress=not given.quiet)]
    for path in map(str, paths):
        tell(Told([{"model": model, "weights": path}], [path]), given)


@command("[MODEL]", NETWORK, SIZE, JSON, examples=("efficientnet_lite0", "vgg16 --size 160x224"))
def layers(given: Namespace) -> None:
    """List the layers of a network, their shapes, and how their units are written."""
    network, _ = network_of(given, outline=True)
    tell(listing(network, size_of(given.size, network)), given)
