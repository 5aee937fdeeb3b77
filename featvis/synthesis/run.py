"""The loop: optimises the parameters of images until an objective is as high as it goes.

One compiled program holds a step and its loop. It is called in chunks, between which progress is
shown, snapshots are taken and an interrupt is obeyed; how the steps are cut into chunks does not
change the picture. The weights, the objective's indices and the number of steps are arguments, so
another unit of the same layer, or another number of steps, compiles nothing (a schedule of the
optimizer that is written for a number of steps does).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from featvis import limits, loading
from featvis import text as components
from featvis.models import Model
from featvis.models.targets import named_arrays
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.results.format import last_run
from featvis.results.manifest import describe_run
from featvis.synthesis import batching, memory
from featvis.synthesis.arguments import (
    DEFAULT_OPTIMIZER,
    DEFAULT_TRANSFORM,
    agreed_batch_size,
    as_arrays,
    as_init,
    as_objective,
    as_parameterization,
    check_fit,
    check_optimizer,
    check_positive,
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
from featvis.synthesis.terminal import interruptible, progress_bar
from featvis.transforms import Transform
from objectives import Objective, units_of

#: Seconds between two looks at the clock, the progress bar and Ctrl-C.
_CHUNK_SECONDS = 0.5


def synthesize(
    model: Model | str,
    objective: Objective | str,
    parameterization: Parameterization | str | None = None,
    *,
    seed: int | Sequence[int] = 0,
    batch: int | None = None,
    steps: int = 512,
    optimizer: str | optax.GradientTransformation = DEFAULT_OPTIMIZER,
    transform: Transform | str = DEFAULT_TRANSFORM,
    draws: int = 1,
    init: Any = None,
    patience: int | None = None,
    snapshots: int | Sequence[int] = (),
    progress: bool = True,
) -> Result:
    """Synthesizes images that maximise an objective.

    Each image has its own key, derived from the seed and its place in the batch, which drives its
    first parameters and all its transforms: its neighbours do not change it, beyond rounding.

    Args:
        model: a model, or the name of one (`featvis.loading.available()`).
        objective: what to maximise, an objective or its text (`"block8:3"`).
        parameterization: how images are written, or its text (`"pixels"`, at the model's own
            size); by default `Fourier` at the model's own size.
        seed: an integer from 0 to 2^32 - 1; or one an image, and then image i is the first image
            of a run with seed i's number alone.
        batch: number of images; by default what the objective or the seeds ask for, or 1.
        steps: optimisation steps, at least 1.
        optimizer: any optax transformation, or its text (`"chain(clip(1.0), adam(0.05))"`), which
            the manifest can keep. Each image has its own state, so that nothing in it mixes images;
            noise that an optimizer adds is drawn from that optimizer's own seed.
        transform: what an image goes through before the model at each step, drawn anew for each
            image and step; a name of `featvis.transforms.PRESETS`, or a transform. Schedules in
            it run over the steps of this run, unless they have their own.
        draws: of the transform at each step, over which an image's score is averaged.
        init: what to start from: one image (h, w, c) in [0, 1] for all or (n, h, w, c); the
            parameters of an earlier result (`result.params`); uint8 and picture files mean the
            same, as everywhere; or an earlier result, to go on
            from, of any size or parameterization: its scores, steps, snapshots and seconds then
            come first, and the manifest makes both. None: drawn from the seed.
        patience: an image stops when for this many steps it has not raised the moving average
            (0.9) of its score (Cadena et al. 2018). None: never.
        snapshots: steps after which to keep the images, or a number of them, evenly spread.
        progress: show a progress bar on a terminal.

    Returns:
        The images, their scores by step, on the clean picture and under transforms, their
        parameters, the snapshots and the manifest. An interrupt (Ctrl-C) returns what there is.

    Raises:
        InputError: an argument out of range or of the wrong shape.
        UnknownModel: no model of that name.
        ObjectiveError: an objective that does not fit the model (UnknownLayer, ParseError too).
        GradientError: an objective, transform or parameterization that JAX cannot differentiate;
            says what is in the way, before anything is compiled.
        NonFiniteError: a NaN or an infinity; it names the step and the term of the objective, and
            its `result` holds the images before it.

    Warns:
        SilenceWarning: the unit of an image never gave a gradient: see `Result.silent`.
    """
    result = attempt(
        model,
        objective,
        parameterization,
        seed=seed,
        batch=batch,
        steps=steps,
        optimizer=optimizer,
        transform=transform,
        draws=draws,
        init=init,
        patience=patience,
        snapshots=snapshots,
        progress=progress,
    )
    return result.or_raise().or_warn()


@contextmanager
def _unchecked() -> Iterator[None]:
    """Without JAX's own look for NaN and infinity: a step that has one is not taken, and named.

    JAX would raise in the middle, and of the state of an optimizer that begins at infinity too.
    """
    with jax.debug_nans(False), jax.debug_infs(False):
        yield


@limits.explained("the images of a run")
@_unchecked()
def attempt(
    model: Model | str,
    objective: Objective | str,
    parameterization: Parameterization | str | None = None,
    *,
    seed: int | Sequence[int] = 0,
    batch: int | None = None,
    steps: int = 512,
    optimizer: str | optax.GradientTransformation = DEFAULT_OPTIMIZER,
    transform: Transform | str = DEFAULT_TRANSFORM,
    draws: int = 1,
    init: Any = None,
    patience: int | None = None,
    snapshots: int | Sequence[int] = (),
    progress: bool = True,
) -> Result:
    """As `synthesize`, but a NaN is in the result's `failures` and stops its own image alone."""
    model = loading.load(model) if isinstance(model, str) else model
    objective = as_objective(objective, model)
    named_arrays(objective)  # raises where two have one name
    parameterization = as_parameterization(parameterization, model)
    transform = components.transform(transform, parameterization.size)
    check_positive("steps", steps)
    transform = transform.over(int(steps))
    check_positive("draws", draws)
    if patience is not None:
        check_positive("patience", patience)
    before = init if isinstance(init, Result) else None
    if before is not None:
        init = pictures_of(before, parameterization)
        if not last_run(before.manifest)["steps"]:
            # A run that failed at once has no steps to make again: what it holds is a start.
            before, init = None, resized_init(init, parameterization)
    init = as_init(init, parameterization)
    count = agreed_batch_size(objective, seed, batch, init, parameterization)
    marks = snapshot_steps(snapshots, steps)
    memory.check_pictures(parameterization, count, steps=steps, snapshots=len(marks))
    state_bytes = check_optimizer(optimizer, parameterization)
    seen, prune = check_fit(model, objective, parameterization, transform, count)
    layout = placement_of(model.params, count)
    memory.estimate(
        model,
        objective,
        parameterization,
        transform,
        count,
        state_bytes,
        steps=steps,
        snapshots=len(marks),
        devices=layout.devices,
    ).check(count)

    # Each of several devices has a part of the batch already.
    alone = not isinstance(layout.parts, NamedSharding)
    shape = (count, *parameterization.shape)
    together = batching.images_at_a_time(model, objective, shape, seen) if alone else None
    plain = Program(
        model.apply, parameterization, transform, optimizer, draws, together, prune=prune
    )
    program = plain
    model = dataclasses.replace(model, params=layout.shared(model.params))
    leaves = layout.shared(as_arrays(objective))
    keys = layout.images(run_keys(image_keys(seed, count), before))
    started = time.perf_counter()
    start, kind = initial_params(init, parameterization, count)
    first = layout.state(start_state(parameterization, optimizer, keys, layout.images(start), kind))
    state, dead = first, layout.images(jnp.zeros(count, bool))
    # A dead unit is one whose network gives no gradient; priors alone have no unit.
    redirects = REDIRECTED_STEPS if units_of(objective) is not None else 0
    scores: list[np.ndarray] = []
    frames: dict[int, np.ndarray] = {}
    limit = jnp.int32(patience or FOREVER)
    done, length = 0, REDIRECTED_STEPS
    lived = np.zeros(count, bool)  # whose unit gave a gradient of its own
    with progress_bar(steps, progress) as bar, interruptible() as interrupted:
        while done < steps:
            stop = min([done + length, steps, *(mark for mark in marks if mark > done)])
            began, earlier = time.perf_counter(), state
            state, rows, alive = take_steps(
                program, model.params, leaves, keys, state, dead, jnp.int32(stop), limit
            )
            rows = scores_taken(rows, earlier, state)
            state = layout.state(state)
            reached = int(state.step)
            taken = reached - done
            lived |= gave_gradients(program, rows, alive, dead)
            if program is plain and done < redirects and not np.all(alive):
                # Start again, with redirected gradients for the images that got none.
                program = plain._replace(redirect=True)
                dead = layout.images(~jnp.all(alive, axis=0))
                state, done, scores, frames = first, 0, [], {}
                redirects = min(redirects, steps)
                bar.reset()
                continue
            scores.append(rows[:taken])
            bar.update(taken)
            done = reached
            if done in marks:
                frames[done] = np.asarray(decode_images(parameterization, state.params))
            if done < stop or interrupted():
                break
            if done >= REDIRECTED_STEPS:
                program = plain
            pace = _CHUNK_SECONDS / (time.perf_counter() - began)
            length = int(min(CHUNK, max(1, taken * pace)))
            if done < REDIRECTED_STEPS:
                length = min(length, REDIRECTED_STEPS - done)

        images = decode_images(parameterization, state.params)
        # Of the steps taken, which a replay has.
        last = jnp.int32(np.max(state.taken) - 1)
        clean, transformed = evaluate_images(plain, model.params, leaves, keys, last, images)
        finite, since = np.asarray(state.finite), np.asarray(state.since)
        failures = [
            None if fine else failure_of(program, model, objective, keys, state, dead, image)
            for image, fine in enumerate(finite)
        ]
        taken_by = np.asarray(state.taken)
        if not lived.all() and np.any(dead):
            # Of steps that were all redirected: one more, which goes nowhere.
            again, stop = going_again(state), jnp.int32(int(state.step) + 1)
            after, rows, alive = take_steps(
                plain, model.params, leaves, keys, again, dead, stop, jnp.int32(FOREVER)
            )
            rows = scores_taken(rows, again, after)
            lived |= gave_gradients(plain, rows, alive, dead)
        silent = silent_images(
            plain, model, objective, first, state, images, lived | ~finite, bool(np.any(dead))
        )
        result = Result(
            images=np.asarray(images),
            scores=np.concatenate(scores)[: max(taken_by)],
            clean_scores=np.asarray(clean),
            transformed_scores=np.asarray(transformed),
            params=jax.tree.map(np.asarray, state.params),
            sensitivity=np.asarray(state.sensitivity),
            snapshots=frames,
            manifest=describe_run(
                model=model,
                objective=objective,
                parameterization=parameterization,
                transform=transform,
                optimizer=optimizer,
                seed=seed,
                batch=count,
                steps=int(max(taken_by)),
                draws=draws,
                patience=patience,
                init=init if before is None else None,
                before=None if before is None else before.manifest,
                snapshots=sorted(frames),
            ),
            steps=taken_by,
            stopped=tuple(
                "non-finite"
                if not finite[i]
                else "interrupt"
                if interrupted()
                else "plateau"
                if patience is not None and since[i] >= patience
                else "steps"
                for i in range(count)
            ),
            failures=tuple(failures),
            silent=silent,
            seconds=time.perf_counter() - started,
        )
        return result if before is None else before.followed_by(result)


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
    parameterization = as_parameterization(parameterization, model)
    given_images = as_init(images, parameterization)
    # At its first step, a schedule over the steps of any run is where it starts.
    transform = components.transform(transform, parameterization.size).over(1)
    check_positive("draws", draws)
    count = agreed_batch_size(objective, seed, None, given_images, parameterization)
    images = jnp.asarray(given_images, jnp.float32)
    seen, prune = check_fit(model, objective, parameterization, transform, count)
    together = batching.images_at_a_time(model, objective, images.shape, seen)
    program = Program(
        model.apply, parameterization, transform, "sgd(0.0)", draws, together, prune=prune
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
        alive = np.asarray(program_gradient_sizes(program._replace(redirect=True), *given))
        sizes[sizes == 0] = alive[sizes == 0]
    return sizes
