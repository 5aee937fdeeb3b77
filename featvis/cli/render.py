"""`featvis render`: what a unit looks for."""

from __future__ import annotations

from argparse import Namespace

from featvis import methods
from featvis.cli.command import FILES, NETWORK, SIZE, command, option
from featvis.cli.drivers import Driver
from featvis.cli.evidence import EVIDENCE, asked
from featvis.cli.network import network_of
from featvis.cli.output import deliver, use_cache
from featvis.errors import InputError
from featvis.files import part_of_name
from featvis.results.places import places_for
from featvis.results.run import options_of_runs
from featvis.results.telling import label
from objectives import parse

_VISUALIZE = Driver(methods.visualize, "steps", presets="visualization", animated=True)
_VISUALIZE.options |= option("batch", int, options_of_runs()["batch"].metadata["help"])


@command(
    "[MODEL] OBJECTIVE...",
    *(NETWORK, SIZE, EVIDENCE, _VISUALIZE.options, FILES),
    examples=(
        "efficientnet_lite0 block8:3",
        "efficientnet_lite0 block8:3@7,7 logits:285 'block4:0 - 0.1*tv' --size 160 -o units/",
        "efficientnet_lite0 block8:3 --evidence photographs/ --seeds 4 --json",
        "efficientnet_lite0 logits:285 --judge mobilenet_v2",
        "efficientnet_lite0 block8:3 --preset exp_maximization --natural photographs.index",
        "--model mypackage.nets:factory blocks_3/conv2:5",
    ),
)
def render(given: Namespace) -> None:
    """Synthesize what a unit looks for; several objectives give a picture each and a grid."""
    use_cache()
    network, texts = network_of(given)
    units = [parse(text, network.layers, network.class_index) for text in texts]
    found = _VISUALIZE(given, network, units)
    measure = asked(given, network, units)
    if given.animate is not None and len(units) > 1:
        raise InputError(f"--animate takes one objective; got {len(units)}")
    names = [part_of_name(str(one)) for one in units]
    places = places_for(network.name, names, given.output, given.animate)
    deliver(found, given, places, texts, [label(one, network) for one in units], measure)
