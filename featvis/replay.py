"""Making a picture again from its manifest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optax

from featvis import components, models
from featvis.errors import InputError, UnknownModel
from featvis.manifest import read_manifest, unpack_init, versions
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.result import Result
from featvis.synthesis import synthesize
from featvis.transforms import Transform
from objectives import Objective, parse


class VersionWarning(UserWarning):
    """The picture was made with other versions: it may differ in its last bits, or more."""


@dataclass(frozen=True)
class Run:
    """A manifest, read: the arguments of `synthesize`."""

    model: Model
    objective: Objective
    parameterization: Parameterization
    transform: Transform
    optimizer: str | optax.GradientTransformation
    count: int


def run_of(
    manifest: Mapping[str, Any],
    model: Model | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Run:
    """The objects that a manifest names.

    Args:
        manifest: of a result or a file.
        model: the model, where it is not one that `featvis.models.load` knows.
        optimizer: the optimizer, where it was not given as text.

    Raises:
        InputError: something is missing or does not read; another model's weights.
        UnknownModel: the model is not known by its name.
    """
    try:
        named = manifest["model"]
        model = models.load(named["name"]) if model is None else model
        if model.digest != named["digest"]:
            raise InputError(
                f"the picture was made with weights {named['digest'][:12]} of {named['name']}; "
                f"these are {model.digest[:12]}"
            )
        chosen = manifest["optimizer"] if optimizer is None else optimizer
        if chosen is None:
            raise InputError(
                "the optimizer was not given as text and is not in the manifest: pass optimizer="
            )
        components.optimizer(chosen)
        return Run(
            model=model,
            objective=parse(manifest["objective"]),
            parameterization=components.parameterization(
                manifest["parameterization"], model.size, model.channels
            ),
            transform=components.transform(manifest["transform"]),
            optimizer=chosen,
            count=manifest["batch"],
        )
    except (KeyError, TypeError) as error:
        if isinstance(error, UnknownModel):
            raise
        raise InputError(f"the manifest is damaged: {error}") from error


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
        optimizer: the optimizer, where it was not given as text.
        progress: show a progress bar on a terminal.

    Warns:
        VersionWarning: packages, Python, platform or device are not those of the manifest.

    Raises:
        InputError: no such file, no manifest in it, or a damaged one.
    """
    manifest = source if isinstance(source, Mapping) else read_manifest(source)
    run = run_of(manifest, model, optimizer)
    differences = version_differences(manifest)
    if differences:
        warnings.warn(
            f"made with other versions, so it may differ: {'; '.join(differences)}",
            VersionWarning,
            stacklevel=2,
        )
    result = synthesize(
        run.model,
        run.objective,
        run.parameterization,
        seed=manifest["seed"],
        batch=run.count,
        steps=manifest["steps"],
        optimizer=run.optimizer,
        transform=run.transform,
        init=unpack_init(manifest, run.parameterization),
        snapshots=manifest["snapshots"],
        progress=progress,
    )
    if "member" not in manifest:
        return result
    try:
        return result[manifest["member"]]
    except (IndexError, TypeError) as error:
        raise InputError(f"the manifest is damaged: its member is no image: {error}") from error
