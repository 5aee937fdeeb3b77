"""Units that give no gradient: whether, and why.

A picture that no gradient reached is the noise that it started from, and looks like a result. Why
is found by walking the traced program of the score, with what the gradient is at every value in it:
the equation at whose output there is one and at whose inputs there is none has ended it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from featvis.dry_runs import once_a_kind
from featvis.jaxprs.rectifiers import Known, Rectifier, walk
from featvis.models import Apply
from objectives import (
    Activations,
    Objective,
    OnImages,
    Scaled,
    Sum,
    separable,
    slice_images,
    units_of,
)

#: A gradient by a pixel below which a step of an adaptive optimizer is none.
LEAST_GRADIENT = 1e-8

#: How much of a gradient is lost at an equation that is said to have ended it.
_LOST = 1e-6

#: Images whose reasons are looked for; those of more are of one unit or one kind.
_EXPLAINED = 8

_ROUNDING = ("round", "floor", "ceil", "sign", "nextafter")

_SATURATING = ("logistic", "tanh", "erf", "erfc", "exp", "exp2", "expm1", "atan", "sin", "cos")

_AT_ZERO = ("integer_pow", "square", "pow", "abs", "sqrt", "mul")

_PRODUCTS = ("mul", "dot_general", "conv_general_dilated")

_CHOOSING = ("max", "min", "clamp", "select_n")

_NESTED = ("scan", "while", "cond")


class SilenceWarning(UserWarning):
    """A picture or a map that shows nothing of its unit, as where that never gave a gradient."""


def asked(objective: Objective, count: int) -> np.ndarray:
    """Whether an objective asks for a unit at each of so many images, (n,).

    Priors alone ask for none; neither does a unit whose weight is 0, nor one of other images.
    """
    if units_of(objective) is None:
        return np.zeros(count, bool)
    if isinstance(objective, Sum):
        return np.any([asked(one, count) for one in objective.objectives], axis=0)
    if isinstance(objective, Scaled):
        return asked(objective.objective, count) & (np.asarray(objective.weight) != 0)
    found = np.ones(count, bool)
    if isinstance(objective, OnImages):
        found[:] = False
        found[list(objective.images)] = asked(objective.objective, len(objective.images))
    return found


def warn_of_silence(silent: Sequence[str | None], objective: str, stacklevel: int = 3) -> None:
    """Warns once of the images whose unit gave no gradient.

    Args:
        silent: why, for each image; None where there was a gradient.
        objective: the objective's text.
        stacklevel: of the warning.
    """
    places = [i for i, why in enumerate(silent) if why is not None]
    if not places:
        return
    which = "" if len(silent) == 1 else f" for {len(places)} of {len(silent)} images"
    whys = list(dict.fromkeys(str(silent[i]) for i in places))
    text = objective if len(objective) <= 100 else objective[:99] + "…"
    warnings.warn(
        f"{text} gives no gradient{which}: {'; '.join(whys)}", SilenceWarning, stacklevel=stacklevel
    )


def reasons(
    apply: Apply,
    weights: Any,
    objective: Objective,
    images: np.ndarray,
    silent: Sequence[bool] | np.ndarray,
    *,
    redirected: bool = False,
) -> tuple[str | None, ...]:
    """Why the unit gives no gradient at images.

    Args:
        apply: the network.
        weights: its weights.
        objective: whose part is looked at that reads activations.
        images: (n, h, w, c), without transforms.
        silent: which of them, (n,).
        redirected: whether the gradients of its rectifiers were redirected at first.

    Returns:
        For each image the reason, or None where it is not silent.
    """
    units = units_of(objective)
    found: list[str | None] = []
    for image in range(len(images)):
        if not silent[image] or units is None:
            found.append(None)
        elif sum(why is not None for why in found) >= _EXPLAINED:
            found.append(next(why for why in found if why is not None))
        else:
            found.append(_reason(apply, weights, units, images, image, redirected))
    return tuple(found)


def _reason(
    apply: Apply, weights: Any, units: Objective, images: np.ndarray, image: int, redirected: bool
) -> str:
    place = image
    if separable(units):
        units, images, place = slice_images(units, image, 1), images[image : image + 1], 0
    try:
        given = weights, units, jnp.asarray(images)
        return _program(given, apply).reason(given, place, redirected)
    except Exception as error:
        # What a network is made of may have no derivative at all: that is no failure of the run.
        said = (str(error) or type(error).__name__).splitlines()[0]
        return f"why is not known ({said[:200]})"


class _Step(NamedTuple):
    """An equation that the image has a part in."""

    name: str
    rectifies: bool
    number_type: str  # of its output
    outputs: tuple[int, ...]  # places of its outputs among the values
    inputs: tuple[int, ...]  # of those of its inputs that are of the image
    constants: int  # inputs that are not
    eqn: Any


class _Program:
    """The score of one image as a program whose every value can be asked for its gradient.

    Attributes:
        apply: the network.
        given: shapes of (weights, objective, images), whose leaves are the program's arguments.
    """

    def __init__(self, apply: Apply, given: tuple[Any, Objective, Any]) -> None:
        def scores(weights: Any, units: Objective, seen: jax.Array) -> Any:
            layers = apply(weights, seen)
            return units(Activations(layers), seen), dict(layers)

        self.closed, shapes = jax.make_jaxpr(scores, return_shape=True)(*given)
        # JAX sorts the keys of a dict: these are in forward order by their values' places below.
        self.layers = sorted(shapes[1])
        self.steps: list[_Step] = []
        self.shapes: list[jax.ShapeDtypeStruct] = []
        self.places: list[int | None] = []
        self.of_image = False
        jax.eval_shape(lambda *leaves: self._run(leaves, None)[0], *jax.tree.leaves(given))
        self.floating = [jnp.issubdtype(s.dtype, jnp.floating) for s in self.shapes]
        self.sizes = jax.jit(self._sizes)

    def _run(self, leaves: Sequence[Any], added: Sequence[Any] | None) -> tuple[Any, list[Any]]:
        """The scores with something added to every value of the image; and zero flags of inputs.

        Without anything to add, what there is to add it to is recorded.
        """
        places: dict[int, int] = {}
        held: list[Any] = []  # so that no identity is used twice
        zeros: list[Any] = []
        count = 0

        def visit(
            eqn: Any, inputs: Sequence[Known], outputs: Sequence[Any], found: Rectifier | None
        ) -> Sequence[Any]:
            nonlocal count
            if all(one.before is None for one in inputs):
                return outputs
            given = []
            for value in outputs:
                if jnp.issubdtype(value.dtype, jnp.floating) and added is not None:
                    value = value + added[count]
                given.append(value)
                held.append(value)
                places[id(value)] = count
                if added is None:
                    self.shapes.append(jax.ShapeDtypeStruct(value.shape, value.dtype))
                count += 1
            if added is None:
                own = tuple(places[id(k.value)] for k in inputs if k.before is not None)
                self.steps.append(
                    _Step(
                        eqn.primitive.name,
                        found is not None,
                        str(given[0].dtype),
                        tuple(places[id(value)] for value in given),
                        own,
                        len(inputs) - len(own),
                        eqn,
                    )
                )
            zeros.append(jnp.stack([~jnp.any(k.value) for k in inputs]))
            return given

        *rest, seen = leaves
        if added is not None:
            seen = seen + added[0]
        held.append(seen)
        places[id(seen)], count = 0, 1
        if added is None:
            self.shapes.append(jax.ShapeDtypeStruct(seen.shape, seen.dtype))
        args = [*map(Known, rest), Known(seen, before=frozenset())]
        out = walk(self.closed.jaxpr, self.closed.consts, args, lambda found: None, visit)
        if added is None:
            self.of_image = out[0].before is not None
            self.places = [places.get(id(one.value)) for one in out[1:]]
        return out[0].value, zeros

    def _sizes(self, leaves: Sequence[jax.Array], place: jax.Array) -> Any:
        """The largest gradient of an image's score at every value, and zero flags of inputs."""

        def total(added: Any) -> Any:
            filled = iter(added)
            scores, zeros = self._run(leaves, [next(filled) if f else None for f in self.floating])
            return scores[place], zeros

        nothing = [
            jnp.zeros(s.shape, s.dtype)
            for s, f in zip(self.shapes, self.floating, strict=True)
            if f
        ]
        gradients, zeros = jax.grad(total, has_aux=True)(nothing)
        return [jnp.max(jnp.abs(g)).astype(jnp.float32) for g in gradients], zeros

    def reason(self, given: tuple[Any, Objective, jax.Array], place: int, redirected: bool) -> str:
        """Why an image has no gradient."""
        if not self.of_image:
            return "the unit does not depend on the image"
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(given)]
        found, zeros = jax.device_get(self.sizes(leaves, jnp.int32(place)))
        filled = iter(found)
        gradient = [float(next(filled)) if f else 0.0 for f in self.floating]
        if gradient[0] > LEAST_GRADIENT:
            return "the transform lets no gradient through: there is one on the clean picture"
        least = _LOST if gradient[0] else 0.0
        said = []
        for step, zero in zip(self.steps, zeros, strict=True):
            there = max(gradient[i] for i in step.outputs)
            if there > 0 and max(gradient[i] for i in step.inputs) <= least * there:
                said.append(f"{self._ending(step, zero, redirected)}{self._where(step)}")
        few = list(dict.fromkeys(said))[:3]
        return "; ".join(few) if few else "why is not known"

    def _where(self, step: _Step) -> str:
        """The layer that the equation leads to."""
        after = [
            (place, name)
            for place, name in zip(self.places, self.layers, strict=True)
            if place is not None and place >= step.outputs[0]
        ]
        return f", at layer {min(after)[1]!r}" if after else ""

    def _ending(self, step: _Step, zero: np.ndarray, redirected: bool) -> str:
        """How an equation ends a gradient."""
        name = step.name
        if step.rectifies:
            tried = ", and redirected gradients did not open it" if redirected else ""
            return f"a rectifier ({_called(step)}) is closed{tried}"
        origin = self._origin(step)
        if origin is not None:
            return f"{origin} gives no gradient"
        if name in _ROUNDING:
            return f"rounding ({name}) gives no gradient"
        if name == "stop_gradient":
            return "stop_gradient lets none through"
        if name in _SATURATING:
            return f"a saturated unit ({name}) is flat"
        if name in _CHOOSING:
            return (
                f"a rectifier or a choice ({_called(step)}) is closed, and was not recognised as "
                "one whose gradient can be redirected"
            )
        if name in _NESTED:
            inner = sorted(_stopping(step.eqn))
            return f"a {name} ends it" + (f" ({', '.join(inner)} in it)" if inner else "")
        if name in _AT_ZERO and all(zero):
            return f"activations of zero, at which {name} is flat"
        # A product gives none where its other factor is zero, at least where there is one after it.
        if name in _PRODUCTS or (len(zero) > 1 and any(zero)):
            return f"{'weights' if step.constants else 'activations'} of zero ({_called(step)})"
        if name in ("custom_jvp_call", "custom_vjp_call"):
            return f"a function with a gradient of its own ({_called(step)}) gives none"
        if name == "pad":
            return "the unit sees padding alone (pad)"
        return f"it ends at {name}"

    def _origin(self, step: _Step) -> str | None:
        """What made whole numbers or truths of the image, where an equation turns them back."""
        by_output = {place: one for one in self.steps for place in one.outputs}
        kinds = [self.shapes[i].dtype for i in step.inputs]
        if not kinds or any(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
            return None
        while step.inputs[0] in by_output:
            before = by_output[step.inputs[0]]
            if any(jnp.issubdtype(self.shapes[i].dtype, jnp.floating) for i in before.inputs):
                if before.name == "convert_element_type":
                    return "an integer conversion"
                if before.name in ("gt", "ge", "lt", "le", "eq", "ne"):
                    return f"a comparison ({before.name})"
                return before.name
            step = before
        return "an integer conversion"


@once_a_kind
def _program(given: tuple[Any, Objective, Any], apply: Apply) -> _Program:
    """The program of all units of a kind: traced and compiled once, whichever unit is asked."""
    return _Program(apply, given)


def _called(step: _Step) -> str:
    program = step.eqn.params.get("call_jaxpr")
    if program is None:
        return step.name
    name: str = program.jaxpr.debug_info.func_name
    return name


def _stopping(eqn: Any) -> set[str]:
    """The equations inside one that can end a gradient."""
    ending = {*_ROUNDING, *_SATURATING, *_CHOOSING, "stop_gradient", "argmax", "argmin"}
    found: set[str] = set()
    pending = list(jax.tree.leaves(list(eqn.params.values()), is_leaf=_has_equations))
    while pending:
        program = pending.pop()
        inner = getattr(program, "jaxpr", program)
        for one in getattr(inner, "eqns", ()):
            if one.primitive.name in ending:
                found.add(one.primitive.name)
            pending += jax.tree.leaves(list(one.params.values()), is_leaf=_has_equations)
    return found


def _has_equations(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")
