"""The ResNets for images of 32 x 32 pixels, trained on CIFAR-10.

Architecture: He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2, with
shortcuts that have no weights (option A of section 3.3). Layers have the names of
`featvis.zoo.networks.resnet`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis.models import Input
from featvis.models.input import IMAGENET_MEAN, IMAGENET_STD
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import Download
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, Linear

_WIDTHS = (16, 32, 64)

_CLASSES = 10

_BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class CifarResNet(Architecture):
    """An architecture of the family: 6 n + 2 layers with weights.

    Attributes:
        blocks: Blocks in each of the three stages, the n of the paper.
    """

    blocks: int

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network(self.blocks)


def _normalised(inputs: int, outputs: int, stride: int) -> Convolution:
    return Convolution(inputs, outputs, 3, stride, 1, norm=_BATCH_NORM_EPSILON)


class _Block(nnx.Module):
    """Two convolutions, and a shortcut past them."""

    def __init__(self, inputs: int, outputs: int):
        self.stride = 1 if inputs == outputs else 2
        self.more = outputs - inputs
        self.conv1 = _normalised(inputs, outputs, self.stride)
        self.conv2 = _normalised(outputs, outputs, 1)

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        shortcut = x[:, :: self.stride, :: self.stride]
        # The paper does not say where the channels of zeros go; the weights are for both sides.
        sides = (self.more // 2, self.more - self.more // 2)
        shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), sides))
        out[f"{name}/conv1"] = x = nnx.relu(self.conv1(x))
        out[f"{name}/conv2"] = x = self.conv2(x)
        out[name] = x = nnx.relu(x + shortcut)
        return x


class _Network(nnx.Module):
    def __init__(self, blocks: int):
        self.conv1 = _normalised(3, _WIDTHS[0], 1)
        inputs = _WIDTHS[0]
        for stage, outputs in enumerate(_WIDTHS, 1):
            for i in range(blocks):
                setattr(self, f"layer{stage}_{i}", _Block(inputs, outputs))
                inputs = outputs
        self.logits = Linear(inputs, _CLASSES)
        self.blocks = blocks

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        out["conv1"] = x = nnx.relu(self.conv1(x))
        for stage in range(1, len(_WIDTHS) + 1):
            for i in range(self.blocks):
                x = getattr(self, f"layer{stage}_{i}")(x, f"layer{stage}_{i}", out)
        out["pool"] = x = x.mean((1, 2))
        out["logits"] = self.logits(x)
        return out


# Names have the prefix `module.`: they were saved from a model in torch.nn.DataParallel.
_PUBLISHER = KeyLayout(
    "pytorch_resnet_cifar10",
    (
        Rule(r"conv1/kernel", r"conv1.weight", from_oihw),
        Rule(r"conv1/(\w+)", r"bn1.\1"),
        Rule(r"layer(\d)_(\d+)/conv(\d)/kernel", r"layer\1.\2.conv\3.weight", from_oihw),
        Rule(r"layer(\d)_(\d+)/conv(\d)/(\w+)", r"layer\1.\2.bn\3.\4"),
        Rule(r"logits/kernel", r"linear.weight", np.transpose),
        Rule(r"logits/bias", r"linear.bias"),
    ),
    ignore=r"(layer\d\.\d+\.)?bn\d\.num_batches_tracked",
)

_INPUT = Input(size=(32, 32), mean=IMAGENET_MEAN, std=IMAGENET_STD)

_FILES = (
    "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/master/pretrained_models"
)


def _file(variant: int, digest: str) -> Download:
    return Download(f"{_FILES}/resnet{variant}-{digest}.th", digest, licence="BSD-2-Clause")


@model_entry(
    parameters=269_722,
    input=_INPUT,
    accuracy=0.9173,
    sources=(_file(20, "12fca82f"),),
    layouts=(_PUBLISHER,),
    labels=labels.cifar10,
)
def cifar_resnet20() -> CifarResNet:
    """ResNet-20 trained on CIFAR-10."""
    return CifarResNet(blocks=3)


@model_entry(
    parameters=853_018,
    input=_INPUT,
    accuracy=0.9339,
    sources=(_file(56, "4bfd9763"),),
    layouts=(_PUBLISHER,),
    labels=labels.cifar10,
)
def cifar_resnet56() -> CifarResNet:
    """ResNet-56 trained on CIFAR-10."""
    return CifarResNet(blocks=9)
