"""The command line: `featvis models`, `layers`, `render`, `invert`, `replay` and the others."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from featvis import limits, loading
from featvis import methods as drivers
from featvis import methods as presets
from featvis import text as components
from featvis.cache import enable_cache
from featvis.checks import LONGEST_SIDE
from featvis.cli.console import Output
from featvis.errors import FeatvisError, InputError, NonFiniteError, OutputError, printable
from featvis.evidence import compare_with_natural, vary_seed
from featvis.evidence.natural import comparable
from featvis.files import name_limit, output_path, shorten_name, write_file
from featvis.images import image_files, levels_of, read_batches
from featvis.models import Model
from featvis.pictures import grid, to_picture
from featvis.replay import VersionWarning, replay, version_differences
from featvis.results import Result
from featvis.results.checks import check_manifest
from featvis.results.format import last_run
from featvis.results.reading import read_manifest
from featvis.synthesis import synthesize_many
from objectives import Channel, Logit, LogProbability, Neuron, ObjectiveError, Probability, parse

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="See what any unit of a network looks for, reproducibly and with evidence.",
    epilog="Exit codes: 0 all is well; 1 a replay differs from the original; 2 a mistake in what "
    "was asked, or a NaN; 3 pictures were written, but a unit never gave a gradient and its "
    "picture shows nothing of it (a line says why); 130 Ctrl-C.",
)

_Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON a result.")]

_Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Where the picture goes; a folder for several."),
]

_Force = Annotated[bool, typer.Option("--force", help="Write over existing files.")]

_Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]

_Size = Annotated[str | None, typer.Option(help="Height x width in pixels, as 160x224, or 160.")]

_Evidence = Annotated[
    Path | None,
    typer.Option(help="A folder of natural images to compare the unit's response with."),
]

_Name = Annotated[str | None, typer.Argument(help="A network's name: see `featvis models`.")]

_Place = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PACKAGE.MODULE:FACTORY",
        help="Where the function is that makes your own network, in place of MODEL.",
    ),
]

_Weights = Annotated[
    str | None,
    typer.Option(
        help="A file of weights (.safetensors, .pth, .npz), or one of the Hugging Face hub, "
        "hf://owner/repository@revision/path; after a # the part of it, as in run.pth#ema."
    ),
]

_Seed = Annotated[int, typer.Option(help="Drives everything random.")]

_Param = typer.Option(help="Parameterization: fourier, pixels, 'Fourier(decay=1.5)', …")

_Transform = typer.Option(help="Preset or expression: affine, standard, maco, none, 'Jitter(8)'.")

_Optimizer = typer.Option(help="An optax transformation, as 'adam(0.05)'.")

_Draws = typer.Option(help="Draws of the transform a step, over which scores are averaged.")

_Patience = Annotated[int | None, typer.Option(help="Stop after so many steps without progress.")]

_Animate = Annotated[
    Path | None, typer.Option(help="Write the way there as an animated .webp or .gif.")
]

_Steps = Annotated[
    int | None, typer.Option(help="Optimisation steps in all; by default the preset's own number.")
]

_Preset = Annotated[
    str, typer.Option(help="The paper's recipe; another name lists those that there are.")
]

#: Snapshots of an animation.
_FRAMES = 24

#: How a shell reports a program ended by Ctrl-C.
_INTERRUPTED = 130

#: Pictures were written, and the unit of one of them never gave a gradient.
_SILENT = 3


@app.command("models")
def list_models(as_json: _Json = False) -> None:
    """The networks that can be loaded by name."""
    for entry in loading.available():
        if as_json:
            print(json.dumps(entry.as_dict()))
            continue
        size = f"{entry.input.size[0]}x{entry.input.size[1]}"
        here = "here" if entry.available else "not here"
        found = entry.find()
        source = found[0] if found else entry.sources[0]
        accuracy = "" if entry.accuracy is None else f"top-1 {100 * entry.accuracy:.1f}%"
        print(
            f"{entry.name:28} {entry.parameters / 1e6:6.1f}M  {size:9} {accuracy:12} "
            f"{here:9} {source} ({source.licence})"
        )


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help="A network's name: see `featvis models`.")],
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Download the weights of a network, check them, and keep them in the cache folder."""
    path = loading.fetch(model, progress=not quiet)
    print(json.dumps({"model": model, "weights": str(path)}) if as_json else path)


@app.command()
def layers(
    model: _Name = None,
    place: _Place = None,
    weights: _Weights = None,
    size: _Size = None,
    as_json: _Json = False,
) -> None:
    """The layers of a network, their shapes at a size, and how their units are written."""
    network, rest = _network([model] if model else [], place, weights, outline=True)
    if rest:
        raise InputError(f"--model names the network already; got {model!r} too")
    shapes = network.layers(_parse_size(size, network))
    rows = []
    for name, shape in shapes.items():
        kind, units, neurons = _units(name, shape)
        if as_json:
            facts = {"layer": name, "shape": list(shape), "kind": kind, "units": units}
            facts |= {"neurons": neurons} if neurons else {}
            print(json.dumps(facts | ({"drawn": True} if name in network.drawn else {})))
        drawn = "  (drawn at a fixed seed)" if name in network.drawn else ""
        text = f"{units}, {neurons}".rstrip(", ") + drawn
        rows.append((name, kind, "x".join(map(str, shape)), text))
    if not as_json:
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            print("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]))
    for name, reason in network.left_out.items():
        record = json.dumps({"left_out": name, "reason": reason})
        print(record if as_json else f"{name}  no layer: {reason}")


@app.command()
def render(
    model_and_objectives: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] OBJECTIVE",
            help="A network's name (see `featvis models`), unless --model says which; and what to "
            "maximise: a channel block8:3, a neuron block8:3@7,7 or at a token block3:5@0, a class "
            "logits:285, several block8:0-3, 'block8:[0,3]' or 'block8:*', a layer block8, "
            "or an expression such as 'block8:3 - 0.1*tv'.",
        ),
    ] = None,
    place: _Place = None,
    weights: _Weights = None,
    preset: _Preset = "modern",
    output: _Output = None,
    size: _Size = None,
    steps: _Steps = None,
    seed: _Seed = 0,
    param: Annotated[str | None, _Param] = None,
    transform: Annotated[str | None, _Transform] = None,
    draws: Annotated[int | None, _Draws] = None,
    optimizer: Annotated[str | None, _Optimizer] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images an objective, as diversity needs.")
    ] = None,
    patience: _Patience = None,
    evidence: _Evidence = None,
    seeds: Annotated[
        int | None, typer.Option(help="Run so many seeds and give the scores' mean and spread.")
    ] = None,
    animate: _Animate = None,
    force: _Force = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Synthesize what a unit looks for; several objectives give a picture each and a grid."""
    _use_cache()
    given = model_and_objectives or []
    if len(given) == 1 and place is None:
        raise InputError(
            f"render takes a network and what to maximise, as in: featvis render "
            f"efficientnet_lite0 block8:3; got {given[0]!r} alone"
        )
    network, objective = _network(given, place, weights)
    if not objective:
        raise InputError(f"render takes what to maximise too, as block8:3; got {place!r} alone")
    parsed = [parse(text, network.layers) for text in objective]
    wanted, takes = _parse_size(size, network), network.input
    if steps is not None and steps < 1:
        raise InputError(f"steps must be an integer of at least 1; got {steps}")

    def accepts(other: tuple[int, int]) -> bool:
        try:
            network.layers(other)
        except (InputError, TypeError, ValueError):
            return False
        return True

    seen = presets.Setting(wanted or takes.size, takes.channels, 1.0, 1.0, True, steps, accepts)
    (stage,) = presets.preset_of(preset, presets.VISUALIZATIONS)(seen).stages
    found = synthesize_many(
        network,
        parsed,
        components.parameterization(
            stage.parameterization if param is None else param,
            seen.size,
            takes.channels,
            fixed_size=wanted is not None,
        ),
        seed=seed,
        steps=stage.steps,
        transform=stage.transform if transform is None else transform,
        draws=stage.draws if draws is None else draws,
        optimizer=stage.optimizer if optimizer is None else optimizer,
        batch=batch,
        patience=patience,
        snapshots=min(stage.steps, _FRAMES) if animate else 0,
        progress=not quiet,
    )
    if evidence is not None:
        for unit in parsed:
            comparable(unit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when all are read
            first = read_batches(image_files(evidence), takes.size, takes.channels, 1)
            if next(first, None) is None:
                raise InputError(f"no picture in {printable(evidence)} can be read")
    if seeds is not None and seeds < 2:
        raise InputError(f"--seeds must be 2 or more; got {seeds}")
    if animate is not None and len(parsed) > 1:
        raise InputError(f"--animate takes one objective; got {len(parsed)}")
    film = None
    if animate is not None:
        film = output_path(animate, (".webp", ".gif"))
    paths, sheet = _plan(output, _file_name(network.name), [_slug(str(o)) for o in parsed])
    done: dict[int, Result] = {}
    for places, result in found:
        # All pictures of a batch are safe before anything is measured.
        results = [result] if len(places) == 1 else list(result)
        written = [_save(one.save, paths[p], force) for p, one in zip(places, results, strict=True)]
        if film is not None:
            _save(result.save_animation, film, force)
        done |= dict(zip(places, results, strict=True))
        whole = "interrupt" not in result.stopped and not any(result.failures)
        cut_short = False
        try:
            if evidence is not None and whole:
                result = compare_with_natural(result, evidence, network)
            if seeds is not None and whole:
                result = vary_seed(result, seeds, network, progress=not quiet)
        except KeyboardInterrupt:
            # The pictures are there: they are reported with what is known of them.
            cut_short = True
        results = [result] if len(places) == 1 else list(result)
        for number, one, path in zip(places, results, written, strict=True):
            if one.evidence:
                _save(one.save, path, True)
            _report(one, objective[number], path, seed, as_json)
        if cut_short:
            raise typer.Exit(_INTERRUPTED)
    if sheet is not None and len(done) > 1:
        shown = [(p, image) for p in sorted(done) for image in done[p].images]
        labels = [_label(parsed[p], network) for p, _ in shown]
        _save_sheet([image for _, image in shown], labels, sheet, force, as_json)
    if any("interrupt" in one.stopped for one in done.values()):
        raise typer.Exit(_INTERRUPTED)
    failures = [f"{objective[p]}: {f}" for p, one in done.items() for f in one.failures if f]
    if failures:
        raise NonFiniteError("; ".join(failures))
    if any(any(one.silent) for one in done.values()):
        raise typer.Exit(_SILENT)


@app.command()
def invert(
    model_layer_images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] LAYER IMAGE...",
            help="A network's name, unless --model says which; a layer; and pictures.",
        ),
    ] = None,
    place: _Place = None,
    weights: _Weights = None,
    preset: _Preset = "modern",
    output: _Output = None,
    size: _Size = None,
    steps: _Steps = None,
    seed: _Seed = 0,
    param: Annotated[str | None, _Param] = None,
    transform: Annotated[str | None, _Transform] = None,
    draws: Annotated[int | None, _Draws] = None,
    optimizer: Annotated[str | None, _Optimizer] = None,
    patience: _Patience = None,
    animate: _Animate = None,
    force: _Force = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Invert a layer: pictures that it sees as it sees yours (Mahendran & Vedaldi 2015, 2016)."""
    network, layer, images = _layer_and_images(model_layer_images, place, weights, "invert")

    def make(options: dict[str, Any]) -> Result:
        return drivers.invert(network, layer, images, preset=preset, **options)

    options = _options(network, size, steps, seed, param, transform, draws, optimizer, patience)
    files = _Files(output, animate, force, quiet, as_json)
    _drive(make, options, files, network, f"invert {layer}", images)


@app.command()
def caricature(
    model_layer_images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] LAYER IMAGE...",
            help="A network's name, unless --model says which; a layer; and pictures.",
        ),
    ] = None,
    place: _Place = None,
    weights: _Weights = None,
    preset: _Preset = "modern",
    strength: Annotated[
        float, typer.Option(help="How much to exaggerate; 0 returns the picture.")
    ] = 1.0,
    output: _Output = None,
    size: _Size = None,
    steps: _Steps = None,
    seed: _Seed = 0,
    param: Annotated[str | None, _Param] = None,
    transform: Annotated[str | None, _Transform] = None,
    draws: Annotated[int | None, _Draws] = None,
    optimizer: Annotated[str | None, _Optimizer] = None,
    patience: _Patience = None,
    animate: _Animate = None,
    force: _Force = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Exaggerate in pictures what a layer sees in them (Mahendran & Vedaldi 2016)."""
    network, layer, images = _layer_and_images(model_layer_images, place, weights, "caricature")

    def make(options: dict[str, Any]) -> Result:
        return drivers.caricature(
            network, layer, images, preset=preset, strength=strength, **options
        )

    options = _options(network, size, steps, seed, param, transform, draws, optimizer, patience)
    files = _Files(output, animate, force, quiet, as_json)
    _drive(make, options, files, network, f"caricature {layer}", images)


@app.command("class-model")
def class_model(
    model_and_classes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] CLASS...",
            help="A network's name, unless --model says which; and classes by number or name.",
        ),
    ] = None,
    place: _Place = None,
    weights: _Weights = None,
    preset: _Preset = "modern",
    of: Annotated[
        str | None,
        typer.Option(help="What is maximised: score, probability or log_probability."),
    ] = None,
    output: _Output = None,
    size: _Size = None,
    steps: _Steps = None,
    seed: _Seed = 0,
    param: Annotated[str | None, _Param] = None,
    transform: Annotated[str | None, _Transform] = None,
    draws: Annotated[int | None, _Draws] = None,
    optimizer: Annotated[str | None, _Optimizer] = None,
    patience: _Patience = None,
    animate: _Animate = None,
    force: _Force = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Synthesize what a network takes for the most of a class (Simonyan et al. 2013)."""
    network, classes = _network(model_and_classes or [], place, weights)
    if not classes:
        raise InputError("class-model takes a network and a class, as: efficientnet_lite0 tiger")

    def make(options: dict[str, Any]) -> Result:
        return drivers.class_model(network, classes, preset=preset, of=of, **options)

    options = _options(network, size, steps, seed, param, transform, draws, optimizer, patience)
    files = _Files(output, animate, force, quiet, as_json)
    _drive(make, options, files, network, "class", classes)


@app.command()
def accentuate(
    model_objective_images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] OBJECTIVE IMAGE...",
            help="A network's name, unless --model says which; what to accentuate, as for render; "
            "and pictures.",
        ),
    ] = None,
    layer: Annotated[
        str, typer.Option(help="The layer at which the picture is to stay as it is.")
    ] = "",
    place: _Place = None,
    weights: _Weights = None,
    weight: Annotated[
        float, typer.Option(help="Of staying against changing; a large one returns the picture.")
    ] = 1.0,
    output: _Output = None,
    size: _Size = None,
    steps: _Steps = None,
    seed: _Seed = 0,
    param: Annotated[str | None, _Param] = None,
    transform: Annotated[str | None, _Transform] = None,
    draws: Annotated[int | None, _Draws] = None,
    optimizer: Annotated[str | None, _Optimizer] = None,
    patience: _Patience = None,
    animate: _Animate = None,
    force: _Force = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Change pictures towards what a unit looks for (feature accentuation, Hamblin 2024)."""
    network, text, images = _layer_and_images(model_objective_images, place, weights, "accentuate")
    if not layer:
        raise InputError("accentuate takes --layer, at which the picture is to stay as it is")

    def make(options: dict[str, Any]) -> Result:
        return drivers.accentuate(network, text, images, layer=layer, weight=weight, **options)

    options = _options(network, size, steps, seed, param, transform, draws, optimizer, patience)
    files = _Files(output, animate, force, quiet, as_json)
    _drive(make, options, files, network, f"accentuate {text}", images)


@app.command("replay")
def replay_file(
    file: Annotated[Path, typer.Argument(help="A PNG that featvis wrote, or the JSON beside it.")],
    place: _Place = None,
    weights: _Weights = None,
    output: _Output = None,
    force: _Force = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Make a picture again from its manifest, and say whether it is the same."""
    _use_cache()
    manifest = read_manifest(file)
    check_manifest(manifest)
    run = last_run(manifest)
    network = _replayed(run["model"]["name"], place, weights)
    name = shorten_name(file.stem, name_limit(file.parent) - len("-replay.png")) + "-replay.png"
    if output is not None and os.path.isdir(output):
        output = output / name
    path = output_path(output or file.with_name(name))
    original = file if file.suffix.lower() == ".png" else file.with_suffix(".png")
    # Read before anything is written: the replay may go to the same place.
    before = levels_of(original) if os.path.isfile(original) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionWarning)
        result = replay(manifest, model=network, progress=not quiet)
    path = _save(result.save, path, force)
    interrupted = "interrupt" in result.stopped
    same = None if before is None or interrupted else np.array_equal(before, levels_of(path))
    differences = version_differences(manifest)
    _report(result, run["objective"], path, run["seed"], as_json, identical=same)
    if as_json:
        differences = []
    elif same is not None:
        print("identical to the original" if same else "differs from the original")
    for line in differences:
        print(f"other version: {line}")
    if interrupted:
        raise typer.Exit(_INTERRUPTED)
    if same is False:
        raise typer.Exit(1)
    if any(result.silent):
        raise typer.Exit(_SILENT)


def _network(
    arguments: Sequence[str], place: str | None, weights: str | None, *, outline: bool = False
) -> tuple[Model, list[str]]:
    """The network that the command line names, and the arguments after its name.

    With `outline` it may be without its weights.
    """
    if place is None and not arguments:
        raise InputError("which network? Give its name (see `featvis models`) or --model")
    name, rest = (arguments[0], arguments[1:]) if place is None else (place, arguments)
    if place is not None and "." in place and not loading.is_place(place):
        raise InputError(f"--model is a network's name or package.module:factory; got {place!r}")
    limits.check_device()
    if outline and weights is None and not loading.is_place(name):
        return loading.outline(name), list(rest)
    return _load(name, weights), list(rest)


def _layer_and_images(
    arguments: Sequence[str] | None, place: str | None, weights: str | None, command: str
) -> tuple[Model, str, list[str]]:
    """The network, the layer (or objective) and the pictures that a command names."""
    given = list(arguments or [])
    needed = 2 if place else 3
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
    network, (subject, *images) = _network(given, place, weights)
    return network, subject, images


def _options(
    network: Model,
    size: str | None,
    steps: int | None,
    seed: int,
    param: str | None,
    transform: str | None,
    draws: int | None,
    optimizer: str | None,
    patience: int | None,
) -> dict[str, Any]:
    """What the command line says of a driver's run, in the driver's words."""
    wanted = _parse_size(size, network)
    if param is not None:
        takes = network.input
        components.parameterization(
            param, wanted or takes.size, takes.channels, fixed_size=wanted is not None
        )
    if steps is not None and steps < 1:
        raise InputError(f"--steps must be 1 or more; got {steps}")
    return {
        "size": wanted,
        "steps": steps,
        "seed": seed,
        "parameterization": param,
        "transform": transform,
        "draws": draws,
        "optimizer": optimizer,
        "patience": patience,
    }


class _Files(NamedTuple):
    """Where results go and how they are told."""

    output: Path | None
    animate: Path | None
    force: bool
    quiet: bool
    as_json: bool


def _drive(
    make: Callable[[dict[str, Any]], Result],
    options: dict[str, Any],
    files: _Files,
    network: Model,
    what: str,
    subjects: Sequence[str],
) -> None:
    """Runs a driver and writes a picture for each of its subjects, and a sheet of several."""
    _use_cache()
    # A picture's name stays as it is, in any script; a class's is text.
    pictures = [Path(one) if os.path.isfile(one) else None for one in subjects]
    slugs = [
        f"{_slug(what)}-{picture.stem}" if picture else _slug(f"{what} {subject}")
        for picture, subject in zip(pictures, subjects, strict=True)
    ]
    paths, sheet = _plan(files.output, _file_name(network.name), slugs)
    film = None
    if files.animate is not None:
        film = output_path(files.animate, (".webp", ".gif"))
    options = {
        **options,
        "progress": not files.quiet,
        "snapshots": min(options["steps"] or _FRAMES, _FRAMES) if film else 0,
    }
    failure: NonFiniteError | None = None
    try:
        result = make(options)
    except NonFiniteError as error:
        # What there was before it is kept.
        failure, result = error, error.result
    for one, path, subject in zip(result, paths, subjects, strict=True):
        written = _save(one.save, path, files.force)
        _report(one, f"{what} {subject}", written, options["seed"], files.as_json)
    if film is not None and result.snapshots:
        _save(result.save_animation, film, files.force)
    if sheet is not None:
        names = [
            picture.name if picture else one
            for picture, one in zip(pictures, subjects, strict=True)
        ]
        labels = names if len({*names}) == len({*subjects}) else list(subjects)
        _save_sheet(list(result.images), labels, sheet, files.force, files.as_json)
    if failure is not None:
        raise failure
    if "interrupt" in result.stopped:
        raise typer.Exit(_INTERRUPTED)
    if any(result.silent):
        raise typer.Exit(_SILENT)


def _replayed(made_with: str, place: str | None, weights: str | None) -> Model | None:
    """The network to replay with, where the user names one; None: the manifest's."""
    limits.check_device()
    if place is None and weights is None:
        return None
    if place is None and loading.is_place(made_with):
        raise InputError(
            f"the picture was made with your own model: give --model {printable(made_with)} too"
        )
    return _load(place or made_with, weights)


def _load(name: str, weights: str | None) -> Model:
    """A network; one of one's own may be in the folder one is in, after all that is installed."""
    if not loading.is_place(name):
        return loading.load(name, weights)
    with suppress(FileNotFoundError):  # somebody deleted it
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    # Whatever a network of one's own prints is no line of ours.
    with redirect_stdout(sys.stderr):
        return loading.load(name, weights)


def _units(layer: str, shape: tuple[int, ...]) -> tuple[str, str, str]:
    """Kind of a layer's activations, and how its units and its neurons are written."""
    last = shape[-1] - 1
    if layer == "logits" and len(shape) == 1:
        return "vector", f"{Logit(0)} to {Logit(last)}", ""
    units = f"{Channel(layer, 0)} to {Channel(layer, last)}"
    kinds = {1: "vector", 2: "tokens", 3: "map"}
    kind = kinds.get(len(shape), "array")
    if kind not in ("tokens", "map"):
        return kind, units, ""
    first, end = (np.array(at) for at in ([0] * (len(shape) - 1), np.array(shape[:-1]) - 1))
    return kind, units, f"{Neuron(layer, 0, first)} to {Neuron(layer, last, end)}"


def _parse_size(text: str | None, network: Model) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text.strip())
    if match is None:
        raise InputError(
            f"--size must be HEIGHTxWIDTH in pixels, as 160x224, or one number; got "
            f"{printable(repr(text), 80)}"
        )
    sides = [match[1], match[2] or match[1]]
    # Python reads no integer of thousands of digits.
    if any(len(side) > 9 or int(side) > LONGEST_SIDE for side in sides):
        raise InputError(f"--size is at most {LONGEST_SIDE} a side; got {printable(text, 40)}")
    height, width = map(int, sides)
    network.check_image_shape(height, width, network.input.channels)
    return height, width


def _file_name(model: str) -> str:
    """A model's name as part of a file's: `mypackage.nets:factory` has no place there."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", model).strip("-.") or "model"


def _slug(text: str) -> str:
    """A text as part of a file's name: letters and digits of any script, 60 of them."""
    kept = "".join(c if c.isalnum() or (c > "\x7f" and c.isprintable()) else "-" for c in text)
    return re.sub(r"-+", "-", kept).strip("-")[:60] or "objective"


def _plan(output: Path | None, model: str, slugs: Sequence[str]) -> tuple[list[Path], Path | None]:
    """Where each picture goes, and the grid of several; tried before anything is computed."""
    if output is not None and output.suffix and not os.path.isdir(output):
        sheet = output_path(output)
        if len(slugs) == 1:
            return [sheet], None
        folder, before = sheet.parent, f"{sheet.stem}-"
    else:
        folder, before = output or Path(), f"{model}_"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            shown = printable(folder)
            raise OutputError(f"cannot make the folder {shown}: {error.strerror}") from error
        sheet = output_path(folder / f"{before}grid.png")
    # Room for a number and for the longest suffix.
    room = name_limit(folder) - len("-9999.json")
    taken: set[str] = set()
    paths = []
    for slug in slugs:
        stem, number = shorten_name(before + slug, room), 1
        # Some file systems take a and A, or two ways to write é, for one name.
        while (key := unicodedata.normalize("NFC", stem).casefold()) in taken:
            tail = f"-{number}"
            stem, number = shorten_name(before + slug, room - len(tail)) + tail, number + 1
        taken.add(key)
        paths.append(output_path(folder / f"{stem}.png"))
    return paths, sheet if len(slugs) > 1 else None


def _use_cache() -> None:
    try:
        enable_cache()
    except OutputError as error:
        print(f"warning: {error}; compiling anew each time", file=sys.stderr)


def _save(write: Callable[..., Path], path: Path, force: bool) -> Path:
    """Writes a file; where that fails after all, into the temporary folder, and says so."""
    try:
        return write(path, force=force)
    except OutputError as error:
        spare = write(Path(tempfile.mkdtemp(prefix="featvis-")) / path.name, force=True)
        print(f"warning: {error}; written to {printable(spare)} instead", file=sys.stderr)
        return spare


def _save_sheet(
    images: Sequence[np.ndarray], labels: Sequence[str], sheet: Path, force: bool, as_json: bool
) -> None:
    buffer = io.BytesIO()
    grid([to_picture(image) for image in images], labels).save(buffer, "PNG")

    def write(path: Path, force: bool) -> Path:
        return write_file(path, buffer.getvalue(), force=force)

    path = _save(write, sheet, force)
    if not as_json:
        print(f"grid  {printable(path)}")


def _label(objective: Any, network: Model) -> str:
    """The text under a picture: a class has its name."""
    is_class = isinstance(objective, (Logit, Probability, LogProbability))
    if is_class and network.labels and np.ndim(objective.index) == 0:
        return f"{objective}: {network.labels[int(np.asarray(objective.index))]}"
    return str(objective)


def _plain(values: Any) -> Any:
    """One number for one image, a list for several; None for what JSON has no number for."""
    numbers = [float(value) if np.isfinite(value) else None for value in values]
    return numbers[0] if len(numbers) == 1 else numbers


def _report(result: Result, text: str, path: Path, seed: Any, as_json: bool, **more: Any) -> None:
    run = last_run(result.manifest)
    shared = run["batch"] // len(result)
    record = {
        "objective": text,
        "image": str(path),
        "score": _plain(result.transformed_scores),
        "clean_score": _plain(result.clean_scores),
        "seconds": round(result.seconds / shared, 3),
        "steps": int(max(result.steps)),
        "seed": seed,
        "model": run["model"]["name"],
        "stopped": result.stopped[0] if len(result) == 1 else list(result.stopped),
        "silent": result.silent[0] if len(result) == 1 else list(result.silent),
        **{name: _plain(values) for name, values in result.evidence.items()},
        **more,
    }
    if as_json:
        print(json.dumps(record), flush=True)
        return

    def show(value: Any) -> str:
        values = value if isinstance(value, list) else [value]
        return ", ".join("not finite" if v is None else f"{v:.4g}" for v in values)

    facts = [f"clean score {show(record['clean_score'])}", f"transformed {show(record['score'])}"]
    facts += [f"{k.replace('_', ' ')} {show(record[k])}" for k in result.evidence]
    if set(result.stopped) != {"steps"}:
        facts.append(f"stopped at step {record['steps']} ({', '.join(sorted({*result.stopped}))})")
    number = sum(why is not None for why in result.silent)
    if number:
        facts.append("no gradient" + (f" for {number} of {len(result)}" if len(result) > 1 else ""))
    said = f"{', '.join(facts)}, {record['seconds']:.1f} s"
    print(f"{printable(text)}  {said}  {printable(path)}", flush=True)


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    print(f"warning: {printable(message)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; a mistake of the user is one line and exit code 2.

    Args:
        arguments: by default those of the process.
    """
    output = Output(sys.stdout)
    with redirect_stdout(output), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        code = _run(arguments)
    code = output.exit_code(code)
    if code:
        raise SystemExit(code)
    return 0


def _run(arguments: Sequence[str] | None) -> int:
    """The exit code of a command; what it cannot do is said in one line."""
    try:
        app(args=None if arguments is None else list(arguments))
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except (FeatvisError, ObjectiveError) as error:
        message = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        # What the machine refuses where nobody thought of it: a folder that is gone, a full table.
        place = f": {error.filename}" if error.filename else ""
        message = f"{error.strerror or error}{place}"
    except (MemoryError, RuntimeError) as error:
        if limits.exhausted(error):
            message = "the memory ran out: smaller images, or fewer of them, take less"
        elif "backend" in str(error):  # JAX has no type for it
            message = f"JAX finds no such device: {str(error).splitlines()[0]}"
        else:
            raise
    # A text that does not fit shows its place in lines of its own.
    print(
        "error:", "\n".join(printable(line, 2000) for line in message.split("\n")), file=sys.stderr
    )
    return 2


if __name__ == "__main__":
    main()
