"""Networks by name: those of the zoo, and one's own by the place of a function that makes it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flax import nnx

from featvis import zoo
from featvis.errors import FeatvisError, InputError, UnknownModel, printable
from featvis.models import Model, from_nnx, join
from featvis.weights import download
from featvis.weights.files import file_named, split_part
from featvis.weights.watch import Limits
from featvis.zoo.entry import ModelEntry


def available() -> list[ModelEntry]:
    """All models that `load` knows by name, whether their weights are here or not."""
    return list(zoo.entries().values())


def load(name: str, weights: str | Path | None = None) -> Model:
    """Reads a model's weights; a second call for a name alone returns the same model.

    Args:
        name: One of the names in `available()`, as `efficientnet_lite0`; several with `+` between,
            `efficientnet_lite0+resnet50`, for `join` of them; or where a function (or
            class) is that makes one's own, as `mypackage.mymodule:factory`. It is imported and
            called, with `weights` where that is given, and returns a `Model` or an `nnx.Module`.
        weights: A file of weights for it; by default those that its entry knows. For a network of
            the zoo also a file of the Hugging Face hub, `hf://owner/repository@revision/path`, and
            after a `#` the part of the file that is meant, as in `run.pth#ema`.

    Raises:
        UnknownModel: There is no such model; the message gives the nearest names.
        CheckpointError: Its weights are not on this machine, damaged, or another network's.
        InputError: The function is not there, fails, or returns something else.
    """
    if is_place(name):
        return _made_by(name, weights)
    if "+" in str(name):
        if weights is not None:
            raise InputError(
                f"{name} are several networks: load each with its weights and join them"
            )
        return _joined(name)
    return _load(name) if weights is None else entry(name).load(weights)


def as_model(model: object, what: str = "model") -> Model:
    """A network itself, or the one of a name.

    Args:
        model: either.
        what: the argument's name, for messages.

    Raises:
        InputError: neither; and as `load`.
    """
    if isinstance(model, str):
        return load(model)
    if not isinstance(model, Model):
        hint = ": featvis.from_nnx makes one of it" if isinstance(model, nnx.Module) else ""
        raise InputError(
            f"{what} is a featvis.Model, or the name of one; got {printable(repr(model), 80)}{hint}"
        )
    return model


def is_place(name: str) -> bool:
    """Whether a model's name says where the function is that makes it, `package.module:factory`."""
    return ":" in str(name)


def _made_by(place: str, weights: str | Path | None) -> Model:
    made = object_at(place, "a model")
    if not isinstance(made, (Model, nnx.Module)):
        made = call_factory(place, "a model", made, weights)
    elif weights is not None:
        raise InputError(f"{place} is no function: it takes no weights")
    if isinstance(made, nnx.Module):
        made = from_nnx(made)
    if not isinstance(made, Model):
        raise InputError(
            f"{place} must return a featvis.Model (of from_nnx, from_linen or from_function) or an "
            f"nnx.Module; got {type(made).__name__}"
        )
    origin = place
    if weights is not None:
        file, part = split_part(weights)
        origin = f"{place}, weights {file.name}{'#' if part else ''}{part}"
    return dataclasses.replace(made, name=place, origin=origin)


def object_at(place: str, what: str) -> Any:
    """What there is at a place, `package.module:factory`, which is imported.

    Args:
        place: of one's own code.
        what: it is to be, as the message says ("a model").

    Raises:
        InputError: no such form, or nothing there; says the nearest.
    """
    match = re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*):([A-Za-z_]\w*(?:\.\w+)*)", place)
    if match is None:
        raise InputError(f"{what}'s place is package.module:factory; got {place!r}")
    try:
        found: Any = importlib.import_module(match[1])
    # A user's module may raise anything when it is imported, and may be a program that ends.
    except (Exception, SystemExit) as error:
        raise InputError(f"cannot import {match[1]} for {place}: {_said(error)}") from error
    for name in match[2].split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), n=3)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise InputError(f"{match[1]} has no {match[2]}{hint}")
        found = getattr(found, name)
    return found


def call_factory(place: str, what: str, factory: Any, weights: str | Path | None) -> Any:
    """What a function of one's own makes, called with `weights` where they are given.

    Raises:
        InputError: it is no function, does not take that, or fails; says what it said.
    """
    if not callable(factory):
        raise InputError(f"{place} is no function that makes {what}: {type(factory).__name__}")
    options = {} if weights is None else {"weights": file_named(weights)}
    try:
        inspect.signature(factory).bind(**options)
    except ValueError:  # it has no signature that can be read
        pass
    except TypeError as error:
        given = "no arguments" if weights is None else "the argument weights"
        raise InputError(f"{place} cannot be called with {given}: {error}") from error
    try:
        return factory(**options)
    except FeatvisError as error:
        raise InputError(f"{place}: {error}") from error
    # Whatever a user's factory raises, the user wants to know where.
    except (Exception, SystemExit) as error:
        raise InputError(f"{place} raised {_said(error)}") from error


def _said(error: BaseException) -> str:
    """What an error of a user's code says, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {printable(text)}" if text else type(error).__name__


@functools.cache
def _joined(name: str) -> Model:
    return _of_parts(name, load)


def _of_parts(name: str, get: Callable[[str], Model]) -> Model:
    """The networks of a name with `+` between, joined."""
    parts = name.split("+")
    if len(set(parts)) < len(parts):
        raise InputError(f"joined networks are different ones; got {name!r}")
    return join({part: get(part) for part in parts})


@functools.cache
def _load(name: str) -> Model:
    return entry(name).load()


def fetch(name: str, *, progress: bool = True) -> Path:
    """Gets the weights of a model into the cache folder, where `load` finds them.

    What is there already is checked and not downloaded again; a download that was broken off goes
    on where it stopped.

    Args:
        name: One of the names in `available()`.
        progress: Show a progress bar on a terminal.

    Returns:
        The file.

    Raises:
        UnknownModel: There is no such model; the message gives the nearest names.
        FetchError: They cannot be downloaded; the message says which file to put where.
        OutputError: The folder cannot be written, or its disk is full.
    """
    one = entry(name)
    # Four times what float32 needs.
    limits = Limits(size=16 * one.parameters + 2**24)
    return download.fetch(one.name, one.sources, limits=limits, progress=progress)


def outline(name: str) -> Model:
    """A model without its weights, which need not be here: enough for its layers and their shapes.

    Raises:
        UnknownModel: There is no such model; the message gives the nearest names.
    """
    if "+" in str(name):
        return _of_parts(name, outline)
    return entry(name).outline()


def entry(name: str) -> ModelEntry:
    """What is known of a model.

    Raises:
        UnknownModel: There is no such model; the message gives the nearest names.
    """
    entries = zoo.entries()
    if not isinstance(name, str) or name not in entries:
        near = sorted(difflib.get_close_matches(str(name), entries, n=5)) or list(entries)
        raise UnknownModel(f"unknown model {name!r}; nearest: {', '.join(near)}")
    return entries[name]
