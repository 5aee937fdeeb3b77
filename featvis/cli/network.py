"""The network that a command line names, and what is said of its size and its layers."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress

import numpy as np

from featvis import limits, loading
from featvis.checks import LONGEST_SIDE
from featvis.errors import InputError, printable
from featvis.models import Model
from objectives import Channel, Logit, Neuron


def network_of(
    arguments: Sequence[str], place: str | None, weights: str | None, *, outline: bool = False
) -> tuple[Model, list[str]]:
    """The network that the command line names, and the arguments after its name.

    With `outline` it may be without its weights.
    """
    if place is None and not arguments:
        raise InputError("which network? Give its name (see `featvis models`) or --model")
    name, rest = (arguments[0], arguments[1:]) if place is None else (place, arguments)
    if place is not None and "." in place and not loading.is_place(place):
        raise InputError(f"--model is a network's name or package.module:factory; got {place!r}")
    limits.check_device()
    if outline and weights is None and not loading.is_place(name):
        return loading.outline(name), list(rest)
    return load_network(name, weights), list(rest)


def load_network(name: str, weights: str | None) -> Model:
    """A network; one of one's own may be in the folder one is in, after all that is installed."""
    if not loading.is_place(name):
        return loading.load(name, weights)
    with suppress(FileNotFoundError):  # somebody deleted it
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    # Whatever a network of one's own prints is no line of ours.
    with redirect_stdout(sys.stderr):
        return loading.load(name, weights)


def units_of_layer(layer: str, shape: tuple[int, ...]) -> tuple[str, str, str]:
    """Kind of a layer's activations, and how its units and its neurons are written."""
    last = shape[-1] - 1
    if layer == "logits" and len(shape) == 1:
        return "vector", f"{Logit(0)} to {Logit(last)}", ""
    units = f"{Channel(layer, 0)} to {Channel(layer, last)}"
    kinds = {1: "vector", 2: "tokens", 3: "map"}
    kind = kinds.get(len(shape), "array")
    if kind not in ("tokens", "map"):
        return kind, units, ""
    first, end = (np.array(at) for at in ([0] * (len(shape) - 1), np.array(shape[:-1]) - 1))
    return kind, units, f"{Neuron(layer, 0, first)} to {Neuron(layer, last, end)}"


def size_of(text: str | None, network: Model) -> tuple[int, int] | None:
    """The (height, width) that `--size` says; None where it was not given.

    Raises:
        InputError: no size, or one that the network does not take.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text.strip())
    if match is None:
        raise InputError(
            f"--size must be HEIGHTxWIDTH in pixels, as 160x224, or one number; got "
            f"{printable(repr(text), 80)}"
        )
    sides = [match[1], match[2] or match[1]]
    # Python reads no integer of thousands of digits.
    if any(len(side) > 9 or int(side) > LONGEST_SIDE for side in sides):
        raise InputError(f"--size is at most {LONGEST_SIDE} a side; got {printable(text, 40)}")
    height, width = map(int, sides)
    network.check_image_shape(height, width, network.input.channels)
    return height, width
