"""Methods of a layer's maps and of attention against formulas written down a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")
RANDOM = np.random.default_rng(0)
SIZE = (6, 9)
IMAGES = RANDOM.uniform(size=(2, *SIZE, 3)).astype(np.float32)


def _pooling(weights, image):
    fine = jnp.tanh(image @ weights["fine"])
    coarse = jax.nn.relu(fine.reshape(len(image), 2, 3, 3, 3, 5).mean((2, 4)) @ weights["coarse"])
    return {
        "fine": fine,
        "coarse": coarse,
        "beside": coarse**2,
        "logits": coarse.mean((1, 2)) @ weights["logits"],
    }


@pytest.fixture(scope="module")
def model():
    shapes = {"fine": (3, 5), "coarse": (5, 7), "logits": (7, 4)}
    weights = {n: jnp.asarray(RANDOM.normal(size=s), jnp.float32) for n, s in shapes.items()}
    return fv.from_function(_pooling, weights, input=fv.Input(size=SIZE, fixed_size=True))


@pytest.fixture(scope="module")
def known(model):
    """A coarse map, the gradient of a logit by it, and both of the fine one."""
    coarse = np.asarray(model(IMAGES)["coarse"])
    gradient = np.broadcast_to(np.asarray(model.params.weights["logits"][:, 1]) / 6, coarse.shape)
    fine = np.asarray(model(IMAGES)["fine"])

    def score(fine):
        pooled = fine.reshape(2, 2, 3, 3, 3, 5).mean((2, 4))
        part = jax.nn.relu(pooled @ model.params.weights["coarse"])
        return jnp.sum(part.mean((1, 2)) @ model.params.weights["logits"][:, 1])

    return coarse, gradient, fine, np.asarray(jax.grad(score)(jnp.asarray(fine)))


def enlarged(maps):
    return np.asarray(jax.image.resize(maps, (2, *SIZE), "linear"))


@pytest.mark.thorough
def test_of_global_pooling_it_is_the_class_activation_map(model, known):
    # Zhou et al. 2016: the map weighted with the class's weights; here over the positions.
    coarse = known[0]
    cam = coarse @ np.asarray(model.params.weights["logits"][:, 1]) / 6
    found = fv.explain(model, "logits:1", IMAGES, "grad_cam", signed=True)
    np.testing.assert_allclose(found.maps, enlarged(cam), rtol=1e-4, atol=1e-6)
    above = fv.explain(model, "logits:1", IMAGES, "grad_cam", layer="coarse").maps
    np.testing.assert_allclose(above, enlarged(np.maximum(cam, 0)), rtol=1e-4, atol=1e-6)


def test_the_other_maps_are_their_formulas(model, known):
    coarse, gradient, fine, by_fine = known
    found = fv.explain(model, "logits:1", IMAGES, "grad_cam_plus_plus", layer="fine").maps
    # Where all weights are: g² / (2 g² + Σ A g³), times the gradient above 0.
    alpha = by_fine**2 / (2 * by_fine**2 + fine.sum((1, 2), keepdims=True) * by_fine**3 + 1e-30)
    weight = (alpha * np.maximum(by_fine, 0)).sum((1, 2), keepdims=True)
    truth = np.maximum((fine * weight).sum(-1), 0)
    np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-5 * truth.max())
    found = fv.explain(model, "logits:1", IMAGES, "layer_cam", layer="fine").maps
    truth = np.maximum((fine * np.maximum(by_fine, 0)).sum(-1), 0)
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-7)

    def own(maps, gradient):
        one = np.maximum((maps * gradient).sum(-1), 0)
        low, high = one.min((1, 2), keepdims=True), one.max((1, 2), keepdims=True)
        return (one - low) / np.where(high > low, high - low, 1)

    truth = np.maximum(enlarged(own(coarse, gradient)), own(fine, by_fine))
    found = fv.explain(model, "logits:1", IMAGES, "zoom_cam").maps
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-6)
    found = fv.explain(model, "logits:1", IMAGES, "zoom_cam", layers="fine").maps
    np.testing.assert_allclose(found, own(fine, by_fine), rtol=1e-4, atol=1e-6)


def test_a_layer_that_will_not_do_is_said(model):
    def refused(unit, layer, match, error=fv.InputError):
        with pytest.raises(error, match=match):
            fv.explain(model, unit, IMAGES, "grad_cam", layer=layer)

    refused("logits:1", "logits", r"'logits' is \(4,\) and has no positions; .*: fine, coarse")
    refused("logits:1", "beside", "does not depend on layer 'beside'; .*: fine, coarse")
    refused("fine:1", "coarse", "does not depend on layer 'coarse'")
    refused("logits:1", "coarsest", "nearest: coarse", fv.UnknownLayer)
    with pytest.raises(fv.InputError, match=r"no softmax attention .*grad_cam"):
        fv.explain(model, "logits:1", IMAGES, "attention_rollout")


# ---- attention ------------------------------------------------------------------------------


def _weights_of(weights, tokens):
    query, key = (tokens @ weights[name] for name in ("query", "key"))
    apart = (len(tokens), 7, 2, 3)
    scores = jnp.einsum("nqhd,nkhd->nhqk", query.reshape(apart), key.reshape(apart))
    return jax.nn.softmax(scores)


def _mixed(weights, tokens, attention):
    value = (tokens @ weights["value"]).reshape(len(tokens), 7, 2, 3)
    return tokens + jnp.einsum("nhqk,nkhd->nqhd", attention, value).reshape(tokens.shape)


def _tokens(weights, image):
    parts = image.reshape(len(image), 2, 3, 3, 3, 3).transpose(0, 1, 3, 2, 4, 5)
    tokens = jnp.pad(parts.reshape(len(image), 6, 27) @ weights["in"], ((0, 0), (1, 0), (0, 0)))
    for _ in range(2):
        tokens = _mixed(weights, tokens, _weights_of(weights, tokens))
    return {"tokens": tokens, "logits": tokens[:, 0] @ weights["logits"]}


@pytest.fixture(scope="module")
def transformer():
    shapes = {"in": (27, 6), **dict.fromkeys(("query", "key", "value"), (6, 6)), "logits": (6, 4)}
    weights = {n: jnp.asarray(RANDOM.normal(size=s), jnp.float32) for n, s in shapes.items()}
    return fv.from_function(_tokens, weights, input=fv.Input(size=SIZE, fixed_size=True))


@pytest.mark.thorough
def test_attention_is_rolled_out(transformer):
    weights = transformer.params.weights
    parts = IMAGES.reshape(2, 2, 3, 3, 3, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 27)
    start = jnp.pad(parts @ weights["in"], ((0, 0), (1, 0), (0, 0)))
    first = _weights_of(weights, start)
    second = _weights_of(weights, _mixed(weights, start, first))

    def score(first, second):
        end = _mixed(weights, _mixed(weights, start, first), second)
        return jnp.sum(end[:, 0] @ weights["logits"][:, 1])

    # The second attention is one of its own here; in the network it follows from the first.
    def whole(first):
        between = _mixed(weights, start, first)
        return score(first, _weights_of(weights, between))

    gradients = jax.grad(whole)(first), jax.grad(score, 1)(first, second)
    plain = [np.asarray(one).mean(1) / 2 + np.eye(7) / 2 for one in (first, second)]
    truth = (plain[1] @ plain[0])[:, 0, 1:].reshape(2, 2, 3)
    found = fv.explain(transformer, "logits:1", IMAGES, "attention_rollout").maps
    np.testing.assert_allclose(found, enlarged(truth), rtol=1e-4)
    relevant = [
        np.maximum(np.asarray(one * gradient), 0).mean(1)
        for one, gradient in zip((first, second), gradients, strict=True)
    ]
    rolled = np.eye(7) + relevant[0]
    rolled = rolled + relevant[1] @ rolled
    found = fv.explain(transformer, "logits:1", IMAGES, "transformer_attribution").maps
    truth = enlarged(rolled[:, 0, 1:].reshape(2, 2, 3))
    np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-5)


def test_tokens_are_positions_too(transformer):
    tokens = np.asarray(transformer(IMAGES)["tokens"])[:, 1:]
    # Of a channel's mean over all tokens the gradient is the same at each.
    found = fv.explain(transformer, "tokens:2", IMAGES, "layer_cam", layer="tokens").maps
    truth = np.maximum(tokens[..., 2].reshape(2, 2, 3), 0) / 7
    np.testing.assert_allclose(found, enlarged(truth), rtol=1e-4, atol=1e-6)
