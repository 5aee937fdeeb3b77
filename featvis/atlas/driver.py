"""An atlas made, or gone on with: every unit of some layers, batch by batch, into a store."""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from featvis import checks, kernels, loading
from featvis.atlas.engine import ENGINES, Engine, Local, Ray
from featvis.atlas.natural import checked_index, describe, described
from featvis.atlas.reader import Atlas
from featvis.atlas.store import Store, difference
from featvis.atlas.work import Work, run_of
from featvis.errors import InputError, printable
from featvis.models import Model
from featvis.natural import Index
from featvis.parameterizations import Parameterization
from featvis.results.manifest import versions
from featvis.results.run import Run, as_parameterization, check_options, recorded
from featvis.synthesis import memory
from featvis.synthesis.arguments import check_fit, check_optimizer
from objectives import Activations

#: Pictures of a batch at most, on a CPU and on each accelerator: more are no faster.
_ON_CPU, _ON_ACCELERATOR = 8, 64
#: Options of the loop that an atlas takes.
LOOP = ("steps", "optimizer", "transform", "draws", "patience")


def atlas(
    model: Model | str,
    layers: Sequence[str] | str,
    store: str | Path,
    *,
    units: Iterable[int] | str | None = None,
    objective: str = "channel",
    seeds: int = 1,
    negative: bool = False,
    diverse: int = 0,
    facets: int = 0,
    index: Index | str | Path | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    cores: int = 1,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    parameterization: Parameterization | str | None = None,
    progress: bool | Callable[[int, int], object] = True,
    **options: Any,
) -> Atlas:
    """Make pictures of every unit of some layers, in a store that a later call goes on with.

    The seed of a picture comes from (seed, layer, unit, number) alone: the picture of unit 7 is
    the same whatever else is made, in any batch and order, by any engine, beyond rounding. Each
    batch is written when it is done: a kill at any moment loses the batch under way. Called again,
    it goes on; with more layers, units, seeds, facets or images it makes what is missing.

    Args:
        model: the network, or the name of one.
        layers: whose units are shown.
        store: the folder of the atlas; or an address that fsspec knows, as s3://….
        units: numbers of units of each layer, or a text as "0-63,70"; by default all.
        objective: "channel", the mean of a unit's map; "neuron", its middle; or "both".
        seeds: pictures of each unit, from so many starts.
        negative: make the picture that lowers each unit the most, too.
        diverse: so many pictures of each unit that differ, too; 0 or at least 2.
        facets: so many facets of each unit, as `fv.facets` has them, too; they need an index.
        index: of natural images (`fv.index`), of the same network at the same size, or its folder:
            adds the images that excite each unit the most and the least, a histogram, the nearest
            units, and where its picture is among the images.
        engine: "local", this process with all its devices; or "ray", the workers of a cluster.
        address: of the Ray cluster, as "auto"; by default one is started here.
        workers: of Ray; by default one an accelerator, or one for each `cores` cores.
        cores: of each worker of Ray, where there are no accelerators.
        seed: of all pictures.
        size: (height, width) of the pictures; by default the network's own.
        batch: pictures of a batch; by default as many as fit the memory, at most 8 on a CPU and
            64 an accelerator.
        parameterization: how they are written; by default `Fourier`.
        progress: show a progress bar; or a function that is called with the number of pictures
            that are done, and of all, in place of one.
        **options: `steps`, `optimizer`, `transform`, `draws` and `patience`, as for `synthesize`.

    Returns:
        The atlas.

    Raises:
        InputError: units that a layer does not have; a store made with other settings (says which
            differ), or that somebody else is writing into; an index of another network or size;
            no Ray, or no such cluster; zarr is not installed.
        OutputError: the store cannot be written. What was done is in it.
        UnknownLayer: no such layer.
        KeyboardInterrupt: Ctrl-C. What was done is in it.

    Warns:
        UserWarning: units that have no facets: how many, and why the first.
    """
    check_options("atlas", options, (*_OWN, *LOOP))
    model = loading.as_model(model)
    size = checks.image_size("atlas", "size", size or model.input.size)
    kinds = {"both": ("channel", "neuron")}.get(objective, (objective,))
    checks.choice("atlas", "objective", objective, ("channel", "neuron", "both"))
    made = _engine(engine, address, workers, cores)
    seeds = checks.integer("atlas", "seeds", seeds, 1, 2**16)
    seed = checks.integer("atlas", "seed", seed, 0, 2**32 - 1)
    diverse = checks.integer("atlas", "diverse", diverse, 0, 2**10)
    facets = checks.integer("atlas", "facets", facets, 0, 2**10)
    if diverse == 1:
        raise InputError("diverse pictures are 2 or more, which can differ; got 1")
    if facets and index is None:
        raise InputError("facets are found among natural images: give an index of them too")
    index = None if index is None else checked_index(index, model, size)
    shapes = Activations(model.layers(size))
    names = _listed("layers", layers, "names of layers")
    if not names:
        raise InputError("an atlas is of at least one layer; got none")
    units = units if units is None or isinstance(units, str) else _listed("units", units, "numbers")
    wanted = {name: _units(units, name, shapes[name][-1]) for name in shapes if name in names}
    for name in names:
        _ = shapes[name]  # an unknown one says the nearest
        if "neuron" in kinds and len(shapes[name]) != 3:
            raise InputError(f"{name} has no map, and so no neuron in the middle: {shapes[name]}")
        if index is not None:
            _ = Activations(index.layers)[name]
    way = as_parameterization(parameterization, size, model.input.channels, exact=True)
    first = Work(
        next(iter(wanted)), kinds[0], "picture", (0,), (0,), 1, seed, way, size, options
    )  # fmt: skip
    asked = _settings(model, run_of(first, model), options, size, seed)
    opened = _opened(store, asked, wanted, shapes, model, batch, lambda: _fitting(first, model))
    plan = _Plan(opened, wanted, kinds, seed, way, size, options, index)
    # How different pictures are counts against the score of the best.
    stages = {"picture": seeds, "negative": int(negative), "facet": facets}, {"diverse": diverse}
    if plan.done(stages):
        return opened
    with opened.store.place.locked():
        opened.refresh()
        _check_same(opened.store, asked, batch)  # another process may have made it just now
        opened.store.mend()
        _add_layers(opened, wanted, shapes, model)
        rows = opened.store.rows
        if diverse > rows:
            raise InputError(
                f"diverse pictures of a unit are of one batch, which has {rows} here; got {diverse}"
            )
        for stage in stages:
            _fill(opened, plan, made, model, stage, progress)
        if index is not None:
            for name in wanted:
                describe(opened, index, name)
    return opened


def _engine(name: str, address: str | None, workers: int | None, cores: int) -> Engine:
    """The engine of a name.

    Raises:
        InputError: there is none, or what only Ray takes was given for another.
    """
    checks.choice("atlas", "engine", name, ENGINES)
    workers = None if workers is None else checks.integer("atlas", "workers", workers, 1)
    cores = checks.integer("atlas", "cores", cores, 1)
    if name == "ray":
        return Ray(address, workers, cores)
    for option, value, none in (
        ("address", address, None),
        ("workers", workers, None),
        ("cores", cores, 1),
    ):
        if value != none:
            raise InputError(f"{option} is of the engine 'ray'; got {value!r} for {name!r}")
    return Local()


_OWN = (
    "units", "objective", "seeds", "negative", "diverse", "facets", "index", "engine", "address",
    "workers", "cores", "seed", "size", "batch", "parameterization", "progress",
)  # fmt: skip


def _listed(name: str, given: Any, expected: str) -> list[Any]:
    """A text alone, or what there are several of, as a list.

    Raises:
        InputError: neither.
    """
    if isinstance(given, str):
        return [given]
    try:
        return list(given)
    except TypeError:
        raise checks.error("atlas", name, f"a text or a list of {expected}", given) from None


def _units(given: Iterable[int] | str | None, layer: str, count: int) -> list[int]:
    """Numbers of units in order, each once.

    Raises:
        InputError: no numbers, or one that the layer does not have.
    """
    if given is None:
        return list(range(count))
    found: set[int] = set()
    for part in given.split(",") if isinstance(given, str) else given:
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", str(part))
        if match is None:
            raise InputError(f"units are numbers, as 0-63,70; got {printable(repr(part), 60)}")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise InputError(
                f"units go from the lower to the higher, as {last}-{first}; got {str(part).strip()}"
            )
        if last >= count:
            raise InputError(f"{layer} has the units 0 to {count - 1}; got {str(part).strip()}")
        found |= set(range(first, last + 1))
    if not found:
        raise InputError(f"no units of {layer} were given")
    return sorted(found)


# ---- the store -----------------------------------------------------------------------------


def _settings(
    model: Model, run: Run, options: dict[str, Any], size: tuple[int, int], seed: int
) -> dict[str, Any]:
    """What all pictures of an atlas have in common, plain data."""
    kept = recorded(run)
    if kept["optimizer"] is None:
        raise InputError("an atlas keeps its optimizer as text, as 'adam(0.05)'; got another")
    # Where none is given, a layer's own: see `featvis.results.run.defaults`.
    own = {name: kept[name] if options.get(name) is not None else None for name in LOOP}
    return {
        "model": {"name": model.name, "digest": model.digest, "origin": model.origin},
        "size": list(size), "channels": model.input.channels,
        "parameterization": str(run.parameterization), "seed": seed, **own, "steps": run.steps,
    }  # fmt: skip


def _opened(
    path: str | Path,
    asked: dict[str, Any],
    wanted: dict[str, list[int]],
    shapes: Any,
    model: Model,
    batch: int | None,
    fitting: Callable[[], int],
) -> Atlas:
    """The atlas of a place, a new one where there is none.

    Raises:
        InputError: one that was made with other settings; says which differ.
    """
    if batch is not None:
        batch = checks.integer("atlas", "batch", batch, 1, 2**12)
    if not Store.is_at(path):
        layers = {name: _layer(name, shapes, model) for name in wanted}
        settings = {**asked, "batch": batch or fitting(), "layers": layers, "versions": versions()}
        # What fits takes seconds to say, in which somebody else may have made it.
        if not Store.is_at(path):
            return Atlas(Store.create(path, settings))
    store = Store.read(path)
    _check_same(store, asked, batch)
    return Atlas(store)


def _check_same(store: Store, asked: dict[str, Any], batch: int | None) -> None:
    """Refuses a store that was made with other settings; says which differ."""
    # A network is its weights and what it does with them, whatever it is called.
    made, now = ({**of, "weights": of["model"]["digest"][:12]} for of in (store.settings, asked))
    del now["model"]
    differ = difference(made, now | ({} if batch is None else {"batch": batch}))
    if differ:
        raise InputError(
            f"the atlas {store.place} was made with other settings ({'; '.join(differ)}): give "
            "the same, or another place for a new atlas"
        )


def _add_layers(atlas: Atlas, wanted: Iterable[str], shapes: Any, model: Model) -> None:
    had = atlas.settings["layers"]
    if set(wanted) <= set(had):
        return
    both = {n: had.get(n) or _layer(n, shapes, model) for n in shapes if n in had or n in wanted}
    atlas.store.set_settings({**atlas.settings, "layers": both})
    atlas.refresh()


def _layer(name: str, shapes: Any, model: Model) -> dict[str, Any]:
    shape, labels = list(shapes[name]), model.labels
    classes = len(shape) == 1 and labels is not None and len(labels) == shape[0]
    return {"shape": shape, "labels": list(labels) if classes and labels else None}


def _fitting(work: Work, model: Model) -> int:
    """How many pictures of a batch fit the memory, a multiple of the devices."""
    devices = len(jax.local_devices())
    most = _ON_CPU if kernels.on_cpu() else _ON_ACCELERATOR
    most = max(most, devices) // devices * devices
    run = run_of(dataclasses.replace(work, rows=most), model)
    _, objective, way, transform = run.parts
    state = check_optimizer(run.optimizer, way)
    check_fit(model, objective, way, transform, most)
    need = memory.estimate(model, objective, way, transform, most, state, steps=run.steps)
    count = need.fitting(most)
    if count < 1:
        need.check(1)
    return count if count < devices else count // devices * devices


# ---- what is to be made --------------------------------------------------------------------


@dataclass
class _Plan:
    """What an atlas is to have, and what of it is not there yet."""

    atlas: Atlas
    units: dict[str, list[int]]
    objectives: tuple[str, ...]
    seed: int
    way: Parameterization
    size: tuple[int, int]
    options: dict[str, Any]
    index: Index | None

    def done(self, stages: Iterable[Mapping[str, int]]) -> bool:
        """Whether all is there, so that there is nothing to write: not even a lock.

        Settings whose copy is read are written again, as far as anybody may write there.
        """
        store = self.atlas.store
        if not set(self.units) <= set(self.atlas.layers) or (store.torn and store.place.writable):
            return False
        if any(True for stage in stages for role in stage.items() for _ in self.missing(*role)):
            return False
        index = self.index
        return index is None or all(described(self.atlas, index, name) for name in self.units)

    def missing(self, role: str, numbers: int) -> Iterator[tuple[str, str, list[tuple[int, int]]]]:
        """Layers, objectives, and (unit, number) of the pictures of a role that are not there."""
        together = role in ("diverse", "facet")
        for layer, units in self.units.items():
            # Facets are of what natural images excite, whichever of the two is driven.
            for objective in self.objectives[:1] if role == "facet" else self.objectives:
                found = []
                for unit in units:
                    keys = [(unit, number) for number in range(numbers)]
                    gone = [k for k in keys if not self.atlas.has(layer, objective, role, *k)]
                    found += keys if gone and together else gone
                if found:
                    # The first seed of all units first, as far as seeds are each of their own.
                    yield layer, objective, found if together else sorted(found, key=_by_number)

    def batches(self, role: str, numbers: int) -> Iterator[Work]:
        """What is missing, in batches; pictures that belong together are in one."""
        rows = self.atlas.store.rows
        together = numbers if role in ("diverse", "facet") else 1
        some = together if role == "facet" else rows // together * together
        for layer, objective, missing in self.missing(role, numbers):
            scores = self.atlas.clean_scores(layer, objective) if role == "diverse" else {}
            for part in _parts(missing, some):
                units, places = zip(*part, strict=True)
                best = tuple(_best(scores[unit]) for unit in units) if scores else ()
                yield Work(
                    layer, objective, role, units, places, rows, self.seed, self.way, self.size,
                    self.options, best, together,
                    "" if self.index is None else str(self.index.store.path.resolve()),
                )  # fmt: skip


def _best(score: float) -> float:
    """What a unit's activation is measured by; 1 where its picture says nothing."""
    return abs(score) if np.isfinite(score) and abs(score) > 1e-6 else 1.0


def _by_number(key: tuple[int, int]) -> tuple[int, int]:
    unit, number = key
    return number, unit


def _parts(values: list[Any], count: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), count):
        yield values[start : start + count]


def _fill(
    atlas: Atlas,
    plan: _Plan,
    engine: Engine,
    model: Model,
    roles: Mapping[str, int],
    progress: bool | Callable[[int, int], object],
) -> None:
    """Makes what is missing of some roles, by the numbers of their pictures a unit."""
    total = sum(len(keys) for role in roles.items() for _, _, keys in plan.missing(*role))
    done, without = 0, []
    batches = itertools.chain.from_iterable(plan.batches(*role) for role in roles.items())
    shown = None if progress is True else True
    with tqdm(total=total, unit="picture", disable=shown, leave=False) as bar:
        # Where there is nothing to do, no cluster is needed.
        for work, made, error in engine.run(model, batches) if total else ():
            if error is not None:
                without.append(error)
            elif made is None:
                raise KeyboardInterrupt
            else:
                batch = made.batch(work, atlas.store.next_row())
                atlas.add(batch, made.pictures, made.manifest)
            done += len(work)
            bar.update(len(work))
            if callable(progress):
                progress(done, total)
    if without:
        more = f", and {len(without) - 1} more" if len(without) > 1 else ""
        warnings.warn(f"no facets: {without[0]}{more}", stacklevel=3)
