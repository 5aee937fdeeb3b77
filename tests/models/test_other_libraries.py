"""Networks of Equinox, Haiku and Keras, unedited, against what their own library gives."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile", "usual_promotions")

SIZE = (16, 24)


def image(count=2):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, *SIZE, 3)).astype(np.float32)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


# ---- Equinox -------------------------------------------------------------------------------

FIRST = fv.Input(size=SIZE, layout="NCHW")


@pytest.fixture(scope="module")
def convnext():
    """The structure of a ConvNeXt: patches, depthwise blocks, a norm over channels, a head."""
    eqx = pytest.importorskip("equinox")
    nn = eqx.nn

    class Block(eqx.Module):
        depthwise: nn.Conv2d
        norm: nn.LayerNorm
        wide: nn.Linear
        narrow: nn.Linear
        scale: jax.Array
        dropout: nn.Dropout

        def __init__(self, width, key):
            keys = jax.random.split(key, 3)
            self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width, key=keys[0])
            self.norm = nn.LayerNorm(width)
            self.wide = nn.Linear(width, 4 * width, key=keys[1])
            self.narrow = nn.Linear(4 * width, width, key=keys[2])
            self.scale = jnp.full(width, 0.5)
            self.dropout = nn.Dropout(0.5)

        def __call__(self, x, *, key=None):
            y = jnp.moveaxis(self.depthwise(x), 0, -1)
            y = jax.vmap(jax.vmap(lambda y: self.mixed(self.norm(y))))(y)
            return x + self.dropout(jnp.moveaxis(self.scale * y, -1, 0), key=key)

        def mixed(self, y):
            return self.narrow(jax.nn.gelu(self.wide(y)))

    class ConvNeXt(eqx.Module):
        stem: nn.Conv2d
        blocks: list
        norm: nn.BatchNorm
        head: dict
        features: int = 8

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.stem = nn.Conv2d(3, 8, 4, stride=4, key=keys[0])
            self.blocks = [Block(8, keys[1]), Block(8, keys[2])]
            self.norm = nn.BatchNorm(8, "batch", mode="batch")
            self.head = {"scores": nn.Linear(8, 5, key=keys[3]), "id": nn.Identity()}

        def __call__(self, x, state, key=None):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x, key=key)
            x, state = self.norm(x, state)
            x = self.head["id"](x.mean((1, 2)))
            return self.head["scores"](x), state

    return eqx.nn.make_with_state(ConvNeXt)(jax.random.key(0))


@pytest.mark.thorough
def test_equinox(convnext):
    import equinox as eqx

    module, state = convnext
    model = fv.from_equinox(
        module, input=FIRST, call={"state": state}, labels=list("abcde"), logits="head/scores"
    )
    layers = model.layers()
    assert layers["stem"] == layers["blocks_1"] == layers["blocks_0/depthwise"] == (4, 6, 8)
    assert layers["head/scores"] == layers["logits"] == (5,)
    acts = model(image())
    plain = eqx.nn.inference_mode(module)
    x = np.moveaxis(image(), -1, 1)
    expected, _ = jax.vmap(plain, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
        x, state
    )
    assert_close(acts["logits"], expected)
    stem = jax.vmap(plain.stem)(x)
    block = jax.vmap(plain.blocks[0])(stem)
    assert_close(acts["blocks_0"], np.moveaxis(block, 1, -1))
    result = fv.class_model(model, "b", steps=1, progress=False)
    assert result.evidence["rank"].shape == (1,)
    assert not module.blocks[0].dropout.inference


@pytest.mark.thorough
def test_equinox_in_nobodys_way():
    eqx = pytest.importorskip("equinox")
    network = eqx.nn.MLP(3, 4, 8, 2, key=jax.random.key(0))
    before = eqx.nn.Linear.__call__
    model = fv.from_equinox(
        eqx.nn.Sequential([eqx.nn.Lambda(lambda x: x.mean((1, 2))), network]), input=FIRST
    )
    assert eqx.nn.Linear.__call__ is before
    layers = model.layers()
    assert layers["layers_1/layers_0"] == (8,)
    assert layers["layers_1/layers_2"] == layers["logits"] == (4,)
    x = image().mean((1, 2))
    assert_close(model(image())["logits"], jax.vmap(network)(x))
    assert_close(model(image())["layers_1/layers_0"], jax.vmap(network.layers[0])(x))
    for module, message in (
        ("text", "a module of Equinox; got str"),
        (network, "cannot be called"),
    ):
        with pytest.raises(fv.InputError, match=message):
            fv.from_equinox(module, input=FIRST)


# ---- Haiku ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    hk = pytest.importorskip("haiku")

    def forward(x, is_training):
        net = hk.nets.ResNet(
            (1, 1, 1, 1), 5, bottleneck=False, channels_per_group=(8, 8, 8, 16),
            use_projection=(True, True, True, True), strides=(1, 2, 2, 2),
        )  # fmt: skip
        return net(x, is_training)

    transformed = hk.transform_with_state(forward)
    params, state = transformed.init(jax.random.key(0), image(), True)
    return transformed, params, state


@pytest.mark.thorough
def test_haiku(resnet):
    transformed, params, state = resnet
    model = fv.from_haiku(
        transformed, params, state, input=fv.Input(size=SIZE), call={"is_training": False}
    )
    assert model.name == "res_net"
    layers = model.layers()
    assert layers["res_net/~/initial_conv"] == (8, 12, 64)
    assert layers["res_net/~/block_group_3/~/block_0"] == (1, 1, 16)
    assert layers["logits"] == (5,)
    expected, _ = transformed.apply(params, state, None, image(), False)
    assert_close(model(image())["logits"], expected)
    unit = "'res_net/~/block_group_0/~/block_0':3"
    result = fv.synthesize(model, unit, steps=1, transform="none", progress=False)
    assert result.images.shape == (1, *SIZE, 3)
    with pytest.raises(fv.InputError, match="needs the state"):
        fv.from_haiku(transformed, params, input=fv.Input(size=SIZE))


@pytest.mark.thorough
def test_haiku_that_draws_and_haiku_without_keys():
    hk = pytest.importorskip("haiku")

    class Autoencoder(hk.Module):
        def encode(self, x):
            return hk.Linear(4, name="encoder")(x.mean((1, 2)))

        def __call__(self, x):
            return hk.Linear(3)(self.encode(x))

    def forward(x):
        z = Autoencoder(name="coder")(x)
        return z + (jax.random.normal(hk.next_rng_key(), z.shape) if draws else 0)

    for draws in (True, False):
        transformed = hk.transform(forward)
        params = transformed.init(jax.random.key(0), image())
        key = jax.random.key(7)
        expected = transformed.apply(params, key, image())
        if not draws:
            transformed, key = hk.without_apply_rng(transformed), 0
        model = fv.from_haiku(transformed, params, input=fv.Input(size=SIZE), rngs=key)
        assert list(model.layers()) == [
            "coder/~encode/encoder", "coder/encode", "coder/linear", "coder", "logits",
        ]  # fmt: skip
        assert_close(model(image())["logits"], expected)


# ---- Keras ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras():
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "jax"
    try:
        module = pytest.importorskip("keras")
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
    if module.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend here")
    return module


@pytest.mark.thorough
def test_keras(keras):
    network = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=4
    )
    model = fv.from_keras(network)
    assert model.input.size == (32, 32)
    layers = model.layers()
    names = [layer.name for layer in network.layers[1:]]
    assert [name for name in layers if name in names] == names
    assert layers["block_6_expand_relu"][:2] == (4, 4)
    x = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    both = keras.Model(network.inputs, [network.get_layer("block_2_add").output, network.output])
    variables = (
        [v.value for v in both.trainable_variables],
        [v.value for v in both.non_trainable_variables],
    )
    (inner, scores), _ = jax.jit(lambda v, x: both.stateless_call(*v, x, training=False))(
        variables, x
    )
    acts = model(x)
    assert_close(acts["logits"], scores)
    assert_close(acts["block_2_add"], inner)


@pytest.mark.thorough
def test_keras_of_several_inputs_and_models_in_models(keras):
    layers = keras.layers
    backbone = keras.Sequential(
        [layers.Conv2D(4, 3, padding="same", name="conv"), layers.BatchNormalization(name="norm")],
        name="backbone",
    )
    photo = keras.Input((*SIZE, 3), name="photo")
    meta = keras.Input((5,), name="meta")
    features = layers.GlobalAveragePooling2D(name="pool")(backbone(photo))
    joined = layers.Concatenate(name="join")([features, layers.Dense(2, name="dense")(meta)])
    outputs = {"scores": layers.Dense(3, name="head")(joined), "map": backbone(photo) * 2}
    network = keras.Model([photo, meta], outputs, name="several")
    given = np.ones((1, 5), np.float32)
    model = fv.from_keras(
        network, input=fv.Input(size=SIZE), image="photo", call={"meta": given}, logits="scores"
    )
    shapes = model.layers()
    assert shapes["backbone/conv"] == shapes["backbone"] == shapes["map"] == (*SIZE, 4)
    assert shapes["scores"] == shapes["logits"] == (3,)
    expected = network({"photo": image(), "meta": np.ones((2, 5), np.float32)}, training=False)
    assert_close(model(image())["logits"], expected["scores"])
    assert_close(model(image())["map"], expected["map"])
    with pytest.raises(fv.InputError, match="image='photo' or 'meta'"):
        fv.from_keras(network, input=fv.Input(size=SIZE))
