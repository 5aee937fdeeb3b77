"""Small networks of the structure of well-known ones, unedited, against themselves."""

import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE = (16, 16)


def image(count=2):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, *SIZE, 3)).astype(np.float32)


class ResNet(nn.Module):
    """As Flax's example: its own kinds of convolution and norm, in half precision."""

    dtype: Any = jnp.bfloat16

    @nn.compact
    def __call__(self, x, train=True):
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, dtype=self.dtype)
        x = nn.relu(norm(name="bn_init")(conv(8, (3, 3), name="conv_init")(x)))
        y = norm(scale_init=nn.initializers.zeros_init())(conv(8, (3, 3))(x))
        x = nn.relu(x + y).mean((1, 2))
        return jnp.asarray(nn.Dense(4, dtype=self.dtype)(x), self.dtype)


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        n = len(x)
        x = nn.Conv(8, (4, 4), strides=(4, 4), padding="VALID", name="embedding")(x)
        x = x.reshape(n, -1, 8)
        token = self.param("cls", nn.initializers.zeros_init(), (1, 1, 8))
        x = jnp.concatenate([jnp.tile(token, [n, 1, 1]), x], 1)
        y = nn.LayerNorm()(x)
        attention = nn.MultiHeadDotProductAttention(2, dropout_rate=0.1, name="attention")
        x = x + attention(y, y, deterministic=not train)
        x = x + nn.Dropout(0.1)(nn.Dense(8, name="mlp")(nn.gelu(x)), deterministic=not train)
        return nn.Dense(4, name="head")(x[:, 0])


class Mixer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (4, 4), strides=(4, 4), name="stem")(x)
        x = x.reshape(len(x), -1, 8)
        y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
        x = x + jnp.swapaxes(nn.Dense(16, name="token_mixing")(nn.gelu(y)), 1, 2)
        return nn.Dense(4, name="head")(x.mean(1))


@flax.struct.dataclass
class Detection:
    """As those of transformers: what is not there is None."""

    logits: jax.Array | None = None
    pred_boxes: jax.Array | None = None
    loss: jax.Array | None = None
    auxiliary_outputs: list[Any] | None = None


class DETR(nn.Module):
    @nn.compact
    def __call__(self, x):
        memory = nn.Conv(8, (4, 4), strides=(4, 4), name="backbone")(x).reshape(len(x), -1, 8)
        queries = self.param("queries", nn.initializers.normal(1.0), (5, 8))
        y = jnp.broadcast_to(queries, (len(x), 5, 8))
        classes, boxes = nn.Dense(4, name="classes"), nn.Dense(4, name="boxes")
        each = []
        for i in range(2):
            y = y + nn.MultiHeadDotProductAttention(2, name=f"decoder{i}")(y, memory)
            each.append({"logits": classes(y), "pred_boxes": nn.sigmoid(boxes(y))})
        last = each[-1]
        loss = jnp.abs(last["pred_boxes"]).mean()
        return Detection(last["logits"], last["pred_boxes"], loss, each[:-1])


class Gaussian:
    """As the distributions of diffusers, no pytree."""

    def __init__(self, parameters):
        self.mean, self.logvar = jnp.split(parameters, 2, axis=-1)

    def sample(self, key):
        return self.mean + jnp.exp(0.5 * self.logvar) * jax.random.normal(key, self.mean.shape)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Gaussian(nn.Conv(8, (3, 3), strides=2, name="conv")(x))


class DiffusersVAE(nn.Module):
    """Takes and gives channels first, and has them last inside."""

    @nn.compact
    def __call__(self, sample, sample_posterior=True):
        posterior = Encoder(name="encoder")(sample.transpose(0, 2, 3, 1))
        z = posterior.mean
        if sample_posterior:
            z = posterior.sample(self.make_rng("gaussian"))
        x = nn.ConvTranspose(3, (2, 2), strides=(2, 2), name="decoder")(z)
        return {"sample": x.transpose(0, 3, 1, 2), "posterior": posterior}


FIRST = fv.Input(size=SIZE, layout="NCHW")
NETWORKS = {
    "ResNet": (ResNet(), {"train": False}, {}, ("bn_init", (16, 16, 8)), "logits"),
    "ViT": (ViT(), {"train": False}, {}, ("attention", (17, 8)), "logits"),
    "Mixer": (Mixer(), {}, {}, ("token_mixing", (8, 16)), "logits"),
    "DETR": (DETR(), {}, {}, ("decoder1", (5, 8)), "output/logits"),
    "VAE": (DiffusersVAE(), {}, {"gaussian": 7}, ("encoder/conv", (8, 8, 8)), "sample"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("usual_promotions")
def test_a_well_known_structure(name):
    module, call, rngs, (layer, shape), result = NETWORKS[name]
    first = name == "VAE"
    x = np.moveaxis(image(), -1, 1) if first else image()
    keys = {stream: jax.random.key(seed) for stream, seed in rngs.items()}
    variables = module.init({"params": jax.random.key(0), **keys}, x, **call)
    takes = FIRST if first else fv.Input(size=SIZE)
    model = fv.from_linen(module, variables, input=takes, call=call, rngs=rngs or None)
    layers = model.layers()
    assert layers[layer] == shape
    acts = model(image())
    expected = functools.partial(module.apply, **call)(variables, x, rngs=keys)
    if name == "DETR":
        assert "one number" in model.left_out["output/loss"]
        assert layers["output/auxiliary_outputs/0/logits"] == (5, 4)
        expected = expected.logits
    if first:
        assert model.left_out["encoder"] == "a Gaussian, no array"
        assert model.left_out["posterior"] == "a Gaussian, no array"
    if isinstance(expected, dict):
        expected = np.moveaxis(expected["sample"], 1, -1)
    exact = 2e-2 if name == "ResNet" else 1e-4
    np.testing.assert_allclose(
        np.asarray(acts[result], np.float32), np.asarray(expected, np.float32), exact, exact
    )
    unit = f"{layer}:3"
    made = fv.synthesize(model, unit, steps=1, transform="none", progress=False)
    assert np.isfinite(made.images).all()


class Contrasting(nn.Module):
    """As CLIP: the scores of texts for images, and of images for texts."""

    @nn.compact
    def __call__(self, ids, pixels):
        texts = nn.Dense(6, name="text")(nn.Embed(99, 8, name="embed")(ids).mean(1))
        images = nn.Dense(6, name="image")(pixels.mean((1, 2)))
        return {"per_image": images @ texts.T, "per_text": texts @ images.T}


@pytest.mark.parametrize("count", [1, 3, 13, 15, 17])
def test_as_many_texts_as_images_of_the_dry_run(count):
    ids = np.arange(4 * count).reshape(count, 4) % 99
    module = Contrasting()
    variables = module.init(jax.random.key(0), ids, image())
    model = fv.from_linen(
        module,
        variables,
        input=fv.Input(size=(13, 15)),
        image="pixels",
        call={"ids": ids},
        logits="per_image",
    )
    layers = {"image": (6,), "per_image": (count,), "logits": (count,)}
    assert model.layers() == layers
    assert set(model.left_out) == {"embed", "text", "per_text"}
