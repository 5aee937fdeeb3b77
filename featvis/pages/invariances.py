"""Pages of what units ignore: of one unit, and of all units of a layer."""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featvis.errors import printable
from featvis.evidence.curvature import LINEAR_ANGLE
from featvis.evidence.variations import FAMILIES
from featvis.methods.invariance import Invariance, invariance
from featvis.methods.invariance_table import TABLE, Row, invariance_table, read_table
from featvis.models import Model
from featvis.natural import Index
from featvis.natural.store import is_index
from featvis.own_pictures import natural_files
from featvis.pages.report import Report
from featvis.told import Told
from objectives import Channel, Layer, Logit, parse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INDICES = (
    "The index of a transformation is the mean of the responses over its amounts, relative to the "
    "best image (1) and to plain grey (0), cut off at 0 and 1. Chance is the index of a linear "
    "unit whose weights are the same image. The width is the range of amounts, about the best "
    "image, over which the response is a half at least."
)


def invariance_page(made: Invariance, folder: str | Path, **facts: object) -> Path:
    """Write an invariance report: an HTML page, its pictures as PNG and the manifest.

    Plots need matplotlib; without it the page has the tables and the pictures.

    Args:
        made: what `featvis.invariance` gives.
        folder: where it goes.
        **facts: what else makes it again, as the seed.

    Returns:
        The path of the page.

    Raises:
        OutputError: it cannot be written.
    """
    aim = made.aim
    report = Report(folder, f"What {aim.unit} of {aim.model.name} ignores", " ".join(made.notes))
    top, left, height, width = aim.field.window
    zoom = max(1, round(96 / max(made.size)))
    report.heading("Different images that drive the unit")
    kept = ", ".join(f"{share:.2f}" for share in made.diverse.evidence["activation"])
    nearest = made.diverse.evidence["nearest"].min()
    # Without labels: `featvis replay` compares the whole picture.
    report.result(
        "diverse",
        made.diverse,
        caption=f"The most different images of at least {made.keep:.0%} of the best activation; "
        f"their shares of it are {kept}. The nearest two are {nearest:.2f} norms apart (1.41 are "
        "orthogonal images).",
    )
    shares = (aim.activations - aim.blank) / aim.gain
    report.pictures(
        "best",
        list(aim.best),
        [f"{share:.2f}" for share in shares],
        columns=len(shares),
        zoom=zoom,
        caption="The best image from each start, and its share of the best activation, "
        f"{aim.activations[0]:.4g}; plain grey has {aim.blank:.4g}.",
    )
    report.heading("Known transformations of the best image")
    natural = any(not math.isnan(one.natural) for one in made.indices)
    rows = [
        [one.name, *_indices(one.value, one.spread, one.chance),
         "more" if one.beyond_chance else "no more", f"{one.width:.3g} {one.unit}".strip(),
         *(_indices(one.natural, one.natural_spread) if natural else [])]
        for one in made.indices
    ]  # fmt: skip
    header = ["transformation", "index", "± over starts", "chance", "than chance", "width"]
    report.table(header + (["natural crops", "± over crops"] if natural else []), rows, _INDICES)
    if plots():
        report.figure(
            "curves",
            _curves(made),
            "Responses relative to the best image; the band is one deviation over starts, dotted a "
            "linear unit of the same image" + (", dashed natural crops." if natural else "."),
        )
    report.heading("A texture of which every crop is to drive the unit")
    report.pictures(
        "texture",
        [made.texture.image],
        zoom=zoom,
        caption=f"Crops of it have {made.texture.mean:.2f} of the best activation on average and "
        f"{made.texture.lowest:.2f} at the least, of {made.texture.crops} places.",
    )
    report.heading("The flattest directions at the best image")
    report.table(
        ["direction", "curvature", "degrees to 90 %", "by the curvature alone"],
        [
            [str(i + 1), walk.curvature, walk.angle, walk.smooth_angle]
            for i, walk in enumerate(made.walks)
        ],
        "Second derivative of the share of the activation by the angle, blurred over a tenth of "
        "the norm, and how far one can turn from the best image at its norm: a linear unit has −1 "
        f"and {LINEAR_ANGLE:.1f} degrees. Where one gets far less far than by the curvature alone, "
        "rectifiers turn on or off beside the best image, and the degrees are what holds.",
    )
    for number, walk in enumerate(made.walks):
        angles = np.linspace(-walk.angle, walk.angle, len(walk.images))
        report.pictures(
            f"walk-{number + 1}",
            list(walk.images),
            [f"{angle:.0f}° {share:.2f}" for angle, share in zip(angles, walk.shares, strict=True)],
            columns=len(angles),
            zoom=zoom,
        )
    report.heading("How many dimensions")
    most = len(made.diverse) - 1
    report.text(
        f"The diverse set has {made.dimension:.2f} ± {made.dimension_error:.2f} dimensions, of at "
        f"most {most} for {most + 1} images; {made.flat} of {len(made.walks)} flat directions are "
        "at least twice as long as a linear unit's. Both are lower bounds."
    )
    return report.write(
        unit=str(aim.unit), model=aim.model.name, digest=aim.model.digest, size=made.size,
        receptive_field={"top": top, "left": left, "height": height, "width": width},
        cut_by_the_border=aim.field.cut, keep=made.keep, best=aim.activations[0], blank=aim.blank,
        **facts,
    )  # fmt: skip


def table_page(
    rows: Sequence[Row], layer: str, model: str, folder: str | Path, **facts: object
) -> Path:
    """Writes the summary of a layer as a page, with its table as CSV beside it.

    Args:
        rows: what `featvis.invariance_table` gives.
        layer: their layer.
        model: the network's name.
        folder: where it goes.
        **facts: what else makes it again.

    Returns:
        The path of the page.
    """
    alive = [row for row in rows if row["alive"]]
    dead = len(rows) - len(alive)
    said = f"{len(rows)} units, of which {dead} are dead." if dead else f"{len(rows)} units."
    report = Report(
        folder, f"What the units of {layer} of {model} ignore", said + _of_field(folder)
    )
    summary = []
    with_crops = any(name.endswith("_natural") for row in alive for name in row)
    for name in FAMILIES:
        key = name.replace(" ", "_")
        ends = ("", "_chance", *(["_natural"] * with_crops))
        own, chance, *crops = (_values(alive, key + end) for end in ends)
        if len(own):
            mean, half = float(own.mean()), 1.96 * float(own.std() / math.sqrt(len(own)))
            beyond = float((own - chance).mean())
            more = [float(values.mean()) if len(values) else "none" for values in crops]
            summary.append([name, *_indices(mean, half, float(chance.mean()), beyond), *more])
    header = ["transformation", "index", "± 1.96 standard errors", "chance", "beyond chance"]
    header += ["natural crops"] * with_crops
    report.table(header, summary, _INDICES)
    if plots() and alive:
        report.figure("indices", _histograms(alive), "The units' indices, and chance, dotted.")
    known = alive[0] if alive else {}
    shown = ["unit", "best", "nearest", *(n for n in FAMILIES if n.replace(" ", "_") in known)]
    report.table(
        shown,
        [[_shown(row.get(name.replace(" ", "_"))) for name in shown] for row in rows],
        "units.csv has all columns.",
    )
    return report.write(layer=layer, model=model, **facts)


def report_invariance(
    model: Model,
    unit: str,
    folder: str | Path,
    *,
    n: int | None = None,
    keep: float = 0.85,
    steps: int | None = None,
    natural: str | Path | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    progress: bool = True,
) -> Told:
    """Report what a unit ignores; or tabulate all units of a layer, which can be resumed.

    Args:
        model: the network.
        unit: the text of a unit; or of a layer or several of its units, for a table.
        folder: where the report goes.
        n: images that differ, and starts; by default 4, of a table 3.
        keep: the share of the best activation that the images keep.
        steps: of each run; by default 250, of a table 80.
        natural: photographs, for the best crops of a unit: an index (see `featvis index`), or of
            one unit a folder.
        seed: of everything random.
        size: (height, width); by default 96 pixels a side where the network takes that.
        progress: show a progress bar, or of a table how many units are done.

    Raises:
        InputError: as `invariance` and `invariance_table`.
        OutputError: the report cannot be written.
        KeyboardInterrupt: as `invariance_table`.
    """
    asked, began = parse(unit, model.layers, model.class_index), time.perf_counter()
    options: dict[str, Any] = {"keep": keep, "seed": seed, "size": size}
    options |= {name: v for name, v in (("n", n), ("steps", steps)) if v is not None}
    if isinstance(asked, Layer) or (isinstance(asked, Channel | Logit) and np.ndim(asked.index)):

        def tell(done: int, count: int) -> None:
            if progress:
                print(f"{done} of {count} units", file=sys.stderr)

        units = None if isinstance(asked, Layer) else np.asarray(asked.index).tolist()
        rows = invariance_table(
            model, asked.layer, units, folder=folder, natural=natural, tell=tell, **options
        )
        seconds = round(time.perf_counter() - began, 1)
        page = table_page(rows, asked.layer, model.name, folder, seconds=seconds, **options)
        dead = sum(not row["alive"] for row in rows)
        line = f"{len(rows)} units, {dead} dead, {seconds:.1f} s  {printable(page)}"
        return Told(rows, [line])
    images: Any = None
    if natural is not None:
        images = Index(natural) if is_index(natural) else natural_files(natural)
    found = invariance(model, asked, natural=images, progress=progress, **options)
    seconds = round(time.perf_counter() - began, 1)
    page = invariance_page(found, folder, seed=seed, seconds=seconds)
    return found.told(unit, page, seconds)


def _of_field(folder: str | Path) -> str:
    """What the table in a folder says of a receptive field that is cut off; nothing of others."""
    settings = read_table(folder)[0] if (Path(folder) / TABLE).exists() else {}
    if not settings.get("cut"):
        return ""
    height, width = settings["size"]
    return (
        f" Their receptive field reaches the border of the {height} x {width} pixels: they may "
        "look further than the image goes, and shifts move their stimulus out."
    )


def _values(rows: Sequence[Row], column: str) -> np.ndarray:
    return np.array([row[column] for row in rows if row.get(column) is not None], float)


def plots() -> bool:
    """Whether plots can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def _indices(*values: float) -> list[float]:
    """Indices as a table shows them: one of 1e-9 is 0."""
    return [round(value, 6) for value in values]


def _shown(value: Any) -> Any:
    return "dead" if value is None else value


def _figure(count: int) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-count // columns)
    figure = Figure(figsize=(3 * columns, 2.3 * rows), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns)))
    for one in axes[count:]:
        one.set_axis_off()
    return figure, axes


def _curves(made: Invariance) -> Figure:
    figure, axes = _figure(len(made.curves[0]))
    for place, (axis, first) in enumerate(zip(axes, made.curves[0], strict=False)):
        values = np.stack([one[place].responses for one in made.curves])
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axis.fill_between(first.amounts, mean - spread, mean + spread, alpha=0.25)
        axis.plot(first.amounts, mean)
        linear = np.mean([one[place].linear for one in made.curves], axis=0)
        axis.plot(first.amounts, linear, ":", color="gray")
        if made.natural:
            crops = np.stack([one[place].responses for one in made.natural])
            mean, spread = crops.mean(axis=0), crops.std(axis=0)
            axis.fill_between(first.amounts, mean - spread, mean + spread, color="C1", alpha=0.15)
            axis.plot(first.amounts, mean, "--", color="C1")
        axis.axhline(0, color="lightgray", linewidth=0.8)
        axis.set_title(f"{first.name} {made.indices[place].value:.2f}", fontsize=10)
        axis.set_xlabel(first.unit)
    return figure


def _histograms(rows: Sequence[Row]) -> Figure:
    named = [name for name in FAMILIES if name.replace(" ", "_") in rows[0]]
    figure, axes = _figure(len(named))
    edges = np.linspace(0, 1, 21)
    for axis, name in zip(axes, named, strict=False):
        key = name.replace(" ", "_")
        axis.hist([row[key] for row in rows], edges)
        chance = [row[f"{key}_chance"] for row in rows]
        axis.hist(chance, edges, histtype="step", linestyle=":", color="gray")
        axis.set_title(name, fontsize=10)
    return figure
