"""Networks whose rectifiers leak in the gradient.

An inversion asks for units that are off, and what would turn them on passes no gradient. `leaky`
lets a small part of it through, `unrectified` all of it, at the one rectifier whose output is the
layer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.errors import InputError
from featvis.jaxprs.rectifiers import Function, Known, Rectifier, walk
from featvis.jaxprs.redirection import with_rectifiers
from featvis.models.model import Apply, Model
from objectives import Activations

Leak = float | Sequence[float | str] | None
"""A slope of all rectifiers, [slope, layer] of a layer's own; None of none. It goes into JSON."""


def leaky(model: Model, layer: str, slope: float | None = None) -> Model:
    """Return the model with rectifiers that pass `slope` of the gradient where they are closed.

    For inversions: a target may ask for units that are off everywhere, and the true gradient never
    turns them on. On EfficientNet-Lite0 at 160x160 (4 photographs, 400 steps) the relative error at
    `head` is 44 % with the true gradient and 27 % with a slope of 0.05; at `block2` 13 % and 10 %.
    The gradient is a surrogate, and the activations are the true ones: so are all scores.

    Rectifiers are those that `redirected` knows, at all images alike; what it leaves as it is, is
    left here too.

    Args:
        model: any model; a leaky one gets the new slope.
        layer: name of the layer that is optimised.
        slope: from 0, the true gradient, to 1, as if there were no rectifiers. None: one over the
            number of rectifiers between the image and `layer`, a ReLU6 being one.

    Returns:
        The model with `Leaky` as its `apply`; itself where no rectifier is before `layer`.

    Raises:
        InputError: a slope out of its range.
        UnknownLayer: no layer of that name; says the nearest.
    """
    count = len(_traced(model, layer).before or ())
    changed = with_leak(model, 1 / max(count, 1) if slope is None else slope)
    return changed if count else with_leak(model, None)


def unrectified(model: Model, layer: str) -> Model:
    """The same model, whose `layer` passes the gradient as if it were not rectified.

    For metamers, as the code of Feather et al. 2023 has them: the ReLU whose output the layer is
    has the gradient of the identity, and all rectifiers before it have their true ones. Of a layer
    that branches are concatenated to, it is that of each branch. A layer that is no rectifier's
    output, as a convolution or a pooled map, keeps its true gradient.

    Args:
        model: any model; of a leaky one the leaks are gone.
        layer: name of the layer that is optimised.

    Returns:
        The model with `Leaky` as its `apply`; itself where the layer is no rectifier's output.

    Raises:
        UnknownLayer: no layer of that name; says the nearest.
    """
    changed = with_leak(model, [1.0, layer])
    return changed if _traced(model, layer).own else with_leak(model, None)


def with_leak(model: Model, leak: Leak) -> Model:
    """The model with this leak, as `leak_of` gives it; with None the one with true gradients.

    Raises:
        InputError: a slope out of its range, or what is no leak.
    """
    if leak is None:
        return (
            model if leak_of(model) is None else dataclasses.replace(model, apply=_network(model))
        )
    given = leak if isinstance(leak, (tuple, list)) else [leak, None]
    if len(given) != 2:
        raise InputError(f"a leak is a slope, or a slope and a layer; got {leak!r}")
    apply = Leaky(_network(model), *given)
    return model if apply == model.apply else dataclasses.replace(model, apply=apply)


def leak_of(model: Model) -> Leak:
    """The slope of a leaky model, with its layer where that alone leaks; None of another model."""
    if not isinstance(model.apply, Leaky):
        return None
    leak = model.apply
    return leak.slope if leak.layer is None else [leak.slope, leak.layer]


def _network(model: Model) -> Apply:
    """The network of a model, with the gradient that it has."""
    return model.apply.apply if isinstance(model.apply, Leaky) else model.apply


@dataclass(frozen=True)
class Leaky:
    """A network whose rectifiers leak in the gradient.

    Attributes:
        apply: the network.
        slope: the part of the gradient that passes where a rectifier is closed, from 0 to 1.
        layer: the layer whose own rectifiers leak alone; None: all of the network do.

    Raises:
        InputError: at construction, for a slope out of its range or a layer that is no name.
    """

    apply: Apply
    slope: float
    layer: str | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.set_fields(self, slope=checks.number(self, "slope", self.slope, 0, 1))
        if not isinstance(self.layer, (str, type(None))):
            raise checks.error(self, "layer", "the name of a layer, or None", self.layer)

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        """Activations by layer name, in forward order: those of `apply`."""

        def ordered(params: Any, image: jax.Array) -> OrderedDict[str, jax.Array]:
            # jax sorts the keys of a dict, and keeps the order of this one.
            return OrderedDict(self.apply(params, image))

        own = None
        if self.layer is not None:
            own = trace_of(self.apply, params, image, self.layer).own

        def change(found: Rectifier) -> jax.Array | None:
            if own is not None and found.place not in own:
                return None
            return leaking(found.plain, self.slope, found.x.value)

        return with_rectifiers(ordered, change)(params, image)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def leaking(plain: Function, slope: float, x: jax.Array) -> jax.Array:
    """The rectifier, whose gradient is the slope where nothing of it passes."""
    return plain(x)


@leaking.defjvp
def _leaking_forward(
    plain: Function, slope: float, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # Backwards, which a rectifier with a rule of its own for that alone can do too.
    out, back = jax.vjp(plain, *primals)
    (passed,) = back(jnp.ones_like(out))
    return out, jnp.where(passed == 0, slope, passed) * tangents[0]


def _traced(model: Model, layer: str) -> Known:
    """What a layer of a model comes from."""
    shape = (1, *model.input.size, model.input.channels)
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    return trace_of(_network(model), model.params, image, layer)


def trace_of(apply: Apply, params: Any, image: Any, layer: str) -> Known:
    """What a layer of a network comes from; its value is nothing that can be used."""

    def one(params: Any, image: jax.Array) -> jax.Array:
        value: jax.Array = Activations(apply(params, image))[layer]
        return value

    closed = jax.make_jaxpr(one)(params, image)
    found: list[Known] = []

    def trace(*leaves: jax.Array) -> jax.Array:
        *weights, seen = leaves
        args = [*map(Known, weights), Known(seen, before=frozenset())]
        found.extend(walk(closed.jaxpr, closed.consts, args, lambda found: None))
        return jnp.asarray(found[0].value)

    jax.eval_shape(trace, *jax.tree.leaves((params, image)))
    return found[0]
