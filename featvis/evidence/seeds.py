"""How much of a score is the seed's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optax

from featvis.errors import InputError
from featvis.evidence.natural import members_of
from featvis.models import Model
from featvis.replay import replay
from featvis.results import Result
from featvis.results.format import runs_of


def vary_seed(
    result: Result,
    seeds: int = 4,
    model: Model | None = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
    progress: bool = True,
) -> Result:
    """Runs the synthesis again from other seeds: how much of the score is the start's luck.

    Args:
        result: of `synthesize` or `replay`; not one that started from a given image.
        seeds: in all, the result's own included, at least 2.
        model: the model, where it is not one that `featvis.loading.load` knows.
        optimizer: the optimizer, where it was not given as text.
        progress: show a progress bar on a terminal.

    Returns:
        The result with `seed_mean` and `seed_std` of the clean scores over the seeds in `evidence`.

    Raises:
        InputError: fewer than 2 seeds, or a run that no seed changes.
        KeyboardInterrupt: Ctrl-C; a run cut short is no sample.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, (int, np.integer)) or seeds < 2:
        raise InputError(f"seeds must be an integer of at least 2; got {seeds!r}")
    if runs_of(result.manifest)[0]["init"] is not None:
        raise InputError("the run started from a given image: another seed is no other start")
    scores = [result.clean_scores]
    for step in range(1, seeds):
        again = replay(
            _reseeded(result.manifest, step), model=model, optimizer=optimizer, progress=progress
        )
        if "interrupt" in again.stopped:
            raise KeyboardInterrupt
        start = 0 if len(again) == len(result) else members_of(result)[0]
        scores.append(again.clean_scores[start : start + len(result)])
    return result.with_evidence(
        seed_mean=np.mean(scores, axis=0), seed_std=np.std(scores, axis=0, ddof=1)
    )


def _reseeded(manifest: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The manifest with the seeds of all its runs this much on."""

    def later(run: Mapping[str, Any]) -> dict[str, Any]:
        if "seed" not in run:  # that of the run before
            return dict(run)
        seed = run["seed"]
        return {**run, "seed": seed + step if isinstance(seed, int) else [s + step for s in seed]}

    return {**manifest, "runs": [later(run) for run in manifest["runs"]]}
