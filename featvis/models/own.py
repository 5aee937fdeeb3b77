"""One's own network as a model, whatever library it is written in: what all of them share.

A network is traced once at the size of its input. What that says (which values are activations,
where their channels are, how the network can be called) holds from then on.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jax.extend import core

from featvis.errors import FeatvisError, InputError
from featvis.jaxprs.facts import Fact, facts_of
from featvis.jaxprs.taps import Taps, Traced, collect, is_mark, note, trace
from featvis.models.call import Given
from featvis.models.faults import explained_call, said_of
from featvis.models.input import Input
from featvis.models.model import _DRY_RUN, Model, Prepared
from featvis.models.outputs import OUTPUT, SCORES, layers_of, sorted_out, turned_round

#: The random numbers that a network draws for its training alone.
DROPOUT = "dropout"

#: Other keys that must change a layer if any does: the bits of a dropout may fall alike by chance.
_REDRAWS = 8


class Way(NamedTuple):
    """How a network of one's own can be called: found by trying.

    Attributes:
        each: whether arrays of its call with a first axis of 1 are repeated for each image.
        eager: whether what depends on neither image nor weights is computed while it is traced, so
            that it may be a number of Python's.
        marked: whether its modules carry their names themselves, into programs inside it.
        streams: of random numbers that it asks for.
    """

    each: bool = False
    eager: bool = False
    marked: bool = False
    streams: tuple[str, ...] = ()


class Runner:
    """A network as its library has it; hashable, and equal for equal architectures."""

    def run(self, given: Given, x: jax.Array, way: Way) -> Any:
        """What the network gives for images as it takes them; its parts note what they give.

        None where the network's result is noted already.
        """
        raise NotImplementedError

    def given(self, given: Given, way: Way) -> Given:
        """What it computes with, if it is to be called so."""
        return given

    def of_training(self, way: Way) -> Callable[[tuple[Any, ...]], bool]:
        """Says of the path of a key whether it is drawn from for training alone, unasked."""
        return lambda path: False

    def missed(self, found: Taps) -> bool:
        """Whether parts have not been seen that may be with `marked`."""
        return False


@dataclass(frozen=True)
class Network:
    """A network of one's own with the layers that its dry run had, whatever the images.

    Attributes:
        runner: the network.
        way: how it is called.
        output: what its result is called.
        names: its layers.
        turned: those of them whose channels come first.
        scores: the layer of class scores, where it is to be called `logits` too.
    """

    runner: Runner
    way: Way
    output: str
    names: tuple[str, ...]
    turned: frozenset[str]
    scores: str | None = None

    def __call__(self, given: Given, x: jax.Array) -> dict[str, jax.Array]:
        """Activations (n, ...) by layer, in forward order."""
        try:
            found = layers_of(collect(_Call(self.runner, self.way), given, x), self.output)
        except (FeatvisError, FloatingPointError):
            raise  # The second where JAX looks for NaN and infinity.
        # Whatever a network raises is its own; the user wants to know on what.
        except Exception as error:
            raise InputError(
                f"the network cannot be called on images (n, {', '.join(map(str, x.shape[1:]))}), "
                f"though it can at the size of its input: {said_of(error)}; where it takes one "
                "size only, declare so with fixed_size=True"
            ) from error
        layers = {}
        for name in self.names:
            if name not in found:
                continue
            value = found[name]
            value = value[:, None] if value.ndim == 1 else value
            layers[name] = jnp.moveaxis(value, 1, -1) if name in self.turned else value
        return _with_scores(layers, self.scores)


def _with_scores(layers: dict[str, Any], scores: str | None) -> dict[str, Any]:
    """The layers, that of class scores also as `logits`, and another of that name as `logits.1`."""
    if scores is None or scores == SCORES:
        return layers
    named = {}
    for name, value in layers.items():
        unique, number = name, 0
        while name == SCORES and (unique == SCORES or unique in layers):
            number += 1
            unique = f"{name}.{number}"
        named[unique] = value
        if name == scores:
            named[SCORES] = value
    return named


@dataclass(frozen=True)
class _Call:
    """A network called in one way, its result noted."""

    runner: Runner
    way: Way

    def __call__(self, given: Given, x: jax.Array) -> None:
        with jax.ensure_compile_time_eval() if self.way.eager else nullcontext():
            note_result(self.runner.run(given, x, self.way))


def note_result(result: Any) -> None:
    """Notes what a network gives: a dict by its keys, in their order."""
    if isinstance(result, Mapping):
        for key, value in result.items():
            note(value, str(key), "key")
    else:
        note(result, "", "result")


def model_of(
    runner: Runner,
    given: Given,
    *,
    input: Input | None,
    name: str,
    labels: Sequence[str] | None,
    output: str | None,
    logits: str | None,
    made: Any,
    channel_axes: Mapping[str, int] | None,
) -> Model:
    """A network as a model, after a dry run at the size of its input.

    Args:
        runner: the network.
        given: what it computes with.
        input: the images that it takes.
        name: of the model.
        labels: class names.
        output: what its result is called; None: by what it is.
        logits: the layer of class scores; None: the one of that name.
        made: what was given, for the model's origin.
        channel_axes: axes of channels of single layers.

    Raises:
        InputError: what does not work, and what to pass.
    """
    input = Input() if input is None else input
    if not isinstance(input, Input):
        raise InputError(f"input must be a featvis.Input; got {kind_of(input)}")
    if not isinstance(output, str | None) or output == "":
        raise InputError(f"output is a text, the name of what the network returns; got {output!r}")
    names = _labels(labels)
    given = jax.tree.map(jnp.asarray, given)
    height, width = input.size
    count = _images_to_try(given, input)
    shape = jax.ShapeDtypeStruct((count, height, width, input.channels), jnp.float32)
    with explained_call(name, input):
        x = jax.eval_shape(lambda image: input.prepare(image, given), shape)
        way, traced, facts = _tried(runner, given, x, input)
        given = runner.given(given, way)
        found = sorted_out(facts, traced, output, count)
        turned = turned_round(found, channel_axes, input)
    layers = {
        key: (fact.shape[:1] + fact.shape[2:] + fact.shape[1:2] if key in turned else fact.shape)[
            1:
        ]
        or (1,)
        for key, fact in found.layers.items()
    }
    scores = _scores(name, logits, layers)
    network = Network(runner, way, found.output, tuple(layers), turned, scores)
    shapes = _with_scores(layers, scores)
    classes = shapes.get(SCORES, ())
    if names is not None and len(classes) == 1 and classes[0] != len(names):
        raise InputError(f"{name} has {classes[0]} classes; got {len(names)} labels")
    drawn: tuple[str, ...] = ()
    if any(fact.random for fact in found.layers.values()):
        drawn = _drawn(network, given, input, lambda path: True)
    digested = (given.weights, given.call, given.keys if drawn else ())
    origin = f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', kind_of(made))}"
    return Model(
        name, Prepared(input, network), given, names, _digest(digested, input, runner, shapes),
        input, origin, FrozenDict(found.left_out), drawn,
    )  # fmt: skip


def kind_of(value: Any) -> str:
    """The name of a value's type, for a message."""
    return type(value).__name__


def _labels(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"labels are a list of texts, one a class; got {labels!r}")
    return tuple(labels)


def _scores(name: str, logits: str | None, layers: Mapping[str, tuple[int, ...]]) -> str | None:
    """The layer of class scores, checked; None where nobody says which."""
    if logits is None:
        return None
    vectors = [layer for layer, shape in layers.items() if len(shape) == 1]
    if logits not in vectors:
        is_map = f": it is {layers[logits]}" if logits in layers else ""
        raise InputError(
            f"{name} has no layer {logits!r} of class scores, one vector an image{is_map}; its "
            f"vectors: {', '.join(vectors) or 'none'}"
        )
    return logits


def _images_to_try(given: Given, input: Input) -> int:
    """A number of images that is the length of nothing else: a network may get as many texts."""
    lengths = {*input.size, input.channels}.union(*map(np.shape, jax.tree.leaves(given)))
    return next(count for count in itertools.count(_DRY_RUN, 2) if count not in lengths)


def _tried(runner: Runner, given: Given, x: Any, input: Input) -> tuple[Way, Traced, Taps]:
    """The first way in which the network can be called, the simplest first, and what it shows."""
    several = any(np.ndim(array) and array.shape[0] == 1 for array in given.call)
    ways = [Way(), Way(eager=True)]
    ways += [Way(each=True), Way(each=True, eager=True)] if several else []
    streams: tuple[str, ...] = ()
    first: Exception | None = None
    while ways:
        way = ways[0]._replace(streams=streams)
        try:
            traced, facts = _dry_run(runner, given, x, way, input)
        except NeedsKey as asking:
            if asking.stream in streams:
                raise asking.error from None
            streams = (*streams, asking.stream)
            continue
        except FeatvisError:
            raise
        except Exception as error:
            first = first or error
            ways.pop(0)
            continue
        _check(facts)
        _check_training(runner, given, way, input, facts)
        if runner.missed(facts):
            found = _with_names(runner, given, x, way, input, (traced, facts))
            return found or (way, traced, facts)
        return way, traced, facts
    assert first is not None
    raise first


class NeedsKey(Exception):
    """A network asks for a stream of random numbers that it was not given."""

    def __init__(self, stream: str, error: Exception) -> None:
        super().__init__(stream)
        self.stream, self.error = stream, error


def _dry_run(runner: Runner, given: Given, x: Any, way: Way, input: Input) -> tuple[Traced, Taps]:
    given = runner.given(given, way)
    traced = trace(_Call(runner, way), given, x)

    def facts(tree: Any, **more: Any) -> list[Fact]:
        return [Fact(np.shape(leaf), leaf.dtype, **more) for leaf in jax.tree.leaves(tree)]

    keys = Given((), given.keys, given.call)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(keys)]
    known = facts(given.weights)
    known += [f._replace(random=random) for f, random in zip(facts(keys), is_key, strict=True)]
    channels = 1 if input.layout == "NCHW" else x.ndim - 1
    known += [Fact(x.shape, x.dtype, channels, image=True)]
    return traced, facts_of(traced, known)


def _with_names(
    runner: Runner, given: Given, x: Any, way: Way, input: Input, plain: tuple[Traced, Taps]
) -> tuple[Way, Traced, Taps] | None:
    """The same, the modules bearing their names; None where that tells no more or changes it."""
    way = way._replace(marked=True)
    try:
        traced, facts = _dry_run(runner, given, x, way, input)
    except Exception:
        return None
    if len(facts.values) == len(plain[1].values):
        return None
    same = _outline(traced.program.jaxpr) == _outline(plain[0].program.jaxpr)
    return (way, traced, facts) if same else None


def _outline(jaxpr: Any) -> list[Any]:
    """What a program does, but for marks and values."""
    return [
        (
            eqn.primitive.name,
            [str(out.aval) for out in eqn.outvars],
            [_outline(inner) for inner in core.jaxprs_in_params(eqn.params)],
        )
        for eqn in jaxpr.eqns
        if not is_mark(eqn)
    ]


def _check(facts: Taps) -> None:
    """That a call changes no statistics."""
    for path, values in facts.state.items():
        if values[0] is not values[-1]:
            raise InputError(
                f"it changes its batch statistics in inference mode ({path}): pass what turns that "
                "off, as call={'use_running_average': True}, or turn it off in the module"
            )


def _check_training(runner: Runner, given: Given, way: Way, input: Input, facts: Taps) -> None:
    """That nothing depends on what is drawn for training alone."""
    given, of_training = runner.given(given, way), runner.of_training(way)
    asked = any(of_training(path) for path, _ in jax.tree_util.tree_leaves_with_path(given.keys))
    if not asked or not any(fact.random for fact in facts.all()):
        return
    names = tuple(layers_of(facts, OUTPUT))
    network = Network(runner, way, OUTPUT, names, frozenset())
    dropped = _drawn(network, given, input, of_training)
    if dropped:
        raise InputError(
            f"it needs random numbers for dropout in inference mode ({dropped[0]} depends on "
            "them): pass what turns them off, as call={'deterministic': True} or call={'train': "
            "False}, or where they belong to it a seed for them, as rngs={'dropout': 0}"
        )


def _drawn(
    network: Network, given: Given, input: Input, which: Callable[[tuple[Any, ...]], bool]
) -> tuple[str, ...]:
    """The layers whose values are others with other keys: computed, as a draw may go unused.

    Args:
        network: with all layers in question.
        given: what it computes with.
        input: the images that it takes.
        which: of the keys, by their paths in the random state (those of its call are of all).
    """

    def redrawn(tree: Any, seed: int) -> Any:
        def other(path: tuple[Any, ...], leaf: Any) -> Any:
            if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or not which(path):
                return leaf
            fold = functools.partial(jax.random.fold_in, data=seed)
            return jax.vmap(fold)(leaf.reshape(-1)).reshape(leaf.shape)

        return jax.tree_util.tree_map_with_path(other, tree)

    run = jax.jit(Prepared(input, network))
    x = np.random.default_rng(0).uniform(size=(2, *input.size, input.channels)).astype(np.float32)
    before = run(given, x)
    found: set[str] = set()
    for seed in range(_REDRAWS):
        keys, call = redrawn(given.keys, seed), redrawn(given.call, seed)
        after = run(Given(given.weights, keys, call), x)
        found |= {n for n in before if not np.array_equal(before[n], after[n], equal_nan=True)}
    return tuple(name for name in network.names if name in found)


def _digest(weights: Any, input: Input, runner: Any, layers: Mapping[str, Any]) -> str:
    """SHA-256 of the weights, of what is declared of the input and the call, and of the layers.

    What a function computes with them is not in it, nor are arrays that it holds itself.
    """
    digest = hashlib.sha256()
    declared = {f.name: getattr(input, f.name) for f in dataclasses.fields(input)}
    preprocess = declared.pop("preprocess")
    declared["preprocess"] = getattr(preprocess, "__qualname__", kind_of(preprocess))
    digest.update(repr((declared, str(runner.call), list(layers.items()))).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
