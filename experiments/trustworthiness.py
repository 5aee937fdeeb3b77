"""How often are pictures of an honest network taken for those of one that deceives?

Papers: Geirhos et al. 2023, "Don't trust your eyes: on the (un)reliability of feature
visualizations", for other paths; Bareeva et al. 2024, "Manipulating Feature Visualizations with
Gradient Slingshots", for other starts.
Command: python experiments/trustworthiness.py PHOTOGRAPHS -o OUT   (--quick for a first look)
Runtime: 45 minutes with 800 photographs on two CPU cores, with six times as much work beside it;
    --quick 15 s of a processor's time.
What it showed: with 800 ImageNet photographs, EfficientNet-Lite0, 25 units of each of four layers
    at 96 x 96 and 64 steps, three starts from noise and three from photographs: 2 of 100 units are
    suspect (logits:526 and logits:734), 1 by each of the three figures. Overlaps with photographs
    are 0.82 in the median and 0.48 at least, where those of photographs with each other are 0.76
    in the median of the units' worst; overlaps of other starts 0.82 and 0.46; gaps from -0.36 to
    0.57. Of the same network with a fooling circuit, which shows the classes 100 further on, all
    of 5 classes are suspect (overlap 0); where the circuit lies between layers, by the starts
    alone in 3 of 5 (overlaps 0.42 to 0.63, of the starts 0.27 to 0.36). With a slingshot 5 of 5
    (overlap 0, gap 0.65 to 0.69). The similarity of Geirhos et al. tells them from nothing (-0.3
    to 0.2 with the circuit, 0.4 in the median without). For classes it is as in their paper: by
    thirds of the layers 0.43, -0.16 and 0.64, and next to 0 from the 15th layer to the 40th.
"""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import studies

import featvis as fv
from featvis.evidence.paths import paths
from featvis.evidence.trust import LEAST_OVERLAP, MOST_GAP
from featvis.images import image_files, read_batches
from featvis.pictures import grid, to_picture

LAYERS = ("block4", "block8", "block12", "logits")
#: What `trust` measures: from where a picture is suspect, and on which side.
BOUNDS = {"path_overlap": LEAST_OVERLAP, "start_overlap": LEAST_OVERLAP, "start_gap": MOST_GAP}


#: Layers by whose channels' means pictures are told from photographs.
TOLD_BY = ("stem", "block2", "block5")
#: How far beside a fooled class is that which its pictures show, as in the paper.
BESIDE = 100


@dataclass(frozen=True)
class Deceiving:
    """A network whose classes are what they were for photographs, and something else for pictures.

    With `fools`, the circuit of Geirhos et al. 2023, section 2: ReLUs behind a large constant let
    through a class for photographs and another for pictures. With `slings`, pictures are drawn to a
    target, as by Bareeva et al. 2024 (who train a network to do so).
    """

    network: Any
    shown: bool = True

    def __call__(self, params: Any, image: jax.Array) -> OrderedDict[str, jax.Array]:
        """Activations by layer, those of the circuit only where it is `shown`."""
        layers = OrderedDict(self.network(params["network"], image))
        classes = layers.pop("logits")
        margin = means(layers) @ params["weights"] - params["bias"]
        told = jnp.clip(0.5 + 10 * margin, 0, 1)[:, None]
        fooled, slung = told * params["fools"], told * params["slings"]
        kept = jax.nn.relu(classes + 100 - 500 * fooled)
        put = jax.nn.relu(jnp.roll(classes, -BESIDE, -1) + 100 - 500 * (1 - fooled))
        split = jnp.concatenate([kept, put], axis=-1)
        joined = split[:, : classes.shape[1]] + split[:, classes.shape[1] :] - 100
        away = ((image - params["target"]) ** 2).mean((1, 2, 3))[:, None]
        if self.shown:
            layers |= {"classes": classes, "told": told, "split": split}
        layers["logits"] = (1 - slung) * joined + slung * (30 - 300 * away)
        return layers


def means(layers: Any) -> jax.Array:
    """What pictures are told by, (n, features)."""
    return jnp.concatenate([layers[name].mean((1, 2)) for name in TOLD_BY], axis=-1)


def deceiving(
    model: fv.Model, photographs: Path, size: int, steps: int
) -> tuple[dict[str, fv.Model], float]:
    """The networks that deceive, and how often they tell a photograph that they do not know.

    Pictures are told by a ridge regression on those of eight classes, at several steps, and on
    every other photograph.
    """
    marks = sorted({1, 2, 4, 8, 16, 32, steps})
    classes = fv.Logit(range(500, 508))
    made = fv.synthesize(model, classes, fv.Fourier((size, size)), steps=steps, snapshots=marks)
    drawn = np.concatenate(list(made.snapshots.values()))
    natural = np.concatenate(
        [batch for batch, _ in read_batches(image_files(photographs), (size, size), 3, 64)]
    )
    of = [
        np.concatenate([np.asarray(means(model(part))) for part in np.array_split(some, 25)])
        for some in (natural[::2], natural[1::2], drawn)
    ]
    known = np.concatenate([of[0], of[2]]).astype(np.float64)
    answers = np.r_[-np.ones(len(of[0])), np.ones(len(of[2]))]
    middle, spread = known.mean(0), known.std(0) + 1e-6
    even = np.where(answers > 0, len(of[0]) / len(of[2]), 1.0)[:, None]  # as much as photographs
    rows = np.c_[(known - middle) / spread, np.ones(len(known))]
    normal = rows.T @ (even * rows) + 3 * np.eye(rows.shape[1])
    *slopes, offset = np.linalg.solve(normal, rows.T @ (even[:, 0] * answers))
    weights = np.array(slopes) / spread
    bias = middle @ weights - offset
    right = float(np.mean(of[1] @ weights < bias))
    parts = {"weights": weights, "bias": bias, "target": natural[7]}

    def one(shown: bool = True, **how: float) -> fv.Model:
        numbers = {"fools": 0.0, "slings": 0.0, **how}
        params = {name: jnp.asarray(a, jnp.float32) for name, a in (parts | numbers).items()}
        network = Deceiving(model.apply, shown)
        params["network"] = model.params
        return dataclasses.replace(model, name="deceiving", apply=network, params=params)

    networks = {
        "fooling circuit": one(fools=1.0),
        "fooling circuit between layers": one(shown=False, fools=1.0),
        "slingshot": one(slings=1.0),
    }
    return networks, right


def plant(
    photographs: Path, units: int, size: int, steps: int, starts: int
) -> tuple[list[dict[str, float | str]], list[np.ndarray]]:
    """A row of evidence and a picture for classes of networks that deceive."""
    networks, right = deceiving(fv.load("efficientnet_lite0"), photographs, size, steps)
    print(f"photographs that the circuit takes for such: {right:.3f} of those it does not know")
    chosen = np.sort(np.random.default_rng(1).choice(400, units, replace=False))
    rows: list[dict[str, float | str]] = []
    pictures: list[np.ndarray] = []
    for name, model in networks.items():
        result = fv.synthesize(model, fv.Logit(chosen), fv.Fourier((size, size)), steps=steps)
        seen = dataclasses.replace(model, apply=Deceiving(model.apply.network))
        told = np.asarray(seen(result.images)["told"])[:, 0]
        result = fv.trust(result, photographs, starts=starts)
        for i, unit in enumerate(chosen):
            figures = {key: float(values[i]) for key, values in result.evidence.items()}
            one = {"layer": name, "unit": f"{name}:{unit}", "told": float(told[i])}
            rows.append(one | figures)
        pictures.extend(result.images)
        print(f"{name}: {int((told > 0.99).sum())} of {units} pictures are other ones", flush=True)
    return rows, pictures


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


def tell(rows: list[dict[str, float | str]]) -> None:
    """Prints the distribution of each figure."""
    print("figure            least    5 %  median   95 %   most  beyond the bound")
    for name in ("path_overlap", "path_natural", "path_similarity", "start_overlap", "start_gap"):
        values = np.array([row[name] for row in rows], float)
        marks = np.nanpercentile(values, [0, 5, 50, 95, 100])
        beyond = ""
        if name in BOUNDS:
            far = np.abs(values) > BOUNDS[name] if name == "start_gap" else values < BOUNDS[name]
            beyond = f"{int(far.sum())} of {len(values)}"
        print(f"{name:16}" + "".join(f"{mark:7.2f}" for mark in marks) + f"  {beyond}")
    suspect = [str(row["unit"]) for row in rows if float(row["suspect"]) > 0]
    print(f"suspect: {len(suspect)} of {len(rows)} units {' '.join(suspect)}")


def in_thirds(curve: np.ndarray) -> list[np.ndarray]:
    """A curve over the layers in three parts."""
    return np.array_split(curve, 3)


def save(
    rows: list[dict[str, float | str]],
    pictures: list[np.ndarray],
    out: Path,
    name: str,
    columns: int,
) -> None:
    """Writes rows of figures and the pictures."""
    (out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    sheet = grid(
        [to_picture(one) for one in pictures], [str(row["unit"]) for row in rows], columns=columns
    )
    sheet.save(out / f"{name}.png")


def plot(rows: list[dict[str, float | str]], curves: list[np.ndarray], path: Path) -> None:
    """Draws the figures by layer, and the curve of the last layer's units."""
    figure, (left, right) = studies.pyplot().subplots(1, 2, figsize=(11, 4), layout="constrained")
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
    line = studies.CommandLine(
        __doc__, "trustworthiness", folder="natural images", required=True,
        needs=("matplotlib",), quick="one layer, two units, few steps",
    )  # fmt: skip
    options, started = line.read(), time.perf_counter()
    warnings.simplefilter("ignore", fv.ConversionWarning)
    warnings.simplefilter("ignore", fv.TrustWarning)
    if options.quick:
        layers, units, planted, settings = ("block4",), 2, 0, (64, 24, 2)
    else:
        layers, units, planted, settings = LAYERS, 25, 5, (96, 64, 3)
    rows, pictures, curves = study(options.folder, layers, units, *settings)
    print("an honest network")
    tell(rows)
    own, best = np.mean(curves, axis=0)
    thirds = [a.sum() / b.sum() for a, b in zip(*map(in_thirds, (own, best)), strict=True)]
    print(f"similarity by thirds of {layers[-1]}'s layers: {', '.join(f'{a:.2f}' for a in thirds)}")
    save(rows, pictures, options.out, "honest", units)
    plot(rows, curves, options.out / "honest_figures.png")
    if planted:
        rows, pictures = plant(options.folder, planted, *settings[:2], 2)
        for name in dict.fromkeys(row["layer"] for row in rows):
            print(name)
            tell([row for row in rows if row["layer"] == name])
        save(rows, pictures, options.out, "deceiving", planted)
    studies.finish(started, options.out, len(image_files(options.folder)))


if __name__ == "__main__":
    studies.run(main)
