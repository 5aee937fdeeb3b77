"""Making a picture again from its manifest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optax

from featvis.errors import InputError, printable
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.results.checks import check_manifest, check_outline
from featvis.results.format import last_run, parts_of
from featvis.results.history import done_of, model_of
from featvis.results.manifest import versions
from featvis.results.packing import data_reader, digests_in
from featvis.results.reading import read_manifest
from featvis.synthesis.run import again


class VersionWarning(UserWarning):
    """The picture was made with other versions: it may differ in its last bits, or more."""


def version_differences(manifest: Mapping[str, Any]) -> list[str]:
    """What differs between the manifest's versions and those of this machine, one line each."""
    now, found = versions(), []
    for part in parts_of(manifest):
        then = last_run(part)["versions"]
        found += [
            printable(f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now")
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        ]
    return list(dict.fromkeys(found))


def replay(
    source: str | Path | Mapping[str, Any],
    *,
    model: Model | None = None,
    optimizer: optax.GradientTransformation | None = None,
    parameterization: Parameterization | None = None,
    progress: bool = True,
) -> Result:
    """Make a picture again: the same to the bit on the same machine with the same versions.

    Args:
        source: a PNG that featvis wrote, the JSON beside it, or a manifest; of results that were
            joined, all are made again.
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
    check_outline(manifest)
    parts = parts_of(manifest)
    runs = [run for part in parts for run in check_manifest(part)]
    networks = [_network(check_manifest(part)[-1], model, alone=len(parts) == 1) for part in parts]
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
    if parameterization is not None and not any(digests_in(r["parameterization"]) for r in runs):
        raise InputError(
            "the manifest has its parameterization: parameterization= is for one that holds data"
        )
    results = []
    for part, network in zip(parts, networks, strict=True):
        whole, data = check_manifest(part), data_reader(part, parameterization)
        # One at a time: each has the activations of its targets.
        done = (done_of(part, r, network, optimizer, data, first=r is whole[0]) for r in whole)
        results.append(again(done, progress=progress))
        if "interrupt" in results[-1].stopped:
            break
    return Result.join(results).or_raise().or_warn()


def _network(run: Mapping[str, Any], model: Model | None, *, alone: bool) -> Model:
    """The network of a run; of several, which may be of others, the given one where it fits."""
    fits = model is not None and (alone or model.digest == run["model"]["digest"])
    return model_of(run, model if fits else None)
