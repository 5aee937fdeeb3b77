"""Which class pictures do other networks recognise, and what makes them so?

Paper: none has the measure. Olah et al. 2017, "Feature Visualization" (Distill), whose defaults are
    the peers'; Fel et al. 2023 (MaCo); Görgün et al. 2025, "VITAL", who judge pictures by
    classifiers too. A judge is a network that had no part in the synthesis.
Command: python experiments/recognition.py PHOTOGRAPHS --judge mobilenet_v2 --judge resnet50 -o OUT
    (--judge NAME=WEIGHTS and --network NAME=WEIGHTS for files; --join NAME[=WEIGHTS] for networks
    that are explained together with the network as `joined`; --quick for 4 classes at 96 x 96
    by three methods; --full for 64 classes and 3 seeds; --batch 64 on an accelerator; --minutes 8
    to begin nothing after 8, where it is 13 without --full; the same command goes on, as pictures
    are kept in OUT/parts: delete that folder when featvis has changed. PHOTOGRAPHS: what contrast,
    saturation, spectrum and histogram are natural; where names begin with a class's number, NNN_,
    the judges see them too. The peer lucent is among the methods where `pip install
    featvis[benchmark]` was done)
Runtime: on two CPU cores 4.4 s a picture and method when nothing else runs; --full some hours
    there, and 40 s a method on an H200.
What it showed: 64 classes, one seed: MobileNetV2 puts 0.88 of the default's pictures first and 0.97
    among its five first, where a momentum of 0.9 has 0.75 and 0.89; Tiny Darknet 0.66 and 0.88
    (0.56 and 0.80), EfficientNet-Lite1 and -2 0.94 first (0.89, 0.91); of those of `recognisable`
    0.86 and 0.94, 0.78 and 0.91. All that follows was measured with 0.9, "the default" too:
    64 classes, three seeds: MobileNetV2 puts 0.77 of them first and
    0.92 among its five first, 0.34 and 0.55 of those under `affine`, 0.18 and 0.43 of those under
    lucid's transforms. One seed: 0.83 ± 0.05 and 0.92 ± 0.03 of those of `recognisable`, Tiny
    Darknet 0.77 and 0.89 where the default has 0.58 and 0.77, EfficientNet-Lite1 and -2 0.94 and
    0.95 first (photographs: 0.79, 0.64, 0.85, 0.85). The default with a hidden part: 0.81 and 0.69.
    16 classes, one seed: lucent has 0.00 ± 0.00 and 0.06 ± 0.06 by MobileNetV2, the default 0.62
    and 0.81. `experiments/guide/class-models.md` has the tables, and what each means is worth.
    Pictures of nothing, of a natural spectrum, are never recognised.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import studies

import featvis as fv
from featvis.evidence.recognition import check_judge, judged, places_of, standing
from featvis.images import image_files
from featvis.pages import Report
from featvis.pictures import to_levels
from featvis.results.run import OF_VECTORS
from featvis.transforms import (
    ColorShift,
    Compose,
    Cutout,
    LinearSchedule,
    Noise,
    RandomResizedCrop,
    presets,
)

#: Photographs that say what is natural, at most.
_PHOTOGRAPHS = 400
#: Layers at which some methods are to be like photographs, the last of each resolution; and how
#: many photographs, those of a class's largest scores, where they are to be like some of their own.
_LIKE = ("stem", "block2", "block4", "block10", "block15")
_BEST = 8
#: What the others are compared with, class by class.
_DEFAULT = "views (the default)"
#: For a first look.
QUICK = ("affine", _DEFAULT, "recognisable")


def methods(size: tuple[int, int], steps: int) -> dict[str, dict[str, Any]]:
    """Options of `class_model` by the name of a method, each a step from the one before."""
    views, wide = presets.views(size), 8.0 * min(1.0, min(size) / 160)
    small = (-(-2 * size[0] // 3), -(-2 * size[1] // 3))
    fewer = LinearSchedule(0.25, 0.9)
    affine = fv.transforms.RandomAffine
    fast, usual = {"optimizer": "nadam(0.035)"}, {"optimizer": "nadam(0.02)"}
    slow = {"optimizer": OF_VECTORS[1]}
    return {
        "lucid's transforms": {"transform": "standard", **fast},
        "affine": {"transform": "affine", **fast},
        "log-probability": {"of": "log_probability", "transform": "affine", **fast},
        "scale 0.5 to 1.5": {"transform": affine((0.5, 1.5), (-20.0, 20.0), wide), **fast},
        "parts to a half": {
            "transform": affine((1.0, 2.0), (-20.0, 20.0), wide, spread=1.0),
            **fast,
        },
        "views at 0.035": {"transform": views, **fast},
        "usual momentum": {"transform": views, **usual},
        "views and noise": {"transform": Compose((views, Noise(0.08))), **fast},
        _DEFAULT: {"transform": views, **slow},
        "rate from 0.04 to 0": {
            "transform": views,
            "optimizer": f"nadam(cosine_decay_schedule(0.04, {steps}))",
        },
        "colour": {"transform": Compose((views, ColorShift(0.3))), **slow},
        "cut-out": {"transform": Compose((views, Cutout(0.4))), **slow},
        "wide, then gentle": {"transform": RandomResizedCrop(fewer, 1.0, sd=None), **slow},
        "sorted activations": {
            "like": "sorted_activations",
            "weight": 10.0,
            "transform": views,
            **slow,
        },
        "statistics": {"like": "statistics", "weight": 10.0, "transform": views, **slow},
        "tone": {"like": "tone", "weight": 1000.0, "transform": views, **slow},
        "coarse to fine": {"preset": "octaves", "steps": steps},
        "figure before clouds": {"parameterization": fv.Figure(size), "transform": views, **slow},
        "two views": {"transform": presets.views(size, largest=4.0), "draws": 2, **slow},
        "two small views": {"transform": presets.small_views(size, small), "draws": 2, **slow},
        "recognisable": {"preset": "recognisable"},
        "recognisable, half the steps": {"preset": "recognisable", "steps": steps // 2},
        "joined": {"preset": "modern"},
        "maco": {"preset": "maco", "steps": steps},
        "lucent": {"steps": 2 * steps},
    }


#: Frequencies, in cycles a picture, whose octaves the power of a picture is divided into.
_OCTAVES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
#: Shares of a picture's values that lie below the levels of its histogram.
_LEVELS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


def spectrum(images: np.ndarray) -> np.ndarray:
    """Power by radial frequency in whole cycles a picture, of the mean colour, (n, s / 2)."""
    grey = images.mean(-1) - images.mean((1, 2, 3))[:, None, None]
    power = np.abs(np.fft.fft2(grey)) ** 2 / grey[0].size ** 2
    height, width = grey.shape[1:]
    cycles = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    place = np.round(cycles * min(height, width)).astype(int).ravel()
    half = min(height, width) // 2
    count = np.bincount(place, minlength=half + 1)[1 : half + 1]
    sums = [np.bincount(place, one.ravel(), half + 1)[1 : half + 1] for one in power]
    return np.array(sums) / count


def tone(images: np.ndarray) -> dict[str, np.ndarray]:
    """Contrast, saturation and the share of power beyond a quarter of the sampling, (n,) each."""
    power = spectrum(images)
    total = power * np.arange(1, power.shape[1] + 1)
    return {
        "contrast": images.std((1, 2, 3)),
        "saturation": (images.max(-1) - images.min(-1)).mean((1, 2)),
        "high frequencies": total[:, power.shape[1] // 2 :].sum(1) / total.sum(1),
    }


def octaves(images: np.ndarray) -> dict[str, np.ndarray]:
    """Of a picture's power, the share of each octave of frequencies, (n,) each."""
    power = spectrum(images)
    total = power * np.arange(1, power.shape[1] + 1)
    ends = [one for one in _OCTAVES if one <= power.shape[1]]
    sums = np.add.reduceat(total, np.array(ends) - 1, axis=1)
    return dict(zip(map(str, ends), (sums / sums.sum(1, keepdims=True)).T, strict=True))


def histogram(images: np.ndarray) -> dict[str, np.ndarray]:
    """Levels below which given shares of a picture's values lie, (n,) each."""
    levels = np.quantile(images.reshape(len(images), -1), _LEVELS, axis=1)
    return dict(zip(map(str, _LEVELS), levels, strict=True))


#: What is compared with photographs, by name.
NATURAL = {"tone": tone, "spectrum": octaves, "histogram": histogram}


def within(values: dict[str, np.ndarray], natural: dict[str, np.ndarray]) -> np.ndarray:
    """Which pictures lie between the 5th and the 95th percentile of photographs in all, (n,)."""
    inside = [
        (values[name] >= np.quantile(found, 0.05)) & (values[name] <= np.quantile(found, 0.95))
        for name, found in natural.items()
    ]
    return np.all(inside, axis=0)


def loaded(text: str) -> fv.Model:
    """A network by NAME or NAME=WEIGHTS."""
    name, _, weights = text.partition("=")
    return fv.load(name, weights or None)


def has(model: fv.Model, judge: fv.Model, number: int) -> bool:
    """Whether a judge has a class; two of one name are none that can be judged."""
    try:
        places_of(model, judge, np.array([number]))
    except fv.InputError:
        return False
    return True


def scores(model: fv.Model, images: np.ndarray) -> np.ndarray:
    """Class scores (n, classes) of images (n, h, w, 3)."""
    parts = range(0, len(images), 64)
    return np.concatenate([np.asarray(model(images[i : i + 64])["logits"]) for i in parts])


def verdicts(
    model: fv.Model, judges: list[fv.Model], images: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """What is thought of pictures of classes, (marks, n); nan where a judge has no such class.

    The network's own score; and of each judge whether it puts the class first, whether among five,
    and the logarithm of the probability that it gives to it, of 1 in 10⁹ at least.
    """
    found = [scores(model, images)[np.arange(len(classes)), classes]]
    for judge in judges:
        known = np.array([has(model, judge, number) for number in classes.tolist()])
        of = standing(judged(judge, images[known]), places_of(model, judge, classes[known]))
        for values in (of.rank <= 1, of.rank <= 5, np.log(of.probability + 1e-9)):
            every = np.full(len(classes), np.nan)
            every[known] = values
            found.append(every)
    return np.stack(found)


def over_classes(values: np.ndarray, classes: np.ndarray, sign: str = "") -> str:
    """The mean and its standard error over classes, each of which may have several pictures."""
    there = np.isfinite(values)
    of = np.unique(classes[there])
    each = np.array([values[there & (classes == number)].mean() for number in of])
    error = f"{each.std(ddof=1) / math.sqrt(len(of)):.2f}" if len(of) > 1 else "unknown"
    return f"{each.mean():{sign}.2f} ± {error}"


#: A class and the seed of its picture; of a photograph None.
Picture = tuple[int, int | None]


def paired(
    ours: list[Picture], values: np.ndarray, theirs: list[Picture], known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Classes (n,) of the pictures that two methods have, and marks (marks, n) less the other's."""
    both = [one for one in ours if one in theirs]
    classes = np.array([number for number, _ in both])
    first = values[:, [ours.index(one) for one in both]]
    return classes, first - known[:, [theirs.index(one) for one in both]]


class Table:
    """What is thought and measured of the pictures of methods, a row a method.

    Attributes:
        marks: the columns that judges and the network itself fill.
        header: all columns.
        rows: as they are printed.
    """

    def __init__(
        self,
        model: fv.Model,
        judges: list[fv.Model],
        natural: dict[str, dict[str, np.ndarray]],
    ) -> None:
        self.model, self.judges, self.natural = model, judges, natural
        of = [f"{j.name}, {what}" for j in judges for what in ("top 1", "top 5", "log p")]
        self.marks = ["own clean score", *of]
        inside = [f"natural {name}" for name in NATURAL]
        self.header = ["method", "pictures", *self.marks, *inside, *natural["tone"], "s a picture"]
        self.rows: list[list[object]] = []
        self._told: dict[str, tuple[list[Picture], np.ndarray]] = {}

    def add(
        self,
        method: str,
        images: np.ndarray,
        pictures: Sequence[Picture] | None,
        seconds: float | None,
    ) -> None:
        """A row: of images, what they are of (None: not known), and the time of all."""
        said = [""] * len(self.marks)
        if pictures is not None:
            classes = np.array([number for number, _ in pictures])
            values = verdicts(self.model, self.judges, images, classes)
            self._told[method] = list(pictures), values
            said = [over_classes(one, classes) for one in values]
        inside = [
            f"{within(to(images), self.natural[name]).mean():.2f}" for name, to in NATURAL.items()
        ]
        middle = [f"{np.median(values):.3f}" for values in tone(images).values()]
        time_of = "" if seconds is None else f"{seconds / len(images):.1f}"
        self.rows.append([method, len(images), *said, *inside, *middle, time_of])
        print(*self.rows[-1], sep="  ", flush=True)

    def against(self, reference: str) -> list[list[object]]:
        """Rows of methods less another, of the pictures that both have: columns of `marks`."""
        if reference not in self._told:
            return []
        theirs, known = self._told[reference]
        found: list[list[object]] = []
        for method, (pictures, values) in self._told.items():
            if method == reference:
                continue
            classes, less = paired(pictures, values, theirs, known)
            if len(classes):
                compared = [over_classes(one, classes, "+") for one in less]
                found.append([method, len(classes), *compared])
        return found


def noise(count: int, size: tuple[int, int]) -> np.ndarray:
    """Pictures of nothing, of the spectrum of photographs, (n, h, w, 3)."""
    way = fv.MaCo(size)
    return np.stack([np.asarray(way.decode(way.init(jax.random.key(i)))) for i in range(count)])


@dataclass
class Making:
    """Makes pictures part by part, and keeps them, so that a run goes on where one before ended.

    Attributes:
        folder: where parts are kept.
        model: the network explained.
        joined: it and others, or None.
        size: of the pictures.
        steps: of a method that says nothing else.
        photographs: what some methods are to be like, (n, h, w, 3).
    """

    folder: Path
    model: fv.Model
    joined: fv.Model | None
    size: tuple[int, int]
    steps: int
    photographs: np.ndarray

    def path(self, method: str, options: dict[str, Any], classes: list[int], seed: int) -> Path:
        """Where a part is kept, of a method's pictures of some classes from a seed."""
        digest: tuple[object, ...] = (fv.__version__, self._network(method).digest)
        digest += repr(options), classes, seed, self.size, self.steps
        if "like" in options:
            digest += (self._digest,)
        name = hashlib.sha256(repr(digest).encode()).hexdigest()[:16]
        return self.folder / f"{re.sub(r'[^a-z0-9]+', '-', method)}-{name}.npz"

    def make(self, method: str, options: dict[str, Any], classes: list[int], seed: int) -> None:
        """Make a part, and write it."""
        path = self.path(method, options, classes, seed)
        images, seconds = self._made(self._network(method), method, options, classes, seed)
        studies.write_whole(path, images=to_levels(images), seconds=np.float64(seconds))

    def _network(self, method: str) -> fv.Model:
        network = self.joined if method == "joined" else self.model
        assert network is not None  # checked with the methods
        return network

    def _made(
        self, network: fv.Model, method: str, options: dict[str, Any], classes: list[int], seed: int
    ) -> tuple[np.ndarray, float]:
        if method == "lucent":
            started = time.perf_counter()
            images = lucent().pictures(
                "efficientnet_lite0", "logits", classes, self.size[0], options["steps"], seed
            )
            return images, time.perf_counter() - started
        options = {"steps": self.steps, "progress": False, "seed": [seed] * len(classes), **options}
        like, on = options.pop("like", None), options.pop("parameterization", None)
        if like is None and on is None:
            result = fv.class_model(network, classes, size=self.size, **options)
        else:
            objective: fv.Objective = fv.Logit(np.array(classes))
            if like is not None:
                objective += options.pop("weight") * getattr(self, like)(classes)
            result = fv.synthesize(network, objective, on or fv.Fourier(self.size), **options)
        return result.images, result.seconds

    def sorted_activations(self, classes: list[int]) -> fv.Objective:
        """Minus the distance to sorted activations of the photographs of the largest scores.

        VITAL's, in variances of the layer's activations; the mean over layers.
        """
        terms = []
        for layer in _LIKE:
            target = np.stack(
                [
                    fv.sorted_activations(self.model, layer, self.photographs[best[:_BEST]])
                    for best in np.argsort(-self._scores[:, classes], axis=0).T
                ]
            )
            terms.append(fv.SortMatch(layer, target) / float(target.var()))
        return sum(terms[1:], terms[0]) / len(terms)

    def statistics(self, classes: list[int]) -> fv.Objective:
        """Minus the distance to means and variances over photographs, over their size; the mean."""
        some = self.photographs[:: 1 + len(self.photographs) // 100]
        terms = []
        for layer in _LIKE:
            found = fv.natural_statistics(self.model, layer, some)
            size = np.linalg.norm(found.mean) + np.linalg.norm(found.variance)
            terms.append(found / float(size))
        return sum(terms[1:], terms[0]) / len(terms)

    def tone(self, classes: list[int]) -> fv.Objective:
        """Minus the distance to the mean colours and contrasts of photographs."""
        by_channel = np.moveaxis(self.photographs, -1, 0).reshape(3, len(self.photographs), -1)
        mean, deviation = by_channel.mean((1, 2)), by_channel.std(2).mean(1)
        return -fv.Tone(mean, deviation)

    @functools.cached_property
    def _digest(self) -> str:
        """Of the photographs."""
        return hashlib.sha256(to_levels(self.photographs).tobytes()).hexdigest()

    @functools.cached_property
    def _scores(self) -> np.ndarray:
        """The network's class scores of the photographs, (n, classes)."""
        return scores(self.model, self.photographs)


def kept_part(path: Path) -> tuple[np.ndarray, float]:
    """A part's pictures (n, h, w, 3), and the seconds that they took."""
    with np.load(path) as found:
        return found["images"].astype(np.float32) / 255, float(found["seconds"])


def lucent() -> Any:
    """The peer, where it is installed.

    Raises:
        ImportError: it, PyTorch or its network are not.
    """
    import peers.lucent

    return peers.lucent


def chosen_methods(
    given: list[str] | None, size: tuple[int, int], steps: int, model: fv.Model, joined: bool
) -> dict[str, dict[str, Any]]:
    """Those that are asked for, or all that can be made; says what one that cannot needs.

    Raises:
        InputError: no such method.
    """
    known = methods(size, steps)
    if unknown := set(given or ()) - set(known):
        raise fv.InputError(f"no method {min(unknown)!r}; there are: {', '.join(known)}")
    wanted = {name: known[name] for name in given or known}
    if not joined and wanted.pop("joined", None) is not None and given:
        raise fv.InputError("the method 'joined' takes --join NAME, of other networks")
    if "lucent" in wanted:
        why = None
        try:
            lucent()
        except ImportError as error:
            why = f"{error.name or error} is missing: pip install featvis[benchmark]"
        if model.name != "efficientnet_lite0":
            why = f"it has EfficientNet-Lite0 alone, and {model.name} is explained"
        if why is not None:
            print(f"lucent is left out: {why}")
            del wanted["lucent"]
    return wanted


def main() -> int:
    """Pictures of every method, judged; a table and the pictures in rows."""
    line = studies.CommandLine(
        __doc__, "recognition", folder="photographs", required=True,
        quick="4 classes at 96 x 96 in 32 steps, by three methods", seed="the choice of classes",
    )  # fmt: skip
    line.add_argument("--network", default="efficientnet_lite0", help="NAME or NAME=WEIGHTS")
    line.add_argument("--judge", action="append", default=[], help="NAME or NAME=WEIGHTS")
    line.add_argument("--join", action="append", default=[], help="NAME or NAME=WEIGHTS")
    line.add_argument("--only", action="append", help="a method, by name; may be given again")
    line.add_argument("--classes", type=int, default=16, help="how many are drawn")
    line.add_argument("--seeds", type=int, default=1, help="starts of each class")
    line.add_argument("--batch", type=int, default=8, help="pictures made at once")
    line.add_argument(
        "--minutes", type=float, help="begin nothing after these; 13 without --full", metavar="M"
    )
    line.add_argument("--full", action="store_true", help="64 classes and 3 seeds")
    given, started = line.read(), time.perf_counter()
    side, steps, count, seeds = 192, 256, given.classes, given.seeds
    if given.quick:
        side, steps, count, seeds = 96, 32, 4, 1
    elif given.full:
        count, seeds = 64, 3
    size = (side, side)
    model = loaded(given.network)
    judges = [loaded(text) for text in given.judge]
    joined = None
    if given.join:
        others = [loaded(text) for text in given.join]
        joined = fv.join({one.name: one for one in (model, *others)})
        if {one.name for one in others} & {one.name for one in judges}:
            raise fv.InputError("a judge is no network that is explained: leave it out of --join")
    for judge in judges:
        check_judge(model, judge)
    first = list(QUICK) if given.quick else None
    wanted = chosen_methods(given.only or first, size, steps, model, joined is not None)
    files = image_files(given.folder)
    files = files[:: max(1, len(files) // _PHOTOGRAPHS)]
    photographs = fv.read_images(files, size)
    natural = {name: of(photographs) for name, of in NATURAL.items()}
    classes = np.random.default_rng(given.seed).choice(1000, count, replace=False)
    chosen = [c for c in classes.tolist() if all(has(model, judge, c) for judge in judges)]
    names = [model.labels[c] for c in chosen]  # type: ignore[index]

    report = Report(
        given.out,
        "Recognition of class pictures",
        f"{len(chosen)} classes of {model.name}, {seeds} seeds, {side} x {side} in {steps} steps.",
    )
    table = Table(model, judges, natural)
    print(*table.header, sep="  ")
    named = [int(m[1]) if (m := re.match(r"(\d{3,4})_", f.name)) else -1 for f in files]
    own = None if min(named) < 0 else [(number, None) for number in named]
    table.add("photographs", photographs, own, None)
    every = [(number, seed) for seed in range(seeds) for number in chosen]
    table.add("noise of natural spectrum", noise(len(every), size), every, None)
    parts = [chosen[i : i + given.batch] for i in range(0, len(chosen), given.batch)]
    making = Making(given.out / "parts", model, joined, size, steps, photographs)
    works = [(part, seed) for seed in range(seeds) for part in parts]
    # All methods of the same classes, so that they can be compared where time ends.
    missing = [
        (method, *work)
        for work in works
        for method in wanted
        if not making.path(method, wanted[method], *work).exists()
    ]
    minutes = given.minutes if given.minutes is not None else math.inf if given.full else 13.0
    until = started + 60 * minutes
    while missing and time.perf_counter() < until:
        method, *work = missing.pop(0)
        making.make(method, wanted[method], *work)
    for method, options in wanted.items():
        paths = {making.path(method, options, *work): work for work in works}
        there = {path: work for path, work in paths.items() if path.exists()}
        if not there:
            continue
        kept = [kept_part(path) for path in there]
        images = np.concatenate([one for one, _ in kept])
        pictures = [(number, seed) for part, seed in there.values() for number in part]
        table.add(method, images, pictures, sum(seconds for _, seconds in kept))
        first = [i for i, (_, seed) in enumerate(pictures) if seed == 0]
        shown = [names[chosen.index(pictures[i][0])] for i in first]
        place = re.sub(r"\W+", "-", method)
        report.pictures(
            place, [images[i] for i in first], shown, columns=8, caption=f"{method}, seed 0"
        )
    report.table(
        table.header, table.rows,
        "Shares of pictures that a judge puts first, and among its five first, and the mean "
        "logarithm of the probability that it gives to the class, with standard errors over "
        "classes; shares of pictures between the 5th and the 95th percentile of photographs in all "
        "of contrast, saturation and high frequencies (tone), in the share of power in every "
        "octave (spectrum), in seven levels of the histogram; medians.",
    )  # fmt: skip
    if compared := table.against(_DEFAULT):
        print(f"less {_DEFAULT}, of the same pictures:")
        for row in compared:
            print(*row, sep="  ")
        report.table(
            ["method", "pictures", *table.marks], compared,
            f"The same less those of {_DEFAULT}, over the classes and seeds that both have.",
        )  # fmt: skip
    page = report.write(classes=chosen, seeds=seeds, size=side, steps=steps)
    if missing:
        print(f"{len(missing)} parts are left: the same command goes on with them")
    studies.finish(started, page, len(files))
    return int(bool(missing))


if __name__ == "__main__":
    studies.run(main)
