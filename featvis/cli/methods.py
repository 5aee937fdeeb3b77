"""The methods of the papers as commands: what each takes and tells is its driver's."""

from __future__ import annotations

import inspect
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from featvis import methods
from featvis.cli.command import FILES, NETWORK, SIZE, command
from featvis.cli.drivers import Driver
from featvis.cli.evidence import JUDGES, asked
from featvis.cli.network import network_of
from featvis.cli.output import deliver, use_cache
from featvis.errors import InputError, NonFiniteError, printable
from featvis.files import part_of_name
from featvis.results import Result
from featvis.results.places import places_for
from objectives import Logit


def method(
    function: Callable[..., Result], words: str, presets: str | None, *examples: str
) -> Callable[..., None]:
    """Make a driver a command: its name, help and options are the driver's own.

    Args:
        function: takes a network, what `words` say, and keyword-only options.
        words: of the command line, the last for a picture each.
        presets: their kind; None for a driver without.
        *examples: what one can type after the command's name.
    """
    driver = Driver(function, presets=presets, animated=True)
    name, judged = function.__name__.replace("_", "-"), words.endswith("CLASS...")

    def run(given: Namespace) -> None:
        fixed = len(words.split()) - 2  # words between the network and the pictures
        for file in given.words[fixed + (given.model is None) :] if not judged else ():
            # Before the network is loaded, which takes longer.
            if not os.path.isfile(file):  # a name that is too long is none
                raise InputError(f"there is no file {printable(file)}")
        network, rest = network_of(given)
        subject, several = rest[:fixed], rest[fixed:]
        use_cache()
        # A picture's name stays as it is, in any script; a class's is text.
        what = " ".join([name.partition("-")[0], *subject])
        names = [
            f"{part_of_name(what)}-{Path(one).stem}"
            if os.path.isfile(one)
            else part_of_name(f"{what} {one}")
            for one in several
        ]
        places = places_for(network.name, names, given.output, given.animate)

        def made() -> Iterator[tuple[range, Result]]:
            try:
                result = driver(given, network, *subject, several)
            except NonFiniteError as error:
                result = error.result  # what there was before it is kept
            yield range(len(several)), result

        texts = [f"{what} {one}" for one in several]
        if judged:
            units = [Logit(network.class_index(one)) for one in several]
            deliver(made(), given, places, texts, measure=asked(given, network, units))
        else:
            deliver(made(), given, places, texts)

    told = "\n\n".join((inspect.getdoc(function) or "").split("\n\n")[:2])
    groups = (NETWORK, SIZE, driver.options, JUDGES if judged else {}, FILES)
    return command(words, *groups, examples=examples, name=name, help=told)(run)


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
)
accentuate = method(
    methods.accentuate,
    "[MODEL] OBJECTIVE IMAGE...",
    None,
    "efficientnet_lite0 logits:985 meadow.jpg --layer block8",
    "efficientnet_lite0 logits:985 meadow.jpg --layer block8 --keep 2 -o more/",
)
