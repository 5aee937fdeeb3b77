"""A run: its options checked, its loop, and what it gives.

One compiled program holds a step and its loop. It is called in chunks, between which whoever runs
the loop may show progress, look at the images or leave; how the steps are cut into chunks does not
change the picture. The weights, the objective's indices and the number of steps are arguments, so
another unit of the same layer, or another number of steps, compiles nothing (a schedule of the
optimizer that is written for a number of steps does).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from featvis import kernels, limits
from featvis import text as texts
from featvis.models import Model
from featvis.models.targets import named_arrays
from featvis.parameterizations import Parameterization
from featvis.parameterizations.component import with_arrays
from featvis.results import Result
from featvis.results.manifest import Done, versions
from featvis.results.run import Run, as_parameterization, check_positive, takes
from featvis.synthesis import batching, memory
from featvis.synthesis.arguments import (
    agreed_batch_size,
    as_arrays,
    as_init,
    check_fit,
    check_optimizer,
    initial_params,
    pictures_of,
    resized_init,
    snapshot_steps,
)
from featvis.synthesis.failures import (
    failure_of,
    gave_gradients,
    going_again,
    scores_taken,
    silent_images,
)
from featvis.synthesis.loop import (
    CHUNK,
    FOREVER,
    REDIRECTED_STEPS,
    Program,
    decode_images,
    evaluate_images,
    image_keys,
    program_gradient_sizes,
    purpose_key,
    run_keys,
    start_state,
    take_steps,
)
from featvis.synthesis.placement import placement_of
from featvis.synthesis.terminal import watched
from featvis.transforms import Transform
from objectives import Objective, units_of

#: Seconds between two looks at the clock, the progress bar and Ctrl-C. Fewer would be kinder, but
#: each call transforms the kernels anew: 0.4 s for VGG-16 on two cores, where a step takes as long.
_CHUNK_SECONDS = 2.0


@takes(Run)
def synthesize(run: Run) -> Result:
    """Synthesize images that maximise an objective.

    Each image has its own key, derived from the seed and its place in the batch, which drives its
    first parameters and all its transforms: its neighbours do not change it, beyond rounding.

    Args: those of `Run`.

    Returns:
        The images, their scores by step, on the clean picture and under transforms, their
        parameters, the snapshots and the manifest. An interrupt (Ctrl-C) returns what there is.

    Raises:
        InputError: an argument out of range or of the wrong shape, or an option that there is not.
        UnknownModel: no model of that name.
        ObjectiveError: an objective that does not fit the model (UnknownLayer, ParseError too).
        GradientError: an objective, transform or parameterization that JAX cannot differentiate;
            says what is in the way, before anything is compiled.
        NonFiniteError: a NaN or an infinity; it names the step and the term of the objective, and
            its `result` holds the images before it.

    Warns:
        SilenceWarning: the unit of an image never gave a gradient: see `Result.silent`.
    """
    return attempt(run).or_raise().or_warn()


@contextmanager
def _unchecked() -> Iterator[None]:
    """Without JAX's own look for NaN and infinity: a step that has one is not taken, and named.

    JAX would raise in the middle, and of the state of an optimizer that begins at infinity too.
    """
    with jax.debug_nans(False), jax.debug_infs(False):
        yield


@limits.explained("the images of a run")
@_unchecked()
def attempt(run: Run) -> Result:
    """As `synthesize`, but a NaN is in the result's `failures` and stops its own image alone."""
    loop = Loop(run)
    return loop.result(interrupted=watched(loop, run.progress))


def again(runs: Iterable[Done], *, progress: bool = True) -> Result:
    """Does runs again, each going on from the one before; after an interrupt no more of them.

    Args:
        runs: at least one, as they were done.
        progress: as for `synthesize`.
    """
    result: Result | None = None
    for done in runs:
        result = attempt(
            dataclasses.replace(
                done.run,
                batch=done.images,
                steps=done.steps,
                snapshots=done.snapshots,
                init=done.start if result is None else result,
                progress=progress,
            )
        )
        if done.member is not None:
            result = result[done.member]  # one, or some
        if "interrupt" in result.stopped:
            break
    assert result is not None
    return result


@dataclass(frozen=True)
class Progress:
    """Where a run is, between two chunks of its steps.

    Attributes:
        step: how many are taken; fewer than before where the run began again, as it does once
            where a unit gives no gradient.
        steps: how many there are.
        scores: of the step before, (n,); NaN for an image that took none.
        images: makes the images as they are now, (n, h, w, c).
    """

    step: int
    steps: int
    scores: np.ndarray
    images: Callable[[], np.ndarray]


class Loop:
    """The steps of a run: iterate over its `Progress`, or leave, and take the `result`.

    It knows nothing of terminals and signals. A picture does not depend on who looks at it.

    Args:
        run: what is to be made.

    Raises:
        What `synthesize` raises of its arguments.
    """

    def __init__(self, run: Run) -> None:
        model, objective, way, transform = run.parts
        named_arrays(objective)  # raises where two have one name
        self._before = run.init if isinstance(run.init, Result) else None
        init = run.init
        if self._before is not None:
            init = pictures_of(self._before, way)
            parts = self._before.joined
            if parts or self._before.params is None or not self._before.runs[-1].steps:
                # Of a run that failed at once there are no steps to make again, of a loaded or a
                # joined result not its: what it holds is a start.
                self._before, init = None, resized_init(init, way)
        self._run = run if self._before is None else dataclasses.replace(run, init=None)
        self._init = init = as_init(init, way)
        self._count = count = agreed_batch_size(objective, run.seed, run.batch, init, way)
        self._marks = snapshot_steps(run.snapshots, run.steps)
        kept = {"steps": run.steps, "snapshots": len(self._marks)}
        memory.check_pictures(way, count, **kept)
        state_bytes = check_optimizer(run.optimizer, way)
        seen, prune = check_fit(model, objective, way, transform, count)
        self._layout = layout = placement_of((model.params, way), count)
        memory.estimate(
            model, objective, way, transform, count, state_bytes, devices=layout.devices, **kept
        ).check(count)

        # Each of several devices has a part of the batch already.
        alone = not isinstance(layout.parts, NamedSharding)
        shape = (count, *way.shape)
        together = batching.images_at_a_time(model, objective, shape, seen) if alone else None
        way = layout.shared(with_arrays(way))
        self._plain = self._program = Program(
            model.apply, way, transform, run.optimizer, run.draws, together, prune=prune
        )
        self._model = dataclasses.replace(model, params=layout.shared(model.params))
        self._leaves = layout.shared(as_arrays(objective))
        number = None if self._before is None else len(self._before.runs)
        self._keys = layout.images(run_keys(image_keys(run.seed, count), number))
        self._started = time.perf_counter()
        start, kind = initial_params(init, way, count)
        self._first = self._state = layout.state(
            start_state(way, run.optimizer, self._keys, layout.images(start), kind)
        )
        self._dead = layout.images(jnp.zeros(count, bool))
        if alone and kernels.on_cpu():
            # Two processors compile both programs at once; on a GPU each would time its kernels
            # while the other does.
            images = jax.ShapeDtypeStruct(shape, jnp.float32)
            evaluate_images.ahead(*self._evaluated(jnp.int32(0), images))
        self._scores: list[np.ndarray] = []
        self._frames: dict[int, np.ndarray] = {}
        self._lived = np.zeros(count, bool)  # whose unit gave a gradient of its own

    def _evaluated(self, step: jax.Array, images: Any) -> tuple[Any, ...]:
        """What `evaluate_images` is given of images, or of their shape, at a step."""
        return self._plain, self._model.params, self._leaves, self._keys, step, images

    def _decoded(self) -> jax.Array:
        return decode_images(self._plain.parameterization, self._state.params)

    @property
    def steps(self) -> int:
        """How many there are."""
        return self._run.steps

    def images(self) -> np.ndarray:
        """The images as they are now, (n, h, w, c)."""
        return np.asarray(self._decoded())

    def __iter__(self) -> Iterator[Progress]:
        steps, plain = self.steps, self._plain
        # A dead unit is one whose network gives no gradient; priors alone have no unit.
        redirects = REDIRECTED_STEPS if units_of(self._run.parts.objective) is not None else 0
        limit = jnp.int32(self._run.patience or FOREVER)
        done, length = 0, REDIRECTED_STEPS
        while done < steps:
            stop = min([done + length, steps, *(mark for mark in self._marks if mark > done)])
            began, earlier = time.perf_counter(), self._state
            state, rows, alive = take_steps(
                self._program, self._model.params, self._leaves, self._keys, earlier, self._dead,
                jnp.int32(stop), limit,
            )  # fmt: skip
            rows = scores_taken(rows, earlier, state)
            self._state = state = self._layout.state(state)
            reached = int(state.step)
            taken = reached - done
            self._lived |= gave_gradients(self._program, rows, alive, self._dead)
            if self._program is plain and done < redirects and not np.all(alive):
                # Start again, with redirected gradients for the images that got none.
                self._program = dataclasses.replace(plain, redirect=True)
                self._dead = self._layout.images(~jnp.all(alive, axis=0))
                self._state, self._scores, self._frames = self._first, [], {}
                done, redirects = 0, min(redirects, steps)
                continue
            self._scores.append(rows[:taken])
            done = reached
            if done in self._marks:
                self._frames[done] = self.images()
            if taken:
                yield Progress(done, steps, rows[taken - 1], self.images)
            if done < stop:
                return
            if done >= REDIRECTED_STEPS:
                self._program = plain
            pace = _CHUNK_SECONDS / (time.perf_counter() - began)
            length = int(min(CHUNK, max(1, taken * pace)))
            if done < REDIRECTED_STEPS:
                length = min(length, REDIRECTED_STEPS - done)

    def result(self, *, interrupted: bool = False) -> Result:
        """What there is after the steps that were taken.

        Args:
            interrupted: whether somebody asked to stop.
        """
        state, plain, weights = self._state, self._plain, self._model.params
        leaves, keys, dead = self._leaves, self._keys, self._dead
        images = self._decoded()
        # Of the steps taken, which a replay has.
        last = jnp.int32(np.max(state.taken) - 1)
        clean, transformed = evaluate_images(*self._evaluated(last, images))
        finite, since = np.asarray(state.finite), np.asarray(state.since)
        objective, patience = self._run.parts.objective, self._run.patience
        failures = [
            None
            if fine
            else failure_of(self._program, self._model, objective, keys, state, dead, image)
            for image, fine in enumerate(finite)
        ]
        if not self._lived.all() and np.any(dead):
            # Of steps that were all redirected: one more, which goes nowhere.
            again, stop = going_again(state), jnp.int32(int(state.step) + 1)
            after, rows, alive = take_steps(
                plain, weights, leaves, keys, again, dead, stop, jnp.int32(FOREVER)
            )
            rows = scores_taken(rows, again, after)
            self._lived |= gave_gradients(plain, rows, alive, dead)
        heard = self._lived | ~finite
        silent = silent_images(
            plain, self._model, objective, self._first, state, images, heard, bool(np.any(dead))
        )
        taken = np.asarray(state.taken)
        done = Done(
            self._run,
            images=self._count,
            steps=int(max(taken)),
            snapshots=tuple(sorted(self._frames)),
            start=self._init if self._before is None else None,
            versions=versions(),
        )
        result = Result(
            images=np.asarray(images),
            scores=np.concatenate(self._scores)[: max(taken)],
            clean_scores=np.asarray(clean),
            transformed_scores=np.asarray(transformed),
            params=jax.tree.map(np.asarray, state.params),
            sensitivity=np.asarray(state.sensitivity),
            snapshots=self._frames,
            runs=(done,),
            steps=taken,
            stopped=tuple(
                "non-finite"
                if not finite[i]
                else "interrupt"
                if interrupted
                else "plateau"
                if patience is not None and since[i] >= patience
                else "steps"
                for i in range(self._count)
            ),
            failures=tuple(failures),
            silent=silent,
            seconds=time.perf_counter() - self._started,
        )
        return result if self._before is None else self._before.followed_by(result)


@_unchecked()
def gradient_sizes(
    model: Model,
    objective: Objective,
    parameterization: Parameterization | str,
    images: ArrayLike,
    *,
    transform: Transform | str,
    draws: int = 1,
    seed: int | Sequence[int] = 0,
    noise: float = 0.0,
) -> np.ndarray:
    """How hard an objective pulls at images: Σ|∇| of its score by an image's parameters, (n,).

    Under the draws of a run's first step. Where the network gives no gradient, its rectifiers are
    redirected, as they would be in the run.

    Args:
        model: the network.
        objective: whose gradient it is.
        parameterization: how the images are written.
        images: (n, h, w, c) in [0, 1].
        transform: as for `synthesize`.
        draws: as for `synthesize`.
        seed: as for `synthesize`.
        noise: deviation of normal noise that is added to the images first.

    Raises:
        InputError: as `synthesize`.
        ObjectiveError: an objective that does not fit the model.
    """
    own = model.input
    parameterization = as_parameterization(parameterization, own.size, own.channels)
    given_images = as_init(images, parameterization)
    # At its first step, a schedule over the steps of any run is where it starts.
    transform = texts.transform(transform, parameterization.size).over(1)
    check_positive("draws", draws)
    count = agreed_batch_size(objective, seed, None, given_images, parameterization)
    images = jnp.asarray(given_images, jnp.float32)
    seen, prune = check_fit(model, objective, parameterization, transform, count)
    together = batching.images_at_a_time(model, objective, images.shape, seen)
    program = Program(
        model.apply,
        with_arrays(parameterization),
        transform,
        "sgd(0.0)",
        draws,
        together,
        prune=prune,
    )
    keys = image_keys(seed, count)
    draw = jax.vmap(
        lambda key: jax.random.normal(purpose_key(key, 0), images.shape[1:], jnp.float32)
    )
    moved = jnp.clip(images + noise * draw(keys), 0, 1)
    params = jax.vmap(parameterization.encode)(moved)
    given = model.params, as_arrays(objective), keys, params
    sizes = np.array(program_gradient_sizes(program, *given))
    if not np.all(sizes):
        alive = np.asarray(
            program_gradient_sizes(dataclasses.replace(program, redirect=True), *given)
        )
        sizes[sizes == 0] = alive[sizes == 0]
    return sizes
