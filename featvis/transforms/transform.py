"""Random transforms of one image, drawn from a key: what makes a picture robust.

Each transform is a frozen dataclass called as `transform(key, image)` on ONE image (h, w, c) and
returns an image of a size that depends on the fields and the input's size alone. `vmap` it with
one key an image. All have a gradient by the image (in reverse mode, once), and none clips: an image
in [0, 1] stays in it except under `Noise` and `ColorShift`.

A number that a transform draws with may be a `Schedule` over the steps of a run, where its field
says so: `Noise(LinearSchedule(0.1, 0.0))`. `transform.at(step)` is the transform at a step.

Where a transform looks outside the picture, `border` says what it finds there: `"edge"` the
nearest pixel of the border, `"reflect"` the picture mirrored about the centres of its border
pixels, `"constant"` the intensity `value`. Where an edge goes on, the outermost pixels stand for
all that is seen beyond them, as stripes, and a frame of one pixel is drawn around the picture: a
mirror draws none.

Geometry is resampled bilinearly in one gather a channel, from indices that are made once for all.
With its gradient, inside a compiled loop on two CPU cores, an affine map of 224x224x3 pixels takes
0.7 ms where nothing or a constant is outside, as its gradient is a gather too. Past an edge that
goes on, or a mirror, the gradient is a scatter: its order is fixed on a CPU, and on a GPU only with
`XLA_FLAGS=--xla_gpu_deterministic_ops=true`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, dataclass_transform

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.errors import InputError
from featvis.kernels.resampling import Shape
from featvis.transforms.schedules import Schedule


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True, repr=False)
class Transform(ABC):
    """A random, differentiable map of one image to one image, of static output shape.

    A subclass is a frozen dataclass without saying so: fields, and `__call__(key, image)`, which
    gets one image (h, w, c) after its shape was checked, with numbers in the place of schedules.

    Raises:
        InputError: at construction, for a field out of its range; at a call, for an image that is
            not (height, width, channels) or is too small.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            cls.__call__ = _checked(cls.__call__)  # type: ignore[method-assign]
        dataclass(frozen=True, repr=False)(cls)

    def __repr__(self) -> str:
        return checks.text_of(self)

    @abstractmethod
    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`; see `output_shape`."""

    def schedules(self) -> tuple[Schedule, ...]:
        """All schedules in the fields, those of the transforms in it too."""
        found: list[Schedule] = []

        def keep(schedule: Schedule) -> Schedule:
            found.append(schedule)
            return schedule

        _with_schedules(self, keep)
        return tuple(found)

    def over(self, steps: int) -> Self:
        """Return the transform of a run of so many steps, which schedules may depend on."""
        return _with_schedules(self, lambda one: one.over(steps))

    def at(self, step: jax.Array | int) -> Self:
        """Return the transform at a step, counted from 0: each schedule's number in its place.

        Those are arrays, so that one program serves all steps.

        Raises:
            InputError: a schedule over the steps of the run, and `over` has not said how many.
        """
        return _with_schedules(self, lambda one: one.at(step))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for an input (h, w, c) of this shape.

        Raises:
            InputError: if the input is too small for the transform.
        """
        return shape


@functools.lru_cache(maxsize=64)
def traced(transform: Transform, shape: Shape) -> tuple[Any, Shape]:
    """A transform's program at the first step of a run, traced once and never run.

    Args:
        transform: over the steps of a run.
        shape: of an image, (h, w, c).

    Returns:
        Its jaxpr, whose last argument is the image, and the shape of what it gives.
    """
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    program, seen = jax.make_jaxpr(transform.at(0), return_shape=True)(key, image)
    return program.jaxpr, tuple(seen.shape)


def _checked(call: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """What transforms an image, after a look at the image and at the fields."""

    @functools.wraps(call)
    def checked(self: Transform, key: jax.Array, image: jax.Array) -> jax.Array:
        if image.ndim != 3:
            raise InputError(
                f"{type(self).__name__}: one image (height, width, channels) is expected, not an"
                f" array of shape {image.shape}; use jax.vmap for a batch"
            )
        for schedule in self.schedules():
            raise InputError(
                f"{type(self).__name__}: {schedule} has a number for each step;"
                " transform.over(steps).at(step) is the transform at one"
            )
        self.output_shape(image.shape)
        return call(self, key, image)

    return checked


def _with_schedules(value: Any, change: Callable[[Schedule], Any]) -> Any:
    """A transform, or a field of one, with `change` of each schedule in it in its place."""
    if isinstance(value, Schedule):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_with_schedules(one, change) for one in value)
    if not isinstance(value, Transform):
        return value
    changed = copy.copy(value)
    for field in dataclasses.fields(value):
        # Not checked again: at a step it is an array.
        new = _with_schedules(getattr(value, field.name), change)
        checks.set_fields(changed, **{field.name: new})
    return changed


class Compose(Transform):
    """Several transforms one after the other, each with a key of its own.

    Args:
        transforms: the transforms in the order they are applied; none at all is the identity.

    Raises:
        InputError: at construction, if an element is not a Transform.
    """

    transforms: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        """Check that every element is a transform."""
        if not isinstance(self.transforms, (tuple, list)):
            raise checks.error(self, "transforms", "a tuple of transforms", self.transforms)
        for transform in self.transforms:
            if not isinstance(transform, Transform):
                raise checks.error(self, "transforms", "a tuple of transforms", transform)
        checks.set_fields(self, transforms=tuple(self.transforms))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the last transform's output shape for an input (h, w, c) of this shape."""
        for transform in self.transforms:
            shape = transform.output_shape(shape)
        return shape

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        if not self.transforms:
            return image
        keys = jax.random.split(key, len(self.transforms))
        for transform, subkey in zip(self.transforms, keys, strict=True):
            image = transform(subkey, image)
        return image


def uniform(key: jax.Array, bounds: tuple[float, float], shape: tuple[int, ...] = ()) -> jax.Array:
    """Uniform float32 numbers within `bounds`."""
    return jax.random.uniform(key, shape, jnp.float32, bounds[0], bounds[1])
