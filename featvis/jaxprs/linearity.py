"""Whether a traced program is linear in an argument, as its equations show it."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend import core

from featvis.jaxprs.evaluate import program_inside

#: What puts values elsewhere, each as it is, and needs no other value.
REARRANGEMENTS = frozenset({
    "reshape", "transpose", "squeeze", "expand_dims", "convert_element_type", "broadcast_in_dim",
    "rev", "slice", "copy", "reduce_precision", "featvis_tap",
})  # fmt: skip

#: What adds values up.
SUMS = frozenset({"reduce_sum", "reduce_window_sum", "cumsum"})

#: Linear in either of two.
PRODUCTS = frozenset({"mul", "dot_general", "conv_general_dilated"})


def is_linear(program: Any, argument: int) -> bool:
    """Whether all that a program gives is linear in one of its arguments.

    Args:
        program: a closed one.
        argument: its place.
    """
    of = [place == argument for place in range(len(program.jaxpr.invars))]
    found = _linear(program.jaxpr, program.consts, of, [False] * len(of))
    return found is not None and all(found)


def _linear(jaxpr: Any, consts: Any, of: list[bool], zeros: list[bool]) -> list[bool] | None:
    """Which of the results are linear in what is marked; None: something is not."""
    linear = {v for v, one in zip(jaxpr.invars, of, strict=True) if one}
    zero = {v for v, one in zip(jaxpr.invars, zeros, strict=True) if one}
    zero |= {v for v, one in zip(jaxpr.constvars, consts, strict=True) if _is_zero(one)}

    def is_zero(atom: Any) -> bool:
        return _is_zero(atom.val) if isinstance(atom, core.Literal) else atom in zero

    for eqn in jaxpr.eqns:
        marks = [not isinstance(v, core.Literal) and v in linear for v in eqn.invars]
        nothing = [is_zero(v) for v in eqn.invars]
        name = eqn.primitive.name
        if not any(marks):
            if all(nothing) and name in REARRANGEMENTS:
                zero.update(eqn.outvars)
            continue
        harmless = [a or b for a, b in zip(marks, nothing, strict=True)]
        inner = program_inside(eqn)
        if inner is not None and len(inner[0].invars) == len(marks):
            found = _linear(*inner, marks, nothing)
            if found is None:
                return None
            linear.update(v for v, one in zip(eqn.outvars, found, strict=True) if one)
            continue
        if name in ("add", "sub", "add_any", "concatenate", "pad"):
            fits = all(harmless)
        elif name in PRODUCTS:
            fits = sum(marks) == 1
        elif name == "div":
            fits = marks == [True, False]
        else:
            fits = name in REARRANGEMENTS | SUMS | {"neg", "featvis_kept"} and all(harmless)
        if not fits:
            return None
        linear.update(eqn.outvars)
    return [not isinstance(v, core.Literal) and v in linear for v in jaxpr.outvars]


def _is_zero(value: Any) -> bool:
    try:
        return not np.any(np.asarray(value))
    except Exception:  # a traced constant, whose values nobody knows yet
        return False
