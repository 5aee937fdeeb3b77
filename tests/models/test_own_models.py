"""One's own networks, unmodified, as models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import featvis as fv
from featvis import loading

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE = (12, 16)


def image(channels=3, count=2):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, *SIZE, channels)).astype(np.float32)


class Block(nnx.Module):
    def __init__(self, width, rngs):
        self.conv1 = nnx.Conv(width, width, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return x + self.dropout(nnx.relu(self.norm(self.conv1(x))))


class Net(nnx.Module):
    def __init__(self, rngs, channels=3):
        self.stem = nnx.Conv(channels, 8, (3, 3), strides=2, rngs=rngs)
        self.blocks = nnx.List([Block(8, rngs), Block(8, rngs)])
        self.head = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(8, (3, 3), name="conv")(x))
        return nn.relu(nn.Dropout(0.5, deterministic=not train)(x))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        for i in range(2):
            x = LinenBlock(name=f"blocks_{i}")(x, train)
        return nn.Dense(5, name="head")(x.mean((1, 2)))


INPUT = fv.Input(size=SIZE)


@pytest.fixture(scope="module")
def net():
    return fv.from_nnx(Net(nnx.Rngs(0)), input=INPUT, labels=list("abcde"))


@pytest.fixture(scope="module")
def linen():
    module = LinenNet()
    variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, image())
    return module, variables


@pytest.mark.thorough
def test_nnx_submodules_are_layers_by_their_path(net):
    assert net.layers() == {
        "stem": (6, 8, 8),
        **{
            f"blocks_{i}{part}": (6, 8, 8)
            for i in range(2)
            for part in ("/conv1", "/norm/input", "/norm", "/dropout", "")
        },
        "head": (5,),
        "logits": (5,),
    }
    assert list(net(image())) == list(net.layers())


def test_nnx_runs_in_inference_mode_and_the_module_is_not_touched():
    module = Net(nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    model = fv.from_nnx(module, input=INPUT)
    ours = model(image())
    assert type(module.blocks[0]) is Block
    assert module.blocks[0].dropout.deterministic is False
    module.eval()
    np.testing.assert_allclose(ours["logits"], module(image()), rtol=1e-5, atol=1e-6)
    expected = module.blocks[0](module.stem(image()))
    np.testing.assert_allclose(ours["blocks_0"], expected, rtol=1e-5, atol=1e-6)
    after = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_two_of_one_architecture_share_compiled_programs_and_have_their_own_digests(net):
    other = fv.from_nnx(Net(nnx.Rngs(1)), input=INPUT)
    assert (other.apply, hash(other.apply)) == (net.apply, hash(net.apply))
    assert other.digest != net.digest
    assert fv.from_nnx(Net(nnx.Rngs(0)), input=INPUT).digest == net.digest


def test_nnx_modules_shared_called_twice_and_with_several_outputs():
    class Parts(nnx.Module):
        def __call__(self, x):
            return {"low": x - 1, "high": (x + 1, x + 2)}

    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.act = nnx.Conv(3, 3, (1, 1), rngs=rngs)
            self.parts = Parts()

        def __call__(self, x):
            x = self.act(self.act(x))
            return self.parts(x)["low"], x.mean((1, 2))

    layers = fv.from_nnx(Twice(nnx.Rngs(0)), input=INPUT).layers()
    assert list(layers) == [
        "act", "act.1", "parts/high/0", "parts/high/1", "parts/low", "logits/0", "logits/1",
    ]  # fmt: skip


@pytest.mark.thorough
def test_linen_submodules_are_layers_by_their_path(linen):
    model = fv.from_linen(*linen, input=INPUT, call={"train": False})
    assert list(model.layers()) == [
        *(
            f"blocks_{i}{part}"
            for i in range(2)
            for part in ("/conv", "/BatchNorm_0/input", "/BatchNorm_0", "/Dropout_0", "")
        ),
        "head",
        "logits",
    ]
    module, variables = linen
    found = model(image())
    np.testing.assert_allclose(
        found["logits"], module.apply(variables, image(), train=False), rtol=1e-5, atol=1e-6
    )
    _, state = module.apply(
        variables, image(), train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    expected = state["intermediates"]["blocks_1"]["BatchNorm_0"]["__call__"][0]
    np.testing.assert_allclose(found["blocks_1/BatchNorm_0"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_a_unit_of_ones_own_network_is_synthesized(net, tmp_path):
    result = fv.synthesize(net, "blocks_1:3 - 0.01*tv", steps=8, progress=False)
    assert result.images.shape == (1, *SIZE, 3)
    assert result.scores[-1] > result.scores[0]
    path = result.save(tmp_path / "unit.png")
    with pytest.raises(fv.UnknownModel, match="model=") as caught:
        fv.replay(path, progress=False)
    assert "Net" in str(caught.value)
    again = fv.replay(path, model=net, progress=False)
    np.testing.assert_array_equal(again.images, result.images)
    with pytest.raises(fv.InputError, match=r"made with Net of the digest .*: other weights, or"):
        fv.replay(path, model=fv.from_nnx(Net(nnx.Rngs(1)), input=INPUT), progress=False)


# ---- weights that were trained elsewhere ---------------------------------------------------

RULES = [
    fv.Rule(r"blocks/(\d)/conv1/kernel", r"blocks.\1.conv.weight", fv.from_oihw),
    fv.Rule(r"blocks/(\d)/conv1/bias", r"blocks.\1.conv.bias"),
    fv.Rule(r"blocks/(\d)/norm/scale", r"blocks.\1.bn.weight"),
    fv.Rule(r"blocks/(\d)/norm/bias", r"blocks.\1.bn.bias"),
    fv.Rule(r"blocks/(\d)/norm/(mean|var)", r"blocks.\1.bn.running_\2"),
    fv.Rule(r"stem/kernel", r"stem.weight", fv.from_oihw),
    fv.Rule(r"head/kernel", r"head.weight", np.transpose),
    fv.Rule(r"(stem|head)/bias", r"\1.bias"),
]


@pytest.fixture
def trained(tmp_path):
    """A module's weights as PyTorch would name and lay them out, in a file."""
    module = Net(nnx.Rngs(5))
    tensors = {}
    for i in range(2):
        block = module.blocks[i]
        block.norm.mean[...] += 0.25
        tensors |= {
            f"blocks.{i}.conv.weight": block.conv1.kernel[...].transpose(3, 2, 0, 1),
            f"blocks.{i}.conv.bias": block.conv1.bias[...],
            f"blocks.{i}.bn.weight": block.norm.scale[...],
            f"blocks.{i}.bn.bias": block.norm.bias[...],
            f"blocks.{i}.bn.running_mean": block.norm.mean[...],
            f"blocks.{i}.bn.running_var": block.norm.var[...],
            f"blocks.{i}.bn.num_batches_tracked": np.int64(7),
        }
    tensors |= {
        "stem.weight": module.stem.kernel[...].transpose(3, 2, 0, 1),
        "stem.bias": module.stem.bias[...],
        "head.weight": module.head.kernel[...].T,
        "head.bias": module.head.bias[...],
    }
    path = tmp_path / "net.npz"
    np.savez(path, **{name: np.asarray(tensor) for name, tensor in tensors.items()})
    return module, path


WEIGHTS_ONLY = (nnx.Param, nnx.BatchStat)


def test_a_state_dict_becomes_the_state_of_a_module(trained):
    original, path = trained
    module = Net(nnx.Rngs(0))
    state = nnx.state(module, WEIGHTS_ONLY)
    nnx.update(module, fv.convert(path, state, RULES, ignore=r".*\.num_batches_tracked"))
    ours = fv.from_nnx(module, input=INPUT)(image())
    expected = fv.from_nnx(original, input=INPUT)(image())
    jax.tree.map(np.testing.assert_array_equal, dict(ours), dict(expected))


@pytest.mark.parametrize(
    ("rules", "ignore", "message"),
    [
        (RULES, "", r"2 differences .*\n  \+ blocks.0.bn.num_batches_tracked \(\)\n"),
        (RULES[1:], ".*tracked", r"4 diff.*\n  - no rule says where blocks/0/conv1/kernel \(3, 3"),
        (
            [fv.Rule(r"head/(kernel", "head.weight"), *RULES],
            ".*tracked",
            "the rule 'head/.kernel' to 'head.weight' is no regular expression",
        ),
        (
            [fv.Rule(r"head/kernel", "head.weight", lambda w: w.no_such_name), *RULES],
            ".*tracked",
            r"the rule for head/kernel fails on head.weight \(5, 8\): AttributeError",
        ),
        (
            [fv.Rule(r"stem/bias", "stem.offset"), *RULES],
            ".*tracked",
            r"- stem.offset for stem/bias \(8,\)\n  \+ stem.bias \(8,\)",
        ),
        (
            [fv.Rule(r"head/kernel", "head.weight"), *RULES],
            ".*tracked",
            r"- head.weight for head/kernel \(8, 5\)\n  \+ head.weight \(5, 8\)",
        ),
    ],
)
def test_what_does_not_fit_is_listed(rules, ignore, message, trained):
    state = nnx.state(Net(nnx.Rngs(0)), WEIGHTS_ONLY)
    with pytest.raises(fv.CheckpointError, match=message) as caught:
        fv.convert(trained[1], state, rules, ignore=ignore)
    assert "net.npz" in str(caught.value) or "the rule" in message


# ---- what two networks share, and what they must not ---------------------------------------


def scaled(params, x):
    return x @ params


def test_a_second_network_of_one_architecture_traces_nothing():
    traces = []

    class Counted(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            traces.append(len(x))
            return self.linear(x)

    first, second = (fv.from_nnx(Counted(nnx.Rngs(i)), input=INPUT) for i in range(2))
    a = first(image())["output"]
    before = len(traces)
    b = second(image())["output"]
    assert len(traces) == before
    assert not np.allclose(a, b)


def test_equal_values_of_other_types_are_other_networks():
    class Kind(nnx.Module):
        def __init__(self, kind):
            self.kind = kind

        def __call__(self, x, factor=1):
            return x * (2 if self.kind is True else 3) * (5 if factor is True else 7)

    def total(kind, factor):
        model = fv.from_nnx(Kind(kind), input=INPUT, call={"factor": factor})
        return float(model(image())["output"].sum())

    unit = float(image().sum())
    for kind in (1, True, 1.0):
        for factor in (1, True):
            expected = unit * (2 if kind is True else 3) * (5 if factor is True else 7)
            assert total(kind, factor) == pytest.approx(expected, rel=1e-5)

    class LinenKind(nn.Module):
        kind: float | bool

        def __call__(self, x):
            return x * (2 if self.kind is True else 3)

    for kind in (1, True, 1.0):
        model = fv.from_linen(LinenKind(kind), {"params": {}}, input=INPUT)
        expected = unit * (2 if kind is True else 3)
        assert float(model(image())["output"].sum()) == pytest.approx(expected, rel=1e-5)


def test_the_digest_covers_what_is_declared_and_not_the_state_of_random_numbers():
    kernel = jnp.ones((3, 2))
    digests = {
        fv.from_function(scaled, kernel, input=takes, name=name).digest
        for name, takes in [
            ("a", INPUT),
            ("b", fv.Input(size=SIZE, mean=0.5)),
            ("c", fv.Input(size=SIZE, preprocess=jnp.sin)),
            ("d", fv.Input(size=SIZE, value_range=(0, 255))),
        ]
    }
    assert len(digests) == 4
    assert fv.from_function(scaled, kernel, input=INPUT, name="e").digest in digests
    module = Net(nnx.Rngs(0))
    before = fv.from_nnx(module, input=INPUT).digest
    module.blocks[0].dropout(jnp.ones((1, 2)))
    assert fv.from_nnx(module, input=INPUT).digest == before


def test_layers_are_the_same_for_any_number_of_images():
    class Positions(nnx.Module):
        def __call__(self, x):
            return jnp.ones((1, 7, 3)) * x.mean()

    class Holder(nnx.Module):
        def __init__(self):
            self.positions = Positions()

        def __call__(self, x):
            return x + self.positions(x).mean()

    model = fv.from_nnx(Holder(), input=INPUT)
    for count in (1, 7):
        assert list(model(image(count=count))) == ["output"]
    with pytest.raises(fv.UnknownLayer):
        fv.synthesize(model, "positions:0", steps=1, progress=False)


def test_a_module_may_ask_for_the_class_of_another_and_inherit_its_call():
    class Base(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            return self.linear(x)

    class Derived(Base):
        def __call__(self, x):
            return super().__call__(x) * 2

    class Heir(Base):
        pass

    class Asking(nnx.Module):
        def __init__(self, rngs):
            self.parts = nnx.List([Base(rngs), Derived(rngs), Heir(rngs)])

        def __call__(self, x):
            assert [type(part) for part in self.parts] == [Base, Derived, Heir]
            assert type(self.parts[0].linear) is nnx.Linear
            return sum(part(x) for part in self.parts)

    module = Asking(nnx.Rngs(0))
    before = {cls: vars(cls).get("__call__") for cls in (Base, Derived, Heir, nnx.Linear)}
    model = fv.from_nnx(module, input=INPUT)
    assert {cls: vars(cls).get("__call__") for cls in before} == before
    expected = ["parts_0", "parts_1", "parts_2"]
    assert [name for name in model.layers() if "/" not in name] == [*expected, "output"]
    np.testing.assert_allclose(model(image())["output"], module(image()), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model(image())["parts_1"], module.parts[1](image()), rtol=1e-5, atol=1e-6
    )


def test_a_module_whose_call_is_under_jit():
    class Jitted(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        @nnx.jit
        def __call__(self, x):
            return self.dropout(self.norm(x)).mean((1, 2))

    module = Jitted(nnx.Rngs(0))
    model = fv.from_nnx(module, input=INPUT)
    assert model.layers()["norm"] == (12, 16, 3)
    module.eval()
    np.testing.assert_allclose(model(image())["logits"], module(image()), rtol=1e-4, atol=1e-5)


def test_one_number_an_image_is_one_unit():
    model = fv.from_function(lambda params, x: x.mean((1, 2, 3)), {}, input=INPUT)
    assert model.layers() == {"logits": (1,)}


def test_another_size_that_the_network_cannot_take_is_one_clear_error():
    class Flat(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(12 * 16 * 3, 4, rngs=rngs)

        def __call__(self, x):
            return self.linear(x.reshape(len(x), -1))

    model = fv.from_nnx(Flat(nnx.Rngs(0)), input=INPUT)
    message = r"cannot be called on images \(n, 20, 16, 3\).*declare so with fixed_size=True"
    for run in (
        lambda: model.layers((20, 16)),
        lambda: model(np.zeros((1, 20, 16, 3), np.float32)),
        lambda: fv.synthesize(model, "logits:0", fv.Pixels((20, 16)), progress=False),
    ):
        with pytest.raises(fv.InputError, match=message):
            run()


class Convolutions(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 32, (3, 3), strides=2, rngs=rngs)
        self.depthwise = nnx.Conv(32, 32, (5, 5), feature_group_count=32, rngs=rngs)
        self.mixed = nnx.Conv(32, 16, (1, 1), rngs=rngs)
        self.dilated = nnx.Conv(16, 4, (3, 3), kernel_dilation=2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.mixed(self.depthwise(nnx.relu(self.stem(x)))))
        return self.dilated(x)


@pytest.mark.thorough
def test_convolutions_of_ones_own_network_run_on_our_kernels():
    module = Convolutions(nnx.Rngs(0))
    model = fv.from_nnx(module, input=fv.Input(size=(33, 33)))
    x = jax.random.uniform(jax.random.key(0), (2, 33, 33, 3))

    def ours(x):
        return model.apply(model.params, x)["dilated"]

    np.testing.assert_allclose(ours(x), module(x), atol=1e-5)
    for_ours, for_its_own = (jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2))(x) for f in (ours, module))
    np.testing.assert_allclose(for_ours, for_its_own, atol=1e-5)
    # What our kernels are not for is left as it is.
    assert str(jax.make_jaxpr(ours)(x)).count("= conv_general_dilated[") == 1


@pytest.mark.parametrize("transformation", [nnx.jit, nnx.remat])
def test_state_goes_through_transformations_unchanged(transformation):
    class Wrapped(nnx.Module):
        def __init__(self, rngs):
            self.block = Block(3, rngs)

        def __call__(self, x):
            return transformation(lambda block, x: block(x))(self.block, x)

    module = Wrapped(nnx.Rngs(0))
    model = fv.from_nnx(module, input=INPUT)
    assert "block/conv1" in model.layers()
    module.eval()
    np.testing.assert_allclose(model(image())["output"], module(image()), rtol=1e-5, atol=1e-5)


def test_a_result_may_have_the_name_of_the_layer_it_is_and_of_no_other():
    class Head(nnx.Module):
        def __init__(self, rngs, after):
            self.logits = nnx.Linear(3, 4, rngs=rngs)
            self.after = after

        def __call__(self, x):
            return self.after(self.logits(x.mean((1, 2))))

    model = fv.from_nnx(Head(nnx.Rngs(0), lambda x: x), input=INPUT)
    assert list(model.layers()) == ["logits"]
    with pytest.raises(fv.InputError, match="called 'logits', which is the name of a layer inside"):
        fv.from_nnx(Head(nnx.Rngs(0), jax.nn.softmax), input=INPUT)
    model = fv.from_nnx(Head(nnx.Rngs(0), jax.nn.softmax), input=INPUT, output="posterior")
    np.testing.assert_allclose(model(image())["posterior"].sum(-1), 1, rtol=1e-5)


def test_a_scan_from_the_end_taps_in_its_order():
    def backwards(params, x):
        def step(x, factor):
            return fv.tap(x * factor, "step"), None

        return jax.lax.scan(step, x, jnp.array([2.0, 3.0]), reverse=True)[0]

    acts = fv.from_function(backwards, {}, input=INPUT)(image())
    np.testing.assert_allclose(acts["step"], 3 * image(), rtol=1e-5)
    np.testing.assert_allclose(acts["step.1"], 6 * image(), rtol=1e-5)


# ---- functions -----------------------------------------------------------------------------


WEIGHTS = {
    "w": jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32),
    "steps": jnp.asarray(np.random.default_rng(2).normal(size=(3, 4, 4)), jnp.float32),
}


def wrapped(params, x):
    """Taps inside jit, vmap, remat and scan."""

    @jax.jit
    def first(x):
        return fv.tap(jax.nn.relu(x @ params["w"]), "hidden")

    @jax.checkpoint
    def second(x):
        return fv.tap(x * 2, "twice")

    def step(x, w):
        return fv.tap(jnp.tanh(x @ w), "step"), None

    x, _ = jax.lax.scan(step, second(jax.vmap(first)(x)), params["steps"])
    return x.mean((1, 2))


def plain(params, x):
    out = {"hidden": jax.nn.relu(x @ params["w"])}
    x = out["twice"] = 2 * out["hidden"]
    for i in range(3):
        x = out["step" if i == 0 else f"step.{i}"] = jnp.tanh(x @ params["steps"][i])
    return {**out, "logits": x.mean((1, 2))}


@pytest.mark.thorough
def test_taps_come_out_of_transformations_with_values_and_gradients():
    ours = fv.from_function(wrapped, WEIGHTS, input=INPUT)
    expected = fv.from_function(plain, WEIGHTS, input=INPUT)
    assert ours.layers() == expected.layers()

    def measure(model):
        def score(x):
            acts = model(x)
            return sum(jnp.sum(a**2) for a in acts.values()), acts

        (_, acts), gradient = jax.jit(jax.value_and_grad(score, has_aux=True))(image())
        return dict(acts), gradient

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        measure(ours),
        measure(expected),
    )


def test_a_tap_changes_nothing_else():
    def score(x):
        return jnp.sum(fv.tap(jnp.sin(x), "sine") ** 2)

    x = image()
    np.testing.assert_allclose(
        jax.jit(jax.grad(score))(x), 2 * jnp.sin(x) * jnp.cos(x), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(jax.jvp(score, (x,), (x,))[0], score(x))
    assert float(score(x)) == pytest.approx(float(jnp.sum(jnp.sin(x) ** 2)), rel=1e-5)
    curvature = jax.jit(jax.hessian(lambda x: fv.tap(x**3, "cube")))
    assert float(curvature(2.0)) == pytest.approx(12)


def test_the_images_axis_is_found_under_vmap():
    # A product with the weights on the left puts the batched axis last.
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(5, 12 * 16 * 3)), jnp.float32)

    def one(params, x):
        return fv.tap(params @ x.reshape(-1), "units")

    model = fv.from_function(lambda p, x: jax.vmap(one, (None, 0))(p, x), weights, input=INPUT)
    assert model.layers()["units"] == (5,)
    x = image()
    np.testing.assert_allclose(model(x)["units"], x.reshape(2, -1) @ weights.T, rtol=1e-4)


def test_what_is_not_of_the_images_is_no_layer():
    def function(params, x):
        positions = jnp.arange(16.0)[None, :, None]
        return {"out": x + positions[..., 0][..., None] * 0, "index": x.argmax(-1)}

    model = fv.from_function(function, {}, input=INPUT)
    assert list(model.layers()) == ["out"]
    assert model.left_out == {"index": "of int32, no floating-point numbers"}

    class Positions(nnx.Module):
        def __call__(self, x):
            return jnp.ones((1, 7, 3)) * x.mean()

    class Holder(nnx.Module):
        def __init__(self):
            self.positions = Positions()

        def __call__(self, x):
            return x + self.positions(x).mean()

    model = fv.from_nnx(Holder(), input=INPUT)
    assert list(model.layers()) == ["output"]
    assert dict(model.left_out) == {
        "positions": "the first axis of (1, 7, 3) is not that of the images"
    }


@pytest.mark.thorough
def test_equinox():
    equinox = pytest.importorskip("equinox")

    class Module(equinox.Module):
        conv: equinox.nn.Conv2d
        head: equinox.nn.Linear

        def __init__(self, key):
            self.conv = equinox.nn.Conv2d(3, 6, 3, key=key)
            self.head = equinox.nn.Linear(6, 4, key=key)

        def __call__(self, x):
            x = fv.tap(jax.nn.relu(self.conv(x)), "conv")
            return self.head(x.mean((1, 2)))

    module = Module(jax.random.key(0))
    params, static = equinox.partition(module, equinox.is_array)
    model = fv.from_function(
        lambda params, x: jax.vmap(equinox.combine(params, static))(x),
        params,
        input=fv.Input(size=SIZE, layout="NCHW"),
    )
    assert model.layers() == {"conv": (10, 14, 6), "logits": (4,)}
    x = image()
    expected = jax.vmap(module)(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(model(x)["logits"], expected, rtol=1e-5, atol=1e-6)
    result = fv.synthesize(model, "conv:2", steps=2, transform="none", progress=False)
    assert result.images.shape == (1, *SIZE, 3)


# ---- what the network is told of its input -------------------------------------------------


def test_the_declared_input_is_what_the_network_gets():
    takes = fv.Input(
        size=SIZE,
        value_range=(0, 255),
        mean=[1, 2, 3],
        std=2,
        layout="NCHW",
        preprocess=lambda x: x[..., ::-1],
    )
    model = fv.from_function(lambda params, x: {"seen": x + 0}, {}, input=takes)
    expected = ((255 * image() - np.array([1, 2, 3])) / 2)[..., ::-1]
    np.testing.assert_allclose(model(image())["seen"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({"fixed_size": True}, (12, 17), r"12x16 pixels \(height x width\) only, got 12x17"),
        ({"min_size": 8}, (7, 16), "at least 8x8 pixels .* got 7x16"),
        ({"multiple_of": 4}, (10, 16), "multiples of 4 pixels, got 10x16; nearest: 8x16 or 12x16"),
    ],
)
def test_sizes_that_are_not_taken(fields, size, message):
    model = fv.from_function(lambda p, x: x, {}, input=fv.Input(size=SIZE, **fields), name="f")
    with pytest.raises(fv.InputError, match=message):
        model(np.zeros((1, *size, 3), np.float32))
    with pytest.raises(fv.InputError, match=message):
        fv.synthesize(model, "logits", fv.Pixels(size), progress=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 224}, r"size is \(height, width\)"),
        ({"channels": 0}, "channels is an integer of at least 1"),
        ({"mean": (1, 2)}, "mean is one number or 3, one a channel"),
        ({"std": (1, 2, 0)}, "std is above 0"),
        ({"value_range": (1, 1)}, "value_range"),
        ({"layout": "CHW"}, "one of 'NHWC', 'NCHW'"),
        ({"preprocess": 3}, "preprocess is a function"),
    ],
)
def test_inputs_that_make_no_sense(fields, message):
    with pytest.raises(fv.InputError, match=message):
        fv.Input(**fields)


@pytest.mark.thorough
@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels, tmp_path):
    model = fv.from_nnx(Net(nnx.Rngs(0), channels), input=fv.Input(size=SIZE, channels=channels))
    result = fv.synthesize(model, "stem:2", steps=3, progress=False)
    assert result.images.shape == (1, *SIZE, channels)
    assert result.picture().size == (SIZE[1] * channels, SIZE[0])
    assert result.picture(transparent=True).mode in ("LA", "RGBA")
    path = result.save(tmp_path / "unit.png")
    again = fv.replay(path, model=model, progress=False)
    np.testing.assert_array_equal(again.images, result.images)


@pytest.mark.thorough
def test_frozen_channels_stay_what_they_are_under_any_optimizer():
    model = fv.from_nnx(Net(nnx.Rngs(0), 4), input=fv.Input(size=SIZE, channels=4))
    start = image(4, count=1)
    result = fv.synthesize(
        model,
        "stem:2",
        "FrozenChannels(free=Pixels(channels=3), frozen=(3,))",
        steps=4,
        optimizer="chain(add_noise(0.1, 0.5, 0), adamw(0.1, weight_decay=0.1))",
        transform="none",
        init=start,
        progress=False,
    )
    np.testing.assert_array_equal(result.images[..., 3], start[..., 3])
    # Nor has the network's sensitivity to them any effect on the others.
    kernels = [np.ones((4, 2), np.float32), np.ones((4, 2), np.float32)]
    kernels[1][3] = 1000
    images = [
        fv.synthesize(
            fv.from_function(scaled, kernel, input=fv.Input(size=SIZE, channels=4)),
            "channel('output', 0)",
            "FrozenChannels(free=Pixels(channels=3), frozen=(3,))",
            steps=2,
            optimizer="chain(clip_by_global_norm(0.001), sgd(1000.0))",
            transform="none",
            progress=False,
        ).images
        for kernel in kernels
    ]
    np.testing.assert_allclose(*images, atol=1e-6)
    assert np.abs(result.images[..., :3] - start[..., :3]).max() > 0.01


# ---- what is refused -----------------------------------------------------------------------


class Training(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x, training=True):
        return self.norm(x, use_running_average=not training)


class Stateless(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x


def loop(params, x):
    return jax.lax.fori_loop(0, x.shape[1] + params["n"], lambda i, y: fv.tap(y + 1, "inside"), x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fv.from_nnx(Net), "takes a module of Flax NNX; got"),
        (lambda: fv.from_nnx(Stateless()), "a Linen module goes to from_linen"),
        (
            lambda: fv.from_nnx(Training(nnx.Rngs(0)), input=INPUT),
            "changes its batch statistics in inference mode .norm/mean.*use_running_average",
        ),
        (
            lambda: fv.from_nnx(Net(nnx.Rngs(0)), input=fv.Input(size=SIZE, channels=1)),
            r"cannot be called on images \(n, 12, 16, 1\) in inference mode",
        ),
        (
            lambda: fv.from_nnx(Net(nnx.Rngs(0)), input=INPUT, call={"train": False}),
            "unexpected keyword argument 'train'.*arguments with call=",
        ),
        (
            lambda: fv.from_nnx(Net(nnx.Rngs(0)), input=INPUT, call={"mask": np.ones(3)}),
            "unexpected keyword argument 'mask'",
        ),
        (lambda: fv.from_nnx(Net(nnx.Rngs(0)), input=(12, 16)), "input must be a featvis.Input"),
        (lambda: fv.from_linen(Net(nnx.Rngs(0)), {"params": {}}), "an NNX module goes to from_nnx"),
        (lambda: fv.from_nnx(Net(nnx.Rngs(0)), input=INPUT, labels="abcde"), "a list of texts"),
        (lambda: fv.from_nnx(Net(nnx.Rngs(0)), input=INPUT, labels=["a"]), "has 5 classes; got 1"),
        (lambda: fv.from_linen(LinenNet(), None), "takes the variables by collection"),
        (lambda: fv.from_function(3, {}), r"takes a function \(params, image\); got int"),
        (lambda: fv.from_function(plain, {"w": "text"}), "got str at .*'w'"),
        (lambda: fv.from_function(lambda p, x: x.mean(), {}, input=INPUT), "gives no activations"),
        (
            lambda: fv.from_function(lambda p, x: x @ p, jnp.ones((5, 2)), input=INPUT),
            r"cannot be called on images \(n, 12, 16, 3\)",
        ),
        (
            lambda: fv.from_function(loop, {"n": jnp.int32(3)}, input=INPUT),
            r"tap\('inside'\) is inside a while",
        ),
        (lambda: fv.tap(np.ones(3), ""), "a layer's name is a text"),
        (lambda: fv.tap("x", "name"), "an array is expected; got str"),
    ],
)
def test_refused(build, message):
    with pytest.raises(fv.InputError, match=message):
        build()


@pytest.mark.thorough
def test_linen_that_is_not_in_inference_mode_says_what_to_pass(linen):
    module, variables = linen
    with pytest.raises(fv.InputError, match=r"changes its variables.*call=\{'train': False\}"):
        fv.from_linen(module, variables, input=INPUT)
    with pytest.raises(fv.InputError, match=r"needs variables that were not given.*batch_stats"):
        fv.from_linen(module, {"params": variables["params"]}, input=INPUT, call={"train": False})

    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x, deterministic=False):
            return nn.Dropout(0.5, deterministic=deterministic)(nn.Dense(2)(x))

    noisy = Noisy()
    variables = noisy.init(jax.random.key(0), image(), deterministic=True)
    with pytest.raises(fv.InputError, match=r"needs random numbers.*call=\{'deterministic': True"):
        fv.from_linen(noisy, variables, input=INPUT)
    model = fv.from_linen(noisy, variables, input=INPUT, call={"deterministic": True})
    assert "Dense_0" in model.layers()


# ---- by the place of a factory -------------------------------------------------------------

FACTORIES = """
import numpy as np
import featvis as fv
from flax import nnx

class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        return self.conv(x).mean((1, 2))

def factory(weights=None):
    net = Net(nnx.Rngs(0 if weights is None else int(np.load(weights))))
    return fv.from_nnx(net, input=fv.Input(size=(12, 16)))

def module():
    return Net(nnx.Rngs(0))

def bare():
    return 3

def broken():
    raise RuntimeError("no such file")

def needs(more):
    return more

ready = factory()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(FACTORIES)
    (tmp_path / "badnets.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mynets", raising=False)
    return tmp_path


def test_a_factory_by_its_place(place):
    model = fv.load("mynets:factory")
    assert (model.name, model.origin) == ("mynets:factory", "mynets:factory")
    assert list(model.layers()) == ["conv", "logits"]
    np.save(place / "seed.npy", 7)
    other = fv.load("mynets:factory", weights=place / "seed.npy")
    assert other.digest != model.digest
    assert other.origin == "mynets:factory, weights seed.npy"
    assert fv.load("mynets:ready").digest == model.digest
    assert list(fv.load("mynets:module").layers()) == ["conv", "logits"]


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("mynets:", None, "is package.module:factory; got 'mynets:'"),
        ("my nets:f()", None, "is package.module:factory"),
        ("nonets:factory", None, "cannot import nonets .*ModuleNotFoundError"),
        ("badnets:factory", None, "cannot import badnets .*nothing_of_that_name"),
        ("mynets:facory", None, "mynets has no facory; nearest: factory"),
        ("mynets:bare", None, "must return a featvis.Model .* got int"),
        ("mynets:broken", None, "mynets:broken raised RuntimeError: no such file"),
        ("mynets:needs", None, "cannot be called with no arguments.*'more'"),
        ("mynets:module", "w.npz", "cannot be called with the argument weights"),
        ("mynets:ready", "w.npz", "it takes no weights"),
    ],
)
def test_factories_that_do_not_work(name, weights, message, place):
    with pytest.raises(fv.InputError, match=message):
        fv.load(name, weights)


@pytest.mark.thorough
def test_a_picture_never_makes_us_import(place, monkeypatch):
    result = fv.synthesize("mynets:factory", "conv:1", steps=2, progress=False)
    path = result.save(place / "unit.png")
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail("imported"))
    with pytest.raises(fv.InputError, match=r"pass model= \(--model mynets:factory\)"):
        fv.replay(path, progress=False)


@pytest.mark.thorough
def test_names_of_the_zoo_are_no_places():
    assert not loading.is_place("resnet18")
    with pytest.raises(fv.UnknownModel, match="unknown model 'resnet81'; nearest: resnet18"):
        loading.entry("resnet81")
