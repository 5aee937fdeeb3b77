"""Resampling of images: affine maps, boxes, and weights along an axis."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from featvis import limits
from featvis.kernels import gather
from featvis.kernels.keeping import kept

#: Reach up to which the gradient of an affine map is gathered: (2·2 + 1)² reads a pixel.
_LARGEST_REACH = 2

#: Rows of which a row of a crop is the sum, or of which its gradient is, up to which they are
#: gathered; a matrix product takes thirty times as long where it is two of 512, and four times
#: where it is 18 of 224 (two cores with AVX-512).
_MOST_TERMS = 32

Shape = tuple[int, ...]
"""(height, width, channels)."""


def affine(
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
    index, down, right = kept((index, *jnp.moveaxis(nearest - place, -1, 0)))
    steps = range(-reach, reach + 1)
    shares = {
        i * row + j: _share(down, right, turn, np.float32(i), np.float32(j))
        for i in steps
        for j in steps
    }
    shares = kept(shares)
    planes = [
        _gathered(gradient[:, :, channel], margin, index, shares) for channel in range(channels)
    ]
    return jnp.stack(planes, axis=-1).astype(gradient.dtype), None, None


# What several parts of a program have alike is traced and lowered once (`jax.jit`), which takes a
# third of a second less.


@jax.jit
def _share(down: jax.Array, right: jax.Array, turn: jax.Array, i: float, j: float) -> jax.Array:
    """How much of the outputs at (i, j) from the nearest ones is of each pixel, (h, w)."""
    (cosine, minus_sine), (sine, _) = turn
    y, x = down + i, right + j
    return _tent(y * cosine + x * sine) * _tent(y * minus_sine + x * cosine)


@functools.partial(jax.jit, static_argnames="margin")
def _gathered(
    plane: jax.Array, margin: int, index: jax.Array, shares: dict[int, jax.Array]
) -> jax.Array:
    """The sum of the shares of what is at the index and so many places from it, (h, w)."""
    flat = kept(jnp.pad(plane, margin).reshape(-1))
    parts = [share * gather.take(flat, index + offset) for offset, share in shares.items()]
    return kept(functools.reduce(jax.lax.add, parts))


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
    corner, below, beyond = kept((top * width + left, below, beyond))
    # An axis of one pixel has no second neighbour.
    steps = width * (height > 1), int(width > 1)
    # Channel by channel: gathering rows of `c` numbers takes twice as long on a CPU.
    planes = [kept(image[:, :, channel].reshape(-1)) for channel in range(channels)]
    found = [_interpolated(plane, corner, below, beyond, steps) for plane in planes]
    return jnp.stack(found, axis=-1)


@functools.partial(jax.jit, static_argnames="steps")
def _interpolated(
    plane: jax.Array, corner: jax.Array, below: jax.Array, beyond: jax.Array, steps: tuple[int, int]
) -> jax.Array:
    """One channel (h * w,) between the pixels at corners and those a step down and right of them.

    Args:
        plane: the channel's numbers, row by row.
        corner: the upper left pixels, (h2, w2).
        below: weights of the lower ones, (h2, w2).
        beyond: of the right ones, (h2, w2).
        steps: (down, right), to the next row and column.
    """
    down, right = steps

    def at(offset: int) -> jax.Array:
        return gather.take(plane, corner + offset)

    upper = (1 - beyond) * at(0) + beyond * at(right)
    lower = (1 - beyond) * at(down) + beyond * at(down + right)
    return kept((1 - below) * upper + below * lower)


def _before(place: jax.Array, length: int, border: str) -> tuple[jax.Array, jax.Array]:
    """Index of the pixel before each place on an axis, and the weight of the one after it."""
    last = length - 1
    if border == "reflect" and length > 1:
        place = last - jnp.abs(place % (2 * last) - last)
    place = jnp.clip(place, 0, last)
    before = jnp.minimum(jnp.floor(place), max(last - 1, 0))
    return before.astype(jnp.int32), place - before


def box(
    image: jax.Array,
    start: jax.Array,
    side: jax.Array,
    size: tuple[int, int],
    sides: tuple[float, float] | None,
) -> jax.Array:
    """The part [start, start + side] of both axes [0, 1] of an image, resized.

    Args:
        image: (h, w, c).
        start: of the part, (2,) of (down, right), within [0, 1 - side].
        side: of the part.
        size: (height, width) of the output in pixels.
        sides: the lowest and the highest that `side` can be; None where they are not known.
    """

    def along(axis: int) -> Callable[[jax.Array], jax.Array]:
        place, outputs, inputs = start[axis], size[axis], image.shape[axis]
        fewest = _fewest_terms(sides, outputs, inputs)
        if fewest is None:
            return _by(box_weights(place, side, outputs, inputs))
        return lambda rows: _resized(rows, place, side, outputs, *fewest)

    return _along_both(along(0), along(1), image)


def _fewest_terms(
    sides: tuple[float, float] | None, outputs: int, inputs: int
) -> tuple[int, int] | None:
    """Inputs of an output at most, and outputs that have an input; None where they are many."""
    if sides is None:
        return None
    shortest, longest = (side * inputs / outputs for side in sides)
    forward = min(inputs, math.ceil(2 * max(longest, 1)))
    # An output within reach of two borders: one more.
    backward = min(outputs, math.ceil(2 * max(1 / shortest, 1)) + 1)
    return (forward, backward) if max(forward, backward) <= _MOST_TERMS else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _resized(
    rows: jax.Array, start: jax.Array, side: jax.Array, outputs: int, forward: int, backward: int
) -> jax.Array:
    """`box_weights` times rows (inputs, c), of which an output has only so many: (outputs, c)."""
    inputs = len(rows)
    _, places, reach = _places_of_outputs(start, side, outputs, inputs)
    first, shares = _shares(places, reach, inputs, forward)
    return _weighed(rows, *kept((first, shares / shares.sum(0)[None])))


def _resized_fwd(
    rows: jax.Array, start: jax.Array, side: jax.Array, outputs: int, forward: int, backward: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, int]]:
    return _resized(rows, start, side, outputs, forward, backward), (start, side, len(rows))


def _resized_bwd(
    outputs: int,
    forward: int,
    backward: int,
    residuals: tuple[jax.Array, jax.Array, int],
    gradient: jax.Array,
) -> tuple[jax.Array, None, None]:
    start, side, inputs = residuals
    unmoved, places, reach = _places_of_outputs(start, side, outputs, inputs)
    sums = _shares(places, reach, inputs, forward)[1].sum(0)
    own = jnp.arange(inputs, dtype=jnp.float32)
    step = side * (inputs / outputs)
    first = jnp.floor((own - reach - unmoved[0]) / step).astype(jnp.int32) + 1
    first = jnp.clip(first, 0, outputs - backward)
    at = first[None] + jnp.arange(backward, dtype=jnp.int32)[:, None]
    shares = jnp.maximum(0, 1 - jnp.abs(places[at] - own[None]) / reach) / sums[at]
    return _weighed(gradient, *kept((first, shares))), None, None


_resized.defvjp(_resized_fwd, _resized_bwd)


def _places_of_outputs(
    start: jax.Array, side: jax.Array, outputs: int, inputs: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where outputs are among inputs, and moved inside; how far each reaches."""
    step = side * (inputs / outputs)
    places = start * inputs + (jnp.arange(outputs, dtype=jnp.float32) + 0.5) * step - 0.5
    return places, jnp.clip(places, 0, inputs - 1), jnp.maximum(step, 1)


def _shares(
    places: jax.Array, reach: jax.Array, inputs: int, terms: int
) -> tuple[jax.Array, jax.Array]:
    """The first input within reach of places (n,), and what it and the next have, (terms, n)."""
    first = jnp.clip(jnp.floor(places - reach).astype(jnp.int32) + 1, 0, inputs - terms)
    own = first[None] + jnp.arange(terms, dtype=jnp.int32)[:, None]
    return first, jnp.maximum(0, 1 - jnp.abs(places[None] - own.astype(jnp.float32)) / reach)


def _weighed(rows: jax.Array, first: jax.Array, shares: jax.Array) -> jax.Array:
    """The sums of shares (terms, n) of the rows (m, c) from the first ones on, (n, c)."""
    parts = [
        share[:, None] * gather.take_rows(rows, first + term) for term, share in enumerate(shares)
    ]
    return kept(functools.reduce(jax.lax.add, parts))


def box_weights(start: jax.Array, side: jax.Array, outputs: int, inputs: int) -> jax.Array:
    """(outputs, inputs) weights to resize the part [start, start + side] of an axis [0, 1]."""
    _, places, reach = _places_of_outputs(start, side, outputs, inputs)
    distance = jnp.abs(places[:, None] - jnp.arange(inputs, dtype=jnp.float32)[None])
    weights = jnp.maximum(0, 1 - distance / reach)
    return weights / weights.sum(axis=1, keepdims=True)


def apply_separable(rows: jax.Array, columns: jax.Array, image: jax.Array) -> jax.Array:
    """Apply the matrix `rows` along the height and `columns` along the width of (h, w, c)."""
    return _along_both(_by(rows), _by(columns), image)


def _by(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    return lambda rows: jnp.matmul(matrix, rows, precision=jax.lax.Precision.HIGHEST)


def _along_both(
    height: Callable[[jax.Array], jax.Array],
    width: Callable[[jax.Array], jax.Array],
    image: jax.Array,
) -> jax.Array:
    """Applies functions of rows (n, c) to (m, c) along the height and the width of (h, w, c)."""
    # Each along the first axis: a product over the width in place has an inner size of `c`, and
    # takes a sixth longer.
    for function in (height, width):
        length, across, channels = image.shape
        flat = function(image.reshape(length, -1))
        image = flat.reshape(-1, across, channels).transpose(1, 0, 2)
    return image


def resize_weights(outputs: int, inputs: int) -> np.ndarray:
    """(outputs, inputs) weights of the inputs in each output along one axis."""
    limits.require(3 * 8 * outputs * inputs, f"resizing {inputs} pixels in a row to {outputs}")
    step = inputs / outputs
    places = np.clip((np.arange(outputs) + 0.5) * step - 0.5, 0, inputs - 1)
    distance = np.abs(places[:, None] - np.arange(inputs))
    weights = np.maximum(0, 1 - distance / max(step, 1))
    return weights / weights.sum(axis=1, keepdims=True)
