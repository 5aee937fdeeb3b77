"""The loop: optimises the parameters of images until an objective is as high as it goes.

One compiled program holds a step and its loop. It is called in chunks, between which progress is
shown, snapshots are taken and an interrupt is obeyed; how the steps are cut into chunks does not
change the picture. The weights, the objective's indices and the number of steps are arguments, so
another unit of the same layer, or another number of steps, compiles nothing (a schedule of the
optimizer that is written for a number of steps does).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)
from jax.typing import ArrayLike

from featvis import components, kernels, limits, memory, models
from featvis.errors import InputError, TooLargeError
from featvis.gradients import check_gradient, check_parameterization, check_transform
from featvis.images import image_array
from featvis.manifest import LARGEST, describe_run, last_run
from featvis.models import Model
from featvis.parameterizations import Fourier, Parameterization
from featvis.programs import pruned
from featvis.redirect import redirected
from featvis.result import Result
from featvis.silence import LEAST_GRADIENT, asked, reasons
from featvis.targets import named_arrays
from featvis.transforms import Transform
from objectives import (
    Activations,
    Objective,
    ObjectiveError,
    images_of,
    parse,
    signature,
    stack,
    units_of,
)

#: Steps in one call of the compiled program at most: the length of its score buffer.
_CHUNK = 64
#: Steps at which dead rectifiers are looked for and redirected, as in lucid.
_REDIRECTED_STEPS = 16
#: More steps than there are.
_FOREVER = np.iinfo(np.int32).max
#: Seconds between two looks at the clock, the progress bar and Ctrl-C.
_CHUNK_SECONDS = 0.5
#: Draws of the transform over which the final transformed score is averaged.
_DRAWS = 8
#: Measured on EfficientNet-Lite0: clean scores as with Adam at 0.05 or above, and less haze.
DEFAULT_OPTIMIZER = "nadam(0.035)"
#: Keeps the picture's size and has no frame: the clean scores are above those of lucid's preset.
DEFAULT_TRANSFORM = "affine"


class _Program(NamedTuple):
    """What is compiled: all of it static and hashable."""

    apply: Any
    parameterization: Parameterization
    transform: Transform
    optimizer: str | optax.GradientTransformation
    draws: int = 1
    at_a_time: int | None = None  # images that go through the network together; None: all
    redirect: bool = False
    prune: bool = False  # whether what the objective does not read has no gradient


class _State(NamedTuple):
    """What one step hands to the next; of each field but `step`, the first axis is the images'."""

    step: jax.Array  # of the loop: the same for all images
    params: Any
    optimizer: Any
    average: jax.Array  # exponential moving average of the scores (n,)
    best: jax.Array  # its best so far (n,)
    since: jax.Array  # steps since then (n,)
    sensitivity: jax.Array  # sum over the steps of |d score / d image| (n, h, w)
    taken: jax.Array  # steps taken (n,)
    finite: jax.Array  # whether all has been finite so far (n,)


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
        model: a model, or the name of one (`featvis.models.available()`).
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
    model = models.load(model) if isinstance(model, str) else model
    objective = as_objective(objective, model)
    named_arrays(objective)  # raises where two have one name
    parameterization = _as_parameterization(parameterization, model)
    transform = components.transform(transform, parameterization.size)
    _positive("steps", steps)
    transform = transform.over(int(steps))
    _positive("draws", draws)
    if patience is not None:
        _positive("patience", patience)
    before = init if isinstance(init, Result) else None
    if before is not None:
        init = _pictures_of(before, parameterization)
        if not last_run(before.manifest)["steps"]:
            # A run that failed at once has no steps to make again: what it holds is a start.
            before, init = None, _resized(init, parameterization)
    init = _as_init(init, parameterization)
    count = _batch_size(objective, seed, batch, init, parameterization)
    marks = snapshot_steps(snapshots, steps)
    memory.check_pictures(parameterization, count, steps=steps, snapshots=len(marks))
    state_bytes = _check_optimizer(optimizer, parameterization)
    seen, prune = _check_fit(model, objective, parameterization, transform, count)
    layout = _layout(model.params, count)
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
    together = memory.images_at_a_time(model, objective, shape, seen) if alone else None
    plain = _Program(
        model.apply, parameterization, transform, optimizer, draws, together, prune=prune
    )
    program = plain
    model = dataclasses.replace(model, params=layout.shared(model.params))
    leaves = layout.shared(_as_arrays(objective))
    keys = layout.images(_run_keys(image_keys(seed, count), before))
    started = time.perf_counter()
    start, kind = _initial(init, parameterization, count)
    first = layout.state(_start(parameterization, optimizer, keys, layout.images(start), kind))
    state, dead = first, layout.images(jnp.zeros(count, bool))
    # A dead unit is one whose network gives no gradient; priors alone have no unit.
    redirects = _REDIRECTED_STEPS if units_of(objective) is not None else 0
    scores: list[np.ndarray] = []
    frames: dict[int, np.ndarray] = {}
    limit = jnp.int32(patience or _FOREVER)
    done, length = 0, _REDIRECTED_STEPS
    lived = np.zeros(count, bool)  # whose unit gave a gradient of its own
    with _bar(steps, progress) as bar, _interruptible() as interrupted:
        while done < steps:
            stop = min([done + length, steps, *(mark for mark in marks if mark > done)])
            began, earlier = time.perf_counter(), state
            state, rows, alive = _advance(
                program, model.params, leaves, keys, state, dead, jnp.int32(stop), limit
            )
            rows = _of_steps_taken(rows, earlier, state)
            state = layout.state(state)
            reached = int(state.step)
            taken = reached - done
            lived |= _gave_gradients(program, rows, alive, dead)
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
                frames[done] = np.asarray(_decode(parameterization, state.params))
            if done < stop or interrupted():
                break
            if done >= _REDIRECTED_STEPS:
                program = plain
            pace = _CHUNK_SECONDS / (time.perf_counter() - began)
            length = int(min(_CHUNK, max(1, taken * pace)))
            if done < _REDIRECTED_STEPS:
                length = min(length, _REDIRECTED_STEPS - done)

        images = _decode(parameterization, state.params)
        # Of the steps taken, which a replay has.
        last = jnp.int32(np.max(state.taken) - 1)
        clean, transformed = _evaluate(plain, model.params, leaves, keys, last, images)
        finite, since = np.asarray(state.finite), np.asarray(state.since)
        failures = [
            None if fine else _failure(program, model, objective, keys, state, dead, image)
            for image, fine in enumerate(finite)
        ]
        taken_by = np.asarray(state.taken)
        if not lived.all() and np.any(dead):
            # Of steps that were all redirected: one more, which goes nowhere.
            again, stop = _again(state), jnp.int32(int(state.step) + 1)
            after, rows, alive = _advance(
                plain, model.params, leaves, keys, again, dead, stop, jnp.int32(_FOREVER)
            )
            rows = _of_steps_taken(rows, again, after)
            lived |= _gave_gradients(plain, rows, alive, dead)
        silent = _silent(
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
    parameterization = _as_parameterization(parameterization, model)
    given_images = _as_init(images, parameterization)
    # At its first step, a schedule over the steps of any run is where it starts.
    transform = components.transform(transform, parameterization.size).over(1)
    _positive("draws", draws)
    count = _batch_size(objective, seed, None, given_images, parameterization)
    images = jnp.asarray(given_images, jnp.float32)
    seen, prune = _check_fit(model, objective, parameterization, transform, count)
    together = memory.images_at_a_time(model, objective, images.shape, seen)
    program = _Program(
        model.apply, parameterization, transform, "sgd(0.0)", draws, together, prune=prune
    )
    keys = image_keys(seed, count)
    draw = jax.vmap(lambda key: jax.random.normal(_purpose(key, 0), images.shape[1:], jnp.float32))
    moved = jnp.clip(images + noise * draw(keys), 0, 1)
    params = jax.vmap(parameterization.encode)(moved)
    given = model.params, _as_arrays(objective), keys, params
    sizes = np.array(_gradient_sizes(program, *given))
    if not np.all(sizes):
        alive = np.asarray(_gradient_sizes(program._replace(redirect=True), *given))
        sizes[sizes == 0] = alive[sizes == 0]
    return sizes


# ---- devices -------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """Where a run is: XLA partitions its programs by where their arguments are."""

    whole: Sharding | None = None  # of what the images share; None: wherever JAX puts it
    parts: Sharding | None = None  # of arrays whose first axis is the images'
    devices: int = 1

    def shared(self, tree: Any) -> Any:
        """What each device has all of."""
        return tree if self.whole is None else jax.device_put(tree, self.whole)

    def images(self, tree: Any) -> Any:
        """Arrays of which each device has its images' part."""
        return tree if self.parts is None else jax.device_put(tree, self.parts)

    def state(self, state: _State) -> _State:
        """A state, always laid out alike: another layout would be another compiled program."""
        return _State(self.shared(state.step), *self.images(state[1:]))


def _layout(weights: Any, count: int) -> _Layout:
    """Equal parts for as many of the local devices as divide the images.

    Nothing leaves where somebody put it: `jax.default_device`, or weights on a device.
    """
    arrays = [w for w in jax.tree.leaves(weights) if isinstance(w, jax.Array) and w.committed]
    placed = set[Any]().union(*(array.devices() for array in arrays))
    if len(placed) == 1:
        there = SingleDeviceSharding(placed.pop())
        return _Layout(there, there)
    local = jax.local_devices()
    number = max(n for n in range(1, len(local) + 1) if count % n == 0)
    default = jax.config.jax_default_device  # type: ignore[attr-defined]
    if placed or number == 1 or default is not None:
        return _Layout()
    mesh = Mesh(np.asarray(local[:number]), ("images",), axis_types=(AxisType.Auto,))
    return _Layout(
        NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("images")), number
    )


# ---- the compiled parts --------------------------------------------------------------------


def image_keys(seed: int | Sequence[int], count: int) -> jax.Array:
    """One key an image, (count,): from its place under one seed, or from its own seed."""
    if isinstance(seed, (int, np.integer)):
        places = jnp.arange(count)
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), places)
    keys = [jax.random.fold_in(jax.random.key(one), 0) for one in seed]
    return jnp.stack(keys)


def _run_keys(keys: jax.Array, before: Result | None) -> jax.Array:
    """Keys of a run's own: the first run's, and others for each that goes on from one."""
    if before is None:
        return keys
    # 0 to 2 are the purposes below.
    number = 2 + len(before.manifest["runs"])
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _purpose(key: jax.Array, purpose: int) -> jax.Array:
    """A key for each use: 0 the first parameters, 1 the steps, 2 the final evaluation."""
    return jax.random.fold_in(key, purpose)


@functools.partial(jax.jit, static_argnames=("parameterization", "optimizer", "kind"))
def _start(
    parameterization: Parameterization,
    optimizer: str | optax.GradientTransformation,
    keys: jax.Array,
    init: Any,
    kind: str,
) -> _State:
    if kind == "params":
        params = init
    elif kind == "image":
        params = jax.vmap(parameterization.encode)(init)
    elif kind == "picture":
        params = jax.vmap(lambda key, one: parameterization.resume(_purpose(key, 0), one))(
            keys, init
        )
    else:
        params = jax.vmap(lambda key: parameterization.init(_purpose(key, 0)))(keys)
    params = jax.vmap(parameterization.project)(params)
    count = keys.shape[0]
    # The lowest number rather than an infinity, which JAX may have been asked to look for.
    nothing = jnp.full(count, jnp.finfo(jnp.float32).min, jnp.float32)
    return _State(
        step=jnp.int32(0),
        params=params,
        optimizer=jax.vmap(components.optimizer(optimizer).init)(params),
        average=jnp.zeros(count, jnp.float32),
        best=nothing,
        since=jnp.zeros(count, jnp.int32),
        sensitivity=jnp.zeros((count, *parameterization.size), jnp.float32),
        taken=jnp.zeros(count, jnp.int32),
        finite=jnp.ones(count, bool),
    )


def _by_parts(
    program: _Program, function: Callable[..., Any], objective: Objective, *images: Any
) -> Any:
    """`function(objective, *images)`, for as many images at a time as the program has it.

    Args:
        program: says how many.
        function: gives arrays whose first axis is the images'.
        objective: of all images.
        *images: pytrees of arrays whose first axis is the images'.
    """
    count = len(jax.tree.leaves(images)[0])
    size = program.at_a_time
    if size is None or size >= count:
        return function(objective, *images)

    def part(start: jax.Array) -> Any:
        some = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), images)
        return function(images_of(objective, start, size), *some)

    out = jax.lax.map(part, jnp.arange(0, count, size))
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), out)


def _scores(
    program: _Program,
    weights: Any,
    objective: Objective,
    keys: jax.Array,
    step: jax.Array,
    dead: jax.Array,
    seen: Any,
    image: Any,
) -> jax.Array:
    """Scores (n,) of images at a step; `seen` is what the model gets and the priors do not."""
    apply = redirected(program.apply, dead) if program.redirect else program.apply
    transform = jax.vmap(program.transform.at(step))

    def see(images: Any, places: Any) -> Any:
        at = keys if places is None else keys[places]
        images = jnp.broadcast_to(images, (len(at), *images.shape[1:]))
        return program.apply(weights, transform(at, images))

    acts = Activations(apply(weights, transform(keys, seen)))
    return objective.seen(see)(acts, image)


def _mean_of_draws(function: Callable[[jax.Array], Any], keys: jax.Array, draws: int) -> Any:
    """The mean over draws of what a function of the images' keys (n,) gives."""
    if draws == 1:
        return function(keys)
    drawn = jax.vmap(lambda key: jax.random.split(key, draws), out_axes=1)(keys)
    # One after the other: all at once take as many times the memory.
    nothing = jax.tree.map(
        lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(function, keys)
    )
    total, _ = jax.lax.scan(
        lambda total, keys: (jax.tree.map(jnp.add, total, function(keys)), None), nothing, drawn
    )
    return jax.tree.map(lambda value: value / draws, total)


def _gradients(
    program: _Program,
    weights: Any,
    objective: Objective,
    keys: jax.Array,
    step: jax.Array,
    dead: jax.Array,
    image: jax.Array,
) -> Any:
    """Gradients by images (n, h, w, c), through the network and directly, and scores (n,).

    The mean over the program's draws at a step, from one key an image.
    """

    def of_part(objective: Objective, keys: jax.Array, dead: jax.Array, image: jax.Array) -> Any:
        def total(seen: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
            scores = _scores(program, weights, objective, keys, step, dead, seen, image)
            return jnp.sum(scores), scores

        whole = pruned(total) if program.prune else total
        # By way of the network and directly, to tell a dead unit under a living prior.
        return jax.grad(whole, (0, 1), has_aux=True)(image, image)

    def of_draw(keys: jax.Array) -> Any:
        return _by_parts(program, of_part, objective, keys, dead, image)

    return _mean_of_draws(of_draw, keys, program.draws)


@functools.partial(kernels.compiled, static=("program",))
def _gradient_sizes(
    program: _Program, weights: Any, objective: Objective, keys: jax.Array, params: Any
) -> jax.Array:
    """Σ|∇| of each image's score by its parameters, (n,), under the draws of the first step."""
    first = jax.vmap(lambda key: jax.random.fold_in(_purpose(key, 1), 0))(keys)
    image, decode_vjp = jax.vjp(jax.vmap(program.parameterization.decode), params)
    dead = jnp.full(len(keys), program.redirect)
    (by_network, by_prior), _ = _gradients(
        program, weights, objective, first, jnp.int32(0), dead, image
    )
    (gradient,) = decode_vjp(by_network + by_prior)
    sizes = [
        jnp.sum(jnp.abs(leaf), axis=tuple(range(1, leaf.ndim)))
        for leaf in jax.tree.leaves(gradient)
    ]
    return functools.reduce(jnp.add, sizes)


@functools.partial(kernels.compiled, static=("program",))
def _advance(
    program: _Program,
    weights: Any,
    objective: Objective,
    keys: jax.Array,
    state: _State,
    dead: jax.Array,
    stop: jax.Array,
    patience: jax.Array,
) -> tuple[_State, jax.Array, jax.Array]:
    """Steps from `state` to `stop`, fewer when no image goes on.

    An image stops at its own plateau or NaN, whatever the others do.

    Returns:
        The state; scores (chunk, n), 0 for steps not taken; and whether the network gave each
        image a gradient, (chunk, n), True for steps not taken.
    """
    parameterization = program.parameterization
    optimizer = components.optimizer(program.optimizer)
    start, count = state.step, keys.shape[0]
    step_keys = jax.vmap(lambda key: _purpose(key, 1))(keys)

    def active(now: _State) -> jax.Array:
        return now.finite & (now.since < patience)

    def going(carry: tuple[_State, jax.Array, jax.Array]) -> jax.Array:
        return (carry[0].step < stop) & jnp.any(active(carry[0]))

    def step(carry: tuple[_State, jax.Array, jax.Array]) -> tuple[_State, jax.Array, jax.Array]:
        now, rows, alive = carry
        drawn = jax.vmap(jax.random.fold_in, (0, None))(step_keys, now.step)
        image, decode_vjp = jax.vjp(jax.vmap(parameterization.decode), now.params)

        (by_network, by_prior), scores = _gradients(
            program, weights, objective, drawn, now.step, dead, image
        )
        (gradient,) = decode_vjp(by_network + by_prior)

        def update(gradient: Any, moments: Any, params: Any, score: jax.Array) -> tuple[Any, Any]:
            descent = jax.tree.map(jnp.negative, gradient)
            updates, moments = optimizer.update(
                descent, moments, params, value=-score, grad=descent
            )
            still = {name: jnp.zeros_like(updates[name]) for name in parameterization.held}
            updates = {**updates, **still}
            return parameterization.project(optax.apply_updates(params, updates)), moments

        params, moments = jax.vmap(update)(gradient, now.optimizer, now.params, scores)
        # A step that goes wrong is not taken: what was there before it is kept.
        finite = jnp.isfinite(scores) & _finite(gradient) & _finite(params)
        average = jnp.where(now.step == 0, scores, 0.9 * now.average + 0.1 * scores)
        better = average > now.best
        new = _State(
            step=now.step + 1,
            params=params,
            optimizer=moments,
            average=average,
            best=jnp.where(better, average, now.best),
            since=jnp.where(better, 0, now.since + 1),
            sensitivity=now.sensitivity + jnp.mean(jnp.abs(by_network), axis=-1),
            taken=now.taken + 1,
            finite=finite,
        )
        stepping = active(now)
        pick = functools.partial(_per_image, stepping & finite)
        # The step is the loop's: all other fields are the images'.
        chosen = _State(
            new.step, *(jax.tree.map(pick, a, b) for a, b in zip(new[1:], now[1:], strict=True))
        )
        row = now.step - start
        rows = rows.at[row].set(jnp.where(stepping & finite, scores, 0))
        living = jnp.any(by_network != 0, axis=(1, 2, 3))
        alive = alive.at[row].set(living | ~(stepping & finite))
        finite = jnp.where(stepping, finite, now.finite)
        return chosen._replace(finite=finite), rows, alive

    rows = jnp.zeros((_CHUNK, count), jnp.float32)
    return jax.lax.while_loop(going, step, (state, rows, jnp.ones((_CHUNK, count), bool)))


def _finite(tree: Any) -> jax.Array:
    """Whether all numbers of each image are finite, (n,)."""
    parts = [
        jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
        for leaf in jax.tree.leaves(tree)
    ]
    return functools.reduce(jnp.logical_and, parts)


def _per_image(mask: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """`a` for the images of the mask (n,), `b` for the others."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)


@functools.partial(jax.jit, static_argnames=("parameterization",))
def _decode(parameterization: Parameterization, params: Any) -> jax.Array:
    """Images (n, h, w, c): snapshots and the final picture by the same program, to the bit."""
    return jax.vmap(parameterization.decode)(params)


@functools.partial(kernels.compiled, static=("program",))
def _evaluate(
    program: _Program,
    weights: Any,
    objective: Objective,
    keys: jax.Array,
    step: jax.Array,
    images: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Scores of the clean images (n,), and their mean scores under the transforms of a step."""

    def scores(
        objective: Objective, keys: jax.Array, images: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        clean = objective(Activations(program.apply(weights, images)), images)
        drawn = jax.vmap(lambda key: jax.random.split(_purpose(key, 2), _DRAWS), out_axes=1)(keys)
        nobody = jnp.zeros(len(images), bool)
        draws = jax.lax.map(
            lambda keys: _scores(program, weights, objective, keys, step, nobody, images, images),
            drawn,
        )
        return clean, jnp.mean(draws, axis=0)

    return _by_parts(program, scores, objective, keys, images)


# ---- arguments -----------------------------------------------------------------------------


def as_objective(objective: Any, model: Model | None = None) -> Objective:
    """An objective from itself or its text, which may be about a model (`"block8:*"`).

    Raises:
        InputError: neither.
        ParseError: a text that describes none.
    """
    if isinstance(objective, str):
        return parse(objective) if model is None else parse(objective, model.layers)
    if not isinstance(objective, Objective):
        raise InputError(f"objective must be an Objective or its text; got {objective!r}")
    return objective


def _as_parameterization(value: Any, model: Model) -> Parameterization:
    if value is None:
        return Fourier(size=model.input.size, channels=model.input.channels)
    if isinstance(value, str):
        return components.parameterization(value, model.input.size, model.input.channels)
    if not isinstance(value, Parameterization):
        raise InputError(f"parameterization must be one, or its text; got {value!r}")
    return value


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1; got {value!r}")
    if value > LARGEST.get(name, 2**31 - 1):
        raise InputError(f"{name} must be at most {LARGEST.get(name, 2**31 - 1)}; got {value}")


def _batch_size(
    objective: Objective,
    seed: int | Sequence[int],
    batch: int | None,
    init: Any,
    parameterization: Parameterization,
) -> int:
    """The number of images that all arguments agree on."""
    said: dict[str, int] = {}
    if batch is not None:
        _positive("batch", batch)
        said["batch"] = int(batch)
    if objective.batch_size is not None:
        said["the objective"] = objective.batch_size
    several = isinstance(seed, (list, tuple, range, np.ndarray))
    seeds = list(seed) if several else [seed]  # type: ignore[arg-type]
    if not seeds or any(
        isinstance(s, bool) or not isinstance(s, (int, np.integer)) or not 0 <= s < 2**32
        for s in seeds
    ):
        raise InputError(f"seed must be an integer from 0 to 2^32 - 1, or several; got {seed!r}")
    if several:
        said["seed"] = len(seeds)
    if isinstance(init, _Pictures):
        said["init"] = len(init.images)
    elif isinstance(init, np.ndarray):
        if init.ndim == 4:
            said["init"] = init.shape[0]
    elif init is not None:
        said["init"] = _params_count(init, parameterization)
    if len(set(said.values())) > 1:
        parts = ", ".join(f"{name} {number}" for name, number in said.items())
        raise InputError(f"the arguments want different numbers of images: {parts}")
    return next(iter(said.values()), 1)


def _as_init(init: Any, parameterization: Parameterization) -> Any:
    """Images as an array, (h, w, c) or (n, h, w, c); None and parameters as they are."""
    if init is None or isinstance(init, (Mapping, Result, _Pictures)):
        return init
    size, channels = parameterization.size, parameterization.channels
    array = image_array(init, channels, size, what="init")
    if array.shape[-3:] != parameterization.shape:
        raise InputError(
            f"init has shape {array.shape}; expected an image {parameterization.shape} "
            f"or several, (n, *{parameterization.shape})"
        )
    return array


def _params_count(init: Any, parameterization: Parameterization) -> int:
    wanted = jax.eval_shape(parameterization.init, jax.random.key(0))
    given_leaves, given = jax.tree.flatten(init)
    leaves, structure = jax.tree.flatten(wanted)
    same_structure: bool = given == structure  # type: ignore[operator]
    same = same_structure and all(
        np.shape(g)[1:] == w.shape for g, w in zip(given_leaves, leaves, strict=True)
    )
    if not same:
        shapes = jax.tree.map(np.shape, init)
        raise InputError(
            f"init does not hold parameters of {parameterization}: got {shapes}, expected "
            f"{jax.tree.map(lambda w: ('n', *w.shape), wanted)}"
        )
    counts = {np.shape(g)[0] for g in given_leaves}
    if len(counts) != 1:
        raise InputError(f"init holds parameters of different numbers of images: {sorted(counts)}")
    return counts.pop()


def _check_fit(
    model: Model,
    objective: Objective,
    parameterization: Parameterization,
    transform: Transform,
    count: int,
) -> tuple[tuple[int, ...], bool]:
    """Dry run: shapes through the transform and the model, the objective's own checks, gradients.

    Returns:
        The shape of what the model sees, (n, h, w, c), and whether the objective has a gradient
        only once what it does not read is left out.
    """
    model.check_image_shape(*parameterization.shape)
    image = jax.ShapeDtypeStruct((count, *parameterization.shape), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
    seen = jax.eval_shape(jax.vmap(transform.at(0)), keys, image)
    model.check_image_shape(*seen.shape[1:])
    looked_at = objective
    for shape in {image.shape, seen.shape}:
        acts = jax.eval_shape(model.apply, model.params, jax.ShapeDtypeStruct(shape, jnp.float32))

        def see(images: Any, places: Any, acts: Any = acts) -> Any:
            if images.shape[1:] != image.shape[1:]:
                raise ObjectiveError(
                    f"the pictures are {image.shape[1:]}; the objective compares them with images "
                    f"of {tuple(images.shape[1:])}"
                )
            rows = len(images) if places is None else len(places)
            return {
                k: np.broadcast_to(np.float32(1), (rows, *a.shape[1:])) for k, a in acts.items()
            }

        beside = objective.seen(see)
        fitting = objective if shape == image.shape else beside
        fitting.check(acts, image.shape)
        if shape == tuple(seen.shape):
            looked_at = fitting
    check_transform(transform, parameterization.shape)
    check_parameterization(parameterization)
    prune = check_gradient(model.apply, model.params, looked_at, image.shape, seen.shape)
    return tuple(seen.shape), prune


def _check_optimizer(
    optimizer: str | optax.GradientTransformation, parameterization: Parameterization
) -> int:
    """Dry run of one update: what an optimizer needs and does not get is said before compiling.

    Returns:
        Bytes of one image's parameters and of the optimizer's state.
    """
    transformation = components.optimizer(optimizer)
    try:
        params = jax.eval_shape(parameterization.init, jax.random.key(0))
    except OverflowError as error:
        raise TooLargeError(
            f"{parameterization} has more parameters than any memory holds"
        ) from error

    def once(params: Any) -> Any:
        state = transformation.init(params)
        updates = transformation.update(params, state, params, value=jnp.float32(0), grad=params)
        return state, updates

    try:
        state, _ = jax.eval_shape(once, params)
    # Whatever the arguments of a text make a transformation raise.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the optimizer {optimizer if isinstance(optimizer, str) else ''} cannot take a step "
            f"with a gradient, a value and parameters: {reason}"
        ) from error
    leaves = jax.tree.leaves((params, state))
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in leaves)


def snapshot_steps(snapshots: int | Sequence[int], steps: int) -> tuple[int, ...]:
    """The steps after which images are kept, in order: a number of them spread evenly, or theirs.

    Raises:
        InputError: more than there are steps, or others than 1 to `steps`.
    """
    if isinstance(snapshots, (int, np.integer)):
        if isinstance(snapshots, bool) or not 0 <= snapshots <= steps:
            raise InputError(f"snapshots must be 0 to {steps} (the steps); got {snapshots}")
        return tuple(sorted({round(s) for s in np.linspace(0, steps, snapshots + 1)[1:]}))
    if not isinstance(snapshots, (list, tuple, range, np.ndarray)):
        raise InputError(f"snapshots must be a number of them or their steps; got {snapshots!r}")
    wrong = [s for s in snapshots if not (isinstance(s, (int, np.integer)) and 1 <= s <= steps)]
    if wrong:
        raise InputError(f"snapshots are steps from 1 to {steps}; got {wrong[0]!r}")
    return tuple(sorted({int(s) for s in snapshots}))


class _Pictures(NamedTuple):
    """What a run goes on from."""

    images: np.ndarray  # (n, h, w, c) of any height and width


def _pictures_of(result: Result, parameterization: Parameterization) -> Any:
    """What a run starts from that goes on from a result: its parameters, or its images."""
    if last_run(result.manifest)["parameterization"] == repr(parameterization):
        return result.params
    if result.images.shape[-1] != parameterization.channels:
        raise InputError(
            f"the result to go on from has images of {result.images.shape[-1]} channels; "
            f"{parameterization} has {parameterization.channels}"
        )
    return _Pictures(result.images)


def _resized(init: Any, parameterization: Parameterization) -> Any:
    """Images of the parameterization's size, where pictures of any are given."""
    if not isinstance(init, _Pictures):
        return init
    shape = (len(init.images), *parameterization.shape)
    return np.clip(jax.image.resize(init.images, shape, "cubic"), 0, 1)


def _initial(init: Any, parameterization: Parameterization, count: int) -> tuple[Any, str]:
    if init is None:
        return None, "random"
    if isinstance(init, _Pictures):
        return jnp.asarray(init.images, jnp.float32), "picture"
    if isinstance(init, np.ndarray):
        image = jnp.asarray(init, jnp.float32)
        return jnp.broadcast_to(image, (count, *parameterization.shape)), "image"
    return jax.tree.map(jnp.asarray, init), "params"


def _as_arrays(objective: Objective) -> Objective:
    """Leaves as arrays of 32 bits: a Python number and an array would be two compiled programs."""
    kinds = {"b": jnp.bool_, "i": jnp.int32, "u": jnp.int32, "f": jnp.float32}

    def convert(value: Any) -> jax.Array:
        return jnp.asarray(value, kinds[np.asarray(value).dtype.kind])

    return jax.tree.map(convert, objective)


# ---- progress, interrupts, failures --------------------------------------------------------


def _bar(steps: int, progress: bool) -> Any:
    from tqdm import tqdm

    # None: shown on a terminal only.
    return tqdm(total=steps, disable=None if progress else True, leave=False, unit="step")


@contextmanager
def _interruptible() -> Iterator[Any]:
    """Makes the first Ctrl-C a flag that is read between chunks; the second one raises."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # Somebody else handles interrupts (a notebook, a server); they know better.
        yield pressed.is_set
        return

    def press(number: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _again(state: _State) -> _State:
    """The state with all images going on, those that had ended too."""
    return state._replace(finite=jnp.ones_like(state.finite), since=jnp.zeros_like(state.since))


def _of_steps_taken(rows: Any, before: _State, after: _State) -> np.ndarray:
    """The scores (chunk, n) of steps between two states, NaN where an image took none."""
    # One that has stopped takes no step again.
    taken = np.asarray(after.taken) - np.asarray(before.taken)
    own = np.arange(len(rows))[:, None] < taken
    return np.where(own, np.asarray(rows), np.float32(np.nan))


def _gave_gradients(program: _Program, rows: Any, alive: Any, dead: Any) -> np.ndarray:
    """Whether the network gave each image a gradient of its own in the steps taken, (n,)."""
    own = np.asarray(alive) & ~np.isnan(np.asarray(rows))
    if program.redirect:
        own &= ~np.asarray(dead)
    found: np.ndarray = own.any(axis=0)
    return found


def _silent(
    program: _Program,
    model: Model,
    objective: Objective,
    first: _State,
    last: _State,
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
        start = np.asarray(_decode(program.parameterization, first.params))
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


def _failure(
    program: _Program,
    model: Model,
    objective: Objective,
    keys: jax.Array,
    state: _State,
    dead: jax.Array,
    image: int,
) -> str:
    """Which step of an image and which term of the objective went wrong, in one line."""
    step = int(state.taken[image])
    if bool(jnp.any(dead)) and step < _REDIRECTED_STEPS:
        program = program._replace(redirect=True)
    # Without an optimizer: what is not finite then is the term's score or gradient.
    still = components.optimizer("sgd(0.0)")
    program = program._replace(optimizer="sgd(0.0)")
    again = _again(state)._replace(
        step=jnp.int32(step), optimizer=jax.vmap(still.init)(state.params)
    )

    def goes_wrong(objective: Objective) -> bool:
        # A term is a program of its own: compiled here only, where time does not matter.
        limit = jnp.int32(_FOREVER)
        leaves, stop = _as_arrays(objective), jnp.int32(step + 1)
        after, _, _ = _advance(program, model.params, leaves, keys, again, dead, stop, limit)
        return not bool(after.finite[image])

    wrong = [term for term in objective.terms if goes_wrong(term)]
    if wrong:
        culprit = f"the term {wrong[0]!r}"
    elif goes_wrong(objective):
        culprit = "the sum of the terms, each finite alone"
    else:
        culprit = "the optimizer's update"
    return f"NaN or infinity at step {step} of image {image}: {culprit}"


# ---- many objectives -----------------------------------------------------------------------


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
    model = models.load(model) if isinstance(model, str) else model
    parsed = [as_objective(objective, model) for objective in objectives]
    parameterization = _as_parameterization(parameterization, model)
    _positive("batch_limit", batch_limit)
    if not isinstance(seed, (int, np.integer)):
        raise InputError(f"seed must be one integer for all objectives; got {seed!r}")
    if isinstance(options.get("init"), Result):
        raise InputError("init is an image or parameters here; synthesize goes on from a result")
    transform = components.transform(
        options.get("transform", DEFAULT_TRANSFORM), parameterization.size
    )
    init = options["init"] = _as_init(options.get("init"), parameterization)
    steps, draws = options.get("steps", 512), options.get("draws", 1)
    _positive("steps", steps)
    _positive("draws", draws)
    marks = snapshot_steps(options.get("snapshots", ()), steps)
    state = _check_optimizer(options.get("optimizer", DEFAULT_OPTIMIZER), parameterization)
    transform = transform.over(int(steps))
    groups: dict[Any, list[int]] = {}
    for place, objective in enumerate(parsed):
        count = _batch_size(objective, seed, options.get("batch"), init, parameterization)
        memory.check_pictures(parameterization, count, steps=steps, snapshots=len(marks))
        _check_fit(model, objective, parameterization, transform, count)
        key = signature(objective) if count == 1 else place
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
