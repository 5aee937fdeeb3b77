"""Networks by name. One file with one function under `@model_entry` adds another."""

import functools
from collections.abc import Mapping

from featvis.zoo import networks
from featvis.zoo.entry import ModelEntry, entries_in

__all__ = ["ModelEntry", "entries"]


@functools.cache
def entries() -> Mapping[str, ModelEntry]:
    """All networks of the zoo by name, whether their weights are here or not."""
    return {entry.name: entry for entry in entries_in(networks, ModelEntry)}
