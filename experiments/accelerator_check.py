"""Is it right and fast on this accelerator? What a person with a card runs and pastes.

Sections, by what they are worth; each prints what it finds at once, a failure is a line, and what
there is no time for is skipped with a line:

    device       the card, the versions
    gradients    of an image by block8:3 and logits:285 of EfficientNet-Lite0, on the device against
                 the processor, in float32 and in what JAX takes for float32 by default (TF32)
    steps        milliseconds a step of featvis's own compiled loop, of several numbers of images,
                 networks and precisions, against lucent on the same card; whether the loop gives
                 the same bits twice; memory against featvis's estimate; bytes and operations that
                 the compiler counts, beside what the card copies and multiplies here
    units        64 channels of a layer in one batch, one compilation; the same pictures twice?
    deterministic  where the bits were not the same: again with XLA's deterministic operations

Command: python experiments/accelerator_check.py [--minutes 8] [--json FILE] [--weights FILE]
    (--quick: a network of 32 x 32 pixels, to see whether it runs; --networks, --images, --size,
    --sections: less, or other)
Needs no network and no weights but EfficientNet-Lite0's, and those not either: weights are random
    where there are none, which changes no time. lucent (PyPI `torch-lucent`,
    `efficientnet-lite-pytorch`) is compared where it is.
What it showed: on one NVIDIA H200 what `experiments/guide/speed.md` says, in 58 s for 16 images at
    one layer; with XLA's autotuning nothing but the gradients was ready within 2 minutes.
What is not the same: lucent's forward goes through the whole network, whatever the layer, and all
    images of a batch share one draw of the transforms; ours draws for each. Its TF32 is on in
    convolutions and products for "default", off for "float32".
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import featvis as fv
from featvis import loading
from featvis.errors import FeatvisError
from featvis.models import Model

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from peers.accelerator import (
    LITE,
    ON_CPU,
    PLACES,
    PRECISIONS,
    QUICK,
    REPEATS,
    Case,
    build,
    card,
    gradient_makers,
    measure,
)
from peers.networks import LAYERS
from peers.ours import resized
from peers.serving import Peer

WHERE = ("middle", "logits")
SECTIONS = ("device", "gradients", "steps", "units", "deterministic")
#: Seconds that a program takes to compile on an accelerator, before one has been compiled.
COMPILING = 25.0
#: Seconds that are kept for measuring what has been compiled, and for the table.
RESERVE = 8.0
UNITS, UNIT_STEPS, UNIT_SIZE = 64, 128, 128
#: Of the card's memory for JAX: the rest is for the peer.
SHARE = "0.6"


@dataclass(eq=False)
class Report:
    """What is found: said at once, and kept for the file."""

    end: float
    file: Path | None
    found: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    compiling: float = COMPILING

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def keep(self, **found: Any) -> None:
        """Adds to what is found, and writes it."""
        self.found |= found
        if self.file is not None:
            whole = json.dumps({**self.found, "cases": self.rows}, indent=1)
            self.file.write_text(whole + "\n", encoding="utf-8")

    def has(self, seconds: float, what: str) -> bool:
        """Whether so much time is left; says what is skipped where it is not."""
        if self.left < seconds:
            self.say(f"skipped: {what} (needs about {seconds:.0f} s, {max(self.left, 0):.0f} left)")
            return False
        return True

    @contextlib.contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Says a failure in a line, of whatever kind, and goes on."""
        try:
            yield
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"
            self.say(f"failed: {what}: {said}")
            self.found.setdefault("failures", []).append(f"{what}: {said}")
            self.keep()


def compiled_together(report: Report, makers: dict[Any, Callable[[], Any]]) -> dict[Any, Any]:
    """What each gives, all at once on threads: those that were ready in time."""
    began = time.monotonic()
    pool = ThreadPoolExecutor(max(2, min(len(makers), os.cpu_count() or 2)))
    futures = {name: pool.submit(make) for name, make in makers.items()}
    found = collected(report, futures)
    pool.shutdown(wait=False, cancel_futures=True)
    report.compiling = time.monotonic() - began
    report.say(f"{len(found)} programs ready after {report.compiling:.1f} s")
    return found


def collected(report: Report, futures: dict[Any, Future[Any]]) -> dict[Any, Any]:
    """The results that there are in time; of the others, why not."""
    wait(futures.values(), timeout=max(report.left - RESERVE, 0))
    found = {}
    for name, future in futures.items():
        if not future.done() or future.cancelled():
            report.say(f"skipped: {name}: not ready in time")
            continue
        with report.trying(str(name)):
            found[name] = future.result()
    return found


# ---- the device ----------------------------------------------------------------------------------


def device(report: Report) -> None:
    """The card, the versions."""
    here = jax.devices()[0]
    versions = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "torch-lucent", "featvis"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    stats = here.memory_stats() or {}
    limit = stats.get("bytes_limit")
    report.keep(device=here.device_kind, platform=here.platform, versions=versions, limit=limit)
    report.say(f"{here.device_kind} ({here.platform}), {len(jax.devices())} of them, "
               f"{os.cpu_count()} processor cores")  # fmt: skip
    report.say(", ".join(f"{name} {version}" for name, version in versions.items()))
    if limit:
        report.say(f"memory for JAX {limit / 2**30:.1f} GiB")


# ---- correctness ---------------------------------------------------------------------------------


def gradients(report: Report, found: dict[str, Any], truth: list[np.ndarray]) -> None:
    """Relative errors |device - processor| / |processor| of what `gradient_makers` gave."""
    kept = {}
    for name, theirs in found.items():
        for unit, a, b in zip(WHERE, theirs, truth, strict=True):
            error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
            kept[f"{name}, {unit}"] = error
            report.say(f"{name}, {unit}: relative error {error:.2g} to the processor's")
    report.keep(gradients=kept)


# ---- steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Models:
    """The networks by name, with weights where there are any.

    Attributes:
        report: is told where there are none.
        weights: a file of EfficientNet-Lite0's.
    """

    report: Report
    weights: Path | None

    @functools.cache  # noqa: B019, there is one of it
    def of(self, name: str, precision: str = "default") -> Model:
        """A network with its weights as the precision has them."""
        if precision == "bfloat16":
            model = self.of(name)
            half = jax.tree.map(lambda weight: weight.astype(jnp.bfloat16), model.params)
            return dataclasses.replace(model, params=half)
        try:
            return fv.load(name, self.weights if name == LITE else None)
        except FeatvisError as error:
            self.report.say(f"random weights for {name}: {str(error)[:100]}")
            return loading.entry(name).random()


def steps(
    report: Report,
    models: Models,
    peer: Peer | None,
    cases: Sequence[Case],
    beside: dict[Any, Callable[[], Any]],
) -> dict[str, Any]:
    """Compiles cases together, then measures each, and the peer's where it has the precision.

    Args:
        report: is told.
        models: the networks.
        peer: lucent's process, or None.
        cases: to measure.
        beside: what else is to be made at the same time; it is returned.
    """
    makers: dict[Any, Callable[[], Any]] = dict(beside)
    for case in cases:
        with report.trying(str(case)):
            makers[case] = functools.partial(build, models.of(case.network, case.precision), case)
    found = compiled_together(report, makers)
    rows: dict[Case, dict[str, Any]] = {}
    for case in cases:
        if case not in found or not report.has(2, f"measuring {case}"):
            continue
        with report.trying(str(case)):
            rows[case] = row = measure(case, found.pop(case))
            report.rows.append(row)
            line = f"{case} {row['ms']:9.3f} ms"
            line += "" if row["equal"] else ", NOT the same bits twice"
            line += "" if row["finite"] else ", NOT finite"
            report.say(line)
            report.keep()
    for case, row in rows.items():
        if case.precision != "bfloat16":
            row |= against(report, peer, case, row["ms"])
            report.keep()
    return found


def against(report: Report, peer: Peer | None, case: Case, ms: float) -> dict[str, Any]:
    """The peer's time of a case, and how many times ours it is."""
    if peer is None or case.network not in LAYERS:
        return {"peer": None, "ratio": None}
    if not peer.gone and not report.has(RESERVE, f"lucent's {case}"):
        return {"peer": None, "ratio": None}
    gone = peer.gone
    arguments = {"network": case.network, "layer": case.place, "batch": case.images}
    found = peer.ask(
        "on_device", report.left - RESERVE / 2, **arguments, size=case.size, repeats=REPEATS,
        tf32=case.precision == "default",
    )  # fmt: skip
    if "error" in found and not gone:
        report.say(f"no lucent: {found['error']}")
    theirs = found.get("ms")
    if theirs:
        report.say(f"{case} {theirs:9.3f} ms of lucent: {theirs / ms:.2f} times ours")
    return {"peer": theirs, "ratio": theirs / ms if theirs else None}


# ---- whole runs ----------------------------------------------------------------------------------


def units(report: Report, model: Model, count: int, size: int, taken: int) -> None:
    """A layer's units in one batch: units a second once compiled, and whether they come again."""
    texts = [f"{PLACES[model.name]['middle']}:{unit}" for unit in range(count)]
    written = fv.Fourier((size, size))
    loops: list[str] = []

    def note(event: str, seconds: float, **about: Any) -> None:
        if event.endswith("backend_compile_duration") and "take_steps" in str(about):
            loops.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)

    def render() -> tuple[float, np.ndarray]:
        began = time.perf_counter()
        found = fv.synthesize_many(
            model, texts, written, batch_limit=count, steps=taken, transform=resized(size),
            progress=False,
        )  # fmt: skip
        pictures = np.concatenate([result.images for _, result in found])
        return time.perf_counter() - began, pictures

    cold, first = render()
    warm, second = render()
    equal = bool(np.array_equal(first, second))
    found = {"cold": cold, "warm": warm, "rate": count / warm, "loops": len(loops), "equal": equal}
    report.keep(units={**found, "count": count, "size": size, "steps": taken})
    report.say(f"{count} units of {size}², {taken} steps: {count / warm:.2f} a second "
               f"({cold:.1f} s with {len(loops)} compilations of the loop); the same pictures "
               f"twice: {'yes' if equal else 'NO'}")  # fmt: skip


def deterministic(report: Report, given: argparse.Namespace, row: dict[str, Any]) -> None:
    """The same bits twice with XLA's deterministic operations? In a process of its own."""
    arguments = ["--networks", row["network"], "--images", str(row["images"])]
    arguments += [
        "--size",
        str(row["size"]),
        *(["--weights", given.weights] if given.weights else []),
    ]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    command = [sys.executable, __file__, *map(str, arguments), "--sections", "steps", "--no-peer"]
    command += ["--precisions", "default", "--minutes", f"{(report.left - 2) / 60:.2f}"]
    env = {**os.environ, "XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.15"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "² " in line or "failed" in line]
    report.keep(deterministic=lines)
    report.say("with deterministic operations:")
    report.say("\n".join(f"    {line}" for line in lines) or f"    failed: {done.stderr[-200:]}")


# ---- all of it -----------------------------------------------------------------------------------

COLUMNS = ("network", "layer", "precision", "images", "ms", "images/s", "lucent ms", "ratio",
           "estimate GiB", "compiler GiB", "peak GiB", "GB/s", "TFLOP/s", "same bits")  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All cases, in Markdown."""

    def cells(row: dict[str, Any]) -> list[str]:
        def shown(value: float | None) -> str:
            return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"

        def gib(value: int | None) -> str:
            return "" if value is None else f"{value / 2**30:.3g}"

        layer = PLACES[row["network"]][row["place"]]
        return [
            row["network"], layer, row["precision"], str(row["images"]), shown(row["ms"]),
            shown(1000 * row["images"] / row["ms"]), shown(row.get("peer")),
            shown(row.get("ratio")), gib(row["estimate"]), gib(row["stated"]), gib(row["peak"]),
            shown(row["GB/s"]), shown(row["TFLOP/s"]), "yes" if row["equal"] else "NO",
        ]  # fmt: skip

    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def waves(given: argparse.Namespace) -> Iterator[list[Case]]:
    """Cases that are compiled together, those that are worth most first."""
    first, *others = given.networks
    images, rest = given.images[:2], given.images[2:]

    def cases(network: str, precision: str, images: Sequence[int]) -> list[Case]:
        return [
            Case(network, place, precision, count, given.size)
            for count in images
            for place in given.places
            if precision in given.precisions
        ]

    exact = [name for name in given.precisions if name != "default"]
    yield cases(first, "default", images[:1])
    large = cases(first, "default", images[1:])
    yield large + [case for name in exact for case in cases(first, name, images[:1])]
    yield cases(first, "default", rest)
    yield [case for network in others for case in cases(network, "default", images[:1])]
    yield [case for name in exact for case in cases(first, name, images[1:])]
    for network in others:
        yield cases(network, "default", images[1:])
        yield [case for name in exact for case in cases(network, name, images[:1])]
        yield cases(network, "default", rest)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    needs = "It needs featvis alone; lucent is compared where torch-lucent is installed."
    title = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=title, epilog=needs)
    parser.add_argument("--minutes", type=float, default=8.0, help="how long at most, about")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--weights", type=Path, help="a file of EfficientNet-Lite0's weights")
    parser.add_argument("--quick", action="store_true", help="take a tiny network: does it run?")
    names = [name for name in PLACES if name != "resnet18"]
    parser.add_argument("--networks", nargs="+", choices=names)
    parser.add_argument(
        "--images", nargs="+", type=int, help="numbers of images, those worth most first"
    )
    parser.add_argument("--places", nargs="+", choices=WHERE, default=WHERE)
    parser.add_argument("--size", type=int)
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--no-peer", action="store_true", help="leave lucent out")
    given = parser.parse_args(arguments)
    usual: dict[str, Any] = {
        "networks": [LITE, "resnet50", "vit_small_patch16"],
        "images": [16, 256, 1, 64],
        "size": 224,
        "precisions": ["default", "float32", "bfloat16"],
    }
    if given.quick:
        usual |= {"networks": [QUICK], "images": [2], "size": 32, "precisions": ["default"]}
    for name, value in usual.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the sections for which there is time."""
    began = time.monotonic()
    given = parse(arguments)
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", SHARE)
    report = Report(began + 60 * given.minutes, given.json)
    peer = None if given.no_peer else Peer("lucent")
    if peer is not None and given.networks[0] in LAYERS:
        peer.prepare("ready", network=given.networks[0])
    try:
        _all(report, peer, given)
    finally:
        if peer is not None:
            peer.close()
        if report.rows:
            report.say(table(report.rows))
        report.keep(seconds=time.monotonic() - began)
        report.say(f"{time.monotonic() - began:.0f} s")


def _all(report: Report, peer: Peer | None, given: argparse.Namespace) -> None:
    if "device" in given.sections:
        with report.trying("device"):
            device(report)
    if jax.default_backend() == "cpu":
        report.compiling = 1.0
    models = Models(report, given.weights)
    beside: dict[Any, Callable[[], Any]] = {}
    truth: dict[Any, Future[Any]] = {}
    if "gradients" in given.sections:
        with report.trying("gradients"):
            model = models.of(given.networks[0])
            beside = gradient_makers(model, given.size, "float32" in given.precisions)
            # Nothing waits for the processor.
            truth = {ON_CPU: ThreadPoolExecutor(1).submit(beside.pop(ON_CPU))}
    for number, cases in enumerate(waves(given) if "steps" in given.sections else [[]]):
        if number == 2:
            _units(report, models, given)
        if number and (not cases or not report.has(report.compiling + RESERVE, _listed(cases))):
            continue
        with report.trying("steps"):
            found = steps(report, models, peer, cases, beside)
            here = {name: found[name] for name in beside if name in found}
            if here and (right := collected(report, truth)):
                gradients(report, here, right[ON_CPU])
        beside = {}
        if number == 0 and "steps" in given.sections and report.has(10, "card"):
            with report.trying("card"):
                rates = card()
                report.keep(card=rates)
                report.say(
                    "card: " + ", ".join(f"{rate:.4g} {what}" for what, rate in rates.items())
                )
    if "steps" not in given.sections:
        _units(report, models, given)
    if peer is None or "deterministic" not in given.sections:
        return
    some = next((row for row in report.rows if not row["equal"]), None)
    if some and report.has(2 * report.compiling + 15, "deterministic"):
        peer.close()
        with report.trying("deterministic"):
            deterministic(report, given, some)


def _listed(cases: Sequence[Case]) -> str:
    return "; ".join(" ".join(str(case).split()) for case in cases)


def _units(report: Report, models: Models, given: argparse.Namespace) -> None:
    if "units" not in given.sections:
        return
    count, size, taken = (4, 32, 4) if given.quick else (UNITS, UNIT_SIZE, UNIT_STEPS)
    if report.has(report.compiling + RESERVE, "units"):
        with report.trying("units"):
            units(report, models.of(given.networks[0]), count, size, taken)


if __name__ == "__main__":
    main()
    # Programs that are being compiled yet cannot be stopped: the process ends without them.
    sys.stdout.flush()
    os._exit(0)
