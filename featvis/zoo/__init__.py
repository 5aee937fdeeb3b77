"""Networks by name. One file with one function under `@model_entry` adds another."""

import functools
import importlib
import pkgutil
from collections.abc import Mapping

from featvis.zoo import networks
from featvis.zoo.entry import ModelEntry

__all__ = ["ModelEntry", "entries"]


@functools.cache
def entries() -> Mapping[str, ModelEntry]:
    """All networks of the zoo by name, whether their weights are here or not."""
    modules = [
        importlib.import_module(f"{networks.__name__}.{module.name}")
        for module in pkgutil.iter_modules(networks.__path__)
    ]
    found = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, ModelEntry)
    ]
    return {entry.name: entry for entry in found}
