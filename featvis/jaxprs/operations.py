"""How relevance goes back through each operation of a traced program.

- Products with weights, convolutions and sums divide it by contributions, each by the rule for its
  depth (`featvis.jaxprs.affine`). Factors and shifts of each channel right after one, a batch
  normalisation, are a part of it. A bias keeps what it contributed.
- Sums of several values (a residual block) divide it by contributions, with the ε-rule; those
  after the last layer with weights are the score's own, and LRP-0 is for them.
- A function of single values (ReLU, GELU, exp) hands it on as it is: Bach et al. 2015.
- What puts values elsewhere, and a maximum over a window, hands it to where its value came from.
- Of the product of a value and a gate the value gets all (Arras et al. 2017, "Explaining Recurrent
  Neural Network Predictions in Sentiment Analysis"). A gate is what a bounded or normalising
  function gives: the logistic function in swish, squeeze and excitation; the probabilities of
  attention; one by the deviation in a layer normalisation (Ali et al. 2022, "XAI for
  Transformers"). Two values, or two gates, get half each (Achtibat et al. 2024, "AttnLRP").
- What is done to each pixel before the first layer, its normalisation, is the pixel's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis.errors import InputError
from featvis.jaxprs.affine import Affine, Depths, Epsilon, Step, moving, weighing
from featvis.jaxprs.evaluate import bind
from featvis.jaxprs.linearity import REARRANGEMENTS, SUMS


class Passing:
    """Relevance on its way back.

    Args:
        depths: the rules.
        of: the depth of the score.
        images: how many there are.
    """

    def __init__(self, depths: Depths, of: int, images: int) -> None:
        self.depths, self.of, self.images = depths, of, images
        self.biases: Any = jnp.zeros(images, jnp.float32)
        self._waiting: dict[int, jax.Array] = {}

    def of_sums(self, depth: int) -> Epsilon:
        """The rule of sums without weights at a depth: all contributions count alike."""
        if depth >= self.of:
            # After the last layer with weights: how the score picks a unit, and no layer.
            return Epsilon()
        rule = self.depths.at(max(depth, 1), self.of)
        return rule if isinstance(rule, Epsilon) else Epsilon(rule.epsilon)

    def give(self, value: Value, r: jax.Array) -> None:
        """Adds to what a value has got, also where it was spread out to be read."""
        shape = value.array.shape
        if r.shape != shape:
            # An operand of one number along an axis is read by all along it.
            spread = [i for i in range(r.ndim) if not shape or shape[i] != r.shape[i]]
            r = jnp.sum(r, axis=tuple(spread), keepdims=bool(shape))
        before = self._waiting.get(id(value))
        self._waiting[id(value)] = r if before is None else before + r

    def taken(self, value: Value) -> jax.Array | None:
        """All that a value has got, once; None: nothing."""
        return self._waiting.pop(id(value), None)

    def keep(self, r: jax.Array | None) -> None:
        """Counts what a constant of the network got."""
        if r is None:
            return
        # The images may be the slower part of an axis, as the windows of an image are.
        if r.ndim == 0 or r.shape[0] % self.images:
            self.biases += jnp.nan
        else:
            self.biases += jnp.sum(r.reshape(self.images, -1), axis=1)


Back = Callable[[jax.Array, Passing], None]

#: How much of a gate a value is: none, bounded by rectifiers (ReLU6), or squashed and normalised.
_VALUE, _BOUNDED, _SQUASHED = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the program that depends on the image.

    Attributes:
        array: the value.
        back: hands its relevance on; None: the image.
        depth: the most layers with weights between the image and it.
        gate: of a product of values, the one that is less of a gate has all relevance.
        sides: on which constants bound it, of a single rectifier each.
        cut: whether it has been cut off from the gradient: a shift by it changes nothing.
        ends: what it is for a black and for a white image, while it is of one pixel each.
        affine: the value of which it is an affine map, and the map.
    """

    array: jax.Array
    back: Back | None
    depth: int = 0
    gate: int = _VALUE
    sides: frozenset[str] = frozenset()
    cut: bool = False
    ends: tuple[jax.Array, jax.Array] | None = None
    affine: tuple[Value, Affine] | None = None


def array_of(one: Any) -> Any:
    """What an input is, whether the image is in it or not."""
    return one.array if isinstance(one, Value) else one


def is_float(array: Any) -> bool:
    """Whether a value, or its type, can have relevance."""
    return bool(jnp.issubdtype(getattr(array, "dtype", type(array)), jnp.floating))


@dataclass(frozen=True, eq=False)
class Output:
    """An output of an equation, some of whose inputs depend on the image."""

    eqn: Any
    inputs: Sequence[Any]
    out: int = 0

    def of(self, *arrays: Any) -> jax.Array:
        """What it is for other inputs."""
        found: jax.Array = bind(self.eqn, arrays)[self.out]
        return found

    @functools.cached_property
    def array(self) -> jax.Array:
        """The value."""
        return self.of(*map(array_of, self.inputs))

    @property
    def name(self) -> str:
        """That of the operation."""
        return str(self.eqn.primitive.name)

    @property
    def values(self) -> list[Value]:
        """The inputs that depend on the image."""
        return [one for one in self.inputs if isinstance(one, Value)]

    @property
    def other(self) -> Any:
        """The input of two that does not depend on the image."""
        return next(one for one in self.inputs if not isinstance(one, Value))

    @property
    def ends(self) -> tuple[jax.Array, jax.Array] | None:
        """What it is for a black and for a white image, where it is of one pixel each."""
        if not all(value.ends for value in self.values):
            return None
        a, b = (
            self.of(*(one.ends[end] if isinstance(one, Value) else one for one in self.inputs))  # type: ignore[index]
            for end in (0, 1)
        )
        return (jnp.minimum(a, b), jnp.maximum(a, b)) if is_float(a) else None


def _like(values: Sequence[Value], array: jax.Array, back: Back, **fields: Any) -> Value:
    """A value that is as deep as the deepest of others, and as much of a gate as the least is."""
    return Value(
        array,
        back,
        **{
            "depth": max(one.depth for one in values),
            "gate": min(one.gate for one in values),
            "cut": all(one.cut for one in values),
            **fields,
        },
    )


def refused(given: Output) -> Value:
    """What has no rule: an error, once relevance gets here."""

    def back(r: jax.Array, passing: Passing) -> None:
        raise InputError(
            f"layer-wise relevance propagation has no rule for {given.name!r}"
            f"{_UNLESS.get(given.name, '')}, which is between the image and the score: explain a "
            "layer before it, or use a method of gradients (integrated_gradients) or of scores "
            "alone (occlusion, rise)"
        )

    if not any(jnp.issubdtype(value.array.dtype, jnp.inexact) for value in given.values):
        # What is made of a comparison is refused by the name of the comparison.
        return _like(given.values, given.array, given.values[0].back or back, gate=_SQUASHED)
    gate = _VALUE if is_float(given.array) else _SQUASHED
    cut = given.name == "stop_gradient"
    return _like(given.values, given.array, back, gate=_SQUASHED if cut else gate, cut=cut)


#: What operations that have a rule at times are refused for.
_UNLESS = {"while": " of a number of steps that is not known beforehand"}


def _nowhere(r: jax.Array, passing: Passing) -> None:
    """Of what has no derivative: there is nothing to hand on."""


def _moved(given: Output) -> Value:
    """What puts values elsewhere or picks some."""
    value = given.values[0]
    if given.name in REARRANGEMENTS and value.affine is not None:
        return _extended(given, moving(given.of))
    return replace(routed(given.of, given.inputs), ends=given.ends)


def routed(function: Callable[..., jax.Array], inputs: Sequence[Any]) -> Value:
    """What a function picks of its inputs: relevance goes to where they came from."""
    arrays = [array_of(one) for one in inputs]
    values = [one for one in inputs if isinstance(one, Value)]
    places = [i for i, one in enumerate(inputs) if isinstance(one, Value) and is_float(one.array)]
    if not places:
        return _like(values, function(*arrays), values[0].back or _nowhere, gate=_SQUASHED)

    def of(*chosen: jax.Array) -> jax.Array:
        filled = list(arrays)
        for place, array in zip(places, chosen, strict=True):
            filled[place] = array
        return function(*filled)

    def back(r: jax.Array, passing: Passing) -> None:
        found = jax.vjp(of, *(arrays[i] for i in places))[1](r)
        for place, part in zip(places, found, strict=True):
            passing.give(inputs[place], part)

    return _like([inputs[i] for i in places], function(*arrays), back)


def _handed(given: Output, value: Value, **fields: Any) -> Value:
    """What hands relevance on to one value as it is."""
    return _like([value], given.array, lambda r, passing: passing.give(value, r), **fields)


def _each(given: Output) -> Value:
    """A function of single values."""
    if len(given.values) > 1:
        return refused(given) if given.name not in ("max", "min") else _moved(given)
    (value,) = given.values
    sides = _SIDES.get(given.name, frozenset())
    gate = max(value.gate, _SQUASHED if _squashes(given) else _VALUE)
    if sides | value.sides == {"below", "above"}:
        gate = max(gate, _BOUNDED)
    return _handed(given, value, gate=gate, sides=sides | value.sides, ends=given.ends)


def _squashes(given: Output) -> bool:
    if given.name == "integer_pow":
        return int(given.eqn.params["y"]) < 0
    if given.name == "pow":
        exponent = given.inputs[1]
        return not isinstance(exponent, jax.core.Tracer) and bool(np.all(np.asarray(exponent) < 0))
    return given.name in _SQUASHING


def _added(given: Output) -> Value:
    """A sum or a difference."""
    values, minus = given.values, given.name == "sub"
    if len(values) == 1:
        first = isinstance(given.inputs[0], Value)
        bias = jnp.broadcast_to(given.other, given.array.shape)
        turned = _turned(given.array) if minus and not first else None
        return _extended(given, turned, -bias if minus and first else bias)
    whole = [one for one in values if not one.cut]
    if len(whole) == 1:
        return _handed(given, whole[0])
    signs = (1, -1 if minus else 1)

    def back(r: jax.Array, passing: Passing) -> None:
        factor = passing.of_sums(found.depth).factor(given.array, r)
        for value, sign in zip(values, signs, strict=True):
            passing.give(value, sign * value.array * factor)

    found = _like(values, given.array, back)
    return found


def _turned(array: jax.Array) -> Step:
    return weighing(lambda x, w: x * w, -jnp.ones((), array.dtype))


def _negated(given: Output) -> Value:
    return _extended(given, _turned(given.array))


def product(given: Output) -> Value:
    """A product, of which each factor is linear."""
    if len(given.values) == 2:
        return _divided(given)
    first = isinstance(given.inputs[0], Value)
    step = weighing(lambda x, w: given.of(*((x, w) if first else (w, x))), given.other)
    if given.name == "mul":
        return _extended(given, step)
    (value,) = given.values
    return _layer(given, value, Affine((step,), weighted=True), gate=_VALUE)


def _quotient(given: Output) -> Value:
    """A quotient, of which what is divided gets all."""
    value = given.values[0]
    if given.inputs[0] is not value:
        return _handed(given, value, gate=_SQUASHED)
    if len(given.values) == 2:
        return _handed(given, value, cut=False)
    return _extended(given, weighing(lambda x, w: x * w, 1 / given.other))


def _divided(given: Output) -> Value:
    """A product of two values: by their gates all to one, or half to each."""
    values = given.values
    least = min(one.gate for one in values)

    def back(r: jax.Array, passing: Passing) -> None:
        halved = passing.depths.halved and given.name == "dot_general"
        places = [i for i, one in enumerate(values) if halved or one.gate == least]
        if given.name == "mul":
            for i in places:
                passing.give(values[i], r / len(places))
            return
        factor = passing.of_sums(found.depth).factor(given.array, r) / len(places)
        gained = jax.vjp(given.of, *(one.array for one in values))[1](factor)
        for i in places:
            passing.give(values[i], values[i].array * gained[i])

    found = _like(values, given.array, back)
    return found


def _scattered(given: Output) -> Value:
    """A sum at some places of a value."""
    whole, places, added = given.inputs
    places = array_of(places)
    given = Output(given.eqn, (whole, places, added))
    if not isinstance(added, Value):
        return _extended(given, None, given.of(jnp.zeros_like(given.array), places, added))

    def moved(x: jax.Array) -> jax.Array:
        return given.of(jnp.zeros_like(given.array), places, x)

    if not isinstance(whole, Value):
        return _layer(given, added, Affine((moving(moved),)).plus(whole))

    def back(r: jax.Array, passing: Passing) -> None:
        factor = passing.of_sums(found.depth).factor(given.array, r)
        passing.give(whole, whole.array * factor)
        passing.give(added, added.array * jax.vjp(moved, added.array)[1](factor)[0])

    found = _like((whole, added), given.array, back)
    return found


def _summed(given: Output) -> Value:
    """What adds up parts of one value."""
    (value,) = given.values
    return _layer(given, value, Affine((moving(given.of),)))


def _extended(given: Output, step: Step | None, bias: jax.Array | None = None) -> Value:
    """An affine map of each number alone, merged with the affine map before it."""
    (value,) = given.values
    if value.ends is not None:
        return _handed(given, value, ends=given.ends)
    start, affine = value.affine or (value, Affine())
    if step is None and value.array.shape != given.array.shape:
        step = moving(lambda x: jnp.broadcast_to(x, given.array.shape))
    affine = affine if step is None else affine.then(step)
    return _layer(given, start, affine if bias is None else affine.plus(bias), value.gate)


def _layer(given: Output, start: Value, affine: Affine, gate: int = _VALUE) -> Value:
    """An affine map of a value."""

    def back(r: jax.Array, passing: Passing) -> None:
        rule = passing.depths.at(depth, passing.of) if affine.weighted else passing.of_sums(depth)
        if affine.weighted and passing.depths.bounded and start.ends is not None:
            passing.give(start, affine.back_bounded(start.array, r, *start.ends))
            return
        z, used = given.array, affine
        if affine.bias is not None and not passing.depths.biased:
            z, used = z - affine.bias, replace(affine, bias=None)
        gained, kept = used.back(start.array, z, r, rule)
        passing.give(start, gained)
        passing.keep(kept)

    depth = start.depth + affine.weighted
    return Value(given.array, back, depth, gate, cut=start.cut, affine=(start, affine))


_SIDES = {
    "max": frozenset({"below"}),
    "min": frozenset({"above"}),
    "clamp": frozenset({"below", "above"}),
}

_SQUASHING = frozenset({"exp", "exp2", "logistic", "tanh", "erf", "erfc", "rsqrt", "sign"})

WAYS: dict[str, Callable[[Output], Value]] = {
    **dict.fromkeys(("add", "sub", "add_any"), _added),
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), product),
    **dict.fromkeys(SUMS, _summed),
    "div": _quotient,
    "scatter-add": _scattered,
    "neg": _negated,
    **dict.fromkeys(
        {
            *_SQUASHING, *_SIDES, "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt",
            "ceil", "cos", "cosh", "erf_inv", "expm1", "floor", "integer_pow", "log", "log1p",
            "log2", "pow", "round", "sin", "sinh", "sqrt", "square", "tan",
        },
        _each,
    ),
    **dict.fromkeys(
        {
            *REARRANGEMENTS, "concatenate", "cummax", "cummin", "dynamic_slice",
            "dynamic_update_slice", "featvis_kept", "gather", "name", "optimization_barrier", "pad",
            "reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "scatter",
            "select_n", "sort", "split", "stack", "tile", "top_k", "unstack",
        },
        _moved,
    ),
}  # fmt: skip
