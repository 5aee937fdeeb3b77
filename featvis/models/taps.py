"""Naming intermediate values of a function, and taking them out of its traced program.

`tap` leaves a mark in the program that JAX traces; nothing is stored while the function runs. So
the named values come out of functions under `jit`, `vmap`, `remat` and `scan`, and a function with
taps in it is otherwise what it was: it trains, differentiates and compiles as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from featvis.errors import InputError
from featvis.kernels import conv_of_equation
from featvis.programs import evaluate

_mark = core.Primitive("featvis_tap")
_mark.def_impl(lambda x, **name: x)
_mark.def_abstract_eval(lambda x, **name: x)
mlir.register_lowering(_mark, lambda context, x, **name: [x])


def _mark_jvp(primals: Sequence[Any], tangents: Sequence[Any], **name: Any) -> tuple[Any, Any]:
    return _mark.bind(*primals, **name), tangents[0]


def _mark_batch(args: Sequence[Any], axes: Sequence[Any], **name: Any) -> tuple[Any, int]:
    # In front, where the images' axis belongs: a batched product may have put it anywhere.
    return _mark.bind(jnp.moveaxis(args[0], axes[0], 0), **name), 0


ad.primitive_jvps[_mark] = _mark_jvp
batching.primitive_batchers[_mark] = _mark_batch


def tap(x: jax.Array, name: str) -> jax.Array:
    """Names a value inside a function, so that it is a layer of the model made of it.

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
    return _mark.bind(jnp.asarray(x), name=name, asked=True)


def tap_outputs(outputs: Any, name: str) -> Any:
    """Names every array of a pytree: one alone by `name`, the parts of more by `name/part`."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(outputs)
    marked = [
        _mark.bind(leaf, name=part_name(name, path), asked=False)
        if hasattr(leaf, "dtype")
        else leaf
        for path, leaf in leaves
    ]
    return jax.tree.unflatten(tree, marked)


def part_name(name: str, path: Any) -> str:
    """`name/part` for the place of an array in a pytree; `name` for an array alone."""
    return "/".join([name, *(jax.tree_util.keystr((key,), simple=True) for key in path)])


class Taps:
    """Named values in the order in which they were computed."""

    def __init__(self) -> None:
        self.values: dict[str, jax.Array] = {}
        self.asked: set[str] = set()

    def add(self, name: str, value: Any, *, asked: bool) -> None:
        """Adds a value; the second of a name is `name.1`, and so on."""
        unique, number = name, 0
        while unique in self.values:
            number += 1
            unique = f"{name}.{number}"
        self.values[unique] = value
        if asked:
            self.asked.add(unique)


def collect(function: Callable[..., Any], *args: Any) -> tuple[Any, Taps]:
    """Calls `function`, and gives the values that are tapped in it beside its result.

    Raises:
        InputError: `tap` inside a while loop, a branch or a function with a gradient of its own.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    taps = Taps()
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(args)]
    outputs = _evaluate(closed.jaxpr, closed.consts, leaves, taps)
    return jax.tree.unflatten(jax.tree.structure(shape), outputs), taps


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], taps: Taps) -> list[Any]:
    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
        if eqn.primitive is _mark:
            taps.add(eqn.params["name"], inputs[0], asked=eqn.params["asked"])
            return inputs
        if eqn.primitive.name == "jit":
            # Also without taps, so that what goes through unchanged stays the same object.
            inner = eqn.params["jaxpr"]
            return _evaluate(inner.jaxpr, inner.consts, inputs, taps)
        names = _tapped(eqn)
        if not names:
            return conv_of_equation(eqn, inputs)
        if eqn.primitive.name in ("remat2", "checkpoint"):
            return _evaluate(eqn.params["jaxpr"], (), inputs, taps)
        if eqn.primitive.name == "scan":
            return _scan(eqn, inputs, taps)
        asked = [name for name, wanted in names if wanted]
        if asked:
            raise InputError(
                f"tap({asked[0]!r}) is inside a {eqn.primitive.name}, out of which no value "
                "can be taken: tap what comes out of it"
            )
        return None

    return evaluate(jaxpr, consts, args, rule)


def _tapped(eqn: Any) -> list[tuple[str, bool]]:
    """The taps in the programs inside an equation."""
    found = []
    for inner in core.jaxprs_in_params(eqn.params):
        for one in inner.eqns:
            if one.primitive is _mark:
                found.append((one.params["name"], one.params["asked"]))
            found += _tapped(one)
    return found


def _scan(eqn: Any, inputs: Sequence[Any], taps: Taps) -> list[Any]:
    """A scan that also gives what is tapped in each of its steps."""
    params = eqn.params
    consts = inputs[: params["num_consts"]]
    rest = inputs[params["num_consts"] :]
    carried, scanned = rest[: params["num_carry"]], rest[params["num_carry"] :]
    inside = Taps()

    def body(carry: Any, xs: Any) -> Any:
        nonlocal inside
        inside = Taps()
        inner = params["jaxpr"]
        outputs = _evaluate(inner.jaxpr, inner.consts, [*consts, *carry, *xs], inside)
        count = params["num_carry"]
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
    for i in range(params["num_carry"]):
        # What goes through unchanged stays the same object, as in `jit`.
        if inner.outvars[i] is inner.invars[params["num_consts"] + i]:
            carry[i] = carried[i]
    steps = range(params["length"])
    for step in reversed(steps) if params["reverse"] else steps:
        for name in inside.values:
            taps.add(name, stacked[name][step], asked=name in inside.asked)
    return [*carry, *outputs]
