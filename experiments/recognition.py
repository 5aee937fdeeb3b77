"""Which class pictures do other networks recognise, and what makes them so?

Paper: none has the measure. Olah et al. 2017, "Feature Visualization" (Distill), whose defaults are
    the peers'; Fel et al. 2023 (MaCo); Görgün et al. 2025, "VITAL", who judge pictures by
    classifiers too. A judge is a network that had no part in the synthesis.
Command: python experiments/recognition.py PHOTOGRAPHS --judge mobilenet_v2 --judge resnet50 -o OUT
    (--judge NAME=WEIGHTS and --network NAME=WEIGHTS for files; --join NAME[=WEIGHTS] for networks
    that are explained together with the network as `joined`; --quick for 4 classes at 96 x 96;
    --full for 64 classes and 3 seeds; --batch 64 on an accelerator; --minutes 8 to end after 8 and
    go on with the same command, as pictures are kept in OUT/parts: delete that folder when featvis
    has changed. PHOTOGRAPHS: what contrast, saturation, spectrum and histogram are natural; where
    names begin with a class's number, NNN_, the judges see them too. The peer lucent is among the
    methods where `pip install featvis[benchmark]` was done)
Runtime: on two CPU cores 4.4 s a picture and method when nothing else runs; --full some hours
    there, and 40 s a method on an H200.
What it showed: 64 classes, three seeds: MobileNetV2 puts 0.77 of the default's pictures first and
    0.92 among its five first, 0.34 and 0.55 of those under `affine`, 0.18 and 0.43 of those under
    lucid's transforms. `experiments/guide/class-models.md` has the table, and what each means of
    `recognisable` is worth for 8 other classes. The default's power is too much in the lowest
    octave: 0.25 of its pictures have a natural spectrum, 0.62 of those of `recognisable`. Rows of
    lucent and noise are new, and were not run for 64 classes.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
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


def methods(size: tuple[int, int], steps: int) -> dict[str, dict[str, Any]]:
    """Options of `class_model` by the name of a method, each a step from the one before."""
    views, wide = presets.views(size), 8.0 * min(1.0, min(size) / 160)
    small = (-(-2 * size[0] // 3), -(-2 * size[1] // 3))
    fewer = LinearSchedule(0.25, 0.9)
    affine = fv.transforms.RandomAffine
    fast, slow = {"optimizer": "nadam(0.035)"}, {"optimizer": "nadam(0.02)"}
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
        "views and noise": {"transform": Compose((views, Noise(0.08))), **fast},
        "views (the default)": {"transform": views, **slow},
        "rate from 0.04 to 0": {
            "transform": views,
            "optimizer": f"nadam(cosine_decay_schedule(0.04, {steps}))",
        },
        "colour": {"transform": Compose((views, ColorShift(0.3))), **slow},
        "cut-out": {"transform": Compose((views, Cutout(0.4))), **slow},
        "wide, then gentle": {"transform": RandomResizedCrop(fewer, 1.0, sd=None), **slow},
        "two views": {"transform": presets.views(size, largest=4.0), "draws": 2, **slow},
        "two small views": {"transform": presets.small_views(size, small), "draws": 2, **slow},
        "recognisable": {"preset": "recognisable"},
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


def hits(
    model: fv.Model, judges: list[fv.Model], images: np.ndarray, classes: np.ndarray
) -> list[np.ndarray]:
    """Whether each judge puts a picture's class first, and among five, (n,) each."""
    found = []
    for judge in judges:
        known = np.array([has(model, judge, number) for number in classes.tolist()])
        own = places_of(model, judge, classes[known])
        rank = standing(judged(judge, images[known]), own).rank
        found += [rank <= top for top in (1, 5)]
    return found


def share(hits: np.ndarray) -> str:
    """A share and its standard error."""
    return f"{hits.mean():.2f} ± {np.sqrt(hits.mean() * (1 - hits.mean()) / hits.size):.2f}"


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
        until: by `time.perf_counter()`, when no part is begun any more.
        left: parts that were not begun.
    """

    folder: Path
    model: fv.Model
    joined: fv.Model | None
    size: tuple[int, int]
    steps: int
    until: float
    left: int = 0

    def part(
        self, method: str, options: dict[str, Any], classes: list[int], seed: int
    ) -> tuple[np.ndarray, float] | None:
        """Pictures (n, h, w, 3) of some classes, and seconds; None where time is out."""
        network = self.joined if method == "joined" else self.model
        assert network is not None  # checked with the methods
        digest = fv.__version__, network.digest, repr(options), classes, seed, self.size, self.steps
        name = hashlib.sha256(repr(digest).encode()).hexdigest()[:16]
        path = self.folder / f"{re.sub(r'[^a-z0-9]+', '-', method)}-{name}.npz"
        if not path.exists():
            if time.perf_counter() > self.until:
                self.left += 1
                return None
            images, seconds = self._made(network, method, options, classes, seed)
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = path.with_suffix(".part")
            with kept.open("wb") as file:
                np.savez(file, images=to_levels(images), seconds=seconds)
            kept.replace(path)  # so that a part is there as a whole or not at all
        with np.load(path) as found:
            return found["images"].astype(np.float32) / 255, float(found["seconds"])

    def _made(
        self, network: fv.Model, method: str, options: dict[str, Any], classes: list[int], seed: int
    ) -> tuple[np.ndarray, float]:
        if method == "lucent":
            started = time.perf_counter()
            images = lucent().pictures(
                "efficientnet_lite0", "logits", classes, self.size[0], options["steps"], seed
            )
            return images, time.perf_counter() - started
        options = {"steps": self.steps, "size": self.size, "progress": False, **options}
        result = fv.class_model(network, classes, seed=[seed] * len(classes), **options)
        return result.images, result.seconds


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
        quick="4 classes at 96 x 96 in 32 steps", seed="the choice of classes",
    )  # fmt: skip
    line.add_argument("--network", default="efficientnet_lite0", help="NAME or NAME=WEIGHTS")
    line.add_argument("--judge", action="append", default=[], help="NAME or NAME=WEIGHTS")
    line.add_argument("--join", action="append", default=[], help="NAME or NAME=WEIGHTS")
    line.add_argument("--only", action="append", help="a method, by name; may be given again")
    line.add_argument("--classes", type=int, default=16, help="how many are drawn")
    line.add_argument("--seeds", type=int, default=1, help="starts of each class")
    line.add_argument("--batch", type=int, default=8, help="pictures made at once")
    line.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after these")
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
    wanted = chosen_methods(given.only, size, steps, model, joined is not None)
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
    header = ["method", "pictures", "own clean score"]
    header += [f"{j.name}, top {t}" for j in judges for t in (1, 5)]
    header += [f"natural {name}" for name in NATURAL]
    header += [*natural["tone"], "s a picture"]
    rows: list[list[object]] = []

    def add(method: str, images: np.ndarray, of: np.ndarray | None, seconds: float | None) -> None:
        """A row of the table: of pictures, their classes (none: not known), and the time."""
        own: object = ""
        marks = [""] * 2 * len(judges)
        if of is not None:
            marks = [share(hit) for hit in hits(model, judges, images, of)]
            scores = [
                np.asarray(model(images[i : i + 64])["logits"]) for i in range(0, len(of), 64)
            ]
            own = f"{np.concatenate(scores)[np.arange(len(of)), of].mean():.1f}"
        toned = tone(images)
        inside = [f"{within(to(images), natural[name]).mean():.2f}" for name, to in NATURAL.items()]
        middle = [f"{np.median(values):.3f}" for values in toned.values()]
        time_of = "" if seconds is None else f"{seconds / len(images):.1f}"
        rows.append([method, len(images), own, *marks, *inside, *middle, time_of])
        print(*rows[-1], sep="  ", flush=True)

    named = [int(m[1]) if (m := re.match(r"(\d{3,4})_", f.name)) else -1 for f in files]
    add("photographs", photographs, None if min(named) < 0 else np.array(named), None)
    every = np.array(chosen * seeds)
    add("noise of natural spectrum", noise(len(every), size), every, None)
    parts = [chosen[i : i + given.batch] for i in range(0, len(chosen), given.batch)]
    making = Making(given.out / "parts", model, joined, size, steps, started + 60 * given.minutes)
    for method, options in wanted.items():
        found = [
            making.part(method, options, part, seed) for seed in range(seeds) for part in parts
        ]
        there = [one for one in found if one is not None]
        if not there:
            continue
        images = np.concatenate([one for one, _ in there])
        of = np.concatenate(
            [part for one, part in zip(found, parts * seeds, strict=True) if one is not None]
        )
        add(method, images, of, sum(seconds for _, seconds in there))
        first = list(images[: len(chosen)])
        shown = [names[chosen.index(c)] for c in of[: len(first)].tolist()]
        place = re.sub(r"\W+", "-", method)
        report.pictures(place, first, shown, columns=8, caption=f"{method}, seed 0")
    report.table(
        header, rows,
        "Shares of pictures that a judge puts first, and among its five first, with standard "
        "errors; of pictures between the 5th and the 95th percentile of photographs in all of "
        "contrast, saturation and high frequencies (tone), in the share of power in every octave "
        "(spectrum), in seven levels of the histogram; medians.",
    )  # fmt: skip
    page = report.write(classes=chosen, seeds=seeds, size=side, steps=steps)
    if making.left:
        print(f"{making.left} parts are left: the same command goes on with them")
    studies.finish(started, page, len(files))
    return int(making.left > 0)


if __name__ == "__main__":
    studies.run(main)
