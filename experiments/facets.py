"""Do the pictures of a unit's facets show what different natural images excite it?

Paper: Nguyen, Yosinski & Clune 2016, "Multifaceted Feature Visualization: Uncovering the Different
    Types of Features Learned By Each Neuron in Deep Neural Networks".
Command: pip install ".[index,experiments]" && python experiments/facets.py PHOTOGRAPHS -o OUT
    (PHOTOGRAPHS: a folder; --judge a file of weights of mobilenet_v2_tf, for the independent
    network; --index a folder for the index, which is kept; --quick for one unit, small pictures)
Runtime: 9 min 7 s on two cores with much other work beside; a unit 24 to 89 s, the median 38;
    a unit of 4 facets 40 s with its programs compiled anew, the machine quiet. --quick 39 s of a
    quiet machine (52 s of a processor), nothing compiled before.
What it showed: 800 ImageNet photographs, EfficientNet-Lite0 at 160 x 160, four groups asked for of
    each of 12 units (four classes, four channels each of block12 and block15), of which 6 were too
    small: 42 facets. Each picture is above the median of its group's 15 most exciting photographs,
    up to 13 times, and nearest to its own group's centroid; to MobileNetV2, which took no part, 38
    of 42 (90 %) are nearest to their own group. The ambulance (407) has people in orange, cars,
    streets with lettering, and white boxes of trucks; channel 100 of block15 round lids and legs of
    spiders; the Egyptian cat (285) faces of cats, slender dogs with large ears, and brown animals
    in a wood. Where the number of groups is left open the codes of the 60 to 120 most exciting
    photographs have none that are clearly apart (silhouettes of 0.02 to 0.04, as by chance): of one
    photograph a class there are too few of any kind.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import studies

import featvis as fv
from featvis.images import image_files
from featvis.methods.clusters import distances
from featvis.methods.excited import code_layer, codes_of

UNITS = (
    *("logits:285", "logits:207", "logits:407", "logits:933"),
    *("block15:5", "block15:100", "block15:210", "block15:300"),
    *("block12:7", "block12:60", "block12:120", "block12:180"),
)


def nearest(codes: np.ndarray, images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The group whose mean code each picture's code is nearest to."""
    means = [images[groups == group].mean(0) for group in range(groups.max() + 1)]
    return np.asarray(distances(codes, np.stack(means)).argmin(1))


def main() -> None:
    """Makes the facets, has them judged, and writes a report."""
    line = studies.CommandLine(
        __doc__, "facets", folder="natural images", required=True,
        quick="one unit, small pictures, few steps",
    )  # fmt: skip
    line.add_argument("--index", type=Path, help="an index of the photographs, made if it is new")
    line.add_argument("--judge", type=Path, help="weights of mobilenet_v2_tf, which judges them")
    line.add_argument("--facets", type=int, default=4, help="facets of each unit")
    options, started = line.read(), time.perf_counter()
    size = 96 if options.quick else 160
    units = ("block15:100",) if options.quick else UNITS
    steps = 24 if options.quick else 128
    report = fv.Report(
        options.out,
        "What different natural images excite a unit",
        "Each row is a facet of a unit: the picture, and the photographs that it is of.",
    )
    model = fv.load("efficientnet_lite0")
    judge = fv.load("mobilenet_v2_tf", weights=str(options.judge)) if options.judge else None
    index = fv.index(
        model,
        options.folder,
        layers=("block12", "block15", "pool", "logits"),
        size=(size, size),
        out=options.index or options.out / "index",
    )
    warnings.simplefilter("ignore", fv.FacetWarning)
    header = ["unit", "facet", "share", "score", "images' score", "own centroid", "judge's own"]
    rows, seconds = [], []
    for unit in units:
        began = time.perf_counter()
        found = fv.facets(model, unit, index, options.facets, steps=steps, progress=False)
        seconds.append(time.perf_counter() - began)
        judged = np.full(len(found), -1)
        if judge is not None:
            layer = code_layer(judge, "", (size, size))
            codes = codes_of(judge, layer, found.images)
            natural = codes_of(judge, layer, found.excited.images)
            judged = nearest(codes, natural, found.groups)
        for i in range(len(found)):
            figures = float(found.shares[i]), float(found.scores[i]), float(found.natural[i])
            own = int(found.closest[i] == i), int(judged[i] == i)
            rows.append([unit, i, *figures, *own])
        name = unit.replace(":", "-")
        found.save(options.out / f"{name}-sheet.png", force=True)
        report.heading(unit)
        report.result(
            name,
            found.result,
            [f"{100 * share:.0f} % of the images" for share in found.shares],
            columns=len(found),
            caption=f"{unit}: {found!r}",
        )
        shown = [
            image
            for i in range(len(found))
            for image in (found.images[i], *found.excited.images[found.nearest[i][:5]])
            if len(found.nearest[i]) >= 5
        ]
        report.pictures(f"{name}-rows", shown, columns=6, caption="Each with its nearest images")
        print(unit, found, found.closest.tolist(), judged.tolist(), f"{seconds[-1]:.0f} s")
    figures = np.array([row[2:] for row in rows], float)
    shares = {
        "above the median of its images": np.mean(figures[:, 1] >= figures[:, 2]),
        "nearest to its own centroid": figures[:, 3].mean(),
        "nearest to its own group for the judge": figures[:, 4].mean() if judge else None,
        "facets": len(rows),
        "seconds a unit": float(np.median(seconds)),
    }
    report.heading("Figures")
    report.table(header, rows, "Scores are the unit's largest activation")
    print(shares)
    page = report.write(**shares, units=units, size=size, steps=steps, arguments=options)
    studies.finish(started, page, len(image_files(options.folder)))


if __name__ == "__main__":
    studies.run(main)
