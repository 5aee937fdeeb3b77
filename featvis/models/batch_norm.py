"""What the batch norms of a network remember of the data that it was trained on."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

from flax import nnx
from flax.traverse_util import flatten_dict

from featvis.errors import InputError
from featvis.models.flax_modules import _path
from featvis.models.model import Model
from objectives import BatchStatistics, Objective


def batch_norm_prior(model: Model, first: float = 10.0) -> Objective:
    """DeepInversion's prior: a batch of images is to have the statistics of the training data.

    Yin et al. 2020, "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion",
    section 3.2: −Σ ‖μ − running mean‖₂ + ‖σ² − running variance‖₂ over all batch norms that the
    network calls, with μ and σ² those of the input's channels over images and positions. The paper
    adds 0.01 of it to the log probabilities of a large batch of several classes.

    Args:
        model: of `from_nnx` or `from_linen`, with batch norms of Flax.
        first: weight of the first batch norm, above 0; 10 in the authors' code.

    Returns:
        The sum of one `BatchStatistics` for each batch norm, at most 0, the same for all images.

    Raises:
        InputError: `first` out of range, a model that keeps no running statistics, as those of the
            zoo, or keeps some in a class that is no batch norm of Flax.
        ObjectiveError: running statistics that are not one number a channel.
    """
    number = isinstance(first, numbers.Real) and not isinstance(first, bool)
    if not (number and math.isfinite(first) and first > 0):
        raise InputError(f"first must be a number above 0; got {first!r}")
    statistics = _running_statistics(model.params)
    layers = model.layers()
    terms: list[Objective] = []
    for layer in layers:
        # The second call of a batch norm has a layer of its own, `norm/input.1`.
        name = re.sub(r"/input(\.\d+)?$", "", layer)
        if name in statistics and name != layer:
            terms.append(BatchStatistics(layer, *statistics[name]))
    others = [name for name in statistics if name in layers and f"{name}/input" not in layers]
    if others:
        raise InputError(f"{others[0]} keeps running statistics and is no BatchNorm of Flax")
    if not terms:
        raise InputError(
            f"{model.name} calls no batch norm that keeps running statistics: the prior is of "
            "models by from_nnx or from_linen that do; those of the zoo have theirs folded into "
            "the convolutions"
        )
    return sum(terms[1:], first * terms[0])


def _running_statistics(params: Any) -> dict[str, tuple[Any, Any]]:
    """The running mean and variance of each batch norm, called or not, by its path."""
    flat: dict[tuple[Any, ...], Any] = {}
    match getattr(params, "weights", None):
        case nnx.State() as state:
            flat = {
                path: variable.get_raw_value()
                for path, variable in nnx.to_flat_state(state)
                if isinstance(variable, nnx.BatchStat)
            }
        case {"batch_stats": Mapping() as collection}:
            flat = flatten_dict(collection)
    return {
        _path(path[:-1]): (mean, flat[*path[:-1], "var"])
        for path, mean in flat.items()
        if path[-1] == "mean" and (*path[:-1], "var") in flat
    }
