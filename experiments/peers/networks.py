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
    "vgg16": {
        "early": ("conv2_1", "features_5"),
        "middle": ("conv4_1", "features_17"),
        "logits": ("logits", "classifier_6"),
    },
    "googlenet": {
        "early": ("conv2d2", "conv3"),
        "middle": ("mixed4b", "inception4b"),
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
#: Convolutions of VGG-16 in each of its five stacks.
STACKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
#: Channels of GoogLeNet's 1x1, 3x3 and its bottleneck, "5x5" and its bottleneck, pooled branches.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
Shapes = Iterator[tuple[str, tuple[int, ...]]]
"""Names, and the shape of a convolution (4 axes), a dense layer (2), a batch norm or a bias (1)."""


def _resnet18_shapes() -> Shapes:
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
    yield "fc", (1000, inputs)


def _vgg16_shapes() -> Shapes:
    place, inputs = 0, 3
    for width, count in STACKS:
        for _ in range(count):
            yield f"features.{place}", (width, inputs, 3, 3)
            yield f"features.{place}.bias", (width,)
            place, inputs = place + 2, width
        place += 1
    for place, shape in ((0, (4096, 49 * inputs)), (3, (4096, 4096)), (6, (1000, 4096))):
        yield f"classifier.{place}", shape


def _googlenet_shapes() -> Shapes:
    def convolution(name: str, *shape: int) -> Shapes:
        yield f"{name}.conv", shape
        yield f"{name}.bn", shape[:1]

    yield from convolution("conv1", 64, 3, 7, 7)
    yield from convolution("conv2", 64, 64, 1, 1)
    yield from convolution("conv3", 192, 64, 3, 3)
    inputs = 192
    for place, (one, before3, three, before5, five, pooled) in INCEPTIONS.items():
        name = f"inception{place}"
        yield from convolution(f"{name}.branch1", one, inputs, 1, 1)
        yield from convolution(f"{name}.branch2.0", before3, inputs, 1, 1)
        yield from convolution(f"{name}.branch2.1", three, before3, 3, 3)
        yield from convolution(f"{name}.branch3.0", before5, inputs, 1, 1)
        yield from convolution(f"{name}.branch3.1", five, before5, 3, 3)
        yield from convolution(f"{name}.branch4.1", pooled, inputs, 1, 1)
        inputs = one + three + five + pooled
    yield "fc", (1000, inputs)


_SHAPES = {
    "resnet18": _resnet18_shapes,
    "vgg16": _vgg16_shapes,
    "googlenet": _googlenet_shapes,
}


def random_weights(network: str) -> dict[str, np.ndarray]:
    """Random weights of a network with torchvision's names, the same each time."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    for name, shape in _SHAPES[network]():
        if len(shape) == 4:
            spread = (2 / np.prod(shape[1:])) ** 0.5
            weights[f"{name}.weight"] = rng.normal(0, spread, shape)
        elif len(shape) == 2:
            weights[f"{name}.weight"] = rng.standard_normal(shape, np.float32) * shape[1] ** -0.5
            weights[f"{name}.bias"] = rng.normal(0, 0.2, shape[0])
        elif name.endswith("bias"):
            weights[name] = rng.normal(0, 0.2, shape)
        else:
            for positive in ("weight", "running_var"):
                weights[f"{name}.{positive}"] = rng.uniform(0.5, 1.5, shape)
            for signed in ("bias", "running_mean"):
                weights[f"{name}.{signed}"] = rng.normal(0, 0.2, shape)
    return {name: array.astype(np.float32) for name, array in weights.items()}
