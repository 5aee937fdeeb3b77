"""`featvis sample`: pictures of a generator that a network takes for what is asked."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import typer

from featvis import methods
from featvis.cli.command import (
    INTERRUPTED,
    ONE_FILE,
    command,
    option,
    preset_options,
    run_options,
)
from featvis.cli.network import load_network
from featvis.cli.output import save, use_cache
from featvis.errors import InputError, printable
from featvis.files import output_path, part_of_name, picture_name
from featvis.results.run import options_of_runs

_ASKED = {
    **option("classes", str, "A class by number or name; several with commas between are a set "
             "each, and 3+5 are both at once.", "--class", metavar="CLASS"),
    **option("unit", str, "A unit of the network, as conv2:5."),
    **option("sentence", str, "A sentence that a captioner (--model) is to say of the picture.",
             "--words", metavar="WORDS"),
    **option("number", int, "Samples of each set.", "-n", "--number", default=16),
    **option("inpaint", str, "An image, of which a hole is filled.", metavar="IMAGE"),
    **option("mask", str, "A picture that is white in the hole and black elsewhere."),
    **option("keep", str, "The last of each chain, or the best.", default="last"),
    **option("accept", float, "The least probability of a sample that is kept.",
             shown="0.5, and 0.98 for units"),
    **option("model", str, "The network that says what a picture is: a name, or "
             "package.module:factory.", shown="the generator's own", metavar="MODEL"),
    **option("judge", str, "Another network, which had no part in the samples.",
             shown="the generator's own", metavar="MODEL"),
}  # fmt: skip


@command(
    "GENERATOR",
    *(_ASKED, run_options("sampling"), preset_options("sampling"), ONE_FILE),
    examples=(
        "mnist_ppgn --class 7",
        "mnist_ppgn --class 0,1,3+5 -n 32 --keep best -o digits.png",
        "mnist_ppgn --unit conv2:5 --preset ppgn_joint",
        "mnist_ppgn --class 3 --inpaint digit.png --mask hole.png",
    ),
)
def sample(given: Namespace) -> None:
    """Draw samples of a generator that a network takes for a class, a unit or words."""
    for name in ("inpaint", "mask"):
        file = getattr(given, name)
        if file is not None and not os.path.isfile(file):
            raise InputError(f"there is no file {printable(file)}")
    if given.animate is not None:
        raise InputError("sample writes no animation: leave out --animate")
    use_cache()
    options: dict[str, Any] = {
        name: value
        for name in (*options_of_runs(), *preset_options("sampling"))
        if (value := getattr(given, name, None)) is not None
    }
    if given.param is not None:
        options["parameterization"] = given.param
    asked = {"classes": given.classes, "unit": given.unit, "words": given.sentence}
    if given.classes is not None:
        asked["classes"] = [one.strip() for one in given.classes.split(",")]
    judge: Any = given.judge
    model: Any = given.model
    if model is not None and given.sentence is None:
        model = load_network(model, None)
    generator = given.words[0]
    name = " ".join(["sample", *(v for v in (given.classes, given.unit, given.sentence) if v)])
    own = generator.rpartition(":")[2] or generator
    path = output_path(given.output or "./", name=picture_name(own, part_of_name(name)))
    found = methods.sample(
        generator,
        given.number,
        **asked,
        model=model,
        judge=judge if judge is None else load_network(judge, None),
        inpaint=given.inpaint,
        mask=given.mask,
        preset=given.preset,
        accept=given.accept,
        keep=given.keep,
        progress=not given.quiet,
        **options,
    )
    result = found.result
    columns = given.number if len(found.names) > 1 else None

    def write(path: Path, force: bool) -> Path:
        return result.save(path, columns=columns, force=force)

    written = save(write, path, given.force)
    if given.json:
        record = {
            "image": str(written),
            "generator": generator,
            "acceptance": found.acceptance,
            "accepted": found.accepted.tolist(),
            "seconds": round(result.seconds, 3),
            "seed": given.seed,
            "sets": found.summary(),
        }
        print(json.dumps(record))
    else:
        for of, figures in found.summary().items():
            said = ", ".join(
                f"{key.replace('_', ' ')} {value:.3g}" for key, value in figures.items()
            )
            print(f"{printable(of)}  {said}")
        print(f"pictures  {printable(written)}")
    if "interrupt" in result.stopped:
        raise typer.Exit(INTERRUPTED)
