"""Which class pictures do other networks recognise, and what makes them so?

Paper: none has the measure. Olah et al. 2017, "Feature Visualization" (Distill), whose defaults are
    the peers'; Fel et al. 2023 (MaCo); Görgün et al. 2025, "VITAL", who judge pictures by
    classifiers too. A judge is a network that had no part in the synthesis.
Command: python experiments/recognition.py PHOTOGRAPHS --judge mobilenet_v2 --judge resnet50 -o OUT
    (--judge NAME=WEIGHTS and --network NAME=WEIGHTS for files; --join NAME[=WEIGHTS] for networks
    that are explained together with the network as `joined`; --quick for 4 classes at 96 x 96;
    --full for 64 classes and 3 seeds; --batch 64 on an accelerator. PHOTOGRAPHS: what contrast,
    saturation and spectrum are natural; where names begin with a class's number, NNN_, the judges
    see them too)
Runtime: on two CPU cores 4.4 s a picture and method when nothing else runs; --full some hours
    there, and 40 s a method on an H200.
What it showed: 64 classes, three seeds: MobileNetV2 puts 0.77 of the default's pictures first and
    0.92 among its five first, 0.34 and 0.55 of those under `affine`, 0.18 and 0.43 of those under
    lucid's transforms. `experiments/guide/class-models.md` has the table.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import studies

import featvis as fv
from featvis.evidence.recognition import check_judge, judged, places_of, standing
from featvis.images import image_files
from featvis.pages import Report
from featvis.transforms import Compose, Noise

#: Photographs that say what is natural, at most.
_PHOTOGRAPHS = 400


def methods(size: tuple[int, int], steps: int) -> dict[str, dict[str, Any]]:
    """Options of `class_model` by the name of a method, each a step from the one before."""
    views, wide = fv.transforms.PRESETS["views"](size), 8.0 * min(1.0, min(size) / 160)
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
        "recognisable": {"preset": "recognisable"},
        "joined": {"preset": "modern"},
        "maco": {"preset": "maco", "steps": steps},
    }


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


def of_photographs(
    files: list[Path], model: fv.Model, judges: list[fv.Model], size: tuple[int, int]
) -> dict[str, list[float]]:
    """Shares of photographs that each judge puts first, and among five, by the names of files."""
    named = [(f, int(m[1])) for f in files if (m := re.match(r"(\d{3,4})_", f.name))]
    if not named:
        return {}
    images = fv.read_images([f for f, _ in named], size)
    classes = np.array([c for _, c in named])
    found = {}
    for judge in judges:
        known = np.array([has(model, judge, number) for number in classes])
        own = places_of(model, judge, classes[known])
        rank = standing(judged(judge, images[known]), own).rank
        found[judge.name] = [float((rank <= top).mean()) for top in (1, 5)]
    return found


def share(hits: np.ndarray) -> str:
    """A share and its standard error."""
    return f"{hits.mean():.2f} ± {np.sqrt(hits.mean() * (1 - hits.mean()) / hits.size):.2f}"


def main() -> None:
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
    files = image_files(given.folder)
    files = files[:: max(1, len(files) // _PHOTOGRAPHS)]
    natural = tone(fv.read_images(files, size))
    classes = np.random.default_rng(given.seed).choice(1000, count, replace=False)
    for judge in judges:
        check_judge(model, judge)
    chosen = [c for c in classes.tolist() if all(has(model, judge, c) for judge in judges)]
    names = [model.labels[c] for c in chosen]  # type: ignore[index]
    known = methods(size, steps)
    wanted = given.only or [one for one in known if joined or one != "joined"]
    if unknown := set(wanted) - set(known):
        raise fv.InputError(f"no method {sorted(unknown)[0]!r}; there are: {', '.join(known)}")

    report = Report(
        given.out,
        "Recognition of class pictures",
        f"{len(chosen)} classes of {model.name}, {seeds} seeds, {side} x {side} in {steps} steps.",
    )
    header = ["method", "own clean score", *(f"{j.name}, top {t}" for j in judges for t in (1, 5))]
    header += ["natural tone", *natural, "s a picture"]
    rows: list[list[object]] = []
    upper = of_photographs(files, model, judges, size)
    values = [f"{v:.2f}" for j in judges for v in upper.get(j.name, [np.nan, np.nan])]
    middle = [f"{np.median(v):.2f}" for v in natural.values()]
    rows.append(["photographs", "", *values, f"{within(natural, natural).mean():.2f}", *middle, ""])
    for method in wanted:
        options = {"steps": steps, **known[method]}
        network = joined if method == "joined" else model
        parts = [chosen[i : i + given.batch] for i in range(0, len(chosen), given.batch)]
        options |= {"size": size, "progress": False}
        results = [
            fv.class_model(network, part, seed=[start] * len(part), **options)
            for start in range(seeds)
            for part in parts
        ]
        images = np.concatenate([one.images for one in results])
        own = np.concatenate([np.asarray(model(one.images)["logits"]) for one in results])
        own = own[np.arange(len(images)), np.tile(chosen, seeds)]
        found = {}
        if judges:
            told = [fv.recognition(one, judges).evidence for one in results]
            found = {key: np.concatenate([one[key] for one in told]) for key in told[0]}
        marks = [share(found[f"top{t}_by_{j.name}"]) for j in judges for t in (1, 5)]
        toned = tone(images)
        seconds = sum(one.seconds for one in results) / len(images)
        middle = [f"{np.median(v):.2f}" for v in toned.values()]
        inside = f"{within(toned, natural).mean():.2f}"
        rows.append([method, f"{own.mean():.1f}", *marks, inside, *middle, f"{seconds:.1f}"])
        print(*rows[-1], sep="  ", flush=True)
        first = images[: len(chosen)]
        report.pictures(
            re.sub(r"\W+", "-", method), list(first), names, columns=8, caption=f"{method}, seed 0"
        )
    report.table(
        header, rows,
        "Shares of pictures that a judge puts first, and among its five first, with standard "
        "errors; pictures whose contrast, saturation and high frequencies all lie between the 5th "
        "and the 95th percentile of photographs; medians.",
    )  # fmt: skip
    page = report.write(classes=chosen, seeds=seeds, size=side, steps=steps)
    studies.finish(started, page, len(files))


if __name__ == "__main__":
    studies.run(main)
