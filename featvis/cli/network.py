"""The network that a command line names, and the size of its images."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from contextlib import redirect_stdout, suppress

from featvis import limits, loading
from featvis.checks import read_size
from featvis.errors import InputError
from featvis.models import Model


def network_of(given: Namespace, *, outline: bool = False) -> tuple[Model, list[str]]:
    """Return the network that a command line names, and the words after its name.

    With `outline` it may be without its weights.
    """
    place, words = given.model, given.words
    name, rest = (words[0], words[1:]) if place is None else (place, words)
    if place is not None and "." in place and not loading.is_place(place):
        raise InputError(f"--model is a network's name or package.module:factory; got {place!r}")
    limits.check_device()
    if outline and given.weights is None and not loading.is_place(name):
        return loading.outline(name), rest
    return load_network(name, given.weights), rest


def load_network(name: str, weights: str | None) -> Model:
    """Load a network; one's own may be in the working folder, after all that is installed."""
    if not loading.is_place(name):
        return loading.load(name, weights)
    see_working_folder()
    # Whatever a network of one's own prints is no line of ours.
    with redirect_stdout(sys.stderr):
        return loading.load(name, weights)


def see_working_folder() -> None:
    """Let what is of one's own be found in the working folder, after all that is installed."""
    with suppress(FileNotFoundError):  # somebody deleted it
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())


def size_of(text: str | None, network: Model) -> tuple[int, int] | None:
    """Return the (height, width) that `--size` says; None where it was not given.

    Raises:
        InputError: no size, or one that the network does not take.
    """
    if text is None:
        return None
    height, width = read_size("--size", text)
    network.check_image_shape(height, width, network.input.channels)
    return height, width
