"""How do a step's time and a run's memory grow with images, size, depth and units?

Paper: none.
Command: python experiments/scale.py -o OUT
    (--quick for a first look; --only images, size, depth, units or plan for one part; --planned 640
    to plan and make fewer than 10,000 units)
Runtime: on two cores --only images 3 min, size and depth 2 min each, units 20 s, the plan of 10,000
    units 7 min; --quick 8 min with three other programs beside, most of it compiling.
What it showed: on two cores with AVX-512 (jax 0.10.2), EfficientNet-Lite0.
    Images (block8, 64 x 64): a step of 1, 4, 16, 64, 256 and 1,024 takes 0.75, 1.7, 6.4, 25, 113
    and 439 ms: 183 µs a thousand pixels for one, and 97 to 107 from 4 on, where images go through
    the network a few at a time. (With AVX2 it bent again at 128 images, whose parameters no longer
    fitted the caches.)
    Size (block8, 1 image): 0.71, 1.85, 7.1, 41 and 156 ms at 64, 128, 256, 512 and 1,024 pixels:
    174, 113, 108, 155 and 149 µs a thousand pixels: what every step does once counts up to 128,
    and from 384 on the activations of one image no longer fit the caches.
    Depth (4 images of 128 x 128): 2.4 ms to the stem, 4.3 to block2, 6.7 to block8, 10 to block12,
    13 to block15, 15 to the logits: the way to block2 is 29 % of it. The head's 40 is of runs that
    begin again, as its unit dies, with 16 steps of redirected gradients; those after them take 13.
    Memory beyond a run of one image of 32 x 32 (348 MB): for 1, 64, 256 and 1,024 images 47, 121,
    246 and 703 MB, the estimate 3, 68, 222 and 839; at 256, 512 and 1,024 pixels 89, 241 and 840,
    the estimate 46, 185 and 739. A process takes some 45 MB more whatever it does: from 200 MB on
    the two are within a third, and that of many images is above what is taken.
    Units: an atlas of a layer makes 66 a second once all is compiled, which takes 7 s.
    10,000 units of 9 layers were planned to take 415 s by 24 of each layer, and took 352 s, 0.85
    times that (0.79 beside other work); 1,300 units 33 s, and took 32.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import studies
from peer_benchmark import Bench
from peers.timing import milliseconds

import featvis as fv
from featvis.pages import Report
from featvis.results.run import Run
from featvis.synthesis import memory
from featvis.synthesis.arguments import check_optimizer

NETWORK, LAYER, UNIT = "efficientnet_lite0", "block8", 3
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SIZES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
DEPTHS = ("stem", "block0", "block2", "block4", "block6", "block8", "block10", "block12",
          "block15", "head", "logits")  # fmt: skip
UNITS = (8, 24, 80, 240)
#: A few of each for a first look.
FEW = {"images": (1, 4), "size": (32, 64), "depth": ("block0", "block2"), "units": (2, 4)}
PARTS = ("images", "size", "depth", "units", "plan")
#: Pictures of atlases.
PICTURES: dict[str, Any] = {"size": (48, 48), "steps": 16, "batch": 8, "progress": False}
#: Units of each layer that are made first, with all that is done once, and those by which the rest
#: is planned.
FIRST, MEASURED = 8, 24
#: Bytes by which the memory of a process varies.
SLACK = 30e6


@dataclass(frozen=True)
class Point:
    """A run whose step is timed and whose memory is measured.

    Attributes:
        layer: of the unit.
        images: of the run.
        size: of the images, in pixels.
    """

    layer: str = LAYER
    images: int = 4
    size: int = 128

    def options(self, steps: int) -> dict[str, Any]:
        """What `synthesize` takes for so many steps."""
        way = fv.Fourier((self.size, self.size))
        return {
            "model": NETWORK,
            "objective": f"{self.layer}:{UNIT}",
            "parameterization": way,
            "batch": self.images,
            "steps": steps,
            "progress": False,
        }

    def estimate(self) -> int:
        """Bytes by which a run is refused where they are not there."""
        run = Run(**self.options(3))
        model, objective, way, transform = run.parts
        state = check_optimizer(run.optimizer, way)
        need = memory.estimate(model, objective, way, transform, self.images, state, steps=3)
        return need.of(self.images)


@dataclass(frozen=True)
class Measured:
    """What was measured of a point.

    Attributes:
        ms: milliseconds a step, of all images.
        peak: bytes that a process of such a run takes beyond one of a run that needs hardly any.
        estimate: bytes by which a run is refused where they are not there.
    """

    ms: float
    peak: float
    estimate: float


def worker(what: str, point: Point) -> None:
    """What is done in a process of its own; prints what was found as JSON.

    Args:
        what: "time", a step; "take", three steps, for the memory.
        point: the run.
    """
    fv.enable_cache()
    found: dict[str, float] = {}
    if what == "time":
        found["ms"] = milliseconds(lambda steps: fv.synthesize(**point.options(steps)))
        found["estimate"] = point.estimate()
    else:
        fv.synthesize(**point.options(3))
    print(json.dumps(found))


def ask(bench: Bench, what: str, point: Point) -> tuple[dict[str, float], float]:
    """What such a process found, and the most memory that it had, in bytes."""
    worked = json.dumps(asdict(point))
    # Its own folder, as every study makes one.
    ended = bench.process([os.path.abspath(__file__), "-o", ".", "--worker", what, worked])
    if ended.code:
        raise fv.FeatvisError(f"{what} of {point} failed: {ended.last_line}")
    return json.loads(ended.out.splitlines()[-1]), 1e6 * ended.peak


def measure(bench: Bench, point: Point, alone: float) -> Measured:
    """A point, beside a process of a run that needs no memory and takes so many bytes."""
    found, _ = ask(bench, "time", point)
    # In a process of its own, which finds all compiled: the compiler takes memory too.
    _, peak = ask(bench, "take", point)
    return Measured(found["ms"], peak - alone, found["estimate"])


# ---- curves --------------------------------------------------------------------------------


def points_of(part: str, quick: bool) -> list[Point]:
    """The points of a curve."""
    if part == "images":
        return [Point(images=count, size=64) for count in (FEW[part] if quick else IMAGES)]
    if part == "size":
        return [Point(images=1, size=side) for side in (FEW[part] if quick else SIZES)]
    size = 64 if quick else 128
    return [Point(layer=layer, size=size) for layer in (FEW[part] if quick else DEPTHS)]


def per_pixel(point: Point, ms: float) -> float:
    """Microseconds of a step for a thousand pixels."""
    return 1e6 * ms / (point.images * point.size**2)


def curve(report: Report, bench: Bench, part: str, quick: bool, alone: float) -> None:
    """The times and the memory of a part's points, as a table and a plot."""
    points, rows = points_of(part, quick), []
    found = []
    for point in points:
        found.append(one := measure(bench, point, alone))
        at = {"images": point.images, "size": point.size, "depth": point.layer}[part]
        pixels = per_pixel(point, one.ms)
        ratio = f"{one.peak / one.estimate:.2f}" if one.peak > SLACK else ""
        rows.append(
            [at, f"{one.ms:.2f}", f"{pixels:.1f}", f"{one.peak / 1e6:.0f}",
             f"{one.estimate / 1e6:.0f}", ratio]
        )  # fmt: skip
        print(part, *rows[-1], sep="  ", flush=True)
    held = {"images": "of 64 x 64", "size": "1 image", "depth": "4 images of 128 x 128"}[part]
    report.heading(part)
    report.table(
        [part, "ms a step", "µs a thousand pixels", "MB", "MB, estimated", "ratio"], rows,
        caption=f"{NETWORK}, {'' if part == 'depth' else f'{LAYER}, '}{held}. Memory: the most "
        "that a process of the run has, less what one has of a run of one image of 32 x 32; the "
        "estimate is that by which a run is refused.",
    )  # fmt: skip
    plt = studies.pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    at = [{"images": p.images, "size": p.size, "depth": p.layer}[part] for p in points]
    axes[0].plot(at, [per_pixel(p, one.ms) for p, one in zip(points, found, strict=True)], "o-")
    axes[0].set_ylabel("µs of a step for a thousand pixels")
    axes[1].plot(at, [one.peak / 1e6 for one in found], "o-", label="measured")
    axes[1].plot(at, [one.estimate / 1e6 for one in found], "o--", label="estimated")
    axes[1].set_ylabel("MB")
    axes[1].legend()
    for axis in axes:
        axis.set_xlabel(part)
        if part == "depth":
            axis.tick_params(axis="x", rotation=45)
        else:
            axis.set_xscale("log", base=2)
            axis.set_xticks(at, map(str, at))
    axes[1].set_yscale("log")
    report.figure(f"scale-{part}", figure, f"A step and its memory, by {part}.")
    plt.close(figure)


def units(report: Report, out: Path, quick: bool) -> None:
    """Seconds of atlases of more and more units of one layer, from nothing."""
    rows = []
    for count in FEW["units"] if quick else UNITS:
        started = time.perf_counter()
        fv.atlas(NETWORK, f"{LAYER}/expand", out / f"{count}.atlas", units=range(count), **PICTURES)
        seconds = time.perf_counter() - started
        rows.append([count, f"{seconds:.1f}", f"{count / seconds:.1f}"])
        print("units", *rows[-1], sep="  ", flush=True)
    report.heading("units")
    report.table(
        ["units", "seconds", "units a second"], rows,
        caption=f"Of {LAYER}/expand, {_pictures()}, one process; the first compiles.",
    )  # fmt: skip


def _pictures() -> str:
    height, width = PICTURES["size"]
    return f"{height} x {width}, {PICTURES['steps']} steps, {PICTURES['batch']} a batch"


# ---- a plan --------------------------------------------------------------------------------


def widest(count: int) -> dict[str, int]:
    """The widest layers that have positions, as few as have so many units: units by layer."""
    shapes = fv.load(NETWORK).layers(PICTURES["size"])
    wide = sorted((s[-1] for s in shapes.values() if len(s) == 3), reverse=True)
    enough = next((n for n, has in enumerate(itertools.accumulate(wide), 1) if has >= count), None)
    if enough is None:
        raise fv.InputError(
            f"{NETWORK} has {sum(wide)} units with positions; {count} are asked for"
        )
    of = [name for name, s in shapes.items() if len(s) == 3 and s[-1] >= wide[enough - 1]][:enough]
    left = count
    taken = {}
    for name in of:
        taken[name] = min(left, shapes[name][-1])
        left -= taken[name]
    return taken


def plan(report: Report, out: Path, count: int) -> None:
    """What an atlas of many units is planned to take, by some units of each layer, and takes."""
    of, place = widest(count), out / "planned.atlas"
    few = {layer: min(many, FIRST + MEASURED) for layer, many in of.items()}

    def made(layer: str, many: int) -> float:
        started = time.perf_counter()
        fv.atlas(NETWORK, layer, place, units=range(many), **PICTURES)
        return time.perf_counter() - started

    once, planned = 0.0, 0.0
    for layer, many in few.items():
        once += made(layer, min(many, FIRST))
        measured = made(layer, many)
        # A call that finds all made takes what every call does.
        nothing = made(layer, many)
        each = (measured - nothing) / max(many - FIRST, 1)
        planned += nothing + (of[layer] - many) * each
    taken = sum(made(layer, of[layer]) for layer in of)
    ratio = taken / planned
    said = (
        f"{count} units of {len(of)} layers, {_pictures()}: the first {FIRST} of each layer took "
        f"{once:.0f} s, with compiling; by {MEASURED} more the rest was planned to take "
        f"{planned:.0f} s, and took {taken:.0f} s, {ratio:.2f} times that."
    )
    print(said)
    report.heading("plan")
    report.text(said)


def main() -> None:
    """Measures the parts that are asked for and writes the report."""
    line = studies.CommandLine(
        __doc__, "scale", needs=("matplotlib", "zarr"), quick="two points a curve, 200 units"
    )
    line.add_argument("--only", choices=PARTS, action="append", help="a part; may be given again")
    line.add_argument("--planned", type=int, default=10_000, help="units of the plan")
    line.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options, started = line.read(), time.perf_counter()
    if options.worker:
        what, point = options.worker
        worker(what, Point(**json.loads(point)))
        return
    parts: Sequence[str] = options.only or PARTS
    report = Report(options.out, (__doc__ or "").partition("\n")[0])
    report.text(f"On {os.cpu_count()} processors of {platform.machine()}.")
    alone, bench = 0.0, Bench(options.out)
    if {*parts} & {"images", "size", "depth"}:
        least = Point("stem", 1, 32)
        ask(bench, "time", least)
        _, alone = ask(bench, "take", least)
        report.text(f"A process of a run of one image of 32 x 32 takes {alone / 1e6:.0f} MB.")
    for part in parts:
        if part == "units":
            units(report, options.out, options.quick)
        elif part == "plan":
            plan(report, options.out, 200 if options.quick else options.planned)
        else:
            curve(report, bench, part, options.quick, alone)
    studies.finish(started, report.write(arguments=options, seconds=time.perf_counter() - started))


if __name__ == "__main__":
    studies.run(main)
