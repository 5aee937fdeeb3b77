"""Layer-wise relevance propagation through a traced program, with a rule for each operation.

The program of a score is evaluated once and every value on the way from the image remembers how
relevance goes back from it: a score's relevance is the score, and each value hands on what it got.

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from featvis.errors import InputError
from featvis.jaxprs.affine import Affine, Depths, Epsilon, Step, moving, weighing
from featvis.jaxprs.evaluate import bind, evaluate, program_inside, scan_counts
from featvis.jaxprs.linearity import REARRANGEMENTS, SUMS, is_linear
from featvis.jaxprs.liveness import alive


class Relevance(NamedTuple):
    """A score's relevance, divided among pixels and biases.

    Attributes:
        pixels: of each pixel and colour, (n, h, w, c).
        score: what was divided, (n,).
        biases: what biases and other constants of the network kept, (n,); NaN where some value's
            first axis is not that of the images. What is missing from the sum was lost to ε, or to
            sums without a contribution of the sign asked for.
    """

    pixels: jax.Array
    score: jax.Array
    biases: jax.Array


def relevance(
    function: Callable[[jax.Array], jax.Array], images: jax.Array, depths: Depths
) -> Relevance:
    """The relevance of the pixels of images to their scores.

    Args:
        function: of images to scores (n,), which JAX can trace.
        images: (n, h, w, c) in [0, 1].
        depths: the rules.

    Raises:
        InputError: an operation between a pixel and the score without a rule; names it.
    """
    closed = jax.make_jaxpr(function)(images)
    ends = jnp.zeros_like(images), jnp.ones_like(images)
    pixels = _Value(images, None, ends=ends)
    made = [pixels]
    (out,) = _walk(closed.jaxpr, closed.consts, [pixels], made)
    if not isinstance(out, _Value):
        nothing = jnp.zeros(len(images), images.dtype)
        return Relevance(jnp.zeros_like(images), jnp.asarray(out), nothing)
    passing = _Passing(depths, max(out.depth, 1), len(images))
    passing.give(out, out.array)
    for value in reversed(made[1:]):
        given = passing.taken(value)
        if given is not None and value.back is not None:
            value.back(given, passing)
    found = passing.taken(pixels)
    none = jnp.zeros_like(images)
    return Relevance(none if found is None else found, out.array, passing.biases)


class _Passing:
    """Relevance on its way back."""

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

    def give(self, value: _Value, r: jax.Array) -> None:
        shape = value.array.shape
        if r.shape != shape:
            # An operand of one number along an axis is read by all along it.
            spread = [i for i in range(r.ndim) if not shape or shape[i] != r.shape[i]]
            r = jnp.sum(r, axis=tuple(spread), keepdims=bool(shape))
        before = self._waiting.get(id(value))
        self._waiting[id(value)] = r if before is None else before + r

    def taken(self, value: _Value) -> jax.Array | None:
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


_Back = Callable[[jax.Array, _Passing], None]

#: How much of a gate a value is: none, bounded by rectifiers (ReLU6), or squashed and normalised.
_VALUE, _BOUNDED, _SQUASHED = 0, 1, 2


@dataclass(frozen=True, eq=False)
class _Value:
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
    back: _Back | None
    depth: int = 0
    gate: int = _VALUE
    sides: frozenset[str] = frozenset()
    cut: bool = False
    ends: tuple[jax.Array, jax.Array] | None = None
    affine: tuple[_Value, Affine] | None = None


def _array(one: Any) -> Any:
    return one.array if isinstance(one, _Value) else one


def _is_float(array: Any) -> bool:
    return bool(jnp.issubdtype(getattr(array, "dtype", type(array)), jnp.floating))


def _walk(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], made: list[_Value]) -> list[Any]:
    """Evaluates a program; what depends on the image is a `_Value`, and all are put into `made`."""
    needed = alive(jaxpr.outvars, jaxpr)

    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
        if not any(v in needed for v in eqn.outvars):
            return [None] * len(eqn.outvars)
        if not any(isinstance(one, _Value) for one in inputs):
            return None
        layer, inner = _is_layer(eqn, inputs), program_inside(eqn)
        if eqn.primitive.name == "scan":
            return _scan(eqn, inputs, made)
        if inner is not None and len(inner[0].invars) == len(inputs) and not layer:
            return _walk(*inner, inputs, made)
        way = _product if layer else _WAYS.get(eqn.primitive.name, _refused)
        floats = any(isinstance(one, _Value) and _is_float(one.array) for one in inputs)
        outputs = [
            (way if floats and _is_float(v.aval) else _refused)(_Output(eqn, inputs, out))
            for out, v in enumerate(eqn.outvars)
        ]
        made.extend(outputs)
        return outputs

    return evaluate(jaxpr, consts, args, rule)


def _is_layer(eqn: Any, inputs: Sequence[Any]) -> bool:
    """Whether a function with a gradient of its own is a product of a value and weights."""
    program = eqn.params.get("call_jaxpr")
    two = len(inputs) == 2 and sum(isinstance(one, _Value) for one in inputs) == 1
    if not two or len(eqn.outvars) != 1 or not hasattr(program, "jaxpr"):
        return False
    return eqn.primitive.name.startswith("custom_") and all(is_linear(program, i) for i in (0, 1))


def _scan(eqn: Any, inputs: Sequence[Any], made: list[_Value]) -> list[Any]:
    """A scan, step by step."""
    params, inner = eqn.params, eqn.params["jaxpr"]
    same, count = scan_counts(eqn)
    fixed, carried, scanned = inputs[:same], inputs[same : same + count], inputs[same + count :]
    steps: list[Sequence[Any]] = [()] * params["length"]
    order = range(params["length"])

    def moved(function: Callable[..., jax.Array], *parts: Any) -> Any:
        if not any(isinstance(one, _Value) for one in parts):
            return function(*parts)
        made.append(_routed(function, parts))
        return made[-1]

    for step in reversed(order) if params["reverse"] else order:
        rows = [moved(lambda one, step=step: one[step], one) for one in scanned]
        out = _walk(inner.jaxpr, inner.consts, [*fixed, *carried, *rows], made)
        carried, steps[step] = out[:count], out[count:]
    stacked = [moved(lambda *rows: jnp.stack(rows), *rows) for rows in zip(*steps, strict=True)]
    return [*carried, *stacked]


@dataclass(frozen=True, eq=False)
class _Output:
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
        return self.of(*map(_array, self.inputs))

    @property
    def name(self) -> str:
        return str(self.eqn.primitive.name)

    @property
    def values(self) -> list[_Value]:
        return [one for one in self.inputs if isinstance(one, _Value)]

    @property
    def other(self) -> Any:
        """The input of two that does not depend on the image."""
        return next(one for one in self.inputs if not isinstance(one, _Value))

    @property
    def ends(self) -> tuple[jax.Array, jax.Array] | None:
        """What it is for a black and for a white image, where it is of one pixel each."""
        if not all(value.ends for value in self.values):
            return None
        a, b = (
            self.of(*(one.ends[end] if isinstance(one, _Value) else one for one in self.inputs))  # type: ignore[index]
            for end in (0, 1)
        )
        return (jnp.minimum(a, b), jnp.maximum(a, b)) if _is_float(a) else None


def _like(values: Sequence[_Value], array: jax.Array, back: _Back, **fields: Any) -> _Value:
    """A value that is as deep as the deepest of others, and as much of a gate as the least is."""
    return _Value(
        array,
        back,
        **{
            "depth": max(one.depth for one in values),
            "gate": min(one.gate for one in values),
            "cut": all(one.cut for one in values),
            **fields,
        },
    )


def _refused(given: _Output) -> _Value:
    """What has no rule: an error, once relevance gets here."""

    def back(r: jax.Array, passing: _Passing) -> None:
        raise InputError(
            f"layer-wise relevance propagation has no rule for {given.name!r}, which is between "
            "the image and the score: explain a layer before it, or use a method of gradients "
            "(integrated_gradients) or of scores alone (occlusion, rise)"
        )

    if not any(jnp.issubdtype(value.array.dtype, jnp.inexact) for value in given.values):
        # What is made of a comparison is refused by the name of the comparison.
        return _like(given.values, given.array, given.values[0].back or back, gate=_SQUASHED)
    gate = _VALUE if _is_float(given.array) else _SQUASHED
    cut = given.name == "stop_gradient"
    return _like(given.values, given.array, back, gate=_SQUASHED if cut else gate, cut=cut)


def _moved(given: _Output) -> _Value:
    """What puts values elsewhere or picks some."""
    value = given.values[0]
    if given.name in REARRANGEMENTS and value.affine is not None:
        return _extended(given, moving(given.of))
    return replace(_routed(given.of, given.inputs), ends=given.ends)


def _routed(function: Callable[..., jax.Array], inputs: Sequence[Any]) -> _Value:
    """What a function picks of its inputs: relevance goes to where they came from."""
    arrays = [_array(one) for one in inputs]
    places = [i for i, one in enumerate(inputs) if isinstance(one, _Value) and _is_float(one.array)]

    def of(*chosen: jax.Array) -> jax.Array:
        filled = list(arrays)
        for place, array in zip(places, chosen, strict=True):
            filled[place] = array
        return function(*filled)

    def back(r: jax.Array, passing: _Passing) -> None:
        found = jax.vjp(of, *(arrays[i] for i in places))[1](r)
        for place, part in zip(places, found, strict=True):
            passing.give(inputs[place], part)

    return _like([inputs[i] for i in places], function(*arrays), back)


def _handed(given: _Output, value: _Value, **fields: Any) -> _Value:
    """What hands relevance on to one value as it is."""
    return _like([value], given.array, lambda r, passing: passing.give(value, r), **fields)


def _each(given: _Output) -> _Value:
    """A function of single values."""
    if len(given.values) > 1:
        return _refused(given) if given.name not in ("max", "min") else _moved(given)
    (value,) = given.values
    sides = _SIDES.get(given.name, frozenset())
    gate = max(value.gate, _SQUASHED if _squashes(given) else _VALUE)
    if sides | value.sides == {"below", "above"}:
        gate = max(gate, _BOUNDED)
    return _handed(given, value, gate=gate, sides=sides | value.sides, ends=given.ends)


def _squashes(given: _Output) -> bool:
    if given.name == "integer_pow":
        return int(given.eqn.params["y"]) < 0
    if given.name == "pow":
        exponent = given.inputs[1]
        return not isinstance(exponent, jax.core.Tracer) and bool(np.all(np.asarray(exponent) < 0))
    return given.name in _SQUASHING


def _added(given: _Output) -> _Value:
    """A sum or a difference."""
    values, minus = given.values, given.name == "sub"
    if len(values) == 1:
        first = isinstance(given.inputs[0], _Value)
        bias = jnp.broadcast_to(given.other, given.array.shape)
        turned = _turned(given.array) if minus and not first else None
        return _extended(given, turned, -bias if minus and first else bias)
    whole = [one for one in values if not one.cut]
    if len(whole) == 1:
        return _handed(given, whole[0])
    signs = (1, -1 if minus else 1)

    def back(r: jax.Array, passing: _Passing) -> None:
        factor = passing.of_sums(found.depth).factor(given.array, r)
        for value, sign in zip(values, signs, strict=True):
            passing.give(value, sign * value.array * factor)

    found = _like(values, given.array, back)
    return found


def _turned(array: jax.Array) -> Step:
    return weighing(lambda x, w: x * w, -jnp.ones((), array.dtype))


def _negated(given: _Output) -> _Value:
    return _extended(given, _turned(given.array))


def _product(given: _Output) -> _Value:
    """A product, of which each factor is linear."""
    if len(given.values) == 2:
        return _divided(given)
    first = isinstance(given.inputs[0], _Value)
    step = weighing(lambda x, w: given.of(*((x, w) if first else (w, x))), given.other)
    if given.name == "mul":
        return _extended(given, step)
    (value,) = given.values
    return _layer(given, value, Affine((step,), weighted=True), gate=_VALUE)


def _quotient(given: _Output) -> _Value:
    """A quotient, of which what is divided gets all."""
    value = given.values[0]
    if given.inputs[0] is not value:
        return _handed(given, value, gate=_SQUASHED)
    if len(given.values) == 2:
        return _handed(given, value, cut=False)
    return _extended(given, weighing(lambda x, w: x * w, 1 / given.other))


def _divided(given: _Output) -> _Value:
    """A product of two values: by their gates all to one, or half to each."""
    values = given.values
    least = min(one.gate for one in values)
    places = [i for i, one in enumerate(values) if one.gate == least]

    def back(r: jax.Array, passing: _Passing) -> None:
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


def _summed(given: _Output) -> _Value:
    """What adds up parts of one value."""
    (value,) = given.values
    return _layer(given, value, Affine((moving(given.of),)))


def _extended(given: _Output, step: Step | None, bias: jax.Array | None = None) -> _Value:
    """An affine map of each number alone, merged with the affine map before it."""
    (value,) = given.values
    if value.ends is not None:
        return _handed(given, value, ends=given.ends)
    start, affine = value.affine or (value, Affine())
    if step is None and value.array.shape != given.array.shape:
        step = moving(lambda x: jnp.broadcast_to(x, given.array.shape))
    affine = affine if step is None else affine.then(step)
    return _layer(given, start, affine if bias is None else affine.plus(bias), value.gate)


def _layer(given: _Output, start: _Value, affine: Affine, gate: int = _VALUE) -> _Value:
    """An affine map of a value."""

    def back(r: jax.Array, passing: _Passing) -> None:
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
    return _Value(given.array, back, depth, gate, cut=start.cut, affine=(start, affine))


_SIDES = {
    "max": frozenset({"below"}),
    "min": frozenset({"above"}),
    "clamp": frozenset({"below", "above"}),
}

_SQUASHING = frozenset({"exp", "exp2", "logistic", "tanh", "erf", "erfc", "rsqrt", "sign"})

_WAYS: dict[str, Callable[[_Output], _Value]] = {
    **dict.fromkeys(("add", "sub", "add_any"), _added),
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), _product),
    **dict.fromkeys(SUMS, _summed),
    "div": _quotient,
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
