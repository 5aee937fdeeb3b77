"""Where a step of ours spends its time, and how near its network is to what the machine can do."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import featvis as fv
from featvis import kernels, text
from featvis.results.run import OF_MAPS, as_objective
from featvis.zoo.layers import relu6
from peers import ours
from peers.networks import LAYERS, UNIT
from peers.ours import load as load
from peers.ours import resized

#: Times that a part is computed in one compiled loop, so that its dispatch is not measured.
LENGTH = 10
REPEATS = 5
SIDE = 4096


def _milliseconds(body: Callable[[Any, Any, jax.Array], Any], fixed: Any, varying: Any) -> float:
    """Milliseconds of `body(fixed, varying, number)`, of whose output all is used."""

    @kernels.compiled
    def loop(fixed: Any, varying: Any, nothing: jax.Array) -> Any:
        def once(varying: Any, number: jax.Array) -> tuple[Any, None]:
            used = sum(jnp.sum(part) for part in jax.tree.leaves(body(fixed, varying, number)))
            # What the next one computes from is another value for the compiler.
            return jax.tree.map(lambda part: part + nothing * used, varying), None

        return jax.lax.scan(once, varying, jnp.arange(LENGTH))[0]

    return _seconds(functools.partial(loop, fixed, varying, jnp.float32(0))) * 1000 / LENGTH


def _seconds(function: Callable[[], Any]) -> float:
    jax.block_until_ready(function())
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(function())
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _with_gradient(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def both(given: Any) -> Any:
        found, back = jax.vjp(function, given)
        return back(found)

    return both


def machine(network: str) -> dict[str, float]:
    """Operations and bytes a second of a large matrix product and a large copy."""
    a = jnp.full((SIDE, SIDE), 1 / SIDE, jnp.float32)
    times = 3

    @jax.jit
    def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, x: x @ a, b)

    @jax.jit
    def copy(b: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, LENGTH, lambda _, x: x + 1, b)

    return {
        "flops": times * 2 * SIDE**3 / _seconds(functools.partial(multiply, a, a)),
        "bytes": LENGTH * 2 * a.nbytes / _seconds(functools.partial(copy, a)),
    }


def parts(network: str, layer: str, batch: int, size: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of each part of a step, and of the whole; operations and bytes of its network.

    `decode` and `transform` are with their gradients; `network` is forward alone, and `gradient` is
    what the gradient with respect to the image adds to it.
    """
    model, unit = load(network), as_objective(f"{LAYERS[network][layer][0]}:{UNIT}")
    written = fv.Fourier((size, size))
    transform = resized(size)
    optimizer = text.optimizer(OF_MAPS[1])
    keys = jax.random.split(jax.random.key(0), batch)
    params = jax.vmap(written.init)(keys)
    image = jax.vmap(written.decode)(params)
    seen = jax.vmap(transform)(keys, image)

    def decode(fixed: Any, params: Any, number: jax.Array) -> Any:
        return _with_gradient(jax.vmap(written.decode))(params)

    def transformed(keys: jax.Array, image: jax.Array, number: jax.Array) -> Any:
        drawn = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        return _with_gradient(lambda image: jax.vmap(transform)(drawn, image))(image)

    def total(weights: Any, seen: jax.Array) -> jax.Array:
        return jnp.sum(unit(fv.Activations(model.apply(weights, seen)), seen))

    def forward(weights: Any, seen: jax.Array, number: jax.Array) -> jax.Array:
        return total(weights, seen)

    def both(weights: Any, seen: jax.Array, number: jax.Array) -> Any:
        return jax.value_and_grad(total, 1)(weights, seen)

    def update(gradient: Any, state: Any, number: jax.Array) -> Any:
        # The loop's own addition stands for that of the updates to the parameters.
        return jax.vmap(optimizer.update)(gradient, state["moments"], state["params"])

    moments = jax.vmap(optimizer.init)(params)
    state = {"params": params, "moments": jax.tree.map(lambda x: x.astype(jnp.float32), moments)}
    once = _milliseconds(forward, model.params, seen)
    twice = _milliseconds(both, model.params, seen)
    compiled = jax.jit(jax.value_and_grad(total, 1)).lower(model.params, seen).compile()
    cost = compiled.cost_analysis() or {}
    return {
        "decode": _milliseconds(decode, (), params),
        "transform": _milliseconds(transformed, keys, image),
        "network": once,
        "gradient": twice - once,
        "optimizer": _milliseconds(update, params, state),
        "step": ours.step(network, layer, batch, size, repeats)["ms"],
        "flops": float(cost.get("flops", 0)),
        "bytes": float(cost.get("bytes accessed", 0)),
    }


def convolutions(network: str, size: int, batch: int) -> dict[str, Any]:
    """Each kind of convolution of a network of inverted residuals, with its rectifier.

    Returns:
        `rows`, of each its name, shape, milliseconds with its input gradient, operations, and the
        least bytes: of its input, its output, their gradients, and its kernel in both directions.
    """
    model = load(network)
    shapes, kernels_of = model.layers((size, size)), model.params
    rows, seen, inputs = [], set(), (size, size, 3)
    for name, shape in shapes.items():
        block, _, part = name.partition("/")
        params = kernels_of.get(block, {})
        params = params.get(part, {}) if part else params
        kernel = params.get("kernel")
        if kernel is None or kernel.ndim != 4:
            if not part:
                inputs = shape if len(shape) == 3 else inputs
            continue
        groups = inputs[-1] // kernel.shape[2]
        kind = inputs, shape, kernel.shape
        if kind not in seen:
            seen.add(kind)
            rows.append(_convolution(name, inputs, shape, params, groups, batch))
        inputs = shape
    return {"rows": rows}


def _convolution(
    name: str,
    inputs: tuple[int, ...],
    shape: tuple[int, ...],
    params: Any,
    groups: int,
    batch: int,
) -> dict[str, Any]:
    kernel = params["kernel"]
    stride = -(-inputs[0] // shape[0])
    rng = np.random.default_rng(0)
    x, gradient = (
        jnp.asarray(rng.standard_normal((batch, *one)), jnp.float32) for one in (inputs, shape)
    )

    def forward(params: Any, x: jax.Array) -> jax.Array:
        y = kernels.conv(x, params["kernel"], stride, "SAME", groups) + params["bias"]
        return y if name.endswith("/project") else relu6(y, name.endswith("/depthwise"))

    def both(fixed: Any, x: jax.Array, number: jax.Array) -> Any:
        params, gradient = fixed
        y, back = jax.vjp(functools.partial(forward, params), x)
        # All is made, and a number of each is used: the rest is the next layer's to read.
        return [part.ravel()[0] for part in kernels.kept((y, *back(gradient)))]

    numbers = 2 * (x.size + gradient.size + kernel.size)
    return {
        "name": name,
        "shape": f"{inputs[0]} x {inputs[1]}, {kernel.shape[0]} x {kernel.shape[1]}"
        f"{f' by {stride}' if stride > 1 else ''}, {inputs[-1]} to {shape[-1]}",
        "ms": _milliseconds(both, (params, gradient), x),
        "flops": 2 * 2 * gradient.size * kernel.size / shape[-1],
        "bytes": numbers * x.dtype.itemsize,
    }
