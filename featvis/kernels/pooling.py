"""Max pools, and their gradients: XLA goes one number after the other there, on a CPU.

Milliseconds on two cores with AVX2, of 4 images, jax 0.10.2, torch 2.13:

    side, channels, window, stride     XLA   ours   PyTorch, both   gradient alone, ours
    128, 64, 2 x 2, 2                  1.3   0.8    18.5            3.3
    64, 64, 3 x 3, 2                   1.3   0.6    5.9             1.3
    64, 128, 2 x 2, 2                  1.7   0.2    8.3             1.5
    16, 480, 3 x 3, 1                  3.2   0.4    10.7            1.7
    16, 512, 2 x 2, 2                  0.4   0.1    2.4             0.4
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from featvis.kernels.keeping import kept

#: Places of a window up to which this was measured: the code grows with them.
_MOST_PLACES = 25

_Places = tuple[int, ...]


@dataclass(frozen=True)
class _Windows:
    """Windows of an array.

    Attributes:
        window: its length along each axis.
        strides: along each axis.
        pads: places before and after each axis, not chosen where a window has a number above -inf.
    """

    window: _Places
    strides: _Places
    pads: tuple[tuple[int, int], ...]

    def _padded(self, x: Array) -> Array:
        low = jnp.asarray(-jnp.inf, x.dtype)
        return kept(lax.pad(x, low, [(*pads, 0) for pads in self.pads]))

    def _places(self) -> list[_Places]:
        return list(itertools.product(*map(range, self.window)))

    def _at(self, padded: Array, place: _Places, windows: _Places) -> Array:
        ends = [
            first + (count - 1) * stride + 1
            for first, count, stride in zip(place, windows, self.strides, strict=True)
        ]
        return lax.slice(padded, place, ends, self.strides)


class Pool(_Windows):
    """The largest number of each window."""

    def __call__(self, x: Array) -> Array:
        """The largest numbers of the windows of `x`."""
        padded = self._padded(x)
        counts = tuple(
            (size - length) // stride + 1
            for size, length, stride in zip(padded.shape, self.window, self.strides, strict=True)
        )
        parts = (self._at(padded, place, counts) for place in self._places())
        return functools.reduce(lax.max, parts)


class PoolGradient(_Windows):
    """What comes to each window goes to the first of its places that has its largest number."""

    def __call__(self, gradient: Array, x: Array) -> Array:
        """The gradient by `x` from that by the largest numbers of its windows."""
        padded = self._padded(x)
        places = self._places()
        best = jnp.zeros(gradient.shape, jnp.int32)
        largest = self._at(padded, places[0], gradient.shape)
        for number, place in enumerate(places[1:], 1):
            value = self._at(padded, place, gradient.shape)
            best = lax.select(value > largest, lax.full_like(best, number), best)
            largest = jnp.maximum(largest, value)
        best = kept(best)
        nothing = jnp.zeros_like(gradient)
        shares = {
            place: lax.select(best == number, gradient, nothing)
            for number, place in enumerate(places)
        }
        whole = self._gathered(shares, padded.shape)
        ends = [first + size for (first, _), size in zip(self.pads, x.shape, strict=True)]
        return lax.slice(whole, [first for first, _ in self.pads], ends)

    def _gathered(self, shares: dict[_Places, Array], size: _Places) -> Array:
        """The sums of the windows' shares over an array of at least a size.

        Those of one remainder by the strides are in the same windows, and are made together.
        """
        counts = [-(-edge // stride) for edge, stride in zip(size, self.strides, strict=True)]
        apart = [edge for pair in zip(counts, self.strides, strict=True) for edge in pair]
        whole = jnp.zeros(apart, next(iter(shares.values())).dtype)
        for remainders in itertools.product(*map(range, self.strides)):
            terms = [
                self._shifted(share, place, counts)
                for place, share in shares.items()
                if all(
                    (at - r) % stride == 0
                    for at, r, stride in zip(place, remainders, self.strides, strict=True)
                )
            ]
            if terms:
                part = functools.reduce(lax.add, terms)
                part = part.reshape([edge for count in counts for edge in (count, 1)])
                start = [edge for remainder in remainders for edge in (0, remainder)]
                whole = lax.dynamic_update_slice(whole, part, start)
        return kept(whole).reshape([a * b for a, b in zip(counts, self.strides, strict=True)])

    def _shifted(self, share: Array, place: _Places, counts: list[int]) -> Array:
        firsts = [at // stride for at, stride in zip(place, self.strides, strict=True)]
        margins = [
            (first, count - first - windows, 0)
            for first, count, windows in zip(firsts, counts, share.shape, strict=True)
        ]
        return lax.pad(share, jnp.zeros((), share.dtype), margins)


def pool(eqn: Any, repeated: bool) -> Pool | None:
    """Our kernel for a traced max pool of float32; None for another.

    Args:
        eqn: an equation of a traced program.
        repeated: whether it is run many times, which makes no difference.
    """
    dilations = {*eqn.params["base_dilation"], *eqn.params["window_dilation"]}
    return Pool(*_windows(eqn)) if dilations <= {1} and _is_ours(eqn) else None


def pool_gradient(eqn: Any, repeated: bool) -> PoolGradient | None:
    """Our kernel for the traced gradient of a max pool of float32; None for another.

    Args:
        eqn: an equation of a traced program.
        repeated: whether it is run many times, which makes no difference.
    """
    ours = eqn.params["select_prim"].name == "ge" and _is_ours(eqn)
    return PoolGradient(*_windows(eqn)) if ours else None


def _is_ours(eqn: Any) -> bool:
    given, out = eqn.params, eqn.outvars[0].aval
    return (
        out.dtype == np.dtype("float32")
        and 0 not in out.shape
        and math.prod(given["window_dimensions"]) <= _MOST_PLACES
        and all(edge >= 0 for pair in given["padding"] for edge in pair)
    )


def _windows(eqn: Any) -> tuple[_Places, _Places, tuple[tuple[int, int], ...]]:
    given = eqn.params
    pads = tuple((int(before), int(after)) for before, after in given["padding"])
    return tuple(given["window_dimensions"]), tuple(given["window_strides"]), pads
