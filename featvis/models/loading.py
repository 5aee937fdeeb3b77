"""Networks by name: those of the zoo."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path

from featvis import zoo
from featvis.errors import UnknownModel
from featvis.models.model import Model
from featvis.zoo import ModelEntry


def available() -> list[ModelEntry]:
    """All models that `load` knows by name, whether their weights are here or not."""
    return list(zoo.entries().values())


def load(name: str, weights: str | Path | None = None) -> Model:
    """Reads a model's weights; a second call returns the same model.

    Args:
        name: One of the names in `available()`, as `efficientnet_lite0`.
        weights: A file of weights for it; by default those that its entry knows.

    Raises:
        UnknownModel: There is no such model; the message gives the nearest names.
        CheckpointError: Its weights are not on this machine, damaged, or another network's.
    """
    return _load(name) if weights is None else entry(name).load(weights)


@functools.cache
def _load(name: str) -> Model:
    return entry(name).load()


def outline(name: str) -> Model:
    """A model without its weights, which need not be here: enough for its layers and their shapes.

    Raises:
        UnknownModel: There is no such model; the message gives the nearest names.
    """
    return entry(name).outline()


def entry(name: str) -> ModelEntry:
    """What is known of a model.

    Raises:
        UnknownModel: There is no such model; the message gives the nearest names.
    """
    entries = zoo.entries()
    if name not in entries:
        near = difflib.get_close_matches(str(name), entries, n=3) or list(entries)
        raise UnknownModel(f"unknown model {name!r}; nearest: {', '.join(near)}")
    return entries[name]
