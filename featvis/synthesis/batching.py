"""How many images of a run go through a network together.

Images that are optimised together need not be in memory together: each has its own gradient. On a
CPU fewer at a time are faster, as long as their activations fit the caches and the weights are not
read anew for too few of them. On an accelerator as many as its memory takes are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import kernels
from featvis.dry_runs import once_a_kind
from featvis.jaxprs.liveness import alive, variables
from featvis.models import Model
from objectives import Activations, Objective, separable, slice_images

#: Bytes of activations below which a pass is too short to be worth its start, on a CPU. Measured
#: on EfficientNet-Lite0, two cores: block2 at 224x224 takes 1.7 ms an image alone and 3.4 among 16.
_LEAST = 6 * 2**20

#: Activations to one of weights, from which on reading the weights does not matter.
_ACTIVATIONS_PER_WEIGHT = 4

#: The same of a program that runs the network once. Its memory is taken anew at each call, and
#: what is above 32 MB of it the system clears first: 4 images of EfficientNet-Lite0 at 224x224
#: take 22 ms an image forward, of which 5.5 are that, and 2 together 18 ms an image.
_OF_ONE_PASS = 2

#: Of an accelerator's memory, for activations; each is held about three times over (its gradient,
#: and what is between two layers).
_SHARE = 0.8 / 3


def images_at_a_time(
    model: Model,
    objective: Objective,
    shape: Sequence[int],
    seen: Sequence[int],
    *,
    once: bool = False,
) -> int | None:
    """How many images to send through the network together: a divisor of their number, or None.

    Args:
        model: the network.
        objective: what is maximised; one that couples images needs them all.
        shape: of the images, (n, h, w, c).
        seen: the shape of what the network sees of them.
        once: whether a program runs the network once, and not in a loop.

    Returns:
        None for all of them.
    """
    count = shape[0]
    if count == 1 or not separable(objective):
        return None
    try:
        activations, weights = footprint(model, objective, shape[1:], seen[1:])
    except (TypeError, ValueError):
        return None  # A network that one image alone does not go through.
    divisors = [size for size in range(1, count) if count % size == 0]
    if kernels.on_cpu():
        wanted = _LEAST + (_OF_ONE_PASS if once else _ACTIVATIONS_PER_WEIGHT) * weights
        return next((size for size in divisors if size * activations >= wanted), None)
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)
    if count * activations <= _SHARE * limit:
        return None
    fitting = [size for size in divisors if size * activations <= _SHARE * limit]
    return fitting[-1] if fitting else 1


def probes_at_a_time(model: Model, objective: Objective, shape: Sequence[int]) -> int:
    """How many variations of one image go through the network together best, at least 1.

    Args:
        model: the network.
        objective: what is asked for of each.
        shape: of the image, (h, w, c).
    """
    activations, weights = footprint(model, objective, shape, shape)
    # A small network has less to hold than the images themselves.
    activations = max(activations, 4 * math.prod(shape))
    if kernels.on_cpu():
        return max(1, math.ceil((_LEAST + _ACTIVATIONS_PER_WEIGHT * weights) / activations))
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 2**30)
    return int(max(1, _SHARE * limit // activations))


def footprint(
    model: Model, objective: Objective, shape: Sequence[int], seen: Sequence[int]
) -> tuple[int, int]:
    """Bytes of one image's named layers, and of the weights, that an objective depends on.

    Args:
        model: the network.
        objective: reads some of its layers.
        shape: of an image, (h, w, c).
        seen: the shape of what the network sees of it.
    """
    given = model.params, slice_images(objective, 0, 1)
    return _footprint(given, model.apply, tuple(shape), tuple(seen))


@once_a_kind
def _footprint(
    given: tuple[Any, Objective], apply: Any, shape: tuple[int, ...], seen: tuple[int, ...]
) -> tuple[int, int]:
    """`footprint` of all units of a layer, whatever their numbers."""
    params, alone = given
    image, seen_image = (jax.ShapeDtypeStruct((1, *one), np.float32) for one in (shape, seen))
    jaxpr = traced_scores.trace(apply, params, alone, image, seen_image).jaxpr.jaxpr
    parameters = jaxpr.invars[: len(jax.tree.leaves(params))]
    scores, *layers = jaxpr.outvars
    on_the_way = alive([scores], jaxpr)
    groups = (variables(layers), parameters)
    used = [{v for v in group if v in on_the_way} for group in groups]
    activations, weights = (sum(v.aval.size * v.aval.dtype.itemsize for v in one) for one in used)
    return activations, weights


@functools.partial(jax.jit, static_argnames="apply")
def traced_scores(
    apply: Any, params: Any, objective: Objective, image: jax.Array, seen: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """The scores, and all layers: to be traced, never run."""
    layers = apply(params, seen)

    def see(images: Any, places: Any) -> dict[str, jax.Array]:
        # Of its own images there is one layer at a time: they have no gradient.
        count = len(seen) if places is None else len(places)
        return {name: jnp.ones((count, *a.shape[1:]), a.dtype) for name, a in layers.items()}

    return objective.seen(see)(Activations(layers), image), list(layers.values())
