"""Several objectives as one batch, and parts of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from objectives.comparisons import Comparison
from objectives.errors import ObjectiveError
from objectives.fields import canonical, image_count, leaf_value
from objectives.objective import (
    Constant,
    Objective,
    OnImages,
    Product,
    Scaled,
    Sum,
    holds_objectives,
    is_objective,
    split_fields,
)
from objectives.priors import Prior


def leaf_fields(objective: Objective) -> Iterator[dataclasses.Field[Any] | None]:
    """The field of every leaf, in the order of `jax.tree.leaves`; None for a leaf undeclared."""
    data, _ = split_fields(type(objective))
    fields = {f.name: f for f in dataclasses.fields(objective)}  # type: ignore[arg-type]
    for name in data:
        value = getattr(objective, name)
        if is_objective(value):
            yield from leaf_fields(value)
        elif holds_objectives(value):
            for child in value:
                yield from leaf_fields(child)
        else:
            field = fields[name] if fields[name].metadata.get("leaf") else None
            yield from (field for _ in jax.tree_util.tree_leaves(value))


def reads_the_batch(objective: Objective) -> bool:
    """Whether an image's score depends on the other images of the batch, or on its place."""
    return any(o.couples_images or isinstance(o, OnImages) for o in objective.walk())


def stack_key(objective: Objective) -> tuple[Any, ...]:
    """Equal where `stack` puts an `objective` in one batch, and so in one compiled program.

    One that looks at the whole batch does not stack: each has a signature of its own.
    """
    leaves, treedef = jax.tree_util.tree_flatten(objective)
    parts: list[Any] = [treedef]
    for value, field in zip(leaves, leaf_fields(objective), strict=True):
        if field is None:
            parts.append((np.shape(value), leaf_value(value).tobytes()))
        else:
            parts.append(_image_shape(field, value))
    if reads_the_batch(objective):
        parts.append(object())
    return tuple(parts)


def _image_shape(field: dataclasses.Field[Any], value: Any) -> tuple[int, ...]:
    """The shape of one image's value of a leaf."""
    ndim, shape = field.metadata["ndim"], np.shape(value)
    return shape[1:] if ndim is None else shape[len(shape) - ndim :]


def slice_images(objective: Objective, start: jax.Array | int, count: int) -> Objective:
    """The objective of `count` images from the position `start` on; that of all where it is shared.

    Args:
        objective: whose images do not depend on each other: see `separable`.
        start: a position in the batch, which may be traced.
        count: of images.
    """

    def part(value: Any, field: dataclasses.Field[Any]) -> Any:
        return jax.lax.dynamic_slice_in_dim(jnp.asarray(value), start, count)

    return _of_images(objective, part)


def alone(objective: Objective, place: int | Sequence[int]) -> Objective:
    """The objective of one image of a batch, or of some, as one writes it: `stack` undone.

    `alone(Channel("block8", [3, 7]), 1)` is `Channel("block8", 7)`.

    Args:
        objective: whose images do not depend on each other: see `separable`.
        place: of the image in the batch, or places of several.
    """

    def part(value: Any, field: dataclasses.Field[Any]) -> Any:
        one = isinstance(place, (int, np.integer))
        own = np.asarray(value)[place if one else list(place)]  # type: ignore[arg-type]
        whole = own[None] if one and field.metadata["ndim"] is None else own
        return canonical(field.name, whole)

    return _of_images(objective, part)


def _of_images(
    objective: Objective, part: Callable[[Any, dataclasses.Field[Any]], Any]
) -> Objective:
    """The objective with a part of each leaf that has a value an image, and all of the others."""
    leaves, structure = jax.tree_util.tree_flatten(objective)
    parts = [
        value if field is None or image_count(field, value) is None else part(value, field)
        for value, field in zip(leaves, leaf_fields(objective), strict=True)
    ]
    made: Objective = jax.tree_util.tree_unflatten(structure, parts)
    return made


def separable(objective: Objective) -> bool:
    """Whether each image's score depends on that image alone, wherever it is in the batch.

    An `objective` with arrays that are not declared (`leaf`) is not: they may be one an image.
    """
    leaves = jax.tree_util.tree_leaves(objective)
    undeclared = (
        field is None and np.ndim(value) > 0
        for value, field in zip(leaves, leaf_fields(objective), strict=True)
    )
    return not reads_the_batch(objective) and not any(undeclared)


def stack(objectives: Sequence[Objective]) -> Objective:
    """Stack objectives of one kind: one objective with an image for each.

    `stack([Channel("block8", 3), Channel("block8", 7)])` is `Channel("block8", [3, 7])`; an
    objective that has several images already keeps them.

    Args:
        objectives: at least one; of the same structure, layers and options.

    Raises:
        ObjectiveError: none given, of different kinds, or several that look at the whole batch.
    """
    if not objectives:
        raise ObjectiveError("stack needs at least one objective")
    first = objectives[0]
    if len(objectives) == 1:
        return first
    for other in objectives:
        if reads_the_batch(other):
            raise ObjectiveError(f"{other!r} looks at the whole batch and cannot be stacked")
        if stack_key(other) != stack_key(first):
            raise ObjectiveError(f"only objectives of one kind stack; got {first!r} and {other!r}")
    counts = [objective.batch_size or 1 for objective in objectives]
    columns = zip(*(jax.tree_util.tree_leaves(o) for o in objectives), strict=True)
    stacked = []
    for values, field in zip(columns, leaf_fields(first), strict=True):
        if field is None:
            stacked.append(values[0])
            continue
        shape = _image_shape(field, values[0])
        rows = [np.broadcast_to(v, (n, *shape)) for v, n in zip(values, counts, strict=True)]
        stacked.append(canonical(field.name, np.concatenate(rows)))
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(first), stacked)


def units_of(objective: Objective) -> Objective | None:
    """The part of an `objective` that reads the activations of one image; None if there is none.

    Image priors, constants, comparisons among the images of a batch, and those with images that are
    seen beside it are left out.
    """
    if isinstance(objective, (Prior, Constant)) or objective.couples_images:
        return None
    if isinstance(objective, Comparison) and getattr(objective, "images", None) is not None:
        return None
    if isinstance(objective, Scaled):
        inner = units_of(objective.objective)
        return None if inner is None else Scaled(objective.weight, inner)
    if isinstance(objective, (Sum, Product)):
        kept = [units for units in map(units_of, objective.objectives) if units is not None]
        return type(objective)(tuple(kept)) if len(kept) > 1 else next(iter(kept), None)
    if objective.children and all(units_of(child) is None for child in objective.children):
        return None  # a bound on a prior
    return objective
