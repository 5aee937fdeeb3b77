"""lucent in the benchmark, at its best.

The network's own preprocessing, frozen weights, no resizing to 224; and the hooks that each of its
runs leaves on the network, which hold on to activations, are taken off after it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from peers import torch_networks
from peers.networks import LAYERS, UNIT
from peers.timing import milliseconds

torch_networks.stand_in_for_torchvision()
torch_networks.stand_in_for_ipython()

import kornia  # noqa: E402

for _name in ("get_rotation_matrix2d", "warp_affine"):
    # lucent finds them where kornia had them until 0.4.
    if not hasattr(kornia, _name):
        setattr(kornia, _name, getattr(kornia.geometry.transform, _name))

from lucent.optvis import objectives, param, render, transform  # noqa: E402

Found = dict[str, Any]


def load(network: str) -> torch_networks.Network:
    """The network, where lucent has its images: on the first accelerator that there is."""
    return torch_networks.load(network, str(transform.device))


def _render(
    network: str,
    layer: str,
    batch: int,
    size: int,
    steps: int,
    thresholds: Sequence[int] = (),
    objective: Any = None,
) -> list[np.ndarray]:
    module, preprocess = load(network)
    pictures = render.render_vis(
        module,
        objective or objectives.channel(LAYERS[network][layer][1], UNIT),
        param_f=lambda: param.image(size, batch=batch),
        transforms=[*transform.standard_transforms, preprocess],
        thresholds=tuple(thresholds) or (steps,),
        preprocess=False,
        progress=False,
        show_image=False,
        fixed_image_size=size,
    )
    for part in module.modules():
        part._forward_hooks.clear()
    return pictures


def take(network: str, layer: str, batch: int, size: int, steps: int) -> Found:
    """Takes so many steps: for the memory of the process."""
    _render(network, layer, batch, size, steps)
    return {}


def picture(network: str, layer: str, size: int, steps: int, path: str) -> Found:
    """Renders one picture to a file."""
    (image,) = _render(network, layer, 1, size, steps)
    Image.fromarray((255 * image[0]).astype(np.uint8)).save(path)
    return {}


def step(network: str, layer: str, batch: int, size: int, repeats: int) -> Found:
    """Milliseconds of a step."""
    return {"ms": milliseconds(functools.partial(_render, network, layer, batch, size), repeats)}


def ready(network: str) -> Found:
    """Starts the accelerator, and puts the network there."""
    load(network)
    torch.zeros(1, device=transform.device).item()
    return {}


def on_device(network: str, layer: str, batch: int, size: int, repeats: int, tf32: bool) -> Found:
    """Milliseconds of a step on an accelerator, with or without 19 bits for float32."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return step(network, layer, batch, size, repeats)
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def quality(
    network: str, layer: str, size: int, steps: int, every: int, seed: int, images: str
) -> Found:
    """Seconds after every so many steps, and the pictures then, in a file for us to score."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002, that is what lucent draws its transforms from
    started = time.perf_counter()
    _render(network, layer, 1, size, 1)
    first = time.perf_counter() - started
    inner = objectives.channel(LAYERS[network][layer][1], UNIT)
    begun: list[float] = []

    def noting_the_time(hook: Any) -> Any:
        begun.append(time.perf_counter())
        return inner(hook)

    thresholds = range(every, steps + 1, every)
    started = time.perf_counter()
    pictures = _render(network, layer, 1, size, steps, thresholds, noting_the_time)
    begun.append(time.perf_counter())
    np.savez(Path(images), **{str(s): p for s, p in zip(thresholds, pictures, strict=True)})
    # After a step is when the next one asks for its objective, or the end.
    return {"first": first, "seconds": {s: begun[s] - started for s in thresholds}}


def _units(network: str, layer: str, units: Sequence[int], size: int, steps: int) -> np.ndarray:
    """Pictures of several units in one run, (n, h, w, c) in [0, 1]."""
    name = LAYERS[network][layer][1]
    terms = [objectives.channel(name, unit, batch=i) for i, unit in enumerate(units)]
    joint = objectives.Objective.sum(terms)
    (images,) = _render(network, layer, len(units), size, steps, objective=joint)
    return images


def pictures(
    network: str, layer: str, units: Sequence[int], size: int, steps: int, seed: int
) -> np.ndarray:
    """Pictures of several units from a seed, (n, h, w, c) in [0, 1]; a step's draw is for all."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002, that is what lucent draws its transforms from
    return np.asarray(_units(network, layer, units, size, steps), np.float32)


def layer(network: str, layer: str, units: int, batch: int, size: int, steps: int) -> Found:
    """Seconds for a whole layer's units, a batch of them in a run."""
    _render(network, layer, batch, size, 1)
    started = time.perf_counter()
    for start in range(0, units, batch):
        _units(network, layer, range(start, min(start + batch, units)), size, steps)
    return {"seconds": time.perf_counter() - started}
