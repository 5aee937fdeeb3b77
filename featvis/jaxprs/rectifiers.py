"""Rectifiers in traced programs, however they are written.

A rectifier passes its input on one side of a bound and is constant on the other, where it passes no
gradient: `max(x, 0)`, `min(x, 6)`, `clamp`, `where(x > 0, x, 0)`, `x * (x > 0)`, hard tanh, and a
function with a gradient of its own (`custom_jvp`, `custom_vjp`) that does nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from featvis.jaxprs.evaluate import bind, evaluate, scan_counts

Function = Callable[[jax.Array], jax.Array]

#: A bound nearer to 0, but not 0, guards a division or a logarithm, which keeps its true gradient.
_LEAST_BOUND = 1e-2

_COMPARISONS = {"gt": jax.lax.gt, "ge": jax.lax.ge, "lt": jax.lax.lt, "le": jax.lax.le}

#: With the sides exchanged.
_MIRRORED = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}


#: What moves values and does not compute with them.
_MOVES = {
    *("reshape", "transpose", "squeeze", "broadcast_in_dim", "convert_element_type"),
    *("concatenate", "copy", "name"),
}


class Bound(NamedTuple):
    """A side at which a rectifier is closed."""

    lower: bool  # closed below it; else above
    at: float
    fill: float  # its value there


@dataclass(frozen=True, eq=False)
class Rectifier:
    """A rectifier that was found in a program.

    Attributes:
        x: what goes in.
        bounds: at which it closes, in the order in which they are applied.
        plain: the rectifier as a function of `x`, with the gradient that it has.
        parts: the same as functions of one bound each, the first applied first.
        place: where it stands in the program: the same in another trace of the same function.
    """

    x: Known
    bounds: tuple[Bound, ...]
    plain: Function
    parts: tuple[Function, ...]
    place: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Known:
    """A value of a program, and what is known of how it was made.

    Attributes:
        value: an array, which may be traced.
        note: a number, where it is that number everywhere; a comparison with one; what a
            rectifier made of another value.
        before: the rectifiers between the program's input and it; None: not of the input.
        own: the places of those of whose outputs it consists.
    """

    value: Any
    note: _Note | None = None
    before: frozenset[Any] | None = None
    own: frozenset[Any] = frozenset()


@dataclass(frozen=True, eq=False)
class _Constant:
    array: Any  # of a program's constants, or a number

    def number(self) -> float | None:
        """The number that it is everywhere; None for another array."""
        if isinstance(self.array, jax.core.Tracer) or not np.size(self.array):
            return None
        if not jnp.issubdtype(jnp.result_type(self.array), jnp.number):
            return None
        array = np.asarray(self.array)
        first = array.reshape(-1)[0]
        return float(first) if array.ndim == 0 or bool(np.all(array == first)) else None


@dataclass(frozen=True, eq=False)
class _Comparison:
    of: Known
    operator: str
    at: float
    negated: bool = False

    @property
    def passes_above(self) -> bool:
        return (self.operator in ("gt", "ge")) != self.negated

    def of_value(self, x: jax.Array) -> jax.Array:
        truth = _COMPARISONS[self.operator](x, jnp.full_like(x, self.at))
        return jnp.logical_not(truth) if self.negated else truth

    def holds(self, number: float) -> bool:
        truth = {"gt": number > self.at, "ge": number >= self.at, "lt": number < self.at}
        return truth.get(self.operator, number <= self.at) != self.negated


@dataclass(frozen=True, eq=False)
class _Rectified:
    of: Known
    bounds: tuple[Bound, ...]


_Note = _Constant | _Comparison | _Rectified

Change = Callable[[Rectifier], jax.Array | None]
"""What becomes of a rectifier, or None where it is to be left as it is."""

Visit = Callable[[Any, Sequence[Known], Sequence[Any], Rectifier | None], Sequence[Any]]
"""(equation, its inputs, its outputs, the rectifier that it is) to its outputs."""


def walk(
    jaxpr: Any,
    consts: Sequence[Any],
    args: Sequence[Known],
    change: Change,
    visit: Visit | None = None,
    scope: tuple[int, ...] = (),
) -> list[Known]:
    """Evaluates a program with its rectifiers changed, those in `jit`, `remat`, `scan`, `cond` too.

    Args:
        jaxpr: the program.
        consts: values of its constants.
        args: values of its arguments.
        change: what becomes of a rectifier.
        visit: sees each equation that is evaluated as one, outside of loops and branches.
        scope: where the program stands in others.
    """
    places = {id(eqn): place for place, eqn in enumerate(jaxpr.eqns)}

    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Known]:
        known = [v if isinstance(v, Known) else Known(v, _Constant(v)) for v in inputs]
        values = [one.value for one in known]
        here = (*scope, places[id(eqn)])
        name = eqn.primitive.name
        if name == "jit":
            inner = eqn.params["jaxpr"]
            return walk(inner.jaxpr, inner.consts, known, change, visit, here)
        if name in _REBUILT and (visit is None or name in _INLINED):
            if visit is not None:
                return walk(eqn.params["jaxpr"], (), known, change, visit, here)
            return _REBUILT[name](eqn, known, change, here)
        if name in ("copy", "convert_element_type") and _same_type(eqn):
            return [known[0]]
        before = _joined(known)
        found = rectifier(eqn, known)
        if found is not None:
            found = dataclasses.replace(found, place=here)
        out = None if found is None else change(found)
        outputs = list(bind(eqn, values)) if out is None else [out]
        if visit is not None:
            outputs = list(visit(eqn, known, outputs, found))
        if found is None:
            notes = [_note(eqn, known)] if len(outputs) == 1 else [None] * len(outputs)
            moved = [one.own for one in known] if name in _MOVES else []
            own = frozenset[Any]().union(*moved)
            return [Known(v, note, before, own) for v, note in zip(outputs, notes, strict=True)]
        inner_note = found.x.note if isinstance(found.x.note, _Rectified) else None
        root = found.x if inner_note is None else inner_note.of
        bounds = () if inner_note is None else inner_note.bounds
        if before is not None and inner_note is None:
            # The bounds of a ReLU6 are one rectifier.
            before |= {here}
        own = frozenset({here}) | (frozenset() if inner_note is None else found.x.own)
        return [Known(outputs[0], _Rectified(root, (*bounds, *found.bounds)), before, own)]

    constants = [Known(c, _Constant(c)) for c in consts]
    out = evaluate(jaxpr, constants, args, rule)
    return [v if isinstance(v, Known) else Known(v, _Constant(v)) for v in out]


def rectifier(eqn: Any, inputs: Sequence[Known]) -> Rectifier | None:
    """The rectifier that an equation is, by what is known of its inputs; None for another."""
    name = eqn.primitive.name
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return _of_its_own(eqn, inputs)
    find = _FORMS.get(name)
    if find is None or not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
        return None
    found = find(eqn, inputs)
    if found is None or not np.ndim(found.x.value) or not all(map(_may_close, found.bounds)):
        return None
    return found


def _may_close(bound: Bound) -> bool:
    tiny = bound.at != 0 and abs(bound.at) < _LEAST_BOUND
    return math.isfinite(bound.at) and math.isfinite(bound.fill) and not tiny


def _number(known: Known) -> float | None:
    return known.note.number() if isinstance(known.note, _Constant) else None


def _with(eqn: Any, inputs: Sequence[Known], x: Known) -> Function:
    """The equation as a function of `x`; its other inputs are one number each."""
    numbers: dict[int, Any] = {i: _number(one) for i, one in enumerate(inputs) if one is not x}
    avals = [v.aval for v in eqn.invars]

    def function(new: jax.Array) -> jax.Array:
        filled = [
            jnp.full(aval.shape, numbers[i], aval.dtype) if i in numbers else new
            for i, aval in enumerate(avals)
        ]
        out: jax.Array = bind(eqn, filled)[0]
        return out

    return function


def _extreme(eqn: Any, inputs: Sequence[Known]) -> Rectifier | None:
    """max(x, number) and min(x, number), the number on either side."""
    x, bound = inputs if _number(inputs[1]) is not None else inputs[::-1]
    at = _number(bound)
    if at is None or _number(x) is not None:
        return None
    plain = _with(eqn, inputs, x)
    return Rectifier(x, (Bound(eqn.primitive.name == "max", at, at),), plain, (plain,))


def _clamp(eqn: Any, inputs: Sequence[Known]) -> Rectifier | None:
    low, x, high = inputs
    bottom, top = _number(low), _number(high)
    if bottom is None or top is None or _number(x) is not None:
        return None
    bounds = tuple(
        Bound(lower, at, at)
        for lower, at in ((True, bottom), (False, top))
        if abs(at) < float(jnp.finfo(eqn.outvars[0].aval.dtype).max)
    )
    parts = tuple(_limit(bound) for bound in bounds)
    return Rectifier(x, bounds, _with(eqn, inputs, x), parts) if bounds else None


def _limit(bound: Bound) -> Function:
    limit = jnp.maximum if bound.lower else jnp.minimum
    return lambda x: limit(x, jnp.full_like(x, bound.at))


def _selected(eqn: Any, inputs: Sequence[Known]) -> Rectifier | None:
    """where(x > number, x, number) and its mirror images."""
    which, where_false, where_true = inputs[0], *inputs[1:3]
    if len(inputs) != 3 or not isinstance(which.note, _Comparison):
        return None
    comparison = which.note
    kept_where = _number(where_false) is not None
    x, other = (where_true, where_false) if kept_where else (where_false, where_true)
    fill = _number(other)
    if fill is None or not _same_side(x, comparison):
        return None

    def plain(new: jax.Array) -> jax.Array:
        filled = jnp.full_like(new, fill)
        cases = (filled, new) if kept_where else (new, filled)
        return jax.lax.select_n(comparison.of_value(new), *cases)

    bound = Bound(comparison.passes_above == kept_where, comparison.at, fill)
    return Rectifier(x, (bound,), plain, (plain,))


def _masked(eqn: Any, inputs: Sequence[Known]) -> Rectifier | None:
    """A product x * (x > number)."""
    x, mask = inputs if isinstance(inputs[1].note, _Comparison) else inputs[::-1]
    comparison = mask.note
    if not isinstance(comparison, _Comparison) or not _same_side(x, comparison):
        return None
    first = inputs[0] is x

    def plain(new: jax.Array) -> jax.Array:
        factor = comparison.of_value(new).astype(new.dtype)
        return new * factor if first else factor * new

    bound = Bound(comparison.passes_above, comparison.at, 0.0)
    return Rectifier(x, (bound,), plain, (plain,))


def _same_side(x: Known, comparison: _Comparison) -> bool:
    """Whether what is compared is `x`, or what `x` was before bounds that change no answer."""
    if comparison.of is x:
        return True
    note = x.note
    if not isinstance(note, _Rectified) or note.of is not comparison.of:
        return False
    # Beyond the bound the answer is the same everywhere, and so it is for what was put there.
    return all(
        (bound.at <= comparison.at if bound.lower else bound.at >= comparison.at)
        and comparison.holds(bound.fill) == comparison.holds(-math.inf if bound.lower else math.inf)
        for bound in note.bounds
    )


def _of_its_own(eqn: Any, inputs: Sequence[Known]) -> Rectifier | None:
    """A function with a gradient of its own that only rectifies."""
    program = eqn.params.get("call_jaxpr")
    if program is None or len(inputs) != 1 or len(eqn.outvars) != 1 or not np.ndim(inputs[0].value):
        return None
    found: list[_Note | None] = []

    def only(x: jax.Array) -> jax.Array:
        start = Known(x)
        (out,) = walk(program.jaxpr, program.consts, [start], lambda one: None)
        found.append(out.note)
        found.append(_Rectified(start, ()))
        return out.value

    aval = eqn.invars[0].aval
    jax.eval_shape(only, jax.ShapeDtypeStruct(aval.shape, aval.dtype))
    note, start = found
    if not isinstance(note, _Rectified) or note.of is not start.of:  # type: ignore[union-attr]
        return None

    def plain(new: jax.Array) -> jax.Array:
        out: jax.Array = bind(eqn, [new])[0]
        return out

    def redirect(part: int) -> Function:
        def function(x: jax.Array) -> jax.Array:
            parts: list[Function] = []

            def gather(one: Rectifier) -> None:
                parts.extend(one.parts)

            walk(program.jaxpr, program.consts, [Known(x)], gather)
            return parts[part](x)

        return function

    count = len(note.bounds)
    return Rectifier(inputs[0], note.bounds, plain, tuple(map(redirect, range(count))))


_FORMS: dict[str, Callable[[Any, Sequence[Known]], Rectifier | None]] = {
    "max": _extreme,
    "min": _extreme,
    "clamp": _clamp,
    "select_n": _selected,
    "mul": _masked,
}


def _same_type(eqn: Any) -> bool:
    return bool(eqn.invars[0].aval.dtype == eqn.outvars[0].aval.dtype)


def _joined(known: Sequence[Known]) -> frozenset[Any] | None:
    """The rectifiers before any of the values; None where none is of the input."""
    parts = [one.before for one in known if one.before is not None]
    return frozenset[Any]().union(*parts) if parts else None


def _note(eqn: Any, inputs: Sequence[Known]) -> _Note | None:
    name = eqn.primitive.name
    if name in ("broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze"):
        note = inputs[0].note
        number = _number(inputs[0])
        if number is not None:
            return _Constant(np.asarray(number, eqn.outvars[0].aval.dtype))
        return note if isinstance(note, _Comparison) and name == "convert_element_type" else None
    if name in _COMPARISONS:
        x, other, operator = *inputs, name
        if _number(x) is not None:
            x, other, operator = other, x, _MIRRORED[name]
        at = _number(other)
        return None if at is None else _Comparison(x, operator, at)
    if name == "not" and isinstance(inputs[0].note, _Comparison):
        one = inputs[0].note
        return _Comparison(one.of, one.operator, one.at, not one.negated)
    if name == "select_n" and isinstance(inputs[0].note, _Comparison) and len(inputs) == 3:
        one, cases = inputs[0].note, (_number(inputs[1]), _number(inputs[2]))
        if cases == (0, 1):
            return one
        if cases == (1, 0):
            return _Comparison(one.of, one.operator, one.at, not one.negated)
    return None


def _inside(one: Known, value: Any) -> Known:
    """What is known of a value where it is an argument of an inner program."""
    return Known(value, one.note if isinstance(one.note, _Constant) else None, one.before)


def _remat(eqn: Any, inputs: Sequence[Known], change: Change, scope: Any) -> list[Known]:
    before: list[Any] = []

    def function(*values: Any) -> list[Any]:
        args = [_inside(one, v) for one, v in zip(inputs, values, strict=True)]
        out = walk(eqn.params["jaxpr"], (), args, change, scope=scope)
        before[:] = [one.before for one in out]
        return [one.value for one in out]

    options = {key: eqn.params[key] for key in ("prevent_cse", "policy")}
    out = jax.checkpoint(function, **options)(*(one.value for one in inputs))
    return [Known(v, None, b) for v, b in zip(out, before, strict=True)]


def _cond(eqn: Any, inputs: Sequence[Known], change: Change, scope: Any) -> list[Known]:
    before = _joined(inputs)
    index, *operands = inputs

    def branch(number: int, program: Any) -> Callable[..., list[Any]]:
        def function(*values: Any) -> list[Any]:
            nonlocal before
            args = [_inside(one, v) for one, v in zip(operands, values, strict=True)]
            out = walk(program.jaxpr, program.consts, args, change, scope=(*scope, number))
            before = _joined([*out, Known(None, None, before)])
            return [one.value for one in out]

        return function

    branches = [branch(i, program) for i, program in enumerate(eqn.params["branches"])]
    which = index.value
    if np.dtype(which.dtype) == bool:
        which = which.astype(jnp.int32)
    out = jax.lax.switch(which, branches, *(one.value for one in operands))
    return [Known(v, None, before) for v in out]


def _scan(eqn: Any, inputs: Sequence[Known], change: Change, scope: Any) -> list[Known]:
    p, program = eqn.params, eqn.params["jaxpr"]
    first, count = scan_counts(eqn)
    consts, carried = inputs[:first], inputs[first : first + count]
    rows = inputs[first + count :]
    before = _joined(inputs)

    def body(carry: Any, row: Any) -> Any:
        nonlocal before
        args = [
            *consts,
            # What a step before made of it is not known.
            *(Known(v, None, before) for v in carry),
            *(Known(v, None, before) for v in row),
        ]
        out = walk(program.jaxpr, program.consts, args, change, scope=scope)
        before = _joined([*out, Known(None, None, before)])
        values = [one.value for one in out]
        return values[:count], values[count:]

    start = [one.value for one in carried]
    xs = [one.value for one in rows]
    options = {key: p[key] for key in ("length", "reverse", "unroll")}
    carry, out = jax.lax.scan(body, start, xs, **options)
    own = [key for key in before or () if key[: len(scope)] == scope]
    if before is not None:
        # As many rectifiers as there are steps.
        before |= {(*key, step) for key in own for step in range(1, p["length"])}
    return [Known(v, None, before) for v in (*carry, *out)]


_REBUILT: dict[str, Callable[..., list[Known]]] = {
    "remat2": _remat,
    "checkpoint": _remat,
    "remat": _remat,
    "cond": _cond,
    "scan": _scan,
}

#: Those that are evaluated in place where equations are visited.
_INLINED = ("remat2", "checkpoint", "remat")
