"""What other people's networks compute is what they compute without us."""

import collections
import dataclasses
import typing

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE = (8, 12)
INPUT = fv.Input(size=SIZE)


def by_itself(module, x):
    """What a module of NNX gives, compiled with its weights as arguments, as ours are."""
    graph, state = nnx.split(module)
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, x)


def image(channels=3, count=2):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, *SIZE, channels)).astype(np.float32)


# ---- what parts of a network hand to each other ---------------------------------------------


@flax.struct.dataclass
class Struct:
    last: jax.Array
    first: jax.Array
    kind: str = flax.struct.field(pytree_node=False, default="struct")


@dataclasses.dataclass
class Plain:  # no pytree, as distributions are none
    mean: jax.Array
    deviation: jax.Array | None = None


class Pair(typing.NamedTuple):
    second: jax.Array
    first: jax.Array


@jax.tree_util.register_pytree_node_class
class Custom:
    def __init__(self, low, high):
        assert type(low) is not object
        self.low, self.high = low, high

    def tree_flatten(self):
        return (self.high, self.low), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*reversed(children))


def generate(a, b):
    yield a
    yield b


#: What a part makes of two maps, and the type and order of what another one must get.
CONTAINERS = {
    "dict": lambda a, b: {"low": a, "high": b},
    "dict of odd keys": lambda a, b: {"low": a, 7: b, (1, 2): 3},
    "OrderedDict": lambda a, b: collections.OrderedDict(low=a, high=b),
    "defaultdict": lambda a, b: collections.defaultdict(list, {"low": a, "high": b}),
    "FrozenDict": lambda a, b: FrozenDict({"low": a, "high": b}),
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b, None, "a text", 3, 2.5, True, np.float32(2), np.arange(3)],
    "namedtuple": lambda a, b: Pair(a, b),
    "struct": lambda a, b: Struct(a, b),
    "dataclass": lambda a, b: Plain(a, b),
    "none in a dataclass": lambda a, b: Plain(a + b.mean()),
    "custom": lambda a, b: Custom(a, b),
    "generator": generate,
    "function": lambda a, b: lambda: (a, b),
    "nested": lambda a, b: {"z": [{"low": a, "high": {"z": b, "a": a}}], "n": np.int64(3)},
    "weak type": lambda a, b: (a, jnp.asarray(2.0) * 3, b),
}


def _weights(value):
    """What a parent computes that depends on the type and order of all that it gets."""
    match value:
        case Plain():
            yield from _weights([value.mean, value.deviation])
        case Custom():
            yield from _weights([value.low, value.high])
        case _ if isinstance(value, (dict, FrozenDict)):
            assert type(value) in (
                dict,
                collections.OrderedDict,
                collections.defaultdict,
                FrozenDict,
            )
            yield from _weights(list(value.values()))
        case _ if dataclasses.is_dataclass(value):
            assert value.kind == "struct"
            yield from _weights([value.last, value.first])
        case tuple() | list():
            yield from (w for part in value for w in _weights(part))
        case np.ndarray() | np.generic():
            # NumPy's own, of which a network may make shapes.
            yield float(np.sum(value)) * jnp.ones(int(value.size)).sum()
        case _ if isinstance(value, jax.Array):
            yield value.mean((1, 2)) if value.ndim == 4 else value
        case None | str():
            pass
        case bool() | int() | float():
            yield 2.0 if value is True else jnp.zeros(int(value)).size + value
        case _ if callable(value):
            yield from _weights(value())
        case _:
            yield from (w for part in value for w in _weights(part))


def joined(value):
    total = 0.0
    for place, weight in enumerate(_weights(value)):
        total = total + (place + 1) * weight
    return total


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("library", ["linen", "nnx", "function"])
def test_what_a_part_gives_is_what_another_gets(kind, library, monkeypatch):
    make = CONTAINERS[kind]

    class Backbone(nn.Module):
        @nn.compact
        def __call__(self, x):
            a = nn.Dense(4)(x)
            return make(a, nn.Dense(4)(nn.relu(a)))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return joined(Backbone(name="backbone")(x))

    class NnxBackbone(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = (nnx.Linear(n, 4, rngs=rngs) for n in (3, 4))

        def __call__(self, x):
            a = self.a(x)
            return make(a, self.b(nnx.relu(a)))

    class NnxNet(nnx.Module):
        def __init__(self, rngs):
            self.backbone = NnxBackbone(rngs)

        def __call__(self, x):
            return joined(self.backbone(x))

    x = image()
    if library == "linen":
        module = Net()
        variables = module.init(jax.random.key(0), x)
        model = fv.from_linen(module, variables, input=INPUT)
        expected = jax.jit(module.apply)(variables, x)
        inner = {"backbone/Dense_0": (8, 12, 4), "backbone/Dense_1": (8, 12, 4)}
    elif library == "nnx":
        module = NnxNet(nnx.Rngs(0))
        model = fv.from_nnx(module, input=INPUT)
        expected = by_itself(module, x)
        inner = {"backbone/a": (8, 12, 4), "backbone/b": (8, 12, 4)}
    else:
        params = {"b": jnp.ones((4, 4)) / 3, "a": jnp.ones((3, 4))}

        def apply(params, x):
            a = fv.tap(x @ params["a"], "a")
            return joined(make(a, fv.tap(nn.relu(a) @ params["b"], "b")))

        model = fv.from_function(apply, params, input=INPUT)
        expected = jax.jit(apply)(params, x)
        inner = {"a": (8, 12, 4), "b": (8, 12, 4)}
    layers = model.layers()
    assert inner.items() <= layers.items()
    assert layers["logits"] == (4,)
    # No convolution: what XLA makes of the same program is the same to the bit.
    got = jax.jit(lambda model, x: model(x)["logits"])(model, x)
    np.testing.assert_array_equal(got, expected)


class Branches(nnx.Module):
    """Parts in a dict and in a list, walked through in the order in which they were put there."""

    def __init__(self, rngs):
        self.low, self.high = None, None
        self.branches = nnx.Dict(
            stem=nnx.Linear(3, 4, rngs=rngs),
            last=nnx.Linear(4, 5, rngs=rngs),
            first=nnx.Linear(5, 6, rngs=rngs),
        )
        self.plain = nnx.data(
            {"out": nnx.Linear(6, 4, rngs=rngs), "Across": nnx.Linear(4, 4, rngs=rngs)}
        )
        self.settings = nnx.static({"b": 2, "a": 1})

    def __call__(self, x):
        for branch in self.branches.values():
            x = nnx.relu(branch(x))
        for branch in self.plain.values():
            x = branch(x)
        names = [name for name in vars(self) if not name.startswith("_")]
        assert names == ["low", "high", "branches", "plain", "settings"]
        assert list(self.settings) == ["b", "a"]
        return x.mean((1, 2))


@pytest.mark.thorough
def test_parts_of_a_module_are_in_their_order():
    module = Branches(nnx.Rngs(0))
    model = fv.from_nnx(module, input=INPUT)
    assert list(model.layers()) == [
        "branches/stem", "branches/last", "branches/first", "plain/out", "plain/Across", "logits",
    ]  # fmt: skip
    got = jax.jit(lambda model, x: model(x)["logits"])(model, image())
    np.testing.assert_allclose(got, module(image()), rtol=1e-5, atol=1e-6)


def test_parameters_of_a_function_are_in_their_order():
    rng = np.random.default_rng(0)
    params = {
        "layers": {
            name: jnp.asarray(rng.normal(size=(3, 3)), jnp.float32)
            for name in ("conv1", "conv2", "conv10", "Conv3")
        },
        "by_kind": collections.defaultdict(list, {"z": [jnp.ones(3)], "a": [jnp.zeros(3)]}),
        "frozen": FrozenDict({"z": jnp.full(3, 2.0), "a": jnp.ones(3)}),
    }

    def apply(params, x):
        assert type(params["by_kind"]) is collections.defaultdict
        assert type(params["frozen"]) is FrozenDict
        for weight in params["layers"].values():
            x = jnp.tanh(x @ weight)
        for (bias,) in params["by_kind"].values():
            x = 2 * x + bias
        for scale in params["frozen"].values():
            x = x * scale + 1
        return x.mean((1, 2))

    model = fv.from_function(apply, params, input=INPUT)
    np.testing.assert_allclose(model(image())["logits"], apply(params, image()), rtol=1e-6)


# ---- parts that are compared, stacked, handed round -----------------------------------------


class Layer(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.linear(x))


class Giver(nnx.Module):
    """A part that gives a part, and a function."""

    def __init__(self, rngs):
        self.layer = Layer(rngs)

    def __call__(self, x):
        return self.layer, lambda x: x * 2


class Stacked(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([Layer(rngs) for _ in range(3)])
        self.giver = Giver(rngs)

    def __call__(self, x):
        first, *others = self.layers
        for other in others:
            assert jax.tree.structure(first) == jax.tree.structure(other)
            assert nnx.graphdef(first) == nnx.graphdef(other)
        layer, double = self.giver(x)
        assert layer is self.giver.layer
        assert jax.tree.structure(layer) == jax.tree.structure(first)
        stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *self.layers)

        def step(x, layer):
            return layer(x), None

        x, _ = jax.lax.scan(step, double(layer(x)), stacked)
        return x.mean((1, 2))


def test_parts_stay_equal_and_stack():
    module = Stacked(nnx.Rngs(0))
    model = fv.from_nnx(module, input=INPUT)
    assert model.layers()["logits"] == (3,)
    assert model.layers()["giver/layer"] == (*SIZE, 3)
    assert model.left_out["giver/0"] == "a Layer, no array"
    assert model.left_out["giver/1"] == "a function, no array"
    got = jax.jit(lambda model, x: model(x)["logits"])(model, image())
    np.testing.assert_array_equal(got, by_itself(module, image()))


@nnx.jit
def run(layer, x):
    return layer(x)


def test_parts_in_programs_of_their_own_have_their_own_names():
    class Jitted(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([Layer(rngs) for _ in range(2)])

        def __call__(self, x):
            for layer in self.layers:
                x = run(layer, x)
            return x.mean((1, 2))

    module = Jitted(nnx.Rngs(0))
    # What was traced before is known to JAX, without any names.
    expected = module(image())
    model = fv.from_nnx(module, input=INPUT)
    assert list(model.layers()) == [
        "layers_0/linear", "layers_0", "layers_1/linear", "layers_1", "logits",
    ]  # fmt: skip
    acts = model(image())
    np.testing.assert_allclose(acts["layers_0"], module.layers[0](image()), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(acts["logits"], expected, rtol=1e-5, atol=1e-6)
    assert not hasattr(module.layers[0], "_featvis_path")


def test_a_tap_gives_back_what_it_was_given():
    numpy, scalar = np.ones((2, 3)), np.float32(3)
    assert fv.tap(numpy, "numpy") is numpy
    assert fv.tap(scalar, "scalar") is scalar

    def traced(x):
        weak = jnp.asarray(2.0) * 1
        tapped = fv.tap(weak, "weak")
        assert tapped.weak_type == weak.weak_type
        return fv.tap(x, "x") * tapped

    x = jnp.ones((2, 3), jnp.bfloat16)
    assert jax.jit(traced)(x).dtype == jnp.bfloat16


# ---- channels first ------------------------------------------------------------------------


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def conv(x, w, layout="NCHW", **options):
    dims = (layout, "OIHW" if layout == "NCHW" else "HWIO", layout)
    options = {"padding": "SAME", "window_strides": (1, 1), **options}
    return jax.lax.conv_general_dilated(x, w, dimension_numbers=dims, **options)


@pytest.mark.thorough
def test_only_maps_with_channels_first_are_turned():
    """The network's own values, turned by hand where they are maps (n, c, h, w), and only there."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {"conv": normal(8, 3, 3, 3), "norm": normal(8), "qkv": normal(8, 3, 2, 4)}
    params |= {"point": normal(8, 6), "last": normal(3, 3, 6, 5), "deep": normal(6, 1, 3, 3)}

    def apply(params, x, out):
        x = out["conv"] = conv(x, params["conv"])
        mean = x.mean((0, 2, 3), keepdims=True)
        x = out["norm"] = (x - mean) * params["norm"][:, None, None]
        gate = out["gate"] = jax.nn.sigmoid(x.mean((2, 3), keepdims=True))
        x = out["gated"] = jax.nn.gelu(x) * gate
        x = out["pooled"] = nn.max_pool(x.transpose(0, 2, 3, 1), (2, 2), (2, 2)).transpose(
            0, 3, 1, 2
        )
        x = out["joined"] = jnp.concatenate([x, jnp.roll(x, 1, 2)], 1)[:, :8]
        x = out["resized"] = jax.image.resize(x, (*x.shape[:2], 6, 4), "bilinear")
        x = out["nearest"] = jax.image.resize(x, (*x.shape[:2], 4, 6), "nearest")
        n, c, h, w = x.shape
        tokens = out["tokens"] = x.reshape(n, c, h * w).transpose(0, 2, 1)
        q, k, v = out["qkv"] = jnp.einsum("ntc,cshd->snhtd", tokens, params["qkv"])
        weights = out["weights"] = jax.nn.softmax(jnp.einsum("nhqd,nhkd->nhqk", q, k))
        mixed = out["mixed"] = jnp.einsum("nhqk,nhkd->nhqd", weights, v)
        tokens = tokens + mixed.transpose(0, 2, 1, 3).reshape(n, h * w, c)
        x = out["map"] = tokens.transpose(0, 2, 1).reshape(n, c, h, w)
        x = out["point"] = jnp.einsum("nchw,cd->ndhw", x, params["point"])
        x = out["depthwise"] = conv(x, params["deep"], feature_group_count=6)
        last = out["last"] = x.transpose(0, 2, 3, 1)
        out["last conv"] = conv(last, params["last"], "NHWC")
        return x.mean((2, 3))

    def tapped(params, x):
        class Out(dict):
            def __setitem__(self, name, value):
                super().__setitem__(name, value)
                if name != "qkv":
                    fv.tap(value, name)
                else:
                    fv.tap(value[0], "query")

        return apply(params, x, Out())

    model = fv.from_function(tapped, params, input=fv.Input(size=SIZE, layout="NCHW"))
    own = {}
    own["logits"] = apply(params, nchw(image()), own)
    own["query"] = own.pop("qkv")[0]
    last = {"last", "last conv", "query", "weights", "mixed"}
    found = model(image())
    assert set(found) == set(own)
    for name, value in own.items():
        turned = value.ndim == 4 and name not in last
        expected = np.moveaxis(value, 1, -1) if turned else value
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)


class Transposing(nn.Module):
    """NCHW in, as every Flax model of transformers and diffusers, and NHWC inside."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), name="conv")(x.transpose(0, 2, 3, 1))
        tokens = x.reshape(len(x), -1, 8)
        tokens = nn.MultiHeadDotProductAttention(2, name="attention")(tokens, tokens)
        return tokens.mean(1), x.transpose(0, 3, 1, 2)


@pytest.mark.thorough
def test_a_network_that_takes_channels_first_and_works_with_channels_last():
    module = Transposing()
    variables = module.init(jax.random.key(0), nchw(image()))
    model = fv.from_linen(module, variables, input=fv.Input(size=SIZE, layout="NCHW"))
    layers = model.layers()
    assert layers["conv"] == (*SIZE, 8)
    assert layers["attention/query"] == (96, 2, 4)
    assert layers["logits/1"] == (*SIZE, 8)
    result = fv.synthesize(model, "conv:7", steps=1, transform="none", progress=False)
    assert result.images.shape == (1, *SIZE, 3)


def test_channels_first_under_vmap_scan_and_remat():
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(2, 3, 3, 3, 3)), jnp.float32)

    def one(params, x):
        def step(x, w):
            return fv.tap(jnp.tanh(conv(x[None], w)[0]), "step"), None

        x, _ = jax.lax.scan(step, x, params)
        return jax.checkpoint(lambda x: fv.tap(jax.nn.relu(x), "kept"))(x).mean((1, 2))

    model = fv.from_function(
        lambda params, x: jax.vmap(one, (None, 0))(params, x),
        weights,
        input=fv.Input(size=SIZE, layout="NCHW"),
    )
    assert model.layers() == {
        "step": (*SIZE, 3), "step.1": (*SIZE, 3), "kept": (*SIZE, 3), "logits": (3,),
    }  # fmt: skip
    expected = jnp.tanh(conv(nchw(image()), weights[0]))
    np.testing.assert_allclose(nchw(model(image())["step"]), expected, rtol=1e-4, atol=1e-5)


def test_channels_that_the_program_does_not_tell_are_as_the_user_says():
    def apply(params, x):
        mixed = fv.tap(x.reshape(len(x), 2, 6, -1), "mixed")
        return {"mix": mixed * 2, "image": x * 2}

    takes = fv.Input(size=SIZE, layout="NCHW")
    plain = fv.from_function(apply, {}, input=takes)
    assert plain.layers() == {"mixed": (2, 6, 24), "mix": (2, 6, 24), "image": (*SIZE, 3)}
    axes = {"mix*": 1, "image": -1}
    told = fv.from_function(apply, {}, input=takes, channel_axes=axes)
    assert told.layers() == {"mixed": (6, 24, 2), "mix": (6, 24, 2), "image": (3, *SIZE)}
    own = fv.from_function(apply, {}, input=fv.Input(size=SIZE), channel_axes={"mixed": 1})
    assert own.layers()["mixed"] == (6, 24, 2)
    for axes, message in (
        ({"nothing": 1}, "'nothing', which is no layer; layers: mixed"),
        ({"mixed": 2}, "axis 1 or -1.*got 2 for 'mixed' of 4 axes"),
    ):
        with pytest.raises(fv.InputError, match=message):
            fv.from_function(apply, {}, input=takes, channel_axes=axes)
