"""`featvis sample`: pictures of a generator that a network takes for what is asked."""

from __future__ import annotations

import os
from argparse import Namespace

from featvis import methods
from featvis.cli.command import ONE_FILE, command, option
from featvis.cli.drivers import Driver
from featvis.cli.network import load_network, see_working_folder
from featvis.cli.output import leave, place_of, save, tell, use_cache
from featvis.errors import InputError, printable

_SAMPLE = Driver(methods.sample, "words", presets="sampling", n="-n --number", classes="--class")
_ASKED = {
    **option("classes", str, "A class by number or name; several with commas between are a set "
             "each, and 3+5 are both at once.", "--class", metavar="CLASS"),
    **option("sentence", str, "A sentence that a captioner (--model) is to say of the picture.",
             "--words", metavar="WORDS"),
    **option("inpaint", str, "An image, of which a hole is filled.", metavar="IMAGE"),
    **option("mask", str, "A picture that is white in the hole and black elsewhere."),
    **option("model", str, "The network that says what a picture is: a name, or "
             "package.module:factory.", shown="the generator's own", metavar="MODEL"),
    **option("judge", str, "Another network, which had no part in the samples.",
             shown="the generator's own", metavar="MODEL"),
}  # fmt: skip


@command(
    "GENERATOR",
    *(_SAMPLE.options, _ASKED, ONE_FILE),
    examples=(
        "mnist_ppgn --class 7",
        "mnist_ppgn --class 0,1,3+5 -n 32 --keep best -o digits.png",
        "mnist_ppgn --unit conv2:5 --preset ppgn_joint",
        "mnist_ppgn --class 3 --inpaint digit.png --mask hole.png",
    ),
)
def sample(given: Namespace) -> None:
    """Draw samples of a generator that a network takes for a class, a unit or words."""
    for file in (given.inpaint, given.mask):
        if file is not None and not os.path.isfile(file):
            raise InputError(f"there is no file {printable(file)}")
    use_cache()
    see_working_folder()
    (generator,) = given.words
    said = [one for one in (given.classes, given.unit, given.sentence) if one]
    own = generator.rpartition(":")[2] or generator
    path = place_of(given, " ".join(["sample", *said]), own)
    asked = {"words": given.sentence, "inpaint": given.inpaint, "mask": given.mask}
    if given.judge is not None:
        asked["judge"] = load_network(given.judge, None)
    if given.model is not None and given.sentence is None:
        asked["model"] = load_network(given.model, None)
    found = _SAMPLE(given, None, generator, **asked)
    written = save(found.save, path, given.force)
    tell(found.told(written), given, generator=generator, seed=given.seed)
    leave(found.result)
