"""AlexNet as torchvision has it, in one tower, and CaffeNet, in two.

Architecture of `alexnet`: Krizhevsky, "One weird trick for parallelizing convolutional neural
networks" (2014), without local response normalisation. Of `caffenet`: Krizhevsky et al., "ImageNet
Classification with Deep Convolutional Neural Networks" (2012), Section 3, as in Caffe's
bvlc_reference_caffenet, which normalises after the pools and not before.

Layer names are Caffe's: `conv1` is before its ReLU and `relu1` after it, as are `fc6` and `relu6`;
fc8 is called `logits`. (Caffe rectifies in place: what it returns as `conv1` is our `relu1`.)

The dense layers see 6x6 positions, which is what `pool5` has for an image of the size that the
network was trained at, 224 and 227. For other sizes it is averaged to as many: torchvision does so,
Caffe would refuse the image.
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
from featvis.weights.sources import Local, torchvision
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, Linear, adaptive_average_pool, max_pool

_POOLED = 6

_DENSE = 4096

_CLASSES = 1000

# Krizhevsky et al. 2012, Section 3.3; Caffe divides alpha by the size and adds 1.
_NORM_SIZE, _NORM_ALPHA, _NORM_BETA = 5, 1e-4, 0.75


@dataclass(frozen=True)
class AlexNet(Architecture):
    """An architecture of the family.

    Attributes:
        channels: Of the five convolutions.
        padding: Zeros around the image.
        towers: Groups of channels that conv2, conv4 and conv5 keep apart.
        normalised: Whether the first two pools are followed by local response normalisation.
        ceil: Whether a last window of a pool that reaches beyond the image counts.
    """

    channels: tuple[int, int, int, int, int]
    padding: int
    towers: int
    normalised: bool
    ceil: bool

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network(self)


class _Network(nnx.Module):
    def __init__(self, shape: AlexNet):
        c1, c2, c3, c4, c5 = shape.channels
        self.conv1 = Convolution(3, c1, 11, 4, shape.padding)
        self.conv2 = Convolution(c1, c2, 5, padding=2, groups=shape.towers)
        self.conv3 = Convolution(c2, c3, 3, padding=1)
        self.conv4 = Convolution(c3, c4, 3, padding=1, groups=shape.towers)
        self.conv5 = Convolution(c4, c5, 3, padding=1, groups=shape.towers)
        self.fc6 = Linear(c5 * _POOLED**2, _DENSE)
        self.fc7 = Linear(_DENSE, _DENSE)
        self.logits = Linear(_DENSE, _CLASSES)
        self.shape = shape

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        for i in range(1, 6):
            out[f"conv{i}"] = x = getattr(self, f"conv{i}")(x)
            out[f"relu{i}"] = x = nnx.relu(x)
            if i in (1, 2, 5):
                out[f"pool{i}"] = x = max_pool(x, 3, 2, ceil=self.shape.ceil)
            if i in (1, 2) and self.shape.normalised:
                out[f"norm{i}"] = x = _local_response_norm(x)
        x = adaptive_average_pool(x, (_POOLED, _POOLED))
        # Channels first: the order of the columns of fc6 in all checkpoints.
        out["fc6"] = x = self.fc6(jnp.moveaxis(x, -1, 1).reshape(len(x), -1))
        out["relu6"] = x = nnx.relu(x)
        out["fc7"] = x = self.fc7(x)
        out["relu7"] = x = nnx.relu(x)
        out["logits"] = self.logits(x)
        return out


def _local_response_norm(x: jax.Array) -> jax.Array:
    """Each channel (n, h, w, c) divided by a power of the mean square of itself and its nearest."""
    channels, margin = x.shape[-1], _NORM_SIZE // 2
    squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (margin, margin)))
    total = sum(squares[..., i : i + channels] for i in range(_NORM_SIZE))
    return x * (1 + _NORM_ALPHA / _NORM_SIZE * total) ** -_NORM_BETA


def _rules(path: str, source: str) -> tuple[Rule, Rule]:
    transform = from_oihw if path.startswith("conv") else np.transpose
    return (
        Rule(f"{path}/kernel", f"{source}.weight", transform),
        Rule(f"{path}/bias", f"{source}.bias"),
    )


_TORCHVISION = KeyLayout(
    "torchvision",
    (
        *_rules("conv1", "features.0"),
        *_rules("conv2", "features.3"),
        *_rules("conv3", "features.6"),
        *_rules("conv4", "features.8"),
        *_rules("conv5", "features.10"),
        *_rules("fc6", "classifier.1"),
        *_rules("fc7", "classifier.4"),
        *_rules("logits", "classifier.6"),
    ),
)

_CAFFE = KeyLayout(
    "Caffe",
    (
        Rule(r"logits/kernel", r"fc8.weight", np.transpose),
        Rule(r"logits/bias", r"fc8.bias"),
        Rule(r"(fc\d)/kernel", r"\1.weight", np.transpose),
        Rule(r"(conv\d)/kernel", r"\1.weight", from_oihw),
        Rule(r"(\w+)/bias", r"\1.bias"),
    ),
)


@model_entry(
    parameters=61_100_840,
    input=Input(size=(224, 224), min_size=63, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    accuracy=0.56522,
    sources=(torchvision("alexnet-owt-7be5be79.pth"),),
    layouts=(_TORCHVISION,),
    labels=labels.imagenet,
)
def alexnet() -> AlexNet:
    """AlexNet in one tower trained on ImageNet by torchvision."""
    return AlexNet((64, 192, 384, 256, 256), padding=2, towers=1, normalised=False, ceil=False)


def _bgr(image: jax.Array) -> jax.Array:
    return image[..., ::-1]


@model_entry(
    parameters=60_965_224,
    # The mean is subtracted before the channels are turned round.
    input=Input(
        size=(227, 227),
        min_size=39,
        value_range=(0.0, 255.0),
        mean=(123.0, 117.0, 104.0),
        preprocess=_bgr,
    ),
    accuracy=0.574,
    sources=(
        Local(
            "bvlc_reference_caffenet.npz",
            "Caffe's model of this name, its blobs called conv1.weight, conv1.bias to fc8.bias",
            licence="unrestricted",
        ),
    ),
    layouts=(_CAFFE,),
    labels=labels.imagenet,
)
def caffenet() -> AlexNet:
    """CaffeNet, Caffe's AlexNet in two towers, trained on ImageNet."""
    return AlexNet((96, 256, 384, 384, 256), padding=0, towers=2, normalised=True, ceil=True)
