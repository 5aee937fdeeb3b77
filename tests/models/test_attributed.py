"""How much a score depends on a layer, as a layer: against derivatives by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import Compiled

import featvis as fv

SIZE = (4, 5)
RNG = np.random.default_rng(0)
WEIGHTS = {
    "a": RNG.normal(size=(3, 6)).astype(np.float32),
    "v": RNG.normal(size=(6, 2)).astype(np.float32),
}


def apply(params, image):
    """The score k is the sum over positions of v_k . a^2: its gradient by a is 2 v_k a."""
    a = image @ params["a"]
    return {"a": a, "beside": image * 2, "logits": (a**2 @ params["v"]).sum((1, 2))}


@pytest.fixture(scope="module")
def model():
    return fv.from_function(apply, WEIGHTS, input=fv.Input(SIZE), name="square")


@pytest.fixture(scope="module")
def images():
    return RNG.uniform(size=(2, *SIZE, 3)).astype(np.float32)


def test_the_attribution_is_the_gradient_of_the_score_by_the_layer(model, images):
    found = fv.attributed(model, "logits:1", "a")(images)
    wanted = 2 * WEIGHTS["v"][:, 1] * (images @ WEIGHTS["a"])
    np.testing.assert_allclose(found["a/attribution"], wanted, rtol=1e-5)
    for layer, values in model(images).items():
        np.testing.assert_array_equal(found[layer], values)


@pytest.mark.thorough
def test_a_facet_counts_what_the_unit_asks_for_and_its_gradient_is_by_the_layer(model, images):
    probe = RNG.normal(size=6).astype(np.float32)
    network, facet = fv.attributed(model, "logits:1", ["a"]), fv.Facet("a", probe)

    def score(images):
        return facet(fv.Activations(network.apply(network.params, images)), images)

    a = images @ WEIGHTS["a"]
    wanted = probe * np.maximum(2 * WEIGHTS["v"][:, 1] * a, 0)
    np.testing.assert_allclose(score(images), (wanted * a).sum((1, 2, 3)), rtol=1e-4)
    # The attribution is a constant of the step.
    gradient = jax.grad(lambda x: score(x).sum())(jnp.asarray(images))
    np.testing.assert_allclose(gradient, wanted @ WEIGHTS["a"].T, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_a_picture_of_a_facet_and_another_unit_of_the_layer_compiles_nothing(model):
    facet = fv.Facet("a", np.eye(6, dtype=np.float32)[2])

    def run(unit):
        network = fv.attributed(model, f"logits:{unit}", "a")
        objective = fv.Logit(unit) + 5 * facet
        way = fv.Pixels(SIZE)
        return fv.synthesize(network, objective, way, steps=4, transform="none", progress=False)

    first = run(0)
    assert np.isfinite(first.clean_scores).all()
    with Compiled() as programs:
        second = run(1)
    assert programs.steps == 0
    assert np.abs(first.images - second.images).max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("logits:0", []), "at least one layer"),
        (("logits:0", "b"), "it has: a, beside, logits"),
        (("logits:0", "beside"), "does not depend on beside"),
        (("logits:7", "a"), "has units 0 to 1"),
        (("logits:[0, 1]", "a"), "made for 2 images"),
    ],
)
def test_what_has_no_attribution(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        fv.attributed(model, *arguments)


def test_a_facet_of_a_network_without_attribution_says_how(model):
    with pytest.raises(fv.ObjectiveError, match=r"featvis\.attributed"):
        fv.synthesize(model, fv.Facet("a", np.ones(6)), fv.Pixels(SIZE), steps=1, progress=False)
