"""Traced programs, evaluated equation by equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend import core

Rule = Callable[[Any, Sequence[Any]], Sequence[Any] | None]
"""(equation, its inputs) to its outputs, or None where it is to be left as it is."""


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], rule: Rule) -> list[Any]:
    """Evaluates a traced program, each equation as the rule has it.

    Programs inside an equation (those of `jit`, `scan` and so on) are the rule's business.

    Args:
        jaxpr: the program.
        consts: values of its constants.
        args: values of its arguments.
        rule: what becomes of an equation.

    Returns:
        What the program gives.
    """
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        outputs = rule(eqn, inputs)
        if outputs is None:
            outputs = bind(eqn, inputs)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    """An equation's outputs as it stands."""
    outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return outputs if eqn.primitive.multiple_results else [outputs]


def program_inside(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    """The one program that an equation runs on its inputs, and its constants."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = eqn.params.get(name)
        if found is not None and eqn.primitive.name != "while":
            closed = hasattr(found, "jaxpr")
            return (found.jaxpr, found.consts) if closed else (found, ())
    return None


def scan_counts(eqn: Any) -> tuple[int, int]:
    """How many of a scan's inputs are the same for all steps, and how many it carries.

    Told by the shapes, as each version of JAX has another name for them: what is scanned over has
    one axis less inside, and so has what is stacked.
    """
    inner = eqn.params["jaxpr"].jaxpr

    def changed(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        pairs = zip(outside, inside, strict=True)
        return sum(len(a.aval.shape) != len(b.aval.shape) for a, b in pairs)

    carried = len(eqn.outvars) - changed(eqn.outvars, inner.outvars)
    same = len(eqn.invars) - changed(eqn.invars, inner.invars) - carried
    return same, carried
