"""What does the border that a transform looks beyond leave on a picture: a frame of one pixel?

Paper: Olah et al. 2017, "Feature Visualization" (Distill), whose transforms move a picture about in
    a grey frame at every step; here its edge goes on beyond it, or it is mirrored.
Command: python experiments/borders.py -o OUT   (--size and --steps for others than 160 and 200;
    --quick for two layers and few steps)
Runtime: 4 min of processor time on two cores, 8 min with much other work beside.
What it showed: twelve units of EfficientNet-Lite0, 160 x 160, 200 steps, seed 0. Where the edge
    goes on, the second differences along the outermost rows are 2.06 times those of the four next
    to them (1.5 to 2.5, and across the rows 1.67 times): a frame of one pixel, in other colours.
    Mirrored they are 0.79 times (0.70 to 0.90, and 0.98 across), and no frame is seen in the
    corners. The clean scores are 1.1 % higher with the mirror: 0.8 % lower in block2 to block6, 2
    to 4 % higher at block8, block10 and the logits. (Mirrored about the outer edges of its pixels,
    where the outermost are seen twice, it was 1.19 and 1.08: a trace of a frame.)
"""

from __future__ import annotations

import time

import numpy as np
import studies
from PIL import Image

import featvis as fv
from featvis.transforms import RandomAffine

LAYERS = ("block2", "block4", "block6", "block8", "block10", "logits")
BORDERS = ("edge", "reflect")
#: So many pixels of a corner are shown, each as so many.
_CORNER, _ZOOM = 34, 4


def units(model: fv.Model, layers: tuple[str, ...], size: int) -> tuple[fv.Objective, list[str]]:
    """Two units drawn from each layer as one objective of a batch, and their names."""
    widths = {name: shape[-1] for name, shape in model.layers((size, size)).items()}
    rng = np.random.default_rng(0)
    chosen = {layer: np.sort(rng.choice(widths[layer], 2, replace=False)) for layer in layers}
    terms = []
    for place, (layer, pair) in enumerate(chosen.items()):
        mine, index = np.zeros(2 * len(layers), np.float32), np.zeros(2 * len(layers), int)
        mine[2 * place : 2 * place + 2], index[2 * place : 2 * place + 2] = 1, pair
        terms.append(mine * (fv.Logit(index) if layer == "logits" else fv.Channel(layer, index)))
    whole = terms[0]
    for term in terms[1:]:
        whole = whole + term
    return whole, [f"{layer}:{unit}" for layer, pair in chosen.items() for unit in pair]


def frame(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Second differences at the border of (n, h, w, c), as many times those of the four rows next.

    Along the outermost row, and across it; means over the four sides, (n,) each.
    """
    turned = images.transpose(0, 2, 1, 3)
    along, across = [], []
    for rows in (images, images[:, ::-1], turned, turned[:, ::-1]):
        for ratios, axis in ((along, 2), (across, 1)):
            size = np.abs(np.diff(rows, 2, axis=axis)).mean((2, 3))
            ratios.append(size[:, 0] / size[:, 1:5].mean(axis=1))
    return np.mean(along, axis=0), np.mean(across, axis=0)


def corners(images: np.ndarray) -> np.ndarray:
    """The upper left corners of every second image, magnified, in a row."""
    shown = np.repeat(np.repeat(images[::2, :_CORNER, :_CORNER], _ZOOM, 1), _ZOOM, 2)
    return np.concatenate(list(np.pad(shown, ((0, 0), (0, 4), (0, 4), (0, 0)))), axis=1)


def main() -> None:
    """Synthesizes all units with each border, prints the table and saves the corners."""
    line = studies.CommandLine(__doc__, "borders", quick="two layers, few steps")
    line.add_argument("--size", type=int, default=160, help="the side in pixels")
    line.add_argument("--steps", type=int, default=200, help="steps of a picture")
    options, began = line.read(), time.perf_counter()
    model = fv.load("efficientnet_lite0")
    objective, names = units(model, LAYERS[1:4:2] if options.quick else LAYERS, options.size)
    steps = 40 if options.quick else options.steps
    rows, first = [], None
    for border in BORDERS:
        started = time.perf_counter()
        result = fv.synthesize(
            model, objective, fv.Fourier((options.size, options.size)), steps=steps,
            transform=RandomAffine(border=border), seed=[0] * len(names), progress=False,
        )  # fmt: skip
        first = result.clean_scores if first is None else first
        clean = result.clean_scores / first
        along, across = frame(result.images)
        print(f"{border}: along, across the outermost rows; clean score, of that of {BORDERS[0]}")
        for name, *figures in zip(names, along, across, clean, strict=True):
            print(f"  {name:12}", *(f"{figure:6.2f}" for figure in figures))
        means = (figures.mean() for figures in (along, across, clean))
        print("  mean        ", *(f"{mean:6.3f}" for mean in means), end="")
        print(f"   {time.perf_counter() - started:.0f} s", flush=True)
        rows.append(corners(result.images))
    sheet = (np.concatenate(rows) * 255).round().astype(np.uint8)
    Image.fromarray(sheet).save(options.out / "corners.png")
    studies.finish(began, options.out / "corners.png")


if __name__ == "__main__":
    studies.run(main)
