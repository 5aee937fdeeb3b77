"""`featvis explain`: where in images the score of a unit comes from."""

from __future__ import annotations

import inspect
import json
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import typer

from featvis.attribution import Explanation, explain_pair, methods
from featvis.attribution import explain as explain_images
from featvis.attribution.method import Method, find_method
from featvis.cli.command import NETWORK, ONE_FILE, SIZE, capitalised, command, option, option_of
from featvis.cli.network import network_of, size_of
from featvis.cli.output import SILENT, save, use_cache
from featvis.errors import InputError, printable
from featvis.files import output_path, part_of_name, picture_name
from featvis.results.run import as_objective
from objectives import ObjectiveError


def _written(method: Method) -> list[str]:
    """Return the options of a method that a text can say: all but arrays."""
    return [name for name, one in method.options.items() if one.kind != "array"]


_KINDS = {"integer": "INTEGER", "number": "NUMBER", "switch": "TRUE|FALSE", "images": "IMAGE"}


def method_options() -> dict[str, inspect.Parameter]:
    """Return the options that methods have, each once, with the methods that have it."""
    owners: dict[str, list[Method]] = {}
    for one in methods().values():
        for name in _written(one):
            owners.setdefault(name, []).append(one)
    found: dict[str, inspect.Parameter] = {}
    for name, those in sorted(owners.items()):
        first = those[0].options[name]
        more = {"group": "Of the methods", "metavar": _KINDS.get(first.kind, "TEXT")}
        defaults = {one.name: one.options[name].default for one in those}
        found |= option_of(defaults, name, str, capitalised(first.told), **more)
    return found


_METHODS = option(
    "method", str, f"How it is explained: {', '.join(methods())}.",
    default="integrated_gradients",
)  # fmt: skip
_FAITHFULNESS = option(
    "faithfulness", bool, "Also measure deletion and insertion, beside those of two controls."
)
_SEED = option("seed", int, "Of all that the method draws.", default=0)
#: There is no bar that --quiet could hide.
_PICTURE = {name: one for name, one in ONE_FILE.items() if name != "quiet"}


@command(
    "[MODEL] OBJECTIVE IMAGE...",
    *(NETWORK, SIZE, _METHODS, _SEED, _FAITHFULNESS, method_options(), _PICTURE),
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
    options = read_options(method, named)
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
    found: Explanation = explain_images(
        network,
        unit,
        images,
        method.name,
        seed=given.seed,
        faithfulness=given.faithfulness,
        **options,
    )
    written = save(found.save, path, given.force)
    told = found.summary()
    for place, file in enumerate(files):
        figures = {n: values[place] for n, values in told["metrics"].items()}
        if given.json:
            record = {
                "objective": text,
                "method": method.name,
                "image": file,
                "picture": str(written),
                "score": told["score"][place],
                **figures,
                "silent": told["silent"][place],
                "seconds": round(found.seconds / len(files), 3),
            }
            print(json.dumps(record))
            continue
        facts = [f"score {told['score'][place]:.4g}"]
        facts += [f"{n.replace('_', ' ')} {_shown(value)}" for n, value in figures.items()]
        if told["silent"][place] is not None:
            facts.append("no gradient")
        print(f"{printable(text)}  {printable(file)}  {', '.join(facts)}")
    if not given.json:
        print(f"{method.name}, {found.seconds:.1f} s  {printable(written)}")
    if any(found.silent):
        raise typer.Exit(SILENT)


_PAIR = {
    **option("layer", str, "A map, whose pooled maps are the embeddings.", shown="the last one"),
    **option("pooling", str, "Of the layer: average or max.", default="average"),
}


@command(
    "[MODEL] IMAGE...",
    *(NETWORK, SIZE, _PAIR, _PICTURE),
    examples=("efficientnet_lite0 a.jpg b.jpg", "efficientnet_lite0 a.jpg b.jpg --pooling max"),
    name="explain-pair",
)
def explain_two(given: Namespace) -> None:
    """Show which regions of two images make a network's embeddings of them alike."""
    network, files = network_of(given)
    if len(files) != 2:
        raise InputError(f"explain-pair takes two images; got {len(files)}")
    name = picture_name(network.name, "similarity")
    path = output_path(given.output or "./", name=name)
    use_cache()
    first, second = network.as_images(files, size_of(given.size, network))
    found = explain_pair(network, first, second, layer=given.layer, pooling=given.pooling)
    written = save(found.save, path, given.force)
    if given.json:
        record = {
            "images": files,
            "layer": found.layer,
            "pooling": found.pooling,
            "cosine": found.cosine,
            "picture": str(written),
        }
        print(json.dumps(record))
        return
    print(f"{found.layer}  cosine {found.cosine:.4g}  {printable(written)}")


def read_options(method: Method, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a method from their texts.

    Raises:
        InputError: one that the method does not have, or no number where one is expected.
    """
    for name in given:
        if name not in method.options:
            listed = ", ".join(f"--{one}" for one in _written(method)) or "none"
            raise InputError(f"the method {method.name} has no option --{name}; it has: {listed}")
    return {name: method.options[name].read(method.name, text) for name, text in given.items()}


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"
