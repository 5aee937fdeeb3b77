"""VGG-16 and VGG-19: stacks of 3x3 convolutions, a pool after each, and three dense layers.

Architecture: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition" (2015), Table 1, configurations D and E. Layers have the names of the authors' Caffe
definitions: `conv1_1` is before its ReLU and `relu1_1` after it, as are `fc6` and `relu6`; fc8 is
called `logits`.

The dense layers see 7x7 positions. Where the image is not of 224 pixels, `pool5` is averaged to as
many, as by torchvision; timm, whose weights are the same, does so for smaller images only, and
slides the dense layers over larger ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis.models import Input
from featvis.models.input import IMAGENET_MEAN, IMAGENET_STD
from featvis.weights.hub import Hub
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import Source, torchvision
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, Linear, adaptive_average_pool, max_pool

_CHANNELS = (64, 128, 256, 512, 512)

_POOLED = 7

_DENSE = 4096

_CLASSES = 1000

# Simonyan & Zisserman 2015, Table 1, columns D and E.
_VGG16 = (2, 2, 3, 3, 3)

_VGG19 = (2, 2, 4, 4, 4)


@dataclass(frozen=True)
class VGG(Architecture):
    """An architecture of the family.

    Attributes:
        depths: Numbers of convolutions in the five stacks.
    """

    depths: tuple[int, ...]

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network(self.depths)


def _stacks(depths: tuple[int, ...]) -> list[list[str]]:
    """Numbers of the convolutions by stack: 1_1, 1_2; 2_1 and so on."""
    return [[f"{stack}_{i + 1}" for i in range(n)] for stack, n in enumerate(depths, 1)]


class _Network(nnx.Module):
    def __init__(self, depths: tuple[int, ...]):
        inputs = 3
        for stack, outputs in zip(_stacks(depths), _CHANNELS, strict=True):
            for number in stack:
                setattr(self, f"conv{number}", Convolution(inputs, outputs, 3, padding=1))
                inputs = outputs
        self.fc6 = Linear(inputs * _POOLED**2, _DENSE)
        self.fc7 = Linear(_DENSE, _DENSE)
        self.logits = Linear(_DENSE, _CLASSES)
        self.depths = depths

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        for i, stack in enumerate(_stacks(self.depths), 1):
            for number in stack:
                out[f"conv{number}"] = x = getattr(self, f"conv{number}")(x)
                out[f"relu{number}"] = x = nnx.relu(x)
            out[f"pool{i}"] = x = max_pool(x, 2, 2)
        x = adaptive_average_pool(x, (_POOLED, _POOLED))
        # Channels first: the order of the columns of fc6 in all checkpoints.
        out["fc6"] = x = self.fc6(jnp.moveaxis(x, -1, 1).reshape(len(x), -1))
        out["relu6"] = x = nnx.relu(x)
        out["fc7"] = x = self.fc7(x)
        out["relu7"] = x = nnx.relu(x)
        out["logits"] = self.logits(x)
        return out


def _dense_from_oihw(kernel: np.ndarray) -> np.ndarray:
    """A dense layer written as a convolution, (d, c, h, w), to (c * h * w, d)."""
    return kernel.reshape(len(kernel), -1).T


def _features(depths: tuple[int, ...]) -> Iterator[Rule]:
    # Both publishers number convolutions, ReLUs and pools in one sequence.
    place = 0
    for stack in _stacks(depths):
        for number in stack:
            yield Rule(f"conv{number}/kernel", f"features.{place}.weight", from_oihw)
            yield Rule(f"conv{number}/bias", f"features.{place}.bias")
            place += 2
        place += 1


def _layouts(depths: tuple[int, ...]) -> tuple[KeyLayout, KeyLayout]:
    features = tuple(_features(depths))
    torchvision = (
        Rule(r"fc6/kernel", r"classifier.0.weight", np.transpose),
        Rule(r"fc6/bias", r"classifier.0.bias"),
        Rule(r"fc7/kernel", r"classifier.3.weight", np.transpose),
        Rule(r"fc7/bias", r"classifier.3.bias"),
        Rule(r"logits/kernel", r"classifier.6.weight", np.transpose),
        Rule(r"logits/bias", r"classifier.6.bias"),
    )
    timm = (
        Rule(r"fc6/kernel", r"pre_logits.fc1.weight", _dense_from_oihw),
        Rule(r"fc6/bias", r"pre_logits.fc1.bias"),
        Rule(r"fc7/kernel", r"pre_logits.fc2.weight", _dense_from_oihw),
        Rule(r"fc7/bias", r"pre_logits.fc2.bias"),
        Rule(r"logits/kernel", r"head.fc.weight", np.transpose),
        Rule(r"logits/bias", r"head.fc.bias"),
    )
    return KeyLayout("torchvision", features + torchvision), KeyLayout("timm", features + timm)


_INPUT = Input(size=(224, 224), min_size=32, mean=IMAGENET_MEAN, std=IMAGENET_STD)

_LICENCE = "BSD-3-Clause"


def _sources(name: str, digest: str, revision: str, timm: str) -> tuple[Source, ...]:
    return (
        torchvision(f"{name}-{digest}.pth"),
        Hub(f"timm/{name}.tv_in1k", revision=revision, digest=timm, licence=_LICENCE),
    )


@model_entry(
    parameters=138_357_544,
    input=_INPUT,
    accuracy=0.71592,
    sources=_sources(
        "vgg16",
        "397923af",
        revision="3394518cba29aee1ea82a49d971be90d2dd1dab7",
        timm="57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
    ),
    layouts=_layouts(_VGG16),
    labels=labels.imagenet,
)
def vgg16() -> VGG:
    """VGG-16 trained on ImageNet by torchvision."""
    return VGG(_VGG16)


@model_entry(
    parameters=143_667_240,
    input=_INPUT,
    accuracy=0.72376,
    sources=_sources(
        "vgg19",
        "dcbb9e9d",
        revision="128d4708565b3a414bcbb9bbad440b2fe37b9f18",
        timm="11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669",
    ),
    layouts=_layouts(_VGG19),
    labels=labels.imagenet,
)
def vgg19() -> VGG:
    """VGG-19 trained on ImageNet by torchvision."""
    return VGG(_VGG19)
