"""`featvis explain`: where in images the score of a unit comes from."""

from __future__ import annotations

import inspect
import os
from argparse import Namespace

from featvis.attribution import explain as explain_images
from featvis.attribution import explain_pair, methods
from featvis.attribution.method import find_method
from featvis.cli.command import NETWORK, ONE_FILE, SIZE, command, option
from featvis.cli.drivers import Driver, capitalised, option_of
from featvis.cli.network import network_of, size_of
from featvis.cli.output import leave, place_of, save, tell, use_cache
from featvis.errors import InputError, printable
from featvis.files import output_path, part_of_name, picture_name
from featvis.results.run import as_objective
from objectives import ObjectiveError

_KINDS = {"integer": "INTEGER", "number": "NUMBER", "switch": "TRUE|FALSE", "images": "IMAGE"}
_EXPLAIN = Driver(explain_images, "method", runs=())
_PAIR = Driver(explain_pair)


def method_options() -> dict[str, inspect.Parameter]:
    """Return the options that methods have, each once, with the methods that have it."""
    found: dict[str, inspect.Parameter] = {}
    for name in sorted({name for one in methods().values() for name in one.written}):
        those = [one for one in methods().values() if name in one.written]
        first = those[0].options[name]
        more = {"group": "Of the methods", "metavar": _KINDS.get(first.kind, "TEXT")}
        defaults = {one.name: one.options[name].default for one in those}
        found |= option_of(defaults, name, str, capitalised(first.told), **more)
    return found


#: There is no bar that --quiet could hide.
_PICTURE = {name: one for name, one in ONE_FILE.items() if name != "quiet"}
_METHOD = option(
    "method", str, f"How it is explained: {', '.join(methods())}.",
    default="integrated_gradients",
)  # fmt: skip


@command(
    "[MODEL] OBJECTIVE IMAGE...",
    *(NETWORK, SIZE, _METHOD, _EXPLAIN.options, method_options(), _PICTURE),
    examples=(
        "efficientnet_lite0 logits:285 cat.jpg",
        "efficientnet_lite0 logits:tabby cat.jpg --method grad_cam -o cat.png",
        "efficientnet_lite0 block8:3 a.jpg b.jpg --method smooth_grad --samples 20 -o maps/",
    ),
)
def explain(given: Namespace) -> None:
    """Show where in images the score of a unit comes from: each picture, and beside it the map."""
    network, (text, *files) = network_of(given)
    method = find_method(given.method)
    # A method that came with the network's own module has options that this line does not take.
    known = sorted({name for one in methods().values() for name in one.options})
    named = {n: value for n in known if (value := getattr(given, n, None)) is not None}
    options = method.read(named)
    try:
        unit = as_objective(text, network)
    except ObjectiveError as error:
        if os.path.isfile(text):
            shown = printable(text)
            raise InputError(f"{shown} is a file: the objective comes before images") from error
        raise
    name = picture_name(network.name, f"{part_of_name(text)}-{method.name}")
    path = output_path(given.output or "./", name=name)
    use_cache()
    images = network.as_images(files, size_of(given.size, network))
    found = _EXPLAIN(given, network, unit, images, method.name, **options)
    tell(found.told(text, files, save(found.save, path, given.force)), given)
    leave(found)


@command(
    "[MODEL] IMAGE IMAGE",
    *(NETWORK, SIZE, _PAIR.options, _PICTURE),
    examples=("efficientnet_lite0 a.jpg b.jpg", "efficientnet_lite0 a.jpg b.jpg --pooling max"),
    name="explain-pair",
)
def explain_two(given: Namespace) -> None:
    """Show which regions of two images make a network's embeddings of them alike."""
    network, files = network_of(given)
    path = place_of(given, "similarity", network.name)
    use_cache()
    images = network.as_images(files, size_of(given.size, network))
    found = _PAIR(given, network, *images)
    tell(found.told(files, save(found.save, path, given.force)), given)
