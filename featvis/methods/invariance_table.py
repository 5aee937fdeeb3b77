"""What all units of a layer ignore: a table that can be left and gone on with."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featvis import checks, loading
from featvis.errors import InputError, OutputError, printable
from featvis.evidence.variations import FAMILIES, Tuning
from featvis.files import write_file
from featvis.gradients.silence import SilenceWarning
from featvis.methods.diversity import (
    Aim,
    beside,
    check_several,
    constrained,
    default_size,
    distances,
    hold_for,
    is_alive,
)
from featvis.methods.invariance import (
    check_extent,
    curves_of,
    curves_of_crops,
    index_over,
    windows_of,
)
from featvis.methods.recipe import Recipe, run_recipe, setting_of
from featvis.models import Model, unrectified
from featvis.natural import Index, as_index
from featvis.natural.receptive import Field, receptive_field
from featvis.results import Result
from objectives import (
    Activations,
    AtLeast,
    Channel,
    Direction,
    DirectionNeuron,
    InGroups,
    MinDistance,
    Neuron,
    Objective,
    check_number,
)

#: The table's file in a folder, the same of another kind, and what it was made with.
TABLE, PARQUET, SETTINGS = "units.csv", "units.parquet", "settings.json"
#: Of the settings, what was found and not asked for: the receptive field.
FOUND = ("window", "cut")

Row = dict[str, Any]
"""Figures of a unit by column; None where there are none."""


def invariance_table(
    model: Model | str,
    layer: str,
    units: Sequence[int] | None = None,
    *,
    folder: str | Path | None = None,
    n: int = 3,
    keep: float = 0.85,
    contrast: float = 0.125,
    steps: int = 80,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    at_a_time: int = 8,
    natural: Index | str | Path | None = None,
    crops: int = 4,
    tell: Callable[[int, int], object] | None = None,
) -> list[Row]:
    """Tabulate what all units of a layer ignore, a row each.

    Every unit has `n` starts of its best image, whose tuning curves give the indices, and `n` most
    different images of `keep` of it. One compiled program serves the layer; `at_a_time` units are
    in the memory together. With a folder, what is there is written after each such part
    (`units.csv`, and `units.parquet` where the package pyarrow is), and what a folder has already
    is not made again.

    Args:
        model: a network, or the name of one.
        layer: a layer of it; its units are taken at the middle of its map.
        units: their numbers; None: all.
        folder: where the table is kept; None: nowhere.
        n: as for `invariance`.
        keep: as for `invariance`.
        contrast: as for `invariance`.
        steps: of each of the two runs; 80 give indices and 250 fine pictures.
        seed: of all that is random; a unit's row does not depend on which others there are.
        size: (height, width); by default 96 pixels a side where the network takes that.
        at_a_time: units.
        natural: an index of natural images with the layer, or its folder, whose best crops are
            transformed too; None: none.
        crops: of each unit.
        tell: called with how many units are done, and of how many.

    Returns:
        A row a unit, in their order: `unit`, `alive`, `best`, `blank`, `activation` and `nearest`
        of the set as `diverse` has them; and for each transformation `x` of
        `featvis.evidence.variations.FAMILIES`, with underscores, its index as `x`, `x_chance`,
        `x_spread` over the starts and `x_width`; with an index `x_natural`, of its crops, and
        `x_natural_spread` over them. Of a dead unit nothing beyond `blank`.

    Raises:
        InputError: units that there are not, a receptive field without extent, a folder with a
            table that was made otherwise, or an index of another network or of smaller images than
            the receptive field.
        UnknownLayer: no such layer.
        KeyboardInterrupt: Ctrl-C; the folder has what was done.
    """
    check_several(n)
    check_number("keep", keep, above=0, at_most=1)
    at_a_time = checks.integer("invariance_table", "at_a_time", at_a_time, 1)
    seed = checks.integer("invariance_table", "seed", seed, 0, 2**32 - n)
    model = loading.as_model(model)
    size = default_size(model) if size is None else checks.image_size("a picture", "size", size)
    shape = Activations(model.layers(size))[layer]
    wanted = _checked(layer, shape, units)
    photographs = None if natural is None else as_index(natural)
    if photographs is not None:
        crops = checks.integer("invariance_table", "crops", crops, 1)
        photographs.check_model(model)
    field = _field_of(unrectified(model, layer), layer, shape, size)
    check_extent(Channel(layer, wanted[0]), field.window)
    settings: dict[str, Any] = {
        "model": model.name, "digest": model.digest, "layer": layer, "size": list(size), "n": n,
        "keep": keep, "contrast": contrast, "steps": steps, "seed": seed,
    }  # fmt: skip
    if photographs is not None:
        where = str(photographs.store.path.resolve())
        settings["natural"] = {"index": where, "images": len(photographs), "crops": crops}
    columns = _columns(model.input.channels, natural=photographs is not None)
    place = None if folder is None else checks.path("invariance_table", "folder", folder)
    rows = {} if place is None else _read(place, settings, columns)
    settings |= {"window": list(field.window), "cut": field.cut}
    left = [unit for unit in wanted if unit not in rows]
    done = len(wanted) - len(left)
    if tell is not None:
        tell(done, len(wanted))
    recipe = constrained(
        replace(setting_of(model, layer, size, steps), window=field.window),
        keep=keep,
        contrast=contrast,
    )
    for start in range(0, len(left), at_a_time):
        some = left[start : start + at_a_time]
        # The last part is filled up: another number of images is another program.
        filled = [*some, *[some[-1]] * (min(at_a_time, len(wanted)) - len(some))]
        aims = _of_units(model, layer, filled, field, recipe, n, keep, seed, size)
        try:
            for unit, (aim, alive, images) in zip(some, aims, strict=False):
                rows[unit] = row = _row(aim, unit, alive, images)
                if alive and photographs is not None:
                    windows = windows_of(photographs, model, aim.unit, size, field, crops)
                    row |= _of_crops(aim, curves_of_crops(aim, windows, contrast, crops))
        except KeyboardInterrupt:
            if place is None or not done + start:
                raise
            said = f"{done + start} of {len(wanted)} units are in {printable(place / TABLE)}"
            raise KeyboardInterrupt(f"{said}; the same command goes on") from None
        if place is not None:
            _write(place, settings, columns, rows)
        if tell is not None:
            tell(done + start + len(some), len(wanted))
    return [rows[unit] for unit in wanted]


def _of_units(
    model: Model,
    layer: str,
    units: Sequence[int],
    field: Field,
    recipe: Recipe,
    n: int,
    keep: float,
    seed: int,
    size: tuple[int, int],
) -> Iterator[tuple[Aim, bool, np.ndarray]]:
    """Some units in one batch: each, whether it is alive, and its different images."""
    seeing = unrectified(model, layer)
    count = len(units)
    joint = _Joint(seeing, layer, units, recipe, n, keep, seed)
    best = joint.run(np.zeros(count), np.ones(count), explore=True)
    grey = np.full((1, *size, model.input.channels), 0.5, np.float32)
    seen = np.asarray(seeing(grey)[layer])[0]
    middle = seen[seen.shape[0] // 2, seen.shape[1] // 2] if seen.ndim == 3 else seen
    blanks = middle[np.asarray(units)]
    aims = []
    for place, unit in enumerate(units):
        part = slice(place * n, (place + 1) * n)
        scores, images = best.clean_scores[part], best.images[part]
        order = np.argsort(-scores, kind="stable")
        aims.append(
            Aim(seeing, _unit(layer, seen.ndim, unit), layer, field, float(blanks[place]),
                images[order], scores[order])
        )  # fmt: skip
    alive = [is_alive(aim.blank, aim.activations) for aim in aims]
    gains = np.array([aim.gain if lives else 1.0 for aim, lives in zip(aims, alive, strict=True)])
    starts = np.concatenate([beside(aim, n, recipe.noise or 0.0, seed) for aim in aims])
    sets = joint.run(blanks, gains, explore=False, init=starts)
    for place, (aim, lives) in enumerate(zip(aims, alive, strict=True)):
        yield aim, lives, sets.images[place * n : (place + 1) * n]


class _Joint:
    """Several units and all their images as one objective, whose numbers are data."""

    def __init__(
        self, model: Model, layer: str, units: Sequence[int], recipe: Recipe, n: int, keep: float,
        seed: int,
    ) -> None:  # fmt: skip
        self.model, self.layer, self.recipe, self.n, self.keep = model, layer, recipe, n, keep
        self.indices = np.repeat(np.asarray(units), n)
        self.seeds = [seed + start for start in range(n)] * len(units)

    def run(
        self, blanks: np.ndarray, gains: np.ndarray, *, explore: bool, init: Any = None
    ) -> Result:
        """Drives the units alone, or keeps their activation and makes their images differ."""

        def each(values: Any) -> np.ndarray:
            wide = np.broadcast_to(np.asarray(values, np.float32), (len(blanks),))
            return np.repeat(wide, self.n)

        stage = self.recipe.stages[0]
        rank = 3 if len(self.model.layers(stage.parameterization.size)[self.layer]) == 3 else 1
        share = (_unit(self.layer, rank, self.indices) - each(blanks)) * each(1 / gains)
        written: Any = stage.parameterization
        scale = 1 / (written.norm / np.sqrt(np.prod(written.shape)))
        whole = (
            each(1.0 if explore else 0.0) * share
            + each(0.0 if explore else scale) * InGroups(MinDistance(), self.n)
            + each(0.0 if explore else hold_for(self.keep)) * AtLeast(share, each(self.keep))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SilenceWarning)  # dead units are said in the table
            result = run_recipe(
                self.model, whole, replace(self.recipe, prior=None), self.layer, init=init,
                seed=self.seeds, batch=len(self.indices), progress=False,
            )  # fmt: skip
        if "interrupt" in result.stopped:
            raise KeyboardInterrupt
        return result


def _unit(layer: str, rank: int, index: Any) -> Objective:
    return Neuron(layer, index) if rank == 3 else Channel(layer, index)


def _row(aim: Aim, unit: int, alive: bool, images: np.ndarray) -> Row:
    row: Row = {
        "unit": int(unit),
        "alive": bool(alive),
        "best": float(aim.activations[0]),
        "blank": aim.blank,
    }
    if not alive:
        return row
    apart = distances(images) + np.where(np.eye(len(images)), np.inf, 0)
    row |= {"activation": float(aim.share(images).mean()), "nearest": float(apart.min())}
    for one in index_over(curves_of(aim, aim.best, aim.activations)):
        name = one.name.replace(" ", "_")
        row |= {name: one.value, f"{name}_chance": one.chance}
        row |= {f"{name}_spread": one.spread, f"{name}_width": one.width}
    return row


def _of_crops(aim: Aim, curves: list[list[Tuning]]) -> Row:
    """What a row has of natural crops: None where none of them drives the unit."""
    row: Row = {}
    for place, name in enumerate(_named(aim.model.input.channels)):
        values = np.array([one[place].value for one in curves])
        row[f"{name}_natural"] = float(values.mean()) if len(values) else None
        row[f"{name}_natural_spread"] = float(values.std(ddof=1)) if len(values) > 1 else None
    return row


def _named(channels: int) -> list[str]:
    return [name.replace(" ", "_") for name in FAMILIES if name != "hue" or channels == 3]


def _columns(channels: int, *, natural: bool) -> list[str]:
    ends = ("", "_chance", "_spread", "_width", *(("_natural", "_natural_spread") * natural))
    of_families = [f"{name}{end}" for name in _named(channels) for end in ends]
    return ["unit", "alive", "best", "blank", "activation", "nearest", *of_families]


def _checked(layer: str, shape: Sequence[int], units: Sequence[int] | None) -> list[int]:
    if len(shape) not in (1, 3):
        raise InputError(
            f"the units of {layer} have no middle: its activations are {tuple(shape)}; a table is "
            "of a map (h, w, c) or a vector (c,)"
        )
    if units is None:
        return list(range(shape[-1]))
    wanted = np.asarray(units)
    if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise InputError(f"units of {layer} are a list of their numbers; got {units!r}")
    wrong = [unit for unit in wanted.tolist() if not 0 <= unit < shape[-1]]
    if wrong or not len(wanted):
        raise InputError(
            f"{layer} has units 0 to {shape[-1] - 1}; got {wrong[0] if wrong else 'none'}"
        )
    return list(dict.fromkeys(wanted.tolist()))


def _field_of(model: Model, layer: str, shape: Sequence[int], size: tuple[int, int]) -> Field:
    """Where any unit of a layer looks: the gradient of a random mixture of them."""
    mixture = np.random.default_rng(0).normal(size=shape[-1]).astype(np.float32)
    some = DirectionNeuron(layer, mixture) if len(shape) == 3 else Direction(layer, mixture)
    return receptive_field(model, some, size)


# ---- files


def _read(folder: Path, settings: dict[str, Any], columns: Sequence[str]) -> dict[int, Row]:
    """The rows that a folder has, of a table with these columns; none where there is no table."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not (folder / TABLE).exists():
        return {}
    before, rows = read_table(folder)
    missing = [name for name in columns for row in rows.values() if name not in row]
    asked = [name for name in {**before, **settings} if name not in FOUND]
    other = [name for name in asked if before.get(name) != settings.get(name)]
    if other or missing:
        name = other[0] if other else missing[0]
        raise InputError(
            f"{folder} has a table with {name} {before.get(name)!r}, and {settings.get(name)!r} is "
            "asked for: take another folder, or remove it"
        )
    return rows


def read_table(folder: str | Path) -> tuple[dict[str, Any], dict[int, Row]]:
    """The settings and the rows, by unit, of a table that `invariance_table` wrote.

    Args:
        folder: of the table.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        settings = json.loads((Path(folder) / SETTINGS).read_text())
        with open(Path(folder) / TABLE, newline="") as file:
            return dict(settings), {int(one["unit"]): _parsed(one) for one in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} has a table that cannot be read ({error}): take another folder, or remove it"
        ) from None


def _parsed(row: dict[str, str]) -> Row:
    plain: Row = {"unit": int(row["unit"]), "alive": row["alive"] == "True"}
    others = ((name, value) for name, value in row.items() if name not in plain)
    return plain | {name: float(value) if value else None for name, value in others}


def _write(
    folder: Path, settings: dict[str, Any], columns: Sequence[str], rows: dict[int, Row]
) -> None:
    ordered = [rows[unit] for unit in sorted(rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(row.get(name)) for name in columns} for row in ordered)
    write_file(folder / SETTINGS, (json.dumps(settings, indent=1) + "\n").encode(), force=True)
    write_file(folder / TABLE, text.getvalue().encode(), force=True)
    if importlib.util.find_spec("pyarrow") is not None:
        write_file(folder / PARQUET, _as_parquet(ordered, columns), force=True)
    else:  # an earlier one has not all rows
        (folder / PARQUET).unlink(missing_ok=True)


def _as_parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    kinds = {"unit": pyarrow.int64(), "alive": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in columns])
    values = {name: [row.get(name) for row in rows] for name in columns}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(values, schema=schema), buffer)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
