"""Results of several runs as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from featvis.errors import InputError, printable
from featvis.results.manifest import Done
from featvis.results.result import Result, runs_for


def join(results: Sequence[Result]) -> Result:
    """See `Result.join`."""
    parts: list[Result] = []
    for result in results:
        if not isinstance(result, Result):
            raise InputError(f"results are joined; got {type(result).__name__}")
        for part in result.joined or (result,):
            if parts and _of_one_batch(parts[-1], part):
                member = (*map(int, parts[-1].members), *map(int, part.members))
                parts[-1] = _together([parts[-1], part], runs_for(part.runs, member))
            else:
                parts.append(part)
    if not parts:
        raise InputError("there is no result to join")
    shapes = dict.fromkeys(part.images.shape[1:] for part in parts)
    if len(shapes) > 1:
        raise InputError(f"results are joined of images of one shape; got {[*shapes]}")
    return parts[0] if len(parts) == 1 else _together(parts, (), tuple(parts))


def as_result(value: object) -> Result:
    """A result itself.

    Raises:
        InputError: something else.
    """
    if not isinstance(value, Result):
        shown = printable(repr(value), 80)
        raise InputError(f"a result is what synthesize, replay or a method gives; got {shown}")
    return value


def _of_one_batch(one: Result, other: Result) -> bool:
    """Whether two results are of different images of one batch, which one run makes."""
    mine, theirs = one.runs, other.runs
    return (
        isinstance(mine, tuple)
        and isinstance(theirs, tuple)
        and len(mine) == len(theirs)
        and all(a.run is b.run and a.start is b.start for a, b in zip(mine, theirs, strict=True))
        and all(a.member == b.member for a, b in zip(mine[:-1], theirs[:-1], strict=True))
        and not set(one.members) & set(other.members)
    )


def _together(
    parts: Sequence[Result], runs: Sequence[Done], joined: tuple[Result, ...] = ()
) -> Result:
    """The images of results one after the other, with all that they have in common."""

    def several(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(one for part in parts for one in getattr(part, name))

    scores = np.full((max(len(p.scores) for p in parts), sum(map(len, parts))), np.nan, np.float32)
    start = 0
    for part in parts:
        scores[: len(part.scores), start : start + len(part)] = part.scores
        start += len(part)
    kinds = {str(jax.tree.map(lambda a: a.shape[1:], part.params)) for part in parts}
    steps = set.intersection(*(set(part.snapshots) for part in parts))
    measured = [name for name in parts[0].evidence if all(name in p.evidence for p in parts)]
    params = None
    if len(kinds) == 1:
        params = jax.tree.map(lambda *a: np.concatenate(a), *(part.params for part in parts))
    return Result(
        images=several("images"),
        scores=scores,
        clean_scores=several("clean_scores"),
        transformed_scores=several("transformed_scores"),
        params=params,
        sensitivity=several("sensitivity"),
        snapshots={s: np.concatenate([p.snapshots[s] for p in parts]) for s in sorted(steps)},
        runs=runs,
        steps=several("steps"),
        stopped=all_of("stopped"),
        failures=all_of("failures"),
        silent=all_of("silent"),
        # One batch took its time once.
        seconds=sum(p.seconds for p in parts) if joined else max(p.seconds for p in parts),
        evidence={name: np.concatenate([p.evidence[name] for p in parts]) for name in measured},
        joined=joined,
    )
