"""Layer-wise relevance propagation through a traced program, with a rule for each operation.

The program of a score is evaluated once and every value on the way from the image remembers how
relevance goes back from it (`featvis.jaxprs.operations`): a score's relevance is the score, and
each value hands on what it got.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from featvis.jaxprs.affine import Depths
from featvis.jaxprs.evaluate import bind, evaluate, program_inside, scan_counts
from featvis.jaxprs.injection import Place, Program
from featvis.jaxprs.linearity import is_linear
from featvis.jaxprs.liveness import alive
from featvis.jaxprs.operations import (
    WAYS,
    Output,
    Passing,
    Value,
    array_of,
    is_float,
    product,
    refused,
    routed,
)


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
    pixels = Value(images, None, ends=ends)
    made = [pixels]
    (out,) = _walk(closed.jaxpr, closed.consts, [pixels], made)
    if not isinstance(out, Value):
        nothing = jnp.zeros(len(images), images.dtype)
        return Relevance(jnp.zeros_like(images), jnp.asarray(out), nothing)
    (found,), biases = _passed_back(made, out, out.array, [pixels], depths)
    return Relevance(jnp.zeros_like(images) if found is None else found, out.array, biases)


def relevance_at(
    program: Program, images: jax.Array, depths: Depths, places: Sequence[Place]
) -> list[jax.Array]:
    """The relevance of values inside a program of scores, where each score has a relevance of 1.

    Args:
        program: of images to scores (n,).
        images: its argument, (n, h, w, c) in [0, 1].
        depths: the rules.
        places: of values outside of loops and branches.

    Raises:
        InputError: an operation between a pixel and the score without a rule; names it.
    """
    ends = jnp.zeros_like(images), jnp.ones_like(images)
    made = [Value(images, None, ends=ends)]
    watched = dict.fromkeys(place.variable for place in places)
    out = _walk(program.jaxpr, program.consts, made[:], made, watched)[0]
    values = [watched[place.variable] for place in places]
    found: list[jax.Array | None] = [None] * len(places)
    if isinstance(out, Value):
        found, _ = _passed_back(made, out, jnp.ones_like(out.array), values, depths)
    return [
        jnp.zeros(place.shape, place.dtype) if one is None else one
        for place, one in zip(places, found, strict=True)
    ]


def _passed_back(
    made: Sequence[Value], out: Value, r: jax.Array, places: Sequence[Any], depths: Depths
) -> tuple[list[jax.Array | None], jax.Array]:
    """What values got of the relevance of a score, None where nothing, and what biases kept of it.

    Args:
        made: all values in the order of the program, the images first.
        out: the score.
        r: its relevance.
        places: some of `made`, or what does not depend on the image.
        depths: the rules.
    """
    passing = Passing(depths, max(out.depth, 1), len(made[0].array))
    passing.give(out, r)
    wanted = {id(one) for one in places}
    got: dict[int, jax.Array] = {}
    for value in reversed(made):
        given = passing.taken(value)
        if given is None:
            continue
        if id(value) in wanted:
            got[id(value)] = given
        if value.back is not None:
            value.back(given, passing)
    return [got.get(id(one)) for one in places], passing.biases


def _walk(
    jaxpr: Any,
    consts: Sequence[Any],
    args: Sequence[Any],
    made: list[Value],
    watched: dict[Any, Any] | None = None,
) -> list[Any]:
    """Evaluates a program; what depends on the image is a `Value`, and all are put into `made`.

    Args:
        jaxpr: the program.
        consts: values of its constants.
        args: values of its arguments.
        made: gets the values, in the order of the program.
        watched: variables of it, which get their values.
    """
    needed = alive(jaxpr.outvars, jaxpr)

    def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
        outputs = outputs_of(eqn, inputs)
        for variable, value in zip(eqn.outvars, outputs or (), strict=bool(outputs)):
            if watched is not None and variable in watched:
                watched[variable] = value
        return outputs

    def outputs_of(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
        if not any(v in needed for v in eqn.outvars):
            return [None] * len(eqn.outvars)
        if not any(isinstance(one, Value) for one in inputs):
            return _constant(eqn, inputs)
        layer, inner = _is_layer(eqn, inputs), program_inside(eqn)
        controlled = _CONTROL.get(eqn.primitive.name)
        found = controlled(eqn, inputs, made) if controlled else None
        if found is not None:
            return found
        if inner is not None and len(inner[0].invars) == len(inputs) and not layer:
            return _walk(*inner, inputs, made)
        way = product if layer else WAYS.get(eqn.primitive.name, refused)
        floats = any(isinstance(one, Value) and is_float(one.array) for one in inputs)
        outputs = [
            (way if floats and is_float(v.aval) else refused)(Output(eqn, inputs, out))
            for out, v in enumerate(eqn.outvars)
        ]
        made.extend(outputs)
        return outputs

    return evaluate(jaxpr, consts, args, rule)


def _constant(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
    """Outputs without the image in them, at once where all are single numbers that are known.

    So that loops that count them are of a known number of steps.
    """
    single = all(getattr(v.aval, "shape", None) == () for v in (*eqn.invars, *eqn.outvars))
    if not single or any(isinstance(one, jax.core.Tracer) for one in inputs):
        return None
    with jax.ensure_compile_time_eval():
        return bind(eqn, inputs)


def _is_layer(eqn: Any, inputs: Sequence[Any]) -> bool:
    """Whether a function with a gradient of its own is a product of a value and weights."""
    program = eqn.params.get("call_jaxpr")
    two = len(inputs) == 2 and sum(isinstance(one, Value) for one in inputs) == 1
    if not two or len(eqn.outvars) != 1 or not hasattr(program, "jaxpr"):
        return False
    return eqn.primitive.name.startswith("custom_") and all(is_linear(program, i) for i in (0, 1))


# ---- loops and branches --------------------------------------------------------------------


def _put(made: list[Value], function: Callable[..., jax.Array], *parts: Any) -> Any:
    """What a function picks of some values, or of constants alone."""
    if not any(isinstance(one, Value) for one in parts):
        return function(*parts)
    made.append(routed(function, parts))
    return made[-1]


def _scan(eqn: Any, inputs: Sequence[Any], made: list[Value]) -> list[Any]:
    """A scan, step by step."""
    params, inner = eqn.params, eqn.params["jaxpr"]
    same, count = scan_counts(eqn)
    fixed, carried, scanned = inputs[:same], inputs[same : same + count], inputs[same + count :]
    steps: list[Sequence[Any]] = [()] * params["length"]
    order = range(params["length"])
    for step in reversed(order) if params["reverse"] else order:
        rows = [_put(made, lambda one, step=step: one[step], one) for one in scanned]
        out = _walk(inner.jaxpr, inner.consts, [*fixed, *carried, *rows], made)
        carried, steps[step] = out[:count], out[count:]
    stacked = [
        _put(made, lambda *rows: jnp.stack(rows), *rows) for rows in zip(*steps, strict=True)
    ]
    return [*carried, *stacked]


def _while(eqn: Any, inputs: Sequence[Any], made: list[Value]) -> list[Any] | None:
    """A loop whose number of steps is known beforehand, step by step; None: it is not known."""
    params = eqn.params
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    of_test, of_body = inputs[:tests], inputs[tests : tests + bodies]
    carried, test, body = list(inputs[tests + bodies :]), params["cond_jaxpr"], params["body_jaxpr"]
    counting = _read(test.jaxpr, test.jaxpr.outvars, tests)
    while True:  # What the condition reads, and what that is made of.
        used = _read(body.jaxpr, [body.jaxpr.outvars[i] for i in sorted(counting)], bodies)
        if used <= counting:
            break
        counting |= used

    def goes_on() -> bool | None:
        known = [one if i in counting else None for i, one in enumerate(carried)]
        if any(isinstance(one, (Value, jax.core.Tracer)) for one in (*of_test, *known)):
            return None
        with jax.ensure_compile_time_eval():
            needed = alive(test.jaxpr.outvars, test.jaxpr)

            def rule(one: Any, _: Sequence[Any]) -> Sequence[Any] | None:
                return None if any(v in needed for v in one.outvars) else [None] * len(one.outvars)

            return bool(evaluate(test.jaxpr, test.consts, [*of_test, *known], rule)[0])

    going = goes_on()
    while going:
        carried = _walk(body.jaxpr, body.consts, [*of_body, *carried], made)
        going = goes_on()
    return None if going is None else carried


def _read(jaxpr: Any, variables: Sequence[Any], consts: int) -> set[int]:
    """The numbers of carried values that some variables of a loop's program are made of."""
    read = alive(variables, jaxpr)
    return {i for i, v in enumerate(jaxpr.invars[consts:]) if v in read}


def _cond(eqn: Any, inputs: Sequence[Any], made: list[Value]) -> list[Any]:
    """A branch: relevance goes to the one that was taken, whatever it was chosen by."""
    number, *args = inputs
    branches = eqn.params["branches"]
    which = array_of(number)
    if not isinstance(which, jax.core.Tracer):
        taken = branches[min(max(int(which), 0), len(branches) - 1)]
        return _walk(taken.jaxpr, taken.consts, args, made)
    which = jnp.clip(which.astype(jnp.int32), 0, len(branches) - 1)
    found = [_walk(one.jaxpr, one.consts, args, made) for one in branches]

    def chosen(*cases: jax.Array) -> jax.Array:
        return jax.lax.select_n(which, *cases)

    return [_put(made, chosen, *cases) for cases in zip(*found, strict=True)]


_CONTROL: dict[str, Callable[[Any, Sequence[Any], list[Value]], list[Any] | None]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}
