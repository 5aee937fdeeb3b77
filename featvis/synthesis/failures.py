"""Images that went wrong: a NaN, or a unit without a gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import text as components
from featvis.gradients.silence import LEAST_GRADIENT, asked, reasons
from featvis.models import Model
from featvis.synthesis.arguments import as_arrays
from featvis.synthesis.loop import (
    FOREVER,
    REDIRECTED_STEPS,
    Program,
    State,
    decode_images,
    take_steps,
)
from objectives import Objective


def going_again(state: State) -> State:
    """The state with all images going on, those that had ended too."""
    return state._replace(finite=jnp.ones_like(state.finite), since=jnp.zeros_like(state.since))


def scores_taken(rows: Any, before: State, after: State) -> np.ndarray:
    """The scores (chunk, n) of steps between two states, NaN where an image took none."""
    # One that has stopped takes no step again.
    taken = np.asarray(after.taken) - np.asarray(before.taken)
    own = np.arange(len(rows))[:, None] < taken
    return np.where(own, np.asarray(rows), np.float32(np.nan))


def gave_gradients(program: Program, rows: Any, alive: Any, dead: Any) -> np.ndarray:
    """Whether the network gave each image a gradient of its own in the steps taken, (n,)."""
    own = np.asarray(alive) & ~np.isnan(np.asarray(rows))
    if program.redirect:
        own &= ~np.asarray(dead)
    found: np.ndarray = own.any(axis=0)
    return found


def silent_images(
    program: Program,
    model: Model,
    objective: Objective,
    first: State,
    last: State,
    images: Any,
    heard: np.ndarray,
    redirects: bool,
) -> tuple[str | None, ...]:
    """For each image None, or why its unit gave no gradient in a run from `first` to `last`.

    One that moved no level of the picture is none either.
    """
    count = len(heard)
    taken = np.asarray(last.taken)
    wanted = asked(objective, count) & (taken > 0)
    largest = np.asarray(last.sensitivity).max((1, 2)) / np.maximum(taken, 1)
    silent = ~heard
    if np.any(heard & (largest < LEAST_GRADIENT)):
        start = np.asarray(decode_images(program.parameterization, first.params))
        moved = np.abs(np.asarray(images) - start).max((1, 2, 3))
        finite = np.asarray(last.finite)
        silent |= finite & (largest < LEAST_GRADIENT) & (moved < 1 / 510)
    silent &= wanted
    if not silent.any():
        return (None,) * count
    pictures = np.asarray(images)
    whys = reasons(model.apply, model.params, objective, pictures, silent, redirected=redirects)
    return tuple(
        f"it vanishes, at most {size:.1g} a pixel; {why}" if why and heard[i] else why
        for i, (why, size) in enumerate(zip(whys, largest, strict=True))
    )


def failure_of(
    program: Program,
    model: Model,
    objective: Objective,
    keys: jax.Array,
    state: State,
    dead: jax.Array,
    image: int,
) -> str:
    """Which step of an image and which term of the objective went wrong, in one line."""
    step = int(state.taken[image])
    if bool(jnp.any(dead)) and step < REDIRECTED_STEPS:
        program = dataclasses.replace(program, redirect=True)
    # Without an optimizer: what is not finite then is the term's score or gradient.
    still = components.optimizer("sgd(0.0)")
    program = dataclasses.replace(program, optimizer="sgd(0.0)")
    again = going_again(state)._replace(
        step=jnp.int32(step), optimizer=jax.vmap(still.init)(state.params)
    )

    def goes_wrong(objective: Objective) -> bool:
        # A term is a program of its own: compiled here only, where time does not matter.
        limit = jnp.int32(FOREVER)
        leaves, stop = as_arrays(objective), jnp.int32(step + 1)
        after, _, _ = take_steps(program, model.params, leaves, keys, again, dead, stop, limit)
        return not bool(after.finite[image])

    wrong = [term for term in objective.terms if goes_wrong(term)]
    if wrong:
        culprit = f"the term {wrong[0]!r}"
    elif goes_wrong(objective):
        culprit = "the sum of the terms, each finite alone"
    else:
        culprit = "the optimizer's update"
    return f"NaN or infinity at step {step} of image {image}: {culprit}"
