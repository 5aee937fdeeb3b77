"""Softmax attention between tokens, found in a traced program however it is written."""

from __future__ import annotations

from typing import Any

from jax.extend import core

from featvis.jaxprs.injection import Place, Program

#: What stands between the sum of exponentials and its division.
_BETWEEN = ("broadcast_in_dim", "reshape", "convert_element_type", "max", "add", "copy")


def attentions(program: Program) -> list[Place]:
    """Where the weights of attention are, (n, heads, tokens, tokens), in the order of the program.

    They are exponentials divided by their own sum over the last axis, of four axes of which the
    last two are equal, that the results depend on; those in loops and branches are not found.
    """
    made = {v: eqn for eqn in program.jaxpr.eqns for v in eqn.outvars}
    found = []
    for eqn in program.jaxpr.eqns:
        out = eqn.outvars[0]
        shape: tuple[int, ...] = getattr(out.aval, "shape", ())
        square = len(shape) == 4 and shape[-1] == shape[-2] > 1
        if square and eqn.primitive.name == "div" and out in program.alive and _softmax(eqn, made):
            found.append(program.place(out))
    return found


def _softmax(eqn: Any, made: dict[Any, Any]) -> bool:
    """Whether a division is of exponentials by their sum over the last axis."""
    above, below = eqn.invars
    if isinstance(above, core.Literal) or _name(made.get(above)) != "exp":
        return False
    while _name(made.get(below)) in _BETWEEN:
        inputs = [v for v in made[below].invars if not isinstance(v, core.Literal)]
        if len(inputs) != 1:
            return False
        below = inputs[0]
    last = len(above.aval.shape) - 1
    if _name(made.get(below)) != "reduce_sum":
        return False
    total = made[below]
    return total.invars[0] is above and tuple(total.params["axes"]) == (last,)


def _name(eqn: Any) -> str:
    return "" if eqn is None else str(eqn.primitive.name)
