"""The network that a command line names, and the size of its images."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from contextlib import redirect_stdout, suppress

from featvis import limits, loading
from featvis.checks import LONGEST_SIDE
from featvis.errors import InputError, printable
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
