"""MobileNetV2: inverted residuals with linear bottlenecks.

Architecture: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018),
Tables 1 and 2. Two trainings of it are here, which differ in padding, input and classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from featvis.kernels import Padding
from featvis.models import Input
from featvis.models.input import IMAGENET_MEAN, IMAGENET_STD
from featvis.weights.hub import Hub
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import Local, torchvision
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, Linear, relu6

# Expansion, channels, repeats, stride (Table 2).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

_STEM = 32

_HEAD = 1280


@dataclass(frozen=True)
class BlockShape:
    """An inverted residual block.

    Attributes:
        kernel: Side of the depthwise convolution's.
        stride: Of the depthwise convolution.
        expansion: Channels inside the block for each channel of its input; 1: none are added.
        inputs: Channels of its input.
        outputs: Channels of its output.
    """

    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class MobileNetV2(Architecture):
    """The architecture at width 1.

    Attributes:
        classes: Number of class scores.
        padding: Of the convolutions of 3 x 3: 1 (PyTorch) or "SAME" (TensorFlow).
        epsilon: Of the batch normalisations.
    """

    classes: int
    padding: Padding
    epsilon: float

    def build(self) -> nnx.Module:
        """The network as a module."""
        return InvertedResiduals(_blocks(), self.classes, self.padding, self.epsilon)


def _blocks() -> list[BlockShape]:
    blocks, inputs = [], _STEM
    for expansion, outputs, repeats, stride in _STAGES:
        for repeat in range(repeats):
            strides = stride if repeat == 0 else 1
            blocks.append(BlockShape(3, strides, expansion, inputs, outputs))
            inputs = outputs
    return blocks


def _parts(shape: BlockShape) -> list[str]:
    """The convolutions of a block, in forward order."""
    return ["expand", "depthwise", "project"][shape.expansion == 1 :]


class _Block(nnx.Module):
    """Inverted residual: expand, filter each channel, project; the sum where shapes allow it."""

    def __init__(self, shape: BlockShape, padding: Padding, epsilon: float):
        hidden = shape.inputs * shape.expansion
        if shape.expansion > 1:
            self.expand = Convolution(shape.inputs, hidden, norm=epsilon)
        self.depthwise = Convolution(
            hidden, hidden, shape.kernel, shape.stride, padding, groups=hidden, norm=epsilon
        )
        self.project = Convolution(hidden, shape.outputs, norm=epsilon)
        self.shape = shape

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        inputs = x
        if self.shape.expansion > 1:
            out[f"{name}/expand"] = x = relu6(self.expand(x))
        out[f"{name}/depthwise"] = x = relu6(self.depthwise(x), keep=True)
        out[f"{name}/project"] = x = self.project(x)
        if self.shape.stride == 1 and self.shape.inputs == self.shape.outputs:
            x = x + inputs
        out[name] = x
        return x


class InvertedResiduals(nnx.Module):
    """A classifier of a stem of stride 2, inverted residual blocks and a head of 1280 channels.

    Args:
        blocks: in forward order; the inputs of the first are the stem's channels.
        classes: number of class scores.
        padding: of the stem's convolution and the depthwise ones.
        epsilon: of the batch normalisation after every convolution.
    """

    def __init__(
        self, blocks: Sequence[BlockShape], classes: int, padding: Padding, epsilon: float
    ):
        self.stem = Convolution(3, blocks[0].inputs, 3, 2, padding, norm=epsilon)
        for i, shape in enumerate(blocks):
            setattr(self, f"block{i}", _Block(shape, padding, epsilon))
        self.head = Convolution(blocks[-1].outputs, _HEAD, norm=epsilon)
        self.logits = Linear(_HEAD, classes)
        self.depth = len(blocks)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Activations by layer name, in forward order, of prepared images (n, h, w, 3)."""
        out: dict[str, jax.Array] = {}
        out["stem"] = x = relu6(self.stem(x))
        for i in range(self.depth):
            x = getattr(self, f"block{i}")(x, f"block{i}", out)
        out["head"] = x = relu6(self.head(x))
        out["pool"] = x = x.mean((1, 2))
        out["logits"] = self.logits(x)
        return out


def _pytorch_layout(
    name: str, convolutions: Mapping[str, tuple[str, str]], classifier: str
) -> KeyLayout:
    """A layout from the names of each convolution and of the batch normalisation after it."""
    rules = []
    for path, (convolution, norm) in convolutions.items():
        rules.append(Rule(rf"{path}/kernel", rf"{convolution}.weight", from_oihw))
        rules.append(Rule(rf"{path}/(\w+)", rf"{norm}.\1"))
    rules.append(Rule(r"logits/kernel", rf"{classifier}.weight", np.transpose))
    rules.append(Rule(r"logits/bias", rf"{classifier}.bias"))
    return KeyLayout(name, tuple(rules), ignore=r".*\.num_batches_tracked")


def timm_layout(repeats: Iterable[int]) -> KeyLayout:
    """The layout of timm's class EfficientNet, which its MobileNetV2 is of too.

    Args:
        repeats: Number of blocks of each stage; those of the first stage do not expand.
    """
    convolutions = {"stem": ("conv_stem", "bn1")}
    places = ((stage, i) for stage, count in enumerate(repeats) for i in range(count))
    for block, (stage, i) in enumerate(places):
        names = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if stage == 0:
            names = {"depthwise": "conv_dw", "project": "conv_pw"}
        for number, (part, name) in enumerate(names.items(), 1):
            place = f"blocks.{stage}.{i}"
            convolutions[f"block{block}/{part}"] = (f"{place}.{name}", f"{place}.bn{number}")
    convolutions["head"] = ("conv_head", "bn2")
    return _pytorch_layout("timm", convolutions, "classifier")


def _torchvision_layout() -> KeyLayout:
    convolutions = {"stem": ("features.0.0", "features.0.1")}
    for i, shape in enumerate(_blocks()):
        place = f"features.{i + 1}.conv"
        *rectified, project = _parts(shape)
        for number, part in enumerate(rectified):
            convolutions[f"block{i}/{part}"] = (f"{place}.{number}.0", f"{place}.{number}.1")
        last = len(rectified)
        convolutions[f"block{i}/{project}"] = (f"{place}.{last}", f"{place}.{last + 1}")
    last = len(_blocks()) + 1
    convolutions["head"] = (f"features.{last}.0", f"features.{last}.1")
    return _pytorch_layout("torchvision", convolutions, "classifier.1")


def _transformers_layout() -> KeyLayout:
    modules = {
        "stem": "conv_stem.first_conv",
        "block0/depthwise": "conv_stem.conv_3x3",
        "block0/project": "conv_stem.reduce_1x1",
    }
    for i in range(1, len(_blocks())):
        modules[f"block{i}/expand"] = f"layer.{i - 1}.expand_1x1"
        modules[f"block{i}/depthwise"] = f"layer.{i - 1}.conv_3x3"
        modules[f"block{i}/project"] = f"layer.{i - 1}.reduce_1x1"
    modules["head"] = "conv_1x1"
    convolutions = {
        path: (f"mobilenet_v2.{module}.convolution", f"mobilenet_v2.{module}.normalization")
        for path, module in modules.items()
    }
    return _pytorch_layout("transformers", convolutions, "classifier")


def _from_ohwi(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(1, 2, 3, 0)


def _from_1hwc(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(1, 2, 0, 3)


def _tflite_layout() -> KeyLayout:
    """The convolutions of the TensorFlow Lite file by number, in forward order."""
    paths = [f"block{i}/{part}" for i, shape in enumerate(_blocks()) for part in _parts(shape)]
    rules = []
    for number, path in enumerate(["stem", *paths, "head", "logits"]):
        source, transform = f"{number:02}_conv_2d", _from_ohwi
        if path.endswith("depthwise"):
            source, transform = f"{number:02}_depthwise_conv_2d", _from_1hwc
        if path == "logits":
            rules.append(Rule(r"logits/kernel", rf"{source}/kernel", lambda k: k[:, 0, 0].T))
        rules.append(Rule(rf"{path}/kernel", rf"{source}/kernel", transform))
        rules.append(Rule(rf"{path}/bias", rf"{source}/bias"))
    return KeyLayout(
        "TensorFlow Lite", tuple(rules), ignore=r"\d\d_(depthwise_)?conv_2d/stride", folded=True
    )


@model_entry(
    parameters=3_504_872,
    input=Input(mean=IMAGENET_MEAN, std=IMAGENET_STD),
    accuracy=0.71878,
    sources=(torchvision("mobilenet_v2-b0353104.pth"),),
    # timm's mobilenetv2_100 was trained otherwise: a file for `weights`, not another source.
    layouts=(_torchvision_layout(), timm_layout(repeats for _, _, repeats, _ in _STAGES)),
    labels=labels.imagenet,
)
def mobilenet_v2() -> MobileNetV2:
    """MobileNetV2 trained on ImageNet by torchvision."""
    return MobileNetV2(classes=1000, padding=1, epsilon=1e-5)


@model_entry(
    parameters=3_506_153,
    input=Input(value_range=(-1.0, 1.0)),
    accuracy=0.718,
    sources=(
        # The hub's model card says "other" of the weights that TensorFlow published as Apache-2.0.
        Hub("google/mobilenet_v2_1.0_224", licence="other"),
        Local(
            "mobilenet_v2_float_dequantised.npz",
            made="the tensors of TensorFlow Lite's mobilenet_v2_1.0_224",
            licence="Apache-2.0",
        ),
    ),
    layouts=(_transformers_layout(), _tflite_layout()),
    labels=labels.imagenet_with_background,
)
def mobilenet_v2_tf() -> MobileNetV2:
    """MobileNetV2 trained on ImageNet by its authors, in TensorFlow."""
    return MobileNetV2(classes=1001, padding="SAME", epsilon=1e-3)
