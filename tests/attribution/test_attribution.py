import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import Compiled
from networks import TOY_SIZE

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def saliency(model, objective, images):
    return fv.explain(model, objective, images, "saliency").maps


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    return rng.uniform(size=(3, *TOY_SIZE, 3)).astype(np.float32)


# ---- ground truths -------------------------------------------------------------------------


def test_a_linear_score_has_its_largest_weight_as_saliency(toy, images):
    # Simonyan et al. 2013, section 3: S = w I, so that dS/dI is w whatever the image.
    found = saliency(toy, fv.Channel("linear", 1), images)
    wanted = np.abs(np.asarray(toy.params["linear"][..., 1])).max(-1)
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=1e-6)


def test_each_image_has_the_saliency_of_its_own_class(toy, images):
    found = saliency(toy, fv.Logit([2, 0, 3], layer="linear"), images)
    weights = np.asarray(toy.params["linear"])
    for one, index in zip(found, (2, 0, 3), strict=True):
        np.testing.assert_allclose(one, np.abs(weights[..., index]).max(-1), rtol=1e-6)


def test_it_is_that_of_finite_differences(toy, images):
    image, step = images[0].astype(np.float64), 1e-2
    objective = fv.LogProbability(2)
    found = saliency(toy, objective, image)[0]
    for y, x in ((0, 0), (5, 7), (11, 15)):
        slopes = []
        for colour in range(3):
            both = np.stack([image, image])
            both[:, y, x, colour] += (step, -step)
            up, down = np.asarray(objective(toy(jnp.float32(both)), both))
            slopes.append((up - down) / (2 * step))
        np.testing.assert_allclose(found[y, x], np.abs(slopes).max(), rtol=0.05, atol=1e-5)


def test_a_neuron_is_blind_beyond_its_receptive_field(toy, images):
    found = saliency(toy, "conv:1@4,9", images[:1])[0]
    field = np.zeros(TOY_SIZE, bool)
    field[3:6, 8:11] = True
    assert np.all(found[field] > 0)
    assert np.all(found[~field] == 0)


def test_a_prior_counts_as_the_image_sees_it(toy, images):
    plain = saliency(toy, fv.Channel("linear", 1) - 0.0 * fv.L2(), images)
    np.testing.assert_allclose(plain, saliency(toy, "channel('linear', 1)", images), rtol=1e-6)
    image = images[0]
    found = saliency(toy, -1.0 * fv.L2(), image)[0]
    wanted = jax.grad(lambda one: fv.L2()({}, one[None])[0])(image)
    np.testing.assert_allclose(found, np.abs(wanted).max(-1), rtol=1e-5)


# ---- shapes, compiling, bad input ----------------------------------------------------------


def test_an_image_alone_is_a_batch_of_one_and_neighbours_do_not_matter(toy, images):
    together = saliency(toy, "conv:2 - tv", images)
    assert together.shape == (3, *TOY_SIZE)
    alone = saliency(toy, "conv:2 - tv", images[1])
    assert alone.shape == (1, *TOY_SIZE)
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-5, atol=1e-8)


def test_another_class_weight_or_image_compiles_nothing(toy, images):
    saliency(toy, fv.Logit(0) - 0.1 * fv.TotalVariation(), images)
    with Compiled() as compiled:
        maps = [
            saliency(toy, fv.Logit(index) - weight * fv.TotalVariation(), images[::-1])
            for index, weight in ((1, 0.1), (np.int64(4), 0.3), (jnp.int32(2), 2.0))
        ]
        saliency(toy, fv.parse("logits:3 - 0.5*tv"), images.astype(np.float64))
    assert compiled.count("explained") == 0
    assert np.abs(maps[0] - maps[1]).max() > 1e-4
    with Compiled() as compiled:
        saliency(toy, fv.Logit(0), images)
    assert compiled.count("explained") == 1


def test_bad_arguments_are_said(toy, images):
    with pytest.raises(fv.InputError, match=r"got an array \(12, 16\)"):
        saliency(toy, "logits:1", images[0, ..., 0])
    with pytest.raises(fv.InputError, match=r"got an array \(0, 12, 16, 3\)"):
        saliency(toy, "logits:1", images[:0])
    with pytest.raises(fv.InputError, match="3 channels, got 1"):
        saliency(toy, "logits:1", images[..., :1])
    with pytest.raises(fv.InputError, match="at least 8x8"):
        saliency(toy, "logits:1", images[:, :4])
    with pytest.raises(fv.InputError, match=r"in \[0, 1\]; got values from 0.* to 255"):
        saliency(toy, "logits:1", images / images.max() * 255)
    with pytest.raises(fv.InputError, match=r"in \[0, 1\]; got values from nan"):
        saliency(toy, "logits:1", np.where(images > 0.9, np.nan, images))
    with pytest.raises(fv.ObjectiveError, match="units 0 to 4"):
        saliency(toy, "logits:5", images)
    with pytest.raises(fv.UnknownLayer, match="nearest: conv"):
        saliency(toy, "cnv:1", images)
    with pytest.raises(fv.ObjectiveError, match="made for 2 images; the batch has 3"):
        saliency(toy, fv.Logit([0, 1]), images)
    with pytest.raises(fv.InputError, match="must be an Objective, its text or a function; got 3"):
        saliency(toy, 3, images)
    with pytest.raises(fv.UnknownModel, match="efficientnet_lite0"):
        saliency("efficientnet_lite", "logits:1", images)
