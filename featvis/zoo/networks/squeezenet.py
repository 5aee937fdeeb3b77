"""SqueezeNet 1.1: fire modules, which squeeze the channels before they expand them.

Architecture: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
<0.5MB model size" (2016), Figure 1 and Table 1, as changed in the authors' release 1.1: 64 filters
of 3x3 in conv1, and pools after conv1, fire3 and fire5. Layer names are those of the paper.

Every named layer is after its ReLU. That goes for the class scores too: `logits` is the mean over
all positions of `conv10`, as the paper has it, and never negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from featvis.models import Input
from featvis.models.input import IMAGENET_MEAN, IMAGENET_STD
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import torchvision
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, max_pool

_STEM = 64

_CLASSES = 1000

# Channels of squeeze1x1, and of expand1x1 and of expand3x3 each, by fire module.
_FIRES = {
    "fire2": (16, 64),
    "fire3": (16, 64),
    "fire4": (32, 128),
    "fire5": (32, 128),
    "fire6": (48, 192),
    "fire7": (48, 192),
    "fire8": (64, 256),
    "fire9": (64, 256),
}

_POOLS = {"fire3": "pool3", "fire5": "pool5"}

# In torchvision's sequence of modules, which counts ReLUs and pools.
_PLACES = dict(zip(_FIRES, (3, 4, 6, 7, 9, 10, 11, 12), strict=True))


@dataclass(frozen=True)
class SqueezeNet(Architecture):
    """The architecture of release 1.1."""

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network()


class _Fire(nnx.Module):
    """Squeeze by 1x1; expand by 1x1 and by 3x3, one after the other in the channels."""

    def __init__(self, inputs: int, squeezed: int, expanded: int):
        self.squeeze1x1 = Convolution(inputs, squeezed)
        self.expand1x1 = Convolution(squeezed, expanded)
        self.expand3x3 = Convolution(squeezed, expanded, 3, padding=1)

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        out[f"{name}/squeeze1x1"] = x = nnx.relu(self.squeeze1x1(x))
        out[f"{name}/expand1x1"] = narrow = nnx.relu(self.expand1x1(x))
        out[f"{name}/expand3x3"] = wide = nnx.relu(self.expand3x3(x))
        out[name] = x = jnp.concatenate([narrow, wide], -1)
        return x


class _Network(nnx.Module):
    def __init__(self) -> None:
        self.conv1 = Convolution(3, _STEM, 3, 2, "VALID")
        inputs = _STEM
        for name, (squeezed, expanded) in _FIRES.items():
            setattr(self, name, _Fire(inputs, squeezed, expanded))
            inputs = 2 * expanded
        self.conv10 = Convolution(inputs, _CLASSES)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        out["conv1"] = x = nnx.relu(self.conv1(x))
        out["pool1"] = x = max_pool(x, 3, 2, ceil=True)
        for name in _FIRES:
            x = getattr(self, name)(x, name, out)
            if name in _POOLS:
                out[_POOLS[name]] = x = max_pool(x, 3, 2, ceil=True)
        out["conv10"] = x = nnx.relu(self.conv10(x))
        out["logits"] = x.mean((1, 2))
        return out


def _rules(path: str, source: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{path}/kernel", f"{source}.weight", from_oihw),
        Rule(f"{path}/bias", f"{source}.bias"),
    )


_TORCHVISION = KeyLayout(
    "torchvision",
    (
        *_rules("conv1", "features.0"),
        *(
            rule
            for name, place in _PLACES.items()
            for rule in (
                *_rules(f"{name}/squeeze1x1", f"features.{place}.squeeze"),
                *_rules(rf"{name}/(expand\dx\d)", rf"features.{place}.\1"),
            )
        ),
        *_rules("conv10", "classifier.1"),
    ),
)


@model_entry(
    parameters=1_235_496,
    input=Input(size=(224, 224), min_size=17, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    accuracy=0.58178,
    sources=(torchvision("squeezenet1_1-b8a52dc0.pth"),),
    layouts=(_TORCHVISION,),
    labels=labels.imagenet,
)
def squeezenet1_1() -> SqueezeNet:
    """SqueezeNet 1.1 trained on ImageNet by torchvision."""
    return SqueezeNet()
