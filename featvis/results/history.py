"""The runs of a manifest as objects, made from their texts."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import optax

from featvis import loading, text
from featvis.errors import InputError, UnknownModel, printable
from featvis.models import Model, target
from featvis.models.leaky import with_leak
from featvis.results.checks import check_manifest
from featvis.results.format import last_run
from featvis.results.manifest import Done
from featvis.results.packing import array_of, data_reader, unpack_init
from featvis.results.run import Run, options_of_runs
from objectives import Objective, alone, parse, separable


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


def objective_of(
    manifest: Mapping[str, Any], run: Mapping[str, Any], model: Callable[[], Model]
) -> Objective:
    """The objective of a run of a manifest, its targets computed anew.

    Args:
        manifest: has the arrays.
        run: of it.
        model: gives the network, asked only for targets that are kept as images.

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
            arrays[name] = target(model(), packed["layer"], images, name)
    return parse(run["objective"], **arrays)


def done_of(
    manifest: Mapping[str, Any],
    run: Mapping[str, Any],
    network: Model,
    optimizer: optax.GradientTransformation | None,
    data: Callable[[str], Any],
    *,
    first: bool,
) -> Done:
    """A run of a manifest, with objects in the place of its texts.

    Args:
        manifest: has the arrays.
        run: of it, whole and checked.
        network: of the last run.
        optimizer: for a run that has none.
        data: gives what a parameterization holds, by digest.
        first: whether it is the first, which may have a start of its own.

    Raises:
        InputError: no step was taken, or something is missing.
    """
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
    member = run["member"]
    return Done(
        Run(
            with_leak(network, run["model"]["leak"]),
            objective_of(manifest, run, lambda: network),
            parameterization,
            **{**options, "optimizer": chosen, "init": None},
        ),
        images=run["batch"],
        steps=run["steps"],
        snapshots=tuple(run["snapshots"]),
        start=unpack_init(manifest, run, parameterization) if first else None,
        versions=run["versions"],
        member=tuple(member) if isinstance(member, list) else member,
    )


class SavedRuns(Sequence[Done]):
    """The runs of a manifest, made when one is asked for: the network may take long to load.

    Args:
        manifest: checked, of one list of runs.
        model: the network, where it is not one that `featvis.loading.load` knows.
    """

    def __init__(self, manifest: Mapping[str, Any], model: Model | None = None) -> None:
        self.manifest, self.model = manifest, model

    @functools.cached_property
    def _done(self) -> tuple[Done, ...]:
        runs = check_manifest(self.manifest)
        network, data = model_of(runs[-1], self.model), data_reader(self.manifest, None)
        return tuple(
            done_of(self.manifest, run, network, None, data, first=run is runs[0]) for run in runs
        )

    @overload
    def __getitem__(self, place: int) -> Done: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Done, ...]: ...
    def __getitem__(self, place: Any) -> Any:
        return self._done[place]

    def __len__(self) -> int:
        return len(self.manifest["runs"])

    @functools.cached_property
    def objective(self) -> Objective:
        """What was maximised, of these images alone; without the network, if it has no targets."""
        run, member = last_run(self.manifest), self.manifest.get("member")
        whole = objective_of(self.manifest, run, lambda: model_of(run, self.model))
        if member is None or run["batch"] == 1 or not separable(whole):
            return whole
        return alone(whole, member)

    @property
    def text(self) -> str:
        """That of the objective."""
        run = last_run(self.manifest)
        whole = self.manifest.get("member") is None or run["batch"] == 1
        return str(self.manifest.get("objective") or run["objective"] if whole else self.objective)

    def of(self, member: int | tuple[int, ...] | None) -> SavedRuns:
        """The same runs, of some of the images."""
        rest = {k: v for k, v in self.manifest.items() if k not in ("member", "objective")}
        if member is None:
            return SavedRuns(rest, self.model)
        places = list(member) if isinstance(member, tuple) else member
        return SavedRuns({**rest, "member": places}, self.model)


def replay_command(file: str, model: str) -> str:
    """What one types to make a picture again; a network of one's own has to be named.

    Args:
        file: of the picture.
        model: the network's name, as the manifest has it.
    """
    own = f" --model {shlex.quote(model)}" if loading.is_place(model) else ""
    return f"featvis replay {shlex.quote(file)}{own}"
