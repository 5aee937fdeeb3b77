"""`featvis render`: what a unit looks for."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featvis import methods
from featvis import text as texts
from featvis.cli.command import (
    FILES,
    NETWORK,
    SIZE,
    command,
    option,
    preset_options,
    run_options,
)
from featvis.cli.evidence import EVIDENCE, Measures
from featvis.cli.network import network_of
from featvis.cli.output import deliver, label, options_of, plan, use_cache
from featvis.errors import InputError
from featvis.files import part_of_name
from featvis.models import Model
from featvis.results import Result
from featvis.results.run import options_of_runs
from featvis.synthesis import synthesize_many
from objectives import Channel, Logit, Neuron, Objective, parse

_BATCH = option("batch", int, options_of_runs()["batch"].metadata["help"])


@command(
    "[MODEL] OBJECTIVE...",
    *(NETWORK, SIZE, _BATCH, EVIDENCE, run_options("visualization")),
    *(preset_options("visualization"), FILES),
    examples=(
        "efficientnet_lite0 block8:3",
        "efficientnet_lite0 block8:3@7,7 logits:285 'block4:0 - 0.1*tv' --size 160 -o units/",
        "efficientnet_lite0 block8:3 --evidence photographs/ --seeds 4 --json",
        "efficientnet_lite0 logits:285 --judge mobilenet_v2",
        "efficientnet_lite0 block8:3 --preset exp_maximization --natural photographs.index",
        "--model mypackage.nets:factory blocks_3/conv2:5",
    ),
)
def render(given: Namespace) -> None:
    """Synthesize what a unit looks for; several objectives give a picture each and a grid."""
    use_cache()
    network, objectives = network_of(given)
    parsed = [parse(text, network.layers, network.class_index) for text in objectives]
    options = options_of(given, network)
    size, way = options.pop("size"), options.pop("parameterization")
    takes = network.input

    def accepts(other: tuple[int, int]) -> bool:
        try:
            network.layers(other)
        except (InputError, TypeError, ValueError):
            return False
        return True

    seen = methods.Setting(
        size or takes.size, takes.channels, 1.0, 1.0, True, options.pop("steps", None), accepts
    )
    known = preset_options("visualization")
    own = {name: value for name in known if (value := getattr(given, name)) is not None}
    rule = methods.chosen("render", "visualization", given.preset, own)
    if way is not None:
        way = texts.parameterization(way, seen.size, takes.channels, fixed_size=size is not None)
    jobs = _jobs(network, parsed, rule, seen)
    found = _one_by_one(
        [
            (job.places, synthesize_many(
                job.model, job.objectives, way or job.stage.parameterization,
                **{**job.stage.options, "batch": given.batch, **options, "steps": job.stage.steps},
            ))
            for job in jobs
        ]
    )  # fmt: skip
    measures = Measures(given, network, parsed)
    if given.animate is not None and len(parsed) > 1:
        raise InputError(f"--animate takes one objective; got {len(parsed)}")

    files = plan(given, network, objectives, [part_of_name(str(one)) for one in parsed])
    files.labels = [label(one, network) for one in parsed]
    deliver(found, given, files, measures)


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
    stage: methods.Stage
    objectives: list[Objective]
    places: list[int]


def _jobs(
    network: Model,
    objectives: Sequence[Objective],
    rule: Callable[[methods.Setting], methods.Recipe],
    seen: methods.Setting,
) -> list[_Job]:
    """Objectives by what their recipes have in common; most presets have one recipe for all."""
    jobs: list[_Job] = []
    for place, one in enumerate(objectives):
        at = _setting(network, one, seen)
        recipe = rule(at)
        (stage,) = recipe.stages
        wanted = one if np.all(np.equal(recipe.weight, 1)) else recipe.weight * one
        model, wanted = methods.asked(network, wanted, recipe, at.layer)
        like = model.apply, repr(vars(stage))  # of texts, as manifests have them
        alike = (job for job in jobs if (job.model.apply, repr(vars(job.stage))) == like)
        job = next(alike, None)
        if job is None:
            jobs.append(job := _Job(model, stage, [], []))
        job.objectives.append(wanted)
        job.places.append(place)
    return jobs


def _setting(network: Model, objective: Objective, seen: methods.Setting) -> methods.Setting:
    """The setting of one unit; of any other objective what all have."""
    if not isinstance(objective, (Channel, Logit, Neuron)) or np.ndim(objective.index):
        return seen
    own = methods.setting_of(network, objective.layer, seen.size, None)
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
