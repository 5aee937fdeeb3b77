"""The manifest: all that is needed to make a picture again, as JSON in the PNG and beside it.

It is a list of runs, each going on from the one before, and the arrays that they name by digest:

    {"format": 3, "runs": [{...}, ...], "member": 2, "arrays": {"<SHA-256>": {...}, ...}}

The first run is whole, each other is what differs from the one before it; `member` is the place of
a picture that is one of a batch. Files keep it in two parts, so that a picture stays small and
opens everywhere: the PNG and the JSON have the runs; a file in the same folder, which all pictures
of the same arrays share, has the arrays, and runs that are too long for a picture. That file is
called `featvis-<digest>.safetensors`, with the digest that is `shared` in the PNG and the JSON.

What comes from a file is not trusted. Reading it takes at most 100 MB and a few seconds, beyond
some four times the size of the shared file, in which nothing is compressed; and every field is
checked before it is used.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from featvis.models import Model, Target
from featvis.models.leaky import leak_of
from featvis.models.targets import named_arrays
from featvis.parameterizations import Parameterization
from featvis.results.format import FORMAT, runs_of
from featvis.results.packing import key_of_path, pack_array
from featvis.transforms import Transform
from objectives import NamedArray, Objective

_PACKAGES = ("featvis", "jax", "jaxlib", "optax", "flax", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of what a picture depends on to the bit: packages, Python and the processor."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    device = jax.devices()[0]
    return {
        **found,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform} {device.device_kind}",
        "processor": _processor(),
    }


def _processor() -> str:
    """The processor's model: compiled code differs between them in its last bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe_run(
    *,
    model: Model,
    objective: Objective,
    parameterization: Parameterization,
    transform: Transform,
    optimizer: Any,
    seed: int | Sequence[int],
    batch: int,
    steps: int,
    draws: int,
    patience: int | None,
    init: Any,
    before: Mapping[str, Any] | None,
    snapshots: Sequence[int],
) -> dict[str, Any]:
    """The manifest of a run, plain data that `json` writes.

    `steps` are those taken: a run stopped early is made again by as many steps. What has no text
    form (an optax transformation that was not given as text) is None, and `replay` asks for it.
    `before` is the manifest of the run that this one goes on from.
    """
    arrays: dict[str, Any] = {} if before is None else dict(before["arrays"])

    def keep(array: Any) -> str:
        digest, packed = pack_array(array)
        arrays.setdefault(digest, packed)
        return digest

    def keep_named(array: NamedArray) -> dict[str, Any]:
        # Of another network than the run's, it cannot be computed anew.
        if isinstance(array, Target) and array.digest == model.digest:
            return {"layer": array.layer, "images": keep(array.images)}
        return {"values": keep(array)}

    run: dict[str, Any] = {
        "model": {
            "name": model.name,
            "digest": model.digest,
            "origin": model.origin,
            "leak": leak_of(model),
        },
        "objective": str(objective),
        "targets": {name: keep_named(array) for name, array in named_arrays(objective).items()},
        "parameterization": repr(parameterization),
        "transform": repr(transform),
        "optimizer": optimizer if isinstance(optimizer, str) else None,
        "seed": int(seed) if isinstance(seed, (int, np.integer)) else [int(s) for s in seed],
        "batch": batch,
        "steps": steps,
        "draws": int(draws),
        "patience": None if patience is None else int(patience),
        "snapshots": list(snapshots),
        "init": None,
        "member": None,  # the one image of this run that the next one goes on from
        "versions": versions(),
    }
    if isinstance(init, (np.ndarray, jax.Array)):
        run["init"] = {"image": keep(init)}
    elif init is not None:
        leaves = jax.tree_util.tree_leaves_with_path(init)
        run["init"] = {"params": {key_of_path(path): keep(leaf) for path, leaf in leaves}}
    runs = [run]
    if before is not None:
        *others, last = before["runs"]
        earlier = [*others, {**last, "member": before.get("member")}]
        whole = runs_of({"runs": earlier})[-1]
        differs = {name: value for name, value in run.items() if whole[name] != value}
        runs = [*earlier, differs]
    return {"format": FORMAT, "runs": runs, "arrays": arrays}
