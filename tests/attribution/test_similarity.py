"""Where two images are alike, against the sum that it is a part of."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featvis as fv
from featvis.attribution import similarity

RANDOM = np.random.default_rng(0)


def cosine(first, second, pooling):
    pooled = [getattr(np, {"average": "mean", "max": "max"}[pooling])(one, (0, 1))
              for one in (first, second)]  # fmt: skip
    return pooled[0] @ pooled[1] / np.linalg.norm(pooled[0]) / np.linalg.norm(pooled[1])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["average", "max"]),
    st.tuples(*[st.integers(1, 5)] * 5),
)
def test_the_shares_sum_to_the_cosine(seed, pooling, sides):
    random = np.random.default_rng(seed)
    first = random.normal(size=(*sides[:2], sides[4]))
    second = random.normal(size=(*sides[2:4], sides[4]))
    found = similarity(first, second, pooling)
    truth = cosine(first, second, pooling)
    for share in (found.pairs, found.first, found.second):
        assert abs(share.sum() - truth) < 1e-5
    np.testing.assert_allclose(found.cosine, truth, atol=1e-9)
    np.testing.assert_allclose(found.pairs.sum((2, 3)), found.first, atol=1e-9)


def test_of_the_maximum_only_the_places_of_maxima_count():
    first, second = np.zeros((2, 3, 2)), np.zeros((4, 2, 2))
    first[1, 2] = 3, 0
    first[0, 0] = 0, 4
    second[3, 1] = 5, 5
    found = similarity(first, second, "max")
    pairs = np.zeros((2, 3, 4, 2))
    pairs[1, 2, 3, 1], pairs[0, 0, 3, 1] = 15, 20
    np.testing.assert_allclose(found.pairs, pairs / (5 * 50**0.5))


@pytest.fixture(scope="module")
def pair():
    """Two images with a red square in one place each, and what is no square different."""
    images = RANDOM.uniform(0, 0.2, (2, 16, 24, 3)).astype(np.float32)
    images[..., 0] = 0
    images[0, 2:6, 4:8] = images[1, 10:14, 16:20] = 1, 0, 0
    return images


@pytest.fixture(scope="module")
def embedding():
    def network(weights, image):
        parts = image.reshape(len(image), 4, 4, 6, 4, 3).mean((2, 4))
        return {"map": parts @ weights, "vector": parts.mean((1, 2))}

    weights = jnp.asarray([[4.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    return fv.from_function(network, weights, input=fv.Input(size=(16, 24)))


def test_what_two_images_have_in_common_stands_out(embedding, pair, tmp_path):
    found = fv.explain_pair(embedding, pair[0], pair[1])
    assert found.layer == "map"
    assert found.maps.shape == (2, 16, 24)
    values = np.asarray(embedding(pair)["map"])
    np.testing.assert_allclose(found.cosine, cosine(*values, "average"), rtol=1e-5)
    for one, row in zip(found.shares[2:], (0, 2), strict=True):
        assert np.unravel_index(one.argmax(), one.shape)[0] in (row, row + 1)
    # The red square of the first is like that of the second.
    spot = found.at(1, 1)
    assert spot[8:16, 14:22].max() == spot.max()
    path = found.save(tmp_path / "pair.png")
    assert path.with_suffix(".json").exists()
    assert "cosine" in found._repr_html_()
    for row in (4, 0.5, "1"):
        with pytest.raises(fv.InputError, match="4 x 6 positions"):
            found.at(row, 0)
    assert found.at(np.int64(1), 1).shape == spot.shape


def test_a_pair_that_has_no_cosine_is_said(embedding, pair):
    with pytest.raises(fv.InputError, match="of 3 and of 2 channels"):
        similarity(np.ones((2, 2, 3)), np.ones((2, 2, 2)))
    for wrong in ("map", [[1], [2, 3]], 1j * np.ones((2, 2, 3))):
        with pytest.raises(fv.InputError, match=r"a map \(h, w, c\) must be an array of real"):
            similarity(wrong, np.ones((2, 2, 3)))
    with pytest.raises(fv.InputError, match="second map is zero"):
        similarity(np.ones((2, 2, 3)), np.zeros((2, 2, 3)))
    with pytest.raises(fv.InputError, match="one of average, max, not 'mean'"):
        fv.explain_pair(embedding, pair[0], pair[1], pooling="mean")
    for model in (3, embedding.apply):
        with pytest.raises(fv.InputError, match=r"model is a featvis\.Model, or"):
            fv.explain_pair(model, pair[0], pair[1])
    with pytest.raises(fv.InputError, match="two images of one size"):
        fv.explain_pair(embedding, pair, pair[1])
    with pytest.raises(fv.InputError, match=r"'vector' is \(3,\) and has no positions; maps: map"):
        fv.explain_pair(embedding, pair[0], pair[1], layer="vector")
    with pytest.raises(fv.NonFiniteError):
        similarity(np.full((1, 1, 1), np.nan), np.ones((1, 1, 1)))
