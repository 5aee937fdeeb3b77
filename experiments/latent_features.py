"""Is a generator's code a better way to write pictures than pixels, Fourier coefficients or phases?

Paper: Nguyen et al. 2016, "Synthesizing the preferred inputs for neurons in neural networks via
    deep generator networks" (a generator as the prior); Fel et al. 2023 (MaCo). The generator is
    TAEF2 (Bohan), a tiny autoencoder of photographs, which was trained for no network explained.
Command: python experiments/latent_features.py PHOTOGRAPHS --generator taef2=FOLDER
    --judge mobilenet_v2_tf=FILE --judge darknet_tiny=FILE -o OUT
    (--network NAME=FILE, --judge and --generator with files of weights need no network at all;
    --sweep tries settings of the latent prior first and goes on with the best; --quick for 4
    classes and 4 units at 96 x 96 in 32 steps; --size, --steps, --classes; --minutes begins nothing
    after so many: what is made is kept in OUT/made, and the same command goes on)
Runtime: on an accelerator some 10 minutes with --sweep; on two quiet CPU cores --size 96 --steps 64
    takes 8 for 32 classes and 4 for the units, --quick 15 beside much other work.
What it showed: TAEF2's code in waves is recognised as often as the best Fourier preset (of 32
    classes 0.50 and 0.41 by two judges, `recognisable` 0.47 and 0.38; among five first 0.69 and
    0.63, 0.69 and 0.56) and nearer to photographs in tone (0.47 within theirs, 0.13) and spectrum
    (distance 0.36, 0.65). `experiments/guide/generators.md` has the table. Of twelve units the four
    classes are nearer to photographs too (0.35, Fourier 0.65), the eight channels, which are
    textures, are not (0.67, 0.30); scores are alike (43 and 31, Fourier 46 and 30), and all are
    above nearly all photographs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import recognition
import studies

import featvis as fv
from featvis.evidence.recognition import check_judge
from featvis.images import image_files
from featvis.pages import Report

#: The units of the README: four channels of two layers and four classes.
UNITS = (
    "block4:5", "block4:10", "block4:15", "block4:20", "block8:3", "block8:7", "block8:20",
    "block8:30", "logits:130", "logits:285", "logits:985", "logits:967",
)  # fmt: skip
_QUICK_UNITS = ("block4:5", "block8:3", "logits:130", "logits:967")
#: Photographs that say what is natural, what codes are, and that a unit is compared with, at most.
_NATURAL, _CODES, _COMPARED = 400, 96, 200


@dataclass(frozen=True)
class Codes:
    """What codes of photographs are, by channel.

    Attributes:
        generator: that encodes them.
        mean: (c,).
        sd: (c,).
    """

    generator: fv.Generator
    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, generator: fv.Generator, images: np.ndarray) -> Codes:
        """Those of images (n, h, w, 3)."""
        encode = jax.jit(jax.vmap(generator.encode))
        parts = [np.asarray(encode(images[i : i + 8])) for i in range(0, len(images), 8)]
        found = np.concatenate(parts)
        return cls(generator, found.mean((0, 1, 2)), found.std((0, 1, 2)))

    def latent(
        self,
        size: tuple[int, int],
        *,
        waves: float | None = 1.0,
        box: float | None = None,
        weight: float = 0.0,
        start: float = 0.3,
    ) -> fv.Latent:
        """The code as a parameterization.

        Args:
            size: of the pictures.
            waves: power of the frequency where codes are written in waves; None: as they are.
            box: of each number, in deviations around the mean; None: no box.
            weight: of a normal prior with this mean and deviation.
            start: deviation of the first code, in those of photographs' codes.
        """
        prior = fv.NormalPrior(weight, mean=self.mean, sd=self.sd) if weight else None
        bounds = {}
        if box is not None:
            bounds = {"low": self.mean - box * self.sd, "high": self.mean + box * self.sd}
        return fv.Latent(
            size,
            generator=self.generator,
            mean=self.mean,
            sd=start * self.sd,
            prior=prior,
            **bounds,
        )


def settings(size: tuple[int, int], *, sweep: bool) -> dict[str, dict[str, Any]]:
    """Settings of the latent prior, by name: those of `Codes.latent`, and options of a run.

    The first is the one that is taken without a sweep.
    """
    views = fv.transforms.presets.views
    parts, wide = views(size), views(size, largest=4.0)
    usual: dict[str, Any] = {"optimizer": "nadam(0.3)", "transform": parts}
    chosen = {"latent": usual}
    if not sweep:
        return chosen
    plain = {"waves": None, "box": 3.0, "optimizer": "nadam(0.05)"}
    whitened = {**plain, "optimizer": "chain(whiten_gradient(1.0), nadam(0.05))"}
    changes: dict[str, dict[str, Any]] = {
        "rate 0.1": {"optimizer": "nadam(0.1)"},
        "rate 1": {"optimizer": "nadam(1.0)"},
        "waves 0.5": {"waves": 0.5},
        "waves 1.5": {"waves": 1.5},
        "two views to 4": {"transform": wide, "draws": 2},
        "box 3": {"box": 3.0},
        "box 2": {"box": 2.0},
        "prior 3e-4": {"weight": 3e-4},
        "prior 3e-3": {"weight": 3e-3},
        "falling rate": {"optimizer": "nadam(cosine_decay_schedule(0.5, 256))"},
        "as they are": plain,
        "as they are, whitened": whitened,
        "start 1": {"start": 1.0, "optimizer": "nadam(0.1)"},
        "waves 0.75": {"waves": 0.75},
        "rate 0.03": {"optimizer": "nadam(0.03)"},
        "affine": {"transform": "affine"},
    }
    return chosen | {f"latent, {name}": {**usual, **change} for name, change in changes.items()}


def others(size: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Options of a run of the other ways to write a picture; without a transform, the defaults."""
    maco = fv.methods.presets("visualization")["maco"]
    at = fv.methods.Setting(size, 3, 1.0, 1.0, True, None, lambda other: True)
    (stage,) = maco(at).stages
    return {
        "pixels": {"parameterization": fv.Pixels(size), "optimizer": "nadam(0.05)"},
        "Fourier": {"parameterization": fv.Fourier(size)},
        "MaCo": {"parameterization": stage.parameterization, **stage.options, "rate": True},
    }  # fmt: skip


def run(
    model: fv.Model,
    objective: Any,
    size: tuple[int, int],
    steps: int,
    way: dict[str, Any],
    codes: Codes,
    **more: Any,
) -> fv.Result:
    """Pictures of an objective by a method."""
    given = dict(way)
    if given.pop("rate", False):
        given["optimizer"] = f"nadam(polynomial_schedule(1.0, 0.0, 8, {steps}))"
    names = ("box", "weight", "start", "waves")
    of_codes = {name: given.pop(name) for name in names if name in given}
    if "parameterization" not in given:
        given["parameterization"] = codes.latent(size, **of_codes)
    return fv.synthesize(model, objective, steps=steps, progress=False, **given, **more)


def distance(images: np.ndarray, natural: np.ndarray) -> np.ndarray:
    """Root mean square, over frequencies, of the difference of log10 of the power, (n,).

    Args:
        images: (n, h, w, 3).
        natural: the mean of log10 of the power of photographs.
    """
    found = np.log10(np.maximum(recognition.spectrum(images), 1e-12))
    return np.sqrt(np.mean((found - natural) ** 2, axis=1))


def main() -> None:
    """Class pictures and units of every method; tables and pictures in rows."""
    line = studies.CommandLine(
        __doc__, "latent_features", folder="photographs", required=True,
        quick="4 classes and 4 units at 96 x 96 in 32 steps", seed="the choice of classes",
    )  # fmt: skip
    line.add_argument("--network", default="efficientnet_lite0", help="NAME or NAME=WEIGHTS")
    line.add_argument("--generator", default="taef2", help="NAME or NAME=WEIGHTS")
    line.add_argument("--judge", action="append", default=[], help="NAME or NAME=WEIGHTS")
    line.add_argument("--classes", type=int, default=32, help="how many are drawn")
    line.add_argument("--batch", type=int, default=8, help="class pictures made together")
    line.add_argument("--sweep", action="store_true", help="try settings of the latent prior")
    line.add_argument("--minutes", type=float, default=1e6, help="begin nothing after so many")
    line.add_argument("--size", type=int, default=192, help="side of the pictures in pixels")
    line.add_argument("--steps", type=int, default=256, help="of each picture")
    given, started = line.read(), time.perf_counter()
    side, steps, count, units = given.size, given.steps, given.classes, UNITS
    if given.quick:
        side, steps, count, units = 96, 32, 4, _QUICK_UNITS
    size = (side, side)
    model = recognition.loaded(given.network)
    judges = [recognition.loaded(text) for text in given.judge]
    for judge in judges:
        check_judge(model, judge)
    name, _, weights = given.generator.partition("=")
    generator = fv.generators.load(name, weights or None)
    files = image_files(given.folder)
    natural = fv.read_images(files[:: max(1, len(files) // _NATURAL)], size)
    tones = recognition.tone(natural)
    powers = np.log10(np.maximum(recognition.spectrum(natural), 1e-12)).mean(0)
    codes = Codes.of(generator, natural[:: max(1, len(natural) // _CODES)])
    compared = natural[:: max(1, len(natural) // _COMPARED)]
    drawn = np.random.default_rng(given.seed).choice(1000, count, replace=False).tolist()
    classes = [c for c in drawn if all(recognition.has(model, judge, c) for judge in judges)]
    labels = [model.labels[c] if model.labels else str(c) for c in classes]
    report = Report(
        given.out,
        "Features in the code of a generator",
        f"{len(classes)} classes and {len(units)} units of {model.name} by {name}'s code and by "
        f"other ways to write a picture, {side} x {side} in {steps} steps.",
    )
    kept: dict[str, Any] = {}
    folder = Path(given.out) / "made" / f"{model.name}-{side}-{steps}-{generator.digest[:8]}"

    def in_time() -> bool:
        return time.perf_counter() - started < 60 * given.minutes

    def keep(kind: str, method: str, facts: dict[str, Any]) -> None:
        kept.setdefault(kind, {})[method] = facts
        print(kind, method, json.dumps(facts), flush=True)
        (Path(given.out) / "figures.json").write_text(json.dumps(kept, indent=1))

    def pictures(
        method: str,
        way: dict[str, Any],
        objective: fv.Objective,
        units: list[str],
        look: Callable[[fv.Result], fv.Result],
    ) -> dict[str, np.ndarray] | None:
        """Pictures and what is thought of them; None where they are not there, and time is over."""
        name = re.sub(r"\W+", "-", f"{method}-{'_'.join(units)}")
        path = folder / f"{name}.npz"
        if not (path.is_file() or in_time()):
            return None

        def make() -> dict[str, np.ndarray]:
            one = run(model, objective, size, steps, way, codes, seed=[0] * len(units))
            found = {"images": one.images, "clean score": one.clean_scores}
            found["seconds"] = np.full(len(units), one.seconds / len(units))
            return {**found, **look(one).evidence}

        return studies.kept(path, make)

    def judged(method: str, way: dict[str, Any]) -> dict[str, Any] | None:
        """Class pictures of a method, and what is thought of them."""
        results: list[dict[str, np.ndarray]] = []
        for i in range(0, len(classes), given.batch):
            part = classes[i : i + given.batch]
            objective, names = fv.Logit(np.array(part)), [str(c) for c in part]
            found = pictures(
                method, way, objective, names,
                lambda one: fv.recognition(one, judges) if judges else one,
            )  # fmt: skip
            if found is None:
                break
            results.append(found)
        if not results:
            return None
        whole = {key: np.concatenate([one[key] for one in results]) for key in results[0]}
        images = whole["images"]
        facts = {"pictures": len(images), "clean score": whole["clean score"]}
        for top in (1, 5):
            for judge in judges:
                facts[f"{judge.name}, top {top}"] = whole[f"top{top}_by_{judge.name}"]
        toned = recognition.tone(images)
        facts |= {"natural tone": recognition.within(toned, tones)}
        facts |= {"distance of spectrum": distance(images, powers)}
        shares = {key: round(float(np.mean(value)), 3) for key, value in facts.items()}
        shares |= {key: round(float(np.median(value)), 3) for key, value in toned.items()}
        shares["s a picture"] = round(float(whole["seconds"].mean()), 2)
        report.pictures(
            re.sub(r"\W+", "-", f"classes-{method}"),
            list(images), labels[: len(images)], columns=8, caption=f"{method}: classes",
        )  # fmt: skip
        keep("classes", method, shares)
        return shares

    ways = others(size)
    for method in ("Fourier", "MaCo", "pixels"):
        judged(method, ways[method])
    views = fv.transforms.presets.views(size, largest=4.0)
    recognisable = {
        "parameterization": fv.Fourier(size), "optimizer": "nadam(0.02)",
        "transform": views, "draws": 2,
    }  # fmt: skip
    judged("Fourier, recognisable", recognisable)
    tried = settings(size, sweep=given.sweep)
    best = float("-inf"), *next(iter(tried.items()))
    for method, way in tried.items():
        found = judged(method, way)
        if found is not None:
            marks = [value for key, value in found.items() if ", top 1" in key]
            score = float(np.mean(marks)) if marks else -found["distance of spectrum"]
            best = max(best, (score, method, way), key=lambda one: one[0])
    of_classes = kept.get("classes", {})
    header = ["method", *next(iter(of_classes.values()), ())]
    rows = [[method, *facts.values()] for method, facts in of_classes.items()]
    report.table(
        header, rows,
        "Means over class pictures: clean score, shares that a judge puts first and among its "
        "five first, share whose contrast, saturation and high frequencies all lie between the 5th "
        "and the 95th percentile of photographs, and the distance of the logarithm of the spectrum "
        f"from photographs' (of a photograph {distance(natural, powers).mean():.2f}); medians.",
    )  # fmt: skip
    spatial = {**best[2]}
    for key in ("transform", "draws"):
        spatial.pop(key, None)
    table = []
    for method, way in {**ways, f"code ({best[1]})": spatial}.items():
        results, shown = [], list[str]()
        for layer in dict.fromkeys(unit.partition(":")[0] for unit in units):
            own = [unit for unit in units if unit.startswith(f"{layer}:")]
            numbers = np.array([int(unit.partition(":")[2]) for unit in own])
            # Parts of a picture would spread what shows a channel over several scales.
            seen = {"transform": best[2]["transform"]} if "code" in method else {}
            more = seen if layer == "logits" else {}
            objective = fv.Logit(numbers) if layer == "logits" else fv.Channel(layer, numbers)
            found = pictures(
                method, {**way, **more}, objective, own,
                lambda one: fv.compare_with_natural(one, compared),
            )  # fmt: skip
            if found is None:
                break
            results.append(found)
            shown += own
        if not results:
            continue
        whole = {
            key: np.concatenate([one[key] for one in results])
            for key in ("images", "clean score", "percentile")
        }
        report.pictures(
            f"units-{method.split(' ')[0]}", list(whole["images"]), shown, columns=6,
            caption=f"{method}: units",
        )  # fmt: skip
        far = distance(whole["images"], powers)
        columns = (whole["clean score"], whole["percentile"], far)
        for unit, *values in zip(shown, *columns, strict=True):
            table.append([method, unit, *(studies.figure(f"{v:.3g}") for v in values)])
        names = ("scores", "percentiles", "distances")
        keep("units", method, dict(zip(names, map(np.ndarray.tolist, columns), strict=True)))
    report.table(
        ["method", "unit", "clean score", "natural percentile", "distance of spectrum"], table,
        f"Units, compared with {len(compared)} photographs.",
    )  # fmt: skip
    page = report.write(classes=classes, size=side, steps=steps, generator=generator.digest)
    studies.finish(started, page, len(files))


if __name__ == "__main__":
    studies.run(main)
