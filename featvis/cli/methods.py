"""The methods of the papers as commands: what each takes and tells is its driver's."""

from __future__ import annotations

import inspect
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from featvis import methods
from featvis.cli.command import (
    FILES,
    NETWORK,
    SIZE,
    command,
    driver_options,
    preset_options,
    run_options,
)
from featvis.cli.evidence import JUDGES, Measures
from featvis.cli.network import network_of
from featvis.cli.output import deliver, options_of, plan, use_cache
from featvis.errors import InputError, NonFiniteError, printable
from featvis.files import part_of_name
from featvis.results import Result
from objectives import Logit


def method(
    driver: Callable[..., Result],
    words: str,
    kind: str | None,
    *examples: str,
    judged: bool = False,
) -> Callable[..., None]:
    """Make a driver a command: its name, help and options are the driver's own.

    Args:
        driver: takes a network, what `words` say, and keyword-only options.
        words: of the command line.
        kind: of its presets; None for a driver without.
        *examples: what one can type after the command's name.
        judged: whether other networks can say if they recognise the pictures.
    """
    own, of_run = driver_options(driver), run_options(kind)
    if kind is not None:
        own |= preset_options(kind)
    name = driver.__name__.replace("_", "-")

    def run(given: Namespace) -> None:
        count = words.split().index(words.split()[-1]) - (given.model is not None)
        for file in given.words[count:] if words.endswith("IMAGE...") else ():
            # Before the network is loaded, which takes longer.
            if not os.path.isfile(file):  # a name that is too long is none
                raise InputError(f"there is no file {printable(file)}")
        network, rest = network_of(given)
        subject, several = rest[: len(words.split()) - 2], rest[len(words.split()) - 2 :]
        use_cache()
        options = options_of(given, network)
        options |= {one: value for one in own if (value := getattr(given, one)) is not None}
        if kind is not None:
            options["preset"] = given.preset
        # A picture's name stays as it is, in any script; a class's is text.
        what = " ".join([name.partition("-")[0], *subject])
        pictures = [Path(one) if os.path.isfile(one) else None for one in several]
        files = plan(
            given,
            network,
            [f"{what} {one}" for one in several],
            [
                f"{part_of_name(what)}-{picture.stem}" if picture else part_of_name(f"{what} {one}")
                for picture, one in zip(pictures, several, strict=True)
            ],
        )
        names = [p.name if p else one for p, one in zip(pictures, several, strict=True)]
        files.labels = names if len({*names}) == len({*several}) else several

        def made() -> Iterator[tuple[range, Result]]:
            try:
                result = driver(network, *subject, several, **options)
            except NonFiniteError as error:
                result = error.result  # what there was before it is kept
            yield range(len(several)), result

        measures: Callable[[Result], Result] = _as_it_is
        if judged:
            classes = [Logit(network.class_index(one)) for one in several]
            measures = Measures(given, network, classes)
        deliver(made(), given, files, measures)

    told = "\n\n".join((inspect.getdoc(driver) or "").split("\n\n")[:2])
    groups = (NETWORK, SIZE, own, JUDGES if judged else {}, of_run, FILES)
    return command(words, *groups, examples=examples, name=name, help=told)(run)


def _as_it_is(result: Result) -> Result:
    return result


invert = method(
    methods.invert,
    "[MODEL] LAYER IMAGE...",
    "inversion",
    "efficientnet_lite0 block6 cat.jpg",
    "efficientnet_lite0 block6 cat.jpg dog.jpg --size 160 --steps 100 -o inverted/",
    "hogb features face.png --preset ijcv2016",
)
caricature = method(
    methods.caricature,
    "[MODEL] LAYER IMAGE...",
    "caricature",
    "efficientnet_lite0 block10 cat.jpg",
    "efficientnet_lite0 block10 cat.jpg --strength 4 -o exaggerated.png",
)
class_model = method(
    methods.class_model,
    "[MODEL] CLASS...",
    "class model",
    "efficientnet_lite0 flamingo",
    "efficientnet_lite0 flamingo 'tiger cat' 285 --size 160 --steps 200 -o classes/",
    "efficientnet_lite0 flamingo --preset simonyan2013 --of log_probability",
    "efficientnet_lite0+efficientnet_lite1 flamingo --preset recognisable --judge mobilenet_v2",
    judged=True,
)
accentuate = method(
    methods.accentuate,
    "[MODEL] OBJECTIVE IMAGE...",
    None,
    "efficientnet_lite0 logits:985 meadow.jpg --layer block8",
    "efficientnet_lite0 logits:985 meadow.jpg --layer block8 --keep 2 -o more/",
)
