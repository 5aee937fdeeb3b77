"""The compiled step and its loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from featvis import kernels
from featvis import text as components
from featvis.jaxprs.liveness import pruned
from featvis.jaxprs.redirection import redirected
from featvis.optimizers import IMAGES
from featvis.parameterizations import Parameterization
from featvis.transforms import Transform
from featvis.transforms.transform import traced
from objectives import Activations, Objective, slice_images

#: Steps in one call of the compiled program at most: the length of its score buffer.
CHUNK = 64

#: Steps at which dead rectifiers are looked for and redirected, as in lucid.
REDIRECTED_STEPS = 16

#: Folded into the key of an image and a step for what its optimizer draws: beyond what a transform
#: splits that key into.
_OPTIMIZERS = 2**31 - 1
#: Likewise, for what its parameterization draws at a step.
_PARAMETERIZATIONS = 2**31 - 2
#: More steps than there are.
FOREVER = np.iinfo(np.int32).max

#: Draws of the transform over which the final transformed score is averaged.
_DRAWS = 8


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameterization"],
    meta_fields=[
        "apply", "transform", "optimizer", "draws", "at_a_time", "redirect", "prune",
    ],
)  # fmt: skip
@dataclass(frozen=True)
class Program:
    """What is compiled; the data of the parameterization are its arguments, all else is fixed."""

    apply: Any
    parameterization: Parameterization
    transform: Transform
    optimizer: str | optax.GradientTransformation
    draws: int = 1
    at_a_time: int | None = None  # images that go through the network together; None: all
    redirect: bool = False
    prune: bool = False  # whether what the objective does not read has no gradient


class State(NamedTuple):
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


def image_keys(seed: int | Sequence[int], count: int) -> jax.Array:
    """One key an image, (count,): from its place under one seed, or from its own seed."""
    if isinstance(seed, (int, np.integer)):
        places = jnp.arange(count)
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), places)
    keys = [jax.random.fold_in(jax.random.key(one), 0) for one in seed]
    return jnp.stack(keys)


def run_keys(keys: jax.Array, before: int | None) -> jax.Array:
    """Keys of a run's own: the first run's, and others for each that goes on from so many."""
    if before is None:
        return keys
    # 0 to 2 are the purposes below.
    return jax.vmap(jax.random.fold_in, (0, None))(keys, 2 + before)


def purpose_key(key: jax.Array, purpose: int) -> jax.Array:
    """A key for each use: 0 the first parameters, 1 the steps, 2 the final evaluation."""
    return jax.random.fold_in(key, purpose)


@functools.partial(kernels.compiled, static=("optimizer", "kind"))
def start_state(
    parameterization: Parameterization,
    optimizer: str | optax.GradientTransformation,
    keys: jax.Array,
    init: Any,
    kind: str,
) -> State:
    """The state before the first step."""
    if kind == "params":
        params = init
    elif kind == "image":
        params = jax.vmap(parameterization.encode)(init)
    elif kind == "picture":
        params = jax.vmap(lambda key, one: parameterization.resume(purpose_key(key, 0), one))(
            keys, init
        )
    else:
        params = jax.vmap(lambda key: parameterization.init(purpose_key(key, 0)))(keys)
    params = jax.vmap(parameterization.project)(params)
    for name in parameterization.shared:
        params = {**params, name: jnp.broadcast_to(params[name][:1], params[name].shape)}
    count = keys.shape[0]
    # The lowest number rather than an infinity, which JAX may have been asked to look for.
    nothing = jnp.full(count, jnp.finfo(jnp.float32).min, jnp.float32)
    return State(
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
    program: Program, function: Callable[..., Any], objective: Objective, *images: Any
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
        return function(slice_images(objective, start, size), *some)

    out = jax.lax.map(part, jnp.arange(0, count, size))
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), out)


def _scores(
    program: Program,
    weights: Any,
    objective: Objective,
    keys: jax.Array,
    step: jax.Array,
    dead: jax.Array,
    seen: Any,
    image: Any,
    clean: jax.Array | bool = False,
) -> jax.Array:
    """Scores (n,) of images at a step; `seen` is what the model gets and the priors do not.

    `clean` says whether the transform is left out, of one that keeps the images' size.
    """
    apply = redirected(program.apply, dead) if program.redirect else program.apply
    drawn = jax.vmap(program.transform.at(step))

    def transform(keys: jax.Array, images: jax.Array) -> jax.Array:
        if clean is False:
            return drawn(keys, images)
        return jax.lax.cond(clean, lambda keys, images: images, drawn, keys, images)

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
    return jax.tree.map(lambda value: value / int(draws), total)


def _gradients(
    program: Program,
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


def _shown(
    parameterization: Parameterization, keys: jax.Array, params: Any
) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """Images (n, h, w, c) as they are at a step, of its keys, and their gradient's way back."""
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, _PARAMETERIZATIONS)
    found: tuple[jax.Array, Callable[[jax.Array], Any]] = jax.vjp(
        lambda params: jax.vmap(parameterization.shown)(own, params), params
    )
    return found


@kernels.compiled
def program_gradient_sizes(
    program: Program, weights: Any, objective: Objective, keys: jax.Array, params: Any
) -> jax.Array:
    """Σ|∇| of each image's score by its parameters, (n,), under the draws of the first step."""
    first = jax.vmap(lambda key: jax.random.fold_in(purpose_key(key, 1), 0))(keys)
    image, decode_vjp = _shown(program.parameterization, first, params)
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


@kernels.compiled
def take_steps(
    program: Program,
    weights: Any,
    objective: Objective,
    keys: jax.Array,
    state: State,
    dead: jax.Array,
    stop: jax.Array,
    patience: jax.Array,
) -> tuple[State, jax.Array, jax.Array]:
    """Steps from `state` to `stop`, fewer when no image goes on.

    An image stops at its own plateau or NaN, whatever the others do.

    Returns:
        The state; scores (chunk, n), 0 for steps not taken; and whether the network gave each
        image a gradient, (chunk, n), True for steps not taken.
    """
    parameterization = program.parameterization
    optimizer = components.optimizer(program.optimizer)
    start, count = state.step, keys.shape[0]
    step_keys = jax.vmap(lambda key: purpose_key(key, 1))(keys)

    def active(now: State) -> jax.Array:
        return now.finite & (now.since < patience)

    def going(carry: tuple[State, jax.Array, jax.Array]) -> jax.Array:
        return (carry[0].step < stop) & jnp.any(active(carry[0]))

    def step(carry: tuple[State, jax.Array, jax.Array]) -> tuple[State, jax.Array, jax.Array]:
        now, rows, alive = carry
        drawn = jax.vmap(jax.random.fold_in, (0, None))(step_keys, now.step)
        image, decode_vjp = _shown(parameterization, drawn, now.params)

        (by_network, by_prior), scores = _gradients(
            program, weights, objective, drawn, now.step, dead, image
        )
        (gradient,) = decode_vjp(by_network + by_prior)
        drawn_by = jax.vmap(parameterization.pull)(now.params)
        gradient = {**gradient, **{name: gradient[name] + drawn_by[name] for name in drawn_by}}

        def update(
            gradient: Any, moments: Any, params: Any, score: jax.Array, key: jax.Array
        ) -> tuple[Any, Any]:
            whole = {name: _over_images(gradient[name]) for name in parameterization.shared}
            descent = jax.tree.map(jnp.negative, {**gradient, **whole})
            updates, moments = optimizer.update(
                descent, moments, params, value=-score, grad=descent, key=key
            )
            still = {name: jnp.zeros_like(updates[name]) for name in parameterization.held}
            updates = {**updates, **still}
            return parameterization.project(optax.apply_updates(params, updates)), moments

        own = jax.vmap(jax.random.fold_in, (0, None))(drawn, _OPTIMIZERS)
        params, moments = jax.vmap(update, axis_name=IMAGES)(
            gradient, now.optimizer, now.params, scores, own
        )
        # A step that goes wrong is not taken: what was there before it is kept.
        finite = jnp.isfinite(scores) & _finite(gradient) & _finite(params)
        average = jnp.where(now.step == 0, scores, 0.9 * now.average + 0.1 * scores)
        better = average > now.best
        new = State(
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
        chosen = State(
            new.step, *(jax.tree.map(pick, a, b) for a, b in zip(new[1:], now[1:], strict=True))
        )
        row = now.step - start
        rows = rows.at[row].set(jnp.where(stepping & finite, scores, 0))
        living = jnp.any(by_network != 0, axis=(1, 2, 3))
        alive = alive.at[row].set(living | ~(stepping & finite))
        finite = jnp.where(stepping, finite, now.finite)
        return chosen._replace(finite=finite), rows, alive

    rows = jnp.zeros((CHUNK, count), jnp.float32)
    return jax.lax.while_loop(going, step, (state, rows, jnp.ones((CHUNK, count), bool)))


def _over_images(gradient: jax.Array) -> jax.Array:
    """The sum over the batch of a gradient by what its images share, of those that are finite."""
    return jax.lax.psum(jnp.where(jnp.all(jnp.isfinite(gradient)), gradient, 0), IMAGES)


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


@jax.jit
def decode_images(parameterization: Parameterization, params: Any) -> jax.Array:
    """Images (n, h, w, c): snapshots and the final picture by the same program, to the bit."""
    return jax.vmap(parameterization.decode)(params)


@kernels.compiled
def evaluate_images(
    program: Program,
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
        drawn = jax.vmap(lambda key: jax.random.split(purpose_key(key, 2), _DRAWS), out_axes=1)(
            keys
        )
        nobody = jnp.zeros(len(images), bool)

        def of_draw(keys: jax.Array, clean: jax.Array | bool = False) -> jax.Array:
            return _scores(program, weights, objective, keys, step, nobody, images, images, clean)

        if traced(program.transform, images.shape[1:])[1] != images.shape[1:]:
            clean = objective(Activations(program.apply(weights, images)), images)
            return clean, jnp.mean(jax.lax.map(of_draw, drawn), axis=0)
        # The clean images are one draw more: the network is traced and compiled once.
        number = jnp.arange(1 + _DRAWS)
        keys = jnp.concatenate([keys[None], drawn])
        by_draw = jax.lax.map(lambda one: of_draw(*one), (keys, number == 0))
        return by_draw[0], jnp.mean(by_draw[1:], axis=0)

    return _by_parts(program, scores, objective, keys, images)
