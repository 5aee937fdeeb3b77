"""The manifest: all that is needed to make a picture again, as JSON in the PNG and beside it.

It is a list of runs, each going on from the one before, and the arrays that they name by digest:

    {"format": 3, "runs": [{...}, ...], "member": 2, "arrays": {"<SHA-256>": {...}, ...}}

The first run is whole, each other is what differs from the one before it; `member` is the place of
a picture that is one of a batch, or the places of several, and `objective` what was for those. That
of results that were joined has in the place of `runs` and `member` a list of both, `joined`.

Files keep it in two parts, so that a picture stays small and opens everywhere: the PNG and the JSON
have the runs; a file in the same folder, which all pictures of the same arrays share, has the
arrays, and runs that are too long for a picture. That file is called
`featvis-<digest>.safetensors`, with the digest that is `shared` in the PNG and the JSON.

What comes from a file is not trusted. Reading it takes at most 100 MB and a few seconds, beyond
some four times the size of the shared file, in which nothing is compressed; and every field is
checked before it is used.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from featvis.models import Target
from featvis.models.leaky import leak_of
from featvis.models.targets import named_arrays
from featvis.results.format import FORMAT
from featvis.results.packing import key_of_path, pack_array, packed_data
from featvis.results.run import Run, recorded
from objectives import NamedArray, Objective, alone, separable

_PACKAGES = ("featvis", "jax", "jaxlib", "optax", "flax", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of what a picture depends on to the bit: packages, Python and the processor."""
    device = jax.devices()[0]
    return {
        **{name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform} {device.device_kind}",
        "processor": _processor(),
    }


@functools.cache
def _version(package: str) -> str:
    # Read from a file each time.
    return importlib.metadata.version(package)


@functools.cache
def _processor() -> str:
    """The processor's model: compiled code differs between them in its last bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


class Done(NamedTuple):
    """A run as it was done.

    Attributes:
        run: its options.
        images: their number.
        steps: those taken; a run that was stopped early is made again by as many.
        snapshots: the steps after which images were kept.
        start: what it started from, an array or parameters; None: the seed, or the run before.
        versions: of what its pictures depend on to the bit.
        member: the place of the image, or the places of those, that the next run goes on from, or
            that a result holds; None: all.
    """

    run: Run
    images: int
    steps: int
    snapshots: tuple[int, ...]
    start: Any
    versions: Mapping[str, str]
    member: int | tuple[int, ...] | None = None

    @property
    def objective(self) -> Objective:
        """What was maximised; of some images of a batch, what was for those alone."""
        whole = self.run.parts.objective
        if self.member is None or self.images == 1 or not separable(whole):
            return whole
        return alone(whole, self.member)


def describe(runs: Sequence[Done]) -> dict[str, Any]:
    """The manifest of runs, each going on from the one before: plain data that `json` writes."""
    arrays: dict[str, Any] = {}
    digests: dict[int, str] = {}

    def keep(array: Any) -> str:
        # Many runs have the same targets.
        if id(array) not in digests:
            digests[id(array)], packed = pack_array(array)
            arrays.setdefault(digests[id(array)], packed)
        return digests[id(array)]

    whole = [_described(done, keep) for done in runs]
    member = whole[-1].pop("member")
    whole[-1]["member"] = None
    differing = [
        {name: value for name, value in run.items() if before[name] != value}
        for before, run in itertools.pairwise(whole)
    ]
    for done in runs:
        arrays |= packed_data(done.run.parts.parameterization)
    manifest: dict[str, Any] = {"format": FORMAT, "runs": [whole[0], *differing], "arrays": arrays}
    if member is None:
        return manifest
    # What a reader looks for; the runs have it of the whole batch.
    return {**manifest, "member": member, "objective": str(runs[-1].objective)}


def describe_joined(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest of results that were joined, from theirs."""
    arrays: dict[str, Any] = {}
    for one in manifests:
        arrays |= one["arrays"]
    inner = [{k: v for k, v in one.items() if k not in ("format", "arrays")} for one in manifests]
    return {"format": FORMAT, "joined": inner, "arrays": arrays}


def _described(done: Done, keep: Callable[[Any], str]) -> dict[str, Any]:
    """A run as plain data; `keep` puts an array among those of the manifest, by its digest."""
    model, objective, parameterization, _ = done.run.parts

    def keep_named(array: NamedArray) -> dict[str, Any]:
        # Of another network than the run's, it cannot be computed anew.
        if isinstance(array, Target) and array.digest == model.digest:
            return {"layer": array.layer, "images": keep(array.images)}
        return {"values": keep(array)}

    start: dict[str, Any] | None = None
    if isinstance(done.start, (np.ndarray, jax.Array)):
        start = {"image": keep(done.start)}
    elif done.start is not None:
        leaves = jax.tree_util.tree_leaves_with_path(done.start)
        start = {"params": {key_of_path(path): keep(leaf) for path, leaf in leaves}}
    return {
        "model": {
            "name": model.name,
            "digest": model.digest,
            "origin": model.origin,
            "leak": leak_of(model),
        },
        "objective": str(objective),
        "targets": {name: keep_named(array) for name, array in named_arrays(objective).items()},
        "parameterization": str(parameterization),
        **recorded(done.run),
        "batch": done.images,
        "steps": done.steps,
        "snapshots": list(done.snapshots),
        "init": start,
        "member": list(done.member) if isinstance(done.member, tuple) else done.member,
        "versions": dict(done.versions),
    }
