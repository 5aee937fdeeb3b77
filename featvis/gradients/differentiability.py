"""What has no gradient, said before anything is compiled.

JAX differentiates a network only when it is traced for it, which takes several times as long as
tracing it alone. So the traced network is looked through first: equations of everyday operations
have a gradient, any other is tried alone, and a gradient of the whole is traced only where one of
these has none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from featvis.dry_runs import once_a_kind
from featvis.errors import GradientError, InputError
from featvis.jaxprs.evaluate import bind
from featvis.jaxprs.liveness import alive, pruned
from featvis.parameterizations import Parameterization
from featvis.transforms import Transform
from featvis.transforms.transform import traced
from objectives import Activations, Objective

#: Operations of everyday networks: each has a gradient, or a rule of its own for one.
_EVERYDAY = frozenset({
    "abs", "add", "add_any", "and", "argmax", "argmin", "atan2", "broadcast_in_dim", "ceil",
    "clamp", "concatenate", "conv_general_dilated", "convert_element_type", "copy", "cos",
    "cosh", "cumsum", "custom_jvp_call", "custom_vjp_call", "div", "dot_general",
    "dynamic_slice", "dynamic_update_slice", "eq", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expand_dims", "expm1", "featvis_kept", "featvis_tap", "floor", "gather", "ge", "gt",
    "integer_pow", "iota", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "not", "optimization_barrier", "or", "pad", "pow", "random_bits",
    "random_fold_in",
    "random_unwrap", "random_wrap", "reduce_max", "reduce_min", "reduce_sum",
    "reduce_window_max", "reduce_window_sum", "rem", "reshape", "rev", "round", "rsqrt",
    "scatter", "scatter_add", "select_n", "sign", "sin", "sinh", "slice", "sort", "split",
    "sqrt", "square", "squeeze", "stop_gradient", "sub", "tan", "tanh", "transpose", "xor",
})  # fmt: skip

#: Those that run programs of their own, which are looked into.
_NESTED = ("jit", "scan", "cond", "remat", "remat2", "checkpoint")

_HINTS = {
    "while": (
        "a loop with bounds that are known beforehand has one (jax.lax.scan, or fori_loop with "
        "Python integers), and so has one inside a function with jax.custom_vjp"
    ),
}

_HINT = "give it a gradient of its own (jax.custom_vjp or jax.custom_jvp)"


class _Obstacle(NamedTuple):
    """An equation without a gradient."""

    primitive: str
    reason: str


class _Network(NamedTuple):
    """What of a network has no gradient by the image."""

    layers: dict[str, _Obstacle | None]  # before each, in the order in which they are computed
    found: _Obstacle | None  # anywhere


def check_gradient(
    apply: Any,
    params: Any,
    objective: Objective,
    shape: Sequence[int],
    seen: Sequence[int] | None = None,
) -> bool:
    """Checks that an objective has a gradient by the images, by traces alone.

    Args:
        apply: the network.
        params: its weights.
        objective: one that fits it.
        shape: of the images, (n, h, w, c).
        seen: the shape of what the network sees of them; by default the same.

    Returns:
        Whether there is one only once what the objective does not read is left out.

    Raises:
        GradientError: it has none; names what is in the way, where it is and what has one.
    """
    found = _gradient((params, objective), apply, tuple(shape), tuple(seen or shape))
    if isinstance(found, str):
        raise GradientError(f"{objective!r} has no gradient: {found}")
    return found


@once_a_kind
def _gradient(
    given: tuple[Any, Objective], apply: Any, shape: tuple[int, ...], seen: tuple[int, ...]
) -> bool | str:
    """`check_gradient` of weights and an objective, or why there is no gradient."""
    params, objective = given
    image, looked_at = (jax.ShapeDtypeStruct(one, jnp.float32) for one in (shape, seen))
    closed, acts = jax.make_jaxpr(apply, return_shape=True)(params, looked_at)
    # As many arguments as there are leaves of the weights, then the image.
    network = _network(closed.jaxpr, tuple(acts))
    scored = _scores.trace(objective, acts, image).jaxpr.jaxpr
    of_acts = len(jax.tree.leaves(acts))
    given = scored.invars[-of_acts - 1 :]
    _, own = _walk(scored, [v in given for v in scored.invars])
    if network.found is None and own is None:
        return False

    def total(seen: jax.Array, image: jax.Array, params: Any, objective: Objective) -> jax.Array:
        return jnp.sum(objective(Activations(apply(params, seen)), image))

    for function in (total, pruned(total)):
        reason = _of_its_gradient(function, looked_at, image, params, objective, by=(0, 1))
        if reason is None:
            return function is not total
    read = alive(scored.outvars, scored)
    names = [n for n, v in zip(sorted(acts), given, strict=False) if v in read]
    behind = next((n for n in network.layers if n in names and network.layers[n]), None)
    obstacle = network.layers[behind] if behind is not None else own or network.found
    assert obstacle is not None
    if behind is None:
        return f"it is computed with {_said(obstacle)}"
    free = [repr(name) for name, before in network.layers.items() if before is None]
    nearest = f"; layers before it: {', '.join(free[-4:])}" if free else ""
    return f"layer {behind!r} of the network is computed with {_said(obstacle)}{nearest}"


@functools.lru_cache(maxsize=64)
def check_transform(transform: Transform, shape: tuple[int, ...]) -> None:
    """Checks that a transform of images of a shape (h, w, c) has a gradient by them.

    Raises:
        GradientError: it has none.
    """
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    _check_part(transform, traced(transform, shape)[0], transform.at(0), key, image)


def check_parameterization(parameterization: Parameterization) -> None:
    """Checks what a parameterization makes, and that it has a gradient by its parameters.

    Raises:
        InputError: parameters that are no dict of float32 arrays, or an image of another shape.
        GradientError: it has none.
    """
    _check_parameterization(parameterization)


@once_a_kind
def _check_parameterization(way: Parameterization) -> None:
    """`check_parameterization`, whatever its data are."""
    params = jax.eval_shape(lambda way: way.init(jax.random.key(0)), way)
    named = isinstance(params, dict) and all(
        isinstance(name, str) and getattr(one, "dtype", None) == jnp.float32
        for name, one in params.items()
    )
    if not named:
        raise InputError(
            f"{way!r}: init must give a dict of float32 arrays by name; it gives {params}"
        )

    def decode(way: Any, params: Any) -> Any:
        return way.decode(params)

    image = jax.eval_shape(decode, way, params)
    if getattr(image, "shape", None) != way.shape or image.dtype != jnp.float32:
        raise InputError(
            f"{way!r}: decode must give an image {way.shape} (height, width, channels) of float32; "
            f"it gives {image}"
        )
    _check_part(way, jax.make_jaxpr(decode)(way, params).jaxpr, decode, way, params)


def _check_part(what: object, program: Any, function: Callable[..., Any], *args: Any) -> None:
    """Checks that a part of the way to an image, traced, has a gradient by its last argument."""
    others = len(program.invars) - len(jax.tree.leaves(args[-1]))
    _, obstacle = _walk(program, [place >= others for place in range(len(program.invars))])
    if obstacle is None:
        return

    def total(*values: Any) -> jax.Array:
        return jnp.sum(function(*values))

    if _of_its_gradient(total, *args, by=[len(args) - 1]) is not None:
        raise GradientError(f"{what!r} has no gradient: it is computed with {_said(obstacle)}")


def _said(obstacle: _Obstacle) -> str:
    hint = _HINTS.get(obstacle.primitive, _HINT)
    return f"`{obstacle.primitive}`, which JAX cannot differentiate ({obstacle.reason}): {hint}"


@jax.jit
def _scores(objective: Objective, acts: Any, image: jax.Array) -> jax.Array:
    return objective(Activations(acts), image)


def _of_its_gradient(
    function: Callable[..., jax.Array], *args: Any, by: Sequence[int]
) -> str | None:
    """What JAX says of a function's gradient by some of its arguments; None where it has one."""
    try:
        jax.eval_shape(jax.grad(function, tuple(by)), *args)
    # Whatever the rules of somebody's primitive raise.
    except Exception as error:
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@functools.lru_cache(maxsize=32)
def _network(jaxpr: Any, names: tuple[str, ...]) -> _Network:
    """What of a traced network is in the way of a gradient; its last argument is the image."""
    image = len(jaxpr.invars) - 1
    before, found = _walk(jaxpr, [place == image for place in range(image + 1)])
    made = {v: place for place, eqn in enumerate(jaxpr.eqns) for v in eqn.outvars}
    # A dictionary comes out of JAX with its keys sorted.
    layers = list(zip(sorted(names), jaxpr.outvars, before, strict=True))
    layers.sort(key=lambda layer: -1 if _literal(layer[1]) else made.get(layer[1], -1))
    return _Network({name: obstacle for name, _, obstacle in layers}, found)


def _walk(
    jaxpr: Any, of: Sequence[bool], given: Sequence[_Obstacle | None] = ()
) -> tuple[list[_Obstacle | None], _Obstacle | None]:
    """What is between some of a program's arguments and its results without a gradient.

    Args:
        jaxpr: the program.
        of: which of its arguments are differentiated by.
        given: what is before each argument already.

    Returns:
        The obstacle before each result, and the first in the program, whatever depends on it.
    """
    first: _Obstacle | None = None
    reached: dict[Any, _Obstacle | None] = {}
    for place, (v, differentiated) in enumerate(zip(jaxpr.invars, of, strict=True)):
        if differentiated and _inexact(v):
            reached[v] = given[place] if given else None
    for eqn in jaxpr.eqns:
        inputs = [v for v in eqn.invars if not _literal(v) and v in reached]
        if not inputs or eqn.primitive.name == "stop_gradient":
            continue
        if eqn.primitive.name == "jit":
            inner = eqn.params["jaxpr"].jaxpr
            known = [None if _literal(v) else reached.get(v) for v in eqn.invars]
            mask = [not _literal(v) and v in reached for v in eqn.invars]
            outs, found = _walk(inner, mask, known)
        else:
            found = None if _is_everyday(eqn) else _tried(eqn, inputs)
            before = next((reached[v] for v in inputs if reached[v] is not None), found)
            outs = [before] * len(eqn.outvars)
        first = first or found
        reached.update((v, o) for v, o in zip(eqn.outvars, outs, strict=True) if _inexact(v))
    return [None if _literal(v) else reached.get(v) for v in jaxpr.outvars], first


def _literal(atom: Any) -> bool:
    return isinstance(atom, core.Literal)


def _inexact(v: Any) -> bool:
    dtype = getattr(v.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _is_everyday(eqn: Any) -> bool:
    if eqn.primitive.name in _EVERYDAY:
        return True
    return eqn.primitive.name in _NESTED and all(
        _is_everyday(inner) for one in core.jaxprs_in_params(eqn.params) for inner in one.eqns
    )


def _tried(eqn: Any, inputs: Sequence[Any]) -> _Obstacle | None:
    """The equation as an obstacle, where its gradient alone cannot be traced."""
    variables = list(dict.fromkeys(v for v in eqn.invars if not _literal(v)))
    chosen = [v for v in variables if v in inputs]
    rest = [v for v in variables if v not in inputs]

    def backward(chosen_values: list[Any], rest_values: list[Any]) -> Any:
        def forward(*values: Any) -> list[Any]:
            known = dict(zip([*chosen, *rest], [*values, *rest_values], strict=True))
            outs = bind(eqn, [v.val if _literal(v) else known[v] for v in eqn.invars])
            return [o for o, v in zip(outs, eqn.outvars, strict=True) if _inexact(v)]

        outs, pullback = jax.vjp(forward, *chosen_values)
        return pullback([jnp.ones_like(o) for o in outs])

    structs = [[jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in some]
               for some in (chosen, rest)]  # fmt: skip
    try:
        jax.eval_shape(backward, *structs)
    # Whatever the rules of somebody's primitive raise.
    except Exception as error:
        return _Obstacle(_innermost(eqn), _first_line(error))
    return None


def _innermost(eqn: Any) -> str:
    """The name of what is in the way in an equation, which may be in a program inside it."""
    if eqn.primitive.name in _NESTED:
        for one in core.jaxprs_in_params(eqn.params):
            for inner in one.eqns:
                if not _is_everyday(inner):
                    return _innermost(inner)
    return str(eqn.primitive.name)
