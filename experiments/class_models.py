"""What does a network take for a class, and does a high score make a good picture of it?

Paper: Simonyan et al. 2013, "Deep Inside Convolutional Networks", section 2 (class models by the
    score and by the posterior) and section 3 (saliency). Beside them the probability of Nguyen et
    al. 2015, "Deep Neural Networks Are Easily Fooled"; caricatures (Mahendran & Vedaldi 2016,
    section 6) and feature accentuation (Hamblin et al. 2024) of photographs. The network is another
    than the papers': none of their pictures compares exactly.
Command: pip install -e ".[test]" && python experiments/class_models.py PHOTOGRAPHS -o OUT
    (PHOTOGRAPHS: a folder, with whose scores those of the pictures are compared and four of which
    are changed; without it, four pictures of scikit-image and no comparison; --judge NAME for a
    second network that ranks the pictures, as efficientnet_lite1; --quick for a first look)
Runtime: 13 min on two cores with other work beside, 800 photographs.
What it showed: eight classes of EfficientNet-Lite0 at 160 x 160. From grey, the score less λ‖I‖²
    reaches 93.6, 5.6 times the best photograph, and another network (EfficientNet-Lite1) ranks the
    class 121st; the probability and its logarithm reach 1 at a contrast of 0.01 and 0.003, not to
    be seen (ranks 230 and 341). `modern` reaches 51, 3 times the best photograph, and rank 1 for
    the other network too; plug-in, in few steps, 12 and rank 21. So a score says nothing of a
    picture. Speckle with faint parts of a lemon or a flamingo against pictures that one would name.
    Those of `modern` and its like were seen through `affine`, which `views` has replaced: their
    scores are about half now, and other networks recognise twice as many (recognition.py).
    What caricatures and accentuations of photographs showed is in changed_photographs.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import studies
from PIL import Image, ImageOps

import featvis as fv
from featvis.evidence.recognition import standing
from featvis.images import image_files
from featvis.pages import Report

#: Five of the paper's figure 1, and three that the photographs of scikit-image are near.
CLASSES = (
    "dalmatian",
    "bell pepper",
    "lemon",
    "limousine",
    "computer keyboard",
    "flamingo",
    "tiger cat",
    "espresso",
)
BUNDLED = ("chelsea", "coffee", "rocket", "astronaut")
#: Options of `class_model` by the name of the method; the steps of the last two are reduced.
METHODS: dict[str, dict[str, Any]] = {
    "score": {"preset": "simonyan2013", "of": "score"},
    "probability": {"preset": "simonyan2013", "of": "probability"},
    "log-probability": {"preset": "simonyan2013", "of": "log_probability"},
    "modern": {"preset": "modern", "steps": 200},
    "plug-in": {"preset": "plug_in", "steps": 140, "draws": 4},
}
CARICATURED, STRENGTHS = "block10", (0.25, 1.0, 4.0, 16.0)
KEPT, WEIGHTS = "block4", (0.1, 0.3, 1.0, 3.0, 10.0)
#: Root mean square about mid-grey at which faint pictures are shown again.
VISIBLE = 0.12


def photographs(folder: Path | None, size: tuple[int, int]) -> tuple[list[str], np.ndarray]:
    """Names and images (4, h, w, 3): evenly spread over a folder, or scikit-image's."""
    if folder is not None:
        files = image_files(folder)
        chosen = [files[i * len(files) // 4] for i in range(4)] if len(files) > 4 else files
        return [path.stem for path in chosen], fv.read_images(chosen, size)
    pictures = studies.bundled_pictures(BUNDLED).values()
    fitted = [ImageOps.fit(p, size[::-1], Image.Resampling.BICUBIC) for p in pictures]
    return list(BUNDLED), np.stack([np.asarray(p, np.float32) for p in fitted]) / 255


def contrast(images: np.ndarray) -> np.ndarray:
    """Root mean square about mid-grey of each image, (n,)."""
    return np.sqrt(np.mean((images - 0.5) ** 2, axis=(1, 2, 3)))


def judged(judge: fv.Model, names: list[str], images: np.ndarray) -> np.ndarray:
    """Ranks of the classes for another network, 1 for its top class, (n,)."""
    own = np.array([judge.class_index(name) for name in names])
    return standing(np.asarray(judge(images)["logits"]), own).rank


def report_classes(
    report: Report,
    model: fv.Model,
    judge: fv.Model | None,
    names: list[str],
    methods: dict[str, dict[str, Any]],
    folder: Path | None,
    **common: Any,
) -> None:
    """Class models by every method, and what their scores are worth."""
    report.heading("Class models")
    found = {}
    for method, options in methods.items():
        result = fv.class_model(model, names, **{**common, **options})
        found[method] = result
        setting = ", ".join(f"{key} {value}" for key, value in options.items())
        columns = min(4, len(names))
        report.result(method, result, names, columns=columns, caption=f"{method}: {setting}")
        rms = contrast(result.images)
        if rms.max() < VISIBLE / 2:
            stronger = 0.5 + (result.images - 0.5) * (VISIBLE / rms)[:, None, None, None]
            labels = [f"{name} x {VISIBLE / one:.0f}" for name, one in zip(names, rms, strict=True)]
            report.pictures(
                f"{method}-stronger",
                list(np.clip(stronger, 0, 1)),
                labels,
                columns=columns,
                caption=f"{method}: the same with more contrast",
            )
        print(f"{method:16} {result.seconds:5.0f} s", flush=True)

    header = ["class", "method", "score", "probability", "rank", "contrast"]
    columns = [
        [*(r.evidence[name] for name in ("logit", "probability", "rank")), contrast(r.images)]
        for r in found.values()
    ]
    if folder is not None:
        header += ["of the best photograph", "deviations above the mean photograph"]
        natural = fv.compare_with_natural(found["score"], folder).evidence
        for figures in columns:
            figures.append(figures[0] / natural["natural_max"])
            figures.append((figures[0] - natural["natural_mean"]) / natural["natural_std"])
        best = (natural["natural_max"] - natural["natural_mean"]) / natural["natural_std"]
        report.text(
            f"Of {natural['natural_images'][0]} photographs the best has a score of "
            f"{natural['natural_max'].mean():.1f}, {best.mean():.1f} standard deviations above the "
            "mean photograph (means over the classes)."
        )
        print(f"best photograph {natural['natural_max'].mean():.1f}, {best.mean():.1f} deviations")
    if judge is not None:
        header.append(f"rank for {judge.name}")
        for figures, result in zip(columns, found.values(), strict=True):
            figures.append(judged(judge, names, result.images))
    report.table(
        ["method", *(f"{name}, median" for name in header[2:])],
        [
            [method, *(studies.figure(np.median(one)) for one in figures)]
            for method, figures in zip(found, columns, strict=True)
        ],
        caption=f"Medians over the {len(names)} classes; rank 1 is the network's top class. "
        "Contrast: root mean square about mid-grey.",
    )
    print(*header[1:], sep="  ")
    for method, figures in zip(found, columns, strict=True):
        print(f"{method:16}", *(f"{np.median(one):8.4g}" for one in figures))
    report.table(
        header,
        [
            [name, method, *(studies.figure(one[i]) for one in figures)]
            for i, name in enumerate(names)
            for method, figures in zip(found, columns, strict=True)
        ],
        caption="Class by class.",
    )


def report_saliency(
    report: Report, model: fv.Model, names: list[str], tops: np.ndarray, images: np.ndarray
) -> None:
    """Where the score of the predicted class depends on the photographs."""
    report.heading("Saliency")
    maps = fv.explain(model, fv.Logit(tops), images, "saliency").maps
    bright = np.minimum(maps / np.quantile(maps, 0.99, axis=(1, 2), keepdims=True), 1)
    report.pictures(
        "saliency",
        [*images, *np.repeat(bright[..., None], 3, axis=-1)],
        [*names, *(model.labels[top] for top in tops)],
        columns=len(images),
        caption="Photographs, and |d score / d image| of the predicted class, the largest over "
        "colours; white is the 99th percentile.",
    )


def report_changes(
    report: Report,
    name: str,
    setting: str,
    names: list[str],
    images: np.ndarray,
    results: dict[float, fv.Result],
) -> None:
    """Photographs changed more and more (or less and less), with what was measured of them."""
    report.pictures(
        name,
        [*images, *(image for result in results.values() for image in result.images)],
        [*names, *(f"{setting} {value:g}" for value in results for _ in names)],
        columns=len(names),
        caption=f"The photographs, and below them {name} of each, by their {setting}.",
    )
    measured = list(next(iter(results.values())).evidence)
    rows = [
        [photograph, value, float(result.clean_scores[i])]
        + [studies.figure(result.evidence[key][i]) for key in measured]
        for i, photograph in enumerate(names)
        for value, result in results.items()
    ]
    keys = [key.replace("_", " ") for key in measured]
    caption = f"Photograph by photograph, by {setting}; same class 1: the top class is kept."
    report.table(["photograph", setting, "objective", *keys], rows, caption)
    print(name, setting, *measured, sep="  ")
    for value, result in results.items():
        print(f"{value:6g}", *(f"{np.mean(result.evidence[key]):8.4g}" for key in measured))


def main() -> None:
    """Makes class models, maps and changed photographs, and writes the report."""
    line = studies.CommandLine(
        __doc__, "class_models", folder="natural images", bundled="scikit-image",
        quick="few classes, methods and steps",
        seed="the starts and the transforms",
    )  # fmt: skip
    line.add_argument("--judge", help="a second network that ranks the pictures")
    options, started = line.read(), time.perf_counter()
    model = fv.load("efficientnet_lite0")
    judge = fv.load(options.judge) if options.judge else None
    side = 96 if options.quick else 160
    common: dict[str, Any] = {"seed": options.seed, "progress": False}
    classes, methods, strengths, weights = list(CLASSES), METHODS, STRENGTHS, WEIGHTS
    if options.quick:
        classes, strengths, weights = classes[-2:], STRENGTHS[::2], WEIGHTS[::2]
        methods = {name: {**METHODS[name], "steps": 60} for name in ("score", "probability")}

    report = Report(options.out, (__doc__ or "").partition("\n")[0])
    folder = options.folder
    report_classes(report, model, judge, classes, methods, folder, size=(side, side), **common)
    names, images = photographs(folder, (side, side))
    if options.quick:
        names, images = names[:2], images[:2]
    tops = np.asarray(model(images)["logits"]).argmax(axis=1)
    report_saliency(report, model, names, tops, images)

    common["steps"] = 20 if options.quick else 100
    report.heading(f"Caricatures of {CARICATURED}")
    caricatures = {
        strength: fv.caricature(model, CARICATURED, images, strength=strength, **common)
        for strength in strengths
    }
    report_changes(report, "caricatures", "strength", names, images, caricatures)

    common.update({"steps": 10, "draws": 1} if options.quick else {"steps": 60, "draws": 4})
    report.heading(f"Accentuation of the predicted class, kept at {KEPT}")
    accentuated = {
        weight: fv.accentuate(model, fv.Logit(tops), images, layer=KEPT, keep=weight, **common)
        for weight in weights
    }
    report_changes(report, "accentuated", "weight", names, images, accentuated)
    page = report.write(arguments=options, seconds=time.perf_counter() - started)
    studies.finish(started, page, len(images))


if __name__ == "__main__":
    studies.run(main)
