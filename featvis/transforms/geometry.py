"""Transforms that move: padding, crops, shifts, scales and rotations."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.errors import InputError
from featvis.kernels.resampling import Shape, affine, box
from featvis.transforms.schedules import Schedule, Scheduled, number_or_schedule
from featvis.transforms.transform import Transform, uniform

#: Pixels that anything is moved or framed by, at most.
FARTHEST = 2**14

BORDERS = ("edge", "reflect", "constant")
"""What a transform can find outside the picture."""


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
            width = tuple(checks.integer(self, "width", one, 0, FARTHEST) for one in self.width)
        else:
            width = checks.integer(self, "width", self.width, 0, FARTHEST)
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

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        widths = (self._widths, self._widths, (0, 0))
        if self.border == "constant":
            return jnp.pad(image, widths, constant_values=self.value)
        return jnp.pad(image, widths, mode=self.border)


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

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        return _random_window(key, image, self.size)


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
        checks.set_fields(self, shift=checks.integer(self, "shift", self.shift, 0, FARTHEST))

    def output_shape(self, shape: Shape) -> Shape:
        """Return (h - shift, w - shift, c)."""
        if min(shape[:2]) <= self.shift:
            raise InputError(
                f"Jitter: to crop {self.shift} pixels takes an image of at least"
                f" {self.shift + 1}x{self.shift + 1}, not {shape[0]}x{shape[1]}"
            )
        return shape[0] - self.shift, shape[1] - self.shift, shape[2]

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        height, width, _ = self.output_shape(image.shape)
        return _random_window(key, image, (height, width))


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
        checks.set_fields(self, shift=checks.integer(self, "shift", self.shift, 0, FARTHEST))

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        widths = ((self.shift, self.shift), (self.shift, self.shift), (0, 0))
        height, width, _ = image.shape
        return _random_window(key, jnp.pad(image, widths, mode="wrap"), (height, width))


class RandomAffine(Transform):
    """Scale, rotate and shift at random about the centre, in one resampling.

    The size is kept, or grows by a frame: (h, w, c) to (h + 2 frame, w + 2 frame, c).

    Args:
        scale: (lowest, highest) magnification, uniform in its logarithm, above 0; 1.1 enlarges.
        rotate: (lowest, highest) angle in degrees, uniform, within [-180, 180]; a positive angle
            turns the picture counterclockwise.
        shift: largest shift in pixels on each axis, uniform and not rounded, at least 0, or a
            schedule.
        border: what is outside the picture, `"edge"`, `"reflect"` or `"constant"`.
        value: the intensity outside, for `"constant"`.
        frame: pixels of the outside that the output shows on each side, at least 0.
        spread: where it magnifies, how far the part that is seen may lie from the centre, uniform:
            0 in the centre, 1 anywhere within the picture (before it is turned).

    Raises:
        InputError: at construction, for a field out of its range.
    """

    scale: tuple[float, float] = (0.9, 1.1)
    rotate: tuple[float, float] = (-10.0, 10.0)
    shift: Scheduled = 8.0
    border: str = "reflect"
    value: float = 0.5
    frame: int = 0
    spread: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.set_fields(
            self,
            spread=checks.number(self, "spread", self.spread, 0, 1),
            scale=checks.interval(self, "scale", self.scale, 0.01, 100),
            rotate=checks.interval(self, "rotate", self.rotate, -180, 180),
            shift=number_or_schedule(self, "shift", self.shift, 0),
            border=checks.choice(self, "border", self.border, BORDERS),
            value=checks.number(self, "value", self.value),
            frame=checks.integer(self, "frame", self.frame, 0, FARTHEST),
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return (h + 2 frame, w + 2 frame, c)."""
        return shape[0] + 2 * self.frame, shape[1] + 2 * self.frame, shape[2]

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        # One draw, as each costs a compile.
        fractions = jax.random.uniform(key, (4,), jnp.float32)
        logarithms = (math.log(self.scale[0]), math.log(self.scale[1]))
        bounds = [logarithms, self.rotate, *[(-self.shift, self.shift)] * 2]
        low, high = (jnp.array(ends, jnp.float32) for ends in zip(*bounds, strict=True))
        logarithm, degrees, down, right = low + fractions * (high - low)
        scale = jnp.exp(logarithm)
        moved = [down, right]
        if self.spread:
            # From the first pixel to the last it is n - 1, magnified s (n - 1), of which n - 1 is
            # seen.
            beyond = self.spread * jnp.maximum(scale - 1, 0)
            for axis in (0, 1):
                moved[axis] += beyond * (image.shape[axis] - 1) * (fractions[2 + axis] - 0.5)
        return affine(
            image,
            scale=scale,
            degrees=degrees,
            shift=(moved[0], moved[1]),
            border=self.border,
            value=self.value,
            frame=self.frame,
            largest=self.scale[1],
        )


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

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        scale = uniform(key, (self.low, self.high))
        return affine(image, scale=scale, border=self.border, value=self.value, largest=self.high)


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

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        degrees = uniform(key, (self.low, self.high))
        return affine(image, degrees=degrees, border=self.border, value=self.value)


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

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        side_key, centre_key = jax.random.split(key)
        side = uniform(side_key, (self.low, self.high))
        if self.sd is None:
            centre = side / 2 + (1 - side) * uniform(centre_key, (0, 1), (2,))
        else:
            centre = 0.5 + self.sd * jax.random.normal(centre_key, (2,), jnp.float32)
        fixed = isinstance(self.low, float) and isinstance(self.high, float)
        sides = (self.low, self.high) if fixed else None
        return _box(image, side, centre, self.output_shape(image.shape), sides)


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

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        wider, down, right = jax.random.normal(key, (3,), jnp.float32)
        side = jnp.clip(self.side + self.side_sd * wider, self.smallest, 1)
        centre = 0.5 + self.centre_sd * jnp.stack([down, right])
        return _box(image, side, centre, self.output_shape(image.shape), (self.smallest, 1.0))


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

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        mirrored = uniform(key, (0, 1)) < self.probability
        return jnp.where(mirrored, image[:, ::-1], image)


def _box(
    image: jax.Array,
    side: jax.Array,
    centre: jax.Array,
    shape: Shape,
    sides: tuple[float, float] | None,
) -> jax.Array:
    """Cut a box with this fraction of the sides around a centre, moved inside, and resize it."""
    start = jnp.clip(centre - side / 2, 0, 1 - side)
    return box(image, start, side, (shape[0], shape[1]), sides)


def _random_window(key: jax.Array, image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Cut a (*size, c) window at a uniformly random place."""
    height, width, channels = image.shape
    places = jnp.array([height - size[0] + 1, width - size[1] + 1], jnp.uint32)
    # A remainder of 32 random bits is uniform to 1e-6, and compiles in half of `randint`'s time.
    top, left = (jax.random.bits(key, (2,), jnp.uint32) % places).astype(jnp.int32)
    return jax.lax.dynamic_slice(image, (top, left, jnp.int32(0)), (*size, channels))
