"""Networks by name. One file with one function under `@model_entry` adds another."""

import difflib
import functools
import importlib
import pkgutil

from featvis.errors import UnknownModel
from featvis.models.model import Apply, Model, ModelEntry, model_entry

__all__ = ["Apply", "Model", "ModelEntry", "available", "load", "model_entry"]


@functools.cache
def _entries() -> dict[str, ModelEntry]:
    modules = [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
    ]
    entries = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, ModelEntry)
    ]
    return {entry.name: entry for entry in entries}


def available() -> list[ModelEntry]:
    """All models that `load` knows, whether their weights are here or not."""
    return list(_entries().values())


@functools.cache
def load(name: str) -> Model:
    """Reads a model's weights; a second call returns the same model.

    Args:
        name: One of the names in `available()`, as `efficientnet_lite0`.

    Raises:
        UnknownModel: There is no such model; the message gives the nearest names.
        CheckpointError: Its weights are not on this machine, damaged, or another network's.
    """
    entries = _entries()
    if name not in entries:
        near = difflib.get_close_matches(str(name), entries, n=3) or list(entries)
        raise UnknownModel(f"unknown model {name!r}; nearest: {', '.join(near)}")
    return entries[name].build()
