"""An atlas of a layer: what it shows, what kills cost it, and what 100,000 units would take.

Paper: none; OpenAI Microscope was such an atlas.
Command: pip install ".[index]" && python experiments/neuron_atlas.py PHOTOGRAPHS -o OUT
    (--quick for 4 units and 2 kills; --only kills, memory, cluster or queue for one part)
Runtime: 25 minutes on two cores with seven other programs beside.
What it showed: of 16 channels of block8 of EfficientNet-Lite0, at 128 x 128 and 128 steps, two
    seeds show the same texture, the one that lowers a unit shows another (scales against feathers,
    lines against discs), and the two that differ keep 55 to 91 % of the score in other colours and
    curves; each first picture is above all 800 photographs. 80 pictures took 8.0 s each there.
    10 kills at random moments damage no batch, and none of 720 pictures differs from an undisturbed
    store's.
    Two of Ray's workers of a core each make 1.85 times as many units a second as one (7.68 and
    4.15), and one that has both cores 6.25, this process 5.74: Ray costs nothing that one sees. Two
    quiet cores, batches of 4 at 128 x 128 and 32 steps.
    With 96 and 1920 pictures the process has 358 and 372 MB at most.
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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import studies
from PIL import Image

import featvis as fv

LAYER, SIZE = "block8", (128, 128)
PARTS = ("atlas", "kills", "memory", "cluster", "queue")
#: Of the small network.
UNITS = 80


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
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, UNITS)).astype(np.float32)
    return fv.from_function(
        _small, jnp.asarray(kernel), input=fv.Input(size=(16, 16)), name="small"
    )


def _small(params: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
    numbers = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(image, params, (1, 1), "SAME", dimension_numbers=numbers)
    # Without a rectifier no unit is dead, of which each would be explained anew.
    return {"conv": found}


def fill(path: Path | str, seeds: int, **options: Any) -> fv.Atlas:
    """An atlas of all units of the small network, with so many seeds each."""
    return fv.atlas(
        small(), "conv", path, seeds=seeds, steps=16, batch=8, parameterization="pixels",
        transform="none", progress=False, **options,
    )  # fmt: skip


@dataclass(frozen=True)
class Survived:
    """What is left of an atlas whose process was killed again and again, and then completed.

    Attributes:
        kills: how often.
        damaged: batches and descriptions that a kill left as they were not written.
        lost: batches that were in, and are no more or are others.
        twice: pictures that are in two batches.
        differ: pictures whose levels or figures differ from an undisturbed store's, one that is
            missing among them.
        pictures: of the undisturbed store.
        arrays: of what natural images do to the layer, which differ.
    """

    kills: int
    damaged: int
    lost: int
    twice: int
    differ: int
    pictures: int
    arrays: int


def kills(out: Path, count: int, seeds: int, seed: int = 0) -> Survived:
    """Kills `featvis atlas` at random moments, then completes its store.

    Each time it is asked for two more units, of which it makes all pictures, and describes all by
    natural images again: a kill is anywhere in that. One that comes too late is none.

    Args:
        out: the folder of the stores.
        count: of kills.
        seeds: pictures a unit.
        seed: of the moments.
    """
    draw = random.Random(seed)
    photographs, path = out / "noise", out / "killed.atlas"
    photographs.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        levels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(levels).save(photographs / f"{number:02}.png")
    index = fv.index(small(), photographs, layers=["conv"], out=out / "index", progress=False)
    whole = {"negative": True, "diverse": 2, "index": index}
    # First, so that its programs are in the cache, and those that are killed write more than wait.
    other = fill(out / "whole.atlas", seeds, **whole)
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, "-m", "featvis_command", "atlas", "--model", "neuron_atlas:small"]
    command += ["conv", "--out", str(path), "--index", str(index.store.path), "--negative"]
    command += ["--diverse", "2", "--steps", "16", "--batch", "8", "--param", "pixels"]
    command += ["--transform", "none", "--quiet", "--seeds", str(seeds), "--units"]
    done = damaged = lost = 0
    units, took, kept = 0, 3.0, dict[str, bytes]()
    while done < count and units < UNITS:
        units += 2
        child = subprocess.Popen(
            [*command, f"0-{units - 1}"], env=environment, stdout=subprocess.DEVNULL
        )
        # Before its first batch it writes nothing but, the first time, the settings.
        while child.poll() is None and not (
            path.exists() if units == 2 else _records(path) != kept
        ):
            time.sleep(0.001)
        begun, wait = time.monotonic(), draw.uniform(0, took)
        while child.poll() is None and time.monotonic() < begun + wait:
            time.sleep(0.001)
        if child.poll() is not None:
            took = 0.9 * (time.monotonic() - begun)  # so soon it was done
            kept = _records(path)
            continue
        child.send_signal(signal.SIGKILL)
        child.wait()
        done += 1
        if fv.Atlas.open(path).store.torn:
            damaged += 1
        damaged += len(list(fv.Atlas.open(path).store.damaged()))
        lost += len(kept.items() - _records(path).items())
        kept = _records(path)
        what = "its folder" if units == 2 else "its first batch"
        print(f"kill {done}, {wait:.2f} s after {what}: {len(kept)} batches are in", flush=True)
    there = fill(path, seeds, **whole)
    lost += len(kept.items() - _records(path).items())
    had, wanted = _figures(there), _figures(other)
    arrays, undisturbed = (one.store.natural("conv")["arrays"] for one in (there, other))
    found = Survived(
        done, damaged, lost,
        sum(len(batch) for batch in there.store.batches) - len(had),
        sum(not _same(had.get(key), one) for key, one in wanted.items()) + len(had.keys() - wanted),
        len(wanted),
        sum(not np.array_equal(arrays[name], undisturbed[name], equal_nan=True) for name in arrays),
    )  # fmt: skip
    print(
        f"{found.kills} kills: {found.damaged} batches damaged, {found.lost} lost, {found.twice} "
        f"pictures twice, {found.differ} of {found.pictures} differ from an undisturbed store's, "
        f"and {found.arrays} of the {len(arrays)} arrays of natural images"
    )
    return found


def _records(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in path.glob("batches/*.json")}


def _same(one: tuple[Any, ...] | None, other: tuple[Any, ...]) -> bool:
    """Whether pictures are equal to the bit, and scores but for the last of their bits."""
    if one is None or (one[0], one[3:]) != (other[0], other[3:]):
        return False
    # By the place in the batch sums round otherwise; a score is of the size of 1.
    return bool(np.allclose(one[1:3], other[1:3], rtol=1e-5, atol=1e-5))


def _figures(atlas: fv.Atlas) -> dict[tuple[str, str, int], tuple[Any, ...]]:
    """All that there is of each picture, by its unit, role and place."""
    return {
        (one.unit, one.role, one.place): (
            one.image.tobytes(), one.clean_score, one.transformed_score, one.steps, one.silent,
            one.failed,
        )
        for unit in atlas for one in unit.pictures
    }  # fmt: skip


# ---- a cluster of one machine


def cluster(out: Path, batches: int = 28, rows: int = 4, steps: int = 32) -> dict[str, float]:
    """Units a second of `block8` by this process and by Ray's workers, once all are at work.

    Of the second half of the batches, so that starting and compiling count nothing. Two workers of
    a core each are compared with one of a core; one that has all cores with this process, which has
    them too.
    """
    cores = os.cpu_count() or 1
    ways = {
        "this process": {},
        f"1 worker of {cores} cores": {"engine": "ray", "workers": 1, "cores": cores},
        "1 worker of 1 core": {"engine": "ray", "workers": 1},
        "2 workers of 1 core": {"engine": "ray", "workers": 2},
    }
    rates, ended = {}, list[float]()
    for number, (name, engine) in enumerate(ways.items()):
        ended.clear()
        begun = time.perf_counter()
        fv.atlas(
            "efficientnet_lite0", LAYER, out / f"way{number}.atlas", units=range(batches * rows),
            size=SIZE, steps=steps, batch=rows,
            progress=lambda *_: ended.append(time.perf_counter()), **engine,
        )  # fmt: skip
        half = len(ended) // 2
        rates[name] = rows * half / (ended[-1] - ended[-1 - half])
        print(f"{name}: {rates[name]:.2f} units a second, the first batch after "
              f"{ended[0] - begun:.1f} s", flush=True)  # fmt: skip
    alone, one, single, double = rates.values()
    print(
        f"Ray's overhead {100 * (alone / one - 1):.1f} %; two workers {double / single:.2f} times "
        "one"
    )
    return rates


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
        print(f"peak memory with {UNITS * seeds} pictures: {receiver.recv():.0f} MB", flush=True)
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
        __doc__, "neuron_atlas", needs=["zarr"], quick="4 units, 16 steps, 2 kills",
        seed="the pictures",
    )  # fmt: skip
    parser.add_argument(
        "folder", type=Path, nargs="?", help="a folder of photographs, which the atlas needs"
    )
    parser.add_argument("--units", type=int, default=16, help="how many of block8")
    parser.add_argument("--kills", type=int, default=20, help="how often an atlas is killed")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    options = parser.read()
    started = time.perf_counter()
    parts = [options.only] if options.only else PARTS
    if "atlas" in parts and options.folder is None:
        parser.error("the atlas needs a folder of photographs; --only has parts that need none")
    place = options.out
    if "atlas" in parts:
        units, steps = (4, 16) if options.quick else (options.units, 128)
        place = shown(options.folder, options.out, units, steps, options.seed)
    if "kills" in parts:
        kills(options.out, 2 if options.quick else options.kills, 8)
    if "memory" in parts:
        memory(options.out, (3, 12) if options.quick else (3, 30, 300))
    if "cluster" in parts:
        cluster(options.out, *((4, 4, 2) if options.quick else ()))
    if "queue" in parts:
        estimate()
    studies.finish(started, place)


if __name__ == "__main__":
    studies.run(main)
