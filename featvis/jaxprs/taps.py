"""Naming intermediate values of a function, and taking them out of its traced program.

A name is a mark in the program that JAX traces, beside the value and not on its way: nothing is
stored while the function runs, and what a network hands from part to part stays the very object
that it was. The named values come out of functions under `jit`, `vmap`, `remat` and `scan`, and a
function with taps in it is otherwise what it was: it trains, differentiates and compiles as before.
"""

from __future__ import annotations

import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from featvis.errors import InputError
from featvis.jaxprs.evaluate import evaluate, scan_counts
from featvis.kernels import conv_of_equation

Kind = Literal["asked", "layer", "result", "key", "state"]
"""What a mark is of: a value that `tap` names, one that a part of a network gives, what the whole
gives (by the place in it), what it gives under a key, or a variable before and after the call."""

_mark = core.Primitive("featvis_tap")
_mark.def_impl(lambda x, **name: x)
_mark.def_abstract_eval(lambda x, **name: x)
mlir.register_lowering(_mark, lambda context, x, **name: [x])


def _mark_jvp(primals: Sequence[Any], tangents: Sequence[Any], **name: Any) -> tuple[Any, Any]:
    return _mark.bind(*primals, **name), tangents[0]


ad.primitive_jvps[_mark] = _mark_jvp


def _mark_batch(args: Sequence[Any], axes: Sequence[Any], **name: Any) -> tuple[Any, int]:
    # In front, where the images' axis belongs: a batched product may have put it anywhere.
    return _mark.bind(jnp.moveaxis(args[0], axes[0], 0), **name), 0


batching.primitive_batchers[_mark] = _mark_batch


@dataclass
class _Recording:
    """What a trace keeps beside its program."""

    marks: list[Any] = field(default_factory=list)  # JAX drops equations that nobody holds
    left_out: list[tuple[Kind, str, str]] = field(default_factory=list)


_recording: contextvars.ContextVar[_Recording | None] = contextvars.ContextVar(
    "recording", default=None
)


def tap(x: jax.Array, name: str) -> jax.Array:
    """Name a value inside a function, so that it is a layer of the model made of it.

    Args:
        x: an array whose first axis is the images', or which has one such axis under `vmap`.
        name: of the layer. A second value of the same name is `name.1`, and so on.

    Returns:
        `x` itself, as far as the function is concerned.

    Raises:
        InputError: the name is not a text, or `x` is not an array.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"tap: a layer's name is a text; got {name!r}")
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise InputError(f"tap({name!r}): an array is expected; got {type(x).__name__}")
    if isinstance(x, jax.core.Tracer):
        # On the way of the value: a program that was traced before we look keeps it.
        return _mark.bind(x, name=name, kind="asked")
    recording = _recording.get()
    if recording is not None:
        recording.marks.append(_mark.bind(jnp.asarray(x), name=name, kind="asked"))
    return x


def is_recording() -> bool:
    """Whether what runs now is being traced for its layers."""
    return _recording.get() is not None


def note(value: Any, name: str, kind: Kind = "layer") -> None:
    """Names all arrays of what a part of a network gives, and changes nothing.

    One alone has the name itself, the parts of more `name/part`. What holds no traced array of
    numbers is noted as left out.
    """
    recording = _recording.get()
    if recording is None:
        return
    for part, leaf in _parts(value, name):
        if isinstance(leaf, jax.core.Tracer):
            recording.marks.append(_mark.bind(leaf, name=part, kind=kind))
        elif isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
            recording.left_out.append((kind, part, "the same for all images"))
        else:
            recording.left_out.append((kind, part, f"a {type(leaf).__name__}, no array"))


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The arrays of a value, and what else is in it, by their names."""
    # What can be called is a part of a network, and its weights are no activations.
    if value is None:
        return
    if isinstance(value, (jax.Array, np.ndarray, np.generic)) or callable(value):
        yield name, value
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, child in zip(value._fields, value, strict=True):
            yield from _parts(child, join(name, key))
    elif isinstance(value, Mapping):
        try:
            keys = sorted(value)
        except TypeError:
            keys = list(value)
        for key in keys:
            yield from _parts(value[key], join(name, str(key)))
    else:
        # None of what JAX knows not: a generator, which must not be used up, a set, an object.
        known = jax.tree_util.default_registry.flatten_one_level_with_keys(value)
        if known is None:
            yield name, value
            return
        for key, child in known[0]:
            yield from _parts(child, join(name, jax.tree_util.keystr((key,), simple=True)))


def join(name: str, part: str) -> str:
    """`name/part`, of which either may be empty."""
    return f"{name}/{part}" if name and part else name or part


@dataclass
class Taps:
    """Named values in the order in which they were computed.

    Attributes:
        values: of the layers, by their unique names.
        asked: names of those that `tap` was asked for.
        results: what the network gives, (kind, place or key, value).
        left_out: what is no layer for what it is, (kind, name, reason).
        state: values of variables, before the call and after it.
    """

    values: dict[str, Any] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    results: list[tuple[Kind, str, Any]] = field(default_factory=list)
    left_out: list[tuple[Kind, str, str]] = field(default_factory=list)
    state: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, name: str, kind: Kind, value: Any) -> None:
        """Adds a value; the second layer of a name is `name.1`, and so on."""
        if kind == "state":
            self.state.setdefault(name, []).append(value)
        elif kind in ("result", "key"):
            self.results.append((kind, name, value))
        else:
            unique = self.unique(name)
            self.values[unique] = value
            if kind == "asked":
                self.asked.add(unique)

    def all(self) -> list[Any]:
        """The values of the layers and of the results."""
        return [*self.values.values(), *(value for _, _, value in self.results)]

    def unique(self, name: str) -> str:
        """The name that the next layer called so has."""
        unique, number = name, 0
        while unique in self.values:
            number += 1
            unique = f"{name}.{number}"
        return unique


@dataclass(frozen=True)
class Traced:
    """A program with marks in it.

    Attributes:
        program: what JAX traced.
        left_out: what was noted beside it.
    """

    program: Any
    left_out: tuple[tuple[Kind, str, str], ...]


def trace(function: Callable[..., Any], *args: Any) -> Traced:
    """The program of a function, whose result nobody needs, with the marks in it.

    Args:
        function: of what follows; what it gives is dropped.
        *args: pytrees of arrays, or of anything with their shapes.
    """
    recording = _Recording()

    def marked(*args: Any) -> None:
        function(*args)

    before = _recording.set(recording)
    try:
        program = jax.make_jaxpr(marked)(*args)
    finally:
        _recording.reset(before)
    return Traced(program, tuple(recording.left_out))


def collect(function: Callable[..., Any], *args: Any) -> Taps:
    """Calls `function`, and gives the values that are named in it.

    Raises:
        InputError: `tap` inside a while loop, a branch or a function with a gradient of its own.
    """
    traced = trace(function, *args)
    taps = Taps(left_out=list(traced.left_out))
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(args)]
    _evaluate(traced.program.jaxpr, traced.program.consts, leaves, taps)
    return taps


def is_mark(eqn: Any) -> bool:
    """Whether an equation of a program is a mark; its `params` are `name` and `kind`."""
    return eqn.primitive is _mark


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], taps: Taps) -> list[Any]:
    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
        if eqn.primitive is _mark:
            taps.add(eqn.params["name"], eqn.params["kind"], inputs[0])
            return inputs
        if eqn.primitive.name == "jit":
            # Also without taps, so that what goes through unchanged stays the same object.
            inner = eqn.params["jaxpr"]
            return _evaluate(inner.jaxpr, inner.consts, inputs, taps)
        if not marks_inside(eqn):
            return conv_of_equation(eqn, inputs)
        if eqn.primitive.name in REMATS:
            return _evaluate(eqn.params["jaxpr"], (), inputs, taps)
        if eqn.primitive.name == "scan":
            return _scan(eqn, inputs, taps)
        return None

    return evaluate(jaxpr, consts, args, rule)


#: What `jax.checkpoint` is called in a program.
REMATS = ("remat2", "checkpoint", "remat")


def marks_inside(eqn: Any) -> bool:
    """Whether there are marks in the programs inside an equation.

    Raises:
        InputError: values that were asked for are inside, and it is none of those out of which
            they can be taken.
    """
    names = _marks(eqn)
    if names and eqn.primitive.name not in ("jit", "scan", *REMATS):
        asked = [name for name, kind in names if kind == "asked"]
        if asked:
            raise InputError(
                f"tap({asked[0]!r}) is inside a {eqn.primitive.name}, out of which no value "
                "can be taken: tap what comes out of it"
            )
    return bool(names)


def _marks(eqn: Any) -> list[tuple[str, Kind]]:
    found = []
    for inner in core.jaxprs_in_params(eqn.params):
        for one in inner.eqns:
            if one.primitive is _mark:
                found.append((one.params["name"], one.params["kind"]))
            found += _marks(one)
    return found


def _scan(eqn: Any, inputs: Sequence[Any], taps: Taps) -> list[Any]:
    """A scan that also gives what is marked in each of its steps."""
    params = eqn.params
    same, count = scan_counts(eqn)
    consts, rest = inputs[:same], inputs[same:]
    carried, scanned = rest[:count], rest[count:]
    inside = Taps()

    def body(carry: Any, xs: Any) -> Any:
        nonlocal inside
        inside = Taps()
        inner = params["jaxpr"]
        outputs = _evaluate(inner.jaxpr, inner.consts, [*consts, *carry, *xs], inside)
        return outputs[:count], (outputs[count:], inside.values)

    carry, (outputs, stacked) = jax.lax.scan(
        body,
        list(carried),
        list(scanned),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    inner = params["jaxpr"].jaxpr
    for i in range(count):
        # What goes through unchanged stays the same object, as in `jit`.
        if inner.outvars[i] is inner.invars[same + i]:
            carry[i] = carried[i]
    inside = dataclasses.replace(inside, values=stacked)
    add_steps(taps, inside, params, lambda value, step: value[step])
    return [*carry, *outputs]


def add_steps(
    taps: Taps, inside: Taps, params: Mapping[str, Any], of: Callable[[Any, int], Any]
) -> None:
    """Adds what is marked in the steps of a scan, in the order in which it takes them.

    Args:
        taps: to which it is added.
        inside: what is marked in a step.
        params: of the equation of the scan.
        of: what a value is in one step.
    """
    steps = range(params["length"])
    for step in reversed(steps) if params["reverse"] else steps:
        for name, value in inside.values.items():
            kind: Kind = "asked" if name in inside.asked else "layer"
            taps.add(name, kind, of(value, step))
