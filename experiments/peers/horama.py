"""Horama's MaCo in the benchmark.

It optimises an image in the network's own range, so that nothing is to be preprocessed. The folder
that it runs in has the magnitudes that it would download: those of our `MaCo`.
"""

from __future__ import annotations

from typing import Any

import torch

from peers.networks import LAYERS, UNIT
from peers.timing import milliseconds
from peers.torch_networks import load as load
from peers.torch_networks import stand_in_for_torchvision

stand_in_for_torchvision()

from horama import maco_fv  # noqa: E402

maco_fv.tqdm = lambda steps: steps


def maco(network: str, layer: str, size: int, crops: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of a step."""
    module, preprocess = load(network)
    # lucent's name of a module is its path with "_" for ".".
    wanted = LAYERS[network][layer][1]
    (place,) = [p for name, p in module.named_modules() if name.replace(".", "_") == wanted]
    kept: list[torch.Tensor] = []
    hook = place.register_forward_hook(lambda module, inputs, output: kept.append(output))

    def objective(images: torch.Tensor) -> torch.Tensor:
        module(images)
        return kept.pop()[:, UNIT].mean()

    black, white = (float(preprocess(torch.full((1, 1, 1), value)).mean()) for value in (0.0, 1.0))

    def run(steps: int) -> None:
        maco_fv.maco(
            objective,
            total_steps=steps,
            image_size=size,
            values_range=(black, white),
            crops_per_iteration=crops,
            device="cpu",
        )

    found = milliseconds(run, repeats)
    hook.remove()
    return {"ms": found}
