"""featvis in the benchmark."""

from __future__ import annotations

import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

import featvis as fv
from featvis.models import Model
from featvis.results.run import as_objective
from featvis.transforms import Compose, Noise, RandomAffine, RandomResizedCrop
from peers.networks import LAYERS, UNIT, random_weights
from peers.timing import milliseconds

Found = dict[str, Any]

#: Lucid's transforms, with lucent's resizing of their canvas to the picture's size.
SAME = "standard"
#: Steps between two snapshots of a run whose quality is followed.
EVERY = 8


@functools.cache
def load(network: str) -> Model:
    """The network, with the weights that the peers have."""
    if network == "efficientnet_lite0":
        return fv.load(network)
    path = Path(f"{network}-ours.safetensors")
    save_file(random_weights(network), path)
    return fv.load(network, weights=path)


def resized(size: int) -> RandomAffine:
    """Lucid's transforms, a frame of 6 pixels on each side within the picture's own size."""
    shrunk = size / (size + 12)
    return RandomAffine((0.9 * shrunk, 1.1 * shrunk), (-10, 10), 6 * shrunk, "constant")


def _render(network: str, layer: str, batch: int, size: int, steps: int, **options: Any) -> Any:
    options = {"transform": SAME, "batch": batch, **options}
    if options["transform"] == SAME:
        options["transform"] = resized(size)
    unit = f"{LAYERS[network][layer][0]}:{UNIT}"
    written = fv.Fourier((size, size))
    return fv.synthesize(load(network), unit, written, steps=steps, progress=False, **options)


def take(network: str, layer: str, batch: int, size: int, steps: int) -> Found:
    """Takes so many steps, compiling what they need: for the memory of the process."""
    _render(network, layer, batch, size, steps)
    return {}


def step(network: str, layer: str, batch: int, size: int, repeats: int) -> Found:
    """Milliseconds of a step."""
    fv.enable_cache()
    render = functools.partial(_render, network, layer, batch, size)
    return {"ms": milliseconds(render, repeats)}


def maco(network: str, layer: str, size: int, crops: int, repeats: int) -> Found:
    """Milliseconds of a step of MaCo, of so many crops one after the other."""
    fv.enable_cache()
    # Horama's box is of [0.25, 0.30], whatever its argument's [0.20, 0.25] says; its noise, normal
    # and uniform, is in units of twice ours.
    crop = RandomResizedCrop(0.25, 0.30, size=load(network).input.size)
    unit = f"{LAYERS[network][layer][0]}:{UNIT}"

    def render(steps: int) -> None:
        fv.synthesize(
            load(network),
            unit,
            fv.MaCo((size, size)),
            steps=steps,
            transform=Compose((crop, Noise(0.026))),
            draws=crops,
            progress=False,
        )

    return {"ms": milliseconds(render, repeats)}


def template(network: str, size: int, path: str) -> Found:
    """Writes the magnitudes that Horama would download: ours, so that both have the same."""
    np.save(path, fv.MaCo((size, size)).magnitude())
    return {}


def quality(
    network: str, layer: str, size: int, steps: int, seed: int, transform: str, images: str
) -> Found:
    """Scores on the clean picture by step, a peer's and ours, and the time to the peer's last.

    Args:
        network: that scores and is maximised.
        layer: of the unit.
        size: of the pictures.
        steps: of our run, and those after which the peer's picture is to be matched.
        seed: of our run.
        transform: of our run.
        images: a file with the peer's pictures (k, n, h, w, c) by step, or of none.
    """
    unit = as_objective(f"{LAYERS[network][layer][0]}:{UNIT}")

    def score(pictures: np.ndarray) -> float:
        return float(np.mean(unit(load(network)(pictures), pictures)))

    def render(steps: int, **options: Any) -> Any:
        return _render(network, layer, 1, size, steps, seed=seed, transform=transform, **options)

    def seconds(steps: int) -> float:
        started = time.perf_counter()
        render(steps)
        return time.perf_counter() - started

    # Without the cache on disk: the first step is compiled here.
    first = seconds(1)
    result = render(steps, snapshots=range(EVERY, steps + 1, EVERY))
    scores = {after: score(picture) for after, picture in result.snapshots.items()}
    found: Found = {"first": first, "scores": scores, "whole": seconds(steps)}
    if Path(images).exists():
        by_step = np.load(images)
        peer = {int(after): score(by_step[after]) for after in by_step.files}
        enough = [after for after, mine in scores.items() if mine >= peer[steps]]
        found |= {"peer": peer, "reached": min(enough, default=None)}
        if enough:
            found["seconds"] = seconds(min(enough))
    return found


def _compiled() -> list[str]:
    """The names of what is compiled from now on, as it is."""
    compiled: list[str] = []

    def note(event: str, seconds: float, **about: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(note)
    return compiled


def _loops(compiled: list[str]) -> int:
    """How often the loop was compiled."""
    loops = sum("take_steps" in name for name in compiled)
    assert loops, "JAX told of no compilation of the loop: it must have another name"
    return loops


def atlas(network: str, layer: str, units: int, batch: int, size: int, steps: int) -> Found:
    """Seconds for an atlas of some units, all that it writes too, once it has compiled its loop."""
    compiled = _compiled()
    with tempfile.TemporaryDirectory() as folder:
        options = {"batch": batch, "steps": steps, "transform": resized(size), "progress": False}
        make = functools.partial(
            fv.atlas, load(network), LAYERS[network][layer][0], f"{folder}/atlas",
            size=(size, size), **options,
        )  # fmt: skip
        make(units=range(batch))
        started = time.perf_counter()
        make(units=range(batch + units))
        taken = time.perf_counter() - started
    return {"seconds": taken, "loops": _loops(compiled)}


def layer(network: str, layer: str, units: int, batch: int, size: int, steps: int) -> Found:
    """Seconds for a whole layer's units, once warm, and what was compiled for them before."""
    compiled = _compiled()
    texts = [f"{LAYERS[network][layer][0]}:{unit}" for unit in range(units)]
    written = fv.Fourier((size, size))

    def render() -> list[int]:
        """How many programs had been compiled after each batch."""
        results = fv.synthesize_many(
            load(network),
            texts,
            written,
            batch_limit=batch,
            steps=steps,
            transform=resized(size),
            progress=False,
        )
        return [len(compiled) for _ in results]

    after = render()
    loops = _loops(compiled)
    started = time.perf_counter()
    render()
    taken = time.perf_counter() - started
    return {"seconds": taken, "loops": loops, "later": after[-1] - after[0]}
