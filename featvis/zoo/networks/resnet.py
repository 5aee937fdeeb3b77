"""ResNet: blocks whose output is added to their input.

Architecture: He et al., "Deep Residual Learning for Image Recognition" (2016), Table 1, with
projections where the shapes differ (option B of section 3.3). Layers have torchvision's names, and
as in its networks ("v1.5") a bottleneck halves the image in its 3 x 3 convolution, not before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from featvis.models import Input
from featvis.models.input import IMAGENET_MEAN, IMAGENET_STD
from featvis.weights.hub import Hub
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import torchvision
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, Linear, max_pool

_STEM = 64

_STAGES = 4

_EXPANSION = 4

_CLASSES = 1000

_BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class ResNet(Architecture):
    """An architecture of the family.

    Attributes:
        depths: Blocks in each of the four stages.
        bottleneck: Whether a block is a 3 x 3 convolution between two of 1 x 1 that reduce and
            restore the channels, rather than two of 3 x 3.
    """

    depths: tuple[int, int, int, int]
    bottleneck: bool

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network(self)


def _normalised(inputs: int, outputs: int, kernel: int, stride: int) -> Convolution:
    return Convolution(inputs, outputs, kernel, stride, kernel // 2, norm=_BATCH_NORM_EPSILON)


class _Block(nnx.Module):
    """Convolutions of (outputs, kernel, stride), and a shortcut past them."""

    def __init__(self, inputs: int, *convolutions: tuple[int, int, int]):
        channels, reduction = inputs, 1
        for i, (outputs, kernel, stride) in enumerate(convolutions, 1):
            setattr(self, f"conv{i}", _normalised(channels, outputs, kernel, stride))
            channels, reduction = outputs, reduction * stride
        self.projected = (channels, reduction) != (inputs, 1)
        if self.projected:
            self.downsample = _normalised(inputs, channels, 1, reduction)
        self.convolutions = len(convolutions)

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        shortcut = x
        for i in range(1, self.convolutions):
            out[f"{name}/conv{i}"] = x = nnx.relu(getattr(self, f"conv{i}")(x))
        last = f"conv{self.convolutions}"
        out[f"{name}/{last}"] = x = getattr(self, last)(x)
        if self.projected:
            out[f"{name}/downsample"] = shortcut = self.downsample(shortcut)
        out[name] = x = nnx.relu(x + shortcut)
        return x


class _Network(nnx.Module):
    def __init__(self, shape: ResNet):
        self.conv1 = _normalised(3, _STEM, 7, 2)
        inputs = _STEM
        for stage, depth in enumerate(shape.depths, 1):
            width = _STEM << stage - 1
            for i in range(depth):
                stride = 2 if stage > 1 and i == 0 else 1
                block = (
                    _Block(inputs, (width, 1, 1), (width, 3, stride), (_EXPANSION * width, 1, 1))
                    if shape.bottleneck
                    else _Block(inputs, (width, 3, stride), (width, 3, 1))
                )
                setattr(self, f"layer{stage}_{i}", block)
                inputs = _EXPANSION * width if shape.bottleneck else width
        self.logits = Linear(inputs, _CLASSES)
        self.shape = shape

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        out["conv1"] = x = nnx.relu(self.conv1(x))
        out["pool1"] = x = max_pool(x, 3, 2, 1)
        for stage, depth in enumerate(self.shape.depths, 1):
            for i in range(depth):
                x = getattr(self, f"layer{stage}_{i}")(x, f"layer{stage}_{i}", out)
        out["pool"] = x = x.mean((1, 2))
        out["logits"] = self.logits(x)
        return out


# timm keeps torchvision's names for these networks.
_TORCHVISION = KeyLayout(
    "torchvision",
    (
        Rule(r"conv1/kernel", r"conv1.weight", from_oihw),
        Rule(r"conv1/(\w+)", r"bn1.\1"),
        Rule(r"layer(\d)_(\d+)/conv(\d)/kernel", r"layer\1.\2.conv\3.weight", from_oihw),
        Rule(r"layer(\d)_(\d+)/conv(\d)/(\w+)", r"layer\1.\2.bn\3.\4"),
        Rule(r"layer(\d)_(\d+)/downsample/kernel", r"layer\1.\2.downsample.0.weight", from_oihw),
        Rule(r"layer(\d)_(\d+)/downsample/(\w+)", r"layer\1.\2.downsample.1.\3"),
        Rule(r"logits/kernel", r"fc.weight", np.transpose),
        Rule(r"logits/bias", r"fc.bias"),
    ),
    ignore=r"(layer\d\.\d+\.)?(bn\d|downsample\.1)\.num_batches_tracked",
)


def _transformers_rules() -> tuple[Rule, ...]:
    """Those of ResNetForImageClassification, which counts stages and convolutions from 0."""

    def normalised(path: str, source: str) -> tuple[Rule, Rule]:
        return (
            Rule(rf"{path}/kernel", rf"{source}.convolution.weight", from_oihw),
            Rule(rf"{path}/(?P<part>\w+)", rf"{source}.normalization.\g<part>"),
        )

    rules = [*normalised(r"conv1", r"resnet.embedder.embedder")]
    for stage in range(_STAGES):
        path = rf"layer{stage + 1}_(\d+)"
        source = rf"resnet.encoder.stages.{stage}.layers.\1"
        for i in range(3):
            rules += normalised(rf"{path}/conv{i + 1}", rf"{source}.layer.{i}")
        rules += normalised(rf"{path}/downsample", rf"{source}.shortcut")
    rules += [
        Rule(r"logits/kernel", r"classifier.1.weight", np.transpose),
        Rule(r"logits/bias", r"classifier.1.bias"),
    ]
    return tuple(rules)


_TRANSFORMERS = KeyLayout(
    "transformers",
    _transformers_rules(),
    ignore=r"resnet\..+\.normalization\.num_batches_tracked",
)

_INPUT = Input(size=(224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD)

_LICENCE = "BSD-3-Clause"


@model_entry(
    parameters=11_689_512,
    input=_INPUT,
    accuracy=0.69758,
    sources=(
        torchvision("resnet18-f37072fd.pth"),
        Hub(
            "timm/resnet18.tv_in1k",
            revision="a987fd6b60f845221bfff84b6f0191273ba56ead",
            digest="694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
            licence=_LICENCE,
        ),
        Hub("microsoft/resnet-18", licence="Apache-2.0"),
    ),
    layouts=(_TORCHVISION, _TRANSFORMERS),
    labels=labels.imagenet,
)
def resnet18() -> ResNet:
    """ResNet-18 trained on ImageNet by torchvision."""
    return ResNet(depths=(2, 2, 2, 2), bottleneck=False)


# Not of microsoft/resnet-50, whose weights are of another training: it is for `weights=`.
@model_entry(
    parameters=25_557_032,
    input=_INPUT,
    accuracy=0.7613,
    sources=(
        torchvision("resnet50-0676ba61.pth"),
        Hub(
            "timm/resnet50.tv_in1k",
            revision="aa6c2d36d56bc0209040c02b5a7b7d7bf11d57b8",
            digest="5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
            licence=_LICENCE,
        ),
    ),
    layouts=(_TORCHVISION, _TRANSFORMERS),
    labels=labels.imagenet,
)
def resnet50() -> ResNet:
    """ResNet-50 (v1.5) trained on ImageNet by torchvision."""
    return ResNet(depths=(3, 4, 6, 3), bottleneck=True)
