"""How often are pictures of an honest network taken for those of one that deceives?

Papers: Geirhos et al. 2023, "Don't trust your eyes: on the (un)reliability of feature
visualizations", for other paths; Bareeva et al. 2024, "Manipulating Feature Visualizations with
Gradient Slingshots", for other starts.
Command: python experiments/trustworthiness.py PHOTOGRAPHS -o OUT   (--quick for a first look)
Runtime:
What it showed:
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import featvis as fv
from featvis.evidence.paths import paths
from featvis.evidence.trust import LEAST_OVERLAP, MOST_GAP
from featvis.pictures import grid, to_picture

LAYERS = ("block4", "block8", "block12", "logits")
#: What `trust` measures: from where a picture is suspect, and on which side.
BOUNDS = {"path_overlap": LEAST_OVERLAP, "start_overlap": LEAST_OVERLAP, "start_gap": MOST_GAP}


def study(
    photographs: Path, layers: tuple[str, ...], units: int, size: int, steps: int, starts: int
) -> tuple[list[dict[str, float | str]], list[np.ndarray], list[np.ndarray]]:
    """A row of evidence and a picture for each unit, and the curves of those of the last layer."""
    model = fv.load("efficientnet_lite0")
    widths = {name: shape[-1] for name, shape in model.layers((size, size)).items()}
    rng = np.random.default_rng(0)
    rows: list[dict[str, float | str]] = []
    pictures: list[np.ndarray] = []
    for layer in layers:
        began = time.perf_counter()
        chosen = np.sort(rng.choice(widths[layer], units, replace=False))
        sheet = fv.Logit(chosen) if layer == "logits" else fv.Channel(layer, chosen)
        result = fv.synthesize(model, sheet, fv.Fourier((size, size)), steps=steps)
        result = fv.trust(result, photographs, starts=starts)
        for i, unit in enumerate(chosen):
            figures = {name: float(values[i]) for name, values in result.evidence.items()}
            rows.append({"layer": layer, "unit": f"{layer}:{unit}", **figures})
        pictures.extend(result.images)
        seconds = time.perf_counter() - began
        suspect = int(np.sum(result.evidence["suspect"] > 0))
        print(f"{layer}: {suspect} of {units} suspect, {seconds:.0f} s", flush=True)
    curves = []
    for path in paths(result, photographs):
        own, best, random = path.similarity.T
        curves.append(np.stack([own - random, best - random]))
    return rows, pictures, curves


def tell(rows: list[dict[str, float | str]], curves: list[np.ndarray]) -> None:
    """Prints the distribution of each figure, and the curve of Geirhos et al. by thirds."""
    print("figure            least    5 %  median   95 %   most  beyond the bound")
    for name in ("path_overlap", "path_natural", "path_similarity", "start_overlap", "start_gap"):
        values = np.array([row[name] for row in rows if name in row], float)
        if not len(values):
            continue
        marks = np.nanpercentile(values, [0, 5, 50, 95, 100])
        beyond = ""
        if name in BOUNDS:
            far = np.abs(values) > BOUNDS[name] if name == "start_gap" else values < BOUNDS[name]
            beyond = f"{int(far.sum())} of {len(values)}"
        print(f"{name:16}" + "".join(f"{mark:7.2f}" for mark in marks) + f"  {beyond}")
    suspect = [str(row["unit"]) for row in rows if float(row["suspect"]) > 0]
    print(f"suspect: {len(suspect)} of {len(rows)} units {' '.join(suspect)}")
    own, best = np.mean(curves, axis=0)
    thirds = [
        a.sum() / b.sum() for a, b in zip(*(np.array_split(c, 3) for c in (own, best)), strict=True)
    ]
    print("similarity by thirds of the layers: " + ", ".join(f"{one:.2f}" for one in thirds))


def plot(rows: list[dict[str, float | str]], curves: list[np.ndarray], path: Path) -> None:
    """Draws the figures by layer, and the curve of the last layer's units."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    for name, mark in (("path_overlap", "o"), ("path_natural", "x"), ("start_overlap", "^")):
        places = [layers.index(row["layer"]) for row in rows if name in row]
        left.plot(places, [row[name] for row in rows if name in row], mark, alpha=0.5, label=name)
    left.axhline(LEAST_OVERLAP, color="black", lw=1)
    left.set_xticks(range(len(layers)), layers)
    left.set_ylim(0, None)
    left.legend()
    own, best = np.mean(curves, axis=0)
    right.plot(own, label="picture")
    right.plot(best, label="photographs that excite the unit")
    right.axhline(0, color="black", lw=1)
    right.set_xlabel("layer on the way to a class")
    right.set_ylabel("Spearman's correlation above any photograph's")
    right.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Runs the study and writes its figures, its pictures and its plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder of natural images")
    parser.add_argument("-o", "--out", type=Path, default=Path("trustworthiness"))
    parser.add_argument("--quick", action="store_true", help="one layer, two units, few steps")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    fv.enable_cache()
    warnings.simplefilter("ignore", fv.ConversionWarning)
    settings = (("block4",), 2, 64, 24, 2) if options.quick else (LAYERS, 25, 96, 64, 3)
    rows, pictures, curves = study(options.photographs, *settings)
    (options.out / "figures.json").write_text(json.dumps(rows, indent=1) + "\n")
    sheet = grid([to_picture(p) for p in pictures], [str(row["unit"]) for row in rows], settings[1])
    sheet.save(options.out / "pictures.png")
    plot(rows, curves, options.out / "figures.png")
    tell(rows, curves)


if __name__ == "__main__":
    main()
