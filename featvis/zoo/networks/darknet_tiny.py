"""Tiny Darknet, a classifier of 3 x 3 and 1 x 1 convolutions in alternation.

Architecture: Redmon, "Tiny Darknet" (pjreddie.com/darknet/tiny-darknet), file `tiny.cfg`; batch
normalisation's epsilon and the padding are those of the Keras model that ml5 made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
from flax import nnx

from featvis.errors import CheckpointError
from featvis.models import Input
from featvis.models.classes import ClassNames
from featvis.weights.layouts import KeyLayout, Rule
from featvis.weights.sources import Local
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, max_pool

# Kernel and channels of conv1 to conv15; None: a max pool.
_LAYERS = (
    (3, 16), None,
    (3, 32), None,
    (1, 16), (3, 128), (1, 16), (3, 128), None,
    (1, 32), (3, 256), (1, 32), (3, 256), None,
    (1, 64), (3, 512), (1, 64), (3, 512), (1, 128),
)  # fmt: skip

_CLASSES = 1000

_BATCH_NORM_EPSILON = 1e-3

_SLOPE = 0.1

# Darknet's lists of the classes, in its own order: names, and WordNet's identifiers.
_NAMES, _IDS = "imagenet.shortnames.list", "imagenet.labels.list"


@dataclass(frozen=True)
class DarknetTiny(Architecture):
    """The architecture, of which there is one."""

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network()


class _Network(nnx.Module):
    def __init__(self) -> None:
        inputs, number = 3, 0
        for layer in _LAYERS:
            if layer is not None:
                kernel, outputs = layer
                number += 1
                convolution = Convolution(inputs, outputs, kernel, norm=_BATCH_NORM_EPSILON)
                setattr(self, f"conv{number}", convolution)
                inputs = outputs
        self.conv16 = Convolution(inputs, _CLASSES)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        convolutions = pools = 0
        for layer in _LAYERS:
            if layer is None:
                pools += 1
                out[f"pool{pools}"] = x = max_pool(x, 2, 2, "SAME")
            else:
                convolutions += 1
                name = f"conv{convolutions}"
                out[name] = x = nnx.leaky_relu(getattr(self, name)(x), _SLOPE)
        out["conv16"] = x = self.conv16(x)
        out["logits"] = x.mean((1, 2))
        return out


_KERAS = KeyLayout(
    "Keras",
    (
        Rule(r"conv(\d+)/kernel", r"conv2d_\1/kernel"),
        Rule(r"conv16/bias", r"conv2d_16/bias"),
        Rule(r"conv(\d+)/weight", r"batch_normalization_\1/gamma"),
        Rule(r"conv(\d+)/bias", r"batch_normalization_\1/beta"),
        Rule(r"conv(\d+)/running_mean", r"batch_normalization_\1/moving_mean"),
        Rule(r"conv(\d+)/running_var", r"batch_normalization_\1/moving_variance"),
    ),
)


def _labels(path: Path | None) -> tuple[str, ...] | None:
    """Darknet's own order of the classes, from its lists beside the weights, where they are."""
    names = _listed(path, _NAMES)
    return names and ClassNames(names, _listed(path, _IDS) or ())


def _listed(path: Path | None, name: str) -> tuple[str, ...] | None:
    file = path and path.with_name(name)
    if file is None or not file.is_file():
        return None
    lines = tuple(file.read_text(encoding="utf-8").splitlines())
    if len(lines) != _CLASSES:
        raise CheckpointError(f"{file}: {len(lines)} classes, expected {_CLASSES}")
    return lines


@model_entry(
    parameters=1_042_104,
    input=Input(),
    accuracy=0.587,
    sources=(
        Local(
            "darknet_tiny_float32_HWIO.npz",
            made="the tensors of ml5's Keras model of Tiny Darknet",
            licence="MIT",
        ),
    ),
    layouts=(_KERAS,),
    labels=_labels,
)
def darknet_tiny() -> DarknetTiny:
    """Tiny Darknet trained on ImageNet."""
    return DarknetTiny()
