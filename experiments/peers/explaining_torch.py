"""captum's attributions in the benchmark, and RISE, which it lacks, as its authors loop over masks.

The weights are frozen: with gradients by them captum would take twice as long.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from captum import attr

from peers import torch_networks
from peers.timing import UNIT_OF_CLASS, calls, pictures

Found = dict[str, Any]

#: Images that RISE's authors send through a network together, at our memory's size.
TOGETHER = 50


class _Prepared(torch.nn.Module):
    """The network behind its own preprocessing."""

    def __init__(self, network: str):
        super().__init__()
        self.module, self.prepare = torch_networks.load(network)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images in [0, 1], (n, 3, h, w)."""
        found: torch.Tensor = self.module(self.prepare(images))
        return found


def load(network: str) -> _Prepared:
    """The network."""
    return _Prepared(network).eval()


def _given(count: int, size: int) -> torch.Tensor:
    return torch.from_numpy(pictures(count, size)).movedim(-1, 1).contiguous()


def integrated_gradients(
    network: str, count: int, size: int, repeats: int, steps: int, together: int
) -> Found:
    """Seconds of integrated gradients, so many images at a time."""
    method, given = attr.IntegratedGradients(load(network)), _given(count, size)
    return {
        "seconds": calls(
            lambda: method.attribute(
                given, target=UNIT_OF_CLASS, n_steps=steps, internal_batch_size=together
            ),
            repeats,
        )
    }


def grad_cam(network: str, count: int, size: int, repeats: int) -> Found:
    """Seconds of Grad-CAM by the last map before the pool, enlarged to the image."""
    model, given = load(network), _given(count, size)
    method = attr.LayerGradCam(model, model.module._bn1)

    def explain() -> None:
        maps = method.attribute(given, target=UNIT_OF_CLASS)
        torch.nn.functional.interpolate(maps, (size, size), mode="bilinear")

    return {"seconds": calls(explain, repeats)}


def rise(network: str, count: int, size: int, repeats: int, masks: int) -> Found:
    """Seconds of RISE: grids enlarged and shifted, scored in batches, their weighted mean."""
    model, given = load(network), _given(count, size)
    grid, keep, cell = 8, 0.1, math.ceil(size / 8)

    def explain(masks: int = masks) -> None:
        with torch.no_grad():
            grids = (torch.rand(masks, 1, grid, grid) < keep).float()
            enlarged = torch.nn.functional.interpolate(
                grids, ((grid + 1) * cell,) * 2, mode="bilinear"
            )
            corners = torch.randint(0, cell, (masks, 2)).tolist()
            drawn = torch.stack(
                [
                    one[:, y : y + size, x : x + size]
                    for one, (y, x) in zip(enlarged, corners, strict=True)
                ]
            )
            for image in given:
                total = torch.zeros(size, size)
                for start in range(0, masks, TOGETHER):
                    some = drawn[start : start + TOGETHER]
                    scores = torch.softmax(model(image * some), dim=1)[:, UNIT_OF_CLASS]
                    total += (scores[:, None, None] * some[:, 0]).sum(0)
                total / masks / keep

    return {"seconds": calls(explain, repeats, lambda: explain(2 * TOGETHER))}
