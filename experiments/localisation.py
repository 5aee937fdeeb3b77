"""Does the gradient of a class's score say where the object is?

Paper: Simonyan et al. 2013, "Deep Inside Convolutional Networks", sections 3.1 and 3.2: saliency of
    the predicted class, graph cut of the colours of the most and least salient pixels, box of the
    largest part. Their 46.4 % top-5 error is of ILSVRC-2013, with another network: no figure here
    compares with it.
Command: pip install -e ".[experiments]" && python experiments/localisation.py FOLDER -o OUT
    (FOLDER: photographs, beside each NAME.jpg the boxes in NAME.txt, a line of `class left top
    right bottom` each, pixels counted from 1, right and bottom included; without it, on four
    pictures of scikit-image with the boxes below, drawn by hand; --quick for a first look)
Runtime: 6 min of processor time with 64 photographs (13 min on two cores with much else running);
    --quick 25 s with a folder, 50 s without.
What it showed: on 64 indoor scenes of some eight objects each (EfficientNet-Lite0, its top class,
    longest side 320) the IoU of the box with the largest object, mean ± 1.96 standard errors, is
    0.45 ± 0.07 for the logit, 0.44 ± 0.08 for the log-probability and 0.46 ± 0.08 for the mean map
    of ten views, where the whole picture has 0.37 ± 0.04, a centre box of the mean area 0.32 ± 0.04
    and a map of noise 0.22 ± 0.06; above 0.5 are 39, 38, 45, 19, 17 and 12 % of the pictures. But
    the logit of another class, drawn at random, has 0.40 ± 0.08: picture by picture the predicted
    class is better by 0.05 ± 0.07 only, with ten views by 0.06 ± 0.06. So most of the fit is of
    what any class attends to. The maps know the class a little: in the objects of a class that is
    not the predicted one its own map is 1.16 ± 0.06 times its mean, the predicted class's 0.97 ±
    0.04 times (252 pairs); the boxes found for such a class hardly fit it (0.13, the whole picture
    0.10). How the cut uses the map decides more: as in the paper the most and the least salient
    pixels give colours alone; as seeds of the cut the IoU is 0.17 (picture by picture 0.28 ± 0.07
    less). A Gaussian blur helps the seeds (0.31) and harms the colours (0.30); five iterations of
    GrabCut change nothing (0.45). The pictures: maps are bright on bright, even surfaces and dark
    along edges. An armchair, a set table and a cup with its saucer are cut out well; of a rocket at
    dusk it is the sky, of a cat's face one eye, of a bed the wall behind it. All scenes are of one
    flat and many are alike, so that the true errors are larger.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import studies
from PIL import Image, ImageDraw

import featvis as fv
from featvis.attribution.localisation import Box, bounding_box, box_iou, centre_box, segment
from featvis.images import image_files
from featvis.pages import Report
from featvis.pictures import to_picture

#: By hand, in pixels of scikit-image's pictures.
BUNDLED = {
    "chelsea": [("cat", Box(0, 0, 400, 300))],
    "coffee": [("cup", Box(173, 16, 409, 306)), ("cup and saucer", Box(78, 16, 479, 386))],
    "rocket": [("rocket", Box(307, 126, 337, 408))],
    "astronaut": [
        ("person", Box(22, 15, 366, 512)),
        ("space shuttle", Box(355, 0, 458, 288)),
        ("helmet", Box(279, 344, 512, 512)),
    ],
}
#: What ImageNet calls the classes of boxes that it has; the network's favourite of them is taken.
NAMES = {
    "backpack": ("backpack",),
    "bed": ("four-poster",),
    "bookcase": ("bookcase",),
    "bottle": ("water bottle", "wine bottle"),
    "bowl": ("mixing bowl", "soup bowl"),
    "cabinetry": ("wardrobe", "file", "medicine chest"),
    "cat": ("tabby", "tiger cat", "Egyptian cat"),
    "chair": ("folding chair", "rocking chair"),
    "cup": ("cup", "coffee mug", "espresso"),
    "diningtable": ("dining table",),
    "door": ("sliding door",),
    "heater": ("space heater", "radiator"),
    "pillow": ("pillow",),
    "pottedplant": ("pot",),
    "remote": ("remote control",),
    "rocket": ("missile", "projectile"),
    "sink": ("washbasin",),
    "sofa": ("studio couch",),
    "space shuttle": ("space shuttle",),
    "tvmonitor": ("television", "monitor", "screen"),
    "vase": ("vase",),
    "wastecontainer": ("ashcan",),
    "windowblind": ("window shade",),
}
#: Sides are scaled to multiples of so many pixels, so that most pictures share a compiled program.
GRID = 16
BLUR = 4.0


class Scene(NamedTuple):
    """A photograph (h, w, 3) and the objects in it, boxes in its pixels."""

    name: str
    image: np.ndarray
    objects: list[tuple[str, Box]]

    @property
    def largest(self) -> Box:
        """The box of the largest object."""
        return max(self.all_boxes, key=lambda box: box.area)

    @property
    def all_boxes(self) -> list[Box]:
        """The boxes of all objects."""
        return [box for _, box in self.objects]

    @property
    def area(self) -> int:
        """Pixels of the picture."""
        return self.image.shape[0] * self.image.shape[1]


def scaled(name: str, image: np.ndarray, objects: list[tuple[str, Box]], longest: int) -> Scene:
    """A scene of that longest side; either side may be off its proportion by half of `GRID`."""
    height, width = image.shape[:2]
    h, w = (round(side * longest / max(height, width) / GRID) * GRID for side in (height, width))
    resized = to_picture(image).resize((w, h), Image.Resampling.BICUBIC)
    factors = np.array([w / width, h / height] * 2)
    boxes = [(kind, Box(*(np.array(box) * factors).tolist())) for kind, box in objects]
    return Scene(name, np.asarray(resized, np.float32) / 255, boxes)


def bundled(longest: int) -> list[Scene]:
    """The pictures that scikit-image carries, with the boxes above."""
    pictures = studies.bundled_pictures([*BUNDLED])
    images = {name: np.float32(picture) / 255 for name, picture in pictures.items()}
    return [scaled(name, image, BUNDLED[name], longest) for name, image in images.items()]


def read_scenes(folder: Path, longest: int, count: int | None) -> list[Scene]:
    """The photographs of a folder that have boxes; what lies beyond the picture is cut off."""
    scenes = []
    for path in image_files(folder)[:count]:
        image = fv.read_image(path)
        height, width = image.shape[:2]
        objects = []
        try:
            for line in path.with_suffix(".txt").read_text(encoding="utf-8").splitlines():
                kind, *sides = line.split()
                left, top, right, bottom = map(int, sides)
                box = Box(left - 1, top - 1, min(right, width), min(bottom, height))
                objects.append((kind, box))
        except (OSError, ValueError) as error:
            raise fv.InputError(
                f"{path.with_suffix('.txt')} must have lines `class left top right bottom`: {error}"
            ) from error
        if objects:
            scenes.append(scaled(path.stem, image, objects, longest))
    if len(scenes) < 2:
        raise fv.InputError(f"{folder} must have two or more photographs with boxes")
    return scenes


# ---- saliency and boxes --------------------------------------------------------------------


def saliency(model: fv.Model, objective: fv.Objective, image: np.ndarray) -> np.ndarray:
    """The map (n, h, w) of the largest |d score / d image| over the colours."""
    return fv.explain(model, objective, image, "saliency").maps


def views(model: fv.Model, objective: fv.Objective, image: np.ndarray) -> np.ndarray:
    """Mean saliency over the corners and the centre, each 7/8 of the picture, and their mirrors."""
    height, width = image.shape[:2]
    h, w = height * 7 // 8, width * 7 // 8
    total, seen = np.zeros((height, width)), np.zeros((height, width))
    middle = ((height - h) // 2, (width - w) // 2)
    for top, left in ((0, 0), (0, width - w), (height - h, 0), (height - h, width - w), middle):
        place = slice(top, top + h), slice(left, left + w)
        for flip in (1, -1):
            total[place] += saliency(model, objective, image[place][:, ::flip])[0, :, ::flip]
            seen[place] += 1
    return total / seen


def blurred(relevance: np.ndarray) -> np.ndarray:
    """A map under a Gaussian of `BLUR` pixels."""
    import cv2

    return cv2.GaussianBlur(relevance.astype(np.float32), (0, 0), BLUR)


def mask_of(image: np.ndarray, relevance: np.ndarray, **options: Any) -> np.ndarray:
    """The object that is found, (h, w) of bool; empty where the cut leaves nothing."""
    try:
        return segment(image, relevance, **options)
    except fv.InputError:
        return np.zeros(image.shape[:2], bool)


def box_of(mask: np.ndarray) -> Box | None:
    """The box of a mask; None for an empty one."""
    return bounding_box(mask) if mask.any() else None


def best_iou(box: Box | None, truths: list[Box]) -> float:
    """IoU with the box that it fits best; 0 for no box."""
    return 0.0 if box is None else max(box_iou(box, truth) for truth in truths)


def interval(values: Sequence[float] | np.ndarray) -> str:
    """Mean ± the half-width of its 95 % interval."""
    return f"{np.mean(values):.3f} ± {1.96 * np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


class Found(NamedTuple):
    """What came of a scene: the scores of all classes, maps by score, masks and boxes by method."""

    scene: Scene
    scores: np.ndarray
    maps: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    boxes: dict[str, Box | None]

    @property
    def top(self) -> int:
        """The predicted class."""
        return int(self.scores.argmax())


def localise_predicted(
    model: fv.Model, scene: Scene, fraction: float, rng: np.random.Generator
) -> Found:
    """Boxes for the predicted class by every method."""
    image = scene.image
    scores = np.asarray(model(image[None])["logits"])[0]
    top = int(scores.argmax())
    other = int(rng.choice(np.delete(np.arange(len(scores)), top)))
    maps = {
        "logit": saliency(model, fv.Logit(top), image)[0],
        "log-probability": saliency(model, fv.LogProbability(top), image)[0],
        "ten views": views(model, fv.Logit(top), image),
        "another class": saliency(model, fv.Logit(other), image)[0],
        "another class, ten views": views(model, fv.Logit(other), image),
        "noise": rng.uniform(size=image.shape[:2]),
    }
    cut = functools.partial(mask_of, image)
    masks = {name: cut(relevance) for name, relevance in maps.items()}
    for name in ("logit", "ten views", "noise"):
        masks[f"{name}, blurred"] = cut(blurred(maps[name]))
    masks["logit, 5 iterations"] = cut(maps["logit"], iterations=5)
    for name in ("logit", "ten views", "noise"):
        masks[f"{name}, fixed"] = cut(maps[name], fixed=True)
    masks["logit, blurred, fixed"] = cut(blurred(maps["logit"]), fixed=True)
    boxes: dict[str, Box | None] = {
        "whole picture": centre_box(image.shape[:2], 1),
        "centre": centre_box(image.shape[:2], fraction),
        **{name: box_of(mask) for name, mask in masks.items()},
    }
    return Found(scene, scores, maps, masks, boxes)


# ---- the report ----------------------------------------------------------------------------


def report_predicted(report: Report, found: list[Found], fraction: float) -> None:
    """How well the boxes for the predicted class fit."""
    largest, best = {}, {}
    rows = []
    for name in found[0].boxes:
        largest[name] = np.array([best_iou(one.boxes[name], [one.scene.largest]) for one in found])
        best[name] = np.array([best_iou(one.boxes[name], one.scene.all_boxes) for one in found])
        areas = [box.area / one.scene.area if (box := one.boxes[name]) else 0 for one in found]
        rows.append(
            [
                name,
                *(interval(largest[name]), np.mean(largest[name] > 0.5)),
                *(interval(best[name]), np.mean(best[name] > 0.5)),
                np.mean(areas),
            ]
        )
        print("{:24} {}  {:.2f}   {}  {:.2f}   {:.2f}".format(*rows[-1]))
    report.heading("Of the predicted class")
    report.table(
        ["method", "IoU, largest object", "above 0.5", "IoU, best of all", "above 0.5", "area"],
        rows,
        caption=f"{len(found)} pictures: IoU, mean ± 1.96 standard errors, and the share of "
        "pictures above 0.5, with the largest object and with the one that fits best (easier, the "
        f"more there are); the share of the picture in the box. The centre box is {fraction:.2f} "
        "of the sides, the root of the mean area of the largest objects. Ten views: the mean map "
        "of five crops and their mirrors. Another class: its logit, one drawn for each picture. "
        f"Blurred: a Gaussian of {BLUR:g} pixels. Fixed: the most and the least salient pixels are "
        "seeds of the cut, where else they give its colours.",
    )
    pairs = (
        ("logit", "whole picture"),
        ("logit", "another class"),
        ("ten views", "whole picture"),
        ("ten views", "another class, ten views"),
        ("logit", "logit, fixed"),
        ("logit", "log-probability"),
    )
    differences = [
        [f"{a} - {b}", interval(largest[a] - largest[b]), interval(best[a] - best[b])]
        for a, b in pairs
    ]
    report.table(
        ["difference, picture by picture", "IoU, largest object", "IoU, best of all"],
        differences,
        caption="Of each picture, the first method less the second; mean ± 1.96 standard errors.",
    )
    for row in differences:
        print("{:40} {}   {}".format(*row))
    plt = studies.pyplot()
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    thresholds = np.linspace(0, 1, 101)
    for name in ("whole picture", "centre", "another class", "logit, fixed", "logit", "ten views"):
        above = [np.mean(largest[name] > threshold) for threshold in thresholds]
        axis.plot(thresholds, above, label=name)
    axis.set_xlabel("IoU with the largest object")
    axis.set_ylabel("share of the pictures above it")
    axis.legend()
    caption = "The share of the pictures whose box fits the largest object better than that."
    report.figure("iou", figure, caption)
    plt.close(figure)


def report_given(report: Report, model: fv.Model, found: list[Found]) -> None:
    """Whether the map of a class goes to its objects more than the map of the predicted class."""
    labels = model.labels or ()
    rows = []
    for one in found:
        image, predicted = one.scene.image, one.maps["logit"]
        for kind in dict.fromkeys(kind for kind, _ in one.scene.objects):
            known = [labels.index(name) for name in NAMES.get(kind, ())]
            if not known or one.top in known:
                continue
            truths = [box for other, box in one.scene.objects if other == kind]
            own = saliency(model, fv.Logit(max(known, key=one.scores.__getitem__)), image)[0]
            inside = np.zeros(own.shape, bool)
            for box in truths:
                left, top, right, bottom = np.round(box).astype(int)
                inside[top:bottom, left:right] = True
            rows.append(
                [relevance[inside].mean() / relevance.mean() for relevance in (own, predicted)]
                + [
                    best_iou(box, truths)
                    for box in (
                        box_of(mask_of(image, own)),
                        one.boxes["logit"],
                        one.boxes["whole picture"],
                    )
                ]
            )
    if len(rows) < 2:
        return
    density, density_predicted, iou, iou_predicted, iou_whole = np.array(rows).T
    table = [
        ["the class's own", interval(density), interval(iou)],
        ["the predicted class's", interval(density_predicted), interval(iou_predicted)],
        ["own - predicted", interval(density - density_predicted), interval(iou - iou_predicted)],
        ["none: the whole picture", "1", interval(iou_whole)],
    ]
    report.heading("Of a class that is there and is not the predicted one")
    report.table(
        ["saliency", "inside its boxes", "IoU"],
        table,
        caption=f"{len(rows)} pairs of a picture and a class: the mean saliency in the class's "
        "boxes by that in the picture (1: it does not know of them), and the IoU of the box found "
        "with the object of the class that it fits best; mean ± 1.96 standard errors.",
    )
    print(f"{len(rows)} pairs: saliency inside, IoU")
    for row in table:
        print("{:24} {}   {}".format(*row))


def report_pictures(report: Report, model: fv.Model, found: list[Found], count: int) -> None:
    """Photographs with boxes, maps and masks, evenly from the best box to the worst."""
    ious = [best_iou(one.boxes["logit"], one.scene.all_boxes) for one in found]
    order = np.argsort(ious)[::-1]
    report.heading("From the best to the worst")
    report.text("Green: the objects. Red: the box found. Blue: the centre box.")
    for place in np.unique(np.linspace(0, len(order) - 1, count).round().astype(int)):
        one = found[order[place]]
        picture = to_picture(one.scene.image)
        draw = ImageDraw.Draw(picture)
        for colour, boxes in (
            ("lime", one.scene.all_boxes),
            ("deepskyblue", [one.boxes["centre"]]),
            ("red", [one.boxes["logit"]]),
        ):
            for box in boxes:
                if box is not None:
                    left, top, right, bottom = box
                    draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)
        shown = [np.asarray(picture, np.float32) / 255]
        for name in ("logit", "ten views"):
            relevance = np.minimum(one.maps[name] / np.quantile(one.maps[name], 0.99), 1)
            shown.append(np.repeat(relevance[..., None], 3, axis=-1))
        shown.append(one.scene.image * np.where(one.masks["logit"], 1, 0.2)[..., None])
        label = model.labels[one.top] if model.labels else str(one.top)
        report.pictures(
            one.scene.name,
            shown,
            ["boxes", "saliency", "of ten views", "cut"],
            columns=4,
            caption=f"{one.scene.name}: {label}, IoU {ious[order[place]]:.2f}",
        )


def main() -> None:
    """Localises, measures and writes the report."""
    line = studies.CommandLine(
        __doc__, "localisation", folder="photographs with boxes", bundled="scikit-image",
        needs=("opencv-python-headless", "matplotlib"), quick="four small pictures",
        seed="the noise and the other classes",
    )  # fmt: skip
    options, started = line.read(), time.perf_counter()
    model = fv.load("efficientnet_lite0")
    longest, count = (160, 4) if options.quick else (320, None)
    if options.folder is None:
        scenes = bundled(longest)
    else:
        scenes = read_scenes(options.folder, longest, count)
    # A prior of the area, the same for all pictures.
    fraction = float(np.sqrt(np.mean([scene.largest.area / scene.area for scene in scenes])))
    rng = np.random.default_rng(options.seed)
    found = [localise_predicted(model, scene, fraction, rng) for scene in scenes]
    report = Report(options.out, (__doc__ or "").partition("\n")[0])
    report_predicted(report, found, fraction)
    report_given(report, model, found)
    report_pictures(report, model, found, 12)
    page = report.write(arguments=options, seconds=time.perf_counter() - started)
    studies.finish(started, page, len(scenes))


if __name__ == "__main__":
    studies.run(main)
