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
    # The class's own map is below 0 everywhere: what speaks against it is above.
    with pytest.warns(fv.SilenceWarning, match="image 0 by grad_cam is 0 everywhere, and 1 more"):
        assert not fv.explain(model, "logits:1", IMAGES, "grad_cam", layer="coarse").maps.any()
    against = fv.explain(model, "-logits:1", IMAGES, "grad_cam", layer="coarse").maps
    assert against.any()
    np.testing.assert_allclose(against, enlarged(np.maximum(-cam, 0)), rtol=1e-4, atol=1e-6)


# Of one image nothing is above 0 by Layer-CAM.
@pytest.mark.filterwarnings("ignore::featvis.SilenceWarning")
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


def _over(a, b):
    """The quotient, and 0 by 0: the first token is nothing at first."""
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def _positive(x, weights, r):
    """The z⁺-rule of a product with weights, (tokens, in) and (tokens, out)."""
    contributed = np.maximum(x[:, :, None] * weights, 0)
    return (contributed * _over(r, contributed.sum(1))[:, None]).sum(-1)


def _relevances(weights, tokens, attentions, row):
    """Of the attentions of one image by Chefer et al. 2021 (section 3.1), from the last one on."""
    weights = {name: np.asarray(one, np.float64) for name, one in weights.items()}
    passed = [np.asarray(one, np.float64) for one in tokens]
    r = np.zeros_like(passed[2])
    r[:1] = _positive(passed[2][:1], weights["logits"][:, row : row + 1], np.ones((1, 1)))
    found = []
    for number in (1, 0):
        x, attention = passed[number], np.asarray(attentions[number], np.float64)
        q, k, v = ((x @ weights[n]).reshape(7, 2, 3) for n in ("query", "key", "value"))
        mixed = np.einsum("hqk,khd->qhd", attention, v)
        share = _over(r, passed[number + 1])
        r, of_mixed = x * share, mixed * share.reshape(7, 2, 3)
        s = _over(of_mixed, mixed) / 2
        of_attention = attention * np.einsum("qhd,khd->hqk", s, v)
        of_value = v * np.einsum("hqk,qhd->khd", attention, s)
        found.append(of_attention)
        s = _over(of_attention, np.einsum("qhd,khd->hqk", q, k)) / 2
        of_query = q * np.einsum("hqk,khd->qhd", s, k)
        of_key = k * np.einsum("hqk,qhd->khd", s, q)
        for name, part in (("query", of_query), ("key", of_key), ("value", of_value)):
            r = r + _positive(x, weights[name], part.reshape(7, 6))
    return found[::-1]


@pytest.mark.thorough
def test_relevance_of_attention_is_rolled_out(transformer):
    weights = transformer.params.weights
    parts = IMAGES.reshape(2, 2, 3, 3, 3, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 27)
    tokens = [jnp.pad(parts @ weights["in"], ((0, 0), (1, 0), (0, 0)))]
    attentions = []
    for _ in range(2):
        attentions.append(_weights_of(weights, tokens[-1]))
        tokens.append(_mixed(weights, tokens[-1], attentions[-1]))

    def score(first, second):
        between = _mixed(weights, tokens[0], first)
        second = _weights_of(weights, between) if second is None else second
        return jnp.sum(_mixed(weights, between, second)[:, 0] @ weights["logits"][:, 1])

    gradients = [jax.grad(score)(attentions[0], None), jax.grad(score, 1)(*attentions)]
    truth = []
    for image in range(2):
        relevant = _relevances(
            weights, [one[image] for one in tokens], [one[image] for one in attentions], 1
        )
        rolled = np.eye(7)
        for of_attention, gradient in zip(relevant, gradients, strict=True):
            own = np.maximum(of_attention * np.asarray(gradient[image]), 0).mean(0)
            rolled = rolled + own @ rolled
        truth.append(rolled[0, 1:].reshape(2, 3))
    found = fv.explain(
        transformer, "logits:1", IMAGES, "transformer_attribution", factor="relevance"
    ).maps
    truth = enlarged(np.stack(truth).astype(np.float32))
    np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-5 * np.abs(truth).max())


def test_tokens_are_positions_too(transformer):
    tokens = np.asarray(transformer(IMAGES)["tokens"])[:, 1:]
    # Of a channel's mean over all tokens the gradient is the same at each.
    found = fv.explain(transformer, "tokens:2", IMAGES, "layer_cam", layer="tokens").maps
    truth = np.maximum(tokens[..., 2].reshape(2, 2, 3), 0) / 7
    np.testing.assert_allclose(found, enlarged(truth), rtol=1e-4, atol=1e-6)
