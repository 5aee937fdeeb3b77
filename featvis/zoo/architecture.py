"""What the networks of the zoo share: an architecture, and how a checkpoint fills it."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from featvis.models import Input
from featvis.weights.layouts import Fit, KeyLayout, fit, source_of
from featvis.weights.parts import Part, WeightsFile
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
        """Activations by layer name, in forward order, of prepared images (n, h, w, c).

        They are computed in the type of the weights, float32 as they are loaded.
        """
        kinds = {weight.dtype for weight in jax.tree.leaves(params)}
        if len(kinds) == 1:
            x = x.astype(kinds.pop())
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
        self, tensors: Mapping[str, np.ndarray], layouts: Sequence[KeyLayout], name: str
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

    def fit(self, file: WeightsFile, layouts: Sequence[KeyLayout]) -> Fit:
        """The part of a file that fits, in one of several layouts.

        Raises:
            CheckpointError: No part of the file fits in any layout, or several do.
        """
        return fit(file, layouts, partial(_expected, self), str(self))

    def nearest(
        self, file: WeightsFile, layouts: Sequence[KeyLayout], input: Input
    ) -> tuple[Fit, Adapted | None]:
        """As `fit`, and a network with another head, or none, or of other input channels.

        Args:
            file: the weights.
            layouts: those that it may have.
            input: the images that the network takes.

        Returns:
            What fits, and the network with its differences; None where it has none.

        Raises:
            CheckpointError: No part of the file fits, or several do.
        """
        made: list[Adapted] = []

        def does(found: Fit) -> bool:
            made.extend(one for one in (_adapted(self, found, input),) if one is not None)
            return bool(made)

        found = fit(file, layouts, partial(_expected, self), str(self), does)
        return found, made[0] if made else None

    def params_of(self, found: Fit) -> dict[str, Any]:
        """Weights of what `fit` found; for the result see `params_from`."""
        return jax.device_put(unflatten_dict(_fold_all(found.arrays, _norms(self)), sep="/"))


@dataclass(frozen=True)
class Adapted(Architecture):
    """A network of the zoo with another head, or none, or of other input channels.

    Attributes:
        base: The network of the zoo.
        changed: Parameters of another shape than its own.
        missing: Parameters that the weights lack.
        dropped: Layers that need one of these.
        channels: Of its images.
    """

    base: Architecture
    changed: tuple[tuple[str, tuple[int, ...]], ...]
    missing: tuple[str, ...]
    dropped: tuple[str, ...]
    channels: int

    def build(self) -> nnx.Module:
        """The network of the zoo as a module."""
        return self.base.build()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters that there are, by path."""
        own = {**self.base.shapes(), **dict(self.changed)}
        return {path: shape for path, shape in own.items() if path not in self.missing}

    def __call__(self, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        """Activations by layer name, in forward order, of those that need nothing missing."""
        shapes = self.base.shapes()
        # What is computed of the zeros is dropped.
        filled = {path: jnp.zeros(shapes[path], jnp.float32) for path in self.missing}
        flat = {"/".join(map(str, path)): array for path, array in flatten_dict(params).items()}
        found = self.base(unflatten_dict({**flat, **filled}, sep="/"), x)
        return {name: value for name, value in found.items() if name not in self.dropped}

    def params_of(self, found: Fit) -> dict[str, Any]:
        """Weights of what was found in a file."""
        arrays = _complete(found.arrays, _expected(self.base, found.layout))
        folded = _fold_all(arrays, _norms(self.base))
        return jax.device_put(unflatten_dict(folded, sep="/"))

    @property
    def left_out(self) -> dict[str, str]:
        """The layers that are not there, and why."""
        return dict.fromkeys(self.dropped, f"needs {', '.join(self.missing)}: not in the weights")


def _complete(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The arrays of the modules of which all are there."""
    gone = {path.rpartition("/")[0] for path in expected if path not in arrays}
    return {path: a for path, a in arrays.items() if path.rpartition("/")[0] not in gone}


def _adapted(architecture: Architecture, found: Fit, input: Input) -> Adapted | None:
    """The network that weights are of which differ from it; None where they are of another.

    They may differ in the number of input channels, and in what fewer than half of its layers
    need. What is left over must be in modules of which nothing else is taken.
    """
    # Not at the top: the models know the networks of the zoo.
    from featvis.jaxprs.facts import Fact, facts_of
    from featvis.jaxprs.taps import trace
    from featvis.models.own import note_result

    expected = _expected(architecture, found.layout)
    arrays = _complete(found.arrays, expected)
    wanted = _names(found.arrays, found.layout)
    left = [line[2:].split(" ")[0] for line in found.differences if line.startswith("+ ")]
    left = [name for name in left if name not in wanted]
    if left and (
        len(arrays) == len(expected) or _modules(left) & _modules(_names(arrays, found.layout))
    ):
        return None
    try:
        folded = _fold_all(arrays, _norms(architecture))
    except (ValueError, KeyError):  # of normalisations of other widths
        return None
    own = architecture.shapes()
    changed = {p: a.shape for p, a in folded.items() if a.shape != own[p]}
    missing = tuple(path for path in own if path not in folded)
    channels = input.channels
    tail = set(changed)
    for path, shape in changed.items():
        # Of the convolution of the image alone.
        same = len(shape) == 4 and (*shape[:2], shape[3]) == (*own[path][:2], own[path][3])
        if same and own[path][2] == input.channels:
            channels, tail = shape[2], tail - {path}
    shapes = {**own, **changed}
    params = unflatten_dict(
        {p: jax.ShapeDtypeStruct(shape, jnp.float32) for p, shape in shapes.items()}, sep="/"
    )
    x = jax.ShapeDtypeStruct((1, *input.size, channels), jnp.float32)
    try:
        traced = trace(lambda params, x: note_result(architecture(params, x)), params, x)
    # Shapes that do not fit each other are another network's.
    except (TypeError, ValueError):
        return None
    paths = ["/".join(map(str, (k.key for k in p))) for p, _ in _leaves(params)]

    def needing(these: Collection[str]) -> tuple[str, ...]:
        facts = [Fact(shapes[path], jnp.float32, random=path in these) for path in paths]
        taps = facts_of(traced, [*facts, Fact(x.shape, x.dtype, 3, True)])
        return tuple(name for _, name, fact in taps.results if fact.random)

    if 2 * len(needing({*tail, *missing})) >= len(needing(paths)):
        return None
    return Adapted(architecture, tuple(changed.items()), missing, needing(missing), channels)


def _modules(names: Iterable[str]) -> set[str]:
    """The outermost modules of tensors; what wraps a network is none."""
    parts = [re.split(r"[./]", name.removeprefix("module.")) for name in names]
    return {part[0] for part in parts}


def _leaves(tree: Any) -> Any:
    return jax.tree_util.tree_leaves_with_path(tree)


def _names(paths: Iterable[str], layout: KeyLayout) -> set[str]:
    """Where a layout keeps parameters."""
    return {found[0] for path in paths if (found := source_of(path, layout.rules)) is not None}


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


def _expected(architecture: Architecture, layout: KeyLayout) -> dict[str, tuple[int, ...]]:
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
