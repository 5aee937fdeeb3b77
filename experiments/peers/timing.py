"""Time of a step, without what a run does before its first step and after its last; of calls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

#: The class whose score is explained.
UNIT_OF_CLASS = 285

#: Steps of the runs from which the number of steps to measure is chosen.
_PILOT = 2
_MOST = 200


def milliseconds(
    run: Callable[[int], object],
    repeats: int = 3,
    seconds: float = 0.25,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Milliseconds a step, once warm: the difference of two runs' times over that of their steps.

    Args:
        run: takes so many steps.
        repeats: differences, of which the median counts.
        seconds: that a difference is to take, about; it is of at least two steps.
        clock: in seconds.
    """

    def timed(steps: int) -> float:
        started = clock()
        run(steps)
        return clock() - started

    run(1)
    once = timed(1)
    step = max((timed(1 + _PILOT) - once) / _PILOT, seconds / _MOST)
    steps = max(2, round(seconds / step))
    return statistics.median(1000 * (timed(1 + steps) - timed(1)) / steps for _ in range(repeats))


def calls(
    run: Callable[[], object], repeats: int, warm: Callable[[], object] | None = None
) -> float:
    """Seconds of a call, the median of so many after one that compiles.

    Args:
        run: the call.
        repeats: how many are timed; 0: the first, with all that it does once.
        warm: a shorter call that compiles the same; None: `run`.
    """
    if repeats:
        (warm or run)()
    found = []
    for _ in range(max(repeats, 1)):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def pictures(count: int, size: int) -> np.ndarray:
    """So many images of noise, (n, size, size, 3) in [0, 1], the same each time."""
    return np.random.default_rng(0).uniform(size=(count, size, size, 3)).astype(np.float32)
