"""How much activation each distance between diverse images costs: a curve over weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featvis import checks
from featvis.errors import InputError, printable
from featvis.methods.diversity import check_several, measures, prepared
from featvis.methods.recipe import chosen, run_recipe, with_measures
from featvis.models import Model
from featvis.results import Result
from featvis.told import Told
from objectives import InGroups, Objective


class TradeOff(NamedTuple):
    """Activation against distance, as the weight of the distance grows.

    Attributes:
        weights: of the distance against the activation, (k,), growing.
        activation: mean share of the best activation of each set, (k,).
        distance: the smallest distance of each set, over the norm of the images, (k,).
        knee: place of the weight at which the curve bends most: see `knee_of`.
        result: all images, `images_of(i)` those of the weight i.
        unit: its text.
    """

    weights: np.ndarray
    activation: np.ndarray
    distance: np.ndarray
    knee: int
    result: Result
    unit: str

    def images_of(self, place: int) -> np.ndarray:
        """The images (n, h, w, c) of a weight."""
        n = len(self.result) // len(self.weights)
        return self.result.images[place * n : (place + 1) * n]

    def rows(self) -> list[list[float]]:
        """Weight, activation and distance of each set."""
        columns = zip(self.weights, self.activation, self.distance, strict=True)
        return [[float(value) for value in row] for row in columns]

    def told(self, page: Path) -> Told:
        """What the command line says of the curve.

        Args:
            page: where it was written.
        """
        rows, knee = self.rows(), float(self.weights[self.knee])
        lines = [
            f"weight {weight:<6g} activation {activation:.3f} distance {distance:.3f} "
            f"{'knee' if at == self.knee else ''}"
            for at, (weight, activation, distance) in enumerate(rows)
        ]
        lines.append(f"knee at the weight {knee:g}  {printable(page)}")
        return Told([{"page": str(page), "knee": knee, "rows": rows}], lines)


def trade_off(
    model: Model | str,
    unit: Objective | str,
    n: int = 6,
    *,
    weights: Sequence[float] = (0.0, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
    layer: str | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> TradeOff:
    """Trace how much activation each distance costs: a set for each weight, in one batch.

    The objective is that of the preset "cadena2018": activation + weight · smallest distance.

    Args:
        model: as for `diverse`.
        unit: as for `diverse`.
        n: images of a weight.
        weights: at least 3, each at least 0.
        layer: as for `diverse`.
        seed: as for `synthesize`.
        size: as for `diverse`.
        **options: as for `diverse`.

    Raises:
        InputError: as `diverse`; fewer than 3 weights that differ, or one below 0.
    """
    check_several(n)
    if isinstance(weights, str) or not np.iterable(weights):
        raise InputError(f"weights are at least 3 numbers; got {weights!r}")
    swept = sorted({checks.number("trade_off", "a weight", weight, 0) for weight in weights})
    if len(swept) < 3:
        raise InputError(f"a curve goes over at least 3 weights that differ; got {list(weights)!r}")
    if "weight" in options:
        raise InputError("trade_off goes over `weights`; one `weight` is an option of diverse")
    rule = chosen("trade_off", "diversity", "cadena2018", options)
    aim, recipe = prepared(model, unit, rule, n, layer, seed, size, options)
    each = np.repeat(np.asarray(swept, np.float32), n)
    wanted = aim.shared + each * InGroups(aim.distance(layer), n)
    result = run_recipe(aim.model, wanted, recipe, aim.layer, seed=seed, batch=len(each), **options)
    groups = np.split(result.images, len(swept))
    measured = [measures(aim, images) for images in groups]
    joined = {name: np.concatenate([one[name] for one in measured]) for name in measured[0]}
    result = with_measures(result, lambda: {"weight": each, **joined})
    activation = joined["activation"].reshape(-1, n).mean(axis=1)
    distance = joined["nearest"].reshape(-1, n).min(axis=1)
    knee = knee_of(activation, distance)
    return TradeOff(np.asarray(swept), activation, distance, knee, result, str(aim.unit))


def knee_of(activation: np.ndarray, distance: np.ndarray) -> int:
    """The place at which a curve of gains against costs bends most.

    The point farthest from the straight line between the curve's ends, with both axes scaled to
    [0, 1] (Satopaa et al. 2011, "Finding a kneedle in a haystack").

    Args:
        activation: (k,), falling: what is paid with.
        distance: (k,), growing: what is gained.
    """
    lost, gained = activation[0] - activation, distance - distance[0]
    scaled = [a / max(float(np.ptp(a)), 1e-12) for a in (lost, gained)]
    return int(np.argmax(scaled[1] - scaled[0]))
