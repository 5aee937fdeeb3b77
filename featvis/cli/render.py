"""`featvis render`: what a unit looks for."""

from __future__ import annotations

import warnings
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
    label,
    plan,
    report,
    save,
    save_sheet,
    slug,
    use_cache,
)
from featvis.errors import InputError, NonFiniteError, printable
from featvis.evidence import compare_with_natural, vary_seed
from featvis.evidence.natural import comparable
from featvis.files import output_path
from featvis.images import read_batches
from featvis.own_pictures import natural_files
from featvis.results import Result
from featvis.results.run import options_of_runs
from featvis.synthesis import synthesize_many
from objectives import parse


@command(NETWORK, SIZE, RUN, ANIMATE, FILES, preset=tuple(methods.presets("visualization")))
def render(
    given: Any,
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
    batch: Annotated[int | None, typer.Option(help=options_of_runs()["batch"].metadata["help"])] = (
        None
    ),
    evidence: Annotated[
        Path | None,
        typer.Option(help="A folder of natural images to compare the unit's response with."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Run so many seeds and give the scores' mean and spread.")
    ] = None,
) -> None:
    """Synthesize what a unit looks for; several objectives give a picture each and a grid."""
    use_cache()
    arguments = model_and_objectives or []
    if len(arguments) == 1 and given.place is None:
        raise InputError(
            f"render takes a network and what to maximise, as in: featvis render "
            f"efficientnet_lite0 block8:3; got {arguments[0]!r} alone"
        )
    network, objective = network_of(arguments, given.place, given.weights)
    if not objective:
        raise InputError(
            f"render takes what to maximise too, as block8:3; got {given.place!r} alone"
        )
    parsed = [parse(text, network.layers, network.class_index) for text in objective]
    wanted, takes = size_of(given.size, network), network.input
    if given.steps is not None and given.steps < 1:
        raise InputError(f"steps must be an integer of at least 1; got {given.steps}")

    def accepts(other: tuple[int, int]) -> bool:
        try:
            network.layers(other)
        except (InputError, TypeError, ValueError):
            return False
        return True

    size = wanted or takes.size
    seen = methods.Setting(size, takes.channels, 1.0, 1.0, True, given.steps, accepts)
    (stage,) = methods.chosen("render", "visualization", given.preset, {})(seen).stages
    way = stage.parameterization
    if given.param is not None:
        way = texts.parameterization(
            given.param, size, takes.channels, fixed_size=wanted is not None
        )
    options = {**stage.options, **run_options(given), "steps": stage.steps}
    found = synthesize_many(
        network,
        parsed,
        way,
        batch=batch,
        snapshots=min(stage.steps, FRAMES) if given.animate else 0,
        progress=not given.quiet,
        **options,
    )
    if evidence is not None:
        for unit in parsed:
            comparable(unit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when all are read
            first = read_batches(natural_files(evidence), takes.size, takes.channels, 1)
            if next(first, None) is None:
                raise InputError(f"no picture in {printable(evidence)} can be read")
    if seeds is not None and seeds < 2:
        raise InputError(f"--seeds must be 2 or more; got {seeds}")
    if given.animate is not None and len(parsed) > 1:
        raise InputError(f"--animate takes one objective; got {len(parsed)}")
    film = None
    if given.animate is not None:
        film = output_path(given.animate, (".webp", ".gif"))
    paths, sheet = plan(given.output, file_name(network.name), [slug(str(one)) for one in parsed])
    done: dict[int, Result] = {}
    for places, result in found:
        # All pictures of a batch are safe before anything is measured.
        results = [result] if len(places) == 1 else list(result)
        written = [
            save(one.save, paths[p], given.force) for p, one in zip(places, results, strict=True)
        ]
        if film is not None:
            save(result.save_animation, film, given.force)
        done |= dict(zip(places, results, strict=True))
        whole = "interrupt" not in result.stopped and not any(result.failures)
        cut_short = False
        try:
            if evidence is not None and whole:
                result = compare_with_natural(result, evidence)
            if seeds is not None and whole:
                result = vary_seed(result, seeds, progress=not given.quiet)
        except KeyboardInterrupt:
            # The pictures are there: they are reported with what is known of them.
            cut_short = True
        results = [result] if len(places) == 1 else list(result)
        for number, one, path in zip(places, results, written, strict=True):
            if one.evidence:
                save(one.save, path, True)
            report(one, objective[number], path, given.seed, given.as_json)
        if cut_short:
            raise typer.Exit(INTERRUPTED)
    if sheet is not None and len(done) > 1:
        shown = [(p, image) for p in sorted(done) for image in done[p].images]
        labels = [label(parsed[p], network) for p, _ in shown]
        save_sheet([image for _, image in shown], labels, sheet, given.force, given.as_json)
    if any("interrupt" in one.stopped for one in done.values()):
        raise typer.Exit(INTERRUPTED)
    failures = [f"{objective[p]}: {f}" for p, one in done.items() for f in one.failures if f]
    if failures:
        raise NonFiniteError("; ".join(failures))
    if any(any(one.silent) for one in done.values()):
        raise typer.Exit(SILENT)
