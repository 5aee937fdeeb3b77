"""A batch of an atlas: what it is of, and how it is made, wherever that is."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from featvis import kernels, methods
from featvis.atlas.store import Batch
from featvis.errors import InputError
from featvis.gradients.silence import SilenceWarning
from featvis.models import Model
from featvis.natural import Index
from featvis.parameterizations import Parameterization
from featvis.pictures import to_levels
from featvis.results import Result
from featvis.results.run import Run
from featvis.synthesis.run import attempt
from objectives import (
    Activations,
    Channel,
    Diversity,
    InGroups,
    Logit,
    MinDistance,
    Neuron,
    Objective,
)


@dataclass(frozen=True)
class Work:
    """A batch to be made: plain data, which goes to another machine as it is.

    Attributes:
        layer: of all its units.
        objective: "channel" or "neuron".
        role: as `Batch` has it.
        units: of its pictures, at most `rows`.
        numbers: which seed, diverse picture or facet each is.
        rows: of the batch, which it is padded to: all batches are one compiled program.
        seed: of the atlas.
        parameterization: how they are written.
        size: (height, width) of the pictures.
        options: of the run, by name.
        best: of each picture its unit's best clean score, where the role asks for it.
        together: diverse pictures of a unit, or facets; 1 of other roles.
        index: of natural images, where the role asks for it.
    """

    layer: str
    objective: str
    role: str
    units: tuple[int, ...]
    numbers: tuple[int, ...]
    rows: int
    seed: int
    parameterization: Parameterization
    size: tuple[int, int]
    options: Mapping[str, Any]
    best: tuple[float, ...] = ()
    together: int = 1
    index: str = ""

    def __len__(self) -> int:
        return len(self.units)

    def __str__(self) -> str:
        last = f" to {self.units[-1]}" if len({*self.units}) > 1 else ""
        return f"{self.role} of {self.layer}:{self.units[0]}{last}"


@dataclass(frozen=True)
class Made:
    """What a batch is, without its rows' place.

    Attributes:
        pictures: of all rows, (rows, h, w, c) uint8.
        figures: `clean`, `transformed`, `steps`, `silent`, `failed` and `seconds`, as `Batch` has
            them.
        manifest: that makes all rows again.
    """

    pictures: np.ndarray
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]

    def batch(self, work: Work, row: int) -> Batch:
        """The record of it, at a row."""
        return Batch(
            row=row, layer=work.layer, objective=work.objective, role=work.role, units=work.units,
            numbers=work.numbers, **self.figures,
        )  # fmt: skip


def unit_seed(seed: int, layer: str, unit: int, number: int = 0) -> int:
    """The seed of a picture: by what it is of alone, whatever else is made.

    Args:
        seed: of the atlas.
        layer: of the unit.
        unit: its number.
        number: which of the seeds, or of the diverse pictures.
    """
    seal = hashlib.sha256(f"{seed} {layer} {unit} {number}".encode()).digest()
    return int.from_bytes(seal[:4], "big")


def objective_of(work: Work, model: Model) -> Objective:
    """What the pictures of a batch maximise, padded with the last one's."""
    units = _padded(work.units, work)
    vector = len(model.layers(work.size)[work.layer]) == 1
    wanted = _driven(work, vector, units)
    if work.role == "negative":
        return -1 * wanted
    if work.role == "diverse":
        # As methods.diverse has it: the share of the best activation, and the difference in style.
        apart = MinDistance() if vector else Diversity(work.layer)
        shares = (1 / np.abs(_padded(work.best, work))).astype(np.float32)
        return shares * wanted + InGroups(apart, work.together)
    return wanted


def _driven(work: Work, vector: bool, units: np.ndarray) -> Objective:
    if work.objective == "neuron":
        return Neuron(work.layer, units)
    return Logit(units, work.layer) if vector else Channel(work.layer, units)


def _padded(values: Any, work: Work) -> np.ndarray:
    """One value a row: after the last unit's, or its group's, again those of that unit."""
    rows = np.arange(work.rows)
    over = rows >= len(work)
    rows[over] = len(work) - work.together + (rows[over] - len(work)) % work.together
    return np.asarray(values)[rows]


def run_of(work: Work, model: Model) -> Run:
    """The run that makes a batch."""
    numbers = _padded(work.numbers, work).tolist()
    pairs = zip(_padded(work.units, work).tolist(), numbers, strict=True)
    seeds = [unit_seed(work.seed, work.layer, *pair) for pair in pairs]
    return Run(
        model, objective_of(work, model), work.parameterization, seed=seeds, progress=False,
        **work.options,
    )  # fmt: skip


def make(work: Work, model: Model) -> Made | None:
    """Makes a batch; None after a Ctrl-C.

    Raises:
        InputError: the images of the index give a unit no facets.
    """
    started = time.perf_counter()
    if work.role == "facet":
        result = _facets(work, model)
    else:
        result = attempt(run_of(work, model))
        if work.role == "diverse":
            # What is maximised says how different they are, too.
            units = _padded(work.units, work)
            driven = _driven(work, len(model.layers(work.size)[work.layer]) == 1, units)
            scores = np.asarray(_scores(model.apply, model.params, driven, result.images))
            result = dataclasses.replace(result, clean_scores=scores)
    if "interrupt" in result.stopped:
        return None
    pictures = to_levels(result.images)
    padding = np.zeros((work.rows - len(pictures), *pictures.shape[1:]), np.uint8)
    sign, seen = (-1 if work.role == "negative" else 1), len(work)

    def plain(scores: np.ndarray) -> tuple[float | None, ...]:
        values = (sign * scores[:seen]).tolist()
        return tuple(value if np.isfinite(value) else None for value in values)

    figures = {
        "clean": plain(result.clean_scores),
        "transformed": plain(result.transformed_scores),
        "steps": tuple(result.steps[:seen].tolist()),
        "silent": result.silent[:seen],
        "failed": result.failures[:seen],
        "seconds": round(time.perf_counter() - started, 3),
    }
    return Made(np.concatenate([pictures, padding]), figures, result.manifest)


@functools.partial(kernels.compiled, static=("apply",))
def _scores(apply: Any, params: Any, objective: Objective, images: jax.Array) -> jax.Array:
    return objective(Activations(apply(params, images)), images)


def _facets(work: Work, model: Model) -> Result:
    """The facets of one unit; their clean scores are the largest activations of the maps."""
    seed = unit_seed(work.seed, work.layer, work.units[0])
    options = {name: value for name, value in work.options.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", methods.FacetWarning)
        warnings.simplefilter("ignore", SilenceWarning)
        found = methods.facets(
            model, f"{work.layer}:{work.units[0]}", Index(work.index), work.together,
            seed=seed, size=work.size, parameterization=work.parameterization, progress=False,
            **options,
        )  # fmt: skip
    if len(found) < work.together:
        raise InputError(f"{work}: {len(found)} of {work.together} groups have enough images")
    return dataclasses.replace(found.result, clean_scores=found.scores)
