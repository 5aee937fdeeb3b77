"""What holds for every attribution method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import CASES
from compiles import Compiled

import featvis as fv
from featvis.attribution import methods

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SIDE = 24
#: What the units read, in pixels: one patch, which is also one token of nine.
PATCH = (slice(8, 16), slice(8, 16))


def _network(weights, image):
    """Units that read one patch; and units of attention among nine tokens and one more."""
    seen = jnp.zeros_like(image).at[:, PATCH[0], PATCH[1]].set(image[:, PATCH[0], PATCH[1]])
    found = {"map": jax.nn.relu(seen @ weights["map"] - 0.1)}
    found["score"] = found["map"].mean((1, 2)) @ weights["score"]
    patches = image.reshape(len(image), 3, 8, 3, 8, 3).mean((2, 4)).reshape(len(image), 9, 3)
    tokens = jnp.pad(patches @ weights["tokens"], ((0, 0), (1, 0), (0, 0)))
    for _ in range(2):
        scores = jnp.einsum("nqd,nkd->nqk", tokens, tokens)[:, None]
        tokens = tokens + jnp.einsum("nhqk,nkd->nqd", jax.nn.softmax(scores), tokens)
    found["tokens"] = tokens
    found["read"] = tokens[:, 0] @ weights["score"]
    return found


@pytest.fixture(scope="module")
def model():
    random = np.random.default_rng(0)
    shapes = {"map": (3, 6), "tokens": (3, 6), "score": (6, 4)}
    weights = {n: jnp.asarray(random.uniform(-0.5, 1, s), jnp.float32) for n, s in shapes.items()}
    return fv.from_function(_network, weights, input=fv.Input(size=(SIDE, SIDE), fixed_size=True))


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(1)
    return random.uniform(0.3, 0.9, (2, SIDE, SIDE, 3)).astype(np.float32)


def test_every_method_has_a_case():
    ours = [n for n, one in methods().items() if one.function.__module__.startswith("featvis.")]
    assert [case.name for case in CASES] == ours


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_method(case, model, images):
    options = dict(case.options)
    if case.name in ("lime", "kernel_shap"):
        pytest.importorskip("sklearn")
    if case.name == "expected_gradients":
        options["references"] = np.zeros((2, SIDE, SIDE, 3))
    layer = "read" if case.tokens else "score"
    found = fv.explain(model, f"{layer}:1", images, case.name, seed=3, **options)
    assert found.maps.shape == (2, SIDE, SIDE)
    assert found.maps.dtype == np.float32
    assert np.isfinite(found.maps).all()
    assert found.maps.any(axis=(1, 2)).all()
    assert case.signed or (found.maps >= 0).all()
    # Another unit of the layer and other images compile nothing.
    with Compiled() as compiled:
        fv.explain(model, f"{layer}:2", images[::-1] / 2, case.name, seed=4, **options)
    assert not compiled.names
    again = fv.explain(model, f"{layer}:1", images, case.name, seed=3, **options)
    np.testing.assert_array_equal(again.maps, found.maps)
    if not (case.tokens or case.coarse):
        # What nobody reads has no part in it: of the 64 largest, without zeros, nine tenths do.
        inside = np.zeros((SIDE, SIDE), bool)
        inside[PATCH] = True
        for one in np.abs(found.maps):
            largest = [place for place in np.argsort(one.ravel())[-64:] if one.ravel()[place]]
            assert inside.ravel()[largest].mean() >= 0.9
