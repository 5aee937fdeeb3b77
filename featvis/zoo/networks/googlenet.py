"""GoogLeNet, or InceptionV1, with lucid's layer names.

Architecture: Szegedy et al., "Going Deeper with Convolutions" (2015), Table 1, as torchvision has
it: batch normalisation instead of local response normalisation, kernels of 3 x 3 in the branch
called 5x5, a window of 2 x 2 in the last max pool, windows that reach beyond the image in all of
them. The weights are not those of lucid's InceptionV1: a channel means something else here.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis.models import Input
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import torchvision
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, Linear, max_pool

_Filters = tuple[int, int, int, int, int, int]

# Channels of 1x1, 3x3_bottleneck, 3x3, 5x5_bottleneck, 5x5, pool_reduce (the paper's Table 1).
_MIXED: dict[str, _Filters] = {
    "mixed3a": (64, 96, 128, 16, 32, 32),
    "mixed3b": (128, 128, 192, 32, 96, 64),
    "mixed4a": (192, 96, 208, 16, 48, 64),
    "mixed4b": (160, 112, 224, 24, 64, 64),
    "mixed4c": (128, 128, 256, 24, 64, 64),
    "mixed4d": (112, 144, 288, 32, 64, 64),
    "mixed4e": (256, 160, 320, 32, 128, 128),
    "mixed5a": (256, 160, 320, 32, 128, 128),
    "mixed5b": (384, 192, 384, 48, 128, 128),
}

# Name and window of the max pool before a mixed layer.
_POOLS = {"mixed3a": ("maxpool1", 3), "mixed4a": ("maxpool4", 3), "mixed5a": ("maxpool10", 2)}

_CLASSES = 1000

_BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class GoogLeNet(Architecture):
    """The architecture, of which there is one."""

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network()


def _normalised(inputs: int, outputs: int, kernel: int = 1) -> Convolution:
    return Convolution(inputs, outputs, kernel, norm=_BATCH_NORM_EPSILON)


class _Mixed(nnx.Module):
    """An inception module: four branches side by side, their channels joined."""

    def __init__(self, inputs: int, filters: _Filters):
        one, three_bottleneck, three, five_bottleneck, five, pooled = filters
        branches = {
            "1x1": _normalised(inputs, one),
            "3x3_bottleneck": _normalised(inputs, three_bottleneck),
            "3x3": _normalised(three_bottleneck, three, 3),
            "5x5_bottleneck": _normalised(inputs, five_bottleneck),
            "5x5": _normalised(five_bottleneck, five, 3),
            "pool_reduce": _normalised(inputs, pooled),
        }
        for name, convolution in branches.items():
            setattr(self, name, convolution)

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        def branch(suffix: str, x: jax.Array) -> jax.Array:
            out[f"{name}/{suffix}"] = x = nnx.relu(getattr(self, suffix)(x))
            return x

        branches = [
            branch("1x1", x),
            branch("3x3", branch("3x3_bottleneck", x)),
            branch("5x5", branch("5x5_bottleneck", x)),
            branch("pool_reduce", max_pool(x, 3, 1, 1)),
        ]
        out[name] = x = jnp.concatenate(branches, -1)
        return x


class _Network(nnx.Module):
    def __init__(self) -> None:
        self.conv2d0 = Convolution(3, 64, 7, 2, 3, norm=_BATCH_NORM_EPSILON)
        self.conv2d1 = _normalised(64, 64)
        self.conv2d2 = _normalised(64, 192, 3)
        channels = 192
        for name, filters in _MIXED.items():
            setattr(self, name, _Mixed(channels, filters))
            one, _, three, _, five, pooled = filters
            channels = one + three + five + pooled
        self.logits = Linear(channels, _CLASSES)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        out["conv2d0"] = x = nnx.relu(self.conv2d0(x))
        out["maxpool0"] = x = max_pool(x, 3, 2, ceil=True)
        out["conv2d1"] = x = nnx.relu(self.conv2d1(x))
        out["conv2d2"] = x = nnx.relu(self.conv2d2(x))
        for name in _MIXED:
            if name in _POOLS:
                pool, window = _POOLS[name]
                out[pool] = x = max_pool(x, window, 2, ceil=True)
            x = getattr(self, name)(x, name, out)
        out["pool"] = x = x.mean((1, 2))
        out["logits"] = self.logits(x)
        return out


def _moved(path: str, source: str) -> tuple[Rule, Rule]:
    """Rules for a convolution and the batch normalisation after it."""
    return (
        Rule(rf"{path}/kernel", rf"{source}.conv.weight", from_oihw),
        Rule(rf"{path}/(?P<part>\w+)", rf"{source}.bn.\g<part>"),
    )


_TORCHVISION = KeyLayout(
    "torchvision",
    (
        *_moved(r"conv2d0", r"conv1"),
        *_moved(r"conv2d1", r"conv2"),
        *_moved(r"conv2d2", r"conv3"),
        *_moved(r"mixed(\w+)/1x1", r"inception\1.branch1"),
        *_moved(r"mixed(\w+)/3x3_bottleneck", r"inception\1.branch2.0"),
        *_moved(r"mixed(\w+)/3x3", r"inception\1.branch2.1"),
        *_moved(r"mixed(\w+)/5x5_bottleneck", r"inception\1.branch3.0"),
        *_moved(r"mixed(\w+)/5x5", r"inception\1.branch3.1"),
        *_moved(r"mixed(\w+)/pool_reduce", r"inception\1.branch4.1"),
        Rule(r"logits/kernel", r"fc.weight", np.transpose),
        Rule(r"logits/bias", r"fc.bias"),
    ),
    # The auxiliary classifiers, which only training has.
    ignore=r".*\.bn\.num_batches_tracked|aux[12]\.(conv\.(conv|bn)|fc[12])\.\w+",
)


@model_entry(
    parameters=6_624_904,
    # torchvision: "transform_input" turns its usual normalisation into this one.
    input=Input(size=(224, 224), min_size=15, mean=0.5, std=0.5),
    accuracy=0.69778,
    sources=(torchvision("googlenet-1378be20.pth"),),
    layouts=(_TORCHVISION,),
    labels=labels.imagenet,
)
def googlenet() -> GoogLeNet:
    """GoogLeNet (InceptionV1) with batch normalisation trained on ImageNet."""
    return GoogLeNet()
