"""Receptive fields: which pixels each position of a layer depends on, by the gradient's support."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from featvis import kernels
from featvis.errors import InputError
from featvis.models import Model
from featvis.models.leaky import with_leak
from objectives import Activations, Objective

Span = tuple[int, int]
"""The first pixel along an axis, and the one after the last."""

#: Rows up to which each has its gradient.
_EACH = 5
#: Images of noise at a time, and how often at most: a pooled maximum depends on another pixel in
#: each. More are looked at until they add nothing.
_IMAGES, _MOST = 2, 16
#: Gradients at the edge of a field are products of many small weights: far from what underflows.
_SCALE = 1e12


@dataclass(frozen=True)
class Fields:
    """The receptive fields of a layer's positions, in images of one size.

    Attributes:
        rows: of each row of a map, or each token, the first pixel and the one after the last.
        columns: of each column of a map, or each token.
        tokens: whether positions are tokens, with a row and a column each.
    """

    rows: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, int], ...]
    tokens: bool = False

    def box(self, position: int) -> tuple[int, int, int, int]:
        """The pixels of a position, counted row by row: top, left, bottom and right (both after).

        They are those that have a gradient, so that they end at the frame.
        """
        row, column = (position, position) if self.tokens else divmod(position, len(self.columns))
        (top, bottom), (left, right) = self.rows[row], self.columns[column]
        return top, left, bottom, right

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the largest."""
        heights, widths = ([stop - start for start, stop in a] for a in (self.rows, self.columns))
        return max(heights), max(widths)


class Field(NamedTuple):
    """Where in an image one unit looks.

    Attributes:
        window: (top, left, height, width) in pixels.
        cut: whether it reaches the image's border, so that the unit may look further than there is.
    """

    window: tuple[int, int, int, int]
    cut: bool


def receptive_field(model: Model, unit: Objective, size: tuple[int, int]) -> Field:
    """The rectangle of pixels that one unit depends on, as `receptive_fields` finds a layer's.

    Args:
        model: the network.
        unit: one unit at one place.
        size: (height, width) of the images in which it is looked for.

    Raises:
        InputError: a unit that depends on no pixel.
    """
    # Arrays for its numbers: another unit of the layer is the same program.
    pixels = _probe(model, size)(_SCALE * jax.tree.map(jnp.asarray, unit))
    if not pixels.any():
        raise InputError(
            f"{unit} gives no gradient on noise: it is dead, or reads nothing of the image"
        )
    (top, bottom), (left, right) = (_span(pixels, axis) for axis in (0, 1))
    cut = top == 0 or left == 0 or bottom == size[0] or right == size[1]
    return Field((top, left, bottom - top, right - left), cut)


def receptive_fields(model: Model, layers: Sequence[str], size: tuple[int, int]) -> list[Fields]:
    """The receptive fields of layers.

    A pixel is in the field of a position if any channel there has a gradient by it in any of a
    few images of noise, where all rectifiers pass it: it is what the architecture connects, and no
    matter of which units are on. Of a map the fields are found by row and by column: those at both
    ends and in the middle, and where these move evenly the others too; or else each.

    Args:
        model: the network.
        layers: names of its layers.
        size: (height, width) of the images.

    Raises:
        UnknownLayer: no such layer.
        InputError: a size that the network does not take.
    """
    every = Activations(model.layers(size))
    shapes = {layer: every[layer] for layer in layers}
    probe, rng = _probe(model, size), np.random.default_rng(1)
    signs = {
        layer: rng.uniform(0.5, 1, shape) * rng.choice([-1, 1], shape)
        for layer, shape in shapes.items()
    }

    def support(layer: str, chosen: tuple[Any, ...]) -> np.ndarray:
        """Pixels (h, w) that the chosen positions of a layer depend on."""
        weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        weights[layer][chosen] = _SCALE * signs[layer][chosen]
        return probe(jax.tree_util.Partial(_weighted, weights))

    found = []
    for layer, shape in shapes.items():
        extent = shape[:-1]
        if len(extent) == 2:

            def across(axis: int, place: int, layer: str = layer) -> Span:
                chosen = (slice(None),) * axis + (place,)
                return _span(support(layer, chosen), axis)

            rows, columns = (
                _along(extent[axis], size[axis], functools.partial(across, axis)) for axis in (0, 1)
            )
            found.append(Fields(rows, columns))
            continue
        places = list(np.ndindex(*extent))
        ends = [support(layer, place) for place in (places[0], places[-1])]
        # Tokens that see all the image need not be asked one by one.
        whole = all(pixels.all() for pixels in ends)
        pixels = [ends[0] if whole else support(layer, place) for place in places]
        rows, columns = (tuple(_span(one, axis) for one in pixels) for axis in (0, 1))
        found.append(Fields(rows, columns, tokens=True))
    return found


def _along(count: int, side: int, find: Callable[[int], Span]) -> tuple[Span, ...]:
    """The pixels along an axis that each row (or column) of a map depends on.

    Args:
        count: of rows.
        side: of the image along the axis.
        find: those of one row, by its gradient.
    """
    span = functools.cache(find)
    last = count - 1
    (first, end), (begin, final) = span(0), span(last)
    if (first, end) == (begin, final) == (0, side):
        return ((0, side),) * count
    if count > _EACH:
        # An end at the frame was cut off, and does not say where the field would have ended.
        steps = {
            *([span(1)[1] - end] if span(1)[1] < side else []),
            *([begin - span(last - 1)[0]] if span(last - 1)[0] > 0 else []),
        }
        if len(steps) == 1:
            step = steps.pop()

            def at(place: int) -> Span:
                return max(0, begin - step * (last - place)), min(side, end + step * place)

            tried = (0, 1, count // 2, last - 1, last)
            # A field of which one end is always cut off has another rule there.
            if begin > 0 and end < side and all(at(place) == span(place) for place in tried):
                return tuple(at(place) for place in range(count))
    return tuple(span(place) for place in range(count))


def _span(pixels: np.ndarray, axis: int) -> Span:
    """The first of some pixels (h, w) along an axis, and the one after; of none (0, 0)."""
    places = np.nonzero(pixels)[axis]
    return (int(places.min()), int(places.max()) + 1) if len(places) else (0, 0)


def _probe(model: Model, size: tuple[int, int]) -> Callable[[Any], np.ndarray]:
    """What finds the pixels (h, w) by which a score, a pytree as objectives are, has a gradient."""
    network = with_leak(model, 1.0)
    shape = (_MOST, _IMAGES, *size, model.input.channels)
    noise = np.random.default_rng(0).uniform(size=shape).astype(np.float32)

    def pixels(score: Any) -> np.ndarray:
        found = np.zeros(size, bool)
        for images in noise:
            more = found | np.asarray(_support(network.apply, network.params, images, score))
            if more.all() or np.array_equal(more, found):
                return more
            found = more
        return found

    return pixels


def _weighted(weights: Any, acts: Activations, images: jax.Array) -> jax.Array:
    """A weighted sum of layers.

    All are in one program: compiling one for each takes far longer than running it.
    """
    given = {layer: jnp.broadcast_to(w, acts[layer].shape) for layer, w in weights.items()}
    return sum((jnp.sum(acts[layer] * w) for layer, w in given.items()), jnp.float32(0))


@functools.partial(kernels.compiled, static=("apply",), plain=True)
def _support(apply: Any, params: Any, images: jax.Array, score: Any) -> jax.Array:
    """Pixels (h, w) by which a score has a gradient in any of the images."""

    def total(images: jax.Array) -> jax.Array:
        return jnp.sum(score(Activations(apply(params, images)), images))

    return jnp.any(jax.grad(total)(images) != 0, axis=(0, 3))
