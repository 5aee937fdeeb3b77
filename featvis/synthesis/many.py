"""Several objectives, those of one kind together in one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from featvis import loading
from featvis.errors import InputError
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.results.run import (
    Run,
    as_objective,
    as_parameterization,
    check_options,
    check_positive,
    options_of_runs,
)
from featvis.synthesis import memory
from featvis.synthesis.arguments import (
    agreed_batch_size,
    as_init,
    check_fit,
    check_optimizer,
    couples_images,
    snapshot_steps,
)
from featvis.synthesis.run import Progress, attempt
from featvis.synthesis.terminal import progress_bar
from objectives import Objective, stack, stack_key


def synthesize_many(
    model: Model | str,
    objectives: Sequence[Objective | str],
    parameterization: Parameterization | str | None = None,
    *,
    seed: int = 0,
    batch_limit: int = 8,
    **options: Any,
) -> Iterator[tuple[tuple[int, ...], Result]]:
    """Synthesize several objectives, those of one kind together in one batch.

    Units of one layer are one compiled program and are run `batch_limit` at a time, or one at a
    time where the parameterization or the optimizer makes a batch's images depend on each other.
    Every picture starts from the same seed, so that it is the one its objective alone would give,
    beyond rounding. A NaN stops its own image alone: see `Result.failures`.

    Args:
        model: a model, or the name of one.
        objectives: objectives or their texts.
        parameterization: as for `synthesize`.
        seed: an integer from 0 to 2^32 - 1.
        batch_limit: images in one batch at most.
        **options: as for `synthesize`.

    Returns:
        (places in `objectives`, result), a batch at a time: image i of a result is of the
        objective at places[i]; an objective of several images has a result of its own and one
        place. After an interrupt, nothing more.

    Raises:
        What `synthesize` raises of its arguments, at once and for all objectives.

    Warns:
        SilenceWarning: as `synthesize`, of each batch.
    """
    if isinstance(objectives, str) or not isinstance(objectives, Sequence):
        raise InputError(f"objectives must be a list of objectives or texts; got {objectives!r}")
    check_options("synthesize_many", options, [*options_of_runs(), "batch_limit"])
    check_positive("batch_limit", batch_limit)
    if not isinstance(seed, (int, np.integer)):
        raise InputError(f"seed must be one integer for all objectives; got {seed!r}")
    if isinstance(options.get("init"), Result):
        raise InputError("init is an image or parameters here; synthesize goes on from a result")
    model = loading.as_model(model)
    own = model.input
    parameterization = as_parameterization(parameterization, own.size, own.channels)
    options["init"] = as_init(options.get("init"), parameterization)
    parsed = [as_objective(objective, model) for objective in objectives]
    if not parsed:
        return iter(())
    runs = [Run(model, one, parameterization, seed=seed, **options) for one in parsed]
    first = runs[0]
    marks = snapshot_steps(first.snapshots, first.steps)
    kept = {"steps": first.steps, "snapshots": len(marks)}
    state = check_optimizer(first.optimizer, parameterization)
    coupled = couples_images(first.optimizer, parameterization)
    groups: dict[Any, list[int]] = {}
    for place, objective in enumerate(parsed):
        transform = runs[place].parts.transform
        count = agreed_batch_size(objective, seed, first.batch, first.init, parameterization)
        memory.check_pictures(parameterization, count, **kept)
        check_fit(model, objective, parameterization, transform, count)
        key = stack_key(objective) if count == 1 and not coupled else place
        groups.setdefault(key, []).append(place)

    batches: list[list[int]] = []
    for places in groups.values():
        joint = stack([parsed[place] for place in places[:batch_limit]])
        count = joint.batch_size or first.batch or len(places[:batch_limit])
        transform = runs[places[0]].parts.transform
        need = memory.estimate(model, joint, parameterization, transform, count, state, **kept)
        # As many objectives of one image each as fit; an image's picture is its own.
        together = need.fitting(count) if len(places) > 1 else 0
        if not together:
            need.check(count)
        size = min(batch_limit, together or 1)
        batches += [places[start : start + size] for start in range(0, len(places), size)]

    def results() -> Iterator[tuple[tuple[int, ...], Result]]:
        total, done = first.steps * len(batches), 0
        with progress_bar(total, first.progress is True) as bar:

            def tell(reached: Progress) -> None:
                bar.update(done + reached.step - bar.n)
                if callable(first.progress):
                    first.progress(reached)

            for number, some in enumerate(batches):
                done = number * first.steps
                joint = stack([parsed[place] for place in some])
                seeds = seed if len(some) == 1 else [seed] * len(some)
                run = dataclasses.replace(runs[some[0]], objective=joint, seed=seeds, progress=tell)
                result = attempt(run)
                result.or_warn()
                yield tuple(some), result
                if "interrupt" in result.stopped:
                    return

    return results()
