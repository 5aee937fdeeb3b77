"""One's own network as a model, without edits: Flax NNX, Flax Linen, or any function of JAX."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flax.errors
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis.errors import InputError
from featvis.models.input import Input
from featvis.models.model import Model, Prepared
from featvis.models.taps import Taps, collect, part_name, tap_outputs


def from_nnx(
    module: nnx.Module,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str = "logits",
    call: Mapping[str, Any] | None = None,
) -> Model:
    """A Flax NNX module as a model; the output of every submodule is a layer by its path.

    That is every one that is called as such, outside branches and while loops, and whose output's
    first axis is the images'. The path is that of the attributes, `encoder/conv1`, with the place
    in a list after an underscore, `blocks_3/conv2`. A module that is called twice has a second
    layer, `relu.1`. The input of a batch norm is a layer too, `blocks_3/norm/input`. A copy of the
    module runs in inference mode (`module.eval()`); the module itself is not touched.

    Args:
        module: called as `module(image)` with what `input` declares.
        input: the images that it takes; by default any size, three channels in [0, 1].
        name: of the model; by default that of its class.
        labels: class names by index of its output.
        output: name of the layer that is what it returns; a tuple's or dict's parts have theirs
            after a slash, and the keys of a dict their own name alone.
        call: further keyword arguments of the call, plain values.

    Raises:
        InputError: it cannot be called on such images, draws random numbers, or changes its batch
            statistics; the message says what to pass.
    """
    if not isinstance(module, nnx.Module):
        raise InputError(
            f"from_nnx takes a module of Flax NNX; got {_kind(module)}; a Linen module goes to "
            "from_linen, a function to from_function"
        )
    graph, random, weights = nnx.split(module, nnx.RngState, ...)  # type: ignore[misc]
    network = _Nnx(_static(graph), repr(graph), _keywords(call), output)
    return _model(
        network, (random, weights), input, name or type(module).__name__, labels, type(module),
        call=network.call, digested=weights,
    )  # fmt: skip


def from_linen(
    module: flax.linen.Module,
    variables: Any,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str = "logits",
    call: Mapping[str, Any] | None = None,
) -> Model:
    """A Flax Linen module as a model; the output of every submodule is a layer by its path.

    The input of a batch norm is a layer too, `BatchNorm_0/input`.

    Args:
        module: called as `module.apply(variables, image, **call)` with what `input` declares.
        variables: what its `init` returned or training made of it, all collections of it.
        input: the images that it takes; by default any size, three channels in [0, 1].
        name: of the model; by default that of its class.
        labels: class names by index of its output.
        output: as for `from_nnx`.
        call: further keyword arguments of the call, plain values, as `{"train": False}`.

    Raises:
        InputError: it cannot be called on such images, needs random numbers, variables that are
            not there or to change some; the message says what to pass.
    """
    if not isinstance(module, flax.linen.Module):
        raise InputError(
            f"from_linen takes a module of Flax Linen; got {_kind(module)}; an NNX module goes to "
            "from_nnx, a function to from_function"
        )
    if not isinstance(variables, Mapping) or not variables:
        raise InputError(
            "from_linen takes the variables by collection, as {'params': …}; got "
            f"{_kind(variables)}"
        )
    network = _Linen(_static(module), repr(module), _keywords(call), output)
    called = name or type(module).__name__
    return _model(network, variables, input, called, labels, type(module), call=network.call)


def from_function(
    apply: Callable[[Any, jax.Array], Any],
    params: Any,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str = "logits",
) -> Model:
    """Any pure function of JAX as a model: Equinox, Haiku, or written by hand.

    Its layers are what it returns, and the values that `featvis.tap(x, "name")` names in it.

    Args:
        apply: `(params, image) -> an array, or several by name`, the image as `input` declares it.
        params: its weights, a pytree of arrays: as an argument no part of what is compiled.
        input: the images that it takes; by default any size, three channels in [0, 1].
        name: of the model; by default that of the function.
        labels: class names by index of its output.
        output: as for `from_nnx`.

    Raises:
        InputError: it cannot be called on such images, or gives no layer.
    """
    if not callable(apply):
        raise InputError(f"from_function takes a function (params, image); got {_kind(apply)}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, (int, float)):
            raise InputError(
                f"from_function takes params of arrays; got {_kind(leaf)} at "
                f"{jax.tree_util.keystr(path) or 'the top'}: keep what is no array in the function"
            )
    network = _Function(_static(apply), output)
    called = name or str(getattr(apply, "__name__", type(apply).__name__))
    return _model(network, params, input, called, labels, apply)


# ---- networks: what is compiled ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Same:
    """Stands in for a value that cannot be hashed: the same object is equal, no other."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _static(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return value


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Same) else value


def _keywords(call: Mapping[str, Any] | None) -> tuple[tuple[str, Any, type], ...]:
    """Names, values and types: of two calls that differ in 1 and True each compiles its own."""
    for key, value in (call or {}).items():
        try:
            hash(value)
        except TypeError:
            raise InputError(
                f"call takes plain values, as {{'train': False}}; got {_kind(value)} for {key!r}"
            ) from None
    return tuple((key, value, type(value)) for key, value in sorted((call or {}).items()))


def _arguments(call: tuple[tuple[str, Any, type], ...]) -> dict[str, Any]:
    return {key: value for key, value, _ in call}


@dataclass(frozen=True)
class _Function:
    function: Any
    output: str

    def __call__(self, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        return _layers(_plain(self.function), params, x, self.output)


@dataclass(frozen=True)
class _Linen:
    module: Any
    text: str  # equal modules may differ in 1 and True
    call: tuple[tuple[str, Any, type], ...]
    output: str

    def __call__(self, variables: Any, x: jax.Array) -> dict[str, jax.Array]:
        def run(variables: Any, x: jax.Array) -> Any:
            with flax.linen.intercept_methods(_tap_linen):
                return _plain(self.module).apply(variables, x, **_arguments(self.call))

        return _layers(run, variables, x, self.output)


def _tap_linen(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
    path = "/".join(context.module.path)
    if not path or context.method_name != "__call__":
        return next_fun(*args, **kwargs)
    args, kwargs = _tap_input(context.module, args, kwargs, path)
    return tap_outputs(next_fun(*args, **kwargs), path)


def _tap_input(module: Any, args: Any, kwargs: Any, path: str) -> tuple[Any, Any]:
    """The arguments of a call, those of a batch norm with its input named `path/input`.

    Its running statistics are of its input, which no submodule's output need be.
    """
    if isinstance(module, (nnx.BatchNorm, flax.linen.BatchNorm)):
        if args:
            args = (tap_outputs(args[0], f"{path}/input"), *args[1:])
        elif "x" in kwargs:
            kwargs = {**kwargs, "x": tap_outputs(kwargs["x"], f"{path}/input")}
    return args, kwargs


@dataclass(frozen=True)
class _Nnx:
    graph: Any
    text: str  # equal graphs may differ in 1 and True
    call: tuple[tuple[str, Any, type], ...]
    output: str

    def __call__(self, state: Any, x: jax.Array) -> dict[str, jax.Array]:
        def run(state: Any, x: jax.Array) -> Any:
            module = nnx.merge(_plain(self.graph), *state)
            module.eval()
            before = _watched(module)
            with _tapping(module):
                return module(x, **_arguments(self.call)), before, _watched(module)

        return _layers(run, state, x, self.output, _check_unchanged)


def _path(path: Sequence[Any]) -> str:
    """`blocks_3/conv2` of ("blocks", 3, "conv2"): the names that Linen gives."""
    text = ""
    for part in path:
        text += f"_{part}" if isinstance(part, int) and text else f"/{part}" if text else str(part)
    return text


@contextmanager
def _tapping(module: nnx.Module) -> Iterator[None]:
    """Makes the submodules of a module, which is a copy of our own, name what they return.

    The classes themselves are changed for as long as it takes: a module must keep its class, which
    the network may ask for, and its name goes with it through `nnx.jit` or `nnx.scan`.
    """
    classes = set()
    for path, part in nnx.iter_modules(module):
        # A bridge makes variables of all its attributes.
        if path and callable(part) and not type(part).__module__.startswith("flax.nnx.bridge"):
            part._featvis_path = _path(path)  # type: ignore[attr-defined]
            classes.add(type(part))
    running: set[int] = set()
    with _CLASSES:
        before = {cls: vars(cls).get("__call__") for cls in classes}
        calls = {cls: _named(cls.__call__, running) for cls in classes}
        try:
            for cls, call in calls.items():
                setattr(cls, "__call__", call)  # noqa: B010
            yield
        finally:
            for cls, own in before.items():
                if own is None:
                    delattr(cls, "__call__")
                else:
                    setattr(cls, "__call__", own)  # noqa: B010


#: Held while classes are changed.
_CLASSES = threading.RLock()


def _named(call: Callable[..., Any], running: set[int]) -> Callable[..., Any]:
    @functools.wraps(call)
    def named(self: Any, *args: Any, **kwargs: Any) -> Any:
        path = vars(self).get("_featvis_path")
        # A call of the base class by the module's own is no second one.
        if path is None or id(self) in running:
            return call(self, *args, **kwargs)
        running.add(id(self))
        try:
            args, kwargs = _tap_input(self, args, kwargs, path)
            result = call(self, *args, **kwargs)
        finally:
            running.discard(id(self))
        return tap_outputs(result, path)

    return named


def _watched(module: nnx.Module) -> dict[str, Any]:
    """What a call in inference mode must not change, by path."""
    state = nnx.state(module, (nnx.RngCount, nnx.BatchStat))
    return {_path(path): variable.get_raw_value() for path, variable in nnx.to_flat_state(state)}


def _check_unchanged(result: Any) -> Any:
    """The result of a call, where it left unchanged what it must."""
    result, before, after = result
    for path, value in after.items():
        # The traced values themselves: one that went through unchanged is the same object.
        if before.get(path) is value:
            continue
        if path.endswith("count"):
            raise InputError(
                f"it draws random numbers in inference mode (of {path}): pass what turns them off, "
                "as call={'deterministic': True}, or turn them off in the module"
            )
        raise InputError(
            f"it changes its batch statistics in inference mode ({path}): pass what turns that "
            "off, as call={'use_running_average': True}, or turn it off in the module"
        )
    return result


def _layers(
    network: Callable[[Any, jax.Array], Any],
    params: Any,
    x: jax.Array,
    output: str,
    unpack: Callable[[Any], Any] = lambda result: result,
) -> dict[str, jax.Array]:
    """What a network gives, by name: taps, then its results; those of one row an image."""

    def ordered(params: Any, x: jax.Array) -> Any:
        # jax sorts the keys of a dict, and keeps the order of this one.
        return jax.tree.map(
            lambda part: OrderedDict(part) if isinstance(part, dict) else part,
            network(params, x),
            is_leaf=lambda part: isinstance(part, dict),
        )

    images = len(x)
    result, taps = collect(ordered, params, x)
    result = unpack(result)
    if isinstance(result, Mapping):
        for key, value in result.items():
            _add(value, str(key), taps, asked=jax.tree_util.all_leaves([value]))
    else:
        _add(result, output, taps, asked=False)
    layers = {}
    for name, value in taps.values.items():
        if np.shape(value) == (images,):
            value = value[:, None]  # one number an image is one unit
        if np.ndim(value) >= 2 and value.shape[0] == images and _is_float(value):
            layers[name] = value
        elif name in taps.asked:
            raise InputError(
                f"layer {name!r} must hold floating-point activations of {images} images, "
                f"({images}, ...); got {np.shape(value)} of {getattr(value, 'dtype', _kind(value))}"
            )
    if not layers:
        raise InputError(
            f"it gives no activations, floating-point arrays whose first axis is the {images} "
            f"images' of a dry run: what it returns is {jax.tree.map(np.shape, result)}"
        )
    return layers


def _add(value: Any, name: str, taps: Taps, *, asked: bool) -> None:
    """Adds what a network returns; the output of a submodule of that name must be just that."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        part = part_name(name, path)
        known = taps.values.get(part)
        if known is None:
            taps.add(part, leaf, asked=asked)
        elif known is not leaf:
            raise InputError(
                f"its result would be called {part!r}, which is the name of a layer inside it: "
                "give another, as output='scores'"
            )


def _is_float(value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)


# ---- the model -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Named:
    """A network with the layers that its dry run had, whatever the number of images."""

    network: Any
    names: tuple[str, ...]

    def __call__(self, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        try:
            layers = self.network(params, x)
        except InputError:
            raise
        # Whatever a network raises is its own; the user wants to know on what.
        except Exception as error:
            raise InputError(
                f"the network cannot be called on images {('n', *x.shape[1:])}, though it can at "
                f"the size of its input: {type(error).__name__}: {_first_line(error)}; where it "
                "takes one size only, declare so with fixed_size=True"
            ) from error
        return {name: layers[name] for name in self.names if name in layers}


@dataclass(frozen=True)
class _ChannelsLast:
    """A network with channels first, its maps turned round."""

    network: Any

    def __call__(self, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        layers = self.network(params, x)
        return {k: jnp.moveaxis(a, 1, -1) if a.ndim == 4 else a for k, a in layers.items()}


def _model(
    network: Any,
    params: Any,
    input: Input | None,
    name: str,
    labels: Sequence[str] | None,
    made: Any,
    *,
    call: tuple[tuple[str, Any, type], ...] = (),
    digested: Any = None,
) -> Model:
    input = Input() if input is None else input
    if not isinstance(input, Input):
        raise InputError(f"input must be a featvis.Input; got {_kind(input)}")
    if input.layout == "NCHW":
        network = _ChannelsLast(network)
    params = jax.tree.map(jnp.asarray, params)
    origin = f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', _kind(made))}"
    names = _labels(labels)
    model = Model(name, Prepared(input, network), params, names, "", input, origin)
    layers = _try(model)
    classes = layers.get("logits", (0,))[-1]
    if names is not None and classes not in (0, len(names)):
        raise InputError(f"{name} has {classes} classes; got {len(names)} labels")
    # An axis that is as long as there are images by chance makes no layer.
    apply = Prepared(input, _Named(network, tuple(layers)))
    digest = _digest(params if digested is None else digested, input, call, layers)
    return dataclasses.replace(model, apply=apply, digest=digest)


def _labels(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"labels are a list of texts, one a class; got {labels!r}")
    return tuple(labels)


def _try(model: Model) -> dict[str, tuple[int, ...]]:
    """The layers, by a dry run at the size of its input: what does not work is said here."""
    height, width = model.input.size
    image = f"images (n, {height}, {width}, {model.input.channels})"
    if model.input.layout == "NCHW":
        image = f"images (n, {model.input.channels}, {height}, {width})"
    try:
        return model.layers()
    except InputError as error:
        raise InputError(f"{model.name}: {error}") from error
    except flax.errors.InvalidRngError as error:
        raise InputError(
            f"{model.name} needs random numbers: {_first_line(error)}; pass what turns them off, "
            "as call={'deterministic': True} or call={'train': False}"
        ) from error
    except flax.errors.ModifyScopeVariableError as error:
        raise InputError(
            f"{model.name} changes its variables when it is called: {_first_line(error)}; pass "
            "what turns that off, as call={'train': False} or call={'use_running_average': True}"
        ) from error
    except (
        flax.errors.ScopeCollectionNotFound,
        flax.errors.ScopeVariableNotFoundError,
        flax.errors.ScopeParamNotFoundError,
    ) as error:
        raise InputError(
            f"{model.name} needs variables that were not given: {_first_line(error)}; pass all "
            "that init returned, as {'params': …, 'batch_stats': …}"
        ) from error
    # Whatever a network raises is its own; the user wants to know on what.
    except Exception as error:
        raise InputError(
            f"{model.name} cannot be called on {image} in inference mode: "
            f"{type(error).__name__}: {_first_line(error)}; declare what it takes with "
            "input=featvis.Input(size=…, channels=…), and its arguments with call="
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0].split(" (https://")[0]


def _digest(weights: Any, input: Input, call: Any, layers: Mapping[str, tuple[int, ...]]) -> str:
    """SHA-256 of the weights, of what is declared of the input and the call, and of the layers.

    What a function computes with them is not in it, nor are arrays that it holds itself.
    """
    digest = hashlib.sha256()
    declared = {f.name: getattr(input, f.name) for f in dataclasses.fields(input)}
    preprocess = declared.pop("preprocess")
    declared["preprocess"] = getattr(preprocess, "__qualname__", _kind(preprocess))
    arguments = [(key, repr(value)) for key, value, _ in call]
    digest.update(repr((declared, arguments, list(layers.items()))).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _kind(value: Any) -> str:
    return type(value).__name__
