"""How much of a score is the seed's."""

from __future__ import annotations

import dataclasses

import numpy as np

from featvis.errors import InputError
from featvis.results import Result
from featvis.results.joining import as_result
from featvis.results.manifest import Done
from featvis.synthesis.run import again


def vary_seed(result: Result, seeds: int = 4, *, progress: bool = True) -> Result:
    """Run the synthesis again from other seeds, to see how much of the score is luck.

    Args:
        result: of `synthesize` or `replay`; not one that started from a given image.
        seeds: in all, the result's own included, at least 2.
        progress: show a progress bar, on a terminal or in a notebook.

    Returns:
        The result with `seed_mean` and `seed_std` of the clean scores over the seeds in `evidence`.

    Raises:
        InputError: fewer than 2 seeds, or a run that no seed changes.
        NonFiniteError: a NaN or an infinity under another seed.
        KeyboardInterrupt: Ctrl-C; a run cut short is no sample.
    """
    result = as_result(result)
    if isinstance(seeds, bool) or not isinstance(seeds, (int, np.integer)) or seeds < 2:
        raise InputError(f"seeds must be an integer of at least 2; got {seeds!r}")
    if result.joined:
        return Result.join([vary_seed(part, seeds, progress=progress) for part in result.joined])
    if result.runs[0].start is not None:
        raise InputError("the run started from a given image: another seed is no other start")
    scores = [result.clean_scores]
    for step in range(1, seeds):
        other = again([reseeded(done, step) for done in result.runs], progress=progress)
        other.or_raise().or_warn()
        if "interrupt" in other.stopped:
            raise KeyboardInterrupt
        scores.append(other.clean_scores)
    return result.with_evidence(
        seed_mean=np.mean(scores, axis=0), seed_std=np.std(scores, axis=0, ddof=1)
    )


def reseeded(done: Done, step: int) -> Done:
    """The same run with its seeds this much on."""
    seed = done.run.seed
    later = seed + step if isinstance(seed, (int, np.integer)) else [one + step for one in seed]
    return done._replace(run=dataclasses.replace(done.run, seed=later))
