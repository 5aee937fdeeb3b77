"""What a run takes of the memory: what does not fit is refused before anything is computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

from featvis import kernels, limits
from featvis.dry_runs import once_a_kind
from featvis.errors import TooLargeError
from featvis.jaxprs.liveness import alive
from featvis.kernels.resampling import Shape
from featvis.limits import shown
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.synthesis.batching import footprint, images_at_a_time, traced_scores
from featvis.transforms import Transform
from featvis.transforms.transform import traced
from objectives import Objective, separable, slice_images

# Fitted to what XLA states of its programs for seven runs of two networks (0.9 to 1.1 of it), so
# that nothing that fits is refused.
#: Of an image: itself, its gradients by the network and by the priors, and their sum.
_COPIES = 4

#: Of the parameters and the optimizer's state: the first, the last and the next.
_STATES = 3

#: Of what a parameterization makes on the way to the image: it, and a part of its gradient.
_DECODING = 1.5

_FLOAT = 4

#: Operations whose results are in memory: XLA merges all others into what reads them.
_WRITING = (
    "concatenate",
    "conv_general_dilated",
    "cumsum",
    "dot_general",
    "fft",
    "gather",
    "pad",
    "reduce_window",
    "scatter",
    "select_and_gather_add",
    "sort",
)


@dataclass(frozen=True)
class Need:
    """Bytes of a run, estimated: what it takes at least, within a factor of about two.

    Attributes:
        parameterization: of the images.
        each: of every image, by what they are for.
        passing: of each image that is on its way through the transform and the network.
        together: how many images are on that way, by the number of images.
        transformed: bytes of kernels that a device multiplies by, by the number of images together.
        devices: that share the images.
    """

    parameterization: Parameterization
    each: Mapping[str, int]
    passing: int = 0
    together: Callable[[int], int] = int
    transformed: Callable[[int], int] = lambda together: 0
    devices: int = 1

    def of(self, count: int) -> int:
        """Bytes of `count` images."""
        parts = count * sum(self.each.values()) + self.together(count) * self.passing
        return parts + self._whatever(count)

    def _whatever(self, count: int) -> int:
        """Bytes that do not grow with the images."""
        return self.devices * self.transformed(self.together(count))

    @property
    def free(self) -> float:
        """Bytes that there are; processors share them."""
        share = 1 if kernels.on_cpu() else self.devices
        return share * limits.available_on(jax.local_devices()[0])

    def fitting(self, count: int) -> int:
        """The most of `count` images that fit together; 0: not even one."""
        low, high, free = 0, count, self.free
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.of(middle) <= free else (low, middle - 1)
        return low

    def check(self, count: int) -> None:
        """Refuses images that do not fit.

        Raises:
            TooLargeError: what they take is above what there is; says what would fit.
        """
        whole, free = self.of(count), self.free
        if whole <= free:
            return
        parts = {what: count * size for what, size in self.each.items()}
        parts["the network"] = self.together(count) * self.passing
        parts["its kernels, transformed"] = self._whatever(count)
        listed = sorted(parts.items(), key=lambda part: -part[1])
        said = ", ".join(f"{what} {shown(size)}" for what, size in listed if size >= whole / 20)
        height, width = self.parameterization.size
        raise TooLargeError(
            f"{count} x {height}x{width} pixels of {self.parameterization} take about "
            f"{shown(whole)} of memory ({said}), and {shown(free)} are free: "
            f"{self._hint(count, listed[0][0], free)}"
        )

    def _hint(self, count: int, largest: str, free: float) -> str:
        fitting = self.fitting(count)
        if fitting:
            return f"{fitting} of the {count} images would fit"
        fixed = self._whatever(1)
        if fixed >= free:
            return "no picture would fit that network"
        share = (free - fixed) / (self.of(1) - fixed)
        if largest in ("the images", "the network", "its kernels, transformed"):
            # Both grow with the picture's area.
            height, width = (max(1, int(n * math.sqrt(share))) for n in self.parameterization.size)
            return f"one picture of about {height}x{width} would fit"
        return f"about {share:.2g} of {largest} would fit"


def check_pictures(
    parameterization: Parameterization, count: int, *, steps: int = 1, snapshots: int = 0
) -> None:
    """Refuses images that alone are more than the memory: before anything of their size is made.

    Args:
        parameterization: of the images.
        count: their number.
        steps: of the run, each with its scores.
        snapshots: number of times that the images are kept.

    Raises:
        TooLargeError: they do not fit; says what would.
    """
    Need(parameterization, _kept(parameterization, steps, snapshots)).check(count)


def estimate(
    model: Model,
    objective: Objective,
    parameterization: Parameterization,
    transform: Transform,
    count: int,
    state: int,
    *,
    steps: int,
    snapshots: int = 0,
    devices: int = 1,
) -> Need:
    """What a run takes, told by its shapes before it is compiled.

    Args:
        model: the network.
        objective: what is maximised, of all images.
        parameterization: of the images.
        transform: what they go through.
        count: their number.
        state: bytes of one image's parameters and optimizer state.
        steps: of the run.
        snapshots: number of times that the images are kept.
        devices: that share the images.
    """
    image = parameterization.shape
    program, seen = traced(transform, image)
    network, transformed = _network(model, objective, count, image, seen)
    passing = _written(program) + _FLOAT * math.prod(seen) + network
    each = {
        **_kept(parameterization, steps, snapshots),
        "the parameters and the optimizer": _STATES * state,
        "decoding": int(_DECODING * _decoding(parameterization)),
    }

    def together(images: int) -> int:
        part = objective if images == count else _first(objective, images)
        return images_at_a_time(model, part, (images, *image), (images, *seen)) or images

    return Need(parameterization, each, passing, functools.cache(together), transformed, devices)


@once_a_kind
def _decoding(way: Parameterization) -> int:
    """Bytes that a parameterization writes for an image, whatever its data are."""
    params = jax.eval_shape(lambda way: way.init(jax.random.key(0)), way)
    return _written(jax.make_jaxpr(lambda way, params: way.decode(params))(way, params).jaxpr)


def _written(jaxpr: Any, results: int | None = None, besides: str = "-") -> int:
    """Bytes that a program writes on the way to its first results: products, gathers and the like.

    Args:
        jaxpr: the program.
        results: how many of its results matter; None: all.
        besides: an operation that does not count.
    """
    total = 0
    wanted = jaxpr.outvars[:results]
    needed = alive(wanted, jaxpr)
    for eqn in jaxpr.eqns:
        if not any(out in needed for out in eqn.outvars):
            continue
        inner = list(core.jaxprs_in_params(eqn.params))
        if inner:
            rounds = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
            total += rounds * sum(_written(one, None, besides) for one in inner)
        elif eqn.primitive.name.startswith(_WRITING) and eqn.primitive.name != besides:
            total += sum(_bytes(out.aval) for out in eqn.outvars)
    return total


def _transformed(jaxpr: Any, results: int | None, images: int) -> int:
    """Bytes of the kernels that a program's convolutions multiply by, for some images together."""
    needed = alive(jaxpr.outvars[:results], jaxpr)
    found = 0
    for eqn in jaxpr.eqns:
        if any(out in needed for out in eqn.outvars):
            found += kernels.transformed_bytes(eqn, images)
            inner = core.jaxprs_in_params(eqn.params)
            found += sum(_transformed(one, None, images) for one in inner)
    return found


def _network(
    model: Model, objective: Objective, count: int, image: Shape, seen: Shape
) -> tuple[int, Callable[[int], int]]:
    """Bytes that one of the images takes in a network: what is named, or what is written.

    And those of its transformed kernels, by the number of images together.
    """

    def trace(objective: Objective, count: int) -> tuple[int, Callable[[int], int]]:
        shapes = (jax.ShapeDtypeStruct((count, *one), np.float32) for one in (image, seen))
        jaxpr = traced_scores.trace(model.apply, model.params, objective, *shapes).jaxpr.jaxpr
        # A frame of zeros is written for a moment only.
        written = _written(jaxpr, 1, "pad") // count
        if not kernels.on_cpu():
            return written, lambda together: 0
        return written, functools.cache(functools.partial(_transformed, jaxpr, 1))

    if separable(objective):
        try:
            # Traced once for all units of a layer.
            alone = _first(objective, 1)
            named, _ = footprint(model, alone, image, seen)
            written, transformed = trace(alone, 1)
            return max(named, written), transformed
        except (TypeError, ValueError):  # a network that one image alone does not go through
            pass
    return trace(objective, count)


def _first(objective: Objective, count: int) -> Objective:
    return slice_images(objective, 0, count) if separable(objective) else objective


def _kept(parameterization: Parameterization, steps: int, snapshots: int) -> dict[str, int]:
    """Bytes of what there is of each image whatever becomes of it."""
    picture = _FLOAT * math.prod(parameterization.shape)
    kept = {"the images": _COPIES * picture, "the scores": 2 * _FLOAT * steps}
    return kept | ({"the snapshots": snapshots * picture} if snapshots else {})


def _bytes(aval: Any) -> int:
    dtype = getattr(aval, "dtype", None)
    size = getattr(dtype, "itemsize", 0) if dtype is not None else 0
    return int(math.prod(getattr(aval, "shape", ()))) * size
