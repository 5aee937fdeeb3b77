"""Which settings reach a good picture soonest?

Paper: none; the mark is the clean score of lucid's recipe (Olah et al. 2017: Adam at 0.05, jitter,
    scale and rotation) after 512 steps, of the same unit.
Command: python experiments/time_to_quality.py -o OUT --network efficientnet_lite0
    (--network NAME=WEIGHTS for others, again for several: with two or more the pictures of classes
    are judged by the networks that did not make them; --quick for a first look; what was made is
    kept in OUT/made: the same command again goes on from there)
Runtime: --quick with four of the settings 6 min on two cores with three other programs beside, most
    of it compiling. 13 to 27 min a network with other programs beside, of which Tiny Darknet takes
    the most: 8 min a layer by four settings.
What it showed: EfficientNet-Lite0, MobileNetV2 and Tiny Darknet, two layers of maps and the classes
    of each, 8 units, 3 seeds, 96 x 96. Clean scores of 144 pictures of maps after 64, 128 and 256
    steps, in those of lucid's recipe after 512, medians: lucid's 0.74, 0.86, 0.95; momentum 0.9
    0.77, 0.88, 0.95; momentum 0.5 0.82, 0.91, 0.97; the same, fast 0.86, 0.95, 1.00. Of 120 of
    them, without the second layer of Tiny Darknet: twice the rate 0.83, 0.92, 0.98; falling over
    128 steps 0.81, 0.86; Adam 0.77, 0.88, 0.95; and of 96, without Tiny Darknet: half size first
    0.73, 0.88, 0.97. So momentum 0.5 takes two thirds of the steps that 0.9 takes, and the fast one
    half; but after 256 steps its colours are saturated, to be seen. 72 pictures of classes: lucid's
    0.68, 0.83, 0.93; momentum 0.9 0.38, 0.64, 0.84; 0.5 0.53, 0.69, 0.92; fast 0.52, 0.77, 0.90. Of
    these the other networks put first, and among their five first: 0.17, 0.30; 0.56, 0.76; 0.62,
    0.79; 0.62, 0.85 (standard errors 0.04). Of the 48 of the first two networks, with Tiny Darknet
    among the judges: falling over 128 steps 0.38, 0.52; half size first 0.58, 0.78 (momentum 0.5
    0.61, 0.80). At 192 x 192 and over 64 classes the fast one is recognised less
    (`guide/class-models.md`). The default is momentum 0.5, for maps at the rate 0.05, for class
    scores at 0.02.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import studies
from recognition import has, loaded

import featvis as fv
from featvis.evidence.recognition import check_judge, judged, places_of, standing
from featvis.files import part_of_name
from featvis.models import Model
from featvis.pages import Report

#: Of lucid's recipe, after which its score is the mark.
MARK_STEPS = 512
#: Steps of the others, and after which of them the clean score is asked for.
STEPS = 256
ASKED = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
#: Shares of the layers that have positions, from the image on, at which one is taken.
DEPTHS = (0.2, 0.6)


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        steps: of it.
        options: of `synthesize`.
        share: of the picture's sides.
    """

    steps: int
    options: Mapping[str, Any]
    share: float = 1.0


def settings(vectors: bool, steps: int) -> dict[str, list[Stage]]:
    """Stages by the name of a setting; rates are for maps, and 0.57 of them for class scores.

    Args:
        vectors: whether class scores are maximised, and not maps.
        steps: in all.
    """
    by = 0.02 / 0.035 if vectors else 1.0
    usual = f"nadam({by * 0.035:.4f})"

    def one(rule: str, **more: Any) -> list[Stage]:
        return [Stage(steps, {"optimizer": rule, **more})]

    def falling(length: int, rate: float = 0.07) -> list[Stage]:
        rule = f"nadam(cosine_decay_schedule({by * rate:.4f}, {length}))"
        return [Stage(min(length, steps), {"optimizer": rule})]

    small = Stage(steps // 8, {"optimizer": usual}, 0.5)
    return {
        "lucid's": one("adam(0.05)", transform="standard"),
        "momentum 0.9": one(usual),
        "momentum 0.5": one(f"nadam({by * 0.05:.4f}, b1=0.5)"),
        "momentum 0.5, fast": one(f"nadam({by * 0.08:.4f}, b1=0.5, b2=0.9)"),
        "twice the rate": one(f"nadam({by * 0.07:.4f})"),
        "falling, 64 steps": falling(64),
        "falling, 128 steps": falling(128),
        "Adam": one(f"adam({by * 0.035:.4f})"),
        "half size first": [small, Stage(steps - steps // 8, {"optimizer": usual})],
    }


@dataclass(frozen=True)
class Case:
    """Units of a layer of a network, each from some seeds.

    Attributes:
        model: the network.
        layer: of the units.
        units: a unit for each picture, (n,).
        seeds: a seed for each picture, (n,).
    """

    model: Model
    layer: str
    units: np.ndarray
    seeds: np.ndarray

    @property
    def vectors(self) -> bool:
        """Whether these are class scores."""
        return self.layer == "logits"

    @property
    def objective(self) -> fv.Objective:
        """What is maximised, a picture each."""
        return fv.Logit(self.units) if self.vectors else fv.Channel(self.layer, self.units)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores of clean pictures, (n,)."""
        return np.asarray(self.objective(self.model(images), images))


@dataclass(frozen=True)
class Ran:
    """What a setting gave.

    Attributes:
        steps: after which there are scores, (k,).
        seconds: until then, of all pictures together, (k,).
        scores: of the clean pictures, (k, n).
        images: the last, (n, h, w, c).
    """

    steps: np.ndarray
    seconds: np.ndarray
    scores: np.ndarray
    images: np.ndarray


def ran(case: Case, stages: Sequence[Stage], side: int, asked: Sequence[int]) -> Ran:
    """Takes the steps of a setting; a stage's time is spread evenly over its steps."""
    result, done, clock = None, 0, 0.0
    found: list[tuple[int, float, np.ndarray]] = []
    for stage in stages:
        small = round(side * stage.share)
        run = functools.partial(
            fv.synthesize, case.model, case.objective, fv.Fourier((small, small)), init=result,
            seed=case.seeds.tolist(), progress=False, **stage.options,
        )  # fmt: skip
        run(steps=1)  # compiles
        # Of a smaller picture there is no score that can be compared.
        here = [k - done for k in asked if done < k <= done + stage.steps and stage.share == 1]
        started = time.perf_counter()
        result = run(steps=stage.steps, snapshots=here)
        each = (time.perf_counter() - started) / stage.steps
        for k in here:
            found.append((done + k, clock + each * k, case.scores(result.snapshots[done + k])))
        done, clock = done + stage.steps, clock + each * stage.steps
    assert result is not None
    steps, seconds, scores = (np.array(part) for part in zip(*found, strict=True))
    return Ran(steps, seconds, scores, result.images)


def kept(path: Path, case: Case, stages: Sequence[Stage], side: int, asked: Sequence[int]) -> Ran:
    """What `ran` gives, from its file where it is there."""
    return Ran(**studies.kept(path, lambda: vars(ran(case, stages, side, asked))))


# ---- what they are worth -------------------------------------------------------------------


def reached(found: Ran, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps and seconds after which each picture has its mark, (n,); inf where it has it never."""
    there = found.scores >= marks
    first = there.argmax(0)
    never = ~there.any(0)
    return (
        np.where(never, np.inf, found.steps[first]),
        np.where(never, np.inf, found.seconds[first]),
    )


def median(values: np.ndarray) -> str:
    """The middle one, which may be none."""
    middle = float(np.median(values))
    return f"{middle:.3g}" if np.isfinite(middle) else "never"


def recognised(cases: Sequence[tuple[Case, Ran]], models: Sequence[Model]) -> list[str]:
    """Shares that the other networks put first and among their five first, of class pictures."""
    first, five = [], []
    for case, found in cases:
        for judge in models:
            if judge is not case.model:
                of = standing(judged(judge, found.images), places_of(case.model, judge, case.units))
                first.extend(of.rank <= 1)
                five.extend(of.rank <= 5)
    return [f"{np.mean(one):.2f}" if one else "" for one in (first, five)]


def cases_of(models: Sequence[Model], side: int, units: int, seeds: int) -> list[Case]:
    """Layers of every network, and units of each with several seeds."""
    rng, found = np.random.default_rng(0), []
    for model in models:
        shapes = model.layers((side, side))
        # What a block adds to its input takes all values: no unit of it is dead.
        maps = [name for name, shape in shapes.items() if len(shape) == 3 and "/" not in name]
        layers = [maps[round(share * (len(maps) - 1))] for share in DEPTHS]
        for layer in [*layers, "logits"]:
            choice = range(shapes[layer][-1])
            if layer == "logits":
                others = [one for one in models if one is not model]
                choice = [n for n in range(1000) if all(has(model, one, n) for one in others)]
            drawn = np.sort(rng.choice(choice, units, replace=False))
            found.append(
                Case(model, layer, np.repeat(drawn, seeds), np.tile(np.arange(seeds), units))
            )
    return found


def main() -> None:
    """Runs every setting on every case and writes the report."""
    line = studies.CommandLine(
        __doc__, "time_to_quality", needs=("matplotlib",), quick="two units, 32 steps, 64 x 64"
    )
    line.add_argument("--network", action="append", help="NAME or NAME=WEIGHTS; again for others")
    line.add_argument("--only", action="append", help="a setting, by name; again for others")
    line.add_argument("--size", type=int, default=96, help="of the pictures, in pixels")
    line.add_argument("--units", type=int, default=8, help="of each layer")
    line.add_argument("--seeds", type=int, default=3, help="of each unit")
    options, started = line.read(), time.perf_counter()
    side, units, seeds = (64, 2, 1) if options.quick else (
        options.size, options.units, options.seeds
    )  # fmt: skip
    steps, mark_steps = (32, 64) if options.quick else (STEPS, MARK_STEPS)
    models = [loaded(text) for text in options.network or ["efficientnet_lite0"]]
    for model in models[1:]:
        check_judge(models[0], model)
    wanted = options.only or list(settings(False, steps))
    if unknown := {*wanted} - {*settings(False, steps)}:
        raise fv.InputError(f"no setting {min(unknown)!r}: {', '.join(settings(False, steps))}")
    report = Report(options.out, (__doc__ or "").partition("\n")[0])
    cases = cases_of(models, side, units, seeds)
    about = f"{side}-{steps}-{units}-{seeds}"
    marks, by_setting = [], dict[str, list[tuple[Case, Ran]]]()
    for case in cases:
        place = options.out / "made" / about / case.model.name / part_of_name(case.layer)
        lucid = [Stage(mark_steps, settings(case.vectors, mark_steps)["lucid's"][0].options)]
        mark = kept(place / "mark.npz", case, lucid, side, [mark_steps])
        marks.append(mark.scores[-1])
        for name in wanted:
            stages = settings(case.vectors, steps)[name]
            asked = [k for k in ASKED if k <= sum(stage.steps for stage in stages)]
            found = kept(place / f"{part_of_name(name)}.npz", case, stages, side, asked)
            by_setting.setdefault(name, []).append((case, found))
        print(case.model.name, case.layer, f"{time.perf_counter() - started:.0f} s", flush=True)
    for title, of in (("maps", False), ("class scores", True)):
        rows = []
        for name, found in by_setting.items():
            some = [(c, f, m) for (c, f), m in zip(found, marks, strict=True) if c.vectors is of]
            both = [reached(f, m) for _, f, m in some]
            taken, seconds = (np.concatenate(part) for part in zip(*both, strict=True))
            last = np.concatenate([f.scores[-1] / m for _, f, m in some])
            row = [name, len(taken), f"{np.isfinite(taken).mean():.2f}", median(taken)]
            row += [median(1e3 * seconds / (units * seeds)), f"{np.median(last):.2f}"]
            row += recognised([(c, f) for c, f, _ in some], models) if of else []
            rows.append(row)
            print(title, *rows[-1], sep="  ")
        header = ["setting", "pictures", "reach it", "steps", "ms a picture", "last, in marks"]
        report.heading(title)
        report.table(
            header + (["top 1", "top 5"] if of else []), rows,
            caption=f"{side} x {side}, {units} units a layer, {seeds} seeds: shares of pictures "
            f"that reach the clean score of lucid's recipe after {mark_steps} steps, the median of "
            "the steps and of the time until then, and the last clean score in units of that mark; "
            "shares that the other networks put first and among their five first.",
        )  # fmt: skip
    studies.finish(started, report.write(arguments=options, seconds=time.perf_counter() - started))


if __name__ == "__main__":
    studies.run(main)
