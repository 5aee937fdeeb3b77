"""`featvis invert`, `caricature`, `class-model` and `accentuate`: the methods of the papers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from featvis import methods
from featvis import text as texts
from featvis.cli.command import ANIMATE, FILES, NETWORK, RUN, SIZE, command, run_options
from featvis.cli.network import network_of, size_of
from featvis.cli.output import (
    FRAMES,
    INTERRUPTED,
    SILENT,
    file_name,
    plan,
    report,
    save,
    save_sheet,
    slug,
    use_cache,
)
from featvis.errors import InputError, NonFiniteError, printable
from featvis.files import output_path
from featvis.methods import presets
from featvis.models import Model
from featvis.results import Result

_SHARED = (NETWORK, SIZE, RUN, ANIMATE, FILES)
_LayerAndImages = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL] LAYER IMAGE...",
        help="A network's name, unless --model says which; a layer; and pictures.",
    ),
]


@command(*_SHARED, preset=tuple(presets("inversion")))
def invert(given: Any, model_layer_images: _LayerAndImages = None) -> None:
    """Invert a layer: pictures that it sees as it sees yours (Mahendran & Vedaldi 2015, 2016)."""
    network, layer, images = _subject_and_images(model_layer_images, given, "invert")

    def make(options: dict[str, Any]) -> Result:
        return methods.invert(network, layer, images, preset=given.preset, **options)

    _drive(make, given, network, f"invert {layer}", images)


@command(*_SHARED, preset=tuple(presets("caricature")))
def caricature(
    given: Any,
    model_layer_images: _LayerAndImages = None,
    strength: Annotated[
        float, typer.Option(help="How much to exaggerate; 0 returns the picture.")
    ] = 1.0,
) -> None:
    """Exaggerate in pictures what a layer sees in them (Mahendran & Vedaldi 2016)."""
    network, layer, images = _subject_and_images(model_layer_images, given, "caricature")

    def make(options: dict[str, Any]) -> Result:
        return methods.caricature(
            network, layer, images, preset=given.preset, strength=strength, **options
        )

    _drive(make, given, network, f"caricature {layer}", images)


@command(*_SHARED, name="class-model", preset=tuple(presets("class model")))
def class_model(
    given: Any,
    model_and_classes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] CLASS...",
            help="A network's name, unless --model says which; and classes by number or name.",
        ),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(help=f"What is maximised: {', '.join(methods.CLASS_OBJECTIVES)}."),
    ] = None,
) -> None:
    """Synthesize what a network takes for the most of a class (Simonyan et al. 2013)."""
    network, classes = network_of(model_and_classes or [], given.place, given.weights)
    if not classes:
        raise InputError("class-model takes a network and a class, as: efficientnet_lite0 tiger")

    def make(options: dict[str, Any]) -> Result:
        return methods.class_model(network, classes, preset=given.preset, of=of, **options)

    _drive(make, given, network, "class", classes)


@command(*_SHARED)
def accentuate(
    given: Any,
    model_objective_images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] OBJECTIVE IMAGE...",
            help="A network's name, unless --model says which; what to accentuate, as for render; "
            "and pictures.",
        ),
    ] = None,
    layer: Annotated[
        str, typer.Option(help="The layer at which the picture is to stay as it is (required).")
    ] = "",
    keep: Annotated[
        float, typer.Option(help="Of staying against changing; a large one returns the picture.")
    ] = 1.0,
) -> None:
    """Change pictures towards what a unit looks for (feature accentuation, Hamblin 2024)."""
    network, text, images = _subject_and_images(model_objective_images, given, "accentuate")
    if not layer:
        raise InputError("accentuate takes --layer, at which the picture is to stay as it is")

    def make(options: dict[str, Any]) -> Result:
        return methods.accentuate(network, text, images, layer=layer, weight=keep, **options)

    _drive(make, given, network, f"accentuate {text}", images)


def _subject_and_images(
    arguments: Sequence[str] | None, options: Any, command: str
) -> tuple[Model, str, list[str]]:
    """The network, the layer (or objective) and the pictures that a command names."""
    given = list(arguments or [])
    needed = 2 if options.place else 3
    if len(given) < needed:
        what = "an objective" if command == "accentuate" else "a layer"
        raise InputError(
            f"{command} takes a network, {what} and pictures, as in: featvis {command} "
            f"efficientnet_lite0 {'logits:285' if command == 'accentuate' else 'block6'} cat.jpg; "
            f"got {' '.join(given) or 'nothing'}"
        )
    for file in given[needed - 1 :]:
        # Before the network is loaded, which takes longer.
        if not os.path.isfile(file):  # a name that is too long is none
            raise InputError(f"there is no file {printable(file)}")
    network, (subject, *images) = network_of(given, options.place, options.weights)
    return network, subject, images


def _options(given: Any, network: Model) -> dict[str, Any]:
    """What the command line says of a driver's run, in the driver's words."""
    wanted, takes = size_of(given.size, network), network.input
    if given.param is not None:
        texts.parameterization(
            given.param, wanted or takes.size, takes.channels, fixed_size=wanted is not None
        )
    if given.steps is not None and given.steps < 1:
        raise InputError(f"--steps must be 1 or more; got {given.steps}")
    return {"size": wanted, "parameterization": given.param, **run_options(given)}


def _drive(
    make: Callable[[dict[str, Any]], Result],
    given: Any,
    network: Model,
    what: str,
    subjects: Sequence[str],
) -> None:
    """Runs a driver and writes a picture for each of its subjects, and a sheet of several."""
    use_cache()
    options = _options(given, network)
    # A picture's name stays as it is, in any script; a class's is text.
    pictures = [Path(one) if os.path.isfile(one) else None for one in subjects]
    slugs = [
        f"{slug(what)}-{picture.stem}" if picture else slug(f"{what} {subject}")
        for picture, subject in zip(pictures, subjects, strict=True)
    ]
    paths, sheet = plan(given.output, file_name(network.name), slugs)
    film = None
    if given.animate is not None:
        film = output_path(given.animate, (".webp", ".gif"))
    options = {
        **options,
        "progress": not given.quiet,
        "snapshots": min(given.steps or FRAMES, FRAMES) if film else 0,
    }
    failure: NonFiniteError | None = None
    try:
        result = make(options)
    except NonFiniteError as error:
        # What there was before it is kept.
        failure, result = error, error.result
    for one, path, subject in zip(result, paths, subjects, strict=True):
        written = save(one.save, path, given.force)
        report(one, f"{what} {subject}", written, given.seed, given.as_json)
    if film is not None and result.snapshots:
        save(result.save_animation, film, given.force)
    if sheet is not None:
        names = [
            picture.name if picture else one
            for picture, one in zip(pictures, subjects, strict=True)
        ]
        labels = names if len({*names}) == len({*subjects}) else list(subjects)
        save_sheet(list(result.images), labels, sheet, given.force, given.as_json)
    if failure is not None:
        raise failure
    if "interrupt" in result.stopped:
        raise typer.Exit(INTERRUPTED)
    if any(result.silent):
        raise typer.Exit(SILENT)
