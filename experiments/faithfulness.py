"""Which attribution maps say what a network goes by?

Papers: Petsiuk et al. 2018 (RISE: deletion and insertion), Zhang et al. 2016 (the pointing game),
    Adebayo et al. 2018 (sanity checks), Qi et al. 2020 (I-GOS, which claims to be ahead of RISE and
    of integrated gradients).
Command: pip install -e ".[experiments]" && python experiments/faithfulness.py PHOTOGRAPHS -o OUT
    (PHOTOGRAPHS: a folder; --boxes a folder of photographs NAME.jpg with NAME.txt beside, a line of
    `class left top right bottom` each; --mobilenet a file of weights of mobilenet_v2_tf, the second
    network; --minutes after which nothing is begun; --quick for a first look). What was measured is
    kept in OUT/measured: the same command again goes on from there. Cheap methods are measured on
    all photographs, those of some 50 passes on 16 and those of many hundred on 8, and each row of
    the table says on how many.
Runtime: as many photographs, two at least, and sanity checks as are begun in --minutes (14). On two
    cores with two other programs beside, both networks: 11 min for the first photograph, which
    compiles 58 programs, 5 for each other with all methods, half a minute with the cheap ones, 35
    for the sanity checks. All of what is below: 1 h 36 min there.
What it showed: EfficientNet-Lite0 and MobileNetV2 at 160 pixels, 25 photographs whose class both
    give a probability of 0.5 at least (16 for the methods of some 50 passes, 7 for those of many
    hundred; 5, 4 and 2 of them have boxes). Deletion and insertion less those of a map of noise,
    the first network and the second (± 1.96 standard errors):
        I-GOS -0.29 ± 0.11, +0.19 ± 0.16 and -0.21 ± 0.08, +0.20 ± 0.14
        LIME -0.26 ± 0.05, +0.15 ± 0.14 and -0.19 ± 0.08, +0.22 ± 0.13
        MFPP -0.23 ± 0.11, +0.18 ± 0.16 and -0.21 ± 0.11, +0.28 ± 0.13
        RISE -0.26 ± 0.05, +0.14 ± 0.11 and -0.18 ± 0.07, +0.13 ± 0.15
        extremal -0.13 ± 0.12, +0.22 ± 0.16 and -0.14 ± 0.05, +0.28 ± 0.13
        LRP-gamma -0.17 ± 0.08, +0.15 ± 0.08 and -0.14 ± 0.07, +0.22 ± 0.08
        LRP-epsilon -0.21 ± 0.08, +0.07 ± 0.09 and -0.17 ± 0.06, +0.08 ± 0.10
        expected gradients -0.24 ± 0.09, -0.02 ± 0.12 and -0.17 ± 0.08, +0.02 ± 0.12
        Grad-CAM -0.07 ± 0.05, +0.17 ± 0.07 and -0.07 ± 0.06, +0.20 ± 0.06
        the middle (control) -0.10 ± 0.05, +0.14 ± 0.06 and -0.11 ± 0.05, +0.17 ± 0.06
        edges (control) 0.00 ± 0.06, +0.07 ± 0.06 and +0.03 ± 0.05, +0.15 ± 0.06
        integrated gradients -0.04 ± 0.10, -0.11 ± 0.08 and -0.05 ± 0.07, -0.04 ± 0.11
        gradient times input -0.06 ± 0.06, -0.10 ± 0.07 and -0.09 ± 0.04, -0.03 ± 0.08
    So what is in the middle of a photograph is worth as much as many methods say; the CAMs are not
    told from it. Integrated gradients from black are no better than noise, and from many references
    they delete as well as any: the baseline is what matters. Methods whose maps are single pixels
    delete well and insert badly.
    Sanity, of four photographs: LRP-gamma, LRP-z+, guided back-propagation, guided non-linearity
    (with integrated gradients too) and DeconvNet FAIL on both networks: their maps are alike where
    the weights behind the middle are shuffled. I-GOS and extremal FAIL on the first (0.38 and 0.30;
    the limit is surely above 0.2), LRP-0 on the second (0.27); the other 20 pass on both.
    I-GOS, 7 photographs: by its authors' own measure it is ahead of RISE in deletion (0.050 ± 0.049
    and 0.063 ± 0.059 lower), not surely in insertion (0.018 ± 0.055 and 0.056 ± 0.116 higher), and
    far ahead of integrated gradients (0.33 ± 0.05 lower and 0.22 ± 0.09 higher; 0.31 and 0.25): the
    published order. By RISE's measure, pixel by pixel, the same order, surely over integrated
    gradients alone.
    Looked at: on a tricycle LRP-epsilon and LRP-gamma follow its frame and wheels, LIME, MFPP and
    KernelSHAP take its front wheel, I-GOS saddle and hub; the CAMs cover the right half, and
    gradient times input, integrated gradients and DeconvNet are dots all over the picture.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import studies
from localisation import NAMES
from PIL import Image

import featvis as fv
from featvis.attribution import Probed, methods
from featvis.attribution.explain import prober
from featvis.attribution.faithfulness import (
    agreement,
    area,
    centre_map,
    deletion,
    edge_map,
    insertion,
    inside_boxes,
    mass_inside,
    max_sensitivity,
    pointing,
    random_map,
    rank_iou,
)
from featvis.attribution.localisation import Box
from featvis.attribution.masking import blurred, enlarge, places_in_order, scored
from featvis.attribution.overlay import overlay
from featvis.attribution.sanity import SanityCurve, sanity
from featvis.evidence.metrics import mean_interval
from featvis.files import part_of_name
from featvis.images import image_files
from featvis.models import Model
from featvis.pages import Report

#: Of the time, what the maps of photographs have; sanity checks have the rest.
_OF_MAPS = 0.7
#: Options of methods that cost too much at their defaults; what is left out is the papers'.
BUDGETS: dict[str, dict[str, Any]] = {
    "rise": {"masks": 1000},
    "mfpp": {"masks": 1000},
    "lime": {"samples": 500},
    "kernel_shap": {"samples": 500},
    "extremal": {"iterations": 100, "areas": "0.1+0.3"},
    "salient_mask": {"iterations": 150},
    "expected_gradients": {"samples": 100},
    "smooth_taylor": {"samples": 100},
}
#: On how many photographs a method is measured at most, by what it costs; all others on all.
DEAR = ("rise", "mfpp", "lime", "kernel_shap", "igos", "salient_mask", "extremal")
DEARER = (
    *("integrated_gradients", "guided_nonlinearity_ig", "smooth_grad", "var_grad"),
    *("smooth_taylor", "expected_gradients", "occlusion"),
)
#: For a first look, and for the maps of networks with random weights.
SMALL: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 16},
    "smooth_grad": {"samples": 8},
    "occlusion": {"stride": 32},
    "rise": {"masks": 150, "grid": 6},
    "mfpp": {"masks": 150, "scales": 3},
    "lime": {"samples": 100, "segments": 25},
    "kernel_shap": {"samples": 100, "segments": 25},
    "igos": {"iterations": 5, "steps": 8},
    "salient_mask": {"iterations": 40},
    "extremal": {"iterations": 30, "areas": "0.2"},
    "expected_gradients": {"samples": 16},
    "smooth_taylor": {"samples": 16},
    "var_grad": {"samples": 8},
}
QUICK = (
    "saliency",
    "gradient_times_input",
    "integrated_gradients",
    "grad_cam",
    "occlusion",
    "rise",
)
#: What their papers explain is a probability; what all others do, a class's score.
OF_PROBABILITIES = ("igos", "salient_mask", "extremal")
CONTROLS = ("random", "centre", "edges")
#: What the authors of I-GOS compare, also by their own measure, of so many cells along a side.
ORDER = ("igos", "rise", "integrated_gradients", "random", "centre")
CELLS = 28


@dataclass
class Seen:
    """A photograph, the class that is explained and its probability, and what stands in boxes."""

    name: str
    image: np.ndarray
    index: int
    probability: float
    inside: np.ndarray | None


@dataclass
class Row:
    """What was measured of one map: the map (h, w), curves, figures by boxes, seconds."""

    values: np.ndarray
    curves: dict[str, np.ndarray]
    boxes: dict[str, float]
    seconds: float

    def save(self, path: Path) -> None:
        """Writes it, so that a run that was broken off goes on from here."""
        curves = {f"curve-{way}": curve for way, curve in self.curves.items()}
        boxes = {f"box-{name}": np.float64(value) for name, value in self.boxes.items()}
        studies.write_whole(
            path, values=self.values, seconds=np.float64(self.seconds), **curves, **boxes
        )

    @classmethod
    def read(cls, path: Path) -> Row:
        """What `save` wrote."""
        with np.load(path) as kept:
            named = {name: kept[name] for name in kept.files}
        curves = {n.removeprefix("curve-"): v for n, v in named.items() if n.startswith("curve-")}
        boxes = {n.removeprefix("box-"): float(v) for n, v in named.items() if n.startswith("box-")}
        return cls(named["values"], curves, boxes, float(named["seconds"]))


@dataclass
class Found:
    """All that was measured of one network: by method, by the number of the photograph."""

    model: Model
    folder: Path
    seen: list[Seen] = field(default_factory=list)
    rows: dict[str, dict[int, Row]] = field(default_factory=dict)
    sensitivity: dict[str, float] = field(default_factory=dict)
    sane: dict[str, SanityCurve] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def maps(self, name: str, places: Sequence[int]) -> np.ndarray:
        """The maps of a method, (n, h, w)."""
        return np.stack([self.rows[name][place].values for place in places])

    def areas(self, name: str, way: str) -> dict[int, float]:
        """The areas under a method's curves, by photograph."""
        rows = self.rows.get(name, {})
        return {n: float(area(row.curves[way])) for n, row in rows.items() if way in row.curves}

    def beyond_noise(self, name: str, way: str) -> list[float]:
        """The areas less those of the map of noise, of the photographs that the method has."""
        noise = self.areas("random", way)
        return [one - noise[n] for n, one in self.areas(name, way).items()]

    def in_common(self, names: Sequence[str]) -> list[int]:
        """The photographs of which all these methods have a map."""
        return sorted(set.intersection(*(set(self.rows[name]) for name in names)))


# ---- photographs ---------------------------------------------------------------------------


def photographs(
    folder: Path, boxes: Path | None, size: int
) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Photographs cut to a square, of the two folders in turn: name, image, boxes by class."""
    paths = image_files(folder)
    # Evenly from a folder that is sorted by class.
    plain = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    boxed = [] if boxes is None else image_files(boxes)
    mixed = [path for two in zip(boxed, plain, strict=False) for path in two]
    for path in [*mixed, *plain[len(boxed) :]]:
        image = fv.read_image(path, (size, size))
        yield path.stem, image, read_boxes(path, size) if path in boxed else None


def read_boxes(path: Path, size: int) -> dict[str, list[Box]]:
    """Boxes by class, in pixels of the square that was cut."""
    with Image.open(path) as picture:
        width, height = picture.size
    scale = size / min(width, height)
    left, top = ((side * scale - size) / 2 for side in (width, height))
    found: dict[str, list[Box]] = {}
    for line in path.with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        kind, *sides = line.split()
        a, b, c, d = (int(side) * scale for side in sides)
        found.setdefault(kind, []).append(Box(a - left, b - top, c - left, d - top))
    return found


def seen_by(model: Model, name: str, image: np.ndarray, boxes: Any) -> Seen:
    """The photograph with the class that is explained.

    Where there are boxes, it is of all classes with a box the one with the highest score; else the
    highest of all.
    """
    scores = np.asarray(model(image)["logits"])[0]
    probability = np.asarray(jax.nn.softmax(scores))
    labels = [label.partition(",")[0] for label in model.labels or ()]
    known = {
        index: kind
        for kind in boxes or ()
        for label in NAMES.get(kind, ())
        for index in [i for i, one in enumerate(labels) if one == label]
    }
    if not known:
        index = int(scores.argmax())
        return Seen(name, image, index, float(probability[index]), None)
    index = max(known, key=lambda one: scores[one])
    try:
        inside = inside_boxes(boxes[known[index]], image.shape[:2])
    except fv.InputError:  # Cut off with the border.
        inside = None
    return Seen(name, image, index, float(probability[index]), inside)


# ---- measuring -----------------------------------------------------------------------------


def options_of(name: str, small: bool, references: np.ndarray) -> dict[str, Any]:
    """What a method is called with."""
    given = dict((SMALL if small else BUDGETS).get(name, {}))
    return given | ({"references": references} if name == "expected_gradients" else {})


def unit_of(name: str, index: int) -> fv.Objective:
    """What a method explains: a class's probability, or its score before the softmax."""
    probable = name in OF_PROBABILITIES or methods()[name].black_box
    return fv.Probability(index) if probable else fv.Logit(index)


def explained(
    model: Model, name: str, index: int, images: np.ndarray, options: dict[str, Any]
) -> np.ndarray:
    """The maps of a method."""
    return fv.explain(model, unit_of(name, index), images, name, **options).maps


def measure(
    found: Found, place: int, chosen: Sequence[str], small: bool, references: np.ndarray, steps: int
) -> None:
    """All maps of a photograph, and what they are worth; those that are there are read."""
    one = found.seen[place]
    size = one.image.shape[:2]
    controls: dict[str, Callable[[], np.ndarray]] = {
        "random": lambda: random_map(size, place),
        "centre": lambda: centre_map(size),
        "edges": lambda: edge_map(one.image),
    }
    score, batch = prober(found.model, fv.Probability(one.index), one.image[None], 0)
    given = Probed(one.image, score, batch, jax.random.key(0))
    for name in [*controls, *(name for name in chosen if name not in found.refused)]:
        path = found.folder / part_of_name(one.name) / f"{name}.npz"
        if path.exists():
            found.rows.setdefault(name, {})[place] = Row.read(path)
            continue
        started = time.perf_counter()
        try:
            if name in controls:
                values = controls[name]()
            else:
                options = options_of(name, small, references)
                values = explained(found.model, name, one.index, one.image[None], options)[0]
        except fv.FeatvisError as error:
            found.refused[name] = str(error)
            continue
        row = Row(values, {}, {}, time.perf_counter() - started)
        row.curves["deletion"] = deletion(given, values, steps=steps)
        row.curves["insertion"] = insertion(given, values, steps=steps)
        if name in ORDER:
            row.curves |= coarse_curves(given, values, steps)
        if one.inside is not None:
            row.boxes["pointing"] = pointing(values, one.inside, round(15 * size[0] / 224))
            row.boxes["iou"] = rank_iou(values, one.inside)
            row.boxes["mass"] = mass_inside(values, one.inside)
        row.save(path)
        found.rows.setdefault(name, {})[place] = row


def coarse_curves(given: Probed, values: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Deletion and insertion as the authors of I-GOS measure them.

    Of 28 x 28 cells, which hold the mean of a map, the highest are blurred first, or shown first
    where all is blurred; the mask of cells is enlarged bilinearly, and the blur is their 50 pixels
    in a window of 51, in proportion to 224.
    """
    height, width = values.shape
    rows, columns = (np.arange(side) * CELLS // side for side in (height, width))
    cells = np.zeros((CELLS, CELLS))
    np.add.at(cells, (rows[:, None], columns), values)
    count = np.zeros_like(cells)
    np.add.at(count, (rows[:, None], columns), 1)
    places = jnp.asarray(places_in_order(cells / count))
    scale = max(height, width) / 224
    blur = blurred(jnp.asarray(given.image)[None], 2 * round(25 * scale) + 1, 50 * scale)[0]
    counts = np.ceil(np.arange(steps + 1) * CELLS**2 / steps).astype(np.int64)

    def curve(vanishes: bool) -> np.ndarray:
        def masks(counts: jax.Array) -> jax.Array:
            reached = places < counts[:, None, None]
            shown = (~reached if vanishes else reached).astype(jnp.float32)
            return enlarge(shown, (height, width))

        return np.concatenate([scores for scores, _ in scored(given, blur, counts, masks)])

    return {"coarse deletion": curve(True), "coarse insertion": curve(False)}


def check(
    found: Found,
    chosen: Sequence[str],
    references: np.ndarray,
    count: int,
    steps: int,
    left: Callable[[], bool],
) -> None:
    """Sanity checks of a few photographs together, and sensitivity of the first, while time is."""
    few = found.seen[:count]
    images = np.stack([one.image for one in few])
    size = images.shape[1:3]

    def maps_of(name: str, model: Model) -> np.ndarray:
        if name in CONTROLS:
            return np.stack([centre_map(size) if name == "centre" else edge_map(i) for i in images])
        options = options_of(name, True, references)
        return np.concatenate(
            [explained(model, name, one.index, one.image[None], options) for one in few]
        )

    for name in ["centre", "edges", *(name for name in chosen if name in found.rows)]:
        path = found.folder / f"sanity-{name}.npz"
        if not path.exists():
            if not left():
                continue
            curve = sanity(
                lambda model, name=name: maps_of(name, model),
                found.model, fv.Logit(few[0].index), size, steps=steps,
            )  # fmt: skip
            changed = 0.0 if name in CONTROLS else sensitivity_of(found, name, references)
            studies.write_whole(path, sensitivity=np.float64(changed), **vars(curve))
        with np.load(path) as kept:
            named = {name: kept[name] for name in kept.files}
        found.sensitivity[name] = float(named.pop("sensitivity"))
        layers = tuple(str(one) for one in named.pop("layers"))
        found.sane[name] = SanityCurve(layers, **named)


def sensitivity_of(found: Found, name: str, references: np.ndarray) -> float:
    """How much a map changes under noise that nobody sees, of the first photograph."""
    one, options = found.seen[0], options_of(name, True, references)
    return float(
        max_sensitivity(
            lambda images: explained(found.model, name, one.index, images, options),
            one.image[None],
            samples=3,
        )[0]
    )


# ---- the report ----------------------------------------------------------------------------


def band(values: Sequence[float] | np.ndarray, digits: int = 3) -> str:
    """Mean ± 1.96 standard errors."""
    if len(values) < 2:
        return f"{np.mean(values):.{digits}f}" if len(values) else ""
    mean, half = mean_interval(np.asarray(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def verdict(curve: SanityCurve | None) -> str:
    """What the sanity check says, in a word."""
    if curve is None:
        return ""
    return "passes" if curve.passes else "FAILS"


def report_network(report: Report, found: Found) -> None:
    """The tables and curves of one network."""
    areas = {
        name: {
            way: np.array([*found.areas(name, way).values()]) for way in ("deletion", "insertion")
        }
        for name in found.rows
    }
    # By what a person would want of a map: the score gone early, and there early; beside noise, as
    # methods have other photographs.
    order = sorted(
        found.rows,
        key=lambda name: float(
            np.mean(found.beyond_noise(name, "deletion"))
            - np.mean(found.beyond_noise(name, "insertion"))
        ),
    )
    rows = []
    for name in order:
        measured = found.rows[name].values()
        curve = found.sane.get(name)
        boxes = [
            band([row.boxes[kind] for row in measured if kind in row.boxes], 2)
            for kind in ("pointing", "iou", "mass")
        ]
        real = name not in CONTROLS
        rows.append(
            [
                name + ("" if real else " (control)"),
                str(len(measured)),
                band(areas[name]["deletion"]),
                band(areas[name]["insertion"]),
                *(band(found.beyond_noise(name, way)) for way in ("deletion", "insertion")),
                *boxes,
                "" if curve is None else f"{curve.absolute[-1].mean():.2f}",
                "" if curve is None else f"{curve.others.mean():.2f}",
                verdict(curve),
                f"{found.sensitivity[name]:.2f}" if real and name in found.sensitivity else "",
                f"{np.median([row.seconds for row in measured]):.2f}" if real else "",
            ]
        )
        line = "{:26} {:>3} {:15} {:15} {:15} {:15} {:13} {:13} {:13} {:>5} {:>5} {:7} {:>6} {:>7}"
        print(line.format(*rows[-1]))
    report.heading(found.model.name)
    boxed = sum(one.inside is not None for one in found.seen)
    report.table(
        ["map", "photographs", "deletion", "insertion", "deletion, less noise",
         "insertion, less noise", "pointing", "IoU", "mass",
         "random weights", "another image", "sanity", "sensitivity", "seconds"],
        rows,
        caption=f"Up to {len(found.seen)} photographs, {boxed} of them with boxes of the class "
        "that is explained; mean ± 1.96 standard errors over photographs. Areas of the "
        "probability: deletion (low is good) towards mid-grey, insertion (high is good) from a "
        "blur; and photograph by photograph less those of a map of noise. Pointing game, IoU of as "
        "many pixels as the boxes have, share of positive values in "
        "boxes. Rank correlation of the map's size with that of the network with shuffled weights, "
        "and with that of another photograph; a map fails where the first is surely above 0.2, or "
        "above 0.5 half way. Largest change under noise of 0.02, in proportion. Seconds a "
        "photograph: the median.",
    )  # fmt: skip
    failing = [name for name in order if name in found.sane and not found.sane[name].passes]
    real = [name for name in failing if name not in CONTROLS]
    if found.sane:
        said = f"Fail the sanity check: {', '.join(real) or 'no method'}; of the controls: "
        said += f"{', '.join(n for n in failing if n in CONTROLS) or 'none'}."
        if unknown := [name for name in order if name not in {*found.sane, "random"}]:
            said += f" Not checked: {', '.join(unknown)}."
    else:
        said = "The sanity check was not run."
    print(said)
    report.text(said)
    if found.refused:
        report.text(
            "Refused: " + "; ".join(f"{name}: {why}" for name, why in found.refused.items()) + "."
        )
    report_order(report, found)
    draw_curves(report, found, order)
    common = found.in_common(order)
    if common:
        table = agreement([found.maps(name, common) for name in order])
        report.table(
            ["rank correlation", *order],
            [[name, *(f"{r:.2f}" for r in row)] for name, row in zip(order, table, strict=True)],
            caption=f"Agreement of maps, the mean over {len(common)} photographs.",
        )


def report_order(report: Report, found: Found) -> None:
    """I-GOS beside others, photograph by photograph, by RISE's measure and by its authors' own."""
    ways = ("deletion", "insertion", "coarse deletion", "coarse insertion")
    rows = []
    for other in ORDER[1:]:
        if "igos" in found.rows and other in found.rows:
            cells = []
            for way in ways:
                ours, theirs = found.areas("igos", way), found.areas(other, way)
                both = sorted({*ours} & {*theirs})
                cells.append(band([ours[n] - theirs[n] for n in both]))
            rows.append([f"igos - {other}", str(len(both)), *cells])
    if rows:
        report.table(
            ["photograph by photograph", "photographs", *ways], rows,
            caption="I-GOS is ahead where deletion is below 0 and insertion above. Coarse: as its "
            "authors measure, 28 x 28 cells blurred and shown.",
        )  # fmt: skip
    for row in rows:
        print("{:30} {:>3} {:17} {:17} {:17} {}".format(*row))
    for name in ORDER:
        if name in found.rows:
            told = [band([*found.areas(name, way).values()]) for way in ways]
            print("{:30} {:17} {:17} {:17} {}".format(name, *told))


def draw_curves(report: Report, found: Found, order: list[str]) -> None:
    """Deletion, insertion and the sanity checks as plots."""
    plt = studies.pyplot()
    shown = [*[name for name in order if name not in CONTROLS][:6], *CONTROLS]
    for way in ("deletion", "insertion"):
        figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
        for name in shown:
            mean = np.mean([row.curves[way] for row in found.rows[name].values()], axis=0)
            style = "--" if name in CONTROLS else "-"
            axis.plot(np.linspace(0, 1, len(mean)), mean, style, label=name)
        axis.set_xlabel("share of the pixels")
        axis.set_ylabel(f"probability, {way}")
        axis.legend(fontsize="small")
        report.figure(f"{found.model.name}-{way}", figure, f"The six best methods: {way}.")
        plt.close(figure)
    if not found.sane:
        return
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, curve in found.sane.items():
        style = "-" if curve.passes else "--"
        axis.plot(range(len(curve.layers)), curve.absolute.mean(axis=1), style, label=name)
    axis.set_xticks(range(len(curve.layers)), curve.layers, rotation=30, ha="right", fontsize=7)
    axis.set_xlabel("weights are random from the end to")
    axis.set_ylabel("rank correlation with the trained network's map")
    figure.legend(fontsize="x-small", loc="outside right upper")
    report.figure(f"{found.model.name}-sanity", figure, "Cascading; broken lines fail.")
    plt.close(figure)


def report_pictures(report: Report, found: Found, count: int) -> None:
    """Maps over their photographs."""
    labels = found.model.labels or ()
    for place, one in enumerate(found.seen[:count]):
        names = [name for name, rows in found.rows.items() if place in rows]
        shown = [one.image, *(overlay(one.image, found.rows[name][place].values) for name in names)]
        report.pictures(
            f"{found.model.name}-{place}",
            shown,
            ["photograph", *names],
            columns=6,
            caption=f"{one.name}: {labels[one.index] if labels else one.index}",
        )


def main() -> None:
    """Explains, measures and writes the report."""
    line = studies.CommandLine(
        __doc__, "faithfulness", folder="photographs", required=True,
        needs=("matplotlib", "scikit-image", "scikit-learn"),
        quick="two photographs of 96 pixels, one network, six methods",
    )  # fmt: skip
    line.add_argument("--boxes", type=Path, help="a folder of photographs with boxes")
    line.add_argument("--mobilenet", type=Path, help="a file of weights of mobilenet_v2_tf")
    line.add_argument("--count", type=int, default=100, help="photographs")
    line.add_argument("--dearer", type=int, default=16, help="of them for methods of 50 passes")
    line.add_argument("--dear", type=int, default=8, help="of them for methods of many hundred")
    line.add_argument(
        "--probability", type=float, default=0.5,
        help="of the class that is explained, at least, for every network; others are passed over",
    )  # fmt: skip
    line.add_argument("--size", type=int, default=160, help="of the photographs, in pixels")
    line.add_argument("--steps", type=int, default=12, help="of deletion and insertion")
    line.add_argument("--minutes", type=float, default=14.0, help="to begin nothing after")
    line.add_argument("--small", action="store_true", help="fewer masks, steps and samples")
    line.add_argument("--checked", type=int, default=4, help="photographs of the sanity checks")
    line.add_argument("--methods", default="", help="some of them, joined by commas; all else")
    options, started = line.read(), time.perf_counter()
    quick = options.quick
    size, count, steps = (96, 2, 8) if quick else (options.size, options.count, options.steps)
    chosen = [one for one in options.methods.split(",") if one]
    # Attention is of networks of tokens.
    chosen = chosen or [
        name
        for name in methods()
        if (not quick or name in QUICK) and not name.startswith(("attention", "transformer"))
    ]
    most = dict.fromkeys(DEARER, options.dearer) | dict.fromkeys(DEAR, options.dear)
    pictures = photographs(options.folder, options.boxes, size)
    models = [fv.load("efficientnet_lite0")]
    if options.mobilenet is not None and not quick:
        models.append(fv.load("mobilenet_v2_tf", weights=str(options.mobilenet)))
    about = f"{size}-{steps}{'-small' if quick or options.small else ''}"
    found = [Found(model, options.out / "measured" / about / model.name) for model in models]

    def left(share: float = 1.0) -> bool:
        return time.perf_counter() - started < 60 * share * options.minutes

    references = np.stack([image for _, image, _ in itertools.islice(pictures, 16)])
    passed = number = 0
    # What is left of the time ends with a photograph; two are measured whatever it takes.
    while number < count and (left(_OF_MAPS) or number < 2):
        picture = next(pictures, None)
        if picture is None:
            break
        seen = [seen_by(one.model, *picture) for one in found]
        if min(one.probability for one in seen) < options.probability:
            passed += 1
            continue
        now = [method for method in chosen if number < most.get(method, count)]
        for one, photograph in zip(found, seen, strict=True):
            one.seen.append(photograph)
            measure(one, number, now, quick or options.small, references, steps)
        number += 1
    if not number:
        raise fv.InputError(
            f"no photograph has a class of the probability {options.probability:g}: see "
            "--probability"
        )
    report = Report(options.out, (__doc__ or "").partition("\n")[0])
    report.text(
        f"{number} photographs of {size}² in the time there was; {passed} were passed over, where "
        f"a network gave the class a probability below {options.probability:g}: what is deleted "
        "or inserted says little of them. Methods that ask for "
        "scores alone, and masks that are optimised, explain the class's probability; all others "
        "its score before the softmax."
    )
    for one in found:
        if not quick and options.checked:
            check(one, chosen, references, options.checked, 4, left)
        report_network(report, one)
        report_pictures(report, one, 3)
    page = report.write(arguments=options, seconds=time.perf_counter() - started)
    studies.finish(started, page, number)


if __name__ == "__main__":
    studies.run(main)
