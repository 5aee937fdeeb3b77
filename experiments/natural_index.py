"""What an index of natural images costs, and what a kill costs it.

Paper: none; the acceptance figures of the index (`featvis.index`).
Command: pip install ".[index]" && python experiments/natural_index.py PHOTOGRAPHS -o OUT
    (--quick for fewer images and kills)
Runtime: 11 minutes on two cores with much other work beside; --quick 120 s so, 58 s of a quiet
    machine.
What it showed: 20 kills at random moments lose no image that was said to be in, and what the index
    holds in the end is to the bit what it holds without them. With 100, 1000 and 10,000 images the
    process has 301, 301 and 302 MB at most. EfficientNet-Lite0 on two cores, batches of 32, given
    decoded images; medians of rounds, of the bare network's photographs a second (80 at 224 x 224).
    Three layers (block4, block8, logits) at 224 x 224: the measures of the same batches 0.98 (0.96
    to 1.04), a whole index, which reads and decodes JPEG files and writes its store beside, 0.93
    (0.86 to 0.94; by processor time 0.91). All 20 layers, 5400 units: 0.92 (0.89 to 1.02) and 0.81
    (0.72 to 0.97); at 160 x 160, with some work beside, 0.88 and 0.82: of a photograph's 16.5 ms of
    a processor there the network has 11.9, the measures 1.8, of which two thirds are layers written
    that the bare network would not write, reading 1.8 (decoding 0.6, scaling 0.9), the store 0.7.
    It is what there is to do that costs: readers that give way to the network, or one in place of
    two, were no faster.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import studies
from PIL import Image

import featvis as fv
from featvis import kernels
from featvis.images import image_files
from featvis.natural.index import measure

#: Images a batch, and batches of a measurement: enough of them that beginning and end count little.
BATCH, BATCHES = 32, 12
#: The sizes, and the layers at each; None for all 20.
TIMED = (((160, 160), None), ((224, 224), None), ((224, 224), ("block4", "block8", "logits")))


def small() -> fv.Model:
    """A network of one convolution, for images of 16 x 16."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)

    def apply(params: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
        numbers = ("NHWC", "HWIO", "NHWC")
        found = jax.lax.conv_general_dilated(
            image, params, (1, 1), "SAME", dimension_numbers=numbers
        )
        return {"conv": jax.nn.relu(found)}

    return fv.from_function(apply, jnp.asarray(kernel), input=fv.Input(size=(16, 16)), name="small")


def pictures(folder: Path, count: int) -> Path:
    """A folder of so many small pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        levels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number:06}.png")
    return folder


def peak(folder: Path, out: Path, sender: multiprocessing.connection.Connection) -> None:
    """Sends the most memory that an index took, in MB."""
    fv.index(small(), folder, out=out, progress=False)
    sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory(out: Path, counts: tuple[int, ...]) -> None:
    """Prints the peak memory of an index of so many images, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    for count in counts:
        folder = pictures(out / f"small-{count}", count)
        receiver, sender = context.Pipe(False)
        process = context.Process(target=peak, args=(folder, out / f"store-{count}", sender))
        process.start()
        print(f"peak memory with {count} images: {receiver.recv():.0f} MB", flush=True)
        process.join()


def speed(
    photographs: Path,
    out: Path,
    rounds: int,
    size: tuple[int, int],
    some_of: tuple[str, ...] | None,
) -> None:
    """Prints photographs a second of the bare network, of the measures, and of a whole index.

    The bare network and the measures are given the images of a batch; an index reads and decodes
    files, and writes what it finds. What is once a network (compiling, receptive fields) is done.
    """
    model = fv.load("efficientnet_lite0")
    layers = some_of or tuple(name for name in model.layers(size) if "/" not in name)
    print(f"{size[0]} x {size[1]}, {len(layers)} layers")
    files = image_files(photographs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = np.asarray(fv.read_images(files[:BATCH], size))
    places = np.zeros((BATCH, len(layers)), np.uint32)
    bare = kernels.compiled(lambda params, x: model.apply(params, x)["logits"])
    store = out / f"of-{size[0]}-{len(layers)}"
    folder, some = out / "timed", iter(range(10**6))

    def more(count: int) -> None:
        """Puts other photographs into the folder, and out of the index what it has."""
        shutil.rmtree(folder, ignore_errors=True)
        (store / "files.jsonl").unlink(missing_ok=True)
        folder.mkdir()
        for _ in range(count):
            number = next(some)
            shutil.copy(files[number % len(files)], folder / f"{number:06}.jpg")

    def whole() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fv.index(
                model, folder, layers=layers, size=size, batch=BATCH, out=store, progress=False
            )

    def repeated(way: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(BATCHES):
                way()

        return run

    ways: dict[str, Callable[[], None]] = {
        "bare": repeated(lambda: np.asarray(bare(model.params, images))),
        "measured": repeated(lambda: measure(model, layers, images, places)),
        "indexed": whole,
    }
    more(BATCH)
    for way in ways.values():
        way()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            more(BATCHES * BATCH)
            began = time.perf_counter(), time.process_time()
            way()
            taken[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    rates = {name: BATCHES * BATCH / np.array(seconds) for name, seconds in taken.items()}
    for name, found in rates.items():
        elapsed, busy = np.median(found, axis=0)
        print(f"{name}: {elapsed:.0f} photographs a second, {busy:.0f} a second of processor time")
    for name in ("measured", "indexed"):
        elapsed, busy = (rates[name] / rates["bare"]).T
        print(
            f"{name} to bare: {np.median(elapsed):.2f} ({studies.spread(elapsed, '.2f')}); by "
            f"processor time {np.median(busy):.2f}",
            flush=True,
        )


def kills(out: Path, count: int, images: int) -> None:
    """Kills an index at random moments, and prints what was lost by each."""
    folder = pictures(out / f"killed-{images}", images)
    store = out / "killed"
    rng = np.random.default_rng(0)
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import featvis as fv, natural_index\n"
        "from pathlib import Path; from featvis.natural import store\n"
        "append = store.Store.append\n"
        "def slow(self, *given):\n"
        "    append(self, *given); print(len(self.images), flush=True); time.sleep(0.02)\n"
        "store.Store.append = slow\n"
        "fv.index(natural_index.small(), sys.argv[2], out=sys.argv[3], batch=8, progress=False)\n"
    )
    lost = []
    for _ in range(count):
        command = [
            sys.executable,
            "-c",
            program,
            str(Path(__file__).parent),
            str(folder),
            str(store),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = [process.stdout.readline()]  # it is under way
        time.sleep(rng.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
        process.wait()
        told = [int(line) for line in said if line.strip().isdigit()]
        found = len(fv.Index(store))
        lost.append(max(told, default=0) - found)
    made = fv.index(small(), folder, out=store, batch=8, progress=False)
    whole = fv.index(small(), folder, out=out / "whole", batch=8, progress=False)
    order = np.argsort([path.name for path in made.files])
    same = all(
        np.array_equal(made.responses(unit).maximum[order], whole.responses(unit).maximum)
        for unit in ("conv:0", "conv:7")
    )
    print(f"images lost that were said to be in, by {count} kills: {lost}")
    print(f"after them {len(made)} of {images} images, the same as without: {same}")


def main() -> None:
    """Measures all three."""
    line = studies.CommandLine(
        __doc__, "natural_index", folder="photographs", required=True, needs=("zarr",),
        quick="fewer images and kills",
    )  # fmt: skip
    options = line.read()
    started = time.perf_counter()
    kills(options.out, 3 if options.quick else 20, 200 if options.quick else 2000)
    memory(options.out, (100, 1000) if options.quick else (100, 1000, 10000))
    for size, layers in TIMED[:1] if options.quick else TIMED:
        speed(options.folder, options.out, 2 if options.quick else 5, size, layers)
    print(f"{time.perf_counter() - started:.0f} s: {options.out}")


if __name__ == "__main__":
    studies.run(main)
