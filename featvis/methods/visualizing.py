"""What units look for, by a preset: the pictures of several objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featvis import loading
from featvis.errors import InputError
from featvis.methods.recipe import Recipe, Setting, Stage, asked, chosen, setting_of
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.results.run import (
    as_objective,
    as_parameterization,
    check_positive,
    options_of_runs,
)
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
    if parameterization is not None:
        parameterization = as_parameterization(
            parameterization, seen.size, takes.channels, exact=size is not None
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
    """Objectives by what their recipes have in common; most presets have one recipe for all.

    A recipe is made once for the units of a layer, as what it reads may be large, and once for
    whatever is no unit.
    """
    given: list[Any] = [as_objective(one, network) for one in objectives]
    by_layer: dict[str | None, list[int]] = {}
    for place, one in enumerate(given):
        unit = isinstance(one, (Channel, Logit, Neuron)) and not np.ndim(one.index)
        by_layer.setdefault(one.layer if unit else None, []).append(place)
    recipes: dict[int, tuple[Recipe, float, str]] = {}
    for layer, places in by_layer.items():
        at = seen if layer is None else _setting(network, layer, [given[i] for i in places], seen)
        recipe = rule(at)
        weights = np.broadcast_to(recipe.weight, len(places)).tolist()
        recipes |= {i: (recipe, w, at.layer) for i, w in zip(places, weights, strict=True)}
    jobs: dict[Any, _Job] = {}
    for place, one in enumerate(given):
        recipe, weight, layer = recipes[place]
        (stage,) = recipe.stages
        model, wanted = asked(network, one if weight == 1 else weight * one, recipe, layer)
        like = model.apply, repr(vars(stage))  # of texts, as manifests have them
        job = jobs.setdefault(like, _Job(model, stage, [], []))
        job.objectives.append(wanted)
        job.places.append(place)
    return [*jobs.values()]


def _setting(network: Model, layer: str, units: Sequence[Any], seen: Setting) -> Setting:
    """The setting of units of a layer."""
    own = setting_of(network, layer, seen.size, None)
    return replace(
        seen, stride=own.stride, depth=own.depth, learned=own.learned, layer=own.layer,
        units=tuple(int(np.asarray(one.index)) for one in units), digest=network.digest,
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
