"""What the networks of the zoo share: an architecture, and how a checkpoint fills it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from featvis.checkpoints import Fit, Layout, WeightsFile, fit
from featvis.formats import Part
from featvis.zoo.layers import Convolution

#: What a checkpoint keeps of a batch normalisation, under the names of PyTorch.
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


class Architecture(ABC):
    """A network without its weights: what compiled code depends on.

    A subclass is a frozen dataclass whose fields are literals, so that equal networks are equal
    and hash alike, and compile once.
    """

    @abstractmethod
    def build(self) -> nnx.Module:
        """The network as a module that takes prepared images and returns activations by name."""

    def __call__(self, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        """Activations by layer name, in forward order, of prepared images (n, h, w, c)."""
        return nnx.merge(_split(self)[0], params)(x)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by path, as `block0/conv1/kernel`; normalisations folded in."""
        return {name: array.shape for name, array in _flat(_split(self)[1]).items()}

    def outline(self) -> dict[str, Any]:
        """The parameters' shapes and types in the place of their values."""
        return nnx.to_pure_dict(_split(self)[1])

    def random_params(self, seed: int = 0) -> dict[str, Any]:
        """Weights as for training (He et al. 2015): for tests and timings, not for pictures."""
        rng = np.random.default_rng(seed)

        def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
            if name.endswith("bias"):
                return np.zeros(shape, np.float32)
            if name.endswith("scale"):
                return np.ones(shape, np.float32)
            spread = math.sqrt(2 / math.prod(shape[:-1]))
            return np.float32(spread) * rng.standard_normal(shape, np.float32)

        flat = {name: draw(name, shape) for name, shape in self.shapes().items()}
        return jax.device_put(unflatten_dict(flat, sep="/"))

    def params_from(
        self, tensors: Mapping[str, np.ndarray], layouts: Sequence[Layout], name: str
    ) -> dict[str, Any]:
        """Weights from the tensors of a checkpoint in one of several layouts.

        Args:
            tensors: What `read_weights` returned.
            layouts: Those that the checkpoint may have; it is the one that fits.
            name: What to call the checkpoint in an error.

        Returns:
            Nested dict of float32 arrays, the first argument of a call.

        Raises:
            CheckpointError: No layout fits; lists what differs from the nearest.
        """
        return self.params_of(self.fit(WeightsFile(Path(name), "", (Part("", tensors),)), layouts))

    def fit(self, file: WeightsFile, layouts: Sequence[Layout]) -> Fit:
        """The part of a file that fits, in one of several layouts.

        Raises:
            CheckpointError: No part of the file fits in any layout, or several do.
        """
        return fit(file, layouts, partial(_expected, self), str(self))

    def params_of(self, found: Fit) -> dict[str, Any]:
        """Weights of what `fit` found; for the result see `params_from`."""
        return jax.device_put(unflatten_dict(_fold_all(found.arrays, _norms(self)), sep="/"))


@cache
def _abstract(architecture: Architecture) -> nnx.Module:
    """The network with shapes in the place of its weights."""
    return nnx.eval_shape(architecture.build)


@cache
def _split(architecture: Architecture) -> tuple[Any, Any]:
    """The network as a static graph and the abstract state of its parameters."""
    return nnx.split(_abstract(architecture))


def _flat(state: Any) -> dict[str, Any]:
    pure = flatten_dict(nnx.to_pure_dict(state))
    return {"/".join(map(str, path)): array for path, array in pure.items()}


@cache
def _norms(architecture: Architecture) -> dict[str, float]:
    """Epsilon of the batch normalisation by the path of the convolution before it."""
    return {
        "/".join(map(str, path)): module.norm
        for path, module in nnx.iter_modules(_abstract(architecture))
        if isinstance(module, Convolution) and module.norm is not None
    }


def _expected(architecture: Architecture, layout: Layout) -> dict[str, tuple[int, ...]]:
    norms = {} if layout.folded else _norms(architecture)
    expected: dict[str, tuple[int, ...]] = {}
    for path, shape in architecture.shapes().items():
        module, _, leaf = path.rpartition("/")
        if leaf == "bias" and module in norms:
            expected |= {f"{module}/{part}": shape for part in _BATCH_NORM}
        else:
            expected[path] = shape
    return expected


def _fold_all(found: Mapping[str, np.ndarray], norms: Mapping[str, float]) -> dict[str, np.ndarray]:
    params: dict[str, np.ndarray] = {}
    for path, array in found.items():
        module, _, leaf = path.rpartition("/")
        if leaf in _BATCH_NORM[2:] or (leaf == "weight" and module in norms):
            continue
        if module in norms and f"{module}/running_var" in found:
            kernel, bias = _fold(
                found[f"{module}/kernel"],
                *(found[f"{module}/{part}"] for part in _BATCH_NORM),
                epsilon=norms[module],
            )
            array = kernel if leaf == "kernel" else bias
        # Converted by numpy: jax would compile a conversion for each shape.
        params[path] = np.ascontiguousarray(array, np.float32)
    return params


def _fold(
    kernel: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    epsilon: float,
) -> tuple[np.ndarray, np.ndarray]:
    """A linear map and batch normalisation after it, as one kernel and bias in float64."""
    scale = weight / np.sqrt(variance.astype(np.float64) + epsilon)
    return kernel * scale, bias - mean * scale
