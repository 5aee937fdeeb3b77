"""Numbers that change over the steps of a run, for the fields of transforms.

A field that takes one says so; `Transform.at(step)` puts its value there in the schedule's place.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from featvis import checks


@dataclass(frozen=True)
class Schedule(ABC):
    """A number for each step of a run: a frozen dataclass of literals, whose `repr` is its text."""

    @abstractmethod
    def at(self, step: jax.Array | int) -> jax.Array:
        """Return the number at a step, counted from 0: float32, of any step, a traced one too."""

    @property
    @abstractmethod
    def extent(self) -> tuple[float, float]:
        """The lowest and the highest number of all steps."""

    def over(self, steps: int) -> Schedule:
        """Return the schedule of a run of so many steps; by default it depends on none."""
        return self


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """From `start` at the first step to `end` at the last, in equal steps; `end` from there on.

    Args:
        start: finite.
        end: finite.
        steps: number of steps that it takes, at least 1; None for those of the run.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    start: float
    end: float
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.set_fields(
            self,
            start=checks.number(self, "start", self.start),
            end=checks.number(self, "end", self.end),
        )
        if self.steps is not None:
            checks.set_fields(self, steps=checks.integer(self, "steps", self.steps, 1))

    def at(self, step: jax.Array | int) -> jax.Array:
        """Return the number at a step.

        Raises:
            InputError: the steps are those of the run, and `over` has not said how many.
        """
        if self.steps is None:
            raise checks.error(self, "steps", "known at a step (Transform.over says them)", None)
        share = jnp.asarray(step, jnp.float32) / max(self.steps - 1, 1)
        # In this form it is `end` to the bit at 1.
        share = jnp.clip(share, 0, 1)
        return (1 - share) * self.start + share * self.end

    @property
    def extent(self) -> tuple[float, float]:
        """The lower and the higher end."""
        return min(self.start, self.end), max(self.start, self.end)

    def over(self, steps: int) -> LinearSchedule:
        """Return the schedule with these steps, where it has none of its own."""
        return self if self.steps is not None else dataclasses.replace(self, steps=steps)


Scheduled: TypeAlias = Any
"""A float or a `Schedule`; in a transform at a step, that step's number."""


def number_or_schedule(
    owner: object, name: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> Scheduled:
    """Return `value` as a float within [low, high], or as a schedule that stays there.

    Raises:
        InputError: neither; it names the field.
    """
    if not isinstance(value, Schedule):
        return checks.number(owner, name, value, low, high)
    lowest, highest = value.extent
    checks.number(owner, name, lowest, low, high)
    checks.number(owner, name, highest, low, high)
    return value
