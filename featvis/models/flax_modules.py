"""Networks of Flax, NNX and Linen, as models, without edits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import flax.errors
import flax.linen
import jax
from flax import nnx

from featvis.errors import InputError
from featvis.jaxprs.taps import Taps, join, note
from featvis.models.call import Call, Given, key_of, plain, read_call, static
from featvis.models.input import Input
from featvis.models.model import Model
from featvis.models.own import DROPOUT, NeedsKey, Runner, Way, kind_of, model_of
from featvis.models.patching import Around, methods_of, note_input, noted, patched


def from_nnx(
    module: nnx.Module,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str | None = None,
    logits: str | None = None,
    call: Mapping[Any, Any] | None = None,
    image: int | str = 0,
    method: str = "__call__",
    rngs: int | Mapping[str, Any] | None = None,
    channel_axes: Mapping[str, int] | None = None,
) -> Model:
    """Make a model of a Flax NNX module; the output of every submodule is a layer by its path.

    That is every one that is called as such, outside branches and while loops, and whose output is
    a floating-point array with the images' axis first; `Model.left_out` says what else there is,
    and why it is no layer. The path is that of the attributes, `encoder/conv1`, with the place in a
    list after an underscore, `blocks_3/conv2`. A module that is called twice has a second layer,
    `relu.1`. Other methods of a module are layers too, `encoder/features`, and so is what it sows,
    and the input of a batch norm, `blocks_3/norm/input`. A copy of the module runs in inference
    mode (`module.eval()`); the module itself is not touched.

    Args:
        module: called as `module(image)` with what `input` declares.
        input: the images that it takes; by default any size, three channels in [0, 1].
        name: of the model; by default that of its class.
        labels: class names by index of its class scores.
        output: name of the layer that is what it returns; by default "logits" for a vector an
            image, and "output" for a map. A tuple's parts have theirs after a slash, `logits/0`,
            and the keys of a dict their own name alone.
        logits: the layer, by its path, that holds the class scores (n, classes): it is called
            `logits` too, which is where `Logit`, `class_model` and evidence find them.
        call: further arguments of the call, by name, or by place in front of others. Arrays and
            keys in it are data of the model; all else is part of what is compiled. An array whose
            first axis is 1 is repeated for each image where the network does not take it as it is.
        image: the argument that the image is, by its place or its name ("pixel_values").
        method: what is called, the name of a method.
        rngs: seeds or keys for its random streams by name, or one for all; by default its random
            state is as it is in the module. Its draws are then always the same.
        channel_axes: of layers, by name or pattern ("attention/*"), the axis of their channels,
            1 or -1, where the program does not tell it; with `Input(layout="NCHW")` those of maps
            are found by its convolutions. Layers with axis 1 are turned round.

    Raises:
        InputError: it cannot be called on such images, or changes its batch statistics; the
            message says what to pass.
    """
    if not isinstance(module, nnx.Module):
        raise InputError(
            f"from_nnx takes a module of Flax NNX; got {kind_of(module)}; a Linen module goes to "
            "from_linen, a function to from_function"
        )
    if not isinstance(method, str) or not callable(getattr(module, method, None)):
        raise InputError(f"{type(module).__name__} has no method {method!r} to call")
    how, arrays = read_call(image, call)
    order = _attribute_order(module)
    paths = tuple(_path(path) for path, part in nnx.iter_modules(module) if path and callable(part))
    if rngs is not None:
        module = nnx.clone(module)
        nnx.reseed(module, **_seeds(rngs))
    graph, random, weights = nnx.split(module, nnx.RngState, ...)  # type: ignore[misc]
    # Where the user gives them, they are asked for.
    dropouts = _dropouts(module, random) if rngs is None else frozenset()
    return model_of(
        _Nnx(static(graph), repr(graph), how, method, order, paths, dropouts),
        Given(weights, random, arrays),
        input=input,
        name=name or type(module).__name__,
        labels=labels,
        output=output,
        logits=logits,
        made=type(module),
        channel_axes=channel_axes,
    )


def from_linen(
    module: flax.linen.Module,
    variables: Any,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str | None = None,
    logits: str | None = None,
    call: Mapping[Any, Any] | None = None,
    image: int | str = 0,
    method: str = "__call__",
    rngs: int | Mapping[str, Any] | None = None,
    channel_axes: Mapping[str, int] | None = None,
) -> Model:
    """Make a model of a Flax Linen module; the output of every submodule is a layer by its path.

    As with `from_nnx`, so are other methods' outputs, what is sown (`attention/attention_weights`
    with `sow_weights=True`) and the input of a batch norm, `BatchNorm_0/input`.

    Args:
        module: called as `module.apply(variables, image, **call)` with what `input` declares.
        variables: what its `init` returned or training made of it, all collections of it.
        input: the images that it takes; by default any size, three channels in [0, 1].
        name: of the model; by default that of its class.
        labels: class names by index of its class scores.
        output: as for `from_nnx`.
        logits: as for `from_nnx`.
        call: as for `from_nnx`, as `{"train": False}`. `rngs` in it are keys by stream.
        image: as for `from_nnx`.
        method: as for `from_nnx`.
        rngs: seeds or keys by stream, or one seed for all. A stream that the network asks for and
            that is not among them has a seed of its own, 0 for the first, 1 for the next; but of
            dropout, which inference has none of.
        channel_axes: as for `from_nnx`.

    Raises:
        InputError: it cannot be called on such images, draws dropout, needs variables that are not
            there or to change some; the message says what to pass.
    """
    if not isinstance(module, flax.linen.Module):
        raise InputError(
            f"from_linen takes a module of Flax Linen; got {kind_of(module)}; an NNX module goes "
            "to from_nnx, a function to from_function"
        )
    if not isinstance(variables, Mapping) or not variables:
        raise InputError(
            "from_linen takes the variables by collection, as {'params': …}; got "
            f"{kind_of(variables)}"
        )
    if not isinstance(method, str) or not callable(getattr(module, method, None)):
        raise InputError(f"{type(module).__name__} has no method {method!r} to call")
    call = dict(call or {})
    rngs = call.pop("rngs", None) if rngs is None else rngs
    call.pop("method", None)
    mutable = call.pop("mutable", False)
    how, arrays = read_call(image, call)
    seeds = {"params": rngs} if isinstance(rngs, int) else dict(rngs or {})
    keys = {stream: key_of(seed) for stream, seed in seeds.items()}
    return model_of(
        _Linen(static(module), repr(module), how, method, static(mutable)),
        Given(variables, keys, arrays),
        input=input,
        name=name or type(module).__name__,
        labels=labels,
        output=output,
        logits=logits,
        made=type(module),
        channel_axes=channel_axes,
    )


def _seeds(rngs: Any) -> dict[str, Any]:
    if isinstance(rngs, Mapping):
        return dict(rngs)
    return {"default": rngs}


# ---- Linen ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Linen(Runner):
    module: Any
    text: str  # equal modules may differ in 1 and True
    call: Call
    method: str
    mutable: Any

    def given(self, given: Given, way: Way) -> Given:
        keys = {s: jax.random.key(i) for i, s in enumerate(way.streams) if s not in given.keys}
        return Given(given.weights, {**given.keys, **keys}, given.call)

    def of_training(self, way: Way) -> Callable[[tuple[Any, ...]], bool]:
        return lambda path: DROPOUT in way.streams and path[0].key == DROPOUT

    def run(self, given: Given, x: jax.Array, way: Way) -> Any:
        places, named = self.call.arguments(x, given.call, way.each)
        mutable = plain(self.mutable)
        try:
            with _linen_notes(self.method):
                result = plain(self.module).apply(
                    given.weights, *places, rngs=given.keys or None,
                    method=self.method, mutable=mutable, **named,
                )  # fmt: skip
        except flax.errors.InvalidRngError as error:
            stream = re.search(r'PRNG for "([^"]*)"', str(error))
            if stream is None:
                raise
            raise NeedsKey(stream[1], error) from error
        # What a call changes of its variables is no activation; what it sows is a layer already.
        return result if mutable is False else result[0]


def _linen_notes(entry: str, above: Callable[[], str] = str) -> Any:
    """Notes what Linen modules give and sow, all but the outermost's method `entry`."""
    running: set[tuple[int, str]] = set()

    def call(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, method = context.module, context.method_name
        path = join(above(), "/".join(module.path))
        own = method == "__call__" or method in methods_of(type(module), flax.linen.Module, "flax")
        key = (id(module), method)
        # A call of the base class by the module's own is no second one.
        if not own or key in running or (not module.path and method == entry):
            return next_fun(*args, **kwargs)
        running.add(key)
        try:
            if method == "__call__":
                note_input(module, args, kwargs, path)
            result = next_fun(*args, **kwargs)
        finally:
            running.discard(key)
        note(result, path if method == "__call__" else join(path, method))
        return result

    def sow(method: Any, module: Any, args: Any, kwargs: Any) -> Any:
        _note_sown(join(above(), "/".join(module.path)), ("col", "name", "value"), args, kwargs)
        return method(module, *args, **kwargs)

    stack = ExitStack()
    stack.enter_context(flax.linen.intercept_methods(call))
    stack.enter_context(patched({(flax.linen.Module, "sow"): sow}))
    return stack


def _note_sown(path: str, names: Sequence[str], args: Sequence[Any], kwargs: Any) -> None:
    """Notes what is sown, where its arguments are as the library's."""
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if "value" in given and isinstance(given.get("name"), str):
        note(given["value"], join(path, given["name"]))


# ---- NNX -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Nnx(Runner):
    graph: Any
    text: str  # equal graphs may differ in 1 and True
    call: Call
    method: str
    order: tuple[tuple[Any, tuple[Any, ...]], ...]
    paths: tuple[str, ...]
    dropouts: frozenset[str]

    def of_training(self, way: Way) -> Callable[[tuple[Any, ...]], bool]:
        def of_training(path: tuple[Any, ...]) -> bool:
            place = jax.tree_util.keystr(path, simple=True, separator="/")
            return place.removesuffix("/value") in self.dropouts

        return of_training

    def missed(self, found: Taps) -> bool:
        seen = [*found.values, *(name for _, name, _ in found.left_out)]
        return any(
            not any(name == path or name.startswith((f"{path}/", f"{path}.")) for name in seen)
            for path in self.paths
        )

    def run(self, given: Given, x: jax.Array, way: Way) -> Any:
        module = nnx.merge(plain(self.graph), given.keys, given.weights)
        module.eval()
        _restore_order(module, self.order)
        places, named = self.call.arguments(x, given.call, way.each)
        _note_state(module)
        with _nnx_notes(module, self.method, way.marked):
            result = getattr(module, self.method)(*places, **named)
        _note_state(module)
        return result


def _dropouts(module: nnx.Module, random: Any) -> frozenset[str]:
    """The paths of the random state that nothing but dropout draws from."""
    owners = [path for path, part in nnx.iter_modules(module) if isinstance(part, nnx.Dropout)]
    return frozenset(
        "/".join(map(str, path))
        for path, variable in nnx.to_flat_state(random)
        if getattr(variable, "tag", None) == DROPOUT
        or any(path[: len(owner)] == owner for owner in owners)
    )


def _note_state(module: nnx.Module) -> None:
    """Notes what a call in inference mode must not change, by path."""
    for path, variable in nnx.to_flat_state(nnx.state(module, nnx.BatchStat)):
        note(variable.get_raw_value(), _path(path), "state")


def _attribute_order(module: nnx.Module) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
    """The order of the attributes and keys of each part, which `nnx.split` does not keep."""
    found = []
    for path, part in nnx.iter_graph(module):
        if isinstance(part, dict):
            keys = tuple(part)
        elif isinstance(part, nnx.Pytree):
            keys = tuple(vars(part))
        else:
            continue
        if len(keys) > 1:
            found.append((path, keys))
    return tuple(found)


def _restore_order(module: nnx.Module, order: tuple[tuple[Any, tuple[Any, ...]], ...]) -> None:
    wanted = dict(order)
    for path, part in list(nnx.iter_graph(module)):
        keys = wanted.get(path)
        if keys is None or not isinstance(part, (dict, nnx.Pytree)):
            continue
        items: dict[Any, Any] = part if isinstance(part, dict) else vars(part)
        values = {key: items[key] for key in (*keys, *items) if key in items}
        items.clear()
        items.update(values)


def _path(path: Sequence[Any]) -> str:
    """`blocks_3/conv2` of ("blocks", 3, "conv2"): the names that Linen gives."""
    text = ""
    for part in path:
        text += f"_{part}" if isinstance(part, int) and text else f"/{part}" if text else str(part)
    return text


def _nnx_notes(module: nnx.Module, entry: str, marked: bool) -> Any:
    """Notes what the parts of a module give and sow, which is a copy of our own.

    A part is known by being it. Inside programs of their own (`nnx.jit`, `nnx.scan`) they are
    copies, which know their names where they are `marked`: an attribute that a network sees.
    """
    paths, classes = {}, set()
    for path, part in nnx.iter_modules(module):
        paths[id(part)] = _path(path)
        classes.add(type(part))
        # A bridge makes variables of all its attributes.
        if path and marked and not type(part).__module__.startswith("flax.nnx.bridge"):
            part._featvis_path = _path(path)  # type: ignore[attr-defined]
    above = [""]

    def path_of(part: Any) -> str | None:
        return paths.get(id(part), vars(part).get("_featvis_path"))

    around = noted(path_of, entry, above)

    def sow(method: Any, part: Any, args: Any, kwargs: Any) -> Any:
        path = path_of(part)
        if path is not None:
            _note_sown(path, ("variable_type", "name", "value"), args, kwargs)
        with warnings.catch_warnings():
            # Flax would have us capture; the network may read what it has sown.
            warnings.filterwarnings("ignore", ".*sow.*", DeprecationWarning)
            return method(part, *args, **kwargs)

    methods: dict[tuple[type, str], Around] = {(nnx.Module, "sow"): sow}
    for cls in classes:
        if any("__call__" in vars(one) for one in cls.__mro__):
            methods[cls, "__call__"] = around("__call__")
        methods |= {(cls, name): around(name) for name in methods_of(cls, nnx.Module, "flax")}
    stack = ExitStack()
    stack.enter_context(patched(methods))
    # A bridge runs a module of Linen.
    stack.enter_context(_linen_notes("__call__", lambda: above[-1]))
    return stack
