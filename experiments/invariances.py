"""How does what units ignore grow with depth, and is it learned?

Paper: Cadena et al. 2018, "Diverse feature visualizations reveal invariances in early layers of
    deep neural networks": from conv1 to conv3 of VGG-19 more and more units have diverse optima,
    complex cells that ignore the phase among them. The control that the paper lacks is the same
    architecture with its weights shuffled.
Command: python experiments/invariances.py -o OUT   (--quick for a first look; --mobilenet FILE with
    the tensors of TensorFlow Lite's MobileNetV2; --vgg for VGG-19's conv1 to conv3 where `featvis
    fetch vgg19` has put its weights; --units and --steps for more than 8 a layer and 80)
Runtime: 11 minutes of a processor for 12 to 16 units more of each of 24 layers; tables are gone on
    with. --quick 40 s of a processor.
What it showed: 32 units (block0 has 16, block2 24) of each of six layers of EfficientNet-Lite0
    (stem, block0, 2, 4, 6, 8) and MobileNetV2 (stem, block0, 2, 4, 7, 10), 64 x 64, two starts, 60
    steps; means ± 1.96 standard errors. What units ignore of the phase grows from 0.03 ± 0.02 and
    0.06 ± 0.03 at block0 to 0.37 ± 0.06 and 0.42 ± 0.06 at block2, 0.51 ± 0.02 and 0.50 ± 0.03 at
    block4, and hardly on from there (0.56 ± 0.02, 0.53 ± 0.02 at the last), where a linear unit of
    the same image has 0.00 and the shuffled networks have 0.15 to 0.26 at every depth past the
    stem: it is learned, as Cadena et al. find it from conv1 to conv3. Shifts by up to a quarter of
    the field are ignored more than chance from block6 on in EfficientNet-Lite0 (0.45 to 0.48,
    chance 0.40 to 0.43), in MobileNetV2 from block4 on (0.40 to 0.48, chance 0.32 to 0.35), by
    shuffled networks less and less (0.05 to 0.07 at the last, chance 0.5). Rotation is clearly
    above chance at block2 (0.30 ± 0.05 and 0.32 ± 0.07, chance 0.22 and 0.20) and block4
    (0.30 ± 0.03 both, chance 0.25 and 0.20), then at it or below; scale nowhere past block0: its
    index falls with depth. So phase is not the first of a series.
    What it does not show: all of a layer's units (later ones have 40 to 112), VGG-19 (its weights
    were not there), and that shuffled units are at chance: deep ones are below it, for their optima
    are brittle.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import studies

import featvis as fv
from featvis.errors import InputError

LITE0 = ("stem", "block0", "block2", "block4", "block6", "block8")
MOBILENET = ("stem", "block0", "block2", "block4", "block7", "block10")
VGG = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
#: The transformations of the figure.
SHOWN = ("phase", "shift_x", "shift_y", "rotation", "scale")


def shuffled(model: fv.Model, seed: int = 0) -> fv.Model:
    """The network with the numbers of each kernel shuffled, all else as it is."""
    rng = np.random.default_rng(seed)

    def change(leaf: jax.Array) -> np.ndarray:
        values = np.asarray(leaf)
        return rng.permutation(values.ravel()).reshape(values.shape) if values.ndim > 1 else values

    params = jax.tree.map(change, model.params)
    return dataclasses.replace(model, params=params, digest="", name=f"{model.name} shuffled")


def study(
    model: fv.Model, layers: tuple[str, ...], units: int, out: Path, **options: object
) -> list[dict[str, float | str]]:
    """The table of some units of each layer, drawn at random; each layer's is kept and gone on."""
    rows: list[dict[str, float | str]] = []
    shapes = model.layers(options["size"])
    for place, layer in enumerate(layers):
        count = shapes[layer][-1]
        chosen = np.sort(np.random.default_rng(place).permutation(count)[:units]).tolist()
        folder = out / "tables" / f"{model.name.replace(' ', '_')}-{layer}"
        started = time.perf_counter()
        try:
            table = fv.invariance_table(model, layer, chosen, folder=folder, at_a_time=4, **options)
        except InputError as error:  # a layer that sees nothing, as random ones may
            print(f"{model.name} {layer}: {error}", flush=True)
            continue
        seconds = time.perf_counter() - started
        print(f"{model.name} {layer}: {len(table)} units, {seconds:.0f} s", flush=True)
        rows += [{"network": model.name, "layer": layer, "depth": place, **row} for row in table]
    return rows


def means(rows: list[dict], network: str, name: str) -> list[tuple[int, float, float, float]]:
    """(depth, mean, 1.96 standard errors, mean of chance) of an index by layer."""
    found = []
    own = [row for row in rows if row["network"] == network and row["alive"]]
    for depth in sorted({row["depth"] for row in own}):
        values = np.array([row[name] for row in own if row["depth"] == depth], float)
        chance = np.mean([row[f"{name}_chance"] for row in own if row["depth"] == depth])
        error = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        found.append((depth, float(values.mean()), float(error), float(chance)))
    return found


def figure_of(rows: list[dict], networks: list[str]) -> Any:
    """Index against depth, with chance dotted; one panel a transformation."""
    figure, axes = studies.pyplot().subplots(
        1, len(SHOWN), figsize=(3.2 * len(SHOWN), 3.8), sharey=True, layout="constrained"
    )
    # Where networks have different layers, their names in the order of the legend.
    names: dict[int, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row["depth"], {})[str(row["layer"])] = None
    for axis, name in zip(axes, SHOWN, strict=True):
        for colour, network in enumerate(networks):
            found = means(rows, network, name)
            if not found:
                continue
            depth, mean, error, chance = map(np.array, zip(*found, strict=True))
            # Side by side, or the bars of one network hide those of another.
            aside = depth + 0.06 * (colour - (len(networks) - 1) / 2)
            axis.errorbar(aside, mean, error, color=f"C{colour}", marker=".", label=network)
            axis.plot(depth, chance, ":", color=f"C{colour}")
        axis.set_title(name.replace("_", " "))
        axis.set_xticks(sorted(names), ["\n".join(names[depth]) for depth in sorted(names)])
        axis.tick_params("x", labelrotation=90, labelsize=8)
        axis.set_ylim(-0.03, 1)
    axes[0].set_ylabel("index")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(networks), fontsize=8)
    return figure


def main() -> None:
    """Runs the study and writes its tables, its figure and its page."""
    line = studies.CommandLine(
        __doc__, "invariances", needs=("matplotlib",), quick="two layers, two units, few steps"
    )
    line.add_argument("--mobilenet", help="a file of MobileNetV2's tensors")
    line.add_argument("--vgg", action="store_true", help="ask VGG-19 too, where its weights are")
    line.add_argument("--units", type=int, default=8, help="units of each layer")
    line.add_argument("--size", type=int, default=64, help="pixels a side")
    line.add_argument("--steps", type=int, default=80, help="steps of each picture")
    line.add_argument("--starts", type=int, default=2, help="starts of each unit")
    options, started = line.read(), time.perf_counter()
    runs = [(fv.load("efficientnet_lite0"), LITE0)]
    if options.quick:
        options.units, options.size, options.steps = 2, 48, 30
        runs = [(runs[0][0], ("stem", "block2"))]
    elif options.mobilenet:
        runs.append((fv.load("mobilenet_v2_tf", weights=options.mobilenet), MOBILENET))
    if options.vgg:
        runs.append((fv.load("vgg19"), VGG))
    rows, networks = [], []
    size = (options.size, options.size)
    for model, layers in runs:
        for one in (model, shuffled(model)):
            rows += study(
                one, layers, options.units, options.out, size=size, steps=options.steps,
                n=options.starts,
            )  # fmt: skip
            networks.append(one.name)

    layers = {(row["network"], row["depth"]): row["layer"] for row in rows}
    report = fv.Report(
        options.out,
        "What units ignore, by depth",
        f"Mean index of at most {options.units} units of each layer, drawn at random, and 1.96 "
        "standard errors; chance is that of linear units of the same images. What was found, and "
        "what that does not show, is in the header of experiments/invariances.py.",
    )
    report.figure("depth", figure_of(rows, networks), "Mean index of the units; dotted, chance.")
    for name in SHOWN:
        table = [
            # A chance of 1e-9 is 0, and shown so.
            [network, layers[network, depth], *(round(v, 6) for v in (mean, error, chance))]
            for network in networks
            for depth, mean, error, chance in means(rows, network, name)
        ]
        header = ["network", "layer", "index", "± 1.96 standard errors", "chance", "beyond chance"]
        report.heading(name.replace("_", " "))
        report.table(header, [[*row, row[2] - row[4]] for row in table])
        print(name)
        for row in table:
            print(f"  {row[0]:28} {row[1]:8} {row[2]:.2f} ± {row[3]:.2f}  chance {row[4]:.2f}")
    page = report.write(arguments=options, seconds=round(time.perf_counter() - started, 1))
    studies.finish(started, page)


if __name__ == "__main__":
    studies.run(main)
