"""One's own generator, whatever library it is written in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis.errors import InputError
from featvis.generators.entry import Alone
from featvis.models.call import plain, static
from featvis.parameterizations import Generator

#: How far beyond [0, 1] images go that are taken to be in it, as those of a decoder do.
_BEYOND = 0.25
_DRAWS = 2

Code = int | Sequence[int]


def from_function(
    decode: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    code: Code,
    *,
    encode: Callable[[Any, jax.Array], jax.Array] | None = None,
    encoder_params: Any = None,
    stride: int | None = None,
    range: tuple[float, float] | None = None,
    batched: bool = False,
) -> Generator:
    """Make a generator of any pure function of JAX, written by hand or with any library.

    Args:
        decode: `(params, code) -> image`, of one code, or of a batch where it is `batched`.
        params: its weights, a pytree of arrays: no part of what is compiled.
        code: shape of a code, (n,) or (h, w, c); with a `stride` its number of channels, (c,).
        encode: `(encoder_params, image) -> code`, likewise; None: there is none.
        encoder_params: its weights.
        stride: pixels a position, where codes are maps of any size.
        range: (black, white) of its images. None: (0, 1), which is looked at.
        batched: whether both take batches.

    Raises:
        InputError: it cannot be called so, gives no image, or its images are not in [0, 1] and
            `range` does not say so; the encoder does not fit.
    """
    for name, function in (("decode", decode), ("encode", encode)):
        if not callable(function) and not (name == "encode" and function is None):
            raise InputError(
                f"from_function: {name} is a function (params, code); got {type(function).__name__}"
            )
    wrapped = [None if one is None else _Function(static(one)) for one in (decode, encode)]
    if batched:
        wrapped = [None if one is None else Alone(one) for one in wrapped]  # type: ignore[misc]
    return _looked_at(wrapped[0], code, params, wrapped[1], encoder_params, stride, range)


def from_nnx(
    decoder: nnx.Module,
    code: Code,
    *,
    encoder: nnx.Module | None = None,
    method: str = "__call__",
    encoder_method: str = "__call__",
    stride: int | None = None,
    range: tuple[float, float] | None = None,
    batched: bool = True,
) -> Generator:
    """Make a generator of a Flax NNX module, in inference mode; the module stays as it is.

    Args:
        decoder: called as `decoder(codes)`, which gives images (n, h, w, c).
        code: as for `from_function`.
        encoder: called as `encoder(images)`; it may be the same module with another method.
        method: of the decoder that is called.
        encoder_method: of the encoder that is called.
        stride: as for `from_function`.
        range: as for `from_function`.
        batched: whether both take batches.

    Raises:
        InputError: as `from_function`.
    """

    def split(module: nnx.Module, called: str, _: None) -> tuple[Any, Any]:
        graph, random, weights = nnx.split(module, nnx.RngState, ...)  # type: ignore[misc]
        # Of inference nothing is drawn: random state is part of the program.
        drawn = static(random if jax.tree.leaves(random) else None)
        return _Nnx(static(graph), drawn, called), weights

    halves = ((decoder, method, None), (encoder, encoder_method, None))
    return _of_modules("NNX", nnx.Module, split, halves, batched, code, stride, range)


def from_linen(
    decoder: flax.linen.Module,
    variables: Any,
    code: Code,
    *,
    encoder: flax.linen.Module | None = None,
    encoder_variables: Any = None,
    method: str = "__call__",
    encoder_method: str = "__call__",
    stride: int | None = None,
    range: tuple[float, float] | None = None,
    batched: bool = True,
) -> Generator:
    """Make a generator of a Flax Linen module.

    Args:
        decoder: called as `decoder.apply(variables, codes)`, which gives images (n, h, w, c).
        variables: what its `init` returned or training made of it, all collections of it.
        code: as for `from_function`.
        encoder: called as `encoder.apply(encoder_variables, images)`.
        encoder_variables: its variables.
        method: of the decoder that is called.
        encoder_method: of the encoder that is called.
        stride: as for `from_function`.
        range: as for `from_function`.
        batched: whether both take batches.

    Raises:
        InputError: as `from_function`.
    """

    def bound(module: flax.linen.Module, called: str, variables: Any) -> tuple[Any, Any]:
        return _Linen(static(module), called), variables

    halves = ((decoder, method, variables), (encoder, encoder_method, encoder_variables))
    return _of_modules("Linen", flax.linen.Module, bound, halves, batched, code, stride, range)


def _of_modules(
    library: str,
    kind: type,
    split: Callable[[Any, str, Any], tuple[Any, Any]],
    halves: Sequence[tuple[Any, str, Any]],
    batched: bool,
    code: Code,
    stride: int | None,
    range: tuple[float, float] | None,
) -> Generator:
    """Modules of a library of Flax as a generator.

    Args:
        library: "NNX" or "Linen".
        kind: its class of modules.
        split: from a module, the method that is called and variables to a function and its weights.
        halves: these of the decoder and of the encoder, whose module may be None.
        batched: as for `from_nnx`, as are the others.
        code: as for `from_function`.
        stride: as for `from_function`.
        range: as for `from_function`.
    """
    parts: list[tuple[Any, Any]] = []
    for name, (module, called, variables) in zip(("decoder", "encoder"), halves, strict=True):
        if module is None and name == "encoder":
            parts.append((None, variables))
            continue
        if not isinstance(module, kind):
            raise InputError(
                f"from_{library.lower()}: {name} is a module of Flax {library}; "
                f"got {type(module).__name__}"
            )
        if not isinstance(called, str) or not callable(getattr(module, called, None)):
            raise InputError(f"{type(module).__name__} has no method {called!r} to call")
        network, weights = split(module, called, variables)
        parts.append((Alone(network) if batched else network, weights))
    (decode, params), (encode, encoder_params) = parts
    return _looked_at(decode, code, params, encode, encoder_params, stride, range)


@dataclass(frozen=True)
class _Function:
    function: Any

    def __call__(self, params: Any, one: jax.Array) -> Any:
        return plain(self.function)(params, one)


@dataclass(frozen=True)
class _Nnx:
    graph: Any
    random: Any
    method: str

    def __call__(self, params: Any, batch: jax.Array) -> Any:
        random = plain(self.random)
        states = (params,) if random is None else (random, params)
        module = nnx.merge(plain(self.graph), *states)
        module.eval()
        return getattr(module, self.method)(batch)


@dataclass(frozen=True)
class _Linen:
    module: Any
    method: str

    def __call__(self, variables: Any, batch: jax.Array) -> Any:
        return plain(self.module).apply(variables, batch, method=self.method)


def _looked_at(
    decoder: Any,
    code: Code,
    params: Any,
    encoder: Any,
    encoder_params: Any,
    stride: int | None,
    range: tuple[float, float] | None,
) -> Generator:
    """The generator; where its range is not stated, after a look at what it makes."""
    made = Generator(
        decoder,
        tuple(code) if isinstance(code, Sequence) and not isinstance(code, str) else (code,),
        params=params,
        encoder=encoder,
        encoder_params=encoder_params,
        stride=stride,
        range=(0.0, 1.0) if range is None else range,
    )
    if range is None:
        shape = made.code_for((64, 64))
        codes = np.random.default_rng(0).standard_normal((_DRAWS, *shape), np.float32)
        images = np.asarray(jax.jit(jax.vmap(made.decode))(jnp.asarray(codes)))
        low, high = float(images.min()), float(images.max())
        if not math.isfinite(low + high):
            raise InputError(f"{made!r} makes NaN or infinity of standard normal codes")
        if not (low >= -_BEYOND and high <= 1 + _BEYOND):
            raise InputError(
                f"{made!r} makes images from {low:.3g} to {high:.3g} of standard normal codes; "
                "state which numbers are black and white, as range=(-1, 1); beyond them is clipped"
            )
    return made
