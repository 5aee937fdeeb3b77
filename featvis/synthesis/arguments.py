"""The arguments of a run, checked and brought into one form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from featvis import text as texts
from featvis.dry_runs import once_a_kind, shapes_of
from featvis.errors import InputError, TooLargeError
from featvis.gradients.differentiability import (
    check_gradient,
    check_parameterization,
    check_transform,
)
from featvis.images import image_array
from featvis.models import Model
from featvis.optimizers import IMAGES
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.results.run import check_positive
from featvis.transforms import Transform
from featvis.transforms.transform import traced
from objectives import Objective, ObjectiveError


def agreed_batch_size(
    objective: Objective,
    seed: int | Sequence[int],
    batch: int | None,
    init: Any,
    parameterization: Parameterization,
) -> int:
    """The number of images that all arguments agree on."""
    said: dict[str, int] = {}
    if batch is not None:
        check_positive("batch", batch)
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
    if isinstance(init, Pictures):
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


def as_init(init: Any, parameterization: Parameterization) -> Any:
    """Images as an array, (h, w, c) or (n, h, w, c); None and parameters as they are."""
    if init is None or isinstance(init, (Mapping, Result, Pictures)):
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
            f"init does not hold parameters of {type(parameterization).__name__}: got {shapes}, "
            f"expected {jax.tree.map(lambda w: ('n', *w.shape), wanted)}"
        )
    counts = {np.shape(g)[0] for g in given_leaves}
    if len(counts) != 1:
        raise InputError(f"init holds parameters of different numbers of images: {sorted(counts)}")
    return counts.pop()


def check_fit(
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
    seen = count, *traced(transform, parameterization.shape)[1]
    model.check_image_shape(*seen[1:])
    looked_at = objective
    for shape in {image.shape, seen}:
        acts = shapes_of(model.apply, model.params, jax.ShapeDtypeStruct(shape, jnp.float32))

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
        if shape == seen:
            looked_at = fitting
    check_transform(transform, parameterization.shape)
    check_parameterization(parameterization)
    prune = check_gradient(model.apply, model.params, looked_at, image.shape, seen)
    return seen, prune


def check_optimizer(
    optimizer: str | optax.GradientTransformation, parameterization: Parameterization
) -> int:
    """Dry run of one update: what an optimizer needs and does not get is said before compiling.

    Returns:
        Bytes of one image's parameters and of the optimizer's state.
    """
    try:
        return _optimizer_bytes(parameterization, optimizer)
    except OverflowError as error:
        raise TooLargeError(
            f"{parameterization} has more parameters than any memory holds"
        ) from error


@once_a_kind
def _optimizer_bytes(way: Parameterization, optimizer: str | optax.GradientTransformation) -> int:
    """`check_optimizer` for a parameterization, whatever its data are."""
    transformation = texts.optimizer(optimizer)
    params = jax.eval_shape(lambda way: way.init(jax.random.key(0)), way)

    def once(params: Any) -> Any:
        state = transformation.init(params)
        updates = transformation.update(
            params, state, params, value=jnp.float32(0), grad=params, key=jax.random.key(0)
        )
        return state, updates

    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), params)
    try:
        state, _ = jax.eval_shape(jax.vmap(once, axis_name=IMAGES), one)
    # Whatever the arguments of a text make a transformation raise.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the optimizer {optimizer if isinstance(optimizer, str) else ''} cannot take a step "
            f"with a gradient, a value and parameters: {reason}"
        ) from error
    leaves = jax.tree.leaves((params, state))
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in leaves)


def couples_images(
    optimizer: str | optax.GradientTransformation, parameterization: Parameterization
) -> bool:
    """Whether an image of a batch depends on the others by how it is written or updated."""
    if parameterization.shared:
        return True
    transformation = texts.optimizer(optimizer)
    params = jax.eval_shape(parameterization.init, jax.random.key(0))

    def once(params: Any) -> Any:
        state = transformation.init(params)
        more = {"value": jnp.float32(0), "grad": params, "key": jax.random.key(0)}
        return transformation.update(params, state, params, **more)

    try:
        jax.eval_shape(once, params)
    except NameError:  # it asks for the axis of the images, which is not there
        return True
    return False


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


class Pictures(NamedTuple):
    """What a run goes on from."""

    images: np.ndarray  # (n, h, w, c) of any height and width


def pictures_of(result: Result, parameterization: Parameterization) -> Any:
    """What a run starts from that goes on from a result: its parameters, or its images."""
    ways = [part.run.parameterization for part in result.joined or (result,)]
    if result.params is not None and all(way == parameterization for way in ways):
        return result.params
    if result.images.shape[-1] != parameterization.channels:
        raise InputError(
            f"the result to go on from has images of {result.images.shape[-1]} channels; "
            f"{parameterization} has {parameterization.channels}"
        )
    return Pictures(result.images)


def resized_init(init: Any, parameterization: Parameterization) -> Any:
    """Images of the parameterization's size, where pictures of any are given."""
    if not isinstance(init, Pictures):
        return init
    shape = (len(init.images), *parameterization.shape)
    return np.clip(jax.image.resize(init.images, shape, "cubic"), 0, 1)


def initial_params(init: Any, parameterization: Parameterization, count: int) -> tuple[Any, str]:
    """What the compiled start takes, and which kind of start it is."""
    if init is None:
        return None, "random"
    if isinstance(init, Pictures):
        return jnp.asarray(init.images, jnp.float32), "picture"
    if isinstance(init, np.ndarray):
        image = jnp.asarray(init, jnp.float32)
        return jnp.broadcast_to(image, (count, *parameterization.shape)), "image"
    return jax.tree.map(jnp.asarray, init), "params"


def as_arrays(objective: Objective) -> Objective:
    """Leaves as arrays of 32 bits: a Python number and an array would be two compiled programs."""
    kinds = {"b": jnp.bool_, "i": jnp.int32, "u": jnp.int32, "f": jnp.float32}

    def convert(value: Any) -> jax.Array:
        return jnp.asarray(value, kinds[np.asarray(value).dtype.kind])

    return jax.tree.map(convert, objective)
