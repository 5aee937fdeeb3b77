"""A function of JAX as a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from featvis.errors import InputError
from featvis.models.call import Call, Given, in_order, key_order, plain, read_call, static
from featvis.models.input import Input
from featvis.models.model import Model
from featvis.models.own import Runner, Way, kind_of, model_of


def from_function(
    apply: Callable[..., Any],
    params: Any,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str | None = None,
    logits: str | None = None,
    call: Mapping[Any, Any] | None = None,
    image: int | str = 1,
    channel_axes: Mapping[str, int] | None = None,
) -> Model:
    """Make a model of any pure function of JAX, written by hand or with any library.

    Its layers are what it returns, and the values that `featvis.tap(x, "name")` names in it.

    Args:
        apply: `(params, image) -> an array, or several by name`, the image as `input` declares it.
        params: its weights, a pytree of arrays: as an argument no part of what is compiled.
        input: the images that it takes; by default any size, three channels in [0, 1].
        name: of the model; by default that of the function.
        labels: class names by index of its class scores.
        output: as for `from_nnx`.
        logits: as for `from_nnx`.
        call: as for `from_nnx`; the parameters are the first argument, the image the second.
        image: as for `from_nnx`.
        channel_axes: as for `from_nnx`.

    Raises:
        InputError: it cannot be called on such images, or gives no layer.
    """
    if not callable(apply):
        raise InputError(f"from_function takes a function (params, image); got {kind_of(apply)}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, (int, float)):
            raise InputError(
                f"from_function takes params of arrays; got {kind_of(leaf)} at "
                f"{jax.tree_util.keystr(path) or 'the top'}: keep what is no array in the function"
            )
    how, arrays = read_call(image, call, first=1)
    return model_of(
        _Function(static(apply), how, key_order(params)),
        Given(params, (), arrays),
        input=input,
        name=name or str(getattr(apply, "__name__", type(apply).__name__)),
        labels=labels,
        output=output,
        logits=logits,
        made=apply,
        channel_axes=channel_axes,
    )


@dataclass(frozen=True)
class _Function(Runner):
    function: Any
    call: Call
    order: Any

    def run(self, given: Given, x: jax.Array, way: Way) -> Any:
        places, named = self.call.arguments(x, given.call, way.each)
        return plain(self.function)(in_order(given.weights, self.order), *places, **named)
