"""`featvis replay`: a picture made again."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from featvis import limits, loading
from featvis.cli.command import FILES, NETWORK, command
from featvis.cli.network import load_network
from featvis.cli.output import INTERRUPTED, SILENT, report, save, use_cache
from featvis.errors import InputError, printable
from featvis.files import name_limit, output_path, shorten_name
from featvis.images import levels_of
from featvis.models import Model
from featvis.replay import VersionWarning, replay, version_differences
from featvis.results.checks import check_manifest
from featvis.results.format import last_run
from featvis.results.reading import read_manifest


@command(NETWORK, FILES, name="replay")
def replay_file(
    given: Any,
    file: Annotated[Path, typer.Argument(help="A PNG that featvis wrote, or the JSON beside it.")],
) -> None:
    """Make a picture again from its manifest, and say whether it is the same."""
    use_cache()
    manifest = read_manifest(file)
    if "joined" in manifest:
        raise InputError(
            f"{printable(file)} is of results that were joined: replay it in Python, "
            f"featvis.replay({str(file)!r})"
        )
    check_manifest(manifest)
    run = last_run(manifest)
    network = _network(run["model"]["name"], given.place, given.weights)
    name = shorten_name(file.stem, name_limit(file.parent) - len("-replay.png")) + "-replay.png"
    output = given.output
    if output is not None and os.path.isdir(output):
        output = output / name
    path = output_path(output or file.with_name(name))
    original = file if file.suffix.lower() == ".png" else file.with_suffix(".png")
    # Read before anything is written: the replay may go to the same place.
    before = levels_of(original) if os.path.isfile(original) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionWarning)
        result = replay(manifest, model=network, progress=not given.quiet)
    path = save(result.save, path, given.force)
    interrupted = "interrupt" in result.stopped
    same = None if before is None or interrupted else np.array_equal(before, levels_of(path))
    differences = version_differences(manifest)
    report(result, str(result.objective), path, run["seed"], given.as_json, identical=same)
    if given.as_json:
        differences = []
    elif same is not None:
        print("identical to the original" if same else "differs from the original")
    for line in differences:
        print(f"other version: {line}")
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if same is False:
        raise typer.Exit(1)
    if any(result.silent):
        raise typer.Exit(SILENT)


def _network(made_with: str, place: str | None, weights: str | None) -> Model | None:
    """The network to replay with, where the user names one; None: the manifest's."""
    limits.check_device()
    if place is None and weights is None:
        return None
    if place is None and loading.is_place(made_with):
        raise InputError(
            f"the picture was made with your own model: give --model {printable(made_with)} too"
        )
    return load_network(place or made_with, weights)
