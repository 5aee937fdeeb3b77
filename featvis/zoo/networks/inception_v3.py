"""InceptionV3, with the layer names of TF-Slim and the branch names of torchvision.

Architecture: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016),
Table 1 and Figures 5 to 7 and 10, whose numbers of channels are those of TF-Slim's inception_v3.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from featvis.zoo.layers import Convolution, Linear, average_pool, max_pool

_CLASSES = 1000

_BATCH_NORM_EPSILON = 1e-3

#: What a convolution of a mixed layer sees unless it names another one of the layer.
_INPUT = "input"

#: The means of the layer's input over 3 x 3.
_MEANS = "means"


@dataclass(frozen=True)
class _Filters:
    """A convolution within a mixed layer."""

    name: str
    outputs: int
    kernel: int | tuple[int, int] = 1
    source: str = _INPUT
    stride: int = 1


@dataclass(frozen=True)
class _MixedShape:
    """A mixed layer: convolutions in forward order; those that no other one sees are joined.

    One whose last convolutions have a stride of 2 joins a max pool of its input to them.
    """

    filters: tuple[_Filters, ...]

    @property
    def reduces(self) -> bool:
        return any(one.stride > 1 for one in self.filters)

    def ends(self) -> Iterator[_Filters]:
        sources = {one.source for one in self.filters}
        return (one for one in self.filters if one.name not in sources)

    def outputs(self, inputs: int) -> int:
        return sum(one.outputs for one in self.ends()) + (inputs if self.reduces else 0)


def _figure_5(pooled: int) -> _MixedShape:
    return _MixedShape(
        (
            _Filters("branch1x1", 64),
            _Filters("branch5x5_1", 48),
            _Filters("branch5x5_2", 64, 5, "branch5x5_1"),
            _Filters("branch3x3dbl_1", 64),
            _Filters("branch3x3dbl_2", 96, 3, "branch3x3dbl_1"),
            _Filters("branch3x3dbl_3", 96, 3, "branch3x3dbl_2"),
            _Filters("branch_pool", pooled, 1, _MEANS),
        )
    )


def _figure_6(hidden: int) -> _MixedShape:
    return _MixedShape(
        (
            _Filters("branch1x1", 192),
            _Filters("branch7x7_1", hidden),
            _Filters("branch7x7_2", hidden, (1, 7), "branch7x7_1"),
            _Filters("branch7x7_3", 192, (7, 1), "branch7x7_2"),
            _Filters("branch7x7dbl_1", hidden),
            _Filters("branch7x7dbl_2", hidden, (7, 1), "branch7x7dbl_1"),
            _Filters("branch7x7dbl_3", hidden, (1, 7), "branch7x7dbl_2"),
            _Filters("branch7x7dbl_4", hidden, (7, 1), "branch7x7dbl_3"),
            _Filters("branch7x7dbl_5", 192, (1, 7), "branch7x7dbl_4"),
            _Filters("branch_pool", 192, 1, _MEANS),
        )
    )


_FIGURE_7 = _MixedShape(
    (
        _Filters("branch1x1", 320),
        _Filters("branch3x3_1", 384),
        _Filters("branch3x3_2a", 384, (1, 3), "branch3x3_1"),
        _Filters("branch3x3_2b", 384, (3, 1), "branch3x3_1"),
        _Filters("branch3x3dbl_1", 448),
        _Filters("branch3x3dbl_2", 384, 3, "branch3x3dbl_1"),
        _Filters("branch3x3dbl_3a", 384, (1, 3), "branch3x3dbl_2"),
        _Filters("branch3x3dbl_3b", 384, (3, 1), "branch3x3dbl_2"),
        _Filters("branch_pool", 192, 1, _MEANS),
    )
)

_FIGURE_10_FIRST = _MixedShape(
    (
        _Filters("branch3x3", 384, 3, stride=2),
        _Filters("branch3x3dbl_1", 64),
        _Filters("branch3x3dbl_2", 96, 3, "branch3x3dbl_1"),
        _Filters("branch3x3dbl_3", 96, 3, "branch3x3dbl_2", stride=2),
    )
)

_FIGURE_10_SECOND = _MixedShape(
    (
        _Filters("branch3x3_1", 192),
        _Filters("branch3x3_2", 320, 3, "branch3x3_1", stride=2),
        _Filters("branch7x7x3_1", 192),
        _Filters("branch7x7x3_2", 192, (1, 7), "branch7x7x3_1"),
        _Filters("branch7x7x3_3", 192, (7, 1), "branch7x7x3_2"),
        _Filters("branch7x7x3_4", 192, 3, "branch7x7x3_3", stride=2),
    )
)

_MIXED = {
    "Mixed_5b": _figure_5(32),
    "Mixed_5c": _figure_5(64),
    "Mixed_5d": _figure_5(64),
    "Mixed_6a": _FIGURE_10_FIRST,
    "Mixed_6b": _figure_6(128),
    "Mixed_6c": _figure_6(160),
    "Mixed_6d": _figure_6(160),
    "Mixed_6e": _figure_6(192),
    "Mixed_7a": _FIGURE_10_SECOND,
    "Mixed_7b": _FIGURE_7,
    "Mixed_7c": _FIGURE_7,
}


@dataclass(frozen=True)
class InceptionV3(Architecture):
    """The architecture, of which there is one."""

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network()


def _normalised(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padding: str = "VALID",
) -> Convolution:
    return Convolution(inputs, outputs, kernel, stride, padding, norm=_BATCH_NORM_EPSILON)


class _Mixed(nnx.Module):
    def __init__(self, inputs: int, shape: _MixedShape):
        channels = {_INPUT: inputs, _MEANS: inputs}
        for one in shape.filters:
            padding = "SAME" if one.stride == 1 else "VALID"
            convolution = _normalised(
                channels[one.source], one.outputs, one.kernel, one.stride, padding
            )
            setattr(self, one.name, convolution)
            channels[one.name] = one.outputs
        self.shape = shape

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        seen = {_INPUT: x}
        if not self.shape.reduces:
            seen[_MEANS] = average_pool(x, 3, 1)
        for one in self.shape.filters:
            y = nnx.relu(getattr(self, one.name)(seen[one.source]))
            out[f"{name}/{one.name}"] = seen[one.name] = y
        branches = [seen[one.name] for one in self.shape.ends()]
        if self.shape.reduces:
            out[f"{name}/branch_pool"] = pooled = max_pool(x, 3, 2)
            branches.append(pooled)
        out[name] = x = jnp.concatenate(branches, -1)
        return x


class _Network(nnx.Module):
    def __init__(self) -> None:
        self.Conv2d_1a_3x3 = _normalised(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _normalised(32, 32, 3)
        self.Conv2d_2b_3x3 = _normalised(32, 64, 3, padding="SAME")
        self.Conv2d_3b_1x1 = _normalised(64, 80, 1)
        self.Conv2d_4a_3x3 = _normalised(80, 192, 3)
        channels = 192
        for name, shape in _MIXED.items():
            setattr(self, name, _Mixed(channels, shape))
            channels = shape.outputs(channels)
        self.logits = Linear(channels, _CLASSES)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        out["Conv2d_1a_3x3"] = x = nnx.relu(self.Conv2d_1a_3x3(x))
        out["Conv2d_2a_3x3"] = x = nnx.relu(self.Conv2d_2a_3x3(x))
        out["Conv2d_2b_3x3"] = x = nnx.relu(self.Conv2d_2b_3x3(x))
        out["MaxPool_3a_3x3"] = x = max_pool(x, 3, 2)
        out["Conv2d_3b_1x1"] = x = nnx.relu(self.Conv2d_3b_1x1(x))
        out["Conv2d_4a_3x3"] = x = nnx.relu(self.Conv2d_4a_3x3(x))
        out["MaxPool_5a_3x3"] = x = max_pool(x, 3, 2)
        for name in _MIXED:
            x = getattr(self, name)(x, name, out)
        out["pool"] = x = x.mean((1, 2))
        out["logits"] = self.logits(x)
        return out


# timm keeps torchvision's names.
_TORCHVISION = KeyLayout(
    "torchvision",
    (
        Rule(r"logits/kernel", r"fc.weight", np.transpose),
        Rule(r"logits/bias", r"fc.bias"),
        Rule(r"(\w+)/kernel", r"\1.conv.weight", from_oihw),
        Rule(r"(\w+)/(\w+)/kernel", r"\1.\2.conv.weight", from_oihw),
        Rule(r"(Conv2d\w+)/(\w+)", r"\1.bn.\2"),
        Rule(r"(\w+)/(\w+)/(\w+)", r"\1.\2.bn.\3"),
    ),
    # The auxiliary classifier, which only training has.
    ignore=r".*\.bn\.num_batches_tracked|AuxLogits\.(conv[01]\.(conv|bn)|fc)\.\w+",
)


@model_entry(
    # Without the auxiliary classifier, which torchvision counts.
    parameters=23_834_568,
    # torchvision: "transform_input" turns its usual normalisation into this one.
    input=Input(size=(299, 299), min_size=75, mean=0.5, std=0.5),
    accuracy=0.77294,
    sources=(torchvision("inception_v3_google-0cc3c7bd.pth"),),
    layouts=(_TORCHVISION,),
    labels=labels.imagenet,
)
def inception_v3() -> InceptionV3:
    """InceptionV3 trained on ImageNet."""
    return InceptionV3()
