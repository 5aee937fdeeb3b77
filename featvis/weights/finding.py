"""Which file of weights is meant: one that a user gives, one of the hub, or one that is here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from featvis.errors import CheckpointError, printable
from featvis.weights import download
from featvis.weights.files import files_of_index, is_index, read_file, split_part
from featvis.weights.hub import Hub, is_hub, parse_hub, split_hub
from featvis.weights.parts import WeightsFile
from featvis.weights.sources import Download, Local, Source


class FoundWeights(NamedTuple):
    """A file of weights that was read, and where it comes from."""

    source: Source
    file: WeightsFile


def find_weights(
    weights: str | Path | None,
    name: str,
    sources: Sequence[Source],
    fetching: str | None = None,
    given_as: str = "weights=, --weights",
) -> FoundWeights:
    """Finds and reads a file of weights.

    Args:
        weights: a file, or one of the Hugging Face hub, `hf://owner/repository@revision/path`,
            which is downloaded where it is not here yet; after a `#` the part of it that is meant.
            None: the first of `sources` that is here.
        name: of what the weights are for, whose folder in the cache has them.
        sources: where they may come from.
        fetching: the command that downloads them, for the message; None where there is none.
        given_as: the options that take a file of them.

    Raises:
        CheckpointError: They are not on this machine, damaged, or at an address.
        FetchError: The hub's file cannot be downloaded.
        InputError: No such form of a hub's file.
    """
    source: Source
    place: str | Path
    shards: dict[str, Path] | None = None
    if is_hub(weights):
        address, part = split_hub(weights)
        source = hub = parse_hub(address)
        path = _fetched(hub, name)
        place = f"{path}#{part}" if part else path
        if is_index(path):
            # All of the commit that the index is of.
            whole = dataclasses.replace(hub.at(path), digest=None)
            folder = PurePosixPath(hub.path)
            shards = {
                one: _fetched(dataclasses.replace(whole, path=str(folder.with_name(one))), name)
                for one in files_of_index(path)
            }
    elif re.match(r"[a-z][a-z0-9+.-]*://", str(weights), re.IGNORECASE):
        raise CheckpointError(
            f"{printable(weights)} is an address: download the file and give its place, or "
            "name one of the Hugging Face hub, hf://owner/repository@revision/path"
        )
    elif weights is not None:
        place = weights
        source = Local(split_part(weights)[0].name, "given by the user", licence="not known")
    elif (found := first_found(name, sources)) is not None:
        source, place = found
    else:
        raise CheckpointError(
            f"the weights of {name} are not here: {'; or '.join(_ways(name, sources, fetching))}; "
            f"or give a file of them ({given_as})"
        )
    source = source.at(split_part(place)[0])
    return FoundWeights(source, read_file(place, source.sha256, shards))


def first_found(name: str, sources: Sequence[Source]) -> tuple[Source, Path] | None:
    """The first source whose file is on this machine, and the file."""
    for source in sources:
        if path := source.find(name):
            return source, path
    return None


def _fetched(hub: Hub, name: str) -> Path:
    """A file of the hub, from the cache or from there."""
    return hub.find(name) or download.fetch_source(hub, name)


def _ways(name: str, sources: Sequence[Source], fetching: str | None) -> list[str]:
    """How a user gets the weights, by the order of the sources."""
    ways = [source.by_hand(name) for source in sources]
    first = next((i for i, s in enumerate(sources) if isinstance(s, Download | Hub)), None)
    if first is not None and fetching is not None:
        ways.insert(first, fetching)
    return ways
