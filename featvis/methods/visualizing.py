"""What units look for, by a preset: the pictures of several objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featvis import loading
from featvis import text as texts
from featvis.errors import InputError
from featvis.methods.recipe import Recipe, Setting, Stage, asked, chosen, setting_of
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.results.run import as_objective, check_positive, options_of_runs
from featvis.synthesis import synthesize_many
from objectives import Channel, Logit, Neuron, Objective


def visualize(
    model: Model | str,
    objectives: Sequence[Objective | str],
    *,
    preset: str = "modern",
    size: tuple[int, int] | None = None,
    parameterization: Parameterization | str | None = None,
    steps: int | None = None,
    **options: Any,
) -> Iterator[tuple[tuple[int, ...], Result]]:
    """Visualize several objectives, those of one kind together in one batch.

    Args:
        model: a network, or the name of one.
        objectives: objectives or their texts.
        preset: a recipe by name: `featvis.methods.presets("visualization")` has them.
        size: (height, width) in pixels; by default the network's own.
        parameterization: how the images are written; by default the preset's.
        steps: in all; by default the preset's.
        **options: as for `synthesize_many`, in place of the preset's; and what the preset has of
            its own.

    Yields:
        Places of objectives, and the result of those.

    Raises:
        InputError: as `synthesize_many`; no such preset.
    """
    model = loading.as_model(model)
    takes = model.input

    def accepts(other: tuple[int, int]) -> bool:
        try:
            model.layers(other)
        except (InputError, TypeError, ValueError):
            return False
        return True

    if steps is not None:
        check_positive("steps", steps)
    seen = Setting(size or takes.size, takes.channels, 1.0, 1.0, True, steps, accepts)
    known = {*options_of_runs(), "batch_limit"}
    own = {name: options.pop(name) for name in [*options] if name not in known}
    rule = chosen("visualize", "visualization", preset, own)
    if isinstance(parameterization, str):
        parameterization = texts.parameterization(
            parameterization, seen.size, takes.channels, fixed_size=size is not None
        )
    jobs = [
        (
            job.places,
            synthesize_many(
                job.model,
                job.objectives,
                parameterization or job.stage.parameterization,
                **{**job.stage.options, **options, "steps": job.stage.steps},
            ),
        )
        for job in _jobs(model, objectives, rule, seen)
    ]
    return _one_by_one(jobs)


@dataclass
class _Job:
    """Objectives that one stage of one network makes pictures of.

    Attributes:
        model: the network, with its rectifiers as the recipe has them.
        stage: of the recipe.
        objectives: with weights and priors.
        places: theirs among all.
    """

    model: Model
    stage: Stage
    objectives: list[Objective]
    places: list[int]


def _jobs(
    network: Model,
    objectives: Sequence[Objective | str],
    rule: Callable[[Setting], Recipe],
    seen: Setting,
) -> list[_Job]:
    """Objectives by what their recipes have in common; most presets have one recipe for all."""
    jobs: list[_Job] = []
    for place, given in enumerate(objectives):
        one = as_objective(given, network)
        at = _setting(network, one, seen)
        recipe = rule(at)
        (stage,) = recipe.stages
        wanted = one if np.all(np.equal(recipe.weight, 1)) else recipe.weight * one
        model, wanted = asked(network, wanted, recipe, at.layer)
        like = model.apply, repr(vars(stage))  # of texts, as manifests have them
        alike = (job for job in jobs if (job.model.apply, repr(vars(job.stage))) == like)
        job = next(alike, None)
        if job is None:
            jobs.append(job := _Job(model, stage, [], []))
        job.objectives.append(wanted)
        job.places.append(place)
    return jobs


def _setting(network: Model, objective: Objective, seen: Setting) -> Setting:
    """The setting of one unit; of any other objective what all have."""
    if not isinstance(objective, (Channel, Logit, Neuron)) or np.ndim(objective.index):
        return seen
    own = setting_of(network, objective.layer, seen.size, None)
    return replace(
        seen, stride=own.stride, depth=own.depth, learned=own.learned, layer=own.layer,
        units=(int(np.asarray(objective.index)),), digest=network.digest,
    )  # fmt: skip


def _one_by_one(
    jobs: Sequence[tuple[Sequence[int], Iterator[tuple[tuple[int, ...], Result]]]],
) -> Iterator[tuple[tuple[int, ...], Result]]:
    """The results of several jobs, with their places among all; after an interrupt nothing more."""
    for places, results in jobs:
        for some, result in results:
            yield tuple(places[place] for place in some), result
            if "interrupt" in result.stopped:
                return
