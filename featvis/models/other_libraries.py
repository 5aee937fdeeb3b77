"""Networks of Equinox, Haiku and Keras on JAX, as models, without edits.

None of these libraries is needed to import this file: a network of one has been made with it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import jax

from featvis.errors import InputError
from featvis.jaxprs.taps import note
from featvis.models.call import (
    Call,
    Given,
    in_order,
    key_of,
    key_order,
    plain,
    read_call,
    static,
)
from featvis.models.input import Input
from featvis.models.model import Model
from featvis.models.own import Runner, Way, kind_of, model_of, note_result
from featvis.models.patching import Around, methods_of, noted, patched


def from_equinox(
    module: Any,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str | None = None,
    logits: str | None = None,
    call: Mapping[Any, Any] | None = None,
    image: int | str = 0,
    method: str = "__call__",
    batched: bool = False,
    channel_axes: Mapping[str, int] | None = None,
) -> Model:
    """Make a model of an Equinox module; the output of every module in it is a layer by its path.

    As with `from_nnx`: `blocks_3/conv` is `module.blocks[3].conv`. The module runs in inference
    mode, and is not touched.

    Args:
        module: called as `module(image, **call)` on one image without an axis of images, under
            `jax.vmap` with `axis_name="batch"`.
        input: the images that it takes; by default any size, three channels in [0, 1], and the
            channels first, as Equinox's convolutions have them.
        name: of the model; by default that of its class.
        labels: class names by index of its class scores.
        output: as for `from_nnx`.
        logits: as for `from_nnx`.
        call: as for `from_nnx`, the same for all images: `{"key": jax.random.key(0)}`, or the
            `state` of a network with batch norms, whose new one is no layer.
        image: as for `from_nnx`.
        method: as for `from_nnx`.
        batched: whether it takes images with their axis itself.
        channel_axes: as for `from_nnx`.

    Raises:
        InputError: it cannot be called on such images; the message says what to pass.
    """
    equinox = _library("equinox", "from_equinox")
    if not isinstance(module, equinox.Module):
        raise InputError(f"from_equinox takes a module of Equinox; got {kind_of(module)}")
    if not isinstance(method, str) or not callable(getattr(module, method, None)):
        raise InputError(f"{type(module).__name__} has no method {method!r} to call")
    how, arrays = read_call(image, call)
    weights, rest = equinox.partition(equinox.nn.inference_mode(module), equinox.is_array)
    return model_of(
        _Equinox(static(rest), repr(rest), how, method, batched, key_order(weights)),
        Given(weights, (), arrays),
        input=Input(layout="NCHW") if input is None else input,
        name=name or type(module).__name__,
        labels=labels,
        output=output,
        logits=logits,
        made=type(module),
        channel_axes=channel_axes,
    )


def from_haiku(
    transformed: Any,
    params: Any,
    state: Any = None,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str | None = None,
    logits: str | None = None,
    call: Mapping[Any, Any] | None = None,
    image: int | str = 0,
    rngs: Any = 0,
    channel_axes: Mapping[str, int] | None = None,
) -> Model:
    """Make a model of a function that Haiku has transformed; every module's output is a layer.

    That is the name of its parameters, as `res_net18/~/initial_conv`.

    Args:
        transformed: of `hk.transform`, `hk.transform_with_state` or `hk.without_apply_rng`.
        params: what its `init` returned or training made of it.
        state: likewise, of one with state.
        input: the images that it takes; by default any size, three channels in [0, 1].
        name: of the model; by default that of the outermost module of its parameters.
        labels: class names by index of its class scores.
        output: as for `from_nnx`.
        logits: as for `from_nnx`.
        call: the function's other arguments, as for `from_nnx`: `{"is_training": False}`.
        image: the argument of the function that the image is, as for `from_nnx`.
        rngs: the seed or key that it is applied with.
        channel_axes: as for `from_nnx`.

    Raises:
        InputError: it cannot be called on such images; the message says what to pass.
    """
    haiku = _library("haiku", "from_haiku")
    kinds = (haiku.Transformed, haiku.TransformedWithState)
    if not isinstance(transformed, kinds):
        raise InputError(
            f"from_haiku takes what hk.transform or hk.transform_with_state returns; got "
            f"{kind_of(transformed)}"
        )
    with_state = isinstance(transformed, haiku.TransformedWithState)
    if with_state != (state is not None):
        needed = "needs the state that its init returned" if with_state else "has no state"
        raise InputError(f"from_haiku: the function {needed}; got {kind_of(state)}")
    how, arrays = read_call(image, call)
    with_key = "rng" in inspect.signature(transformed.apply).parameters
    outermost = next(iter(params), "haiku").split("/")[0]
    return model_of(
        _Haiku(static(transformed.apply), how, with_state, with_key),
        Given((params, state), (key_of(rngs),) if with_key else (), arrays),
        input=input,
        name=name or outermost,
        labels=labels,
        output=output,
        logits=logits,
        made=transformed.apply,
        channel_axes=channel_axes,
    )


def from_keras(
    module: Any,
    *,
    input: Input | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    output: str | None = None,
    logits: str | None = None,
    call: Mapping[Any, Any] | None = None,
    image: int | str = 0,
    channel_axes: Mapping[str, int] | None = None,
) -> Model:
    """Make a model of a Keras model on JAX; the output of every layer is a layer by its name.

    That is the name of Keras, after those of the layers that it is in: `backbone/conv1`.

    Args:
        module: a functional, sequential or subclassed model that is built. It is called with
            `training=False`.
        input: the images that it takes; by default three channels in [0, 1], and the model's own
            size if it has one.
        name: of the model; by default its own.
        labels: class names by index of its class scores.
        output: as for `from_nnx`.
        logits: as for `from_nnx`.
        call: as for `from_nnx`; of a model with several inputs the others, by their names.
        image: as for `from_nnx`; of a model with several inputs the name of one.
        channel_axes: as for `from_nnx`.

    Raises:
        InputError: Keras runs on another backend, the model is not built, or it cannot be called on
            such images; the message says what to do.
    """
    keras = _library("keras", "from_keras")
    if not isinstance(module, keras.Model):
        raise InputError(f"from_keras takes a model of Keras; got {kind_of(module)}")
    if keras.backend.backend() != "jax":
        raise InputError(
            f"from_keras takes models on JAX; Keras runs on {keras.backend.backend()}: set the "
            "environment variable KERAS_BACKEND=jax before it is imported"
        )
    if not module.built:
        raise InputError(f"{module.name} is not built: call it once on an image, or build it")
    inputs = tuple(tensor.name for tensor in getattr(module, "inputs", None) or ())
    how, arrays = read_call(image, call)
    if len(inputs) > 1 and image not in inputs:
        raise InputError(
            f"{module.name} has several inputs: say which is the image, image="
            f"{' or '.join(map(repr, inputs))}, and give the others in call="
        )
    weights = tuple(
        [variable.value for variable in variables]
        for variables in (module.trainable_variables, module.non_trainable_variables)
    )
    if input is None:
        input = Input()
        match getattr(module, "input_shape", None):
            case (_, int(height), int(width), _):
                input = Input(size=(height, width), fixed_size=True)
    return model_of(
        _Keras(static(module), how, inputs if len(inputs) > 1 else ()),
        Given(weights, (), arrays),
        input=input,
        name=name or module.name,
        labels=labels,
        output=output,
        logits=logits,
        made=type(module),
        channel_axes=channel_axes,
    )


def _library(name: str, function: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise InputError(f"{function} needs {name}, which cannot be imported: {error}") from error


# ---- Equinox -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Equinox(Runner):
    rest: Any
    text: str  # equal modules may differ in 1 and True
    call: Call
    method: str
    batched: bool
    order: Any

    def run(self, given: Given, x: jax.Array, way: Way) -> Any:
        import equinox

        weights = in_order(given.weights, self.order)
        module = equinox.combine(weights, plain(self.rest))
        places, named = self.call.arguments(x, given.call, way.each)

        def one(image: jax.Array) -> None:
            arguments = [image if place is x else place for place in places]
            keywords = {key: image if value is x else value for key, value in named.items()}
            with _equinox_notes(module, equinox.Module, self.method):
                result = getattr(module, self.method)(*arguments, **keywords)
            # Here, where a state that all images share is known from what each has.
            note_result(result)

        if self.batched:
            one(x)
        else:
            jax.vmap(one, axis_name="batch")(x)


def _equinox_notes(module: Any, base: type, entry: str) -> Any:
    paths: dict[int, str] = {}
    classes: dict[type, None] = {}
    for path, part in _parts(module, base, ""):
        paths.setdefault(id(part), path)
        classes[type(part)] = None
    around = noted(lambda part: paths.get(id(part)), entry)
    methods: dict[tuple[type, str], Around] = {}
    for cls in classes:
        if any("__call__" in vars(one) for one in cls.__mro__):
            methods[cls, "__call__"] = around("__call__")
        methods |= {(cls, name): around(name) for name in methods_of(cls, base, "equinox")}
    return patched(methods)


def _parts(value: Any, base: type, path: str) -> Iterator[tuple[str, Any]]:
    """The modules in a module by their paths, itself first."""
    if isinstance(value, base):
        yield path, value
        for field in dataclasses.fields(value):  # type: ignore[arg-type]
            part = getattr(value, field.name, None)
            yield from _parts(part, base, f"{path}/{field.name}" if path else field.name)
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            yield from _parts(part, base, f"{path}_{place}" if path else str(place))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _parts(part, base, f"{path}/{key}" if path else str(key))


# ---- Haiku ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Haiku(Runner):
    apply: Any
    call: Call
    with_state: bool
    with_key: bool

    def run(self, given: Given, x: jax.Array, way: Way) -> Any:
        import haiku

        running: set[tuple[int, str]] = set()

        def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            module, name = context.module, context.method_name
            key = (id(module), name)
            own = name == "__call__" or name in methods_of(type(module), haiku.Module, "haiku")
            # A call of the base class by the module's own is no second one.
            if not own or key in running:
                return method(*args, **kwargs)
            running.add(key)
            try:
                result = method(*args, **kwargs)
            finally:
                running.discard(key)
            path = module.module_name
            note(result, path if name == "__call__" else f"{path}/{name}")
            return result

        params, state = given.weights
        places, named = self.call.arguments(x, given.call, way.each)
        first = (params, *((state,) if self.with_state else ()), *given.keys)
        with haiku.intercept_methods(intercept):
            result = plain(self.apply)(*first, *places, **named)
        # What becomes of the state is no activation.
        return result[0] if self.with_state else result


# ---- Keras ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Keras(Runner):
    model: Any
    call: Call
    inputs: tuple[str, ...]  # of a model with several

    def run(self, given: Given, x: jax.Array, way: Way) -> Any:
        import keras

        model = plain(self.model)
        places, named = self.call.arguments(x, given.call, way.each)
        if self.inputs:
            several = {key: named.pop(key) for key in self.inputs if key in named}
            places = [several, *places]
        running: list[Any] = []

        def around(method: Any, layer: Any, args: Any, kwargs: Any) -> Any:
            if any(layer is one for one in running):  # its base class's
                return method(layer, *args, **kwargs)
            running.append(layer)
            try:
                result = method(layer, *args, **kwargs)
            finally:
                running.pop()
            if layer is not model:
                above = [one.name for one in running if one is not model]
                note(result, "/".join([*above, layer.name]))
            return result

        with ExitStack() as stack:
            both = (keras.Operation, keras.layers.Layer)
            stack.enter_context(patched({(cls, "__call__"): around for cls in both}))
            result, _ = model.stateless_call(*given.weights, *places, training=False, **named)
        return result
