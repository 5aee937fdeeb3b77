"""Generators by name, and one's own by the place of a function that makes it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Mapping
from pathlib import Path

from featvis.errors import InputError, UnknownModel
from featvis.generators import networks
from featvis.generators.entry import GeneratorEntry
from featvis.loading import call_factory, is_place, object_at
from featvis.parameterizations import Generator
from featvis.weights import download
from featvis.weights.files import file_named
from featvis.weights.watch import Limits
from featvis.zoo.entry import entries_in


@functools.cache
def _entries() -> Mapping[str, GeneratorEntry]:
    return {entry.name: entry for entry in entries_in(networks, GeneratorEntry)}


def available() -> list[GeneratorEntry]:
    """Return all generators that `load` knows by name, whether their weights are here or not."""
    return list(_entries().values())


def entry(name: str) -> GeneratorEntry:
    """What is known of a generator.

    Raises:
        UnknownModel: There is no such generator; the message gives the nearest names.
    """
    entries = _entries()
    if not isinstance(name, str) or name not in entries:
        near = difflib.get_close_matches(str(name), entries, n=3) or list(entries)
        raise UnknownModel(f"unknown generator {name!r}; nearest: {', '.join(near)}")
    return entries[name]


def load(
    name: str, weights: str | Path | None = None, encoder: str | Path | None = None
) -> Generator:
    """Load a generator with its weights.

    Args:
        name: one of the names in `available()`, as "taef2"; or where a function is that makes one's
            own, as `mypackage.mymodule:factory`. It is imported and called, with `weights` where
            they are given, and returns a `Generator` (`from_nnx`, `from_linen`, `from_function`).
        weights: a file of them, or a folder of the decoder's and the encoder's; by default those
            that are known. Also a file of the Hugging Face hub, and after a `#` the part of a file.
        encoder: a file of the encoder's weights, where it is another one.

    Raises:
        UnknownModel: there is no such generator; the message gives the nearest names.
        CheckpointError: its weights are not on this machine, damaged, or another network's.
        InputError: the function is not there, fails, or returns something else.
    """
    for given in (weights, encoder):
        if given is not None and not file_named(given):
            raise InputError("weights are a file's name or path; got ''")
    if not is_place(name):
        return entry(name).load(weights, encoder)
    made = object_at(name, "a generator")
    if not isinstance(made, Generator):
        made = call_factory(name, "a generator", made, weights)
    elif weights is not None:
        raise InputError(f"{name} is no function: it takes no weights")
    if encoder is not None:
        raise InputError(f"{name} makes its own encoder: it takes no file of one")
    if not isinstance(made, Generator):
        raise InputError(
            f"{name} must return a featvis.Generator (of from_nnx, from_linen or from_function of "
            f"featvis.generators); got {type(made).__name__}"
        )
    return dataclasses.replace(made, place=name)


def fetch(name: str, *, progress: bool = True) -> list[Path]:
    """Get the weights of a generator into the cache folder, where `load` finds them.

    Args:
        name: one of the names in `available()`.
        progress: show a progress bar on a terminal.

    Returns:
        The files of the decoder and the encoder, which may be one.

    Raises:
        UnknownModel: there is no such generator; the message gives the nearest names.
        FetchError: they cannot be downloaded; the message says which file to put where.
        OutputError: the folder cannot be written, or its disk is full.
    """
    one = entry(name)
    found = []
    for part in (one.decoder, one.encoder):
        if part is not None:
            numbers = sum(math.prod(shape) for shape in part.architecture.shapes().values())
            # Four times what float32 needs, and of a file that may hold the other part too.
            limits = Limits(size=32 * numbers + 2**24)
            found.append(download.fetch(name, part.sources, limits=limits, progress=progress))
    return list(dict.fromkeys(found))


@functools.cache
def known(name: str) -> Generator:
    """As `load` for a name alone; the second time the same."""
    return load(name)
