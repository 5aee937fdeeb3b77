"""How fast are attributions beside captum's, and does their memory grow with steps and masks?

Peers: captum 0.9 for integrated gradients (50 steps by Gauss's rule, which is its default; the
    images that go through the network together are what suits it best) and Grad-CAM. It has no
    RISE: that is its authors' loop over batches of masks, written plainly in PyTorch. Same weights
    (EfficientNet-Lite0), images, sizes; the peer's weights are frozen. Each in a process of its
    own, in alternation; every ratio is of one round, so that above 1 is ours faster. A time is a
    whole call's, once compiled.
Command: pip install -e ".[benchmark,parity]" && python experiments/attribution_benchmark.py
    (--part: one of gradients, masks and memory; --quick: one round of few steps and masks)
Runtime: two quiet cores; gradients 3 min, masks 3 min; memory 9 min beside others; --quick 3 min.
    On two cores that others keep busy the gradients alone take more than 4 min a round.
What it showed: torch 2.13, captum 0.9, jax 0.10.2, two quiet cores with AVX2. Integrated gradients
    of 50 steps on 4 images of 224 pixels: ours 4.4 s, captum 11.5, the ratios of three rounds 1.94,
    2.72, 2.88. Grad-CAM of 4 images: 54 ms against 72, ratios 1.19, 1.33, 1.37: not twice as fast,
    as it is hardly more than one pass forward. Before a warm call made no dry run anew and sent
    fewer images through one pass together they were 1.46, 2.00, 2.19 and 0.67, 0.97, 1.22. A
    process with RISE of 2,000 masks of one image took 38 s, and 143 s in PyTorch, start and
    compiling included.
    Memory of a process, warm, is flat: 445, 446 and 446 MB with 25, 100 and 400 steps of integrated
    gradients, 447, 441 and 472 with 250, 1,000 and 4,000 masks of RISE.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peer_benchmark import (
    HEADER,
    LITE,
    Bench,
    Row,
    alternating,
    cells,
    facts,
    markdown,
    measure,
    say,
    values,
    write_figures,
)

INSTALL = 'pip install -e ".[benchmark,parity]"'
OURS, PEER = "explaining", "explaining_torch"
#: The ratio to reach in each.
TARGET = 2.0
SIZE = 224
#: How many times the memory of the fewest steps or masks the most may take.
FLAT = 1.1


def compared(bench: Bench, tasks: dict[str, dict[str, Any]], rounds: int) -> list[Row]:
    """Seconds of tasks, ours and the peer's.

    Args:
        bench: what has them done.
        tasks: by what they are.
        rounds: of ours and the peer's in alternation.
    """
    works: dict[str, list[Any]] = {"ours": [], PEER: []}
    for number, order in alternating(rounds, PEER):
        for who in order:
            say(f"round {number + 1} of {rounds}, {who}")
            works[who].append(bench.work(OURS if who == "ours" else PEER, [*tasks.values()]))
    return [
        Row(
            name, "s", values(works["ours"], i, "seconds"), values(works[PEER], i, "seconds"),
            who="captum" if "RISE" not in name else "PyTorch", target=TARGET,
        )
        for i, name in enumerate(tasks)
    ]  # fmt: skip


def gradients(bench: Bench, quick: bool) -> list[Row]:
    """Integrated gradients and Grad-CAM of four images."""
    about = {"network": LITE, "count": 1 if quick else 4, "size": 64 if quick else SIZE}
    steps = 4 if quick else 50
    tasks = {
        f"integrated gradients, {steps} steps, {about['count']} images of {about['size']}": {
            "kind": "integrated_gradients", **about,
            "repeats": 1, "steps": steps, "together": 1 if quick else 4,
        },
        f"Grad-CAM, {about['count']} images of {about['size']}": {
            "kind": "grad_cam", **about, "repeats": 2 if quick else 9,
        },
    }  # fmt: skip
    return compared(bench, tasks, 1 if quick else 3)


def masks(bench: Bench, quick: bool) -> list[Row]:
    """RISE of one image."""
    about = {"network": LITE, "count": 1, "size": 64 if quick else SIZE}
    count = 64 if quick else 2000
    name = f"RISE, {count} masks, 1 image of {about['size']}"
    task = {"kind": "rise", **about, "repeats": 1, "masks": count}
    return compared(bench, {name: task}, 1)


def memory(bench: Bench, quick: bool) -> list[Row]:
    """The most memory of a process of ours that does one thing."""
    about = {"network": LITE, "count": 1, "size": 64 if quick else SIZE, "repeats": 0}
    kinds = {
        "steps": ("integrated_gradients", (2, 8) if quick else (25, 100, 400)),
        "masks": ("rise", (40, 160) if quick else (250, 1000, 4000)),
    }
    rows = []
    for of, (kind, counts) in kinds.items():
        least: float | None = None
        for count in counts:
            say(f"memory of {count} {of}")
            task = {"kind": kind, **about, of: count, **({"together": 1} if of == "steps" else {})}
            # Once for the compiler, which takes more than the program does.
            bench.work(OURS, [task])
            work = bench.work(OURS, [task])
            peak = work.ended.peak if work.found[0] is not None else None
            limit = None if least is None else round(FLAT * least)
            rows.append(Row(f"memory, {kind}, {count} {of}", "MB", [peak], limit=limit))
            least = least if least is not None else peak
    return rows


PARTS = {one.__name__: one for one in (gradients, masks, memory)}


def main() -> None:
    """Measures the parts that are asked for, and prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=INSTALL)
    parser.add_argument("--quick", action="store_true", help="one round of few steps and masks")
    parser.add_argument("--part", choices=PARTS, action="append", help="one of them; else all")
    parser.add_argument("-o", "--out", type=Path, default=Path("attribution_benchmark"))
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="attribution-benchmark-") as folder:
        bench = Bench(Path(folder))
        rows = measure(bench, options.quick, options.part or tuple(PARTS), known=PARTS)
    print(markdown(HEADER, [cells(row) for row in rows]))
    options.out.mkdir(parents=True, exist_ok=True)
    about = facts(bench, time.perf_counter() - started)
    name = "-".join(options.part or ["all"])
    write_figures(options.out / f"{name}.json", rows, about)
    for trouble in bench.troubles:
        print(f"failed: {trouble}", file=sys.stderr)
    for who, reason in bench.missing.items():
        print(f"{who} is not measured ({reason}): {INSTALL}")


if __name__ == "__main__":
    main()
