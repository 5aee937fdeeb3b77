"""Values put into a traced program: what its results would be, were a layer's values others.

A network's layers come out of its program as results, and what is computed from them goes on beside
them. To ask how a score depends on a layer, something is added to it where it is made, and the rest
of the program is evaluated with the sum.

What comes out may be another array than what goes on: turned, reshaped, a part of it, or a step of
a scan. Such moves are followed back to the array that goes on, and what is added to the layer is
added there, moved back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from featvis.errors import InputError
from featvis.jaxprs.evaluate import bind, evaluate, scan_counts
from featvis.jaxprs.liveness import alive
from featvis.jaxprs.taps import REMATS

#: What moves values and computes nothing, of its first input alone.
_MOVES = (
    *("reshape", "transpose", "squeeze", "expand_dims", "slice", "dynamic_slice", "rev", "copy"),
    "convert_element_type",
)


@dataclass(frozen=True, eq=False)
class Place:
    """A value of a program.

    Attributes:
        variable: of the flat program, whose value is looked at.
        number: of the equation that makes it; -1 of an argument.
        shape: of the value.
        dtype: of the value.
    """

    variable: Any
    number: int
    shape: tuple[int, ...]
    dtype: Any


class Program:
    """A function's program, into whose values others can be put.

    Programs in `jit` and `checkpoint` are put in the place of their calls; those in a scan are
    rebuilt where a value of theirs is asked for.

    Args:
        function: of `args` to (result, {name: value}).
        *args: pytrees of arrays, which may be traced.
    """

    def __init__(self, function: Callable[..., tuple[Any, Mapping[str, Any]]], *args: Any) -> None:
        def flat(*leaves: Any) -> Any:
            given = jax.tree.unflatten(structure, leaves)
            closed, shape = jax.make_jaxpr(function, return_shape=True)(*given)
            shapes.append(shape)
            return _inlined(closed.jaxpr, closed.consts, leaves)

        shapes: list[Any] = []
        leaves, structure = jax.tree.flatten(args)
        self._leaves = [jnp.asarray(leaf) for leaf in leaves]
        self._closed = jax.make_jaxpr(flat)(*self._leaves)
        self._structure = jax.tree.structure(shapes[0][0])
        self.jaxpr = self._closed.jaxpr
        count = len(jax.tree.leaves(shapes[0][0]))
        self.results = self.jaxpr.outvars[:count]
        self._made = {v: eqn for eqn in self.jaxpr.eqns for v in eqn.outvars}
        self._numbers = {v: n for n, eqn in enumerate(self.jaxpr.eqns) for v in eqn.outvars}
        #: The values of the program's constants.
        self.consts = self._closed.consts
        #: What the results depend on.
        self.alive = alive(self.results, self.jaxpr)
        # A dictionary comes out of JAX with its keys sorted.
        layers = zip(sorted(shapes[0][1]), self.jaxpr.outvars[count:], strict=True)
        self._layers = dict(layers)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the layers by name, of all images."""
        return {name: one.aval.shape for name, one in self._layers.items()}

    def layer(self, name: str) -> Place | None:
        """The place of a layer; None where the results do not depend on it."""
        variable = self._layers[name]
        if isinstance(variable, core.Literal) or self._root(variable) is None:
            return None
        return self.place(variable)

    def origin(self, place: Place) -> int:
        """The number of the equation that makes what goes on of a place: their order.

        Args:
            place: one that the results depend on.
        """
        found = self._root(place.variable)
        assert found is not None
        return self._numbers.get(found[0], -1)

    def place(self, variable: Any) -> Place:
        """The place of a variable of `jaxpr`."""
        aval = variable.aval
        return Place(variable, self._numbers.get(variable, -1), aval.shape, aval.dtype)

    def run(self, added: Mapping[Place, jax.Array]) -> tuple[Any, dict[Place, jax.Array]]:
        """The result with something added at places, and the values there, with it.

        Args:
            added: arrays of the places' shapes.

        Raises:
            InputError: the results do not depend on the value at a place.
        """
        roots: dict[Any, list[tuple[Place, tuple[Any, ...]]]] = {}
        for place in added:
            found = self._root(place.variable)
            if found is None:
                raise InputError(f"the result does not depend on the value {place.shape} here")
            root, moves = found
            roots.setdefault(root, []).append((place, moves))
        scanned = {root for root in roots if root not in self.alive}
        values: dict[Any, Any] = {}

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else values[atom]

        def total(root: Any) -> Any:
            parts = [_moved_back(added[place], moves, read) for place, moves in roots[root]]
            return functools.reduce(jnp.add, parts)

        def keep(made: Sequence[Any], given: Sequence[Any]) -> None:
            for variable, value in zip(made, given, strict=True):
                changed = variable in roots and variable not in scanned
                values[variable] = value + total(variable) if changed else value

        jaxpr = self.jaxpr
        keep(jaxpr.constvars, self.consts)
        keep(jaxpr.invars, self._leaves)
        # What has no part in it may have no gradient.
        needed = alive([*self.results, *(place.variable for place in added)], jaxpr)
        for eqn in jaxpr.eqns:
            if any(v in needed for v in eqn.outvars):
                inputs = [read(atom) for atom in eqn.invars]
                inside = {n: total(v) for n, v in enumerate(eqn.outvars) if v in scanned}
                keep(eqn.outvars, _scan(eqn, inputs, inside) if inside else bind(eqn, inputs))
        result = jax.tree.unflatten(self._structure, [read(atom) for atom in self.results])
        return result, {place: values[place.variable] for place in added}

    def values(self, places: Sequence[Place]) -> dict[Place, jax.Array]:
        """The values at places that the results depend on."""
        nothing = {place: jnp.zeros(place.shape, place.dtype) for place in places}
        return self.run(nothing)[1]

    def gradients(
        self, places: Sequence[Place]
    ) -> tuple[dict[Place, jax.Array], dict[Place, jax.Array]]:
        """The values at places, and the gradients of the sum of the results by them."""

        def whole(added: list[jax.Array]) -> Any:
            result, values = self.run(dict(zip(places, added, strict=True)))
            total = functools.reduce(jnp.add, [jnp.sum(leaf) for leaf in jax.tree.leaves(result)])
            return total, [values[place] for place in places]

        nothing = [jnp.zeros(place.shape, place.dtype) for place in places]
        found, values = jax.grad(whole, has_aux=True)(nothing)
        return dict(zip(places, values, strict=True)), dict(zip(places, found, strict=True))

    def _root(self, variable: Any) -> tuple[Any, tuple[Any, ...]] | None:
        """The variable that goes on, of which another is a part, and the moves from it."""
        moves: list[Any] = []
        while True:
            if variable in self.alive or self._in_scan(variable):
                return variable, tuple(reversed(moves))
            eqn = self._made.get(variable)
            if eqn is None or eqn.primitive.name not in _MOVES:
                return None
            moves.append(eqn)
            if isinstance(eqn.invars[0], core.Literal):
                return None
            variable = eqn.invars[0]

    def _in_scan(self, variable: Any) -> bool:
        """Whether a variable is what a scan stacks of values that go on inside it."""
        eqn = self._made.get(variable)
        if variable in self.alive or eqn is None or eqn.primitive.name != "scan":
            return False
        return any(v in self.alive for v in eqn.outvars) and (
            _root_in_scan(eqn, eqn.outvars.index(variable)) is not None
        )


def _moved_back(added: jax.Array, moves: Sequence[Any], read: Callable[[Any], Any]) -> jax.Array:
    """What is added to a value, as it is to be added to the one that it was moved from.

    Args:
        added: of the value's shape.
        moves: equations from that one to the value.
        read: values of the other inputs of these equations, as places of slices.
    """
    if not moves:
        return added
    first = moves[0].invars[0].aval

    def moved(value: jax.Array) -> jax.Array:
        for eqn in moves:
            (value,) = bind(eqn, [value, *(read(atom) for atom in eqn.invars[1:])])
        return value

    transposed = jax.linear_transpose(moved, jax.ShapeDtypeStruct(first.shape, first.dtype))
    back: jax.Array = transposed(added)[0]
    return back


def _inlined(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluates a program with those of its calls in their place."""

    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
        if eqn.primitive.name == "jit":
            inner = eqn.params["jaxpr"]
            return _inlined(inner.jaxpr, inner.consts, inputs)
        if eqn.primitive.name in REMATS:
            return _inlined(eqn.params["jaxpr"], (), inputs)
        return None

    return evaluate(jaxpr, consts, args, rule)


def _root_in_scan(eqn: Any, number: int) -> tuple[Any, tuple[Any, ...]] | None:
    """As `Program._root`, of an output of a scan in the program of its steps."""
    inner = eqn.params["jaxpr"].jaxpr
    _, count = scan_counts(eqn)
    if number < count:
        return None
    goes_on = alive(inner.outvars[:count], inner)
    made = {v: one for one in inner.eqns for v in one.outvars}
    variable, moves = inner.outvars[number], list[Any]()
    while variable not in goes_on:
        one = made.get(variable)
        if one is None or one.primitive.name not in _MOVES:
            return None
        moves.append(one)
        variable = one.invars[0]
    # What comes in is another step's, or the same in all.
    return (variable, tuple(reversed(moves))) if variable in made else None


def _scan(eqn: Any, inputs: Sequence[Any], added: Mapping[int, jax.Array]) -> list[Any]:
    """A scan with something added to values that it stacks, by the number of its output."""
    params, program = eqn.params, eqn.params["jaxpr"]
    inner = program.jaxpr
    same, count = scan_counts(eqn)
    consts, rest = inputs[:same], inputs[same:]
    carried, rows = list(rest[:count]), list(rest[count:])
    roots = {number: _root_in_scan(eqn, number) for number in added}

    def body(carry: Any, xs: Any) -> Any:
        rows, parts = xs
        values: dict[Any, Any] = {}

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else values[atom]

        values.update(zip(inner.constvars, program.consts, strict=True))
        values.update(zip(inner.invars, [*consts, *carry, *rows], strict=True))
        for one in inner.eqns:
            outputs = bind(one, [read(atom) for atom in one.invars])
            for variable, value in zip(one.outvars, outputs, strict=True):
                values[variable] = value
                for number, part in parts.items():
                    root = roots[number]
                    assert root is not None
                    if root[0] is variable:
                        values[variable] = values[variable] + _moved_back(part, root[1], read)
        out = [read(atom) for atom in inner.outvars]
        return out[:count], out[count:]

    carry, out = jax.lax.scan(
        body,
        carried,
        (rows, dict(added)),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *out]
