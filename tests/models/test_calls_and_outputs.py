"""Networks that take more than an image, and give more than one array of activations."""

import contextlib
import dataclasses
import json
import pathlib
import typing
import warnings

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import featvis as fv
from featvis.cli import app

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE = (8, 12)
INPUT = fv.Input(size=SIZE)
KEY = jax.random.key(0)


def image(count=2):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, *SIZE, 3)).astype(np.float32)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


# ---- more than an image --------------------------------------------------------------------


class VAE(nn.Module):
    """As Flax's example: a key is the second argument."""

    @nn.compact
    def __call__(self, x, z_rng):
        h = nn.relu(nn.Dense(8, name="hidden")(x.reshape(len(x), -1)))
        mean, logvar = nn.Dense(4, name="mean")(h), nn.Dense(4, name="logvar")(h)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(z_rng, logvar.shape)
        return nn.Dense(3, name="decoder")(z), mean, logvar


@pytest.mark.thorough
def test_a_key_is_data():
    module = VAE()
    variables = module.init(KEY, image(), KEY)
    models = [
        fv.from_linen(module, variables, input=INPUT, call={"z_rng": jax.random.key(seed)})
        for seed in (1, 2)
    ]
    assert models[0].apply == models[1].apply
    assert models[0].digest != models[1].digest
    for seed, model in enumerate(models, 1):
        got = jax.jit(lambda model, x: model(x)["logits/0"])(model, image())
        expected = jax.jit(module.apply)(variables, image(), jax.random.key(seed))[0]
        assert_close(got, expected)


class Drawing(nn.Module):
    stream: str = "latent"
    used: bool = True

    @nn.compact
    def __call__(self, x):
        mean = nn.Dense(4, name="mean")(x.mean((1, 2)))
        noise = jax.random.normal(self.make_rng(self.stream), mean.shape)
        return mean + (noise if self.used else 0)


@pytest.mark.thorough
def test_linen_that_draws_has_a_fixed_seed():
    module = Drawing()
    variables = module.init({"params": KEY, "latent": KEY}, image())
    for rngs, key in ((None, 0), ({"latent": 3}, 3), ({"latent": jax.random.key(4)}, 4), (5, 5)):
        model = fv.from_linen(module, variables, input=INPUT, rngs=rngs)
        key = jax.random.key(key)
        rngs = {"params": key} if rngs == 5 else {"latent": key}
        assert_close(model(image())["logits"], module.apply(variables, image(), rngs=rngs))
    # Of its training alone, unless nothing depends on it, or it is asked for.
    drops, idle = Drawing("dropout"), Drawing("dropout", used=False)
    with pytest.raises(fv.InputError, match=r"needs random numbers.*rngs=\{'dropout': 0\}"):
        fv.from_linen(drops, variables, input=INPUT)
    model = fv.from_linen(drops, variables, input=INPUT, rngs={"dropout": 0})
    expected = drops.apply(variables, image(), rngs={"dropout": KEY})
    assert_close(model(image())["logits"], expected)
    model = fv.from_linen(idle, variables, input=INPUT)
    assert_close(model(image())["logits"], model(image())["mean"])


def test_a_draw_that_changes_nothing_is_none():
    class Idle(nn.Module):
        @nn.compact
        def __call__(self, x):
            mean = nn.Dense(4, name="mean")(x.mean((1, 2)))
            return mean + 0 * nn.Dropout(0.5, deterministic=False)(mean)

    class Late(Idle):
        @nn.compact
        def __call__(self, x):
            mean = nn.Dense(4, name="mean")(x.mean((1, 2)))
            return mean + 0 * jax.random.normal(self.make_rng("latent"), mean.shape)

    variables = Late().init({"params": KEY, "latent": KEY}, image())
    models = [fv.from_linen(Late(), variables, input=INPUT, rngs={"latent": n}) for n in (0, 1)]
    assert models[0].drawn == ()
    assert models[0].digest == models[1].digest
    assert fv.from_linen(Drawing(), variables, input=INPUT).drawn == ("logits",)
    # Its own output is another with every key.
    with pytest.raises(fv.InputError, match=r"dropout in inference mode \(Dropout_0 depends"):
        fv.from_linen(Idle(), variables, input=INPUT)


class Dropping(nnx.Module):
    """Drops whatever mode it is in."""

    def __init__(self, rngs):
        self.mean, self.drop = nnx.Linear(3, 4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        mean = self.mean(x.mean((1, 2)))
        return mean + self.drop(mean, deterministic=False)


@pytest.mark.parametrize("seeds", [{}, {"dropout": 1}])
def test_nnx_dropout_that_eval_does_not_stop(seeds):
    module = Dropping(nnx.Rngs(0, **seeds))
    with pytest.raises(fv.InputError, match=r"random numbers for dropout.*rngs=\{'dropout': 0\}"):
        fv.from_nnx(module, input=INPUT)
    asked = fv.from_nnx(module, input=INPUT, rngs={"dropout": 3})
    assert asked.drawn == ("drop", "logits")
    same = nnx.clone(module)
    nnx.reseed(same, dropout=3)
    assert_close(asked(image())["logits"], same(image()))


class NnxDrawing(nnx.Module):
    def __init__(self, rngs):
        self.mean = nnx.Linear(3, 4, rngs=rngs)
        self.rngs = rngs.fork()

    def __call__(self, x):
        mean = self.mean(x.mean((1, 2)))
        return mean + jax.random.normal(self.rngs.noise(), mean.shape)


def test_nnx_that_draws_has_its_own_state():
    module = NnxDrawing(nnx.Rngs(0))
    expected = nnx.clone(module)(image())
    model = fv.from_nnx(module, input=INPUT)
    for _ in range(2):
        assert_close(model(image())["logits"], expected)
    assert_close(module(image()), expected)  # whose count we did not touch
    seeded = fv.from_nnx(module, input=INPUT, rngs=7)
    other = nnx.clone(module)
    nnx.reseed(other, default=7)
    assert_close(seeded(image())["logits"], other(image()))
    assert len({model.digest, seeded.digest}) == 2


@pytest.mark.thorough
def test_what_never_uses_its_key_is_not_random():
    class Rows(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(nnx.LSTMCell(36, 5, rngs=rngs))

        def __call__(self, x):
            return self.rnn(x.reshape(*x.shape[:2], -1))[:, -1]

    first, second = Rows(nnx.Rngs(0)), Rows(nnx.Rngs(0))
    nnx.reseed(second, default=3, carry=3)
    models = [fv.from_nnx(module, input=INPUT) for module in (first, second)]
    assert models[0].drawn == ()
    assert_close(models[0](image())["logits"], first(image()))
    assert models[0].layers()["rnn"] == (8, 5)
    bridged = nnx.bridge.lazy_init(
        nnx.bridge.ToNNX(nn.Sequential([nn.Dense(4), nn.relu]), rngs=nnx.Rngs(0)), image()
    )
    model = fv.from_nnx(bridged, input=INPUT)
    assert "layers_0" in model.layers()
    assert_close(model(image())["output"], bridged(image()))


class CLIP(nn.Module):
    """Two towers: the text is the first argument."""

    @nn.compact
    def __call__(self, input_ids, pixel_values):
        text = nn.Embed(11, 6, name="text")(input_ids).mean(1)
        vision = nn.Conv(6, (4, 4), 4, name="vision")(pixel_values.transpose(0, 2, 3, 1))
        vision = vision.mean((1, 2))
        per_image = vision @ text.T
        return {
            "logits_per_image": per_image,
            "logits_per_text": per_image.T,
            "loss": per_image.mean(),
            "best": per_image.argmax(-1),
            "temperature": jnp.ones(1),
            "nothing": None,
            "vision": {"pooler_output": vision, "mask": vision > 0},
        }


@pytest.mark.thorough
def test_a_text_beside_the_image():
    module, ids = CLIP(), jnp.arange(10).reshape(5, 2)
    x = np.moveaxis(image(), -1, 1)
    variables = module.init(KEY, ids, x)
    model = fv.from_linen(
        module, variables, input=fv.Input(size=SIZE, layout="NCHW"), image="pixel_values",
        call={"input_ids": ids}, logits="logits_per_image", labels=list("abcde"),
    )  # fmt: skip
    layers = model.layers()
    assert layers["logits_per_image"] == layers["logits"] == (5,)
    assert layers["vision/pooler_output"] == (6,)
    assert set(model.left_out) == {
        "text", "logits_per_text", "loss", "best", "temperature", "vision/mask",
    }  # fmt: skip
    assert model.left_out["best"] == "of int32, no floating-point numbers"
    assert "one number" in model.left_out["loss"]
    assert "first axis of (5, 13)" in model.left_out["logits_per_text"]
    expected = module.apply(variables, ids, x)
    assert_close(model(image())["logits"], expected["logits_per_image"])
    by_place = fv.from_linen(
        module, variables, input=fv.Input(size=SIZE, layout="NCHW"), image=1, call={0: ids}
    )
    assert_close(by_place(image())["logits_per_image"], expected["logits_per_image"])
    result = fv.class_model(model, "c", steps=1, progress=False)
    again = fv.synthesize(model, "channel('logits_per_image', 2)", steps=1, progress=False)
    assert_close(result.images, again.images)
    assert float(fv.Logit(2)(model(image()), image())[0]) == pytest.approx(
        float(expected["logits_per_image"][0, 2]), rel=1e-4
    )


class Conditioned(nnx.Module):
    """A small UNet with a time, text that it attends to, and a second image joined to the first."""

    def __init__(self, rngs):
        self.down = nnx.Conv(6, 8, (3, 3), strides=2, rngs=rngs)
        self.time = nnx.Linear(1, 8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.up = nnx.ConvTranspose(8, 3, (2, 2), strides=2, rngs=rngs)

    def __call__(self, sample, timesteps, text, low):
        x = self.down(jnp.concatenate([sample, low], -1))
        x = x + self.time(jnp.atleast_1d(timesteps)[:, None].astype(jnp.float32))[:, None, None]
        tokens = x.reshape(len(x), -1, 8)
        tokens = tokens + self.attention(tokens, text, sow_weights=True)
        return {"sample": self.up(tokens.reshape(x.shape)), "timesteps": timesteps}

    def encode(self, sample):
        return self.down(jnp.concatenate([sample, sample], -1)).mean((1, 2))


@pytest.mark.thorough
def test_arrays_of_one_are_repeated_where_they_must_be():
    module = Conditioned(nnx.Rngs(0))
    text, low = (np.ones(shape, np.float32) for shape in ((1, 3, 8), (1, *SIZE, 3)))
    call = {"timesteps": jnp.array([10]), "text": text, "low": low}
    model = fv.from_nnx(module, input=INPUT, call=call)
    layers = model.layers()
    assert layers["sample"] == (*SIZE, 3)
    assert layers["attention/attention_weights"] == (2, 24, 3)
    several = {key: np.repeat(np.asarray(value), 2, 0) for key, value in call.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of sowing
        expected = module(image(), **several)["sample"]
    assert_close(model(image())["sample"], expected)
    encoder = fv.from_nnx(module, input=INPUT, method="encode", name="encoder")
    assert list(encoder.layers()) == ["down", "logits"]
    assert_close(encoder(image())["logits"], module.encode(image()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": 1.5}, "by its name or its place; got 1.5"),
        ({"image": "sample", "call": {"sample": 3}}, "'sample' is the image"),
        ({"image": 2, "call": {0: 1}}, r"by place are \[0, 2\]"),
        ({"call": [1]}, "call is of arguments by name"),
        ({"method": "decode"}, "has no method 'decode'"),
        ({"output": ""}, "output is a text"),
        ({"method": "encode", "logits": "up"}, "no layer 'up' of class scores.*vectors: logits"),
        ({"method": "encode", "logits": "down"}, r"one vector an image: it is \(4, 6, 8\)"),
    ],
)
def test_calls_that_cannot_be(options, message):
    with pytest.raises(fv.InputError, match=message):
        fv.from_nnx(Conditioned(nnx.Rngs(0)), input=INPUT, **options)


# ---- what a network gives ------------------------------------------------------------------


@dataclasses.dataclass
class Normal:
    mean: jax.Array
    deviation: jax.Array


@flax.struct.dataclass
class Boxes:
    boxes: jax.Array
    classes: jax.Array


class Outputs(typing.NamedTuple):
    scores: jax.Array
    mask: jax.Array


KINDS = {
    "dict": lambda parts: dict(parts),
    "tuple": lambda parts: tuple(value for _, value in parts),
    "list": lambda parts: [value for _, value in parts],
    "nested": lambda parts: {"out": [{"in": dict(parts)}]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_no_activation_is_left_out_everywhere(kind, inside):
    class Head(nn.Module):
        @nn.compact
        def __call__(self, x):
            scores = nn.Dense(4, name="scores")(x.mean((1, 2)))
            return KINDS[kind](
                (
                    ("scores", scores),
                    ("classes", scores.argmax(-1)),
                    ("mask", x > 0.5),
                    ("loss", scores.mean()),
                    ("temperature", jnp.ones(1)),
                    ("normal", Normal(scores, scores)),
                    ("boxes", Boxes(scores[:, None], scores.argmax(-1))),
                    ("pair", Outputs(scores, scores > 0)),
                    ("text", "what it is"),
                    ("none", None),
                    ("across", scores.T),
                )
            )

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            result = Head(name="head")(x)
            return nn.Dense(2, name="last")(x.mean((1, 2))) if inside else result

    module = Net()
    variables = module.init(KEY, image())
    model = fv.from_linen(module, variables, input=INPUT)
    names = ["scores", "classes", "mask", "loss", "temperature", "normal", "boxes", "pair"]
    names += ["text", "none", "across"]
    names = [str(i) for i in range(len(names))] if kind in ("tuple", "list") else names
    before = {"dict": "", "nested": "out/0/in/"}.get(kind, "" if inside else "logits/")
    before = f"head/{before}" if inside else before
    good = {f"{before}{names[0]}": (4,), f"{before}{names[6]}/boxes": (1, 4)}
    good |= {f"{before}{names[7]}/scores": (4,)}
    layers = model.layers()
    assert good.items() <= layers.items()
    left = {f"{before}{name}" for name in (*names[1:6], names[8], names[10])}
    left |= {f"{before}{names[6]}/classes", f"{before}{names[7]}/mask"}
    assert {name for name in model.left_out if name.startswith(before)} >= left
    assert not set(layers) & set(model.left_out)
    assert model.left_out[f"{before}{names[5]}"] == "a Normal, no array"


@pytest.mark.thorough
def test_where_the_class_scores_are():
    class Heads(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = (nnx.Linear(3, n, rngs=rngs) for n in (4, 5))

        def __call__(self, x):
            y = x.mean((1, 2))
            return {"logits": x * 2, "coarse": self.first(y), "fine": (self.second(y), y)}

    module = Heads(nnx.Rngs(0))
    plain = fv.from_nnx(module, input=INPUT, labels=list("abcde"))
    with pytest.raises(
        fv.InputError, match=r"'logits' is \(8, 12, 3\), no vector.*vectors: first, second, "
    ):
        fv.class_model(plain, 1, progress=False)
    # What is no vector has channels.
    assert fv.parse("logits:1", plain.layers) == fv.Channel("logits", 1)
    model = fv.from_nnx(module, input=INPUT, logits="fine/0", labels=list("abcde"))
    layers = model.layers()
    assert layers["logits"] == layers["fine/0"] == (5,)
    assert layers["logits.1"] == (*SIZE, 3)
    assert_close(model(image())["logits"], module.second(image().mean((1, 2))))
    result = fv.class_model(model, "d", steps=1, progress=False)
    assert set(result.evidence) >= {"logit", "rank"}
    assert "same_class" in fv.invert(model, "first", image(1), steps=1, progress=False).evidence
    with pytest.raises(fv.InputError, match="has 4 classes; got 5 labels"):
        fv.from_nnx(module, input=INPUT, logits="coarse", labels=list("abcde"))


def test_a_map_is_no_logits():
    model = fv.from_function(lambda p, x: jnp.tanh(x), {}, input=INPUT, name="maps")
    assert model.layers() == {"output": (*SIZE, 3)}
    result = fv.synthesize(model, "output:1", steps=1, transform="none", progress=False)
    assert result.images.shape == (1, *SIZE, 3)
    with pytest.raises(fv.InputError, match=r"maps has no classes.*vectors: none"):
        fv.class_model(model, 1, progress=False)


@pytest.mark.thorough
def test_sown_values_and_other_methods_are_layers():
    class Encoder(nn.Module):
        def setup(self):
            self.dense = nn.Dense(4)

        def features(self, x):
            return nn.relu(self.dense(x))

        def __call__(self, x):
            return self.features(x).mean((1, 2))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            encoder = Encoder(name="encoder")
            y = encoder.features(x).reshape(len(x), -1, 4)
            y = nn.MultiHeadDotProductAttention(2, name="attention")(y, y, sow_weights=True)
            self.sow("anything", "mixed", y)
            return encoder(x) + y.mean(1)

    module = Net()
    variables = {"params": module.init(KEY, image())["params"]}
    model = fv.from_linen(module, variables, input=INPUT)
    assert list(model.layers())[-8:] == [
        "attention/attention_weights", "attention/out", "attention", "mixed",
        "encoder/dense.1", "encoder/features.1", "encoder", "logits",
    ]  # fmt: skip
    expected, sown = module.apply(variables, image(), mutable=["intermediates", "anything"])
    acts = model(image())
    assert_close(acts["logits"], expected)
    assert_close(acts["mixed"], sown["anything"]["mixed"][0])
    weights = sown["intermediates"]["attention"]["attention_weights"][0]
    assert_close(acts["attention/attention_weights"], weights)


@pytest.mark.thorough
def test_layers_are_printed_as_they_can_be_typed(capsys, monkeypatch, tmp_path):
    (tmp_path / "oddnets.py").write_text(
        "import jax.numpy as jnp, featvis as fv\n"
        "def apply(params, x):\n"
        "    y = fv.tap(x * 2, '0_down_0')\n"
        "    return {'+sa': y.mean((1, 2)), 'a~b': y, 'mask': y > 0}\n"
        "def factory():\n"
        "    return fv.from_function(apply, {}, input=fv.Input(size=(8, 12)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with contextlib.suppress(SystemExit):
        app.main(["layers", "--model", "oddnets:factory", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = fv.load("oddnets:factory")
    for row in rows[:3]:
        first, last = row["units"].split(" to ")
        assert fv.parse(first) == fv.Channel(row["layer"], 0)
        assert fv.parse(last) == fv.Channel(row["layer"], model.layers()[row["layer"]][-1] - 1)
        for neuron in filter(None, row.get("neurons", "").split(" to ")):
            assert fv.parse(neuron).layer == row["layer"]
    assert rows[3] == {"left_out": "mask", "reason": "of bool, no floating-point numbers"}
    result = fv.synthesize(model, "'+sa':2", steps=1, progress=False)
    assert result.images.shape == (1, *SIZE, 3)


# ---- programs as people write them ---------------------------------------------------------


@pytest.mark.thorough
def test_numbers_that_are_computed_with_jax():
    class Swin(nn.Module):
        @nn.compact
        def __call__(self, x):
            rates = jnp.linspace(0, 0.5, 3)
            x = nn.Dense(4, name="embed")(x)
            side = int(jnp.sqrt(jnp.float32(x.shape[1] * 2)))
            x = x.reshape(len(x), side, -1, 4) * rates[1].item()
            if rates[2] > 0.4:
                x = nn.Dense(int(jnp.prod(jnp.array([2, 3]))), name="wide")(x)
            return x.mean((1, 2))

    module = Swin()
    variables = module.init(KEY, image())
    model = fv.from_linen(module, variables, input=INPUT)
    assert model.layers()["wide"] == (4, 24, 6)
    assert_close(model(image())["logits"], module.apply(variables, image()))


@pytest.mark.thorough
def test_blocks_stacked_for_a_scan():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return x + nn.Dense(3, name="dense")(nn.relu(x)), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            return scan(name="blocks")(x, None)[0].mean((1, 2))

    module = Net()
    variables = module.init(KEY, image())
    model = fv.from_linen(module, variables, input=INPUT)
    assert [name for name in model.layers() if "dense" in name] == [
        "blocks/dense", "blocks/dense.1", "blocks/dense.2",
    ]  # fmt: skip
    assert_close(model(image())["logits"], module.apply(variables, image()))

    class Stacked(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=3)
            @nnx.vmap(in_axes=0, out_axes=0)
            def make(rngs):
                return nnx.Linear(3, 3, rngs=rngs)

            self.layers = make(rngs)

        def __call__(self, x):
            @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            def run(layer, x):
                return jnp.tanh(layer(x))

            return run(self.layers, x).mean((1, 2))

    stacked = Stacked(nnx.Rngs(0))
    model = fv.from_nnx(stacked, input=INPUT)
    assert list(model.layers()) == ["layers", "layers.1", "layers.2", "logits"]
    assert_close(model(image())["logits"], stacked(image()))


def test_an_error_of_the_network_is_shown_with_its_line():
    class Wrong(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4)(x)
            return x @ jnp.ones((5, 2))  # here

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Wrong()(x)

    variables = {"params": {"Wrong_0": {"Dense_0": nn.Dense(4).init(KEY, image())["params"]}}}
    with pytest.raises(fv.InputError) as caught:
        fv.from_linen(Outer(), variables, input=INPUT)
    said = str(caught.value)
    line = int(said.split(f"({__file__}:")[1].split(" ")[0])
    assert "# here" in pathlib.Path(__file__).read_text().splitlines()[line - 1]
    assert "in __call__, `return x @ jnp.ones((5, 2))" in said


def test_what_is_empty_is_no_layer():
    def apply(params, x):
        return {"none": x[:, :0], "all": x}

    model = fv.from_function(apply, None, input=INPUT)
    assert list(model.layers()) == ["all"]
    assert model.left_out["none"].startswith("empty")
