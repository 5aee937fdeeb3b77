import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis
import featvis.loading
from featvis.errors import InputError
from featvis.zoo.networks.vit import VisionTransformer

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SMALL = VisionTransformer(patch=4, width=12, depth=2, heads=3, hidden=20, grid=3, outputs=7)
# Parameters as published, in millions; patch, patches a side, width, heads, MLP, layers at the end.
ENTRIES = {
    "vit_small_patch16": (22.05, 16, 14, 384, 6, {"pool": 384, "logits": 1000}),
    "vit_base_patch16": (86.57, 16, 14, 768, 12, {"pool": 768, "logits": 1000}),
    "vit_base_patch16_torchvision": (86.57, 16, 14, 768, 12, {"pool": 768, "logits": 1000}),
    "dinov2_small_patch14": (22.06, 14, 16, 384, 6, {"features": 384}),
    "clip_base_patch32": (87.85, 32, 7, 768, 12, {"pool": 768, "projection": 512}),
}


# As the rest of the package runs it: one compile for each size.
run = jax.jit(SMALL)


@pytest.fixture(scope="module")
def params():
    # Biases and normalisations as of a trained network, not as before training.
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda a: a + 0.3 * rng.normal(size=a.shape).astype(np.float32), SMALL.random_params()
    )


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ENTRIES)
def test_parameters_are_those_published(name):
    entry = featvis.loading.entry(name)
    found = sum(int(np.prod(shape)) for shape in entry.architecture().shapes().values())
    assert found == entry.parameters
    assert round(found / 1e6, 2) == ENTRIES[name][0]


def expected_layers(rows, columns, width, heads, last, pre_norm):
    tokens = rows * columns + 1
    shapes = {"embeddings": (tokens, width)}
    if pre_norm:
        shapes["norm_pre"] = (tokens, width)
    for i in range(12):
        shapes |= {f"block{i}/head{h}": (tokens, width // heads) for h in range(heads)}
        shapes |= {
            f"block{i}/attention": (tokens, width),
            f"block{i}/mlp/hidden": (tokens, 4 * width),
            f"block{i}/mlp": (tokens, width),
            f"block{i}": (tokens, width),
            f"block{i}/map": (rows, columns, width),
        }
    return {**shapes, "norm": (tokens, width), **{name: (size,) for name, size in last.items()}}


@pytest.mark.parametrize("name", ENTRIES)
def test_layers_in_forward_order(name):
    model = featvis.loading.outline(name)
    _, patch, side, width, heads, last = ENTRIES[name]
    for size, rows, columns in [(None, side, side), ((patch, 3 * patch), 1, 3)]:
        layers = model.layers(size)
        expected = expected_layers(rows, columns, width, heads, last, name.startswith("clip"))
        assert list(layers) == list(expected)
        assert layers == expected


@pytest.mark.parametrize("name", ENTRIES)
def test_only_whole_patches(name):
    model = featvis.loading.outline(name)
    patch = ENTRIES[name][1]
    with pytest.raises(InputError, match=f"multiples of {patch} pixels"):
        model.layers((2 * patch, 3 * patch + 1))
    with pytest.raises(InputError, match=f"at least {patch}x{patch} pixels"):
        model.layers((patch, patch - 1))


@pytest.mark.thorough
def test_maps_are_the_patches_row_by_row(params, image):
    acts = run(params, image[:, :8])
    assert acts["block1/map"].shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(acts["block1/map"][:, 1, 0], acts["block1"][:, 1 + 3])


@pytest.mark.thorough
def test_heads_projected_are_the_attention(params, image):
    acts = run(params, image)
    output = params["block1"]["attention"]["output"]
    heads = jnp.concatenate([acts[f"block1/head{h}"] for h in range(3)], -1)
    np.testing.assert_allclose(
        acts["block1/attention"], heads @ output["kernel"] + output["bias"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        acts["block1"],
        acts["block0"] + acts["block1/attention"] + acts["block1/mlp"],
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_head_averages_its_values(params, image):
    # With the same query for all tokens, each attends alike: a head is the same everywhere.
    attention = params["block0"]["attention"]
    blind = {**attention, "query": jax.tree.map(jnp.zeros_like, attention["query"])}
    acts = run({**params, "block0": {**params["block0"], "attention": blind}}, image)
    head = acts["block0/head1"]
    np.testing.assert_allclose(
        head, jnp.broadcast_to(head[:, :1], head.shape), rtol=1e-4, atol=1e-6
    )


def test_a_permutation_of_the_patches_permutes_the_tokens(params, image):
    params = {**params, "positions": jnp.zeros_like(params["positions"])}
    order = np.random.default_rng(2).permutation(9)
    patches = image.reshape(2, 3, 4, 3, 4, 3).swapaxes(2, 3).reshape(2, 9, 4, 4, 3)[:, order]
    moved = patches.reshape(2, 3, 3, 4, 4, 3).swapaxes(2, 3).reshape(image.shape)
    before, after = run(params, image), run(params, moved)
    for name, tokens in before.items():
        if not name.endswith("/map"):
            expected = tokens[:, [0, *(1 + order)]] if tokens.ndim == 3 else tokens
            np.testing.assert_allclose(after[name], expected, rtol=1e-3, atol=1e-5, err_msg=name)
    assert not np.allclose(before["block1"], after["block1"], atol=1e-2)


def test_positions_tell_patches_apart(params, image):
    flat = np.ones_like(image)
    tokens = run(params, flat)["embeddings"][0]
    expected = tokens[1] - params["positions"][1] + params["positions"][1:]
    np.testing.assert_allclose(tokens[1:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [(4, 4), (8, 20), (36, 12)])
def test_interpolated_positions_keep_a_constant(size, params):
    grid = jnp.full((9, 12), 2.5)
    constant = {**params, "positions": jnp.concatenate([jnp.zeros((1, 12)), grid])}
    zero = {**params, "positions": jnp.zeros((10, 12))}
    images = np.zeros((1, *size, 3), np.float32)
    found = run(constant, images)["embeddings"] - run(zero, images)["embeddings"]
    np.testing.assert_allclose(found[:, 1:], 2.5, rtol=1e-5)
    np.testing.assert_array_equal(found[:, 0], 0)


@pytest.mark.thorough
def test_a_scale_of_zero_leaves_the_stream_alone(image):
    scaled = VisionTransformer(
        patch=4, width=12, depth=1, heads=3, hidden=20, grid=3, head="features", outputs=None,
        layer_scale=True,
    )  # fmt: skip
    params = scaled.random_params()
    params["block0"] |= {name: jnp.zeros(12) for name in ("attention_scale", "mlp_scale")}
    acts = scaled(params, image)
    np.testing.assert_array_equal(acts["block0"], acts["embeddings"])
    assert np.abs(acts["block0/attention"]).max() > 0.1
    np.testing.assert_array_equal(acts["features"], acts["norm"][:, 0])


@pytest.mark.thorough
def test_an_image_has_a_gradient_everywhere(params, image):
    def score(image):
        return SMALL(params, image)["block1/mlp/hidden"][..., 2].sum()

    gradient = jax.jit(jax.grad(score))(image)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).reshape(2, -1) > 0).mean() > 0.99


def test_images_of_a_batch_do_not_meet(params, image):
    other = np.stack([image[0], -image[1]])
    before, after = run(params, image)["logits"], run(params, other)["logits"]
    np.testing.assert_allclose(before[0], after[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(before[1], after[1], atol=1e-2)
