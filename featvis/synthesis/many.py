"""Several objectives, those of one kind together in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from featvis import loading
from featvis import text as components
from featvis.errors import InputError
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.synthesis import memory
from featvis.synthesis.arguments import (
    DEFAULT_OPTIMIZER,
    DEFAULT_TRANSFORM,
    agreed_batch_size,
    as_init,
    as_objective,
    as_parameterization,
    check_fit,
    check_optimizer,
    check_positive,
    snapshot_steps,
)
from featvis.synthesis.run import attempt
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
    """Results for several objectives, those of one kind together in one batch.

    Units of one layer are one compiled program and are run `batch_limit` at a time. Every picture
    starts from the same seed, so that it is the one its objective alone would give, beyond
    rounding. A NaN stops its own image alone: see `Result.failures`.

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
    model = loading.load(model) if isinstance(model, str) else model
    parsed = [as_objective(objective, model) for objective in objectives]
    parameterization = as_parameterization(parameterization, model)
    check_positive("batch_limit", batch_limit)
    if not isinstance(seed, (int, np.integer)):
        raise InputError(f"seed must be one integer for all objectives; got {seed!r}")
    if isinstance(options.get("init"), Result):
        raise InputError("init is an image or parameters here; synthesize goes on from a result")
    transform = components.transform(
        options.get("transform", DEFAULT_TRANSFORM), parameterization.size
    )
    init = options["init"] = as_init(options.get("init"), parameterization)
    steps, draws = options.get("steps", 512), options.get("draws", 1)
    check_positive("steps", steps)
    check_positive("draws", draws)
    marks = snapshot_steps(options.get("snapshots", ()), steps)
    state = check_optimizer(options.get("optimizer", DEFAULT_OPTIMIZER), parameterization)
    transform = transform.over(int(steps))
    groups: dict[Any, list[int]] = {}
    for place, objective in enumerate(parsed):
        count = agreed_batch_size(objective, seed, options.get("batch"), init, parameterization)
        memory.check_pictures(parameterization, count, steps=steps, snapshots=len(marks))
        check_fit(model, objective, parameterization, transform, count)
        key = stack_key(objective) if count == 1 else place
        groups.setdefault(key, []).append(place)

    batches: list[list[int]] = []
    for places in groups.values():
        joint = stack([parsed[place] for place in places[:batch_limit]])
        count = joint.batch_size or options.get("batch") or len(places[:batch_limit])
        need = memory.estimate(
            model,
            joint,
            parameterization,
            transform,
            count,
            state,
            steps=steps,
            snapshots=len(marks),
        )
        # As many objectives of one image each as fit; an image's picture is its own.
        together = need.fitting(count) if len(places) > 1 else 0
        if not together:
            need.check(count)
        size = min(batch_limit, together or 1)
        batches += [places[start : start + size] for start in range(0, len(places), size)]

    def results() -> Iterator[tuple[tuple[int, ...], Result]]:
        for some in batches:
            joint = stack([parsed[place] for place in some])
            seeds = seed if len(some) == 1 else [seed] * len(some)
            result = attempt(model, joint, parameterization, seed=seeds, **options)
            result.or_warn()
            yield tuple(some), result
            if "interrupt" in result.stopped:
                return

    return results()
