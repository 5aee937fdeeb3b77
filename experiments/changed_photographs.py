"""Do caricatures exaggerate more by their strength, do accentuations stay nearer by their weight?

Papers: Mahendran & Vedaldi, IJCV 2016, section 6 (caricatures); Hamblin et al. 2024, "Feature
    Accentuation". The network is another than the papers': their pictures do not compare exactly.
Command: pip install . && python experiments/changed_photographs.py PHOTOGRAPHS -o OUT
    (PHOTOGRAPHS: a folder, of which the first eight, evenly spread, are taken; --size and --steps
    for other pictures than 96 x 96; --quick for two photographs and few steps)
Runtime: about 10 minutes on two cores with much other work beside.
What it showed: caricatures at 0.25, 1 and 4: agreement 1.21, 1.28, 1.33 at block4, 1.28, 1.34,
    1.37 at block6 and 1.28, 1.32, 1.35 at block10, the distance 34, 28, 24, then 33, 29, 25 and 34,
    29, 26 dB; in 8 of 8 photographs agreement rises and the distance grows at each of the five
    strengths (at block10 of these three), and the contrast stays within 0.2 %. Edges and textures
    are exaggerated, colours are not; at block10 eyes, noses and fins too. The top class of these
    small pictures is the photograph's in 2, 2 and 1 of 8 at block10. The accentuation of a daisy in
    two photographs (a cock and a goldfish, 60 steps, 8 draws): distance 0.97 and 0.85 at the weight
    0.1, 0.75 and 0.51 at 1, 0.35 and 0.19 at 1.5, 0.06 and 0.02 at 10, 90 and 147 dB at 10^6.
    Daisies grow on both up to a weight of 1; from 1.5 on there are none.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import studies
from PIL import Image

import featvis as fv
from featvis.images import image_files, read_images

LAYERS, STRENGTHS = ("block4", "block6", "block10"), (0.25, 0.5, 1.0, 2.0, 4.0)
UNIT, KEPT, WEIGHTS = "logits:985", "block8", (0.1, 0.3, 1.0, 3.0, 1e6)


def monotone(values: np.ndarray, sign: int) -> str:
    """How many of the photographs, (settings, n), rise (1) or fall (-1) all along."""
    good = np.all(sign * np.diff(values, axis=0) > 0, axis=0)
    return f"{good.sum()} of {good.size}"


def contrast(images: np.ndarray) -> np.ndarray:
    """Standard deviation over the pixels, mean over the colours, (n,)."""
    return np.asarray(images.std(axis=(1, 2)).mean(axis=1))


def sheet(rows: list[np.ndarray], path: Path) -> None:
    """Saves images, rows of (n, h, w, 3), as one picture."""
    whole = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray((whole * 255).round().astype(np.uint8)).save(path)


def main() -> None:
    """Makes the pictures, prints their figures and saves sheets of them, the photographs on top."""
    line = studies.CommandLine(
        __doc__, "changed_photographs", folder="natural images", required=True,
        quick="two photographs, one layer, few steps",
    )  # fmt: skip
    line.add_argument("--size", type=int, default=96, help="the side in pixels")
    line.add_argument("--steps", type=int, help="steps of a caricature; by default the preset's")
    line.add_argument("--draws", type=int, default=8, help="draws of an accentuation's step")
    options, started = line.read(), time.perf_counter()
    model = fv.load("efficientnet_lite0")
    files = image_files(options.folder)
    count = 2 if options.quick else 8
    files = [files[place] for place in np.linspace(0, len(files) - 1, count).astype(int)]
    images = np.asarray(read_images(files, (options.size, options.size)))
    layers, strengths, weights, steps, draws = (
        LAYERS,
        STRENGTHS,
        WEIGHTS,
        options.steps,
        options.draws,
    )
    if options.quick:
        layers, strengths, weights, steps, draws = LAYERS[1:2], STRENGTHS[::2], WEIGHTS[::2], 20, 2

    for layer in layers:
        made = [
            fv.caricature(model, layer, images, strength=strength, steps=steps, progress=False)
            for strength in strengths
        ]
        agreement, psnr = (
            np.array([one.evidence[name] for one in made]) for name in ("agreement", "psnr")
        )
        print(f"{layer}: strength, agreement (least, greatest), psnr, contrast, same class")
        for strength, one, a, p in zip(strengths, made, agreement, psnr, strict=True):
            ratio = contrast(one.images) / contrast(images)
            print(
                f"{strength:5g}  {a.mean():.3f} ({a.min():.3f}, {a.max():.3f})  {p.mean():.1f} dB  "
                f"{ratio.min():.3f} to {ratio.max():.3f}  {one.evidence['same_class'].mean():.2f}",
                flush=True,
            )
        rises, falls = monotone(agreement, 1), monotone(psnr, -1)
        print(f"agreement rises all along in {rises}, psnr falls in {falls}", flush=True)
        sheet([images, *(one.images for one in made)], options.out / f"caricature_{layer}.png")

    few = images[:2]
    steps = 10 if options.quick else 60
    accentuated = [
        fv.accentuate(
            model, UNIT, few, layer=KEPT, keep=weight, steps=steps, draws=draws,
            progress=False,
        )
        for weight in weights
    ]  # fmt: skip
    print(f"{UNIT}, kept at {KEPT}: weight, score, distance, psnr of each photograph")
    for weight, one in zip(weights, accentuated, strict=True):
        for name in ("score", "distance", "psnr"):
            print(f"{weight:8g}  {name:8}", *(f"{v:9.4g}" for v in one.evidence[name]), flush=True)
    sheet([few, *(one.images for one in accentuated)], options.out / "accentuated.png")
    studies.finish(started, options.out, len(images))


if __name__ == "__main__":
    studies.run(main)
