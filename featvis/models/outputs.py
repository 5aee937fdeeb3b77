"""What of a network's values is a layer, and which of them have their channels first."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from featvis.errors import InputError
from featvis.jaxprs.facts import Fact
from featvis.jaxprs.taps import Taps, Traced, join
from featvis.models.input import Input

#: What the values of a network's result are called where nothing says how.
SCORES, OUTPUT = "logits", "output"


class Found(NamedTuple):
    """The layers, what is none and why, and what the network's result is called."""

    layers: dict[str, Fact]
    left_out: dict[str, str]
    output: str


def layers_of(taps: Taps, output: str) -> dict[str, Any]:
    """The named values, then those of the result, by their names."""
    named: dict[str, Any] = dict(taps.values)
    for kind, place, value in taps.results:
        name = place if kind == "key" else join(output, place)
        known = named.get(name)
        if known is None:
            named[name] = value
        elif known is not value:
            raise InputError(
                f"its result would be called {name!r}, which is the name of a layer inside it: "
                "give another, as output='scores'"
            )
    return named


def sorted_out(facts: Taps, traced: Traced, output: str | None, count: int) -> Found:
    """The layers, and what is none and why."""
    if output is None:
        kinds = [fact for _, _, fact in facts.results if _reason(fact, count) is None]
        vectors = any(len(fact.shape) <= 2 for fact in kinds)
        output = SCORES if vectors or not kinds else OUTPUT
    layers, left_out = {}, {}
    for kind, place, reason in traced.left_out:
        left_out[join(output, place) if kind == "result" else place] = reason
    for name, fact in layers_of(facts, output).items():
        why = _reason(fact, count)
        if why is None:
            layers[name] = fact
        elif name in facts.asked:
            raise InputError(
                f"layer {name!r} must hold floating-point activations of {count} images, "
                f"({count}, ...); got {fact.shape} of {fact.dtype}"
            )
        else:
            left_out[name] = why
    left_out = {name: why for name, why in left_out.items() if name not in layers}
    if not layers:
        said = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise InputError(
            "it gives no activations, floating-point arrays whose first axis is the images': "
            + (said or "it returns nothing")
        )
    return Found(layers, left_out, output)


def _reason(fact: Fact, count: int) -> str | None:
    """Why a value is no layer; None where it is one."""
    if not jnp.issubdtype(fact.dtype, jnp.floating):
        return f"of {fact.dtype}, no floating-point numbers"
    if not fact.shape:
        return "one number for all images"
    if 0 in fact.shape:
        return f"empty, {fact.shape}"
    if fact.shape[0] != count:
        return f"the first axis of {fact.shape} is not that of the images"
    return None


def turned_round(
    found: Found, channel_axes: Mapping[str, int] | None, input: Input
) -> frozenset[str]:
    """The layers with channels first: as the user says, or as the program does."""
    said: dict[str, int] = {}
    for pattern, axis in (channel_axes or {}).items():
        matching = fnmatch.filter(found.layers, pattern)
        if not matching:
            raise InputError(
                f"channel_axes has {pattern!r}, which is no layer; layers: "
                f"{', '.join(found.layers)}"
            )
        for name in matching:
            count = len(found.layers[name].shape)
            if isinstance(axis, bool) or axis not in (1, -1, count - 1):
                raise InputError(
                    f"the channels of a layer are its axis 1 or -1, the images being its axis 0; "
                    f"got {axis!r} for {name!r} of {count} axes"
                )
            said[name] = axis % count
    turned = set()
    for name, fact in found.layers.items():
        told = fact.channels if input.layout == "NCHW" and len(fact.shape) == 4 else None
        if said.get(name, told) == 1 and len(fact.shape) > 2:
            turned.add(name)
    return frozenset(turned)
