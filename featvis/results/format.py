"""The layout of a manifest: a list of runs, each but the first what differs from the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featvis.own_pictures import KEYWORD as KEYWORD

#: The layout of the manifest; a reader refuses one it does not know.
FORMAT = 3

#: The largest numbers of a run: what `synthesize` takes, `replay` makes again.
LARGEST: Mapping[str, int] = {
    "steps": 10**6,
    "batch": 2**16,
    "draws": 2**10,
    "patience": 2**31 - 1,
    "seed": 2**32 - 1,
}


#: What a file holds beside the manifest: figures, and how its picture is laid out.
BESIDE = ("result", "layout")


def parts_of(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The manifests that a joined one is made of, each of one list of runs; or it alone."""
    if "joined" not in manifest:
        return [manifest]
    common = {k: manifest[k] for k in ("format", "arrays", "shared") if k in manifest}
    return [{**common, **one} for one in manifest["joined"]]


def places_of(member: int | list[int] | tuple[int, ...] | None, count: int) -> list[int]:
    """The places of images in their batch: of one, of some, or (None) of all."""
    if member is None:
        return list(range(count))
    return [member] if isinstance(member, int) else list(member)


def runs_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All runs of a manifest, each of them whole, the first one first."""
    runs: list[dict[str, Any]] = []
    for run in manifest["runs"]:
        runs.append({**runs[-1], **run} if runs else dict(run))
    return runs


def last_run(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The whole run that made the picture, after those that it went on from."""
    return runs_of(manifest)[-1]


def is_text(value: Any) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def is_whole(value: Any, low: int, high: int) -> bool:
    """Whether a value is an integer of a range, both ends included."""
    return type(value) is int and low <= value <= high
