"""An atlas of a layer: what it shows, what kills cost it, and what 100,000 units would take.

Paper: none; OpenAI Microscope was such an atlas.
Command: pip install ".[index]" && python experiments/neuron_atlas.py PHOTOGRAPHS -o OUT
    (--quick for 4 units and 2 kills; --only kills, memory or queue for one part)
Runtime: 25 minutes on two cores with seven other programs beside.
What it showed: of 16 channels of block8 of EfficientNet-Lite0, at 128 x 128 and 128 steps, two
    seeds show the same texture, the one that lowers a unit shows another (scales against feathers,
    lines against discs), and the two that differ keep 55 to 91 % of the score in other colours and
    curves; each first picture is above all 800 photographs. 80 pictures took 8.0 s each there.
    10 kills at random moments damage no batch, and none of 720 pictures differs from an undisturbed
    store's. With 96 and 1920 pictures the process has 358 and 372 MB at most.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import studies
from PIL import Image

import featvis as fv

LAYER, SIZE = "block8", (128, 128)
PARTS = ("atlas", "kills", "memory", "queue")


# ---- what it shows


def shown(folder: Path, out: Path, units: int, steps: int, seed: int) -> Path:
    """An atlas of a layer's first units, and a sheet: a row a unit, with its photographs."""
    model = fv.load("efficientnet_lite0")
    index = fv.index(model, folder, layers=[LAYER], out=out / "photographs.index", size=SIZE)
    started = time.perf_counter()
    made = fv.atlas(
        model, LAYER, out / "units.atlas", units=range(units), seeds=2, negative=True, diverse=2,
        index=index, size=SIZE, steps=steps, seed=seed,
    )  # fmt: skip
    spent = sum(batch.seconds for batch in made.store.batches)
    pictures = sum(map(len, made.store.batches))
    print(f"{pictures} pictures of {units} units: {spent / pictures:.2f} s each as they were made, "
          f"{time.perf_counter() - started:.0f} s this time")  # fmt: skip
    tiles, labels = [], []
    for unit in made:
        natural = unit.natural
        assert natural is not None
        for one in unit.pictures:
            tiles.append(one.image.astype(np.float32) / 255)
            what = unit.text if one.role == "picture" and not one.place else one.role
            labels.append(f"{what} {one.clean_score:.3g}")
        labels[-len(unit.pictures)] += f", above {natural.percentile:.0f} %"
        ends = ((natural.highest, natural.highest_boxes, natural.highest_scores),
                (natural.lowest, natural.lowest_boxes, natural.lowest_scores))  # fmt: skip
        for places, boxes, scores in ends:
            for place, (top, left, bottom, right), score in list(
                zip(places, boxes.tolist(), scores, strict=True)
            )[:3]:
                crop = index.image(int(place))[top:bottom, left:right]
                levels = Image.fromarray((crop * 255).astype(np.uint8)).resize(SIZE[::-1])
                tiles.append(np.asarray(levels, np.float32) / 255)
                labels.append(f"photograph, peak {score:.3g}")
    path = out / "sheet.png"
    fv.grid(tiles, labels, columns=len(tiles) // units).save(path)
    return path


# ---- what kills cost


def small() -> fv.Model:
    """A network of one convolution, for images of 16 x 16."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 24)).astype(np.float32)
    return fv.from_function(
        _small, jnp.asarray(kernel), input=fv.Input(size=(16, 16)), name="small"
    )


def _small(params: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
    numbers = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(image, params, (1, 1), "SAME", dimension_numbers=numbers)
    # Without a rectifier no unit is dead, of which each would be explained anew.
    return {"conv": found}


def fill(path: str, seeds: int) -> fv.Atlas:
    """An atlas of the small network, of 24 units with so many seeds each."""
    return fv.atlas(
        small(), "conv", path, seeds=seeds, steps=16, batch=8, parameterization="pixels",
        transform="none", progress=False,
    )  # fmt: skip


def kills(out: Path, count: int, seeds: int) -> None:
    """Prints what so many kills at random moments leave, against an undisturbed store."""
    draw = random.Random(0)
    path = out / "killed.atlas"
    program = f"import neuron_atlas; neuron_atlas.fill({str(path)!r}, {seeds})"
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    killed = lost = 0
    while killed < count:
        child = subprocess.Popen([sys.executable, "-c", program], env=environment)
        before = len(list(path.glob("batches/*.json")))
        # From the first batch on: before it, there is nothing to lose.
        while child.poll() is None and len(list(path.glob("batches/*.json"))) == before:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.3))
        if child.poll() is not None:
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed += 1
        kept = fv.Atlas.open(path)
        lost += len(list(kept.store.damaged()))
        print(f"kill {killed}: {len(kept.store.batches)} batches are in", flush=True)
    there = fill(str(path), seeds)
    whole = fill(str(out / "whole.atlas"), seeds)
    rows = [batch.row for batch in there.store.batches]
    once = len(set(rows)) == len(rows) == len(whole.store.batches)
    pairs = [
        (a, b) for one, other in zip(there, whole, strict=True)
        for a, b in zip(one.pictures, other.pictures, strict=True)
    ]  # fmt: skip
    differ = sum(not np.array_equal(a.image, b.image) for a, b in pairs)
    print(
        f"{killed} kills: {lost} batches damaged, each batch once: {once}, {differ} of "
        f"{len(pairs)} pictures differ from an undisturbed store's"
    )


# ---- memory


def _peak(path: str, seeds: int, sender: multiprocessing.connection.Connection) -> None:
    fill(path, seeds)
    sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory(out: Path, counts: tuple[int, ...]) -> None:
    """Prints the peak memory of atlases of so many pictures a unit, each in its own process."""
    context = multiprocessing.get_context("spawn")
    for seeds in counts:
        receiver, sender = context.Pipe(False)
        process = context.Process(target=_peak, args=(str(out / f"{seeds}.atlas"), seeds, sender))
        process.start()
        print(f"peak memory with {24 * seeds} pictures: {receiver.recv():.0f} MB", flush=True)
        process.join()


# ---- a cluster


@dataclass(frozen=True)
class Spent:
    """What a queue takes.

    Attributes:
        hours: until the last batch is done.
        worker_hours: of all workers, until then.
        lost: batches that were under way when their worker was lost.
        efficiency: the share of the workers' hours that went into batches which were kept.
    """

    hours: float
    worker_hours: float
    lost: int
    efficiency: float


def queue(
    batches: int,
    seconds: float,
    workers: int,
    *,
    failure_hours: float = 100.0,
    back: float = 300.0,
    start: float = 90.0,
    spread: float = 0.05,
    seed: int = 0,
) -> Spent:
    """A queue of batches at many workers that fail, event by event.

    Args:
        batches: how many.
        seconds: that one takes.
        workers: how many.
        failure_hours: of work between two failures of a worker, at random.
        back: seconds until a lost worker is replaced.
        start: seconds of a worker before its first batch: it compiles.
        spread: of the seconds of a batch, over their mean.
        seed: of all that is random.
    """
    rng = np.random.default_rng(seed)
    todo = deque(range(batches))
    # When each worker is free, and when it fails next.
    free = [(start * rng.uniform(0.8, 1.2), worker) for worker in range(workers)]
    heapq.heapify(free)
    fails = rng.exponential(3600 * failure_hours, workers)
    running: list[tuple[float, int]] = []  # lost batches, by when that is known
    end = useful = 0.0
    lost = 0
    while todo or running:
        now, worker = heapq.heappop(free)
        while running and running[0][0] <= now:
            todo.append(heapq.heappop(running)[1])
        if not todo:
            if not running:
                break
            heapq.heappush(free, (running[0][0], worker))
            continue
        batch = todo.popleft()
        took = seconds * max(0.1, rng.normal(1, spread))
        if fails[worker] < now + took:
            lost += 1
            gone = max(fails[worker], now)
            heapq.heappush(running, (gone, batch))
            again = gone + back + start
            fails[worker] = again + rng.exponential(3600 * failure_hours)
            heapq.heappush(free, (again, worker))
            continue
        useful += took
        end = max(end, now + took)
        heapq.heappush(free, (now + took, worker))
    return Spent(end / 3600, end * workers / 3600, lost, useful / (end * workers))


def estimate(units: int = 100_000, pictures: int = 3, rows: int = 64) -> None:
    """Prints what all units of a large network take, for some costs of a picture."""
    batches = -(-units * pictures // rows)
    stored = units * pictures * 45_000
    print(f"{units} units, {pictures} pictures each: {batches} batches of {rows}, about "
          f"{stored / 1e9:.0f} GB of pictures of 128 x 128")  # fmt: skip
    for each in (0.05, 0.5, 5.0):
        for workers in (8, 100, 1000):
            spent = queue(batches, each * rows, workers)
            print(
                f"{each:5.2f} s a picture, {workers:5} workers: {spent.hours:7.2f} hours, "
                f"{spent.worker_hours:7.0f} of workers, {spent.lost} batches lost, "
                f"{100 * spent.efficiency:.0f} % of the hours kept"
            )


def main() -> None:
    """Makes the atlas, kills another one, and estimates a third."""
    parser = studies.CommandLine(
        __doc__, "neuron_atlas", folder="photographs", required=True, needs=["zarr"],
        quick="4 units, 16 steps, 2 kills", seed="the pictures",
    )  # fmt: skip
    parser.add_argument("--units", type=int, default=16, help="how many of block8")
    parser.add_argument("--kills", type=int, default=20, help="how often an atlas is killed")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    options = parser.read()
    started = time.perf_counter()
    parts = [options.only] if options.only else PARTS
    place = options.out
    if "atlas" in parts:
        units, steps = (4, 16) if options.quick else (options.units, 128)
        place = shown(options.folder, options.out, units, steps, options.seed)
    if "kills" in parts:
        kills(options.out, 2 if options.quick else options.kills, 40 if options.quick else 400)
    if "memory" in parts:
        memory(options.out, (10, 40) if options.quick else (10, 100, 1000))
    if "queue" in parts:
        estimate()
    studies.finish(started, place)


if __name__ == "__main__":
    studies.run(main)
