"""Are XLA's options right on this version and processor? The sweep before they are used.

An option of a compiler can be right in one version and wrong in the next: 512-bit vectors made
`arctan` wrong by up to 3 with jaxlib 0.10.2, and switching a pass off ended the process with 0.12.
So `featvis.kernels` uses an option only where this sweep has passed, and none elsewhere.

Every unary and binary function of `jax.numpy`, `jax.nn` and `jax.scipy.special` with its gradient,
convolutions in both layouts, matrix products, attention, scans, rematerialisation, gradients of
one's own, and whole steps of every parameterization are compared: with the options against without
them, within rounding, and eight runs with each other, to the bit. Each group is a process of its
own, so that a crash is a finding too.

    python experiments/compiler_sweep.py                    # our options, this processor
    python experiments/compiler_sweep.py --isa AVX2         # as on a processor without AVX-512
    python experiments/compiler_sweep.py --option xla_cpu_prefer_vector_width=512

Needs no extras. Runtime: 8 minutes on two busy cores. Where it says "right", its last line goes
into `featvis.kernels.SWEPT`. What it showed: our option is right in all of 556 cases with jaxlib
0.10.2, and in all of 562 with 0.12.0.1, on an x86-64 with AVX-512 and on one with AVX2; 512-bit
vectors are wrong with 0.10.2 (`arctan` by 0.8 of 1 + the value).
"""

from __future__ import annotations

import argparse
import functools
import inspect
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import jaxlib
import numpy as np
from jax import lax

import featvis as fv
from featvis import kernels
from featvis.parameterizations import Parameterization

RUNS = 8
#: Differences that rounding explains, of values and of gradients, to 1 + the value.
TOLERANCES = {"value": 1e-5, "gradient": 1e-4, "picture": 1e-3}
#: Without Adam's division by gradients that are next to nothing, which makes much of rounding.
OPTIMIZER = "chain(normalize_by_update_norm(), sgd(0.1))"
#: Functions that take floats for integers, and then make a program for each of them.
NOT_OF_FLOATS = {"roll"}
Case = tuple[str, Callable[..., Any], tuple[Any, ...]]


def ranges() -> list[np.ndarray]:
    """Numbers of all signs, above one and within one: one vector, and many with a rest."""
    rng = np.random.default_rng(0)
    few, many = (rng.normal(size=shape).astype(np.float32) for shape in ((64,), (61, 27)))
    above, within = 1.01 + np.abs(many), np.clip(many / 4, -0.99, 0.99)
    place = np.arange(many.shape[1])
    return [few, np.select([place < 9, place < 18], [many, above], within).astype(np.float32)]


def functions(quick: bool) -> Iterator[Case]:
    """Every function of the modules of one or two arrays of floats to one of the same shape."""
    seen = set()
    modules = (jnp, jax.nn, jax.scipy.special, lax)
    for module in modules:
        for name in sorted(vars(module)):
            function = getattr(module, name)
            if name.startswith("_") or not callable(function) or inspect.isclass(function):
                continue
            if name in NOT_OF_FLOATS:
                continue
            if id(function) in seen:
                continue
            seen.add(id(function))
            for count, (place, x) in itertools.product((1, 2), enumerate(ranges())):
                args = (x, np.ascontiguousarray(x[::-1]))[:count]
                if (quick and place) or not _maps_floats(function, args):
                    continue
                yield f"{module.__name__}.{name}/{count}[{place}]", function, args


def _maps_floats(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    try:
        out = jax.eval_shape(lambda *xs: function(*xs), *args)
    except Exception:  # Of whatever kind: it is no such function.
        return False
    wanted = (args[0].shape, np.float32)
    return isinstance(out, jax.ShapeDtypeStruct) and (out.shape, out.dtype) == wanted


def convolutions(quick: bool) -> Iterator[Case]:
    """In both layouts, of one group, several and one a channel, with strides and dilations."""
    rng = np.random.default_rng(1)
    for layout, shape in (("NHWC", (2, 13, 16, 24)), ("NCHW", (2, 24, 13, 16))):
        rule = (layout, "HWIO" if layout == "NHWC" else "OIHW", layout)
        for groups in (1, 4, 24):
            for side, stride, dilation in ((3, 1, 1), (5, 2, 1), (3, 1, 2), (1, 1, 1), (7, 4, 1)):
                if quick and (groups == 4 or stride > 1 or dilation > 1):
                    continue
                kernel = rng.normal(size=(side, side, 24 // groups, 24)).astype(np.float32) / 15
                if layout == "NCHW":
                    kernel = kernel.transpose(3, 2, 0, 1)
                convolve = functools.partial(
                    lax.conv_general_dilated,
                    window_strides=(stride, stride),
                    padding="SAME",
                    rhs_dilation=(dilation, dilation),
                    dimension_numbers=rule,
                    feature_group_count=groups,
                )
                image = rng.normal(size=shape).astype(np.float32)
                yield f"{layout} {groups} {side} {stride} {dilation}", convolve, (image, kernel)
        for groups in (1, 24):
            x = rng.normal(size=(2, 13, 16, 24)).astype(np.float32)
            kernel = rng.normal(size=(3, 3, 24 // groups, 24)).astype(np.float32) / 15
            ours = functools.partial(kernels.conv, stride=2, groups=groups)
            yield f"ours {groups} {layout}", ours, (x, kernel)


def programs(quick: bool) -> Iterator[Case]:
    """What networks are made of, and what our loops are made of."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 12, 16, 24)).astype(np.float32)
    square, wide = (rng.normal(size=(24, n)).astype(np.float32) / 5 for n in (24, 200))

    @jax.custom_jvp
    def own(x: jax.Array) -> jax.Array:
        return jnp.arctan(x)

    @own.defjvp
    def own_jvp(primals: Any, tangents: Any) -> Any:
        return own(primals[0]), tangents[0] / (1 + primals[0] ** 2)

    @jax.custom_vjp
    def own_back(x: jax.Array) -> jax.Array:
        return jnp.maximum(x, 0)

    own_back.defvjp(lambda x: (own_back(x), x), lambda x, g: (jnp.where((x > 0) | (g > 0), g, 0),))

    def attention(x: jax.Array) -> jax.Array:
        tokens = x.reshape(2, -1, 4, 6)
        weights = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", tokens, tokens) / 6**0.5)
        return jnp.einsum("nhts,nshd->nthd", weights, tokens)

    def scanned(x: jax.Array) -> jax.Array:
        return lax.scan(lambda x, _: (jnp.tanh(x @ square), x.sum()), x, None, length=5)[0]

    def normalised(x: jax.Array) -> jax.Array:
        return (x - x.mean((1, 2), keepdims=True)) * lax.rsqrt(x.var((1, 2), keepdims=True) + 1e-3)

    def pooled(x: jax.Array) -> jax.Array:
        low = jnp.float32(jnp.finfo(np.float32).min)
        return lax.reduce_window(x, low, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")

    cases: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "few rows": (jnp.matmul, (x[:1, 0, :3], wide)),
        "many rows": (jnp.matmul, (x, wide)),
        "batched": (lambda x: jnp.matmul(x, x.swapaxes(-1, -2)), (x,)),
        "attention": (attention, (x,)),
        "scan": (scanned, (x,)),
        "remat": (jax.checkpoint(lambda x: jax.nn.gelu(x @ square) @ square), (x,)),
        "loop": (lambda x: lax.fori_loop(0, 3, lambda i, x: jnp.sin(x) + i, x), (x,)),
        "branch": (lambda x: lax.cond(x[0, 0, 0, 0] > 0, jnp.sin, jnp.cos, x), (x,)),
        "custom jvp": (own, (x,)),
        "custom vjp": (own_back, (x,)),
        "batch norm": (normalised, (x,)),
        "max pool": (pooled, (x,)),
        "resize": (lambda x: jax.image.resize(x, (2, 19, 23, 24), "cubic"), (x,)),
        "fft": (lambda x: jnp.fft.irfft2(jnp.fft.rfft2(x, axes=(1, 2)) * 0.5, axes=(1, 2)), (x,)),
        "sort": (lambda x: jnp.sort(x, -1), (x,)),
        "cumsum": (lambda x: jnp.cumsum(x, -1), (x,)),
        "gather": (lambda x: x[:, ::-1][:, jnp.arange(12) // 2], (x,)),
        "bfloat16": (lambda x: jnp.tanh(x.astype(jnp.bfloat16)).astype(np.float32), (x,)),
        "normal": (lambda x: x + jax.random.normal(jax.random.key(1), x.shape), (x,)),
        "kept": (lambda x: kernels.kept(jnp.sin(x)) * jnp.cos(x), (x,)),
    }
    for name, (function, args) in cases.items():
        yield name, function, args


def networks() -> dict[str, fv.Model]:
    """One of the zoo, and one with channels first and every kind of nonlinearity."""
    rng = np.random.default_rng(3)
    first = rng.normal(size=(12, 3, 3, 3)).astype(np.float32) / 3
    depthwise = rng.normal(size=(12, 1, 5, 5)).astype(np.float32) / 5

    def apply(params: Any, x: jax.Array) -> jax.Array:
        convolve = functools.partial(lax.conv_general_dilated, padding="SAME")
        y = convolve(x.transpose(0, 3, 1, 2), params[0], (2, 2))
        y = jnp.arctan(y) + jax.nn.gelu(y)
        y = convolve(y, params[1], (1, 1), feature_group_count=12)
        return jax.nn.softplus(y).mean((2, 3))

    own = fv.from_function(apply, [first, depthwise], input=fv.Input(size=(48, 48)))
    return {"lite0": fv.load("efficientnet_lite0"), "channels first": own}


def parameterizations() -> list[Parameterization]:
    """One of each class."""
    size = (48, 48)
    small = fv.Pixels((24, 24))
    return [
        fv.Fourier(size),
        fv.Pixels(size),
        fv.BoundedPixels(size),
        fv.Pyramid(size),
        fv.CPPN(size),
        fv.MaCo(size),
        fv.Upsampled(of=small, size=size),
        fv.Framed(size, of=fv.Pixels(size), frame=(8, 8)),
        fv.FrozenChannels(size, free=fv.Fourier(size, channels=2), frozen=(0,)),
    ]


# ---- comparing -----------------------------------------------------------------------------


def difference(found: Any, wanted: Any) -> float:
    """The largest difference of two trees of arrays, to 1 + the value; infinite where a NaN is."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = (np.asarray(v, np.complex128 if np.iscomplexobj(v) else np.float64) for v in (a, b))
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            return float("inf")
        fine = np.isfinite(b) & np.isfinite(a)
        if not np.array_equal(a[~fine], b[~fine], equal_nan=True):
            return float("inf")
        if fine.any():
            a, b = a[fine], b[fine]
            worst = max(worst, float(np.max(np.abs(a - b) / (1 + np.abs(b)))))
    return worst


def distinct(results: list[Any]) -> int:
    """How many of the results are different, to the bit."""
    return len({b"".join(np.asarray(v).tobytes() for v in jax.tree.leaves(r)) for r in results})


def compare(case: Case, options: dict[str, Any]) -> dict[str, float]:
    """What a function gives with the options against without, and over its runs."""
    _, function, args = case

    def scalar(*args: Any) -> jax.Array:
        out = jnp.ravel(jnp.real(function(*args)).astype(np.float32))
        return jnp.sum(out * jnp.linspace(-1, 1, out.size))

    def both(*args: Any) -> Any:
        return function(*args), jax.grad(scalar)(*args)

    try:
        jax.eval_shape(both, *args)
        program, kinds = both, ("value", "gradient")
    except Exception:
        program, kinds = lambda *args: (function(*args),), ("value",)  # It has no gradient.
    plain = jax.jit(program)(*args)
    with_options = jax.jit(lambda *args: program(*args), compiler_options=options)
    runs = [jax.block_until_ready(with_options(*args)) for _ in range(RUNS)]
    found: dict[str, float] = {}
    for place, kind in enumerate(kinds):
        found[kind] = max(difference(run[place], plain[place]) for run in runs)
        found[f"{kind}s"] = distinct([run[place] for run in runs])
    return found


def step(model: fv.Model, parameterization: Parameterization) -> np.ndarray:
    """A picture of three steps, in a program that is compiled anew."""
    layer = "block4" if "block4" in model.layers() else "logits"
    result = fv.synthesize(
        model, fv.Channel(layer, 3), parameterization, steps=3, optimizer=OPTIMIZER, progress=False
    )  # fmt: skip
    return result.images


def compare_steps(options: dict[str, Any], quick: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """Whole steps of every parameterization on two networks."""
    ways = parameterizations()
    for name, model in networks().items():
        for way in ways[::4] if quick else ways:
            pictures = {}
            for kind, chosen in (("plain", {}), ("with", options)):
                kernels.compiler_options = functools.partial(dict, chosen)
                pictures[kind] = [step(model, way) for _ in range(RUNS if kind == "with" else 1)]
            worst = max(difference(p, pictures["plain"][0]) for p in pictures["with"])
            found = {"picture": worst, "pictures": distinct(pictures["with"])}
            yield f"{name}, {type(way).__name__}", found


GROUPS = {"functions": functions, "convolutions": convolutions, "programs": programs}


def child(group: str, options: dict[str, Any], quick: bool) -> None:
    """Runs a group; a line of JSON before each case and one after it."""

    def say(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    if group == "steps":
        say(begins="steps")
        for name, found in compare_steps(options, quick):
            say(case=name, **found)
        return
    for case in GROUPS[group](quick):
        say(begins=case[0])
        say(case=case[0], **compare(case, options))


def is_wrong(found: dict[str, Any]) -> bool:
    """Whether a case differs by more than rounding, or from run to run."""
    return any(found.get(kind, 0) > limit for kind, limit in TOLERANCES.items()) or any(
        found.get(f"{kind}s", 1) > 1 for kind in TOLERANCES
    )


def sweep(options: dict[str, Any], isa: str | None, quick: bool) -> int:
    """Runs every group in a process of its own and says what is wrong; the number of findings."""
    wrong = count = 0
    environment = dict(os.environ, JAX_ENABLE_COMPILATION_CACHE="false", JAX_PLATFORMS="cpu")
    if isa:
        flags = environment.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_cpu_max_isa={isa}".strip()
    for group in (*GROUPS, "steps"):
        command = [sys.executable, __file__, "--child", group]
        command += [f"--option={name}={value}" for name, value in options.items()]
        run = subprocess.run(
            command + ["--quick"] * quick, env=environment, capture_output=True, text=True
        )
        lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
        cases = [line for line in lines if "case" in line]
        count += len(cases)
        for line in filter(is_wrong, cases):
            wrong += 1
            print(f"wrong: {group}: {line}")
        if run.returncode:
            wrong += 1
            last = next((line["begins"] for line in reversed(lines) if "begins" in line), "")
            reason = (run.stderr.strip().splitlines() or [""])[-1]
            print(f"ended with {run.returncode}: {group}: {last}: {reason}")
    print(f"{count} cases of jaxlib {jaxlib.__version__}, {wrong} wrong, with {options}")
    return wrong


def main() -> int:
    """Sweeps; exit code 1 where something is wrong."""
    title = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(description=title, epilog="It needs featvis alone.")
    parser.add_argument(
        "--option", action="append", metavar="NAME=VALUE", help="in place of featvis's own"
    )
    parser.add_argument("--isa", help="code for another x86-64: SSE4_2, AVX, AVX2, AVX512")
    parser.add_argument("--quick", action="store_true", help="a few cases of each group")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    options = dict(kernels.OPTIONS)
    if given.option:
        options = dict(text.split("=", 1) for text in given.option)
    if given.child:
        child(given.child, options, given.quick)
        return 0
    wrong = sweep(options, given.isa, given.quick)
    here = kernels.processor()
    if given.isa:
        here = f"{here.split()[0]} {given.isa.lower()}"
    if not wrong:
        print(f"right: {(jaxlib.__version__, here)}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
