"""A step on an accelerator: compiled ahead of time, measured, and beside what the card can do."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import featvis as fv
from featvis import kernels
from featvis.models import Model
from featvis.results.run import Run, as_objective
from featvis.synthesis import memory
from featvis.synthesis.arguments import check_optimizer
from featvis.synthesis.loop import CHUNK, FOREVER, take_steps
from featvis.synthesis.run import Loop
from peers.networks import LAYERS, UNIT
from peers.ours import resized

ON_CPU = "gradients on the processor"
LITE, QUICK = "efficientnet_lite0", "cifar_resnet20"
PLACES = {
    **{name: {place: layers[place][0] for place in ("middle", "logits")} for name, layers in
       LAYERS.items()},
    QUICK: {"middle": "layer2_0", "logits": "logits"},
}  # fmt: skip
CLASS = 285
#: What products of matrices and convolutions are computed in, by the name of it here.
PRECISIONS = {"default": None, "float32": "highest", "bfloat16": None}
REPEATS = 3


class Case(NamedTuple):
    """One program of a step.

    Attributes:
        network: its name.
        place: of the unit.
        precision: one of `PRECISIONS`.
        images: their number.
        size: of the images.
    """

    network: str
    place: str
    precision: str
    images: int
    size: int

    def __str__(self) -> str:
        layer = PLACES[self.network][self.place]
        pictures = f"{self.images} x {self.size}²"
        return f"{self.network} {layer:8} {self.precision:8} {pictures:10}"


class Built(NamedTuple):
    """A compiled loop, and how to run it.

    Attributes:
        take: so many steps from the start; returns the state and the scores.
        estimate: bytes, by featvis.
        stated: bytes, by the compiler.
        flops: of a step, by the compiler.
        bytes: that a step reads and writes, by the compiler.
        seconds: of its compilation, beside others.
    """

    take: Callable[[int], Any]
    estimate: int
    stated: int
    flops: float
    bytes: float
    seconds: float


# ---- the card


def least_seconds(function: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The least of several times, once warm."""
    jax.block_until_ready(function())
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        taken.append(time.perf_counter() - began)
    return min(taken)


def card() -> dict[str, float]:
    """Bytes a second of a large copy, operations a second of large products: measured here."""
    small = jax.default_backend() == "cpu"
    side, length, times = (512, 2**20, 2) if small else (8192, 2**28, 10)

    @functools.partial(jax.jit, static_argnames="precision")
    def multiply(a: jax.Array, times: jax.Array, precision: str | None = None) -> jax.Array:
        product = functools.partial(jnp.matmul, precision=precision)
        return jax.lax.fori_loop(0, times, lambda _, x: product(x, a), a)

    @jax.jit
    def copy(x: jax.Array, times: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, x: x + 1, x)

    many = jnp.zeros(length, jnp.float32)
    seconds = least_seconds(lambda: copy(many, jnp.int32(times)))
    found = {"GB/s": times * 2 * many.nbytes / seconds / 1e9}
    for name, precision in PRECISIONS.items():
        kind = jnp.bfloat16 if name == "bfloat16" else jnp.float32
        a = jnp.full((side, side), 1 / side, kind)
        product = functools.partial(multiply, a, jnp.int32(times), precision=precision)
        found[f"TFLOP/s {name}"] = times * 2 * side**3 / least_seconds(product) / 1e12
    return found


# ---- gradients


def gradient_program(model: Model, places: Sequence[str], precision: str | None) -> Any:
    """Compiled for where its arguments are: the gradients of two units by the image."""
    units = [as_objective(place) for place in places]

    def both(params: Any, x: jax.Array) -> list[jax.Array]:
        def score(x: jax.Array, unit: Any) -> jax.Array:
            return jnp.sum(unit(fv.Activations(model.apply(params, x)), x))

        return [jax.grad(score)(x, unit) for unit in units]

    def run(params: Any, x: Any) -> list[np.ndarray]:
        with jax.default_matmul_precision(precision):
            return [np.asarray(one) for one in jax.jit(both)(params, x)]

    return run


def gradient_makers(model: Model, size: int, default: bool) -> dict[str, Callable[[], Any]]:
    """Gradients by where and how they are computed, each to be run on a thread of its own."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(4, size, size, 3)).astype(np.float32)
    places = PLACES[model.name]
    classes = model.layers()["logits"][-1]
    units = [f"{places['middle']}:{UNIT}", f"{places['logits']}:{CLASS % classes}"]

    def on(platform: str | None, precision: str | None) -> list[np.ndarray]:
        where = (jax.devices(platform) if platform else jax.devices())[0]
        with jax.default_device(where):
            given = jax.device_put((model.params, x), where)
            return gradient_program(model, units, precision)(*given)  # type: ignore[no-any-return]

    makers = {
        ON_CPU: functools.partial(on, "cpu", "highest"),
        "gradients on the device, float32": functools.partial(on, None, "highest"),
    }
    if default:
        makers["gradients on the device, default"] = functools.partial(on, None, None)
    return makers


# ---- steps


def build(model: Model, case: Case) -> Built:
    """The loop that `fv.synthesize` would compile, compiled ahead of time."""
    written = fv.Fourier((case.size, case.size))
    unit = f"{PLACES[case.network][case.place]}:{UNIT}"
    run = Run(
        model, unit, written, batch=case.images, steps=CHUNK, transform=resized(case.size),
        progress=False,
    )  # fmt: skip
    loop = Loop(run)
    # What the loop hands to its program: the program itself is not to be written twice.
    program, given = (
        loop._program,
        (loop._model.params, loop._leaves, loop._keys, loop._first, loop._dead),
    )
    step = jax.jit(
        take_steps.__wrapped__,
        static_argnames=("program",),
        compiler_options=kernels.compiler_options(),
    )
    forever = jnp.int32(FOREVER)
    began = time.perf_counter()
    with jax.default_matmul_precision(PRECISIONS[case.precision]):
        lowered = step.lower(program, *given, jnp.int32(1), forever)
        compiled = lowered.compile()
    seconds = time.perf_counter() - began
    state = check_optimizer(run.optimizer, written)
    parts = run.parts
    need = memory.estimate(
        parts.model, parts.objective, written, parts.transform, case.images, state, steps=CHUNK
    )
    sizes = compiled.memory_analysis()
    # What a library does is not seen any more where it is called by its name.
    flops, moved = _cost(lowered, "flops"), _cost(compiled, "bytes accessed")
    stated = sum(
        getattr(sizes, f"{what}_size_in_bytes", 0) for what in ("temp", "argument", "output")
    )

    def take(steps: int) -> Any:
        return jax.block_until_ready(compiled(*given, jnp.int32(steps), forever))

    return Built(
        take, need.of(case.images), stated, flops, moved, seconds
    )  # fmt: skip


def _cost(program: Any, what: str) -> float:
    cost = program.cost_analysis() or {}
    return float((cost[0] if isinstance(cost, list) else cost).get(what, 0))


def measure(case: Case, built: Built, most: float = 0.25) -> dict[str, Any]:
    """Milliseconds of a step, the same bits twice, memory, bytes and operations a second."""
    before = _peak()
    built.take(1)
    began = time.perf_counter()
    built.take(2)
    once = (time.perf_counter() - began) / 2
    steps = int(np.clip(most / once, 4, CHUNK))
    ms = 1000 * least_seconds(functools.partial(built.take, steps)) / steps
    first, second = (jax.tree.map(np.asarray, built.take(steps)) for _ in range(2))
    equal = all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )
    peak = _peak()
    return {
        **case._asdict(),
        "ms": ms,
        "steps": steps,
        "equal": equal,
        "finite": bool(np.all(first[0].finite)),
        "estimate": built.estimate,
        "stated": built.stated,
        "flops": built.flops,
        "bytes": built.bytes,
        # It never falls: what it is for the largest program so far.
        "peak": peak if peak and peak > (before or 0) else None,
        "GB/s": built.bytes / ms / 1e6,
        "TFLOP/s": built.flops / ms / 1e9,
        "compiling": built.seconds,
    }


def _peak() -> int | None:
    found = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if found is None else int(found)
