"""The networks of the comparison: their layers by each one's names, and random weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: (our name, the name that lucent gives the module) of a layer near the input, and so on.
LAYERS = {
    "efficientnet_lite0": {
        "early": ("block2", "_blocks_2"),
        "middle": ("block8", "_blocks_8"),
        "logits": ("logits", "_fc"),
    },
    "resnet18": {
        "early": ("layer1_0", "layer1_0"),
        "middle": ("layer3_0", "layer3_0"),
        "logits": ("logits", "fc"),
    },
    "resnet50": {
        "middle": ("layer3_0", "layer3_0"),
        "logits": ("logits", "fc"),
    },
    "vit_small_patch16": {
        "middle": ("block6", "blocks_6"),
        "logits": ("logits", "head"),
    },
}
#: The unit of each layer that is maximised.
UNIT = 3
WIDTHS = (64, 128, 256, 512)


def _resnet18_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "conv1", (64, 3, 7, 7)
    yield "bn1", (64,)
    inputs = 64
    for stage, width in enumerate(WIDTHS, 1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            yield f"{name}.conv1", (width, inputs, 3, 3)
            yield f"{name}.bn1", (width,)
            yield f"{name}.conv2", (width, width, 3, 3)
            yield f"{name}.bn2", (width,)
            if inputs != width:
                yield f"{name}.downsample.0", (width, inputs, 1, 1)
                yield f"{name}.downsample.1", (width,)
            inputs = width


def resnet18_weights() -> dict[str, np.ndarray]:
    """Random weights of ResNet-18 with torchvision's names, the same each time."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    for name, shape in _resnet18_shapes():
        if len(shape) == 4:
            spread = (2 / np.prod(shape[1:])) ** 0.5
            weights[f"{name}.weight"] = rng.normal(0, spread, shape)
            continue
        for positive in ("weight", "running_var"):
            weights[f"{name}.{positive}"] = rng.uniform(0.5, 1.5, shape)
        for signed in ("bias", "running_mean"):
            weights[f"{name}.{signed}"] = rng.normal(0, 0.2, shape)
    weights["fc.weight"] = rng.normal(0, 512**-0.5, (1000, 512))
    weights["fc.bias"] = rng.normal(0, 0.2, 1000)
    return {name: array.astype(np.float32) for name, array in weights.items()}
