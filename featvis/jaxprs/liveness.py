"""What the results of a traced program depend on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from featvis.jaxprs.evaluate import evaluate


def alive(results: Sequence[Any], jaxpr: Any) -> set[Any]:
    """The variables of a program that some of its results depend on."""
    found = set(variables(results))
    for eqn in reversed(jaxpr.eqns):
        if any(v in found for v in eqn.outvars):
            found.update(variables(eqn.invars))
    return found


def variables(atoms: Sequence[Any]) -> list[Any]:
    """What is no literal among the inputs or outputs of a program's equations."""
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def pruned(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` without what its results do not depend on, which may have no gradient.

    Args:
        function: of arrays to arrays.
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        needed = alive(closed.jaxpr.outvars, closed.jaxpr)

        def rule(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any] | None:
            used = any(v in needed for v in eqn.outvars)
            return None if used else [None] * len(eqn.outvars)

        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(args)]
        out = evaluate(closed.jaxpr, closed.consts, leaves, rule)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return call
