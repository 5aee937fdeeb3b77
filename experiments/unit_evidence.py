"""How far beyond natural images do feature visualizations drive their units, layer by layer?

Paper: Olah et al. 2017, "Feature Visualization" (Distill), for the pictures; the comparison with
natural images is the control that Geirhos et al. 2023, "Don't trust your eyes", ask for.
Command: python experiments/unit_evidence.py PHOTOGRAPHS -o OUT   (or without PHOTOGRAPHS, on the
    pictures that scikit-image carries; --quick for a first look)
Runtime: 2 min 10 s on two CPU cores with 800 photographs; --quick 30 s.
What it showed: with 800 ImageNet photographs, EfficientNet-Lite0, four units a layer at 160 x 160
    and 200 steps, every picture is above every photograph (percentile 100): 7 to 24 standard
    deviations above the mean photograph, where the best photograph is 2.7 to 9. Two seeds differ by
    0.2 to 2.2 % of the score up to block15 (medians) and by 4 % at the logits. So the pictures are
    far outside what the units meet: they show what drives a unit, not what it responds to in use.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import studies

import featvis as fv
from featvis.images import image_files
from featvis.pictures import grid, to_picture

LAYERS = ("block2", "block4", "block8", "block10", "block15", "logits")


def bundled_photographs(folder: Path) -> Path:
    """The colour photographs that scikit-image carries, written to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = studies.bundled_pictures(("astronaut", "chelsea", "coffee", "rocket"))
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return folder


def study(
    photographs: Path, layers: tuple[str, ...], units: int, size: int, steps: int, seeds: int
) -> tuple[list[dict[str, float | str]], list[np.ndarray]]:
    """One row of figures and one picture for each unit, `units` of them drawn from each layer."""
    model = fv.load("efficientnet_lite0")
    widths = {name: shape[-1] for name, shape in model.layers((size, size)).items()}
    rng = np.random.default_rng(0)
    rows: list[dict[str, float | str]] = []
    pictures = []
    for layer in layers:
        chosen = np.sort(rng.choice(widths[layer], units, replace=False))
        sheet = fv.Logit(chosen) if layer == "logits" else fv.Channel(layer, chosen)
        result = fv.synthesize(model, sheet, fv.Fourier((size, size)), steps=steps)
        result = fv.compare_with_natural(result, photographs)
        result = fv.vary_seed(result, seeds)
        for i, unit in enumerate(chosen):
            figures = {name: float(values[i]) for name, values in result.evidence.items()}
            rows.append({"layer": layer, "unit": f"{layer}:{unit}", **figures})
            pictures.append(result.images[i])
    return rows, pictures


def main() -> None:
    """Runs the study and writes its figures, its pictures and its plot."""
    line = studies.CommandLine(
        __doc__, "unit_evidence", folder="natural images", bundled="scikit-image",
        needs=("matplotlib",), quick="two layers, two units, few steps",
    )  # fmt: skip
    options, started = line.read(), time.perf_counter()
    photographs = options.folder or bundled_photographs(options.out / "photographs")
    if options.quick:
        rows, pictures = study(photographs, ("block4", "block8"), 2, 96, 64, 2)
    else:
        rows, pictures = study(photographs, LAYERS, 4, 160, 200, 2)

    (options.out / "figures.json").write_text(json.dumps(rows, indent=1) + "\n")
    columns = len(rows) // len({row["layer"] for row in rows})
    sheet = grid([to_picture(p) for p in pictures], [str(r["unit"]) for r in rows], columns=columns)
    sheet.save(options.out / "pictures.png")

    layers = list(dict.fromkeys(row["layer"] for row in rows))
    figure, axis = studies.pyplot().subplots(figsize=(7, 4), layout="constrained")
    print("standard deviations above the mean photograph, least to greatest of a layer's units")
    print("layer       pictures      best photograph  percentile  seeds differ by (median)")
    for place, layer in enumerate(layers):
        of_layer = [row for row in rows if row["layer"] == layer]
        picture, best, mean, std = (
            np.array([row[name] for row in of_layer], float)
            for name in ("unit_score", "natural_max", "natural_mean", "natural_std")
        )
        above, best = (picture - mean) / std, (best - mean) / std
        spread = np.median([row["seed_std"] / abs(row["seed_mean"]) for row in of_layer])
        percentile = np.median([row["percentile"] for row in of_layer])
        print(
            f"{layer:10}  {studies.spread(above, '.0f'):12}  {studies.spread(best, '.1f'):15}  "
            f"{percentile:10.3g}  {100 * spread:.1f} %"
        )
        axis.plot(np.full(len(above), place), above, "o", color="tab:blue", alpha=0.6)
        axis.plot(np.full(len(best), place), best, "x", color="tab:orange", alpha=0.6)
    axis.set_xticks(range(len(layers)), layers)
    axis.set_ylabel("standard deviations above the mean photograph")
    axis.legend(["pictures", "best photographs"])
    figure.savefig(options.out / "ratios.png", dpi=120)
    studies.finish(started, options.out, len(image_files(photographs)))


if __name__ == "__main__":
    studies.run(main)
