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
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks, kernels, limits
from featvis.errors import InputError
from featvis.schedules import LinearSchedule, Schedule, Scheduled, number_or_schedule

#: Reach up to which the gradient of an affine map is gathered: (2·2 + 1)² reads a pixel.
_LARGEST_REACH = 2
#: Pixels that anything is moved or framed by, at most.
_FARTHEST = 2**14

BORDERS = ("edge", "reflect", "constant")
"""What a transform can find outside the picture."""

Shape = tuple[int, ...]
"""(height, width, channels)."""


@dataclass(frozen=True)
class Transform(ABC):
    """A random, differentiable map of one image to one image, of static output shape.

    Raises:
        InputError: at construction, for a field out of its range; at a call, for an image that is
            not (height, width, channels) or is too small.
    """

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`; see `output_shape`."""
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
        return self._apply(key, image)

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

    @abstractmethod
    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform an image whose shape has been checked."""


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


@dataclass(frozen=True)
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

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.transforms:
            return image
        keys = jax.random.split(key, len(self.transforms))
        for transform, subkey in zip(self.transforms, keys, strict=True):
            image = transform(subkey, image)
        return image


@dataclass(frozen=True)
class Pad(Transform):
    """Add pixels on each side, `width` of them: (h, w, c) to (h + 2 width, w + 2 width, c).

    Args:
        width: pixels on each side, at least 0; or (before, after), above and on the left, and
            below and on the right.
        border: what they hold, `"edge"`, `"reflect"` (the image must be larger than `width`) or
            `"constant"`.
        value: their intensity for `"constant"`; mid-grey by default, as in lucid.

    Raises:
        InputError: for a field out of its range, or an image too small to reflect.
    """

    width: int | tuple[int, int]
    border: str = "constant"
    value: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        width: int | tuple[int, ...]
        if isinstance(self.width, (tuple, list)):
            if len(self.width) != 2:
                raise checks.error(self, "width", "an integer of at least 0, or two", self.width)
            width = tuple(checks.integer(self, "width", one, 0, _FARTHEST) for one in self.width)
        else:
            width = checks.integer(self, "width", self.width, 0, _FARTHEST)
        checks.set_fields(
            self,
            width=width,
            border=checks.choice(self, "border", self.border, BORDERS),
            value=checks.number(self, "value", self.value),
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return (h + 2 width, w + 2 width, c), or (h + before + after, w + before + after, c)."""
        before, after = self._widths
        most = max(before, after)
        if self.border == "reflect" and most >= min(shape[:2]):
            raise InputError(
                f"Pad: to reflect {most} pixels takes an image of at least"
                f" {most + 1}x{most + 1}, not {shape[0]}x{shape[1]}"
            )
        return shape[0] + before + after, shape[1] + before + after, shape[2]

    @property
    def _widths(self) -> tuple[int, int]:
        return self.width if isinstance(self.width, tuple) else (self.width, self.width)

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        widths = (self._widths, self._widths, (0, 0))
        if self.border == "constant":
            return jnp.pad(image, widths, constant_values=self.value)
        return jnp.pad(image, widths, mode=self.border)


@dataclass(frozen=True)
class RandomCrop(Transform):
    """Cut a window of a fixed size at a uniformly random place: (h, w, c) to (*size, c).

    Args:
        size: (height, width) of the window in pixels.

    Raises:
        InputError: for a field out of its range, or an image smaller than the window.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        """Check the field and turn it into a plain literal."""
        checks.set_fields(self, size=checks.image_size(self, "size", self.size))

    def output_shape(self, shape: Shape) -> Shape:
        """Return (*size, c)."""
        if shape[0] < self.size[0] or shape[1] < self.size[1]:
            raise InputError(
                f"RandomCrop: an image of at least {self.size[0]}x{self.size[1]} is expected, not"
                f" {shape[0]}x{shape[1]}"
            )
        return *self.size, shape[2]

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        return _random_window(key, image, self.size)


@dataclass(frozen=True)
class Jitter(Transform):
    """Shift by a random whole number of pixels, by cropping: (h, w, c) to (h - d, w - d, c).

    Source: lucid's `jitter`. Nothing outside the picture is seen: pad first to keep the size.

    Args:
        shift: d, the range of the offset in pixels on both axes, at least 0.

    Raises:
        InputError: for a field out of its range, or an image of d pixels or fewer on a side.
    """

    shift: int

    def __post_init__(self) -> None:
        """Check the field and turn it into a plain literal."""
        checks.set_fields(self, shift=checks.integer(self, "shift", self.shift, 0, _FARTHEST))

    def output_shape(self, shape: Shape) -> Shape:
        """Return (h - shift, w - shift, c)."""
        if min(shape[:2]) <= self.shift:
            raise InputError(
                f"Jitter: to crop {self.shift} pixels takes an image of at least"
                f" {self.shift + 1}x{self.shift + 1}, not {shape[0]}x{shape[1]}"
            )
        return shape[0] - self.shift, shape[1] - self.shift, shape[2]

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        height, width, _ = self.output_shape(image.shape)
        return _random_window(key, image, (height, width))


@dataclass(frozen=True)
class Roll(Transform):
    """Shift by a random whole number of pixels around a torus, each axis on its own; size kept.

    Source: Ghiasi et al., "Plug-In Inversion", ICML 2022 (shift 32).

    Args:
        shift: largest shift in pixels, up or down, left or right, at least 0.

    Raises:
        InputError: for a field out of its range.
    """

    shift: int

    def __post_init__(self) -> None:
        """Check the field and turn it into a plain literal."""
        checks.set_fields(self, shift=checks.integer(self, "shift", self.shift, 0, _FARTHEST))

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        widths = ((self.shift, self.shift), (self.shift, self.shift), (0, 0))
        height, width, _ = image.shape
        return _random_window(key, jnp.pad(image, widths, mode="wrap"), (height, width))


@dataclass(frozen=True)
class RandomAffine(Transform):
    """Scale, rotate and shift at random about the centre, in one resampling.

    The size is kept, or grows by a frame: (h, w, c) to (h + 2 frame, w + 2 frame, c).

    Args:
        scale: (lowest, highest) magnification, uniform, above 0; 1.1 enlarges.
        rotate: (lowest, highest) angle in degrees, uniform, within [-180, 180]; a positive angle
            turns the picture counterclockwise.
        shift: largest shift in pixels on each axis, uniform and not rounded, at least 0, or a
            schedule.
        border: what is outside the picture, `"edge"`, `"reflect"` or `"constant"`.
        value: the intensity outside, for `"constant"`.
        frame: pixels of the outside that the output shows on each side, at least 0.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    scale: tuple[float, float] = (0.9, 1.1)
    rotate: tuple[float, float] = (-10.0, 10.0)
    shift: Scheduled = 8.0
    border: str = "reflect"
    value: float = 0.5
    frame: int = 0

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.set_fields(
            self,
            scale=checks.interval(self, "scale", self.scale, 0.01, 100),
            rotate=checks.interval(self, "rotate", self.rotate, -180, 180),
            shift=number_or_schedule(self, "shift", self.shift, 0),
            border=checks.choice(self, "border", self.border, BORDERS),
            value=checks.number(self, "value", self.value),
            frame=checks.integer(self, "frame", self.frame, 0, _FARTHEST),
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return (h + 2 frame, w + 2 frame, c)."""
        return shape[0] + 2 * self.frame, shape[1] + 2 * self.frame, shape[2]

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        # One draw, as each costs a compile.
        fractions = jax.random.uniform(key, (4,), jnp.float32)
        bounds = [self.scale, self.rotate, *[(-self.shift, self.shift)] * 2]
        low, high = (jnp.array(ends, jnp.float32) for ends in zip(*bounds, strict=True))
        scale, degrees, down, right = low + fractions * (high - low)
        return _affine(
            image,
            scale=scale,
            degrees=degrees,
            shift=(down, right),
            border=self.border,
            value=self.value,
            frame=self.frame,
            largest=self.scale[1],
        )


@dataclass(frozen=True)
class RandomScale(Transform):
    """Magnify by a random factor about the centre; the size is kept.

    Lucid's `random_scale` resizes the canvas with the picture; here the canvas is fixed, so the
    output shape is too: a factor above 1 crops, one below 1 shows the border.

    Args:
        low: lowest magnification, above 0.
        high: highest magnification.
        border: what is outside the picture, `"edge"`, `"reflect"` or `"constant"`.
        value: the intensity outside, for `"constant"`.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    low: float = 0.9
    high: float = 1.1
    border: str = "reflect"
    value: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        low, high = checks.interval(self, "(low, high)", (self.low, self.high), 0.01, 100)
        checks.set_fields(
            self,
            low=low,
            high=high,
            border=checks.choice(self, "border", self.border, BORDERS),
            value=checks.number(self, "value", self.value),
        )

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        scale = _uniform(key, (self.low, self.high))
        return _affine(image, scale=scale, border=self.border, value=self.value, largest=self.high)


@dataclass(frozen=True)
class Rotate(Transform):
    """Turn by a random angle about the centre; the size is kept.

    Args:
        low: lowest angle in degrees, at least -180; positive is counterclockwise.
        high: highest angle in degrees, at most 180.
        border: what is outside the picture, `"edge"`, `"reflect"` or `"constant"`.
        value: the intensity outside, for `"constant"`.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    low: float = -10.0
    high: float = 10.0
    border: str = "reflect"
    value: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        low, high = checks.interval(self, "(low, high)", (self.low, self.high), -180, 180)
        checks.set_fields(
            self,
            low=low,
            high=high,
            border=checks.choice(self, "border", self.border, BORDERS),
            value=checks.number(self, "value", self.value),
        )

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        degrees = _uniform(key, (self.low, self.high))
        return _affine(image, degrees=degrees, border=self.border, value=self.value)


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """Cut a random box, of the picture's aspect ratio, and resize it: (h, w, c) to (*size, c).

    The box's sides are a uniformly random fraction of the picture's, its centre is normal around
    the picture's centre and is moved so that the box lies inside; without an `sd`, the box is
    anywhere inside with the same chance. A box that is larger than the
    output is averaged (a triangle filter as wide as the reduction), a smaller one is interpolated.

    Source: Horama, the authors' second implementation of MaCo (Fel et al., NeurIPS 2023).

    Args:
        low: lowest fraction of the sides, above 0, or a schedule.
        high: highest fraction of the sides, at most 1, or a schedule.
        sd: standard deviation of the centre, in sides of the picture, at least 0, or a schedule;
            None: uniform.
        size: (height, width) of the output in pixels, or None for that of the input.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    low: Scheduled = 0.05
    high: Scheduled = 0.5
    sd: Scheduled | None = 0.15
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        if isinstance(self.low, Schedule) or isinstance(self.high, Schedule):
            low, high = (
                number_or_schedule(self, name, getattr(self, name), 0.001, 1)
                for name in ("low", "high")
            )
        else:
            low, high = checks.interval(self, "(low, high)", (self.low, self.high), 0.001, 1)
        checks.set_fields(self, low=low, high=high)
        if self.sd is not None:
            checks.set_fields(self, sd=number_or_schedule(self, "sd", self.sd, 0))
        if self.size is not None:
            checks.set_fields(self, size=checks.image_size(self, "size", self.size))

    def output_shape(self, shape: Shape) -> Shape:
        """Return (*size, c), or the input's shape without a `size`."""
        return shape if self.size is None else (*self.size, shape[2])

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        side_key, centre_key = jax.random.split(key)
        side = _uniform(side_key, (self.low, self.high))
        if self.sd is None:
            centre = side / 2 + (1 - side) * _uniform(centre_key, (0, 1), (2,))
        else:
            centre = 0.5 + self.sd * jax.random.normal(centre_key, (2,), jnp.float32)
        return _box(image, side, centre, self.output_shape(image.shape))


@dataclass(frozen=True)
class NormalCrop(Transform):
    """Cut a box of normally random side and place, and resize it: (h, w, c) to (*size, c).

    As `RandomResizedCrop`, but the fraction of the sides is normal around `side`, clipped to
    [smallest, 1]. With `LinearSchedule(0.5, 0.05)` it is the crop of Fel et al., "MaCo", NeurIPS
    2023, but for boxes that reach out of the picture: theirs see mid-grey there, here they are
    moved inside.

    Args:
        side: mean fraction of the sides, from `smallest` to 1, or a schedule.
        side_sd: its standard deviation, at least 0, or a schedule.
        centre_sd: standard deviation of the centre, in sides of the picture, at least 0, or a
            schedule.
        smallest: fraction of the sides, from 0.001 to 1.
        size: (height, width) of the output in pixels, or None for that of the input.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    side: Scheduled
    side_sd: Scheduled = 0.05
    centre_sd: Scheduled = 0.15
    smallest: float = 0.05
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        smallest = checks.number(self, "smallest", self.smallest, 0.001, 1)
        checks.set_fields(
            self,
            side=number_or_schedule(self, "side", self.side, smallest, 1),
            side_sd=number_or_schedule(self, "side_sd", self.side_sd, 0),
            centre_sd=number_or_schedule(self, "centre_sd", self.centre_sd, 0),
            smallest=smallest,
        )
        if self.size is not None:
            checks.set_fields(self, size=checks.image_size(self, "size", self.size))

    def output_shape(self, shape: Shape) -> Shape:
        """Return (*size, c), or the input's shape without a `size`."""
        return shape if self.size is None else (*self.size, shape[2])

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        wider, down, right = jax.random.normal(key, (3,))
        side = jnp.clip(self.side + self.side_sd * wider, self.smallest, 1)
        centre = 0.5 + self.centre_sd * jnp.stack([down, right])
        return _box(image, side, centre, self.output_shape(image.shape))


@dataclass(frozen=True)
class Blur(Transform):
    """Gaussian blur, the same for every image; beyond the border lies the nearest pixel.

    The kernel is the Gaussian at whole pixels, cut off and divided by its sum. It does not draw
    from the key.

    Args:
        sigma: standard deviation in pixels, above 0 and at most 1000.
        radius: of the kernel in pixels, 1 (which is 3x3) to 4000; None for `ceil(3 sigma)`.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    sigma: float
    radius: int | None = None

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.positive(self, "sigma", self.sigma)
        checks.set_fields(self, sigma=checks.number(self, "sigma", self.sigma, 0, 1000))
        if self.radius is not None:
            checks.set_fields(self, radius=checks.integer(self, "radius", self.radius, 1, 4000))

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        rows, columns = (jnp.asarray(self._matrix(n), jnp.float32) for n in image.shape[:2])
        return _separable(rows, columns, image)

    def _matrix(self, length: int) -> np.ndarray:
        """(length, length) weights of the inputs for each output along one axis."""
        radius = math.ceil(3 * self.sigma) if self.radius is None else self.radius
        offsets = np.arange(-radius, radius + 1)
        kernel = np.exp(-(offsets**2) / (2 * self.sigma**2))
        limits.require(2 * 8 * length**2, f"Blur of {length} pixels in a row")
        matrix = np.zeros((length, length))
        places = np.arange(length)
        for offset, weight in zip(offsets, kernel / kernel.sum(), strict=True):
            np.add.at(matrix, (places, np.clip(places + offset, 0, length - 1)), weight)
        return matrix


@dataclass(frozen=True)
class Noise(Transform):
    """Add normal noise, independent for every pixel and channel; the result is not clipped.

    Args:
        sd: standard deviation in units of intensity, at least 0, or a schedule.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    sd: Scheduled

    def __post_init__(self) -> None:
        """Check the field and turn it into a plain literal."""
        checks.set_fields(self, sd=number_or_schedule(self, "sd", self.sd, 0))

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        # Drawn flat: several axes take long to compile.
        noise = jax.random.normal(key, (image.size,), image.dtype).reshape(image.shape)
        return image + self.sd * noise


@dataclass(frozen=True)
class Flip(Transform):
    """Mirror left and right at random.

    Args:
        probability: of mirroring, from 0 to 1, or a schedule.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    probability: Scheduled = 0.5

    def __post_init__(self) -> None:
        """Check the field and turn it into a plain literal."""
        checks.set_fields(
            self, probability=number_or_schedule(self, "probability", self.probability, 0, 1)
        )

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        mirrored = _uniform(key, (0, 1)) < self.probability
        return jnp.where(mirrored, image[:, ::-1], image)


@dataclass(frozen=True)
class ColorShift(Transform):
    """Scale and shift each channel: `image * exp(a) + b`, a and b uniform; not clipped.

    Source: Ghiasi et al., "Plug-In Inversion", ICML 2022 (strength 1).

    Args:
        strength: a and b are drawn for each channel from [-strength, strength], at least 0, or a
            schedule.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    strength: Scheduled = 1.0

    def __post_init__(self) -> None:
        """Check the field and turn it into a plain literal."""
        checks.set_fields(self, strength=number_or_schedule(self, "strength", self.strength, 0))

    def _apply(self, key: jax.Array, image: jax.Array) -> jax.Array:
        bounds = (-self.strength, self.strength)
        scale, shift = _uniform(key, bounds, (2, 1, 1, image.shape[2]))
        return image * jnp.exp(scale) + shift


def _uniform(key: jax.Array, bounds: tuple[float, float], shape: tuple[int, ...] = ()) -> jax.Array:
    """Uniform float32 numbers within `bounds`."""
    return jax.random.uniform(key, shape, jnp.float32, bounds[0], bounds[1])


def _box(image: jax.Array, side: jax.Array, centre: jax.Array, shape: Shape) -> jax.Array:
    """Cut a box with this fraction of the sides around a centre, moved inside, and resize it."""
    start = jnp.clip(centre - side / 2, 0, 1 - side)
    rows = _resize_matrix(start[0], side, shape[0], image.shape[0])
    columns = _resize_matrix(start[1], side, shape[1], image.shape[1])
    return _separable(rows, columns, image)


def _random_window(key: jax.Array, image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Cut a (*size, c) window at a uniformly random place."""
    height, width, channels = image.shape
    places = jnp.array([height - size[0] + 1, width - size[1] + 1], jnp.uint32)
    # A remainder of 32 random bits is uniform to 1e-6, and compiles in half of `randint`'s time.
    top, left = (jax.random.bits(key, (2,), jnp.uint32) % places).astype(jnp.int32)
    return jax.lax.dynamic_slice(image, (top, left, jnp.int32(0)), (*size, channels))


def _affine(
    image: jax.Array,
    *,
    border: str,
    value: float,
    scale: jax.Array | float = 1.0,
    degrees: jax.Array | float = 0.0,
    shift: tuple[jax.Array | float, jax.Array | float] = (0.0, 0.0),
    frame: int = 0,
    largest: float = 1.0,
) -> jax.Array:
    """Scale and rotate about the centre, then shift by (down, right) pixels; adds a frame.

    `largest` is the upper bound of `scale`.
    """
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    turn = jnp.array([[cosine, -sine], [sine, cosine]])
    moved = jnp.stack([jnp.float32(s) for s in shift])
    # A pixel reaches outputs less than its half diagonal, enlarged, away, which were rounded.
    reach = math.floor(math.sqrt(2) * largest + 0.5)
    if border != "constant" or reach > _LARGEST_REACH:
        return _sample(image, _places(image.shape, turn, moved, frame), border, value)
    return _affine_on_constant(image, turn, moved, value, frame, reach)


def _places(shape: Shape, turn: jax.Array, moved: jax.Array, frame: int) -> jax.Array:
    """Where in an image each output of an affine map is, (h2, w2, 2) of (y, x) in pixels."""
    offsets, centre = _offsets(shape[0] + 2 * frame, shape[1] + 2 * frame)
    # As a matrix product, which XLA computes once. Multiplied out, it is repeated within several
    # kernels, and a place that is nearly whole can round to one side where its index is made and
    # to the other where its weight is.
    turned = jnp.matmul(offsets - moved[None, None], turn, precision=jax.lax.Precision.HIGHEST)
    return turned + jnp.asarray(centre - frame, jnp.float32)[None, None]


def _offsets(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of pixels from the centre of an image, (h, w, 2), and the centre."""
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    return (np.moveaxis(np.indices((height, width)), 0, -1) - centre).astype(np.float32), centre


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _affine_on_constant(
    image: jax.Array, turn: jax.Array, moved: jax.Array, value: float, frame: int, reach: int
) -> jax.Array:
    """An affine map of an image with `value` all around, whose gradient is gathered.

    Each pixel collects from the outputs around its place, at most `reach` pixels from the nearest
    one: half the time of a scatter on a CPU, and always in one order on a GPU.
    """
    return _sample(image, _places(image.shape, turn, moved, frame), "constant", value)


def _affine_on_constant_fwd(
    image: jax.Array, turn: jax.Array, moved: jax.Array, value: float, frame: int, reach: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return _affine_on_constant(image, turn, moved, value, frame, reach), (image, turn, moved)


def _affine_on_constant_bwd(
    value: float,
    frame: int,
    reach: int,
    residuals: tuple[jax.Array, jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, None, None]:
    image, turn, moved = residuals
    height, width, channels = gradient.shape
    offsets, _ = _offsets(*image.shape[:2])
    back = turn.T / (turn[0, 0] ** 2 + turn[1, 0] ** 2)
    ends = np.array([height - 1, width - 1], np.float32)[None, None]
    place = jnp.matmul(offsets, back, precision=jax.lax.Precision.HIGHEST)
    # Beyond this, nothing but the margin of zeros is within reach.
    margin = 2 * reach + 1
    place = jnp.clip(place + moved[None, None] + ends / 2, -1 - reach, ends + 1 + reach)
    nearest = jnp.round(place)
    row = width + 2 * margin
    first = nearest.astype(jnp.int32) + margin
    index = first[..., 0] * row + first[..., 1]
    index, down, right = kernels.kept((index, *jnp.moveaxis(nearest - place, -1, 0)))
    steps = range(-reach, reach + 1)
    (cosine, minus_sine), (sine, _) = turn

    def weight(i: int, j: int) -> jax.Array:
        y, x = down + i, right + j
        return _tent(y * cosine + x * sine) * _tent(y * minus_sine + x * cosine)

    weights = kernels.kept({(i, j): weight(i, j) for i in steps for j in steps})

    def gathered(plane: jax.Array) -> jax.Array:
        flat = kernels.kept(jnp.pad(plane, margin).reshape(-1))
        parts = (
            share * kernels.take(flat, index, i * row + j) for (i, j), share in weights.items()
        )
        return kernels.kept(sum(parts))

    planes = [gathered(gradient[:, :, channel]) for channel in range(channels)]
    return jnp.stack(planes, axis=-1).astype(gradient.dtype), None, None


_affine_on_constant.defvjp(_affine_on_constant_fwd, _affine_on_constant_bwd)


def _tent(distance: jax.Array) -> jax.Array:
    return jnp.maximum(0, 1 - jnp.abs(distance))


def _sample(image: jax.Array, places: jax.Array, border: str, value: float) -> jax.Array:
    """Interpolate (h, w, c) bilinearly at `places`, (h2, w2, 2) of (y, x) in pixels."""
    if border == "constant":
        # One pixel of the constant all around, and then the edge goes on.
        image = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=value)
        places = places + 1
    height, width, channels = image.shape
    top, below = _before(places[..., 0], height, border)
    left, beyond = _before(places[..., 1], width, border)
    corner, below, beyond = kernels.kept((top * width + left, below, beyond))
    # An axis of one pixel has no second neighbour.
    down, right = width * (height > 1), int(width > 1)

    def interpolated(plane: jax.Array) -> jax.Array:
        def at(offset: int) -> jax.Array:
            return kernels.take(plane, corner, offset)

        upper = (1 - beyond) * at(0) + beyond * at(right)
        lower = (1 - beyond) * at(down) + beyond * at(down + right)
        return kernels.kept((1 - below) * upper + below * lower)

    # Channel by channel: gathering rows of `c` numbers takes twice as long on a CPU.
    planes = [kernels.kept(image[:, :, channel].reshape(-1)) for channel in range(channels)]
    return jnp.stack([interpolated(plane) for plane in planes], axis=-1)


def _before(place: jax.Array, length: int, border: str) -> tuple[jax.Array, jax.Array]:
    """Index of the pixel before each place on an axis, and the weight of the one after it."""
    last = length - 1
    if border == "reflect" and length > 1:
        place = last - jnp.abs(place % (2 * last) - last)
    place = jnp.clip(place, 0, last)
    before = jnp.minimum(jnp.floor(place), max(last - 1, 0))
    return before.astype(jnp.int32), place - before


def _resize_matrix(start: jax.Array, side: jax.Array, outputs: int, inputs: int) -> jax.Array:
    """(outputs, inputs) weights to resize the part [start, start + side] of an axis [0, 1]."""
    step = side * (inputs / outputs)
    places = start * inputs + (jnp.arange(outputs, dtype=jnp.float32) + 0.5) * step - 0.5
    places = jnp.clip(places, 0, inputs - 1)
    distance = jnp.abs(places[:, None] - jnp.arange(inputs, dtype=jnp.float32)[None])
    weights = jnp.maximum(0, 1 - distance / jnp.maximum(step, 1))
    return weights / weights.sum(axis=1, keepdims=True)


def _separable(rows: jax.Array, columns: jax.Array, image: jax.Array) -> jax.Array:
    """Apply the matrix `rows` along the height and `columns` along the width of (h, w, c)."""
    # Two plain products of large matrices: a product over the width in place has an inner size
    # of `c`, and takes a sixth longer.
    for matrix in (rows, columns):
        length, across, channels = image.shape
        flat = jnp.matmul(matrix, image.reshape(length, -1), precision=jax.lax.Precision.HIGHEST)
        image = flat.reshape(-1, across, channels).transpose(1, 0, 2)
    return image


def _in_proportion(pixels: int, size: tuple[int, int]) -> float:
    """What is `pixels` at a side of 160 or more, and as large a part of a smaller one."""
    return pixels * min(1.0, min(size) / _PRESET_SIDE)


def _standard(size: tuple[int, int]) -> Transform:
    moved = _in_proportion(6, size)
    frame = round(moved)
    return RandomAffine((0.9, 1.1), (-10.0, 10.0), moved, "constant", frame=frame)


def _affine_preset(size: tuple[int, int]) -> Transform:
    return RandomAffine((0.9, 1.1), (-10.0, 10.0), _in_proportion(8, size), "reflect")


def _maco(size: tuple[int, int]) -> Transform:
    return Compose((NormalCrop(LinearSchedule(0.5, 0.05)), Noise(0.04)))


def _none(size: tuple[int, int]) -> Transform:
    return Compose(())


#: The side in pixels from which on the presets' shifts and frames no longer grow.
_PRESET_SIDE = 160

PRESETS: dict[str, Callable[[tuple[int, int]], Transform]] = {
    "standard": _standard,
    "affine": _affine_preset,
    "maco": _maco,
    "none": _none,
}
"""Named transforms, for images of a size (height, width) in pixels.

- `standard`: lucid's, a frame of 12 grey pixels, jitter 8, scale 0.9 to 1.1, rotation within 10
  degrees, jitter 4; (h, w) becomes (h + 12, w + 12), as there, for the jitters cut off 12 of the
  frame's 24 pixels. Here they are one shift of up to 6 pixels, in the one resampling that also
  scales and turns. Lucid draws the scale and angle from lists (an angle of 0 more often) and
  resizes the canvas with the picture; here both are uniform, the canvas is fixed and the grey goes
  on outside it.
- `affine`: scale, rotation and a shift of up to 8 pixels, with the picture mirrored at its border
  and its size kept.
- `maco`: a crop of 50 % of the sides at first and 5 % at last, and normal noise of 0.04, as the
  code of Fel et al. 2023 has it: 0.08 in images of -1 to 1. Its uniform noise of half as much is
  left out. For crops that show the whole picture see `featvis.presets.maco`.
- `none`: the identity.

Frames and shifts in pixels are for sides of 160 and more; for smaller images they are in
proportion (a shift of 8 would take a quarter of 32 pixels out of sight).
"""
