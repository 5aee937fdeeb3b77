"""Adebayo's sanity checks: whether a map changes when the network is no longer what it learned.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps". A method whose map of a network with random
weights is that of the trained one shows the picture, not what was learned of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from featvis import checks
from featvis.attribution.faithfulness import as_maps
from featvis.attribution.masking import blurred
from featvis.errors import InputError
from featvis.evidence.metrics import centred_ranks
from featvis.jaxprs.liveness import alive
from featvis.models import Model
from objectives import Activations, Objective

Way = Literal["cascading", "independent"]


@dataclass(frozen=True)
class SanityCurve:
    """How like a method's maps of a network stay to those of the trained one.

    Attributes:
        layers: the last group of weights that is random at each step, from the network's end.
        rank: (steps, n): rank correlation of the maps.
        absolute: (steps, n): that of their sizes, whatever their signs.
        ssim: (steps, n): structural similarity of their sizes.
        others: (n,): rank correlation of each map's size with that of another image's, of the
            trained network: what the method's maps have in common anyway, as a bright middle.
    """

    layers: tuple[str, ...]
    rank: np.ndarray
    absolute: np.ndarray
    ssim: np.ndarray
    others: np.ndarray

    @property
    def passes(self) -> bool:
        """Whether the sizes of maps come to have little in common with those of the first.

        Their rank correlation is at most 0.5 where half of the steps are done, and at most 0.2 at
        the end, or not told from that: the lower end of its 95 % interval over images is. What
        only the first layers change, as of guided back-propagation, fails half way.
        """
        return self._below(self.absolute[(len(self.layers) - 1) // 2], 0.5) and self._below(
            self.absolute[-1], 0.2
        )

    @staticmethod
    def _below(values: np.ndarray, limit: float) -> bool:
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return bool(values.mean() - 1.96 * error <= limit)


def sanity(
    explained: Callable[[Model], np.ndarray],
    model: Model,
    objective: Objective,
    size: tuple[int, int],
    *,
    way: Way = "cascading",
    steps: int = 8,
    seed: int = 0,
) -> SanityCurve:
    """Maps while the network's weights become random, from its end to its beginning.

    Args:
        explained: maps (n, h, w) of a network of this shape.
        model: the trained network.
        objective: what is explained; weights that it does not depend on are left as they are.
        size: (h, w) of the images.
        way: "cascading": the weights stay random once they are; "independent": those of one step
            alone are.
        steps: of the curve, each of about as many groups of weights; at most as many as there are.
        seed: of the weights.

    Raises:
        InputError: no step, another way, no seed, or maps of another size or not all alike.
        NonFiniteError: a NaN or an infinity in a map.
    """
    steps = checks.integer("sanity", "steps", steps, 1)
    way = cast(Way, checks.choice("sanity", "way", way, get_args(Way)))
    seed = checks.seed("sanity", "seed", seed)
    trained = as_maps(explained(model))
    if trained.shape[1:] != tuple(size):
        raise InputError(f"maps of these images are (n, {size[0]}, {size[1]}); got {trained.shape}")
    groups = weights_in_order(model, objective, size)[::-1]
    parts = [part for part in np.array_split(np.arange(len(groups)), steps) if len(part)]
    measured, names = [], []
    chosen: list[tuple[str, tuple[int, ...]]] = []
    for part in parts:
        new = [groups[number] for number in part]
        chosen = [*chosen, *new] if way == "cascading" else new
        leaves = [leaf for _, group in chosen for leaf in group]
        measured.append(compare(trained, explained(randomised(model, leaves, seed))))
        names.append(new[-1][0])
    rank, absolute, ssim = np.swapaxes(np.array(measured), 0, 1)
    return SanityCurve(tuple(names), rank, absolute, ssim, _of_others(trained))


def weights_in_order(
    model: Model, objective: Objective, size: tuple[int, int]
) -> list[tuple[str, tuple[int, ...]]]:
    """Groups of weights that a score depends on, as the network comes to them.

    Args:
        model: the network.
        objective: the score.
        size: (h, w) of an image.

    Returns:
        For each group, the weights of one parent in the tree, its name, and the numbers of its
        leaves among all of the tree's.
    """
    paths = jax.tree_util.tree_flatten_with_path(model.params)[0]
    image = jax.ShapeDtypeStruct((1, *size, model.input.channels), jnp.float32)

    def score(params: Any, image: jax.Array) -> jax.Array:
        return objective(Activations(model.apply(params, image)), image)

    traced = jax.make_jaxpr(score)(model.params, image).jaxpr
    needed = alive(traced.outvars, traced)
    first: dict[int, int] = {}
    for order, number in enumerate(_uses(traced, {v: i for i, v in enumerate(traced.invars)})):
        first.setdefault(number, order)
    groups: dict[str, list[int]] = {}
    living = [i for i in first if i < len(paths) and traced.invars[i] in needed]
    for number in sorted(living, key=first.__getitem__):
        path = paths[number][0]
        groups.setdefault(jax.tree_util.keystr(path[:-1] or path), []).append(number)
    return [(_plain_name(name), tuple(numbers)) for name, numbers in groups.items()]


def randomised(model: Model, leaves: Sequence[int], seed: int = 0) -> Model:
    """The network with the numbers of some weights shuffled.

    A weight keeps its mean and spread, and a variance stays above 0, whatever it is for.

    Args:
        model: the network.
        leaves: which of the leaves of its tree.
        seed: of the shuffling, each leaf's own whatever others are.
    """
    values, tree = jax.tree.flatten(model.params)
    for number in leaves:
        random = np.random.default_rng([seed, number])
        flat = np.asarray(values[number])
        values[number] = jnp.asarray(random.permutation(flat.ravel()).reshape(flat.shape))
    return dataclasses.replace(model, params=jax.tree.unflatten(tree, values), digest="")


def compare(maps: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank correlation of maps, that of their sizes, and the sizes' structural similarity.

    Args:
        maps: (n, h, w).
        others: (n, h, w).

    Returns:
        Three arrays (n,).

    Raises:
        InputError: maps of two shapes, or what are no maps.
        NonFiniteError: a NaN or an infinity in a map.
    """
    maps = as_maps(maps)
    others = as_maps(others, maps.shape)
    sizes = np.abs(maps), np.abs(others)
    return _ranked(maps, others), _ranked(*sizes), structural_similarity(*map(_scaled, sizes))


def structural_similarity(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """SSIM of maps in [0, 1], the mean over pixels, (n,).

    Wang et al. 2004, "Image Quality Assessment": a Gaussian window of 1.5 pixels, 11 wide.

    Args:
        maps: (n, h, w).
        others: (n, h, w).
    """

    def local(values: np.ndarray) -> np.ndarray:
        return np.asarray(blurred(jnp.asarray(values, jnp.float32)[..., None], 11, 1.5))[..., 0]

    x, y = np.asarray(maps, np.float64), np.asarray(others, np.float64)
    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    shared = local(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mean_x * mean_y + c1) * (2 * shared + c2)
    found /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return found.mean(axis=(1, 2))


def _ranked(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    rows = [centred_ranks(np.reshape(one, (len(one), -1))) for one in (maps, others)]
    return (rows[0] * rows[1]).sum(axis=1)


def _of_others(maps: np.ndarray) -> np.ndarray:
    """Rank correlation of each map's size with the next one's; 0 where there is one image alone."""
    if len(maps) == 1:
        return np.zeros(1)
    return _ranked(np.abs(maps), np.abs(np.roll(maps, 1, axis=0)))


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Each map from 0 to 1; one of a single value stays 0."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)


def _plain_name(path: str) -> str:
    """`['block1']['conv']` as block1/conv."""
    return path.replace("']['", "/").strip("[']") or path


def _uses(jaxpr: Any, inputs: dict[Any, int]) -> Iterator[int]:
    """The numbers of a program's inputs in the order in which equations read them.

    Of an equation with a program inside, its own equations are looked at, where its inputs are
    those of the equation.
    """
    for eqn in jaxpr.eqns:
        inner = next((p for p in map(_program, eqn.params.values()) if p is not None), None)
        read = [None if isinstance(v, core.Literal) else inputs.get(v) for v in eqn.invars]
        if inner is not None and len(inner.invars) == len(read):
            named = {v: n for v, n in zip(inner.invars, read, strict=True) if n is not None}
            yield from _uses(inner, named)
        yield from (number for number in read if number is not None)


def _program(value: Any) -> Any:
    """The program that an equation's parameter is, or None."""
    inner = getattr(value, "jaxpr", value)
    return inner if hasattr(inner, "eqns") and hasattr(inner, "invars") else None
