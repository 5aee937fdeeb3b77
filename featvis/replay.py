"""Making a picture again from its manifest."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optax

from featvis import loading, text
from featvis.errors import InputError, UnknownModel, printable
from featvis.models import Model, target
from featvis.models.leaky import with_leak
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.results.checks import check_manifest
from featvis.results.format import last_run
from featvis.results.manifest import Done, versions
from featvis.results.packing import array_of, data_reader, digests_in, unpack_init
from featvis.results.reading import read_manifest
from featvis.results.run import Run, options_of_runs
from featvis.synthesis.run import again
from objectives import Objective, parse


class VersionWarning(UserWarning):
    """The picture was made with other versions: it may differ in its last bits, or more."""


def model_of(run: Mapping[str, Any], model: Model | None = None) -> Model:
    """The model that a run of a manifest names, with the same weights.

    Args:
        run: of a manifest.
        model: the model, where it is not one that `featvis.loading.load` knows.

    Raises:
        InputError: the picture was made with other weights.
        UnknownModel: the model is not known by its name.
    """
    name, digest, origin = (printable(run["model"][key]) for key in ("name", "digest", "origin"))
    if model is None and loading.is_place(name):
        # Importing is running a program: never because a picture says so.
        raise InputError(
            f"the picture was made with a model of your own, {name}: pass model= (--model {name})"
        )
    try:
        model = loading.load(name) if model is None else model
    except UnknownModel as error:
        raise UnknownModel(
            f"the picture was made with a model called {name!r}, which is not one of the "
            "zoo: pass model= (--model PACKAGE.MODULE:FACTORY)"
        ) from error
    if model.digest != run["model"]["digest"]:
        raise InputError(
            f"the picture was made with {name} of the digest {digest[:12]} "
            f"({origin or 'origin unknown'}); this one has {model.digest[:12]} "
            f"({printable(model.origin)}): other weights, or another input or layers; pass the "
            "right ones (model=, --weights FILE)"
        )
    return model


def objective_of(manifest: Mapping[str, Any], run: Mapping[str, Any], model: Model) -> Objective:
    """The objective of a run of a manifest, its targets computed anew.

    Raises:
        InputError: an array of the manifest is missing or damaged.
        UnknownLayer: a target's layer is none of the model's.
        ParseError: a text that is no objective.
        ObjectiveError: an array that is none of an objective.
    """
    arrays: dict[str, Any] = {}
    for name, packed in run["targets"].items():
        if "values" in packed:
            arrays[name] = array_of(manifest, packed["values"])
        else:
            images = array_of(manifest, packed["images"])
            arrays[name] = target(model, packed["layer"], images, name)
    return parse(run["objective"], **arrays)


def version_differences(manifest: Mapping[str, Any]) -> list[str]:
    """What differs between the manifest's versions and those of this machine, one line each."""
    then, now = last_run(manifest)["versions"], versions()
    return [
        printable(f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now")
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def replay(
    source: str | Path | Mapping[str, Any],
    *,
    model: Model | None = None,
    optimizer: optax.GradientTransformation | None = None,
    parameterization: Parameterization | None = None,
    progress: bool = True,
) -> Result:
    """Makes a picture again: the same to the bit on the same machine with the same versions.

    Args:
        source: a PNG that featvis wrote, the JSON beside it, or a manifest.
        model: the model, where it is not one that `featvis.loading.load` knows.
        optimizer: the optimizer, where it was not given as text; of several runs, for each that
            has none.
        parameterization: one that holds the data (a generator's weights) that the picture was
            made with, where the manifest has but their digest.
        progress: show a progress bar on a terminal.

    Warns:
        SilenceWarning: as `synthesize`.
        VersionWarning: packages, Python, platform or device are not those of the manifest.

    Raises:
        InputError: no such file, no manifest in it, or a damaged one; an optimizer for runs that
            all have their own; data that are missing, or others, with both digests.
    """
    manifest = source if isinstance(source, Mapping) else read_manifest(source)
    runs = check_manifest(manifest)
    network = model_of(runs[-1], model)
    differences = version_differences(manifest)
    if differences:
        warnings.warn(
            f"made with other versions, so it may differ: {'; '.join(differences)}",
            VersionWarning,
            stacklevel=2,
        )
    if optimizer is not None and all(run["optimizer"] is not None for run in runs):
        raise InputError(
            "the manifest has its optimizer: optimizer= is for one that was not given as text"
        )
    texts = [run["parameterization"] for run in runs]
    if parameterization is not None and not any(map(digests_in, texts)):
        raise InputError(
            "the manifest has its parameterization: parameterization= is for one that holds data"
        )
    data = data_reader(manifest, parameterization)
    for run in runs:
        if run["member"] is not None and run["member"] >= run["batch"]:
            raise InputError(
                f"the manifest is damaged: member is {run['member']} of {run['batch']} images"
            )
    # One at a time: each has the activations of its targets.
    done = (_done(manifest, run, network, optimizer, data, first=run is runs[0]) for run in runs)
    return again(done, progress=progress).or_raise().or_warn()


def _done(
    manifest: Mapping[str, Any],
    run: Mapping[str, Any],
    network: Model,
    optimizer: optax.GradientTransformation | None,
    data: Callable[[str], Any],
    *,
    first: bool,
) -> Done:
    """A run of a manifest, with objects in the place of its texts."""
    if not run["steps"]:
        raise InputError(
            "the run of the picture failed at its first step: there is nothing to make"
        )
    if run["model"]["digest"] != network.digest:
        network = model_of(run)
    chosen = optimizer if run["optimizer"] is None else run["optimizer"]
    if chosen is None:
        raise InputError(
            "the optimizer was not given as text and is not in the manifest: pass optimizer="
        )
    parameterization = text.parameterization(
        run["parameterization"], network.input.size, network.input.channels, data=data
    )
    options = {name: run[name] for name in options_of_runs() if name in run}
    return Done(
        Run(
            with_leak(network, run["model"]["leak"]),
            objective_of(manifest, run, network),
            parameterization,
            **{**options, "optimizer": chosen, "init": None},
        ),
        images=run["batch"],
        steps=run["steps"],
        snapshots=tuple(run["snapshots"]),
        start=unpack_init(manifest, run, parameterization) if first else None,
        versions=run["versions"],
        member=run["member"],
    )
