"""`featvis replay`: a picture made again."""

from __future__ import annotations

import os
import warnings
from argparse import Namespace
from pathlib import Path

import numpy as np
import typer

from featvis import limits, loading
from featvis.cli.command import FILES, INTERRUPTED, NETWORK, command
from featvis.cli.network import load_network, see_working_folder
from featvis.cli.output import leave, save, tell, use_cache
from featvis.errors import InputError, printable
from featvis.files import name_limit, output_path, shorten_name
from featvis.images import levels_of
from featvis.replay import VersionWarning, replay, version_differences
from featvis.results.checks import check_manifest
from featvis.results.format import last_run
from featvis.results.reading import read_manifest
from featvis.results.telling import told_of


@command(
    "FILE", NETWORK, FILES, name="replay", examples=("unit.png", "units/unit.json -o again/")
)  # fmt: skip
def replay_file(given: Namespace) -> None:
    """Make a picture again from its manifest, and say whether it is the same."""
    use_cache()
    file = Path(given.words[0])
    manifest = read_manifest(file)
    if "joined" in manifest:
        raise InputError(
            f"{printable(file)} is of results that were joined: replay it in Python, "
            f"featvis.replay({str(file)!r})"
        )
    check_manifest(manifest)
    run = last_run(manifest)
    network, made_with = None, run["model"]["name"]
    limits.check_device()
    if given.model is None and given.weights is not None and loading.is_place(made_with):
        raise InputError(
            f"the picture was made with your own model: give --model {printable(made_with)} too"
        )
    if given.model is not None or given.weights is not None:
        network = load_network(given.model or made_with, given.weights)
    see_working_folder()  # for a generator of one's own
    name = shorten_name(file.stem, name_limit(file.parent) - len("-replay.png")) + "-replay"
    path = output_path(given.output or file.with_name(f"{name}.png"), name=name)
    original = file if file.suffix.lower() == ".png" else file.with_suffix(".png")
    # Read before anything is written: the replay may go to the same place.
    before = levels_of(original) if os.path.isfile(original) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionWarning)
        result = replay(manifest, model=network, progress=not given.quiet)
    path = save(result.save, path, given.force)
    interrupted = "interrupt" in result.stopped
    same = None if before is None or interrupted else np.array_equal(before, levels_of(path))
    told = told_of(result, str(result.objective), path, run["seed"], identical=same)
    lines = [*told.lines, *(f"other version: {line}" for line in version_differences(manifest))]
    if same is not None:
        said = "identical to the original" if same else "differs from the original"
        lines.insert(len(told.lines), said)
    tell(told._replace(lines=lines), given)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if same is False:
        raise typer.Exit(1)
    leave(result)
