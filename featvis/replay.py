"""Making a picture again from its manifest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optax

from featvis import components, models
from featvis.errors import InputError, UnknownModel
from featvis.manifest import read_manifest, runs_of, unpack_array, unpack_init, versions
from featvis.models import Model
from featvis.redirect import with_leak
from featvis.result import Result
from featvis.synthesis import attempt
from featvis.targets import target
from objectives import Objective, UnknownLayer, parse

#: More targets than an objective has: what is unpacked for them is bounded.
_MOST_TARGETS = 16


class VersionWarning(UserWarning):
    """The picture was made with other versions: it may differ in its last bits, or more."""


def model_of(manifest: Mapping[str, Any], model: Model | None = None) -> Model:
    """The model that a manifest names, with the same weights.

    Args:
        manifest: of a result or a file.
        model: the model, where it is not one that `featvis.models.load` knows.

    Raises:
        InputError: the manifest is damaged, or was made with other weights.
        UnknownModel: the model is not known by its name.
    """
    named = manifest.get("model")
    if not isinstance(named, Mapping) or not all(
        isinstance(named.get(key), str) for key in ("name", "digest")
    ):
        raise InputError(f"the manifest is damaged: its model is {named!r}")
    if model is None and models.is_place(named["name"]):
        # Importing is running a program: never because a picture says so.
        raise InputError(
            f"the picture was made with a model of your own, {named['name']}: pass model= "
            f"(--model {named['name']})"
        )
    try:
        model = models.load(named["name"]) if model is None else model
    except UnknownModel as error:
        raise UnknownModel(
            f"the picture was made with a model called {named['name']!r}, which is not one of the "
            "zoo: pass model= (--model PACKAGE.MODULE:FACTORY)"
        ) from error
    if model.digest != named["digest"]:
        raise InputError(
            f"the picture was made with {named['name']} of the digest {named['digest'][:12]} "
            f"({named.get('origin') or 'origin unknown'}); this one has {model.digest[:12]} "
            f"({model.origin}): other weights, or another input or layers; pass the right ones "
            "(model=, --weights FILE)"
        )
    return model


def objective_of(manifest: Mapping[str, Any], model: Model) -> Objective:
    """The objective of a manifest, its targets computed anew.

    Raises:
        InputError: the manifest is damaged.
        ParseError: a text that is no objective.
    """
    arrays: dict[str, Any] = {}
    try:
        if len(manifest["targets"]) > _MOST_TARGETS:
            raise InputError(f"the manifest has {len(manifest['targets'])} targets, too many")
        for name, packed in manifest["targets"].items():
            if "values" in packed:
                arrays[name] = unpack_array(packed["values"])
            else:
                images = unpack_array(packed["images"])
                arrays[name] = target(model, packed["layer"], images, name)
        return parse(manifest["objective"], **arrays)
    except (KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UnknownLayer):
            raise
        raise InputError(f"the manifest is damaged: its targets: {error}") from error


def version_differences(manifest: Mapping[str, Any]) -> list[str]:
    """What differs between the manifest's versions and those of this machine, one line each."""
    then, now = manifest.get("versions"), versions()
    if not isinstance(then, Mapping):
        raise InputError(f"the manifest is damaged: its versions are {then!r}")
    return [
        f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def replay(
    source: str | Path | Mapping[str, Any],
    *,
    model: Model | None = None,
    optimizer: optax.GradientTransformation | None = None,
    progress: bool = True,
) -> Result:
    """Makes a picture again: the same to the bit on the same machine with the same versions.

    Args:
        source: a PNG that featvis wrote, the JSON beside it, or a manifest.
        model: the model, where it is not one that `featvis.models.load` knows.
        optimizer: the optimizer, where it was not given as text; of several runs, for each that
            has none.
        progress: show a progress bar on a terminal.

    Warns:
        VersionWarning: packages, Python, platform or device are not those of the manifest.

    Raises:
        InputError: no such file, no manifest in it, or a damaged one; an optimizer for runs that
            all have their own.
    """
    manifest = source if isinstance(source, Mapping) else read_manifest(source)
    network = model_of(manifest, model)
    differences = version_differences(manifest)
    if differences:
        warnings.warn(
            f"made with other versions, so it may differ: {'; '.join(differences)}",
            VersionWarning,
            stacklevel=2,
        )
    runs = runs_of(manifest)
    if optimizer is not None and all(run.get("optimizer") is not None for run in runs):
        raise InputError(
            "the manifest has its optimizer: optimizer= is for one that was not given as text"
        )
    result = None
    for run in runs:
        result = _run(run, network, optimizer, result, progress)
        if "interrupt" in result.stopped:
            break
    assert result is not None
    return result.or_raise()


def _run(
    manifest: Mapping[str, Any],
    network: Model,
    optimizer: optax.GradientTransformation | None,
    before: Result | None,
    progress: bool,
) -> Result:
    """The run of a manifest, on from the result of the one before it."""
    try:
        if manifest["model"]["digest"] != network.digest:
            network = model_of(manifest)
        chosen = optimizer if manifest["optimizer"] is None else manifest["optimizer"]
        if chosen is None:
            raise InputError(
                "the optimizer was not given as text and is not in the manifest: pass optimizer="
            )
        parameterization = components.parameterization(
            manifest["parameterization"], network.input.size, network.input.channels
        )
        result = attempt(
            with_leak(network, manifest["model"]["leak"]),
            objective_of(manifest, network),
            parameterization,
            seed=manifest["seed"],
            batch=manifest["batch"],
            steps=manifest["steps"],
            optimizer=chosen,
            transform=manifest["transform"],
            draws=manifest["draws"],
            init=unpack_init(manifest, parameterization) if before is None else before,
            patience=manifest["patience"],
            snapshots=manifest["snapshots"],
            progress=progress,
        )
        return result[manifest["member"]] if "member" in manifest else result
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        if isinstance(error, (UnknownModel, UnknownLayer)):
            raise
        raise InputError(f"the manifest is damaged: {error}") from error
