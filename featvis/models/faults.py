"""Errors of the user's own network, shown with the line of their code."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import flax.errors

from featvis.errors import InputError
from featvis.models.input import Input


@contextmanager
def explained_call(name: str, input: Input) -> Iterator[None]:
    """Makes what a network raises when it is first called an error that says what to do.

    Args:
        name: of the network.
        input: the images that it takes.

    Raises:
        InputError: the network cannot be called so.
    """
    height, width = input.size
    image = f"images (n, {height}, {width}, {input.channels})"
    if input.layout == "NCHW":
        image = f"images (n, {input.channels}, {height}, {width})"
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except flax.errors.InvalidRngError as error:
        raise InputError(
            f"{name} needs random numbers: {first_line(error)}; pass what turns them off, "
            "as call={'deterministic': True} or call={'train': False}, or where they belong to "
            "it a seed for them, as rngs={'dropout': 0}"
        ) from error
    except flax.errors.ModifyScopeVariableError as error:
        raise InputError(
            f"{name} changes its variables when it is called: {first_line(error)}; pass "
            "what turns that off, as call={'train': False} or call={'use_running_average': True}"
        ) from error
    except (
        flax.errors.ScopeCollectionNotFound,
        flax.errors.ScopeVariableNotFoundError,
        flax.errors.ScopeParamNotFoundError,
    ) as error:
        raise InputError(
            f"{name} needs variables that were not given: {first_line(error)}; pass all "
            "that init returned, as {'params': …, 'batch_stats': …}"
        ) from error
    # Whatever a network raises is its own; the user wants to know on what.
    except Exception as error:
        raise InputError(
            f"{name} cannot be called on {image} in inference mode: {said_of(error)}; declare what "
            "it takes with input=featvis.Input(size=…, channels=…), which argument the image is "
            "with image=, and its other arguments with call="
        ) from error


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [""])[0].split(" (https://")[0]


def said_of(error: Exception) -> str:
    """What an error says, and the line of the user's code that it comes from."""
    text = f"{type(error).__name__}: {first_line(error)}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not _is_library(frame.filename):
            line = f", `{frame.line.strip()}`" if frame.line else ""
            return f"{text} ({frame.filename}:{frame.lineno} in {frame.name}{line})"
    return text


#: Packages whose lines say nothing of where a user's network is wrong.
_LIBRARIES = frozenset(
    ("jax", "jaxlib", "flax", "numpy", "equinox", "haiku", "keras", "jaxtyping", "optax", "einops")
)


def _is_library(file: str) -> bool:
    path = Path(file)
    if path.is_relative_to(Path(__file__).parents[1]):
        return True
    parts = path.parts
    if "site-packages" in parts:
        return parts[len(parts) - parts[::-1].index("site-packages")] in _LIBRARIES
    return path.is_relative_to(sysconfig.get_paths()["stdlib"]) or file.startswith("<frozen")
